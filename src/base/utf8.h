/* utf8: well-formed sequences, as Unicode's table 3-7 has them: no surrogates, nothing overlong, nothing
 * above U+10FFFF. */
#pragma once

#include "base/slice.h"

/* Bytes of the sequence of two to four at the start of `s`, 0 when none stands there. s.n >= 1. */
static inline size_t utf8_length(struct slice s) {
	const unsigned char *p = (const unsigned char *)s.p;
	unsigned a = p[0];
	size_t n = a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;

	if (!n || s.n < n)
		return 0;
	unsigned least = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80;
	unsigned most = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;
	if (p[1] < least || p[1] > most)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* As much of the text as fits, without half of a character at its end. */
static inline struct slice utf8_head(struct slice text, size_t max) {
	size_t n = size_min(text.n, max);

	while (n < text.n && n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80)
		n--;
	return slice_head(text, n);
}
