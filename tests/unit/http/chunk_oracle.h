/*
 * chunk_oracle: the chunked coding of RFC 9112 section 7.1 once more, slowly.
 *
 * A second decoder, written from the grammar over a whole text and in another way than
 * http/body.c: recursive descent with look-ahead, no states. It knows the limits of a
 * chunk line and of a size; texts are short enough for the others. chunk_judge() holds
 * the two against each other and the fast one against itself, cut into pieces.
 */
#pragma once

#include "base/rng.h"
#include "http/body.h"

#define CHUNK_TEXT_MAX 8192u

enum chunk_verdict { CHUNK_MORE, CHUNK_END, CHUNK_BAD };

struct chunk_text {
	enum chunk_verdict verdict;
	size_t n_used; /* with CHUNK_END */
	size_t data_n, trailer_n;
	char data[CHUNK_TEXT_MAX], trailer[CHUNK_TEXT_MAX];
};

/* --- the slow one ------------------------------------------------------------------- */

/* The line at `at` without its CRLF, *next_out behind it. */
static inline enum chunk_verdict oracle_line(struct slice text, size_t at, size_t *next_out) {
	for (size_t i = at; i < text.n; i++) {
		if (text.p[i] == '\n' && (i == at || text.p[i - 1] != '\r'))
			return CHUNK_BAD;
		if (i > at && text.p[i - 1] == '\r' && text.p[i] != '\n')
			return CHUNK_BAD;
		if (text.p[i] == '\n') {
			*next_out = i + 1;
			return CHUNK_END;
		}
	}
	return CHUNK_MORE;
}

/* 1*HEXDIG [ BWS ";" anything printable ]; a part of it when the line is not complete. */
static inline bool oracle_is_size(struct slice line, bool is_whole, uint64_t *size_out) {
	size_t i = 0;
	*size_out = 0;
	for (; i < line.n && strchr("0123456789abcdefABCDEF", line.p[i]) && line.p[i]; i++) {
		char digit[2] = { line.p[i], '\0' };
		if (*size_out >> 56 || i >= 16)
			return false;
		*size_out = *size_out * 16 + strtoul(digit, NULL, 16);
	}
	if (i == line.n)
		return i > 0 || !is_whole;
	struct slice rest = slice_skip(line, i);
	struct slice trimmed = rest;
	while (trimmed.n && (*trimmed.p == ' ' || *trimmed.p == '\t'))
		trimmed = slice_skip(trimmed, 1);
	if (i == 0 || (trimmed.n == 0 ? is_whole : *trimmed.p != ';'))
		return false;
	for (size_t k = 0; k < rest.n; k++)
		if (rest.p[k] != '\t' && ((unsigned char)rest.p[k] < 0x20 || rest.p[k] == 0x7f))
			return false;
	return true;
}

/* `before`: bytes of framing that belong to the line already: the LF behind a chunk's data. */
static inline enum chunk_verdict oracle_size(
    struct slice text, size_t at, size_t before, size_t *next_out, uint64_t *size_out) {
	enum chunk_verdict v = oracle_line(text, at, next_out);
	size_t end = v == CHUNK_END ? *next_out : text.n;
	struct slice line = { text.p + at, end - at - (v == CHUNK_END ? 2 : 0) };
	if (v == CHUNK_MORE && line.n && line.p[line.n - 1] == '\r') {
		line.n--;
		if (!oracle_is_size(line, true, size_out))
			return CHUNK_BAD;
	} else if (v == CHUNK_BAD || !oracle_is_size(line, v == CHUNK_END, size_out)) {
		return CHUNK_BAD;
	}
	return before + end - at > BODY_CHUNK_LINE_MAX ? CHUNK_BAD : v;
}

static inline enum chunk_verdict oracle_trailer(struct slice text, size_t at, struct chunk_text *out) {
	for (size_t next = at;; at = next) {
		enum chunk_verdict v = oracle_line(text, at, &next);
		size_t end = v == CHUNK_END ? next : text.n;
		if (v == CHUNK_BAD)
			return v;
		memcpy(out->trailer + out->trailer_n, text.p + at, end - at);
		out->trailer_n += end - at;
		out->n_used = end;
		if (v == CHUNK_MORE || end - at == 2)
			return v;
	}
}

static inline enum chunk_verdict oracle_chunks(
    struct slice text, size_t at, size_t before, struct chunk_text *out) {
	uint64_t size;
	enum chunk_verdict v = oracle_size(text, at, before, &at, &size);
	if (v != CHUNK_END)
		return v;
	if (size == 0)
		return oracle_trailer(text, at, out);
	size_t n = (size_t)u64_min(size, text.n - at);
	memcpy(out->data + out->data_n, text.p + at, n);
	out->data_n += n;
	at += n;
	if (n < size)
		return CHUNK_MORE;
	for (size_t i = 0; i < 2; i++, at++) {
		if (at == text.n)
			return CHUNK_MORE;
		if (text.p[at] != "\r\n"[i])
			return CHUNK_BAD;
	}
	return oracle_chunks(text, at, 1, out);
}

/* --- the fast one -------------------------------------------------------------------- */

/* Feeds one piece, in memory of its own so that nothing beyond it can be looked at. */
static inline void chunk_feed(struct body *b, struct slice piece, struct chunk_text *out) {
	char *exact = malloc(piece.n + !piece.n);
	memcpy(exact, piece.p, piece.n);
	struct slice in = { exact, piece.n }, part;
	for (bool more = true; more;) {
		switch (body_next(b, &in, &part)) {
		case BODY_DATA:
			memcpy(out->data + out->data_n, part.p, part.n);
			out->data_n += part.n;
			break;
		case BODY_TRAILER:
			memcpy(out->trailer + out->trailer_n, part.p, part.n);
			out->trailer_n += part.n;
			break;
		case BODY_MORE:
			assert(in.n == 0);
			out->n_used += piece.n;
			more = false;
			break;
		case BODY_END:
			out->n_used += piece.n - in.n;
			out->verdict = CHUNK_END;
			more = false;
			break;
		case BODY_BAD:
			out->verdict = CHUNK_BAD;
			more = false;
			break;
		}
	}
	free(exact);
}

static inline void chunk_decode(struct slice text, size_t step, struct chunk_text *out) {
	struct body b;
	*out = (struct chunk_text){ .verdict = CHUNK_MORE };
	body_init(&b, FRAMING_CHUNKED, 0);
	for (size_t at = 0; at < text.n && out->verdict == CHUNK_MORE; at += step)
		chunk_feed(&b, slice_head(slice_skip(text, at), step), out);
	assert(body_is_complete(&b) == (out->verdict == CHUNK_END));
	assert(b.data_bytes == out->data_n);
}

/* What is wrong with the decoder for this text; NULL: nothing. Data in front of an error does not count. */
static inline const char *chunk_judge(struct slice text) {
	static struct chunk_text slow, whole, cut;
	slow = (struct chunk_text){ .verdict = CHUNK_MORE };
	slow.verdict = oracle_chunks(text, 0, 0, &slow);
	chunk_decode(text, size_max(text.n, 1), &whole);
	if (whole.verdict != slow.verdict)
		return "another verdict than the oracle's";
	for (size_t step = 1; step <= 3; step++) {
		chunk_decode(text, step, &cut);
		if (cut.verdict != whole.verdict)
			return "another verdict in pieces";
		if (cut.data_n != whole.data_n || memcmp(cut.data, whole.data, cut.data_n) != 0)
			return "other data in pieces";
		if (cut.verdict != CHUNK_BAD && cut.trailer_n != whole.trailer_n)
			return "another trailer in pieces";
	}
	if (slow.verdict == CHUNK_BAD)
		return NULL;
	if (slow.data_n != whole.data_n || memcmp(slow.data, whole.data, slow.data_n) != 0)
		return "other data than the oracle's";
	if (slow.trailer_n != whole.trailer_n || memcmp(slow.trailer, whole.trailer, slow.trailer_n) != 0)
		return "another trailer than the oracle's";
	if (slow.verdict == CHUNK_END && (slow.n_used != whole.n_used || cut.n_used != whole.n_used))
		return "ends elsewhere";
	return NULL;
}
