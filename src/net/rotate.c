#include "net/rotate.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static bool name_of(char name[PATH_MAX], const char *path, unsigned i) {
	int n = i ? snprintf(name, PATH_MAX, "%s.%u", path, i) : snprintf(name, PATH_MAX, "%s", path);
	if (n < 0 || n >= PATH_MAX)
		errno = ENAMETOOLONG;
	return n > 0 && n < PATH_MAX;
}

bool rotate_files(const char *path, unsigned keep) {
	char from[PATH_MAX], to[PATH_MAX];
	if (keep > ROTATE_KEEP_MAX)
		keep = ROTATE_KEEP_MAX;
	if (keep == 0)
		return unlink(path) == 0 || errno == ENOENT;
	for (unsigned i = keep; i-- > 0;) {
		if (!name_of(from, path, i) || !name_of(to, path, i + 1))
			return false;
		if (rename(from, to) < 0 && errno != ENOENT && i == 0)
			return false;
	}
	return true;
}
