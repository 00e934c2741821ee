/*
 * option_set: what base/option*.c know of a set, and nobody else.
 */
#pragma once

#include "base/option.h"

enum option_source { OPTION_DEFAULT, OPTION_FILE, OPTION_ENVIRONMENT, OPTION_FLAG }; /* in rising rank */

struct option_found {
	json_t *value; /* owned; NULL: no source gave one */
	enum option_source source;
};

struct option_line {
	enum option_source source;
	int line;
	char *text; /* with its place, without the line's end */
};

struct option_set {
	const struct option_schema *schema;
	struct option_found *found; /* by row */
	char *file;                 /* the one that is, or is to be, read */
	char *called;               /* the last part of argv[0]; NULL: not known */
	json_t *lines;              /* path -> line of a TOML file */
	struct option_line *output; /* mistakes and warnings, sorted */
	size_t n_output, n_mistakes;
	struct option_block *blocks;
};

struct option_found *option_set_found(const struct option_set *set, const struct option *row);

/* A mistake about what `name` says, a flag or a variable. */
void option_set_blame(struct option_set *set, enum option_source source, const char *name, const char *text);

/* A mistake about a path of the file, or, if that is "", about a line of it (0: the whole). */
void option_set_blame_file(struct option_set *set, const char *path, int line, const char *text);

/* A value as it is shown: secrets masked. The caller owns it. */
json_t *option_set_dump(const struct option *row, const json_t *value);

/* A warning about a path of the file. */
void option_set_warn_file(struct option_set *set, const char *path, const char *text);
