/*
 * slice: a read-only view of bytes that somebody else owns. No terminator.
 *
 * A slice is valid as long as its owner says; it never frees. The compare
 * functions are byte-exact or ASCII-case-blind, never locale-aware.
 */
#pragma once

#include <string.h>

#include "base/defs.h"

struct slice {
	const char *p;
	size_t n;
};

#define SLICE(literal) ((struct slice){ (literal), sizeof(literal) - 1 })

static inline struct slice slice_of(const char *s) {
	return (struct slice){ s, s ? strlen(s) : 0 };
}

static inline bool slice_eq(struct slice a, struct slice b) {
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline char ascii_lower(char c) {
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* `lower` is already lower case: the usual shape of a compare with a known name. */
static inline bool slice_is(struct slice a, struct slice lower) {
	if (a.n != lower.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (ascii_lower(a.p[i]) != lower.p[i])
			return false;
	return true;
}

static inline bool slice_has_suffix(struct slice a, struct slice suffix) {
	return a.n >= suffix.n && (!suffix.n || !memcmp(a.p + a.n - suffix.n, suffix.p, suffix.n));
}

static inline bool slice_has_prefix(struct slice a, struct slice prefix) {
	return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

static inline struct slice slice_skip(struct slice a, size_t n) {
	assert(n <= a.n);
	return (struct slice){ a.p + n, a.n - n };
}

static inline struct slice slice_head(struct slice a, size_t n) {
	return (struct slice){ a.p, n < a.n ? n : a.n };
}

/* Optional white space of RFC 9110 section 5.6.3: SP and HTAB. */
static inline struct slice slice_trim(struct slice a) {
	while (a.n && (a.p[0] == ' ' || a.p[0] == '\t'))
		a.p++, a.n--;
	while (a.n && (a.p[a.n - 1] == ' ' || a.p[a.n - 1] == '\t'))
		a.n--;
	return a;
}

/* White space of JSON (RFC 8259, 2). */
static inline bool ascii_is_blank(char c) {
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Nothing but that? */
static inline bool slice_is_blank(struct slice a) {
	size_t i = 0;
	while (i < a.n && ascii_is_blank(a.p[i]))
		i++;
	return i == a.n;
}

/*
 * Takes the next member of a comma-separated list, trimmed, off the front of
 * *rest. False when the list is used up. Empty members are returned as such.
 */
static inline bool slice_next_member(struct slice *rest, struct slice *member_out) {
	if (!rest->p)
		return false;
	const char *comma = rest->n ? memchr(rest->p, ',', rest->n) : NULL;
	size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
	*member_out = slice_trim((struct slice){ rest->p, n });
	*rest = comma ? (struct slice){ comma + 1, rest->n - n - 1 } : (struct slice){ NULL, 0 };
	return true;
}
