#include "base/line.h"

#include <time.h>

#include "base/span.h"
#include "base/utf8.h"

#define TAIL_BYTES   2u /* kept free for the end of the line */
#define ESCAPE_BYTES 8u /* the longest escape and the closing quote */

static size_t line_room(const struct line *l) {
	return LINE_BYTES - TAIL_BYTES - l->n;
}

static void put(struct line *l, struct slice s) {
	assert(s.n <= line_room(l));
	memcpy(l->text + l->n, s.p, s.n);
	l->n += (uint32_t)s.n;
}

/* False when there is no room for the key and a short value. */
static bool put_key(struct line *l, struct slice key) {
	if (line_room(l) < key.n + 40)
		return false;
	char *p = l->text + l->n;
	if (l->n > 1)
		*p++ = ',';
	*p++ = '"';
	memcpy(p, key.p, key.n);
	memcpy(p + key.n, "\":", 2);
	l->n = (uint32_t)(p + key.n + 2 - l->text);
	return true;
}

void line_begin(struct line *l) {
	l->text[0] = '{';
	l->n = 1;
}

void line_end(struct line *l) {
	memcpy(l->text + l->n, "}\n", 2);
	l->n += 2;
}

/* The next character of a value, one that is not plain, as JSON; how many bytes of it were used. */
static size_t put_char(struct line *l, struct slice rest) {
	unsigned char c = (unsigned char)rest.p[0];
	if (c >= 0x80) {
		size_t n = utf8_length(rest);
		put(l, n ? slice_head(rest, n) : SLICE("\\ufffd"));
		return n ? n : 1;
	}
	char escape[6] = { '\\', 'u', '0', '0', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15] };
	if (c < 0x20 || c == 0x7f)
		put(l, (struct slice){ escape, 6 });
	else
		put(l, (struct slice){ c == '"' ? "\\\"" : "\\\\", 2 });
	return 1;
}

void line_text(struct line *l, struct slice key, struct slice value) {
	if (!put_key(l, key))
		return;
	put(l, SLICE("\""));
	value = slice_head(value, LINE_VALUE_MAX);
	while (value.n && line_room(l) > ESCAPE_BYTES) {
		const char *end = value.p + size_min(value.n, line_room(l) - ESCAPE_BYTES);
		size_t plain = (size_t)(span_plain(value.p, end) - value.p);
		put(l, slice_head(value, plain));
		value = slice_skip(value, plain);
		if (value.p < end)
			value = slice_skip(value, put_char(l, value));
	}
	put(l, SLICE("\""));
}

/* In at least `width` digits; put_key() has seen to the room. */
static void put_decimal(struct line *l, uint64_t n, unsigned width) {
	unsigned n_digits = 1;
	for (uint64_t rest = n; rest >= 10; rest /= 10)
		n_digits++;
	n_digits = n_digits > width ? n_digits : width;
	char *begin = l->text + l->n;
	l->n += n_digits;
	for (char *p = begin + n_digits; p-- > begin; n /= 10)
		*p = (char)('0' + n % 10);
}

void line_uint(struct line *l, struct slice key, uint64_t value) {
	if (put_key(l, key))
		put_decimal(l, value, 1);
}

void line_bool(struct line *l, struct slice key, bool value) {
	if (put_key(l, key))
		put(l, value ? SLICE("true") : SLICE("false"));
}

void line_ms(struct line *l, struct slice key, uint64_t ns) {
	if (!put_key(l, key))
		return;
	uint64_t us = ns / 1000u;
	put_decimal(l, us / 1000u, 1);
	l->text[l->n++] = '.';
	put_decimal(l, us % 1000u, 3);
}

void line_time(struct line *l, struct slice key, uint64_t wall_ms) {
	static _Thread_local uint64_t second;
	static _Thread_local char text[32];
	if (!put_key(l, key))
		return;
	if (wall_ms / 1000 != second || !text[0]) {
		time_t t = (time_t)(second = wall_ms / 1000);
		struct tm tm;
		strftime(text, sizeof(text), "\"%Y-%m-%dT%H:%M:%S.", gmtime_r(&t, &tm));
	}
	put(l, slice_of(text));
	put_decimal(l, wall_ms % 1000, 3);
	put(l, SLICE("Z\""));
}
