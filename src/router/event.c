#include "router/event.h"

enum { LINE_EMPTY, LINE_RETURN, LINE_FULL };

size_t event_end(uint8_t *line, struct slice text) {
	const char *p = text.p, *end = text.p + text.n;

	while (p < end) {
		if (*line != LINE_FULL && *p == '\n') {
			*line = LINE_EMPTY;
			return (size_t)(p + 1 - text.p);
		}
		if (*line == LINE_EMPTY && *p == '\r') {
			*line = LINE_RETURN;
			p++;
			continue;
		}
		*line = LINE_FULL;
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		if (!newline)
			return 0;
		*line = LINE_EMPTY;
		p = newline + 1;
	}
	return 0;
}

bool event_data(struct slice event, struct slice *data_out) {
	bool is_first = true;

	*data_out = (struct slice){ event.p, 0 };
	while (event.n) {
		const char *newline = memchr(event.p, '\n', event.n);
		size_t n = newline ? (size_t)(newline - event.p) : event.n;
		struct slice line = slice_head(event, n);
		event = slice_skip(event, size_min(n + 1, event.n));
		if (!slice_has_prefix(line, SLICE("data:")))
			continue;
		if (!is_first)
			return false;
		is_first = false;
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		*data_out = slice_trim(slice_skip(line, 5));
	}
	return true;
}

static struct buf *room_for(struct buf_pool *pool, bool is_forced, size_t n) {
	if (!is_forced && buf_is_over_budget(pool))
		return NULL;
	return n > BUF_BYTES_MAX - sizeof(struct buf) ? buf_new_whole(pool, n) : buf_new_forced(pool, n);
}

/* Behind what there is of the event. False: it would be too long, or there is no memory; it is as it was. */
static bool gather(struct event_cutter *c, struct buf_pool *pool, bool is_forced, struct slice text) {
	size_t n = c->part ? c->part->used : 0, n_max = c->bytes_max ? c->bytes_max : EVENT_BYTES_MAX;

	if (n + text.n > n_max)
		return false;
	if (!c->part || buf_room(c->part) < text.n) {
		struct buf *b = room_for(pool, is_forced, size_min(size_max(n + text.n, 2 * n), n_max));
		if (!b)
			return false;
		if (n)
			memcpy(b->data, c->part->data, n);
		b->used = (uint32_t)n;
		buf_unref(pool, &c->part);
		c->part = b;
	}
	memcpy(c->part->data + n, text.p, text.n);
	c->part->used += (uint32_t)text.n;
	return true;
}

static void forget_whole(struct event_cutter *c, struct buf_pool *pool) {
	if (c->is_whole)
		buf_unref(pool, &c->part);
	c->is_whole = false;
}

int event_cut(struct event_cutter *c, struct buf_pool *pool, bool is_forced, struct slice *text,
    struct slice *event_out) {
	uint8_t line = c->line;

	forget_whole(c, pool);
	if (!text->n)
		return EVENT_MORE;
	size_t n = event_end(&line, *text);
	struct slice head = slice_head(*text, n ? n : text->n);
	if ((c->part || !n) && !gather(c, pool, is_forced, head))
		return EVENT_LARGE;
	c->line = line;
	*text = slice_skip(*text, head.n);
	if (!n)
		return EVENT_MORE;
	c->is_whole = c->part;
	*event_out = c->part ? (struct slice){ c->part->data, c->part->used } : head;
	return 0;
}

struct slice event_part(const struct event_cutter *c) {
	if (!c->part || c->is_whole)
		return (struct slice){ NULL, 0 };
	return (struct slice){ c->part->data, c->part->used };
}

void event_cutter_clear(struct event_cutter *c, struct buf_pool *pool) {
	buf_unref(pool, &c->part);
	*c = (struct event_cutter){ .bytes_max = c->bytes_max };
}
