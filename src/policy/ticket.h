/*
 * ticket: what one request has at stake at the instance that it was given to.
 *
 * Opened when an instance was picked: the load is charged there, in requests and in prompt
 * tokens that are not cached, and the prefix index told that the prompt will be. Moved at
 * the first token, or when a whole answer comes: the tokens are in decode from then on, and from the
 * beginning where another instance has computed the prompt. Closed
 * at the end, on every path, exactly once. On the way it teaches: rates and first-token times
 * at the first token, cached tokens and tokens per byte from the usage at the end. Without usage the rate is
 * learned from what the prompt was taken for, the others are not.
 *
 * Lives in the caller's request, belongs to the thread of the set that it was opened with.
 * A zeroed ticket is closed.
 */
#pragma once

#include "policy/policy.h"

enum ticket_phase { TICKET_CLOSED, TICKET_PREFILL, TICKET_DECODE };

struct ticket {
	struct list link;          /* in its set's queue of the instance, until its first token */
	struct instance *instance; /* NULL: closed */
	uint64_t opened_ns;
	uint32_t prompt_bytes, prompt_tokens, output_tokens;
	uint32_t cached_tokens;     /* predicted */
	uint32_t charged_tokens;    /* in prefill, then in decode */
	uint32_t age, age_beyond;   /* of the last block believed, of the first one that was not */
	float service_s;            /* what its prefill took; negative: nobody saw a first token */
	uint16_t n_blocks, n_known; /* blocks of the prompt that are believed, and known, to be cached */
	uint16_t label;             /* of the model */
	bool is_no_text;            /* its bytes say nothing of its tokens */
	bool is_looked_up;          /* the index was asked what of it is cached */
	bool is_several;            /* to the engine: a batch of prompts, or n answers */
	bool is_prefilled;          /* elsewhere: its time says nothing of what this one computes */
	bool is_prefill_only;       /* embeddings, and the like: an answer takes what the prompt takes */
	bool is_capped;    /* the instance takes so many and no more: others may wait for the place */
	bool may_overtake; /* what it is believed to find may not be there yet */
	uint8_t phase;
	uint8_t capability; /* that it was picked for */
};

_Static_assert(sizeof(struct ticket) <= 80, "part of every open stream");

static inline bool ticket_is_open(const struct ticket *t) {
	return t->phase != TICKET_CLOSED;
}

/* After policy_pick() with the same input and no other pick in between. `t` is closed. */
void ticket_open(
    struct ticket *t, struct policy_set *set, const struct pick_input *input, const struct pick_result *pick);

/* The same unless the instance has as many requests as it takes by now (traits->capacity): false then, and
 * nothing has changed. Whoever is told so picks again. */
must_use bool ticket_try_open(
    struct ticket *t, struct policy_set *set, const struct pick_input *input, const struct pick_result *pick);

/* Its owner moves: `to` is closed, and has it all afterwards; `from` is closed then. A closed one may be
 * moved, too. */
void ticket_move(struct ticket *to, struct ticket *from);

/* Its first token came. Again, or on a closed one, does nothing. */
void ticket_first(struct ticket *t, struct policy_set *set, uint64_t now_ns);

/* A whole answer begins, tokens that were generated before and all: its time is none of the prefill's, unless
 * that was all the work. Otherwise as ticket_first(). */
void ticket_answered(struct ticket *t, struct policy_set *set, uint64_t now_ns);

/* The answer is a response of this id (a hash as in demand.response): requests that are about it go there,
 * unless another instance that is still in the fleet has such a one. */
void ticket_keep_response(const struct ticket *t, struct policy_set *set, uint64_t response, uint64_t now_ns);

/* What an engine said of the tokens; zeroes when it said nothing: only the rate is learned then. */
struct ticket_usage {
	uint64_t prompt_tokens, cached_tokens, output_tokens;
	bool has_cached; /* it counts cached tokens at all */
};

/* The end, however it came. `usage` NULL: nothing is known. On a closed one does nothing. */
void ticket_close(struct ticket *t, struct policy_set *set, const struct ticket_usage *usage);
