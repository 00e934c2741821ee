/*
 * folder: makes the folder in which a program keeps what is to outlive it, at its start.
 *
 * Blocks; any thread.
 */
#pragma once

#include "base/defs.h"

/* With all that is above it, for nobody else (0700); one that is there stays as it is. 0, or a negative
 * errno: it cannot be made, or is none (-ENOTDIR). Nothing may be put there as yet all the same: that is
 * seen when it is tried, and may end. */
must_use int folder_make(const char *path);
