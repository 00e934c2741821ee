/*
 * prefix_index: which instance has which block of which prompt in its KV cache, as far as
 * can be told from where requests went.
 *
 * One table for all threads of the process, of a size that is set once: set-associative,
 * lossy, without locks and lists. Any thread calls any function at any time; threads that
 * meet may lose single blocks, and what a match says is well-formed all the same.
 *
 * A block is known by a 64-bit key that covers it and all blocks before it, well mixed: its
 * high bits find the place, and the lowest 20 are what is kept of it. So now and then a
 * block is taken for another: in a full table one first block in 16,000, and as often, or less, a later
 * one, which makes a hit too long.
 *
 * Ages are in ticks, PREFIX_BLOCK_TICKS a block: about so many blocks were used on the same
 * instance since, each counted once (the stack distance of an LRU cache). An instance is
 * believed to have a block while its age is within the instance's horizon: what its cache
 * holds, learned from the engine's answers. Engines drop the end of a prompt before its
 * beginning, so of one request the first block is the youngest; and who has a block of a
 * prompt is taken to have those before it, also those that this table lost.
 */
#pragma once

#include "fleet/instance.h"

#define PREFIX_BLOCK_TICKS 16u

/* Blocks older than this, 458752 of them, are forgotten: ages are told apart up to here. */
#define PREFIX_AGE_MAX (UINT32_C(7) << 20)

/* Nothing was learned: all that is known is believed. */
#define PREFIX_HORIZON_NONE PREFIX_AGE_MAX
#define PREFIX_HORIZON_MIN  (16 * PREFIX_BLOCK_TICKS)

#define PREFIX_INDEX_BYTES_MIN 4096u

/* Instances that the index can know to have one block; popular blocks have more. */
#define PREFIX_HITS_MAX 64u

struct prefix_index;

/* The table takes the largest power of two within `bytes`. NULL: the system has not so much. */
must_use struct prefix_index *prefix_index_new(size_t bytes);
void prefix_index_free(struct prefix_index **ix); /* accepts NULL, clears */

/*
 * The fleet has so many instances. The more there are, the more places a block has: 8 for
 * each 4 instances, up to PREFIX_HITS_MAX. It never narrows, and what is known stays known, but for what is
 * put meanwhile. Widening walks a table in use, a third of a second for 64 MiB: not for a thread with
 * requests.
 */
void prefix_index_widen(struct prefix_index *ix, uint32_t n_instances);

/*
 * The slot is that of the instance with this serial. When it was another's, what is known
 * of it is forgotten, and it has no horizon. To be called before the first put for an
 * instance; threads may do so at once.
 */
void prefix_index_own(struct prefix_index *ix, unsigned slot, uint64_t serial);

/* The instance's cache is empty. It keeps its horizon. */
void prefix_index_forget(struct prefix_index *ix, unsigned slot);

/* A request with these blocks, first to last, went to the instance. */
void prefix_index_put(struct prefix_index *ix, unsigned slot, const uint64_t *keys, size_t n_keys);

struct prefix_hit {
	uint32_t n_blocks;   /* the first so many are believed to be there; may be 0 */
	uint32_t age;        /* of the last of them; 0 when there is none */
	uint32_t n_known;    /* the first so many were there once; at least n_blocks and 1 */
	uint32_t age_beyond; /* of the first that is not believed; 0 when all are */
	uint16_t slot;
};

/* The match's own: what it holds the entries of a hit's slot against. */
struct prefix_run {
	uint32_t owner, now, horizon;
	uint32_t age;        /* of the last block that it is known to have */
	uint32_t age_beyond; /* of the first one seen that is not believed; 0: none was */
};

/* What a match found. The caller's, one a thread, zeroed once before its first use. */
struct prefix_scan {
	uint32_t n_hits;
	struct prefix_hit hits[PREFIX_HITS_MAX]; /* in no order */
	struct prefix_run runs[PREFIX_HITS_MAX]; /* parallel to hits */
	uint8_t at[INSTANCE_SLOTS_MAX]; /* position in hits by slot; anything for slots without one */
};

/*
 * Who has the first of these blocks, and how many: the last one is there, and the one behind it is not.
 * Of one that the table lost in between, either end may be found. Overwrites what was in the scan.
 */
void prefix_index_match(
    const struct prefix_index *ix, const uint64_t *keys, size_t n_keys, struct prefix_scan *scan);

/* NULL when nothing is known of the slot. */
static inline const struct prefix_hit *prefix_scan_find(const struct prefix_scan *scan, unsigned slot) {
	assert(slot < INSTANCE_SLOTS_MAX);
	uint32_t at = scan->at[slot];

	return at < scan->n_hits && scan->hits[at].slot == slot ? &scan->hits[at] : NULL;
}

/*
 * What the engine's answer told of a block of this age. A believed one that was gone draws
 * the horizon an eighth of the way down to its age, or sets it there when there was none: it
 * may have gone for other reasons. One beyond belief that was there is proof: the horizon
 * is its age. What agrees with the horizon moves nothing.
 */
void prefix_index_learn(struct prefix_index *ix, unsigned slot, uint32_t age, bool was_there);

/* In ticks; PREFIX_HORIZON_NONE when there is none. */
uint32_t prefix_index_horizon(const struct prefix_index *ix, unsigned slot);

struct prefix_index_stats {
	size_t bytes; /* of the table */
	size_t n_buckets;
	uint64_t n_puts;      /* blocks; threads that count at once may lose some */
	uint64_t n_evictions; /* of blocks that were believed */
};

struct prefix_index_stats prefix_index_stats(const struct prefix_index *ix);
