/*
 * bytes: a string of bytes that grows up to a ceiling. Owns its memory.
 *
 * The adders return false, and add nothing, when the ceiling would be passed; whoever
 * renders what has a known size may ignore that. Zeroed memory with a ceiling is a
 * valid empty string. One thread.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

struct bytes {
	char *p;
	size_t n;
	size_t n_room;
	size_t n_max;
};

void bytes_init(struct bytes *b, size_t n_max);
void bytes_deinit(struct bytes *b);

bool bytes_add(struct bytes *b, struct slice s);
bool bytes_add_json(struct bytes *b, const json_t *value); /* compact */
bool bytes_printf(struct bytes *b, const char *format, ...) printf_like(2, 3);

/* What stands between the quotes when valid UTF-8 text is written as a JSON string. */
bool bytes_add_escaped(struct bytes *b, struct slice text);

static inline struct slice bytes_slice(const struct bytes *b) {
	return (struct slice){ b->p, b->n };
}

/* Empties it; the memory stays for the next use. */
static inline void bytes_clear(struct bytes *b) {
	b->n = 0;
}
