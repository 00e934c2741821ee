/*
 * histogram: counts of durations in nanoseconds, known to 1.6 %, in a fixed 32 KiB.
 *
 * Log-linear: 64 slots in every power of two. One thread.
 */
#pragma once

#include "base/defs.h"

#define HISTOGRAM_STEPS 64

struct histogram {
	uint64_t n;
	uint64_t slot[HISTOGRAM_STEPS * 64];
};

static inline void histogram_add(struct histogram *h, uint64_t value) {
	unsigned shift = value < HISTOGRAM_STEPS ? 0 : 57 - (unsigned)__builtin_clzll(value);

	h->slot[shift * HISTOGRAM_STEPS + (value >> shift)]++;
	h->n++;
}

/* The smallest value that `share` (0 to 1) of the values do not pass; 0 when there are none. */
static inline uint64_t histogram_quantile(const struct histogram *h, double share) {
	uint64_t wanted = (uint64_t)(share * (double)h->n + 0.5), seen = 0;

	for (size_t i = 0; i < n_elems(h->slot) && h->n; i++) {
		seen += h->slot[i];
		if (seen >= wanted && h->slot[i]) {
			size_t shift = i < 2 * HISTOGRAM_STEPS ? 0 : i / HISTOGRAM_STEPS - 1;
			return (uint64_t)(i - shift * HISTOGRAM_STEPS) << shift;
		}
	}
	return 0;
}
