#include "fleet/learned.h"

/* What was said before is remembered with this decay at each word. */
#define MEMORY 0.9

_Atomic uint64_t learned_cleared_until_ms;

void learned_hear_requests(struct learned *learned, double n_running, double n_waiting, uint64_t n_own) {
	learned_write(&learned->n_running, n_running);
	learned_write(&learned->n_waiting, n_waiting);
	/* Engines count sequences: a batch of prompts, or n answers, are many. */
	if (atomic_load_explicit(&learned->n_several, memory_order_relaxed))
		return;
	learned_write(
	    &learned->recent_said, learned_read(&learned->recent_said) * MEMORY + n_running + n_waiting);
	learned_write(&learned->recent_own, learned_read(&learned->recent_own) * MEMORY + (double)n_own);
}

bool learned_clear(struct learned *learned, enum capability capability, uint32_t label, uint64_t now_ms) {
	uint64_t until_ms = now_ms + LEARNED_CLEARED_MS;
	uint64_t before = atomic_load_explicit(&learned->cleared[capability], memory_order_relaxed);

	if (learned_is_cleared(learned, capability, label, now_ms))
		return false;
	assert(capability != CAPABILITY_OTHER && label <= UINT16_MAX && until_ms <= LEARNED_MS_MASK);
	atomic_store_explicit(
	    &learned->cleared[capability], (uint64_t)label << 48 | until_ms, memory_order_relaxed);
	if (!learned_is_any_cleared(until_ms))
		atomic_store_explicit(&learned_cleared_until_ms, until_ms, memory_order_relaxed);
	return (before & LEARNED_MS_MASK) <= now_ms;
}
