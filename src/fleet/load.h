/*
 * load: the work that each worker has at each instance, load[worker][slot], and all of them together.
 *
 * Requests and tokens: charged when an instance is picked, with the prompt tokens that it
 * has yet to prefill; moved when its first token comes, to the tokens that it keeps in
 * decode; released at the end. The caller releases exactly what it charged or moved
 * (policy/ticket.h keeps the account).
 *
 * A cell is written by its worker alone, with plain loads and stores; it is the account. What choices
 * read is the total of a slot, to which each worker adds what it does to its cell: seven atomic additions
 * a request, so that a choice among 1,000 instances reads 1,000 totals, 32 KiB, and not as many cells of each
 * worker. Readers, on any thread, may see a total that is a moment old. A charge is released on the
 * worker that made it, exactly once; the holder of a charge keeps the instance alive
 * (through its snapshot), so a slot that is reused starts at 0.
 */
#pragma once

#include <stdalign.h>

#include "fleet/instance.h"

#define LOAD_WORKERS_MAX 256

struct load_cell {
	_Atomic uint32_t n_requests, n_prefills; /* the latter have no first token yet */
	_Atomic uint64_t prefill_tokens, decode_tokens;
	_Atomic uint64_t head_ns; /* when the one was charged that waits longest for its first token */
	_Atomic uint64_t head_tokens;
};

struct load_shard {
	alignas(64) struct load_cell cells[INSTANCE_SLOTS_MAX];
};

/* Over all workers. Two to a cache line, so that none is in two of them. */
struct load_total {
	alignas(32) _Atomic uint64_t counts; /* requests, and LOAD_PREFILL for each without a first token */
	_Atomic uint64_t prefill_tokens, decode_tokens;
};

_Static_assert(sizeof(struct load_total) == 32, "two to a cache line");

#define LOAD_PREFILL (UINT64_C(1) << 32)

struct load {
	alignas(64) struct load_total totals[INSTANCE_SLOTS_MAX];
	unsigned n_workers;
	struct load_shard shards[];
};

/* At one instance, over all workers. */
struct load_sum {
	uint64_t n_requests, n_prefills;
	uint64_t prefill_tokens, decode_tokens;
	uint64_t head_ns,
	    head_tokens; /* of the request that is prefilled now, if prompts pass in order; 0: none */
};

/* 1 to LOAD_WORKERS_MAX workers; 160 KiB for each, and 128 KiB. */
must_use struct load *load_new(unsigned n_workers);
void load_free(struct load **load);

/* Of the worker's requests at the instance the one that waits longest for its first token; 0, 0: none does.
 */
void load_set_head(
    struct load *load, unsigned worker, unsigned slot, uint64_t charged_ns, uint64_t prefill_tokens);

/* A request that is yet to be prefilled. */
void load_charge(struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens);
/* The same where there are fewer than n_max, over all workers: of two that would be the last one, one is. */
must_use bool load_try_charge(
    struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens, uint32_t n_max);
/* Its first token came: it holds so many tokens in decode instead. */
void load_move(
    struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens, uint64_t decode_tokens);
/* It ended, before its first token or after it. */
void load_release_prefill(struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens);
void load_release_decode(struct load *load, unsigned worker, unsigned slot, uint64_t decode_tokens);

static inline uint64_t load_requests(const struct load *load, unsigned slot) {
	assert(slot < INSTANCE_SLOTS_MAX);
	return atomic_load_explicit(&load->totals[slot].counts, memory_order_relaxed) & (LOAD_PREFILL - 1);
}

/* Ordered with load_release_*(): who says first that it waits and then looks misses no release. */
static inline bool load_is_below(const struct load *load, unsigned slot, uint32_t n_max) {
	assert(slot < INSTANCE_SLOTS_MAX);
	return (atomic_load(&load->totals[slot].counts) & (LOAD_PREFILL - 1)) < n_max;
}

/* The sum without its head, for those who do not look at it: that one is the worker's. */
static inline struct load_sum load_total(const struct load *load, unsigned slot) {
	assert(slot < INSTANCE_SLOTS_MAX);
	const struct load_total *total = &load->totals[slot];
	uint64_t counts = atomic_load_explicit(&total->counts, memory_order_relaxed);

	return (struct load_sum){
		.n_requests = counts & (LOAD_PREFILL - 1),
		.n_prefills = counts / LOAD_PREFILL,
		.prefill_tokens = atomic_load_explicit(&total->prefill_tokens, memory_order_relaxed),
		.decode_tokens = atomic_load_explicit(&total->decode_tokens, memory_order_relaxed),
	};
}

static inline struct load_sum load_sum(const struct load *load, unsigned slot) {
	struct load_sum sum = load_total(load, slot);

	for (unsigned w = 0; sum.n_prefills && w < load->n_workers; w++) {
		const struct load_cell *cell = &load->shards[w].cells[slot];
		uint64_t head_ns = atomic_load_explicit(&cell->head_ns, memory_order_relaxed);

		if (head_ns && (!sum.head_ns || head_ns < sum.head_ns)) {
			sum.head_ns = head_ns;
			sum.head_tokens = atomic_load_explicit(&cell->head_tokens, memory_order_relaxed);
		}
	}
	return sum;
}
