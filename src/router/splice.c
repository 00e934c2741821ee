#include "router/splice.h"

#include "router/scan.h"

void splice_add(struct splice *s, struct splice_edit edit) {
	unsigned i = s->n;

	assert(s->n < SPLICE_EDITS_MAX);
	for (; i > 0 && s->edits[i - 1].at > edit.at; i--)
		s->edits[i] = s->edits[i - 1];
	assert(i == 0 || s->edits[i - 1].at + s->edits[i - 1].n_cut <= edit.at);
	s->edits[i] = edit;
	s->n++;
}

uint64_t splice_length(const struct splice *s, uint64_t n_bytes) {
	for (unsigned i = 0; i < s->n; i++)
		n_bytes += s->edits[i].put.n + s->edits[i].from_n - s->edits[i].n_cut;
	return n_bytes;
}

/* The quote that opens a name which ends before `end`. */
static uint64_t name_of(const struct hold *body, uint64_t end) {
	char text[6 * SCAN_NAME_MAX + 2]; /* each byte an escape, between quotes */
	size_t n = (size_t)u64_min(end, sizeof(text));

	assert(n > 0);
	hold_copy(body, end - n, n, text);
	const char *quote = memrchr(text, '"', n - 1);
	assert(quote);
	return end - n + (uint64_t)(quote - text);
}

void splice_find_member(
    const struct hold *body, uint64_t value_at, uint64_t value_n, uint64_t *at_out, uint64_t *n_out) {
	uint64_t colon = hold_trim_blank(body, value_at) - 1;
	uint64_t from = name_of(body, hold_trim_blank(body, colon)), to = value_at + value_n;
	uint64_t before = hold_trim_blank(body, from), next = hold_skip_blank(body, to);

	if (hold_byte(body, next) == ',')
		to = next + 1;
	else if (before > 0 && hold_byte(body, before - 1) == ',')
		from = before - 1;
	*at_out = from;
	*n_out = to - from;
}

void splice_begin(struct splice_cursor *c, const struct splice *s, const struct hold *body) {
	*c = (struct splice_cursor){ .splice = s, .buf = body->first };
}

/* To place `at` of the body. */
static void skip_to(struct splice_cursor *c, uint64_t at) {
	c->at = at;
	while (c->buf && c->buf_at + c->buf->used <= at) {
		c->buf_at += c->buf->used;
		c->buf = c->buf->next;
	}
}

/* The edit whose turn it is: what it cuts is skipped, what it puts is next. */
static void begin_edit(struct splice_cursor *c) {
	const struct splice_edit *e = &c->splice->edits[c->edit++];

	skip_to(c, e->at + e->n_cut);
	c->put = e->put;
	if (!e->from)
		return;
	c->from = e->from->first;
	c->from_skip = e->from_at;
	c->from_left = e->from_n;
}

static bool put_text(struct splice_cursor *c, struct piece *piece) {
	*piece = (struct piece){ c->put.p, c->put.n, NULL };
	c->put.n = 0;
	return piece->n > 0;
}

/* A piece of the other hold. */
static bool put_range(struct splice_cursor *c, struct piece *piece) {
	while (c->from && c->from_skip >= c->from->used) {
		c->from_skip -= c->from->used;
		c->from = c->from->next;
	}
	if (!c->from || !c->from_left)
		return false;
	size_t n = (size_t)u64_min(c->from_left, c->from->used - c->from_skip);
	*piece = (struct piece){ c->from->data + c->from_skip, n, c->from };
	c->from_skip += n;
	c->from_left -= n;
	return true;
}

/* A piece of the body, up to the next edit. */
static bool put_body(struct splice_cursor *c, struct piece *piece) {
	if (!c->buf)
		return false;
	uint64_t skip = c->at - c->buf_at, n = c->buf->used - skip;

	if (c->edit < c->splice->n)
		n = u64_min(n, c->splice->edits[c->edit].at - c->at);
	*piece = (struct piece){ c->buf->data + skip, (size_t)n, c->buf };
	skip_to(c, c->at + n);
	return n > 0;
}

static bool put_next(struct splice_cursor *c, struct piece *piece) {
	while (!put_text(c, piece) && !put_range(c, piece)) {
		if (c->edit == c->splice->n || c->splice->edits[c->edit].at != c->at)
			return put_body(c, piece);
		begin_edit(c);
	}
	return true;
}

size_t splice_pieces(struct splice_cursor *c, struct piece *pieces, size_t n_max) {
	size_t n = 0;

	while (n < n_max && put_next(c, &pieces[n]))
		n++;
	return n;
}

static void append(struct hold *out, struct buf_pool *pool, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };
	hold_append_forced(out, pool, &piece, 1);
}

void splice_append(const struct splice *s, struct slice text, struct hold *out, struct buf_pool *pool) {
	static const struct hold none;
	struct splice_cursor c;
	struct piece piece;
	uint64_t at = 0;

	splice_begin(&c, s, &none);
	while (c.edit < s->n) {
		const struct splice_edit *e = &s->edits[c.edit];
		append(out, pool, (struct slice){ text.p + at, (size_t)(e->at - at) });
		at = e->at + e->n_cut;
		begin_edit(&c);
		while (put_text(&c, &piece) || put_range(&c, &piece))
			hold_append_forced(out, pool, &piece, 1);
	}
	append(out, pool, slice_skip(text, (size_t)at));
}
