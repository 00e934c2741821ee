/*
 * load: how many requests each worker has at each instance, load[worker][slot].
 *
 * A cell is written by its worker alone, with a plain load and store: no locked
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
	_Atomic uint32_t n_requests;
};

struct load_shard {
	alignas(64) struct load_cell cells[INSTANCE_SLOTS_MAX];
};

struct load {
	struct load_shard *shards;
	unsigned n_workers;
};

/* 1 to LOAD_WORKERS_MAX workers; 16 KiB for each, touched as slots come into use. */
must_use struct load *load_new(unsigned n_workers);
void load_free(struct load **load);

static inline _Atomic uint32_t *load_requests(struct load *load, unsigned worker, unsigned slot) {
	assert(worker < load->n_workers && slot < INSTANCE_SLOTS_MAX);
	return &load->shards[worker].cells[slot].n_requests;
}

static inline void load_charge(struct load *load, unsigned worker, unsigned slot) {
	_Atomic uint32_t *n = load_requests(load, worker, slot);

	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static inline void load_release(struct load *load, unsigned worker, unsigned slot) {
	_Atomic uint32_t *n = load_requests(load, worker, slot);
	uint32_t before = atomic_load_explicit(n, memory_order_relaxed);

	assert(before > 0);
	atomic_store_explicit(n, before - 1, memory_order_relaxed);
}

/* Requests in flight at one instance, over all workers. */
static inline uint64_t load_sum(const struct load *load, unsigned slot) {
	uint64_t sum = 0;

	assert(slot < INSTANCE_SLOTS_MAX);
	for (unsigned w = 0; w < load->n_workers; w++)
		sum += atomic_load_explicit(&load->shards[w].cells[slot].n_requests, memory_order_relaxed);
	return sum;
}
