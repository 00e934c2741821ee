#include "fleet/load.h"

#include <stdlib.h>

#include "base/heap.h"

struct load *load_new(unsigned n_workers) {
	assert(n_workers > 0 && n_workers <= LOAD_WORKERS_MAX);
	size_t bytes = sizeof(struct load) + n_workers * sizeof(struct load_shard);
	struct load *load = aligned_alloc(alignof(struct load), bytes);

	assert(load);
	heap_count_allocation();
	memset(load, 0, bytes);
	load->n_workers = n_workers;
	return load;
}

void load_free(struct load **load_ptr) {
	free(*load_ptr);
	*load_ptr = NULL;
}

static struct load_cell *load_cell(struct load *load, unsigned worker, unsigned slot) {
	assert(worker < load->n_workers && slot < INSTANCE_SLOTS_MAX);
	return &load->shards[worker].cells[slot];
}

static void add_count(_Atomic uint32_t *count, int by) {
	uint32_t before = atomic_load_explicit(count, memory_order_relaxed);

	assert(by > 0 || before > 0);
	atomic_store_explicit(count, before + (uint32_t)by, memory_order_relaxed);
}

static void add_tokens(_Atomic uint64_t *tokens, uint64_t n) {
	atomic_store_explicit(
	    tokens, atomic_load_explicit(tokens, memory_order_relaxed) + n, memory_order_relaxed);
}

static void take_tokens(_Atomic uint64_t *tokens, uint64_t n) {
	uint64_t before = atomic_load_explicit(tokens, memory_order_relaxed);

	assert(before >= n);
	atomic_store_explicit(tokens, before - n, memory_order_relaxed);
}

static void total_add(struct load *load, unsigned slot, uint64_t counts) {
	atomic_fetch_add_explicit(&load->totals[slot].counts, counts, memory_order_relaxed);
}

static bool total_try_add(struct load *load, unsigned slot, uint32_t n_max) {
	_Atomic uint64_t *counts = &load->totals[slot].counts;
	uint64_t n = atomic_load_explicit(counts, memory_order_relaxed);

	while ((n & (LOAD_PREFILL - 1)) < n_max)
		if (atomic_compare_exchange_weak(counts, &n, n + LOAD_PREFILL + 1))
			return true;
	return false;
}

static void total_take(struct load *load, unsigned slot, uint64_t counts) {
	atomic_fetch_sub(&load->totals[slot].counts, counts);
}

void load_set_head(
    struct load *load, unsigned worker, unsigned slot, uint64_t charged_ns, uint64_t prefill_tokens) {
	struct load_cell *cell = load_cell(load, worker, slot);

	atomic_store_explicit(&cell->head_ns, charged_ns, memory_order_relaxed);
	atomic_store_explicit(&cell->head_tokens, prefill_tokens, memory_order_relaxed);
}

/* Its total of requests has it already. */
static void charge(struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens) {
	struct load_cell *cell = load_cell(load, worker, slot);

	add_count(&cell->n_requests, 1);
	add_count(&cell->n_prefills, 1);
	add_tokens(&cell->prefill_tokens, prefill_tokens);
	atomic_fetch_add_explicit(&load->totals[slot].prefill_tokens, prefill_tokens, memory_order_relaxed);
}

void load_charge(struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens) {
	total_add(load, slot, LOAD_PREFILL + 1);
	charge(load, worker, slot, prefill_tokens);
}

bool load_try_charge(
    struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens, uint32_t n_max) {
	if (!total_try_add(load, slot, n_max))
		return false;
	charge(load, worker, slot, prefill_tokens);
	return true;
}

void load_move(
    struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens, uint64_t decode_tokens) {
	struct load_cell *cell = load_cell(load, worker, slot);

	add_count(&cell->n_prefills, -1);
	take_tokens(&cell->prefill_tokens, prefill_tokens);
	add_tokens(&cell->decode_tokens, decode_tokens);
	total_take(load, slot, LOAD_PREFILL);
	atomic_fetch_sub_explicit(&load->totals[slot].prefill_tokens, prefill_tokens, memory_order_relaxed);
	atomic_fetch_add_explicit(&load->totals[slot].decode_tokens, decode_tokens, memory_order_relaxed);
}

void load_release_prefill(struct load *load, unsigned worker, unsigned slot, uint64_t prefill_tokens) {
	struct load_cell *cell = load_cell(load, worker, slot);

	add_count(&cell->n_requests, -1);
	add_count(&cell->n_prefills, -1);
	take_tokens(&cell->prefill_tokens, prefill_tokens);
	total_take(load, slot, LOAD_PREFILL + 1);
	atomic_fetch_sub_explicit(&load->totals[slot].prefill_tokens, prefill_tokens, memory_order_relaxed);
}

void load_release_decode(struct load *load, unsigned worker, unsigned slot, uint64_t decode_tokens) {
	struct load_cell *cell = load_cell(load, worker, slot);

	add_count(&cell->n_requests, -1);
	take_tokens(&cell->decode_tokens, decode_tokens);
	total_take(load, slot, 1);
	atomic_fetch_sub_explicit(&load->totals[slot].decode_tokens, decode_tokens, memory_order_relaxed);
}
