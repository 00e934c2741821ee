/*
 * pair: lists of two texts that belong together: a label and its value, or a model's
 * id and the JSON object an engine gave for it.
 *
 * A struct pairs is a view: who made the list owns it. pairs_copy() makes a list that
 * is one heap block, freed by pairs_free(). In written and copied lists a NUL follows
 * each text.
 */
#pragma once

#include "base/slice.h"

struct pair {
	struct slice key, value;
};

struct pairs {
	const struct pair *items;
	uint32_t n;
};

bool pairs_eq(struct pairs a, struct pairs b);
bool pairs_keys_eq(struct pairs a, struct pairs b); /* in the same order */

/* The first value of that key; p NULL when there is none. */
struct slice pairs_value(struct pairs pairs, struct slice key);

/* The order of texts everywhere in the fleet: bytewise, a prefix first. */
int pair_text_cmp(struct slice a, struct slice b);

/* What all texts take when written, each with its NUL. */
size_t pairs_text_bytes(struct pairs pairs);

/* Copies `src` to *items and its texts to *text, and moves both behind what they wrote. */
struct pairs pairs_write(struct pairs src, struct pair **items, char **text);

must_use struct pairs pairs_copy(struct pairs src);
void pairs_free(struct pairs *pairs); /* a list of pairs_copy(); clears */
