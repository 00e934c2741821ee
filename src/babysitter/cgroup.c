#include "babysitter/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The mount point of the unified hierarchy, from /proc/self/mountinfo. */
static bool find_mount(char *path, size_t size) {
	char *line = NULL;
	size_t room = 0;
	bool is_found = false;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	while (f && !is_found && getline(&line, &room, f) > 0) {
		if (!strstr(line, " - cgroup2 "))
			continue;
		char *field = line;
		for (unsigned i = 0; i < 4 && field; i++) /* id, parent, device, root, then the place */
			field = strchr(field, ' ') ? strchr(field, ' ') + 1 : NULL;
		char *end = field ? strchr(field, ' ') : NULL;
		if (end) {
			*end = '\0';
			is_found = (size_t)snprintf(path, size, "%s", field) < size;
		}
	}
	free(line);
	if (f)
		fclose(f);
	return is_found;
}

/* The group that this process is in, relative to the mount: the line "0::/..." */
static bool find_own(char *path, size_t size) {
	char *line = NULL;
	size_t room = 0;
	bool is_found = false;
	FILE *f = fopen("/proc/self/cgroup", "re");
	while (f && !is_found && getline(&line, &room, f) > 0) {
		if (strncmp(line, "0::/", 4) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		is_found = (size_t)snprintf(path, size, "%s", line[4] ? line + 3 : "") < size;
	}
	free(line);
	if (f)
		fclose(f);
	return is_found;
}

static int open_in(const char *folder, const char *name, int flags) {
	char path[CGROUP_PATH_MAX + 32];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return open(path, flags | O_CLOEXEC);
}

bool cgroup_open(struct cgroup *g, const char *name, int lock_fd) {
	struct stat lock;
	char mount[CGROUP_PATH_MAX], own[CGROUP_PATH_MAX];
	*g = (struct cgroup){ .procs_fd = -1 };
	if (!find_mount(mount, sizeof(mount)) || !find_own(own, sizeof(own)) || fstat(lock_fd, &lock) < 0)
		return false;
	int base = snprintf(g->path, sizeof(g->path), "%s%s/", mount, own);
	int n = snprintf(g->path, sizeof(g->path), "%s%s/headrace-%s-%jx-%jx", mount, own, name,
	    (uintmax_t)lock.st_dev, (uintmax_t)lock.st_ino);
	if (n < 0 || (size_t)n >= sizeof(g->path)) {
		g->path[0] = '\0';
		return false;
	}
	for (char *p = g->path + base; *p; p++)
		if (*p == '/')
			*p = '_';
	if (mkdir(g->path, 0755) == 0 || errno == EEXIST)
		g->procs_fd = open_in(g->path, "cgroup.procs", O_WRONLY);
	if (g->procs_fd < 0)
		g->path[0] = '\0';
	return g->procs_fd >= 0;
}

bool cgroup_kill(const char *path) {
	int fd = path[0] ? open_in(path, "cgroup.kill", O_WRONLY) : -1;
	if (fd < 0)
		return false;
	bool is_done = write(fd, "1", 1) == 1;
	close(fd);
	return is_done;
}

bool cgroup_is_populated(const char *path) {
	char text[256] = "";
	int fd = path[0] ? open_in(path, "cgroup.events", O_RDONLY) : -1;
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 && strstr(text, "populated 1");
}

void cgroup_close(struct cgroup *g) {
	if (g->procs_fd >= 0)
		close(g->procs_fd);
	if (g->path[0])
		rmdir(g->path); /* fails when somebody is left in it; then it stays */
	*g = (struct cgroup){ .procs_fd = -1 };
}
