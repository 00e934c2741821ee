/*
 * buf: blocks of bytes lent while bytes wait, and the budget they come from.
 *
 * A buf is counted: a held request body and the output queue that sends it share it
 * (buf_ref, buf_unref, one thread). Five sizes, 1 KiB to 256 KiB, header included; small ones
 * come from slabs, large ones from a short list of spares. Every byte lent by any
 * thread is charged to one process-wide budget, so that what peers can make us hold
 * has one ceiling: buf_new() answers NULL beyond it, buf_new_forced() overshoots for
 * bytes that were already read, after which buf_is_over_budget() stops the readers.
 * A thread reports to the shared counter only when its own account has moved by 64 KiB,
 * so that small bufs that come and go with each request touch nothing shared.
 */
#pragma once

#include <stdatomic.h>

#include "base/slab.h"
#include "base/slice.h"

#define BUF_BYTES_MAX (256u * 1024u)
#define BUF_N_CLASSES 5

struct buf_budget {
	_Atomic uint64_t used_bytes;
	uint64_t max_bytes;
};

struct buf {
	struct buf *next; /* for the chain of whoever owns it */
	uint32_t n_refs;
	uint32_t class;
	uint32_t size; /* bytes of room in data */
	uint32_t used; /* bytes of data that are filled, from the start */
	char data[];
};

/* One per thread. */
struct buf_pool {
	struct buf_budget *budget;
	int64_t unreported_bytes; /* lent less given back, not yet in budget->used_bytes */
	struct slab slabs[3];     /* the three small sizes */
	struct buf *spares[2];
	uint32_t n_spares[2];
};

void buf_pool_init(struct buf_pool *p, struct buf_budget *budget);
void buf_pool_deinit(struct buf_pool *p);

/* Brings the shared counter up to the last byte. */
void buf_pool_report(struct buf_pool *p);

/* Gives unused memory back. Every few seconds. */
void buf_pool_trim(struct buf_pool *p);

/* Room for at least min(want, BUF_BYTES_MAX - header) bytes, one reference. NULL: the budget is used up. */
must_use struct buf *buf_new(struct buf_pool *p, size_t want);
must_use struct buf *buf_new_forced(struct buf_pool *p, size_t want);

/* Room for exactly n bytes, however many, in one piece; overshoots like buf_new_forced(). For what many wait
 * for; given back at once by the last of them. */
must_use struct buf *buf_new_whole(struct buf_pool *p, size_t n);

struct buf *buf_ref(struct buf *b);
void buf_unref(struct buf_pool *p, struct buf **b);

bool buf_is_over_budget(const struct buf_pool *p);

static inline size_t buf_room(const struct buf *b) {
	return b->size - b->used;
}
