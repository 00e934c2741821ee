/*
 * own_field: the header fields of ours, x-headrace-NAME: what a request says in them of its routing, and
 * which of them a router says in answers; and two that vLLM's router has names for, x-worker-priority and
 * x-max-cost, which are ours as well.
 *
 * Who sends a field means something by it. One that is not known is refused, since a misspelt one would lower
 * what was asked for without a word; so is one that is there twice, since of two that contradict each other
 * neither can be trusted. Pure.
 */
#pragma once

#include "base/cause.h"
#include "http/head.h"

/* Those of requests. */
enum own_field {
	OWN_FIELD_PRIVACY,
	OWN_FIELD_ORIGIN_ZONE,
	OWN_FIELD_COST_TOLERANCE,
	OWN_FIELD_DEADLINE_MS,
	OWN_FIELD_ACCELERATOR,
	OWN_FIELD_PRIORITY,
	OWN_FIELD_WAIT,
	OWN_FIELD_WORKER_PRIORITY,
	OWN_FIELD_MAX_COST,
	OWN_FIELDS,
};

_Static_assert(OWN_FIELDS <= 16, "each has a bit in struct own_fields");

/* What they say. Begins as OWN_FIELDS_NONE. */
struct own_fields {
	uint64_t origin_zone;   /* its traits_word(); 0: not said, so below */
	uint64_t accelerator;   /* likewise */
	uint64_t wait_ms;       /* UINT64_MAX: as long as it may */
	uint32_t deadline_ms;   /* for the first token */
	uint32_t priority_min;  /* of the instance */
	double cost_max;        /* of the instance, if given */
	uint8_t privacy;        /* enum privacy */
	uint8_t class;          /* 0 goes first, 7 last */
	uint8_t cost_tolerance; /* 0 to 100, if given */
	uint16_t given;         /* bits of enum own_field */
};

#define OWN_FIELDS_NONE ((struct own_fields){ .class = 4 })

/* Whether a field of this name is one of ours, known or not. Inline, for all fields of all requests ask. */
static inline bool own_field_is_ours(struct slice name) {
	static const struct slice prefix = { "x-headrace-", 11 };
	if (name.n > prefix.n && slice_is(slice_head(name, prefix.n), prefix))
		return true;
	return slice_is(name, SLICE("x-worker-priority")) || slice_is(name, SLICE("x-max-cost"));
}

/*
 * Reads one of ours, its value without blanks around it. Those of answers are passed over.
 * CAUSE_UNKNOWN_HEADER or CAUSE_BAD_HEADER refuse the request.
 */
must_use enum cause own_field_read(struct own_fields *own, struct slice name, struct slice value);

/* The name of the field that CAUSE_UNKNOWN_HEADER is about, in the head; p is NULL when there is none. */
struct slice own_field_unknown(const struct head *head);

/* Whether a router says a field of this name in answers, and nobody else is to: how it chose. */
bool own_field_is_of_answers(struct slice name);
