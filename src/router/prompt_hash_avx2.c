/*
 * The library chooses its instructions when it is compiled, so it is compiled once more, for AVX2, in a
 * file of its own. What both would include stands before that.
 */
#include "router/prompt_hash.h"

#include <immintrin.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define XXH_VECTOR 2 /* XXH_AVX2, which clang would not find by itself */
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t prompt_hash_avx2(const char *p, uint64_t seed) {
	return XXH3_64bits_withSeed(p, PROMPT_BLOCK_BYTES, seed);
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
