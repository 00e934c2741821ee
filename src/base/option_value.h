/*
 * option_value: one value of one row, from text to the program's struct.
 *
 * Private to base/option*.c. A value is a jansson value in the form the row's type has
 * in a file; what flags and variables say is brought into that form first, so that one
 * check and one store serve every source.
 */
#pragma once

#include "base/option.h"

/* Where to complain: `path` is the value's own, below the one that was checked. */
struct option_sink {
	void (*complain)(struct option_sink *sink, const char *path, const char *message);
};

/*
 * The form of the row's type, or as a string where the text cannot be one (so that the
 * check complains about it); a list is split at commas and white space. NULL: not UTF-8.
 */
json_t *option_value_of_text(const struct option *row, struct slice text);

/* The row's default. Never NULL. */
json_t *option_value_default(const struct option *row);

/* True when the value is good; items of an array are then complete, with their defaults. */
bool option_value_check(const struct option *row, json_t *value, const char *path, struct option_sink *sink);

/* Writes a checked value to its member of `base`; strings stay in the value, the rest is the set's. */
void option_value_store(struct option_set *set, const struct option *row, const json_t *value, void *base);

/* "1 to 65535", in the unit of the row's type. False when the row has no range. */
bool option_value_range(const struct option *row, char *line, size_t size);

/* "abort, serve" */
void option_value_choices(const struct option *row, char *line, size_t size);
