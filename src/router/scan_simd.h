/*
 * scan_simd: how the scanner passes over the inside of strings, on x86-64. Private to scan.
 *
 * A kernel starts anywhere between the quotes, but not inside an escape, and
 * returns the first byte that it cannot pass: a quote, a control character, or
 * the backslash of an escape that is wrong or not whole before `end`; else
 * `end`. It reads no byte outside [p, end). All kernels return the same.
 */
#pragma once

#include <emmintrin.h>

#include "router/scan.h"

const char *scan_skip_sse2(const char *p, const char *end);
const char *scan_skip_avx2(const char *p, const char *end); /* only where scan_has_avx2() */

bool scan_has_avx2(void);

/* True for the three kinds of byte that end a plain run: quote, backslash, control character. */
static inline bool scan_is_special(char c) {
	return c == '"' || c == '\\' || (uint8_t)c < 0x20;
}

/* The same for 16 bytes: one bit each, lowest first. */
static inline uint32_t scan_mask16(const char *p) {
	__m128i v = _mm_loadu_si128((const __m128i *)p);
	__m128i quote = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
	__m128i backslash = _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'));
	__m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
	return (uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control));
}

/* The first special byte, escapes not passed; for short strings that must be looked at. */
static inline const char *scan_span(const char *p, const char *end) {
	for (; end - p >= 16; p += 16) {
		uint32_t mask = scan_mask16(p);
		if (mask)
			return p + __builtin_ctz(mask);
	}
	while (p < end && !scan_is_special(*p))
		p++;
	return p;
}
