/*
 * decision: what is remembered of each choice of an instance: who was chosen and why, who
 * else there was, who was out of the question, what became of it.
 *
 * Records stand in a ring of fixed size, one a worker, filled by that worker alone without
 * locks or allocation; the newest takes the place of the oldest, also when the oldest
 * request is still at work. A request therefore holds a handle and asks for its record
 * each time. Others get copies by mail (router/explain.h).
 *
 * Of the request there are its id, the model's name and numbers: no text of a prompt, no key, no other
 * header. Instances and models are labels (fleet/label.h), whose texts outlive the fleet.
 */
#pragma once

#include "base/cause.h"
#include "policy/filter.h"
#include "router/retry.h"

#define DECISION_ALTERNATIVES 3
#define DECISION_REJECTED     4
#define DECISION_ATTEMPTS     4
#define DECISION_ID_MAX       128 /* of a request */
#define DECISION_MODEL_MAX    64  /* of what the client called it */
#define DECISION_NONE         0u  /* the handle of no record */

/* An instance that could have been, or was, chosen. */
struct decision_choice {
	uint32_t serial; /* of the instance; 0: nobody */
	uint16_t label;
	struct policy_score score; /* its total is NAN when the pick did not look at it */
};

/* One that could not, by the first of its codes. */
struct decision_rejected {
	uint16_t label;
	uint8_t code; /* enum filter_code */
	struct filter_detail detail;
};

/* One that was tried, and what ended that; CAUSE_NONE: nothing, so far or at all. */
struct decision_attempt {
	uint16_t label;
	uint8_t cause;
};

struct decision {
	uint64_t number; /* from 1, of this worker; 0: no record */
	uint64_t at_ns;  /* of the last pick; monotonic */
	uint64_t snapshot;
	uint64_t seed; /* of ties */
	uint64_t salt; /* the tenant's; 0: there are no tenants */
	uint64_t prompt_bytes;
	/* Since the request came. A first token is never at 0: that is none; the others are known when it is
	 * settled, the queue's if there was an attempt. */
	uint64_t queue_ns, first_token_ns, total_ns;
	const struct policy *policy, *scorer; /* who picked, and whose scores there are */
	uint32_t pick_ns;                     /* what the last pick took */
	uint32_t prompt_tokens, predicted_tokens, actual_tokens, output_tokens;
	uint32_t n_candidates, n_eligible, n_rejected;
	uint16_t worker, model, status;
	uint16_t prefill;  /* the label of who computed the prompt for the chosen one; 0: nobody did */
	uint16_t tenant;   /* the label of its name; LABEL_OTHER while there are no tenants */
	uint16_t features; /* bits of enum feature */
	uint8_t capability, reason, ring, cause, n_attempts;
	uint8_t refusal; /* enum cause: why nobody was chosen; then `chosen` and `reason` say nothing */
	uint8_t n_alternatives, n_listed; /* of the rejected ones */
	uint8_t id_n, asked_n;
	uint8_t retry_bar; /* enum retry_bar: why the attempt that failed last was the last at all */
	uint8_t n_resumed; /* how often its stream was cut and another one was asked to go on */
	bool is_panic;     /* the unhealthy were among those to choose from */
	bool is_probe;     /* the last one was, by its breaker */
	bool has_session, has_actual, has_scores, is_settled;
	struct decision_choice chosen, alternatives[DECISION_ALTERNATIVES]; /* best first */
	struct decision_rejected rejected[DECISION_REJECTED];
	struct decision_attempt attempts[DECISION_ATTEMPTS];
	char id[DECISION_ID_MAX];       /* of the request */
	char asked[DECISION_MODEL_MAX]; /* its head, in whole characters; none was named when asked_n is 0 */
};

_Static_assert(sizeof(struct decision) <= 576, "one for each request");
_Static_assert(FEATURES <= 16, "all features have a bit");

struct decision_ring {
	struct decision *items; /* NULL: nothing is remembered */
	uint64_t n_begun;
	uint32_t n;
	uint16_t worker;
};

/* n 0: nothing will be remembered. */
void decision_ring_init(struct decision_ring *ring, unsigned worker, uint32_t n);
void decision_ring_deinit(struct decision_ring *ring);

static inline bool decision_ring_is_on(const struct decision_ring *ring) {
	return ring->items;
}

/*
 * A new record for this request, which asks for that model (empty: for none); takes the oldest one's place.
 * Returns its handle. The ring is on.
 */
must_use uint32_t decision_begin(struct decision_ring *ring, struct slice id, struct slice asked);

/* NULL when it is not there any more, and for DECISION_NONE. */
struct decision *decision_find(struct decision_ring *ring, uint32_t handle);

/* After the pick, before the next one of the set. Every attempt of a request is a pick of its own. */
void decision_pick(struct decision *d, const struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick, uint64_t pick_ns);

/* Nobody was picked, at the first try; without a model in the input: nobody has it. */
void decision_refuse(struct decision *d, const struct policy_set *set, const struct pick_input *input,
    enum cause cause, uint64_t pick_ns);

/* The attempt at the instance of this label did not do. The first cause counts. */
void decision_failed(struct decision *d, uint32_t label, enum cause cause);

/* An instance that was picked before the last one is the one that answers after all. */
void decision_return(
    struct decision *d, const struct instance *inst, enum pick_reason reason, uint32_t predicted_tokens);

/* Newest first: what is `age` records older than the newest; NULL when there is none, or none any more. */
const struct decision *decision_at(const struct decision_ring *ring, uint32_t age);

/* "3-117": the worker and the number. Stable and unique in the life of the process. */
#define DECISION_TEXT_BYTES 32
struct slice decision_text(const struct decision *d, char room[static DECISION_TEXT_BYTES]);
