/*
 * scheduler: the core of an engine, or of one of its data-parallel ranks. It decides when each generation
 * makes its tokens, remembers the prompts, and counts what vLLM counts.
 *
 * Pure: no socket, no clock; times as in latency.h. A generation belongs to its
 * caller, who submits it, pulls the tokens that are due, and ends it exactly once,
 * whatever happened. Everything is owned here but generations and ledger. One thread.
 *
 *     start -> (submit -> token ...) -> end
 */
#pragma once

#include "engine/buckets.h"
#include "engine/generation.h"
#include "engine/ledger.h"
#include "engine/prefix_cache.h"

struct scheduler_options {
	struct latency_options latency;
	uint32_t n_cache_blocks;
	uint32_t n_block_tokens;
	struct ledger *ledger; /* outlives it */
};

/* vLLM's finished_reason. */
enum end_reason { END_STOP, END_LENGTH, END_ABORT, END_ERROR, END_N_REASONS };

struct scheduler_counts {
	uint64_t n_prompt_tokens, n_made_tokens;
	uint64_t n_query_tokens, n_hit_tokens; /* asked of the prefix cache, found there */
	uint64_t n_ended[END_N_REASONS];
	struct buckets step_tokens;
	struct buckets first_token, inter_token; /* times, from the start and between two tokens */
	struct buckets queue, whole;             /* times of what is finished */
};

struct scheduler {
	struct latency latency;
	struct prefix_cache *cache;
	struct ledger *ledger;
	struct scheduler_counts counts;
	uint64_t n_step_tokens; /* in the step that is not over yet */
	uint32_t n_block_tokens, n_cache_blocks;
};

void scheduler_init(struct scheduler *s, const struct scheduler_options *options);
void scheduler_deinit(struct scheduler *s);

/* Enters it in the ledger under `id`. */
void scheduler_start(struct scheduler *s, struct generation *g, struct slice id, uint64_t now_ns);

/*
 * Queues the work. The prompts are looked up in the cache when their prefill begins, and
 * remembered and dropped when it ends.
 */
void scheduler_submit(struct scheduler *s, struct generation *g, uint64_t now_ns);

/*
 * Makes the next token that is due and returns whose it is, to be rendered when there
 * is room; NULL when none is due: that ends one step of the engine. If its sequence
 * is DONE, that was the last one, and the end is due when it is rendered.
 */
struct generation *scheduler_next(struct scheduler *s, uint64_t now_ns);

uint64_t scheduler_due_ns(const struct scheduler *s);

/* It stays, silent, as in an engine that hangs. After submit. */
void scheduler_hold(struct scheduler *s, struct generation *g, uint64_t now_ns);

/* `cause` names a fault: static, or NULL. */
void scheduler_end(
    struct scheduler *s, struct generation *g, enum ledger_state state, const char *cause, uint64_t now_ns);

/* Blocks used by what runs, of all there are: 0 to 1. */
double scheduler_cache_usage(const struct scheduler *s);

/* Prometheus text under vLLM's names, labelled with the model and each rank's number. */
void scheduler_metrics(const struct scheduler *ranks, size_t n_ranks, const char *model, struct bytes *out);

/* Empties the prefix cache. What runs goes on, counters never go back. */
void scheduler_forget(struct scheduler *s);
