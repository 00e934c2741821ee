#include "router/hold.h"

static bool hold_grow(struct hold *h, struct buf_pool *pool, size_t want) {
	/* Small bodies get a small buf; a body that keeps coming gets larger ones. */
	struct buf *b = buf_new(pool, size_max(want, (size_t)u64_min(h->bytes, BUF_BYTES_MAX)));
	if (!b)
		return false;
	if (h->last)
		h->last->next = b;
	else
		h->first = b;
	h->last = b;
	return true;
}

bool hold_append(struct hold *h, struct buf_pool *pool, const struct piece *pieces, size_t n) {
	for (size_t i = 0; i < n; i++) {
		struct slice rest = { pieces[i].p, pieces[i].n };
		while (rest.n) {
			if ((!h->last || !buf_room(h->last)) && !hold_grow(h, pool, rest.n))
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

size_t hold_pieces(struct buf **at, struct piece *pieces, size_t n_max) {
	size_t n = 0;
	for (; *at && n < n_max; *at = (*at)->next)
		pieces[n++] = (struct piece){ (*at)->data, (*at)->used, *at };
	return n;
}

void hold_free(struct hold *h, struct buf_pool *pool) {
	while (h->first) {
		struct buf *b = h->first;
		h->first = b->next;
		buf_unref(pool, &b);
	}
	*h = (struct hold){ NULL, NULL, 0 };
}
