/*
 * keeper: a child (child.h) with a real process: spawn, group, claim and output tied to a
 * loop. This is what the babysitter's main, its probes and its endpoints work with.
 *
 *     keeper_open() -> keeper_tell(CHILD_E_START) -> on_change: STARTING; probe it;
 *     keeper_tell(CHILD_E_READY) -> on_change: READY; probe on, ALIVE or UNREADY each
 *     time -> keeper_tell(CHILD_E_STOP) -> on_change: STOPPED or FAILED -> keeper_close()
 *
 * on_change runs from a job, never from inside a call into the keeper; several changes of
 * one turn are told once, so look at keeper->child.state, and at child.n_spawned to see
 * that the process is another one. Events about a process may be told late: READY for a
 * process that is gone is ignored only if its state says so; compare n_spawned before.
 *
 * The process that calls keeper_open() becomes the reaper of everything it starts: it must
 * not have other children. One keeper a process.
 */
#pragma once

#include "babysitter/cgroup.h"
#include "babysitter/child.h"
#include "babysitter/claim.h"
#include "babysitter/group.h"
#include "babysitter/output.h"
#include "base/spawn.h"

struct keeper_config {
	const char *name;      /* of the service; names the lock and the cgroup */
	const char *state_dir; /* must exist */
	bool use_cgroup;       /* one of its own, where one can be made */
	struct spawn_plan plan;
	struct child_rules rules;
	struct output_rules output;
};

struct keeper;
typedef void (*keeper_change_fn)(struct keeper *k);

struct keeper {
	struct child child;
	struct loop *loop;
	const struct keeper_config *config;
	struct spawn_plan plan; /* the config's, with cgroup and lock */
	struct cgroup cgroup;
	struct group group;
	struct claim claim;
	struct output output; /* set output.on_line to see the lines */
	struct timer timer;
	struct job change;
	keeper_change_fn on_change;
	int report_fd;  /* spawn_failed(); -1 */
	char *variable; /* HEADRACE_SITTER=... */
	const char **env;

	/* For endpoints and logs. */
	pid_t pid;                         /* of the leader; 0: none. To show, never to signal */
	int last_exit;                     /* exit code; -1: none yet, or by a signal */
	int last_signal;                   /* that ended it; 0: none */
	struct spawn_failure last_failure; /* step "" if exec was reached */
	char refused[160]; /* why keeper_open() failed; why the place was refused stands in claim.why */
};

/* 0 or -errno; a sentence is in k->refused. config and ring must outlive it, up to keeper_close(). Nothing is
 * started. */
must_use int keeper_open(struct keeper *k, struct loop *loop, const struct keeper_config *config,
    struct log_ring *ring, keeper_change_fn on_change);

/* An event from outside: START, STOP, DRAIN, READY, ALIVE, UNREADY. */
void keeper_tell(struct keeper *k, enum child_event event);

/* No process is left: the state is STOPPED or FAILED. */
void keeper_close(struct keeper *k);
