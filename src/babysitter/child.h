/*
 * child: the life of one engine process, as a table of states and events.
 *
 * Pure: it knows no process, no clock and no socket. What happens in the world comes in
 * as events, what is to be done goes out through child_ops; both may be a test's. There
 * are never two processes at a time: a new one is started only after CHILD_E_GONE, which
 * says that nothing of the one before is left, its descendants included.
 *
 * A child that ended by itself, did not become ready in time or stopped answering is
 * started again after a back-off, until it did so max_restarts times without a healthy
 * period between; then it is FAILED until somebody says start or stop. Operations that
 * child_ops does must not send events from inside: they note and wake. One thread; the
 * embedder owns the struct. docs/states/child.dot draws the table.
 */
#pragma once

#include "base/rng.h"
#include "base/slice.h"

enum child_state {
	CHILD_STOPPED,  /* no process, none wanted */
	CHILD_CLAIMING, /* waiting until nothing of a former babysitter's child is left */
	CHILD_STARTING, /* a process runs and does not serve yet */
	CHILD_READY,    /* it serves */
	CHILD_DRAINING, /* it serves what it has; it will not be started again */
	CHILD_STOPPING, /* SIGTERM was sent */
	CHILD_KILLING,  /* SIGKILL was sent, or the leader is gone and its descendants are swept */
	CHILD_BACKOFF,  /* no process, one will be started in a while */
	CHILD_FAILED,   /* no process: given up */
	CHILD_N_STATES
};

enum child_event {
	CHILD_E_START,   /* told to run; ends draining and FAILED, cuts a back-off short */
	CHILD_E_STOP,    /* told to end */
	CHILD_E_DRAIN,   /* told to take no new work; who is not ready is stopped */
	CHILD_E_CLAIMED, /* the answer to ops->claim: the place is ours and empty */
	CHILD_E_REFUSED, /* the other answer: it cannot be had */
	CHILD_E_EXITED,  /* the leader has ended; descendants may live */
	CHILD_E_GONE,    /* nothing of the process is left; always after EXITED */
	CHILD_E_READY,   /* it was found to serve */
	CHILD_E_ALIVE,   /* one probe of a ready child went well */
	CHILD_E_UNREADY, /* one probe of a ready child failed */
	CHILD_E_TIMEOUT, /* the timer of ops->set_timer */
	CHILD_N_EVENTS
};

/* Why the last process ended, or why there is none. */
enum child_cause {
	CHILD_C_NONE,
	CHILD_C_TOLD,         /* stopped because somebody said so */
	CHILD_C_EXITED,       /* by itself */
	CHILD_C_START_LATE,   /* not ready within start_ms */
	CHILD_C_UNRESPONSIVE, /* max_unready probes failed in a row */
	CHILD_C_NOT_SPAWNED,  /* the system gave no process */
	CHILD_C_REFUSED,      /* another babysitter has the place */
	CHILD_N_CAUSES
};

struct child_rules {
	uint64_t start_ms;         /* from the process's start to READY; 0: no deadline */
	uint64_t stop_ms;          /* from SIGTERM to SIGKILL */
	uint64_t healthy_ms;       /* READY for so long forgives all failures; CHILD_HEALTHY_MS */
	uint64_t restart_delay_ms; /* fixed; 0: exponential, CHILD_BACKOFF_MIN_MS to CHILD_BACKOFF_MAX_MS */
	uint32_t max_restarts;     /* without a healthy period between; UINT32_MAX: no limit */
	uint32_t max_unready;      /* failed probes in a row; 0: they do not matter */
};

#define CHILD_HEALTHY_MS     60000u
#define CHILD_BACKOFF_MIN_MS 200u
#define CHILD_BACKOFF_MAX_MS 30000u
#define CHILD_KILL_AGAIN_MS  50u /* what SIGKILL left is swept this often */

#define CHILD_NEVER UINT64_MAX

struct child;

struct child_ops {
	/* Asks for the place; the answer is CLAIMED or REFUSED, later. CLAIMED at once if we have it. */
	void (*claim)(struct child *c);
	/* Starts a process. 0, or -errno when there is none; then no EXITED and no GONE follow. */
	int (*spawn)(struct child *c);
	/* Sends a signal to the leader's group; SIGKILL: to everything that descends from it. */
	void (*kill)(struct child *c, int signal);
	/* The one timer, started afresh; CHILD_NEVER stops it. */
	void (*set_timer)(struct child *c, uint64_t delay_ms);
	/* The state is another one now. */
	void (*on_state)(struct child *c, enum child_state before);
};

struct child {
	const struct child_ops *ops;
	const struct child_rules *rules; /* must outlive it */
	struct rng rng;                  /* of the jitter */
	enum child_state state;
	enum child_cause cause; /* of the last end; NONE before the first */
	bool is_wanted;         /* what was said last: start, or stop and drain */
	uint32_t n_failures;    /* in a row, without a healthy period between */
	uint32_t n_unready;     /* failed probes in a row */
	uint64_t n_spawned;     /* processes so far; the first one is 1 */
	uint64_t backoff_ms;    /* the last delay that was chosen */
};

void child_init(struct child *c, const struct child_ops *ops, const struct child_rules *rules, uint64_t seed);

/* The only way in. Events that mean nothing in a state are ignored. */
void child_handle(struct child *c, enum child_event event);

/* A process runs, or something of it is left. */
bool child_has_process(const struct child *c);

/* "ready", "backoff", ...; of FAILED "failed". Lower case, for logs and endpoints. */
const char *child_state_name(enum child_state state);
const char *child_event_name(enum child_event event);

/* "ended by itself", "not ready in time", ...; "" for NONE. */
const char *child_cause_text(enum child_cause cause);
