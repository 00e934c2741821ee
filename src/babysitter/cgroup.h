/*
 * cgroup: a control group (version 2) of a service's own, below the one we live in.
 *
 * Where none can be made (no cgroup2 mount, read-only, not delegated) or joined the functions do
 * nothing, and the group is held together by session, subreaper and lock alone. One
 * thread; the embedder owns the struct.
 */
#pragma once

#include "base/defs.h"

#define CGROUP_PATH_MAX 512

struct cgroup {
	char path[CGROUP_PATH_MAX]; /* of its folder; "": there is none */
	int procs_fd;               /* for spawn_plan; -1 */
};

/*
 * <ours>/headrace-<name>-<device>-<inode> of the lock file, so that services of one name in two state folders
 * have two; it may be there already. Only who holds the lock may call this. False: none can be had.
 */
bool cgroup_open(struct cgroup *g, const char *name, int lock_fd);

/* SIGKILL to all in it, at one stroke. False: there is none, or it cannot (before Linux 5.14). */
bool cgroup_kill(const char *path);

/* Is anybody in it? */
bool cgroup_is_populated(const char *path);

/* Removes the folder if it is empty. The lock is still held. */
void cgroup_close(struct cgroup *g);
