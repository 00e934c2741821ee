/*
 * claim: one copy of a service, never two, however its babysitters died.
 *
 * A file <state_dir>/<name>.lock carries two locks of open file descriptions. The first
 * byte is the babysitter's: who cannot have it meets a living babysitter and is refused. The
 * second byte belongs to the child: its descriptor is inherited by the leader and all it
 * starts, so that it is free only when the last of them is gone or has closed it.
 *
 * A successor that holds the first byte finds what its predecessor left: holders of the
 * lock by /proc/PID/fdinfo, bearers of the variable HEADRACE_SITTER=<path of the file>, the
 * recorded leader if its start time and the boot are the same, the recorded cgroup, and
 * all their descendants. It kills them until none is found and the second byte is free.
 * It never kills itself or what it descends from.
 *
 * One thread; the embedder owns the struct. Answers come from a timer, never at once.
 */
#pragma once

#include "net/loop.h"

#define CLAIM_PATIENCE_MS 3000u /* for a babysitter that is just ending */
#define CLAIM_VARIABLE    "HEADRACE_SITTER"

struct claim;
typedef void (*claim_fn)(struct claim *c, bool is_ours);

struct claim {
	struct loop *loop;
	claim_fn on_answer;
	struct timer retry;
	int place_fd; /* -1: closed */
	int lock_fd;  /* to be inherited */
	bool is_ours; /* both bytes are held */
	bool has_place;
	uint64_t patience_ms; /* CLAIM_PATIENCE_MS */
	uint64_t asked_ms, complained_ms;
	uint64_t pause_ms; /* to the next look */
	uint64_t n_killed; /* processes of predecessors */
	char *path;        /* of the lock file, absolute */
	char why[160];     /* of a refusal */
};

/* 0, or -errno when the file cannot be opened. state_dir must exist; a slash in name becomes '_'. */
must_use int claim_open(
    struct claim *c, struct loop *loop, const char *state_dir, const char *name, claim_fn on_answer);

/* The answer comes later, once; asking again before it came changes nothing. */
void claim_ask(struct claim *c);

/* Notes who leads the group now. cgroup: its folder or "". */
void claim_record(struct claim *c, pid_t leader, const char *cgroup);

/* Lets go of the place. No child lives. */
void claim_close(struct claim *c);
