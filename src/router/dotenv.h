/*
 * dotenv: variables from the file .env of the working directory, as vLLM's router reads it. They are not put
 * into the environment: who wants one asks here. Reads the environment; one thread.
 */
#pragma once

#include "base/option.h"

/*
 * Lines of NAME=VALUE, with "export" before them or without, the value in quotes or without; what is none
 * is passed over, as are folders and what is not there. Owned by the set. Returns 0, or -errno of a file
 * that cannot be read.
 */
must_use int dotenv_read(struct option_set *set, const char *path, struct option_map *variables_out);

/* The environment's, else the file's; NULL when it is in neither, or empty. */
const char *dotenv_variable(const struct option_map *variables, const char *name);
