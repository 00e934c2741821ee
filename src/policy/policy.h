/*
 * policy: which instance gets a request.
 *
 * policy_pick() filters first: instances that this request has tried are out, those
 * that just failed (avoid_until) are out while there are others, those in the model's
 * reserve likewise, and a snapshot's model lists no drained or disabled ones. The policy
 * then only orders what the filters left. No I/O, no allocation, no clock of its own: the same objects run in
 * tests and in the simulator.
 *
 * A struct policy_set belongs to one worker: the policy's counters for each model of
 * the snapshot in hand, on which it holds a reference.
 */
#pragma once

#include "base/rng.h"
#include "fleet/load.h"
#include "fleet/snapshot.h"

struct policy;

extern const struct policy *const policy_table[]; /* NULL at the end; the default first */

/* NULL when there is none of that name. */
const struct policy *policy_find(struct slice name);

/* What is to be waited for before a pick: input.session, where there may be one. */
bool policy_wants_session(const struct policy *policy);

struct policy_set {
	const struct policy *policy;
	const struct load *load;
	struct rng *rng;
	struct snapshot *snapshot; /* NULL before the first adopt */
	void *cells;               /* the policy's state, parallel to snapshot->candidates */
	uint32_t *eligible;        /* scratch for a pick, room for every candidate of a model */
};

/* `load` is read, `rng` is this thread's own; both outlive the set. */
void policy_set_init(
    struct policy_set *set, const struct policy *policy, const struct load *load, struct rng *rng);
void policy_set_deinit(struct policy_set *set);

/*
 * From now on picks are made from `snap`; takes its own reference. A model goes on where
 * it was: candidates that it had before keep their turn, new ones, and those of a new
 * model, start at a random place. Linear in the candidates. Allocates: once per
 * snapshot, not per request.
 */
void policy_set_adopt(struct policy_set *set, struct snapshot *snap);

enum pick_reason {
	PICK_ONLY_CANDIDATE, /* the filters left one */
	PICK_ROUND_ROBIN,
	PICK_LEAST_LOAD,
	PICK_POWER_OF_TWO,
	PICK_RANDOM,
	PICK_RENDEZVOUS_HASH,
	PICK_ALL_AVOIDED, /* every untried one failed lately: one of them all the same */
	PICK_LAST_RESORT, /* all but the reserve were tried: one of that, by weight */
};

#define PICK_REASONS 8

const char *pick_reason_text(enum pick_reason reason);

enum pick_outcome {
	PICK_E_NONE_LEFT = 1, /* all candidates were tried */
	PICK_E_NONE_EXIST,    /* nobody routable serves the model */
};

struct pick_input {
	const struct model *model; /* of set->snapshot: one of its models, or its `any` */
	const uint16_t *tried;     /* slots of the instances that failed this request */
	uint32_t n_tried;
	uint64_t now_ms;  /* the clock of instance_avoid() */
	uint64_t session; /* a hash of what requests that belong together have in common; 0: nothing known */
};

struct pick_result {
	struct instance *instance; /* good as long as a reference on the snapshot is held */
	uint32_t row;              /* in set->snapshot */
	enum pick_reason reason;
	uint32_t n_candidates; /* before the filters, without the reserve */
	uint32_t n_eligible;   /* after them */
};

/* 0 or an enum pick_outcome; *result_out is written on 0 alone. Charges no load. */
must_use int policy_pick(
    struct policy_set *set, const struct pick_input *input, struct pick_result *result_out);
