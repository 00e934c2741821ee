/*
 * latency: when an engine without a GPU produces which token.
 *
 * Pure: no clock, no socket. Every time is an argument, monotonic, in nanoseconds,
 * never less than in the call before; a timer drives it in the mock engine, virtual
 * time in the simulator. The owner pulls what is due and asks when to come back.
 *
 *     submit -> WAITING -> PREFILL -> DECODE -> DONE        abort: any state -> DONE
 *                   \_________\__________\____-> HELD       silent until aborted
 *
 * At most n_running_max sequences run, the rest waits in order. Prefill is one
 * server: sequences pass it one after the other at a rate of uncached tokens. The
 * first output token comes out with the end of its prefill, the others follow one
 * inter-token time apart. As that time is one for all, decode is a FIFO as well,
 * and every operation costs O(1).
 *
 * What of a prompt is cached is the owner's knowledge, and wanted at the moment when its
 * prefill begins: after every call that takes a time the owner asks latency_starting()
 * and answers with latency_begin().
 *
 * Sequences are the caller's memory, linked in from submit to DONE. One thread.
 */
#pragma once

#include "base/list.h"

#define LATENCY_NEVER UINT64_MAX

enum latency_state { LATENCY_DONE, LATENCY_WAITING, LATENCY_PREFILL, LATENCY_DECODE, LATENCY_HELD };

struct latency_sequence {
	struct list link;                   /* in the list of its state */
	uint64_t due_ns;                    /* next token; during prefill: end of it, once it has begun */
	uint64_t submitted_ns, admitted_ns; /* it waited in between */
	uint32_t n_prompt_tokens;
	uint32_t n_output_tokens; /* how many to make; 0 ends with the prefill */
	uint32_t n_made_tokens;
	enum latency_state state;
};

struct latency_options {
	uint64_t prefill_tokens_per_s; /* 0: prefill takes no time */
	uint64_t inter_token_ns;
	uint32_t n_running_max; /* at least 1 */
};

struct latency {
	struct latency_options options;
	struct list waiting, prefill, decode, held;
	uint32_t n_waiting, n_running; /* held ones run */
	uint64_t n_context_tokens;     /* prompt and output so far, of all that run */
	uint64_t prefill_from_ns;      /* when the head of the prefill queue came to be served */
	uint64_t now_ns;
};

void latency_init(struct latency *l, const struct latency_options *options);

/* `s` must be DONE (zeroed will do) and live until it is DONE again. */
void latency_submit(struct latency *l, struct latency_sequence *s, uint32_t n_prompt_tokens,
    uint32_t n_output_tokens, uint64_t now_ns);

/* Whose prefill is about to begin, or NULL. */
struct latency_sequence *latency_starting(const struct latency *l);

/* It begins, n_cached_tokens <= n_prompt_tokens. */
void latency_begin(struct latency *l, struct latency_sequence *s, uint32_t n_cached_tokens);

/*
 * The next sequence that made a token at or before now_ns, in the order of these
 * times; NULL when there is none. It is DONE when that was its last token, or when
 * it had none to make. *at_ns_out is the token's own time: a late caller loses none.
 */
struct latency_sequence *latency_pop(struct latency *l, uint64_t now_ns, uint64_t *at_ns_out);

/* When latency_pop() has something to give, LATENCY_NEVER if it never will. */
uint64_t latency_due_ns(const struct latency *l);

/* A hung sequence: counted as running, also beyond the limit, until it is aborted. Again does nothing. */
void latency_hold(struct latency *l, struct latency_sequence *s, uint64_t now_ns);

/* Takes `s` out, whatever its state; a DONE one stays as it is. */
void latency_abort(struct latency *l, struct latency_sequence *s, uint64_t now_ns);
