/*
 * split_breaker: pairs of prefill and decode instances that do not get on, where each does with others.
 *
 * Three requests in a row that a decode instance failed, at the first attempt, with what this prefill had
 * computed, and the two are not put together for half a minute, unless one of them is restarted meanwhile. A
 * table of fixed size, shared by all workers, lossy: two pairs in one cell forget each other. Relaxed
 * atomics; any thread.
 */
#pragma once

#include <stdatomic.h>

#include "base/slice.h"

#define SPLIT_BREAKER_CELLS    1024u
#define SPLIT_BREAKER_FAILURES 3u
#define SPLIT_BREAKER_REST_S   30u

struct split_breaker {
	_Atomic uint64_t cells[SPLIT_BREAKER_CELLS]; /* private; zeroed: all get on */
};

/* Lives of instances (fleet/instance.h); `now_s` is monotonic. */
bool split_breaker_is_open(const struct split_breaker *b, uint64_t prefill, uint64_t decode, uint64_t now_s);
void split_breaker_fail(struct split_breaker *b, uint64_t prefill, uint64_t decode, uint64_t now_s);
void split_breaker_succeed(struct split_breaker *b, uint64_t prefill, uint64_t decode);
