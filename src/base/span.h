/*
 * span: where a run of harmless bytes ends, 16 bytes a step (SSE2, which every x86-64
 * has). No byte outside [p, end) is read.
 */
#pragma once

#include <emmintrin.h>

#include "base/defs.h"

/* A bit for each of 16 bytes that is a control character; HTAB counts, DEL does not. */
static inline uint32_t span_controls16(__m128i v) {
	return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v));
}

static inline uint32_t span_equal16(__m128i v, char c) {
	return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(c)));
}

/* May stand in a header field's value (RFC 9110 section 5.5): HTAB and all from 0x20 on but DEL. */
static inline bool span_is_value(char c) {
	return ((uint8_t)c >= 0x20 && c != 0x7f) || c == '\t';
}

/* The first byte that may not stand in a field value. */
static inline const char *span_value(const char *p, const char *end) {
	for (; end - p >= 16; p += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)p);
		uint32_t bad = (span_controls16(v) & ~span_equal16(v, '\t')) | span_equal16(v, 0x7f);
		if (bad)
			return p + __builtin_ctz(bad);
	}
	while (p < end && span_is_value(*p))
		p++;
	return p;
}

/* Stands in a JSON string as it is, and is ASCII and printable. */
static inline bool span_is_plain(char c) {
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* The first byte that is not plain. */
static inline const char *span_plain(const char *p, const char *end) {
	for (; end - p >= 16; p += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)p);
		uint32_t beyond_ascii = (uint32_t)_mm_movemask_epi8(v);
		uint32_t bad = span_controls16(v) | beyond_ascii | span_equal16(v, 0x7f) |
		    span_equal16(v, '"') | span_equal16(v, '\\');
		if (bad)
			return p + __builtin_ctz(bad);
	}
	while (p < end && span_is_plain(*p))
		p++;
	return p;
}
