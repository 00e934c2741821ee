/*
 * learned: what the router found out about an instance by giving it work, or by asking.
 *
 * Part of struct instance, so that it outlives snapshots. Relaxed atomics: any thread reads,
 * workers write what requests teach, the control thread what scrapes bring. Two that write at
 * once may lose one observation of many, which costs nothing.
 */
#pragma once

#include <stdatomic.h>

#include "fleet/capability.h"

struct learned {
	_Atomic double prefill_rate;  /* uncached prompt tokens a second; 0: not known yet */
	_Atomic double first_token_s; /* decaying mean that follows peaks at once; 0: not known yet */
	_Atomic uint64_t first_ns;    /* when it answered anybody with a first token last */
	_Atomic uint64_t n_observed;  /* first tokens */

	/* Cached prompt tokens: predicted by the prefix index against said by usage. The recent ones decay.
	 */
	_Atomic uint64_t predicted_tokens, actual_tokens;
	_Atomic double recent_predicted, recent_actual;

	/* What the engine says of itself; good while younger than a few intervals. 0 ms: never. */
	_Atomic uint64_t scraped_ms;
	_Atomic double n_running, n_waiting; /* requests */
	_Atomic double kv_usage;             /* 0 to 1 */
	_Atomic double generation_rate;      /* tokens a second */
	_Atomic uint64_t cache_tokens;       /* its KV cache holds so many; 0: not said */
	_Atomic uint32_t n_restarts; /* seen by scrapes: what it had cached before is gone; readers compare */

	/* A route that it refused (404, 405, 501): label of the model << 48 | until ms. */
	_Atomic uint64_t cleared[CAPABILITIES];
};

static inline double learned_read(const _Atomic double *value) {
	return atomic_load_explicit(value, memory_order_relaxed);
}

static inline void learned_write(_Atomic double *value, double to) {
	atomic_store_explicit(value, to, memory_order_relaxed);
}
