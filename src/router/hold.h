/*
 * hold: the part of a request body that is kept, as a chain of lent bufs.
 *
 * It is kept until the model is known, and then until the request cannot be moved to
 * another connection any more. Sending references the bufs, so that a body is in
 * memory once however often it is sent. Every byte comes from the process's budget.
 */
#pragma once

#include "http/call.h"

struct hold {
	struct buf *first, *last;
	uint64_t bytes;
};

/* False: the budget is used up; the hold is unchanged up to the piece that did not fit. */
must_use bool hold_append(struct hold *h, struct buf_pool *pool, const struct piece *pieces, size_t n);

/* The same whatever the budget says, for bytes that were already read. */
void hold_append_forced(struct hold *h, struct buf_pool *pool, const struct piece *pieces, size_t n);

/* The next pieces from *at on (NULL: none left), at most n_max; returns how many and moves *at. */
size_t hold_pieces(struct buf **at, struct piece *pieces, size_t n_max);

/* The byte at this place; NUL behind the end. Linear in the bufs. */
char hold_byte(const struct hold *h, uint64_t at);

/* n bytes from this place on, which are there, to `room`. Linear in the bufs and in n. */
void hold_copy(const struct hold *h, uint64_t at, size_t n, char *room);

/* The place of the first byte from `from` on that is no white space of JSON; behind the end: there is none.
 * Linear. */
uint64_t hold_skip_blank(const struct hold *h, uint64_t from);

/* Behind the last byte before `end` that is no white space of JSON; 0: there is none. Linear. */
uint64_t hold_trim_blank(const struct hold *h, uint64_t end);

/* Is there nothing but white space of JSON from one place to another? Linear. */
bool hold_is_blank(const struct hold *h, uint64_t from, uint64_t to);

void hold_free(struct hold *h, struct buf_pool *pool);
