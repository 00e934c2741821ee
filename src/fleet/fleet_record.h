/*
 * fleet_record: what a fleet keeps. Private to fleet*.c.
 */
#pragma once

#define HASH_FUNCTION HASH_SAX /* the default one falls through its cases, which clang refuses */
#include <uthash.h>

#include "fleet/fleet.h"
#include "fleet/identity.h"

/* A model of a record that is gone. */
struct lost {
	UT_hash_handle hh;
	uint64_t since_ms; /* 0: until the next fleet_forget() */
	char name[];
};

struct wish {
	UT_hash_handle hh;
	struct fleet_wish is;
	char name[];
};

struct record {
	struct instance *instance;
	enum fleet_source source;
	enum instance_state state;
	uint32_t weight;
	uint8_t share;
	bool is_refusing, is_denied, is_draining;
	uint8_t n_suffix; /* bytes of the "@K" that the fleet has put behind name and url; 0: none */
	uint16_t n_ranks; /* of its engine, as its source has it (struct fleet_spec) */
	bool are_models_known, are_models_declared;
	uint32_t n_addresses;
	struct sockaddr_storage *addresses;
	struct pairs models, labels;
	char *metadata;  /* NULL: none */
	char *kv_engine; /* likewise */
	uint64_t held_until_ms;
	struct identity identity;
	uint64_t age;   /* counts records: the smaller, the older */
	uint64_t round; /* the last delivery that named it */

	/* of a build */
	uint32_t row, first_rank, next_rank; /* rows */
	struct record *primary;
	enum instance_state row_state;
	uint8_t row_share;
	bool is_row_refusing;
};

struct fleet {
	struct record *records[INSTANCE_SLOTS_MAX];
	struct record *by_slot[INSTANCE_SLOTS_MAX];
	struct lost *lost;   /* by name */
	struct wish *wishes; /* likewise */
	uint32_t n_records;  /* each owns a slot, so there are never more than slots */
	struct rank_defaults ranks;
	uint64_t n_ages, round, version;
	bool is_dirty;
};

/* Whether a and b are asked at one place with one key, as one source has it. */
static inline bool record_shares_server(const struct record *a, const struct record *b) {
	const struct instance_spec *left = &a->instance->spec, *right = &b->instance->spec;

	return a != b && a->source == b->source && left->is_tls == right->is_tls &&
	    slice_eq(left->authority, right->authority) && slice_eq(left->key, right->key);
}

/* And both are ranks: what is learned of the engine of one is so of the other. */
static inline bool record_shares_engine(const struct record *a, const struct record *b) {
	return a->instance->spec.has_rank && b->instance->spec.has_rank && record_shares_server(a, b);
}

/* Whether an instance of one of the first n_sources has the name. */
bool fleet_has_name(const struct fleet *fleet, unsigned n_sources, struct slice name);

static inline enum instance_state worse(enum instance_state a, enum instance_state b) {
	return a > b ? a : b;
}

/* All of them. */
void fleet_forget_wishes(struct fleet *fleet);
