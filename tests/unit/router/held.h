/* held: bodies in bufs, cut wherever a test wants it. */
#pragma once

#include "unit/unit.h"

#include "router/hold.h"

static struct buf_budget budget;
static struct buf_pool pool;

static int setup(void **state) {
	budget = (struct buf_budget){ .max_bytes = 16u << 20 };
	buf_pool_init(&pool, &budget);
	return 0;
}

static int teardown(void **state) {
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

/* In bufs that have `step` bytes each. */
static inline struct hold held(struct slice text, size_t step) {
	struct hold h = { .bytes = text.n };

	for (struct buf **next = &h.first; text.n; next = &h.last->next) {
		struct slice part = slice_head(text, step);
		h.last = *next = buf_new(&pool, step);
		memcpy(h.last->data, part.p, part.n);
		h.last->used = (uint32_t)part.n;
		text = slice_skip(text, part.n);
	}
	return h;
}

/* To be freed. */
static inline char *text_of(const struct hold *h) {
	char *text = calloc(1, (size_t)h->bytes + 1), *to = text;

	for (const struct buf *b = h->first; b; to += b->used, b = b->next)
		memcpy(to, b->data, b->used);
	return text;
}
