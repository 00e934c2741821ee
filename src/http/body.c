#include "http/body.h"

#define OVERHEAD_FREE   16384u
#define OVERHEAD_FACTOR 8u

enum state {
	PLAIN,      /* a length, or until the connection closes */
	SIZE,       /* digits of a chunk's size */
	SIZE_SPACE, /* white space behind them: an extension must follow */
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER_START, /* at the start of a line */
	TRAILER_LINE,
	TRAILER_LF,   /* of a line with content */
	TRAILER_LAST, /* of the empty line */
	END,
	BAD,
};

void body_init(struct body *b, enum framing framing, uint64_t length) {
	*b = (struct body){ .state = END };
	if (framing == FRAMING_CHUNKED)
		b->state = SIZE;
	else if (framing == FRAMING_CLOSE || (framing == FRAMING_LENGTH && length > 0))
		b->state = PLAIN;
	b->left = framing == FRAMING_CLOSE ? UINT64_MAX : framing == FRAMING_LENGTH ? length : 0;
}

bool body_is_complete(const struct body *b) {
	return b->state == END;
}

static int hex_value(char c) {
	if (c >= '0' && c <= '9')
		return c - '0';
	c = ascii_lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum state on_size(struct body *b, char c) {
	int v = hex_value(c);
	if (v >= 0) {
		if (b->left >> 56) /* no chunk is that large */
			return BAD;
		b->left = b->left << 4 | (unsigned)v;
		return ++b->n_digits <= 16 ? SIZE : BAD;
	}
	if (b->n_digits == 0)
		return BAD;
	switch (c) {
	case ';':
		return EXTENSION;
	case ' ':
	case '\t':
		return SIZE_SPACE;
	case '\r':
		return SIZE_LF;
	default:
		return BAD;
	}
}

static enum state on_extension(char c) {
	if (c == '\r')
		return SIZE_LF;
	return c == '\t' || ((unsigned char)c >= 0x20 && c != 0x7f) ? EXTENSION : BAD;
}

/* One byte of framing; the next state. */
static enum state body_step(struct body *b, char c) {
	switch ((enum state)b->state) {
	case SIZE:
		return on_size(b, c);
	case SIZE_SPACE:
		return c == ';' ? EXTENSION : c == ' ' || c == '\t' ? SIZE_SPACE : BAD;
	case EXTENSION:
		return on_extension(c);
	case SIZE_LF:
		return c != '\n' ? BAD : b->left ? DATA : TRAILER_START;
	case DATA_CR:
		return c == '\r' ? DATA_LF : BAD;
	case DATA_LF:
		return c == '\n' ? SIZE : BAD;
	case TRAILER_START:
		return c == '\r' ? TRAILER_LAST : c == '\n' ? BAD : TRAILER_LINE;
	case TRAILER_LINE:
		return c == '\r' ? TRAILER_LF : c == '\n' ? BAD : TRAILER_LINE;
	case TRAILER_LF:
		return c == '\n' ? TRAILER_START : BAD;
	case TRAILER_LAST:
		return c == '\n' ? END : BAD;
	case PLAIN:
	case DATA:
	case END:
	case BAD:
		break;
	}
	return BAD;
}

static bool body_overhead_ok(const struct body *b) {
	return b->line_bytes <= BODY_CHUNK_LINE_MAX &&
	    b->overhead_bytes <= OVERHEAD_FREE + OVERHEAD_FACTOR * b->data_bytes;
}

static enum body_outcome body_data(struct body *b, struct slice *in, struct slice *out) {
	size_t n = (size_t)u64_min(in->n, b->left);
	if (n == 0)
		return BODY_MORE;
	*out = slice_head(*in, n);
	*in = slice_skip(*in, n);
	b->data_bytes += n;
	if (b->left != UINT64_MAX)
		b->left -= n;
	if (b->left == 0)
		b->state = b->state == PLAIN ? END : DATA_CR;
	return BODY_DATA;
}

/* Trailer lines, as far as they go. */
static enum body_outcome body_trailer(struct body *b, struct slice *in, struct slice *out) {
	size_t n = 0;
	while (n < in->n && b->state >= TRAILER_START && b->state <= TRAILER_LAST)
		b->state = (uint8_t)body_step(b, in->p[n++]);
	if (n == 0)
		return BODY_MORE;
	*out = slice_head(*in, n);
	*in = slice_skip(*in, n);
	b->trailer_bytes += (uint32_t)n;
	if (b->trailer_bytes > BODY_TRAILER_MAX)
		b->state = BAD;
	return b->state == BAD ? BODY_BAD : BODY_TRAILER;
}

enum body_outcome body_next(struct body *b, struct slice *in, struct slice *out) {
	for (;;) {
		if (b->state == END)
			return BODY_END;
		if (b->state == BAD)
			return BODY_BAD;
		if (b->state == PLAIN || b->state == DATA)
			return body_data(b, in, out);
		if (b->state >= TRAILER_START)
			return body_trailer(b, in, out);
		if (in->n == 0)
			return BODY_MORE;

		b->state = (uint8_t)body_step(b, *in->p);
		*in = slice_skip(*in, 1);
		b->overhead_bytes++;
		b->line_bytes++;
		if (!body_overhead_ok(b))
			b->state = BAD;
		if (b->state == DATA || b->state == DATA_LF) { /* a line ended, or is about to begin */
			b->line_bytes = 0;
			b->n_digits = 0;
		}
	}
}
