/*
 * option_name: what a row is called on the command line, in the environment and in a
 * file, and which name a wrong one was meant to be.
 *
 * Private to base/option*.c. The printers fill `line` and return it.
 */
#pragma once

#include "base/option.h"

enum { OPTION_NAME_BYTES = 96, OPTION_PATH_BYTES = 256, OPTION_LINE_BYTES = 512 };

/* Maps and arrays of tables can be given in a file alone. */
bool option_name_is_flag(const struct option *row);

/* "router.port"; "alias" at the top of the file. */
const char *option_name_path(const struct option *row, char line[static OPTION_NAME_BYTES]);

/* "--first-byte" where that is enough, and "--timeout-first-byte", which always is. */
const char *option_name_flag(
    const struct option_schema *schema, const struct option *row, char line[static OPTION_NAME_BYTES]);
const char *option_name_long_flag(const struct option *row, char line[static OPTION_NAME_BYTES]);

/* "HEADRACE_TIMEOUT_FIRST_BYTE" */
const char *option_name_variable(
    const struct option_schema *schema, const struct option *row, char line[static OPTION_NAME_BYTES]);

/* "--health-check-interval-secs", another system's name of it; "": there is none. */
const char *option_name_other_flag(const struct option *row, char line[static OPTION_NAME_BYTES]);

/* The row of a flag with its dashes, with the unit of its numbers or without, or of a path; NULL: there is
 * none. */
const struct option *option_name_find_flag(const struct option_schema *schema, struct slice flag);
const struct option *option_name_find_path(const struct option_schema *schema, struct slice path);

struct option_nearest {
	struct slice wanted;
	unsigned distance;
	char name[OPTION_NAME_BYTES]; /* "": nothing is near */
};

/* Takes `name` over when `as` is nearer to what is wanted than all that was offered before. */
void option_nearest_offer(struct option_nearest *nearest, struct slice as, const char *name);

/* "unknown key; did you mean port?" */
const char *option_nearest_sentence(
    const struct option_nearest *nearest, const char *noun, char line[static OPTION_LINE_BYTES]);
