/*
 * rotate: log.1, log.2, ... of a log that has grown too large. Blocks on the disk:
 * for a writer's thread, never for a loop.
 */
#pragma once

#include "base/defs.h"

#define ROTATE_KEEP_MAX 99u

/*
 * path becomes path.1, path.1 becomes path.2 and so on; path.<keep> is lost. keep 0: path itself is lost.
 * False with errno when path is still there.
 */
bool rotate_files(const char *path, unsigned keep);
