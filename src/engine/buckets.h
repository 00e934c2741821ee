/*
 * buckets: a histogram: how many values fell below which bound, as Prometheus tells it.
 *
 * Values are whole numbers; bounds and sum are told in `unit`s of them: nanoseconds
 * go in, seconds come out. Values, not pointers, but the scale, which is constant.
 */
#pragma once

#include "engine/bytes.h"

#define BUCKETS_BOUNDS_MAX 22

struct buckets_scale {
	double unit;
	uint32_t n_bounds;
	double bounds[BUCKETS_BOUNDS_MAX];
};

struct buckets {
	const struct buckets_scale *scale;
	uint64_t sum;
	uint64_t n_in[BUCKETS_BOUNDS_MAX + 1]; /* the last one: beyond all bounds */
};

/* The same value n times. */
void buckets_add(struct buckets *h, uint64_t value, uint64_t n);

/* The lines of vllm:NAME, labelled with engine and model. */
void buckets_print(
    const struct buckets *h, const char *name, unsigned engine, const char *model, struct bytes *out);
