/*
 * defs: the handful of macros and attributes that every file may use.
 *
 * Generic macros live here and nowhere else. `assert` stays on in release
 * builds: it checks our own invariants, never a peer's input, and reports the
 * object at work through panic.h before it aborts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/panic.h"

#define must_use               __attribute__((warn_unused_result))
#define cleanup(f)             __attribute__((cleanup(f)))
#define hot                    __attribute__((hot))
#define cold                   __attribute__((cold))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define n_elems(array) (sizeof(array) / sizeof((array)[0]))

/* The object that embeds the member that `ptr` points to. */
#define container_of(ptr, type, member)                                                                      \
	((type *)((char *)(1 ? (ptr) : &((type *)0)->member) - offsetof(type, member)))

#undef assert
#define assert(cond) (likely(cond) ? (void)0 : panic_assert(#cond, __FILE__, __LINE__, __func__))

/* Checks that cost more than a compare: debug and sanitizer builds only. */
#ifdef HEADRACE_SLOW_CHECKS
#define assert_slow(cond) assert(cond)
#else
#define assert_slow(cond) ((void)0)
#endif

static inline size_t size_min(size_t a, size_t b) {
	return a < b ? a : b;
}
static inline size_t size_max(size_t a, size_t b) {
	return a > b ? a : b;
}
static inline uint64_t u64_min(uint64_t a, uint64_t b) {
	return a < b ? a : b;
}
static inline uint64_t u64_max(uint64_t a, uint64_t b) {
	return a > b ? a : b;
}
