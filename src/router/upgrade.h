/*
 * upgrade: starts the binary that stands where ours was started from, gives it our listening
 * sockets, and tells the owner when it serves in our place.
 *
 * Reaction to what the new process says and to its end (docs/states/upgrade.dot). Until it
 * says that it is ready nothing changes: when it ends, says nothing in time or is called off,
 * it is killed and reaped, and the reason is in the log and in the answer to who asked. Told to go it opens
 * what is left to open, and accepts beside us; that it serves is its last word, and until then the same
 * holds, but that our own end leaves it alone.
 *
 * What it writes to standard error before that comes through us: its last line is the best
 * reason there is. Control thread.
 */
#pragma once

#include "base/spawn.h"
#include "http/endpoint.h"
#include "net/fd_event.h"
#include "net/handover.h"

enum upgrade_state {
	UPGRADE_IDLE = 1,
	UPGRADE_STARTING, /* the new process lives and is not ready */
	UPGRADE_GOING,    /* it is ready and has been told to go */
	UPGRADE_ENDING,   /* it has failed and was killed: its end is waited for */
	UPGRADE_DONE,     /* it serves */
};

#define UPGRADE_WHY_BYTES  512
#define UPGRADE_LINE_BYTES 256

struct upgrade;

struct upgrade_owner {
	/* Whether another process may take its place now: not once it stops. */
	bool (*may_start)(const struct upgrade *u);
	/* What is given away: fills `items` (malloc), returns how many there are; called once for each start.
	 * Sets u->timeout_ms. */
	size_t (*collect)(struct upgrade *u, struct handed **items_out);
	/* It serves: to stop accepting is the owner's part. */
	void (*on_done)(struct upgrade *u);
	/* Long after that: it was stopped in a hurry. */
	void (*on_hurry)(struct upgrade *u);
};

struct upgrade {
	struct loop *loop;
	const struct upgrade_owner *owner;
	char *path;  /* absolute, links in it are followed at each start; NULL: not known */
	char **argv; /* as it was; one block */
	enum upgrade_state state;
	uint64_t timeout_ms; /* for the new process to be ready; as long again to serve */
	struct spawned child;
	int channel;
	struct fd_event said, ended, wrote; /* on the channel, the process, its standard error */
	struct job job;
	struct timer timer;
	struct endpoint_call *asker; /* NULL: nobody waits for the outcome */
	char why[UPGRADE_WHY_BYTES]; /* of the last failure */
	char line[UPGRADE_LINE_BYTES];
	size_t n_line;
	bool is_line_whole; /* the next byte begins another one */
};

/* Looks at how this process was started: before anything changes its folder or its arguments. */
void upgrade_init(struct upgrade *u, struct loop *loop, const struct upgrade_owner *owner);

/* A process that is not ready yet is killed; one that was told to go is left alone. Before the loop ends. */
void upgrade_deinit(struct upgrade *u);

/* False: it could not be begun, and u->why says why, as does the log. */
bool upgrade_start(struct upgrade *u);

/* As upgrade_start(); the call is answered when the outcome is known. */
void upgrade_ask(struct upgrade *u, struct endpoint_call *call);

/* A new process is there, and neither serves nor is gone. */
static inline bool upgrade_is_running(const struct upgrade *u) {
	return u->state != UPGRADE_IDLE && u->state != UPGRADE_DONE;
}

/* It was told to go, and the manager to watch it. */
static inline bool upgrade_is_going(const struct upgrade *u) {
	return u->state == UPGRADE_GOING;
}

/* Calls it off, unless it was told to go. why: what is said of it. */
void upgrade_cancel(struct upgrade *u, const char *why);
