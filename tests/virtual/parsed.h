/*
 * parsed: one HTTP/1.1 message as a peer of the router reads it, by a parser that
 * shares nothing with the router's and takes only what a router may write: a first
 * line, fields with one colon and one space, one way of framing, plain chunk lines.
 *
 * Views point into the bytes that were read; the body is the struct's own until
 * parsed_deinit().
 */
#pragma once

#include "engine/bytes.h"

enum parsed_kind { PARSED_REQUEST, PARSED_RESPONSE, PARSED_RESPONSE_TO_HEAD };

struct parsed {
	struct slice line;   /* the first, without its end */
	struct slice fields; /* the lines behind it, each with its end */
	unsigned status;     /* 0: a request */
	struct bytes body;   /* framing taken off */
	bool is_whole;       /* if framed by the end of the connection: it ended in order */
	bool is_chunked, is_to_end;
	bool is_bad; /* not what a router may write */
};

static inline void parsed_deinit(struct parsed *m) {
	bytes_deinit(&m->body);
}

static inline bool parsed_has(struct slice in, const char *text) {
	return in.n && memmem(in.p, in.n, text, strlen(text));
}

/* The line at the front of *in, taken off; false: its end has not come. */
static inline bool parsed_take_line(struct slice *in, struct slice *line_out) {
	const char *end = in->n ? memmem(in->p, in->n, "\r\n", 2) : NULL;
	if (!end)
		return false;
	*line_out = slice_head(*in, (size_t)(end - in->p));
	*in = slice_skip(*in, line_out->n + 2);
	return true;
}

/* Of the only field of that name (lower case), else p is NULL; *n_out says how many there are. */
static inline struct slice parsed_find(const struct parsed *m, const char *name, unsigned *n_out) {
	struct slice rest = m->fields, line, found = { NULL, 0 };
	size_t n = strlen(name);
	*n_out = 0;
	while (parsed_take_line(&rest, &line)) {
		if (line.n < n + 2 || !slice_is(slice_head(line, n), slice_of(name)) || line.p[n] != ':')
			continue;
		found = (*n_out)++ ? (struct slice){ NULL, 0 } : slice_skip(line, n + 2);
	}
	return found;
}

static inline struct slice parsed_field(const struct parsed *m, const char *name) {
	unsigned n;
	return parsed_find(m, name, &n);
}

/* Digits to the end; SIZE_MAX: they are not, or are too many. */
static inline size_t parsed_number(struct slice digits, unsigned base) {
	size_t value = 0;
	if (!digits.n || digits.n > 15)
		return SIZE_MAX;
	for (size_t i = 0; i < digits.n; i++) {
		const char *at = memchr("0123456789abcdef", digits.p[i], base);
		if (!at)
			return SIZE_MAX;
		value = value * base + (size_t)(at - "0123456789abcdef");
	}
	return value;
}

static inline void parsed_keep(struct parsed *m, struct slice *in, size_t n) {
	bool fits = bytes_add(&m->body, slice_head(*in, n));
	assert(fits);
	*in = slice_skip(*in, size_min(n, in->n));
}

static inline void parsed_chunks(struct parsed *m, struct slice *in) {
	struct slice line, end;
	while (parsed_take_line(in, &line)) {
		size_t n = parsed_number(line, 16);
		if (n == SIZE_MAX) {
			m->is_bad = true;
			return;
		}
		if (n == 0) {
			while (parsed_take_line(in, &line)) /* trailers */
				if (!line.n) {
					m->is_whole = true;
					return;
				}
			return;
		}
		size_t before = in->n;
		parsed_keep(m, in, n);
		if (before < n + 2)
			return;
		m->is_bad |= !parsed_take_line(in, &end) || end.n;
		if (m->is_bad)
			return;
	}
}

/* First line and fields; false: not all of it has come. */
static inline bool parsed_head(struct parsed *m, struct slice *in) {
	struct slice line;
	if (!parsed_take_line(in, &m->line))
		return false;
	m->fields = slice_head(*in, 0);
	for (;;) {
		if (!parsed_take_line(in, &line))
			return false;
		if (!line.n)
			return true;
		m->fields.n += line.n + 2;
		const char *colon = memchr(line.p, ':', line.n);
		m->is_bad |= !colon || colon == line.p || colon + 1 == line.p + line.n || colon[1] != ' ';
	}
}

static inline bool parsed_first_line(struct parsed *m, enum parsed_kind kind) {
	struct slice l = m->line;
	if (kind == PARSED_REQUEST)
		return l.n > 12 && memcmp(l.p + l.n - 9, " HTTP/1.1", 9) == 0;
	if (l.n < 13 || memcmp(l.p, "HTTP/1.1 ", 9) != 0 || l.p[12] != ' ')
		return false;
	size_t status = parsed_number((struct slice){ l.p + 9, 3 }, 10);
	m->status = (unsigned)status;
	return status >= 100 && status <= 599;
}

static inline void parsed_body(struct parsed *m, enum parsed_kind kind, struct slice *in, bool has_ended) {
	unsigned n_lengths, n_codings;
	struct slice length = parsed_find(m, "content-length", &n_lengths);
	struct slice coding = parsed_find(m, "transfer-encoding", &n_codings);
	bool is_bodiless = kind == PARSED_RESPONSE_TO_HEAD || (m->status && m->status < 200) ||
	    m->status == 204 || m->status == 304;

	m->is_bad |= n_lengths + n_codings > 1 || (n_codings && !slice_eq(coding, SLICE("chunked"))) ||
	    (n_lengths && parsed_number(length, 10) == SIZE_MAX);
	if (m->is_bad)
		return;
	m->is_chunked = n_codings;
	m->is_to_end = !is_bodiless && kind != PARSED_REQUEST && n_lengths + n_codings == 0;
	if (is_bodiless) {
		m->is_whole = true;
	} else if (m->is_chunked) {
		parsed_chunks(m, in);
	} else if (m->is_to_end) {
		parsed_keep(m, in, in->n);
		m->is_whole = has_ended;
	} else {
		size_t n = n_lengths ? parsed_number(length, 10) : 0;
		parsed_keep(m, in, n);
		m->is_whole = m->body.n == n;
	}
}

/*
 * Takes the next message off the front of *in. `has_ended`: the connection ended in order behind it. False:
 * nothing is left, or the head is not complete. Behind a bad message nothing can be told any more.
 */
static inline bool parsed_next(struct parsed *m, enum parsed_kind kind, struct slice *in, bool has_ended) {
	*m = (struct parsed){ .body.n_max = SIZE_MAX };
	struct slice rest = *in;
	if (!parsed_head(m, &rest))
		return false;
	m->is_bad |= !parsed_first_line(m, kind);
	if (!m->is_bad)
		parsed_body(m, kind, &rest, has_ended);
	*in = rest;
	return true;
}
