/* mix: numbers that may be small or alike made into hashes. */
#pragma once

#include <stdint.h>

/* The finaliser of MurmurHash3: each bit of the input moves half of the output's. One to one. */
static inline uint64_t mix64(uint64_t x) {
	x = (x ^ (x >> 33)) * UINT64_C(0xff51afd7ed558ccd);
	x = (x ^ (x >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 33);
}
