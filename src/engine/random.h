/*
 * random: the n-th number of a seeded sequence, without state, the same on every
 * machine. For texts and choices that a test wants to see again; nothing secret.
 */
#pragma once

#include "base/defs.h"

static inline uint64_t random_nth(uint64_t seed, uint64_t nth) {
	uint64_t x = seed + (nth + 1) * 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}
