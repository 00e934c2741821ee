/*
 * group: all processes that come of one spawn: the leader, and whatever it starts.
 *
 * The process that calls group_open() becomes a subreaper, so that nothing can get away:
 * who daemonises becomes our own child. All children that end are reaped here; when the
 * kernel knows of no child any more, the group is gone. Exits are seen by pidfd (leader)
 * and SIGCHLD (others).
 *
 * Who is killed: the process group by its number, only while the leader is not reaped;
 * the cgroup at one stroke; and each descendant that /proc shows, through a pidfd.
 * Callbacks run from a job. One thread, one group a process.
 */
#pragma once

#include "babysitter/cgroup.h"
#include "base/spawn.h"
#include "net/fd_event.h"
#include "net/signals.h"

struct group;
typedef void (*group_fn)(struct group *g);

struct group {
	struct loop *loop;
	struct job job;
	struct fd_event exit_event;
	struct signals signals;
	const struct cgroup *cgroup; /* NULL: none; its path may be set later */
	group_fn on_exit;            /* the leader has ended: see exit_code and exit_signal */
	group_fn on_gone;            /* nothing is left; may adopt the next one */
	pid_t leader;                /* 0: none, or reaped */
	pid_t process_group;         /* the leader's, also after its end */
	int pidfd;                   /* -1: none */
	bool is_occupied;            /* adopted, not gone */
	int exit_code;               /* -1: ended by a signal, or not yet */
	int exit_signal;             /* 0: ended by itself, or not yet */
};

/* 0 or -errno. */
must_use int group_open(
    struct group *g, struct loop *loop, const struct cgroup *cgroup, group_fn on_exit, group_fn on_gone);

/* The group is not occupied. Takes pid and pidfd. SIGCHLD alone does where -errno says that it cannot be
 * polled. */
int group_adopt(struct group *g, pid_t leader, int pidfd);

/* To the process group; once the leader is reaped, to each descendant. SIGKILL: to everybody there is. */
void group_signal(struct group *g, int signal);

/* Not occupied. */
void group_close(struct group *g);
