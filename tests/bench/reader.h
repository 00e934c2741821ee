/*
 * reader: an HTTP/1.1 message taken apart as its bytes arrive.
 *
 * The caller gives what it read and calls reader_next() until that says PART_MORE,
 * PART_BAD or wants to stop: a head whole, runs of body bytes without their framing,
 * an end. Parts point into the caller's bytes or into the reader and live until the
 * next call. It takes what the peers of a bench send and no more: no folded lines, no
 * bodies that end by close, heads of at most 4 KiB.
 */
#pragma once

#include "base/text.h"

#define READER_HEAD_BYTES_MAX 4096

enum reader_part { PART_MORE, PART_HEAD, PART_BODY, PART_END, PART_BAD };

enum reader_step {
	READER_HEAD,
	READER_BODY,
	READER_CHUNK_LINE, /* its digits */
	READER_CHUNK_LF,   /* the rest of that line */
	READER_CHUNK_BODY,
	READER_CHUNK_TAIL, /* the line end behind a chunk */
	READER_TRAILER,
	READER_END
};

struct reader {
	enum reader_step step;
	bool closes;      /* the sender closes behind this one */
	bool framed;      /* the head said how long the body is */
	uint64_t left;    /* bytes of the body or chunk still to come */
	size_t n_trailer; /* bytes of the trailer line at hand */
	size_t n_head;    /* of a head that came in pieces */
	char head[READER_HEAD_BYTES_MAX];
};

/* The next header line behind *rest; `*rest` starts as a head behind its first line. */
static inline bool reader_field(struct slice *rest, struct slice *name_out, struct slice *value_out) {
	const char *lf = memchr(rest->p, '\n', rest->n), *colon;

	if (!lf || lf - rest->p < 2)
		return false;
	struct slice line = { rest->p, (size_t)(lf - rest->p) - 1 };
	*rest = slice_skip(*rest, line.n + 2);
	colon = memchr(line.p, ':', line.n);
	if (!colon)
		return false;
	*name_out = (struct slice){ line.p, (size_t)(colon - line.p) };
	*value_out = slice_trim(slice_skip(line, name_out->n + 1));
	return true;
}

static inline struct slice reader_first_line(struct slice *head) {
	const char *lf = memchr(head->p, '\n', head->n);
	struct slice line = { head->p, lf ? (size_t)(lf - head->p) : head->n };

	*head = slice_skip(*head, lf ? line.n + 1 : line.n);
	return line;
}

static inline bool reader_frame(struct reader *r, struct slice head) {
	struct slice name, value;

	r->closes = r->framed = false;
	r->left = 0;
	r->step = READER_END;
	reader_first_line(&head);
	while (reader_field(&head, &name, &value)) {
		if (slice_is(name, SLICE("content-length"))) {
			if (!text_uint(value, UINT64_MAX / 2, &r->left))
				return false;
			r->framed = true;
			r->step = r->left ? READER_BODY : READER_END;
		} else if (slice_is(name, SLICE("transfer-encoding"))) {
			r->framed = true;
			r->step = READER_CHUNK_LINE;
		} else if (slice_is(name, SLICE("connection"))) {
			r->closes = slice_is(value, SLICE("close"));
		}
	}
	return true;
}

static inline enum reader_part reader_head(struct reader *r, struct slice *in, struct slice *part_out) {
	size_t n_before = r->n_head, n_copied = 0;
	struct slice all = *in;

	if (n_before) {
		n_copied = size_min(in->n, sizeof(r->head) - n_before);
		memcpy(r->head + n_before, in->p, n_copied);
		all = (struct slice){ r->head, n_before + n_copied };
	}
	const char *end = memmem(all.p, all.n, "\r\n\r\n", 4);
	if (!end) {
		if (all.n >= sizeof(r->head))
			return PART_BAD;
		if (!n_before)
			memcpy(r->head, in->p, in->n);
		r->n_head = all.n;
		*in = slice_skip(*in, in->n);
		return PART_MORE;
	}
	*part_out = slice_head(all, (size_t)(end - all.p) + 4);
	*in = slice_skip(*in, part_out->n - n_before);
	r->n_head = 0;
	return reader_frame(r, *part_out) ? PART_HEAD : PART_BAD;
}

static inline int reader_hex(char c) {
	return c >= '0' && c <= '9'                          ? c - '0'
	    : ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f' ? ascii_lower(c) - 'a' + 10
							     : -1;
}

/* One byte of chunk framing. False when it cannot stand there. */
static inline bool reader_framing_byte(struct reader *r, char c) {
	int digit;

	switch (r->step) {
	case READER_CHUNK_LINE:
		digit = reader_hex(c);
		if (digit >= 0) {
			r->left = r->left * 16 + (uint64_t)digit;
			return r->left < UINT32_MAX;
		}
		r->step = READER_CHUNK_LF;
		return c == '\r' || c == ';' || c == ' ';
	case READER_CHUNK_LF:
		if (c == '\n') {
			r->step = r->left ? READER_CHUNK_BODY : READER_TRAILER;
			r->n_trailer = 0;
		}
		return true;
	case READER_CHUNK_TAIL:
		if (c == '\n')
			r->step = READER_CHUNK_LINE;
		return c == '\r' || c == '\n';
	default:
		assert(r->step == READER_TRAILER);
		if (c == '\n' && r->n_trailer == 0)
			r->step = READER_END;
		r->n_trailer = c == '\n' ? 0 : r->n_trailer + (c != '\r');
		return r->n_trailer < READER_HEAD_BYTES_MAX;
	}
}

static inline enum reader_part reader_next(struct reader *r, struct slice *in, struct slice *part_out) {
	for (;;) {
		if (r->step == READER_END) {
			r->step = READER_HEAD;
			return PART_END;
		}
		if (in->n == 0)
			return PART_MORE;
		if (r->step == READER_HEAD)
			return reader_head(r, in, part_out);
		if (r->step == READER_BODY || r->step == READER_CHUNK_BODY) {
			*part_out = slice_head(*in, r->left);
			*in = slice_skip(*in, part_out->n);
			r->left -= part_out->n;
			if (!r->left)
				r->step = r->step == READER_BODY ? READER_END : READER_CHUNK_TAIL;
			return PART_BODY;
		}
		if (!reader_framing_byte(r, in->p[0]))
			return PART_BAD;
		*in = slice_skip(*in, 1);
	}
}
