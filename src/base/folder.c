#include "base/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int make_one(const char *path) {
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int judge(const char *path) {
	struct stat s;

	if (stat(path, &s) < 0)
		return -errno;
	return S_ISDIR(s.st_mode) ? 0 : -ENOTDIR;
}

int folder_make(const char *path) {
	char *part = strdup(path);
	int r = 0;

	for (char *slash = part; r == 0 && (slash = strchr(slash + 1, '/'));) {
		*slash = '\0';
		r = make_one(part);
		if (r == -EROFS) /* it may be there all the same, and what is below it */
			r = 0;
		*slash = '/';
	}
	if (r == 0)
		r = make_one(part);
	free(part);
	return r ? r : judge(path);
}
