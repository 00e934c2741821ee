/*
 * prefix_cache: which prompt blocks an engine still has in its memory.
 *
 * Pure. A block is known by a key that covers it and all blocks before it, so that
 * equal leading keys mean an equal leading text. The keys come from prompt.h, or
 * from the block ids of a trace. Capacity is fixed; the block that was not touched
 * for longest goes first. Owns its memory, 24 bytes a block. One thread.
 */
#pragma once

#include "base/defs.h"

struct prefix_cache;

struct prefix_cache *prefix_cache_new(uint32_t n_blocks_max);
void prefix_cache_free(struct prefix_cache **cache);

/* How many of the n_keys leading blocks are there. Touches nothing. */
size_t prefix_cache_match(const struct prefix_cache *cache, const uint64_t *keys, size_t n_keys);

/* Puts or renews all the blocks, in this order; what is beyond capacity falls out. */
void prefix_cache_touch(struct prefix_cache *cache, const uint64_t *keys, size_t n_keys);

void prefix_cache_clear(struct prefix_cache *cache);
uint32_t prefix_cache_n_blocks(const struct prefix_cache *cache);
