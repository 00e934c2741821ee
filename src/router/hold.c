#include "router/hold.h"

typedef struct buf *(*hold_new_fn)(struct buf_pool *pool, size_t want);

static bool hold_grow(struct hold *h, struct buf_pool *pool, size_t want, hold_new_fn new) {
	/* Small bodies get a small buf; a body that keeps coming gets larger ones. */
	struct buf *b = new (pool, size_max(want, (size_t)u64_min(h->bytes, BUF_BYTES_MAX)));
	if (!b)
		return false;
	if (h->last)
		h->last->next = b;
	else
		h->first = b;
	h->last = b;
	return true;
}

static bool hold_add(
    struct hold *h, struct buf_pool *pool, const struct piece *pieces, size_t n, hold_new_fn new) {
	for (size_t i = 0; i < n; i++) {
		struct slice rest = { pieces[i].p, pieces[i].n };
		while (rest.n) {
			if ((!h->last || !buf_room(h->last)) && !hold_grow(h, pool, rest.n, new))
				return false;
			struct buf *b = h->last;
			size_t part = size_min(rest.n, buf_room(b));
			memcpy(b->data + b->used, rest.p, part);
			b->used += (uint32_t)part;
			h->bytes += part;
			rest = slice_skip(rest, part);
		}
	}
	return true;
}

bool hold_append(struct hold *h, struct buf_pool *pool, const struct piece *pieces, size_t n) {
	return hold_add(h, pool, pieces, n, buf_new);
}

void hold_append_forced(struct hold *h, struct buf_pool *pool, const struct piece *pieces, size_t n) {
	bool has_room = hold_add(h, pool, pieces, n, buf_new_forced);
	assert(has_room);
}

size_t hold_pieces(struct buf **at, struct piece *pieces, size_t n_max) {
	size_t n = 0;
	for (; *at && n < n_max; *at = (*at)->next)
		pieces[n++] = (struct piece){ (*at)->data, (*at)->used, *at };
	return n;
}

char hold_byte(const struct hold *h, uint64_t at) {
	const struct buf *b = h->first;
	for (; b && at >= b->used; b = b->next)
		at -= b->used;
	return b ? b->data[at] : '\0';
}

void hold_copy(const struct hold *h, uint64_t at, size_t n, char *room) {
	const struct buf *b = h->first;

	assert(at + n <= h->bytes);
	for (; n; b = b->next) {
		uint64_t skip = u64_min(at, b->used);
		size_t part = size_min(n, (size_t)(b->used - skip));

		memcpy(room, b->data + skip, part);
		room += part;
		n -= part;
		at -= skip;
	}
}

uint64_t hold_skip_blank(const struct hold *h, uint64_t from) {
	uint64_t begin = 0;

	for (const struct buf *b = h->first; b; begin += b->used, b = b->next)
		for (; from < begin + b->used; from++)
			if (!ascii_is_blank(b->data[from - begin]))
				return from;
	return from;
}

uint64_t hold_trim_blank(const struct hold *h, uint64_t end) {
	uint64_t begin = 0, last = 0;

	for (const struct buf *b = h->first; b && begin < end; begin += b->used, b = b->next) {
		uint64_t n = u64_min(b->used, end - begin);

		while (n > 0 && ascii_is_blank(b->data[n - 1]))
			n--;
		if (n > 0)
			last = begin + n;
	}
	return last;
}

bool hold_is_blank(const struct hold *h, uint64_t from, uint64_t to) {
	return hold_skip_blank(h, from) >= to;
}

void hold_free(struct hold *h, struct buf_pool *pool) {
	while (h->first) {
		struct buf *b = h->first;
		h->first = b->next;
		buf_unref(pool, &b);
	}
	*h = (struct hold){ NULL, NULL, 0 };
}
