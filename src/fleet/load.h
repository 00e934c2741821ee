/*
 * load: the work that each worker has at each instance, load[worker][slot].
 *
 * Requests and tokens: charged when an instance is picked, with the prompt tokens that it
 * has yet to prefill; moved when its first token comes, to the tokens that it keeps in
 * decode; released at the end. The caller releases exactly what it charged or moved
 * (policy/ticket.h keeps the account).
 *
 * A cell is written by its worker alone, with plain loads and stores: no locked
 * instruction, and no cache line that two workers write. Readers, on any thread, sum
 * over the workers and may see a sum that is a moment old. A charge is released on the
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

struct load {
	struct load_shard *shards;
	unsigned n_workers;
};

/* At one instance, over all workers. */
struct load_sum {
	uint64_t n_requests, n_prefills;
	uint64_t prefill_tokens, decode_tokens;
	uint64_t head_ns,
	    head_tokens; /* of the request that is prefilled now, if prompts pass in order; 0: none */
};

/* 1 to LOAD_WORKERS_MAX workers; 160 KiB for each. */
must_use struct load *load_new(unsigned n_workers);
void load_free(struct load **load);

/* Of the worker's requests at the instance the one that waits longest for its first token; 0, 0: none does.
 */
void load_set_head(
    struct load *load, unsigned worker, unsigned slot, uint64_t charged_ns, uint64_t prefill_tokens);

/* A request that is yet to be prefilled. */
void load_charge(struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens);
/* Its first token came: it holds so many tokens in decode instead. */
void load_move(
    struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens, uint64_t decode_tokens);
/* It ended, before its first token or after it. */
void load_release_prefill(struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens);
void load_release_decode(struct load *load, unsigned worker, unsigned slot, uint64_t decode_tokens);

static inline uint64_t load_requests(const struct load *load, unsigned slot) {
	uint64_t sum = 0;

	assert(slot < INSTANCE_SLOTS_MAX);
	for (unsigned w = 0; w < load->n_workers; w++)
		sum += atomic_load_explicit(&load->shards[w].cells[slot].n_requests, memory_order_relaxed);
	return sum;
}

static inline struct load_sum load_sum(const struct load *load, unsigned slot) {
	struct load_sum sum = { .n_requests = 0 };

	assert(slot < INSTANCE_SLOTS_MAX);
	for (unsigned w = 0; w < load->n_workers; w++) {
		const struct load_cell *cell = &load->shards[w].cells[slot];

		sum.n_requests += atomic_load_explicit(&cell->n_requests, memory_order_relaxed);
		sum.n_prefills += atomic_load_explicit(&cell->n_prefills, memory_order_relaxed);
		sum.prefill_tokens += atomic_load_explicit(&cell->prefill_tokens, memory_order_relaxed);
		sum.decode_tokens += atomic_load_explicit(&cell->decode_tokens, memory_order_relaxed);
		uint64_t head_ns = atomic_load_explicit(&cell->head_ns, memory_order_relaxed);

		if (head_ns && (!sum.head_ns || head_ns < sum.head_ns)) {
			sum.head_ns = head_ns;
			sum.head_tokens = atomic_load_explicit(&cell->head_tokens, memory_order_relaxed);
		}
	}
	return sum;
}
