#include "router/prompt_hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t prompt_hash_any(const char *p, uint64_t seed) {
	return XXH3_64bits_withSeed(p, PROMPT_BLOCK_BYTES, seed);
}
