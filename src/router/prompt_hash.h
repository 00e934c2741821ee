/*
 * prompt_hash: the hash of one block of a prompt. Private to prompt_chain.
 *
 * XXH3 with a seed, as the library computes it for the processor that the rest is built for, and for
 * AVX2, which takes half the time. Both give the same.
 */
#pragma once

#include "policy/demand.h"

/* PROMPT_BLOCK_BYTES at p. */
uint64_t prompt_hash_any(const char *p, uint64_t seed);
uint64_t prompt_hash_avx2(const char *p, uint64_t seed); /* only where scan_has_avx2() */
