/*
 * packed: lays arrays and texts one behind the other in a block that the caller has
 * measured. Private to this folder. `at` is where the next one goes; arrays come first,
 * by falling alignment, texts last.
 */
#pragma once

#include "base/slice.h"

static inline void *packed_array(char **at, size_t n, size_t size) {
	void *p = *at;

	*at += n * size;
	return p;
}

/* The text and a NUL, which the slice does not count: text.n + 1 bytes. */
static inline struct slice packed_text(char **at, struct slice text) {
	char *p = *at;

	if (text.n)
		memcpy(p, text.p, text.n);
	p[text.n] = '\0';
	*at += text.n + 1;
	return (struct slice){ p, text.n };
}
