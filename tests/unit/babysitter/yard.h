/*
 * yard: a keeper on a real loop, with small real children: shell scripts.
 *
 * What a child says is kept as lines; yard_until() runs the loop until a condition
 * holds. Every test ends with yard_close(), which stops the child and proves that no
 * process of it is left.
 */
#pragma once

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "unit/net/rig.h"

#include "babysitter/keeper.h"
#include "babysitter/process.h"

#define YARD_LINES_MAX 64

struct yard {
	struct rig rig;
	struct keeper keeper;
	struct keeper_config config;
	char folder[64];
	const char *argv[8];
	char lines[YARD_LINES_MAX][300];
	unsigned n_lines, n_changes;
};

#define yard_until(y, cond) rig_until(&(y)->rig, cond)

static inline void yard_on_line(struct output *o, struct slice line) {
	struct yard *y = container_of(container_of(o, struct keeper, output), struct yard, keeper);
	if (y->n_lines < YARD_LINES_MAX)
		snprintf(y->lines[y->n_lines++], sizeof(y->lines[0]), "%.*s", (int)line.n, line.p);
}

static inline void yard_on_change(struct keeper *k) {
	container_of(k, struct yard, keeper)->n_changes++;
}

/* A configuration to be changed before yard_open(): patient, without limits. */
static inline void yard_init(struct yard *y) {
	*y = (struct yard){ .folder = "/tmp/keeper_XXXXXX" };
	assert_non_null(mkdtemp(y->folder));
	y->config = (struct keeper_config){
		.name = "engine",
		.state_dir = y->folder,
		.plan = { .argv = y->argv, .death_signal = SIGKILL, .cgroup_fd = -1, .kept_fd = -1 },
		.rules = { .stop_ms = 10000,
		    .healthy_ms = CHILD_HEALTHY_MS,
		    .max_restarts = UINT32_MAX,
		    .max_unready = 3 },
		.output = { .prefix = "[engine] " },
	};
}

static inline void yard_open(struct yard *y, struct log_ring *ring) {
	rig_open(&y->rig);
	assert_int_equal(keeper_open(&y->keeper, &y->rig.loop, &y->config, ring, yard_on_change), 0);
	y->keeper.output.on_line = yard_on_line;
}

/* Starts a shell with this script; "$0" is the folder, more arguments follow. */
static inline void yard_run(struct yard *y, const char *script) {
	y->argv[0] = "/bin/sh";
	y->argv[1] = "-c";
	y->argv[2] = script;
	y->argv[3] = y->folder;
	yard_open(y, NULL);
	keeper_tell(&y->keeper, CHILD_E_START);
}

static inline bool yard_has_line(const struct yard *y, const char *line) {
	for (unsigned i = 0; i < y->n_lines; i++)
		if (strcmp(y->lines[i], line) == 0)
			return true;
	return false;
}

/* The number in the first line "<key> <number>", 0: none yet. */
static inline pid_t yard_number(const struct yard *y, const char *key) {
	for (unsigned i = 0; i < y->n_lines; i++)
		if (strncmp(y->lines[i], key, strlen(key)) == 0 && y->lines[i][strlen(key)] == ' ')
			return (pid_t)strtol(y->lines[i] + strlen(key), NULL, 10);
	return 0;
}

/* How many processes descend from this one. */
static inline unsigned n_descendants(void) {
	struct process_list all = { .items = NULL };
	unsigned n = 0;
	process_list_read(&all);
	process_list_find(&all, getpid())->is_marked = true;
	process_list_spread(&all);
	for (size_t i = 0; i < all.n; i++)
		n += all.items[i].is_marked && all.items[i].pid != getpid();
	process_list_deinit(&all);
	return n;
}

static inline unsigned n_open_descriptors(void) {
	unsigned n = 0;
	DIR *fds = opendir("/proc/self/fd");
	while (readdir(fds))
		n++;
	closedir(fds);
	return n;
}

static inline void yard_stop(struct yard *y) {
	keeper_tell(&y->keeper, CHILD_E_STOP);
	yard_until(y, y->keeper.child.state == CHILD_STOPPED);
	assert_int_equal(n_descendants(), 0);
}

static inline void folder_remove(const char *folder) {
	DIR *d = opendir(folder);
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	assert_int_equal(rmdir(folder), 0);
}

static inline void yard_close(struct yard *y) {
	yard_stop(y);
	keeper_close(&y->keeper);
	rig_close(&y->rig);
	folder_remove(y->folder);
}
