/*
 * slab: fixed-size objects carved from 64 KiB blocks. One thread, no locks.
 *
 * A block whose objects have all come back is unmapped by
 * slab_trim(), all but one, so that memory follows the load down. Freed objects are
 * poisoned under AddressSanitizer. slab_deinit() asserts that nothing is lent.
 */
#pragma once

#include "base/list.h"

#define SLAB_BLOCK_BYTES 65536u

struct slab {
	struct list partial; /* blocks with at least one free object; empty ones at the tail */
	struct list full;
	uint32_t object_bytes;
	uint32_t n_per_block;
	size_t n_lent;
	size_t n_blocks;
	size_t n_empty;
};

void slab_init(struct slab *s, size_t object_bytes);
void slab_deinit(struct slab *s);

/* Never NULL: aborts when the system has no memory left. The content is undefined. */
void *slab_get(struct slab *s);

/* The same, all bytes zero. */
void *slab_get_zeroed(struct slab *s);

/* NULL is allowed. The object must come from `s`. */
void slab_put(struct slab *s, void *object);

/* Gives all empty blocks but one back to the system. Called every few seconds. */
void slab_trim(struct slab *s);
