/*
 * rng: a small fast generator of random numbers (xoshiro256**), one per thread.
 *
 * For choices that must be fair and cheap, never for secrets. The same seed gives
 * the same numbers for ever: tests and the simulator rely on it. No locks: a struct
 * rng belongs to one thread.
 */
#pragma once

#include <sys/random.h>

#include "base/defs.h"

struct rng {
	uint64_t s[4];
};

/* splitmix64 spreads the seed over the state: any seed will do, also 0. */
static inline void rng_init(struct rng *r, uint64_t seed) {
	for (size_t i = 0; i < n_elems(r->s); i++) {
		uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		r->s[i] = z ^ (z >> 31);
	}
}

/* From the kernel's entropy; blocks only while a machine that just booted has none. */
static inline void rng_init_random(struct rng *r) {
	uint64_t seed;
	ssize_t n = getrandom(&seed, sizeof(seed), 0);

	assert(n == (ssize_t)sizeof(seed));
	rng_init(r, seed);
}

static inline uint64_t rng_next(struct rng *r) {
	uint64_t *s = r->s;
	uint64_t x = s[1] * 5, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = (s[3] << 45) | (s[3] >> 19);
	return ((x << 7) | (x >> 57)) * 9;
}

/* 0 to n - 1; n > 0. The bias of a multiplication without rejection is below n / 2^64. */
static inline uint64_t rng_below(struct rng *r, uint64_t n) {
	assert(n > 0);
	return (uint64_t)(((unsigned __int128)rng_next(r) * n) >> 64);
}
