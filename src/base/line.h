/*
 * line: one JSON object on one line, built in a fixed buffer without allocating.
 *
 * This is the access log's writer and the only place besides jansson that writes JSON:
 * a line is written for every request. Every byte below 0x20, quotes, backslashes, DEL
 * and anything that is not UTF-8 are escaped, so no value can end the line or forge
 * another one. Values that do not fit are cut; the line always stays valid JSON.
 */
#pragma once

#include "base/slice.h"

#define LINE_BYTES     2048u
#define LINE_VALUE_MAX 512u /* bytes of one text value, before escaping */

struct line {
	uint32_t n;
	char text[LINE_BYTES];
};

void line_begin(struct line *l);
void line_text(struct line *l, struct slice key, struct slice value);
void line_uint(struct line *l, struct slice key, uint64_t value);
void line_bool(struct line *l, struct slice key, bool value);
/* Nanoseconds as milliseconds with three decimals. */
void line_ms(struct line *l, struct slice key, uint64_t ns);
/* Milliseconds since 1970 as RFC 3339, UTC. */
void line_time(struct line *l, struct slice key, uint64_t wall_ms);
/* "}\n"; the line is l->text, l->n bytes. */
void line_end(struct line *l);
