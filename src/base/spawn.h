/*
 * spawn: one process, made by fork and a list of child-side steps, then exec.
 *
 * A step that fails in the child comes back by name with its errno over a pipe that exec
 * closes. The child leads a session and a process group of its own, has /dev/null as
 * standard input, pipes as standard output and error, default signal dispositions, no
 * blocked signal, and no other descriptor of ours but kept_fd. A plan may say otherwise
 * of the session and of standard output.
 *
 * The plan is read before and after fork and belongs to the caller. Everything that needs
 * memory is done before fork: other threads may hold the heap's lock at that moment.
 */
#pragma once

#include <sched.h>
#include <sys/types.h>

#include "base/defs.h"

struct spawn_limit {
	int resource;        /* RLIMIT_NOFILE, ... */
	uint64_t soft, hard; /* RLIM_INFINITY: none */
};

struct spawn_plan {
	const char *const *argv;          /* NULL-terminated; argv[0] is looked up in the child's PATH */
	const char *const *env;           /* NULL-terminated "NAME=value", all of it; NULL: ours */
	const char *path;                 /* what is executed; NULL: what argv[0] names */
	const char *work_dir;             /* NULL or "": ours */
	const struct spawn_limit *limits; /* set after everything that they could hinder */
	size_t n_limits;
	const cpu_set_t *cpus; /* NULL: ours */
	int death_signal;      /* sent to the leader when the thread that spawned it ends; 0: none */
	/* -1: none. */
	int cgroup_fd;      /* cgroup.procs of its cgroup, open for writing */
	int kept_fd;        /* stays open in the child and all it starts */
	bool keeps_session; /* and process group: ours */
	bool keeps_stdout;  /* ours; there is no out_fd then */
};

struct spawned {
	pid_t pid; /* ours to reap: never signal it by number afterwards */
	int pidfd;
	int report_fd;      /* spawn_failed() */
	int out_fd, err_fd; /* not blocking; out_fd may be -1 */
};

struct spawn_failure {
	char step[16]; /* "exec", "chdir", "limit", ... */
	int error;     /* errno */
};

/* 0, or -errno when there is no process; then nothing is open. All descriptors are the caller's to close. */
must_use int spawn_start(const struct spawn_plan *plan, struct spawned *out);

/*
 * Reads the report without blocking: 1 a step failed, *out says which; 0 exec was reached;
 * -EAGAIN not known yet. After the process's exit it is always known.
 */
must_use int spawn_failed(int report_fd, struct spawn_failure *out);
