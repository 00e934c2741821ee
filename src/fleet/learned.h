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
	/* What nearly every choice reads: with instance->avoid_until_ms it is a cache line. */
	_Atomic double prefill_rate; /* uncached prompt tokens a second; 0: not known yet */
	_Atomic uint64_t first_ns;   /* when it answered anybody with a first token last */
	_Atomic double recent_predicted, recent_actual; /* of the tokens below; they decay */
	/* What the engine says of itself; good while younger than a few intervals. 0 ms: never. */
	_Atomic uint64_t scraped_ms;
	_Atomic double n_waiting; /* requests */
	_Atomic double kv_usage;  /* 0 to 1 */

	_Atomic double first_token_s; /* decaying mean that follows peaks at once; 0: not known yet */
	_Atomic double recent_tokens, recent_s; /* that prefill_rate follows from; they decay */

	/* Cached prompt tokens: predicted by the prefix index against said by usage. */
	_Atomic uint64_t predicted_tokens, actual_tokens;

	/* The engine's, too, like kv_usage. */
	_Atomic double n_running;      /* requests */
	_Atomic double recent_said;    /* requests there, */
	_Atomic double recent_own;     /* and those of them that are ours; both decay */
	_Atomic uint32_t n_several;    /* of ours, those that are several to the engine, and are under way */
	_Atomic uint64_t cache_tokens; /* its KV cache holds so many; 0: not said */
	_Atomic uint32_t
	    n_restarts; /* as far as they are seen: what it had cached before is gone; readers compare */
	_Atomic uint32_t
	    n_doubts; /* requests whose decode failed with what it had prefilled; readers compare */

	/* A route that it refused (404, 405, 501): label of the model << 48 | until ms. The last one counts.
	 */
	_Atomic uint64_t cleared[CAPABILITIES];
};

#define LEARNED_STRANGERS_MIN 0.05

/* So long is what it refused not asked of it while there are others. */
#define LEARNED_CLEARED_MS 60000u

static inline double learned_read(const _Atomic double *value) {
	return atomic_load_explicit(value, memory_order_relaxed);
}

static inline void learned_write(_Atomic double *value, double to) {
	atomic_store_explicit(value, to, memory_order_relaxed);
}

/* The engine said how many requests it has; n_own were this router's by then. The control thread alone. */
void learned_hear_requests(struct learned *learned, double n_running, double n_waiting, uint64_t n_own);

/* 0 to 1: the part of its requests, lately, that this router did not send; less than a twentieth is none,
 * since both are not counted at the same moment. */
static inline double learned_strangers(const struct learned *learned) {
	double said = learned_read(&learned->recent_said), own = learned_read(&learned->recent_own);

	return own < said * (1 - LEARNED_STRANGERS_MIN) ? 1 - own / said : 0;
}

#define LEARNED_MS_MASK ((UINT64_C(1) << 48) - 1)

/* Until then such a refusal of any instance may be in force: what spares most picks to look for one. */
extern _Atomic uint64_t learned_cleared_until_ms;

/* `now_ms` is the clock of instance_avoid(). */
static inline bool learned_is_any_cleared(uint64_t now_ms) {
	return atomic_load_explicit(&learned_cleared_until_ms, memory_order_relaxed) > now_ms;
}

/* Whether it refused such a request for the model of this label lately. */
static inline bool learned_is_cleared(
    const struct learned *learned, enum capability capability, uint32_t label, uint64_t now_ms) {
	uint64_t word = atomic_load_explicit(&learned->cleared[capability], memory_order_relaxed);

	return word >> 48 == label && (word & LEARNED_MS_MASK) > now_ms;
}

/*
 * It has just refused one. True when that is news: at most once in LEARNED_CLEARED_MS for each
 * capability, whatever models are asked for, so that requests cannot flood a log with it.
 */
bool learned_clear(struct learned *learned, enum capability capability, uint32_t label, uint64_t now_ms);
