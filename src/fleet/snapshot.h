/*
 * snapshot: the fleet as it was at one moment, all that a worker needs to route.
 *
 * Immutable, one block, counted: the control thread makes it, each worker holds a
 * reference for as long as any of its exchanges uses it, the last unref (any thread)
 * frees it and lets go of its instances. All pointers and slices in it are good as
 * long as the reference is held.
 *
 * Every record of the fleet is a row. Rows with one identity are listed, but share
 * their routing: `primary` is the row that stands for all of them, in most rows the
 * row itself. Model tables name primary rows only.
 *
 * A model's candidates are its healthy rows, but those of weight 0 only when all of them
 * have it. When more than half of its rows are unhealthy it is rather the judgement that is
 * ill, and those that are not refusing are candidates, too (is_panic). Its other rows that
 * could serve are its reserve, for requests that no candidate took: the last one left is
 * always tried. A model with roles has pools, models of their own but for their names: the model itself
 * then lists the unified rows and those that decode. What labels and engines say of a candidate are its
 * traits; where the rows of one target contradict each other the primary counts, then the others in their
 * order.
 */
#pragma once

#include <sys/socket.h>

#include "fleet/instance.h"
#include "fleet/pair.h"
#include "fleet/traits.h"

/* SOURCE_ZMQ: engines that have announced themselves. SOURCE_API: registered while the router runs
 * (router/recruits.h). SOURCE_LEAVING: whose name another target of its source has now (fleet_take_over()).
 */
enum fleet_source { SOURCE_STATIC, SOURCE_REGISTRY, SOURCE_ZMQ, SOURCE_API, SOURCE_LEAVING };

#define FLEET_SOURCES 5

/* The word that endpoints use. */
const char *fleet_source_text(enum fleet_source source);

/* What it says others have written, and not who runs the router. */
static inline bool fleet_source_is_foreign(enum fleet_source source) {
	return source == SOURCE_REGISTRY || source == SOURCE_ZMQ;
}

#define SNAPSHOT_NO_ROW UINT32_MAX

struct snapshot_row {
	struct instance *instance;
	enum fleet_source source;
	bool is_namesake; /* a row of another source before it has the same name */
	enum instance_state state;
	uint32_t weight;       /* in thousandths (INSTANCE_WEIGHT_ONE); 0: while nobody else serves */
	uint8_t share;         /* what part of it counts, of INSTANCE_SHARE_FULL; 0 is full, too */
	bool is_refusing;      /* takes no connections */
	bool are_models_known; /* declared, or the engine was asked and answered */
	bool are_models_declared;
	uint32_t primary;   /* row index */
	uint32_t next_peer; /* the next row of its target, from the primary on; SNAPSHOT_NO_ROW: none */
	uint32_t
	    first_rank; /* the row that is asked for all ranks of its engine; of who has no rank, itself */
	uint32_t next_rank; /* the next of them, from the first on; SNAPSHOT_NO_ROW: none */
	uint32_t n_addresses;
	const struct sockaddr_storage *addresses; /* port included; in the resolver's order */
	struct pairs models;                      /* id -> JSON object of the engine, empty when declared */
	struct pairs labels;
	struct slice metadata;  /* a JSON object, or empty */
	struct slice kv_engine; /* what its KV connector calls it (fleet_set_kv_engine()); empty: not known */
	uint64_t held_until_ms; /* when it was new: not to be believed before */
};

/* What the operator wants of it, however it is. Among those that are tried all the same, 0 is 1. */
static inline uint32_t snapshot_row_weight(const struct snapshot_row *row) {
	return row->weight ? row->weight : INSTANCE_WEIGHT_ONE;
}

/* Somewhere to send a request: dense, 16 bytes, all that most picks read. */
struct candidate {
	struct instance *instance;
	uint32_t row;
	uint16_t slot;   /* of the instance */
	uint16_t weight; /* 1 or more: weight times share by cost, against the model's other candidates, or
			    reserve */
};

/*
 * Of a model some of whose rows only prefill or only decode there are three choices: who may have a request
 * alone, who may compute its prompt, and who may decode what one of those computed.
 */
enum pool { POOL_ALONE, POOL_FIRST, POOL_DECODE };

struct model {
	struct slice name;
	struct slice object; /* of the first candidate that gave one; empty: make it from the name */
	const struct candidate
	    *candidates;                  /* by row, each instance once; behind them, likewise, the reserve */
	uint32_t n_candidates, n_reserve; /* both 0: known, but nobody serves it who may be tried */
	uint32_t n_healthy;               /* its rows that are routable by their state, whatever they weigh */
	uint32_t label;                   /* fleet/label.h */
	bool is_panic; /* more than half are unhealthy: those that are not refusing get requests, too */
	struct traits_least least; /* of its candidates and its reserve */

	/* Both NULL where all rows are unified. They have the name, object and label of their model. */
	const struct model *first;  /* the unified and those that prefill */
	const struct model *decode; /* those that decode */
	enum pool pool;
};

struct snapshot {
	uint64_t version; /* grows with every snapshot of a fleet; from 1 */
	const struct snapshot_row *rows;
	const struct model *models; /* sorted by name, bytewise */
	const struct model *pools;  /* of models with roles and of `any`, in no order */
	uint32_t n_rows;
	uint32_t n_models, n_pools;
	struct model any; /* nameless, label "other": every routable row, for requests without a model */

	/* The arrays of all models and of `any`, one after the other: state per candidate is parallel. */
	const struct candidate *candidates;
	const struct traits *traits; /* parallel to them */
	uint32_t n_candidates;       /* with every reserve */

	/* private */
	struct pairs lost;
	uint32_t bucket_mask;
	const uint32_t *buckets; /* model index + 1; 0 is empty */
	_Atomic uint32_t refs;
};

/*
 * Copies the rows with all they point to and takes its own references on the
 * instances. The keys of `lost`, each once, are models also when no row lists them. Control
 * thread. One reference, the caller's.
 */
must_use struct snapshot *snapshot_new(
    uint64_t version, const struct snapshot_row *rows, uint32_t n_rows, struct pairs lost);

struct snapshot *snapshot_ref(struct snapshot *snap);
void snapshot_unref(struct snapshot **snap); /* accepts NULL, clears */

/* By exact name, in constant time; NULL when no row lists that model and it is not a lost one. */
const struct model *snapshot_model(const struct snapshot *snap, struct slice name);

/* All models, pools and `any` have an index, below this number, for tables parallel to them. */
static inline uint32_t snapshot_n_choices(const struct snapshot *snap) {
	return snap->n_models + snap->n_pools + 1;
}

/* The last one is `any`. */
static inline const struct model *snapshot_choice(const struct snapshot *snap, uint32_t i) {
	if (i < snap->n_models)
		return &snap->models[i];
	i -= snap->n_models;
	return i < snap->n_pools ? &snap->pools[i] : &snap->any;
}

static inline uint32_t snapshot_choice_index(const struct snapshot *snap, const struct model *model) {
	if (model == &snap->any)
		return snap->n_models + snap->n_pools;
	if (model->pool == POOL_ALONE)
		return (uint32_t)(model - snap->models);
	return snap->n_models + (uint32_t)(model - snap->pools);
}

/* What goes by the name of a model, pool or `any` of another snapshot in this one; NULL: nothing. */
const struct model *snapshot_counterpart(const struct snapshot *snap, const struct model *model);

static inline const struct traits *snapshot_traits(const struct snapshot *snap, const struct candidate *c) {
	assert(c >= snap->candidates && c < snap->candidates + snap->n_candidates);
	return &snap->traits[c - snap->candidates];
}

/* What is said of this row's target for a model, be it a candidate or not. The empty name: for any. Slow. */
void snapshot_row_traits(
    const struct snapshot *snap, uint32_t row, struct slice model, struct traits *traits_out);

/* May this row take traffic? For a row that is not its own primary: what the primary may. */
bool snapshot_is_routable(const struct snapshot *snap, uint32_t row);

/* How many numbers hold all known ranks of this row's engine; 1: it has none. */
size_t snapshot_n_ranks(const struct snapshot *snap, uint32_t row);
