/*
 * One table, and the small functions it names. An action changes state through
 * enter(), which sets the one timer and tells the owner; nothing else does.
 */
#include "babysitter/child.h"

#include <signal.h>

typedef void (*action_fn)(struct child *c);

/* What the timer of a state is for; see the row's action for TIMEOUT. */
static uint64_t timer_of(const struct child *c, enum child_state state) {
	switch (state) {
	case CHILD_STARTING:
		return c->rules->start_ms ? c->rules->start_ms : CHILD_NEVER;
	case CHILD_READY:
		return c->rules->healthy_ms;
	case CHILD_STOPPING:
		return c->rules->stop_ms;
	case CHILD_KILLING:
		return CHILD_KILL_AGAIN_MS;
	case CHILD_BACKOFF:
		return c->backoff_ms;
	default:
		return CHILD_NEVER;
	}
}

static void enter(struct child *c, enum child_state state) {
	enum child_state before = c->state;
	c->state = state;
	c->n_unready = 0;
	c->ops->set_timer(c, timer_of(c, state));
	if (state != before)
		c->ops->on_state(c, before);
}

/* --- no process ----------------------------------------------------------------------- */

/* 200 ms, doubling; a quarter more by chance, so that a fleet does not start in step. */
static uint64_t choose_backoff(struct child *c) {
	if (c->rules->restart_delay_ms)
		return c->rules->restart_delay_ms;
	uint64_t max_ms = CHILD_BACKOFF_MAX_MS / 5 * 4, base_ms = max_ms;
	unsigned n_doublings = c->n_failures - 1;
	if (n_doublings < 20)
		base_ms = u64_min(max_ms, (uint64_t)CHILD_BACKOFF_MIN_MS << n_doublings);
	return base_ms + rng_below(&c->rng, base_ms / 4 + 1);
}

static void count_failure(struct child *c, enum child_cause cause) {
	c->cause = cause;
	if (c->n_failures < UINT32_MAX)
		c->n_failures++;
}

static bool has_failed_too_often(const struct child *c) {
	return c->rules->max_restarts != UINT32_MAX && c->n_failures > c->rules->max_restarts;
}

/* After a failure, with nothing left of the process. */
static void wait_or_give_up(struct child *c) {
	if (has_failed_too_often(c)) {
		c->is_wanted = false;
		enter(c, CHILD_FAILED);
		return;
	}
	c->backoff_ms = choose_backoff(c);
	enter(c, CHILD_BACKOFF);
}

static void launch(struct child *c) {
	assert(!child_has_process(c) && c->is_wanted);
	if (c->ops->spawn(c) < 0) {
		count_failure(c, CHILD_C_NOT_SPAWNED);
		wait_or_give_up(c);
		return;
	}
	c->n_spawned++;
	enter(c, CHILD_STARTING);
}

static void claim(struct child *c) {
	c->is_wanted = true;
	enter(c, CHILD_CLAIMING);
	c->ops->claim(c);
}

/* Who says start once more pardons what went wrong. */
static void claim_pardoned(struct child *c) {
	c->n_failures = 0;
	claim(c);
}

static void give_up_refused(struct child *c) {
	c->cause = CHILD_C_REFUSED;
	c->is_wanted = false;
	enter(c, CHILD_FAILED);
}

static void rest(struct child *c) {
	c->is_wanted = false;
	c->n_failures = 0;
	enter(c, CHILD_STOPPED);
}

/* --- a process ------------------------------------------------------------------------ */

static void terminate(struct child *c) {
	enter(c, CHILD_STOPPING);
	c->ops->kill(c, SIGTERM);
}

static void stop(struct child *c) {
	c->is_wanted = false;
	c->cause = CHILD_C_TOLD;
	terminate(c);
}

static void serve(struct child *c) {
	enter(c, CHILD_READY);
}

static void drain(struct child *c) {
	c->is_wanted = false;
	enter(c, CHILD_DRAINING);
}

static void end_drain(struct child *c) {
	c->is_wanted = true;
	enter(c, CHILD_READY);
}

static void start_late(struct child *c) {
	count_failure(c, CHILD_C_START_LATE);
	terminate(c);
}

static void note_alive(struct child *c) {
	c->n_unready = 0;
}

static void note_unready(struct child *c) {
	c->n_unready++;
	if (!c->rules->max_unready || c->n_unready < c->rules->max_unready)
		return;
	count_failure(c, CHILD_C_UNRESPONSIVE);
	terminate(c);
}

static void forgive(struct child *c) {
	c->n_failures = 0;
}

/* The leader ended by itself: what it leaves behind goes as well. */
static void sweep_crashed(struct child *c) {
	count_failure(c, CHILD_C_EXITED);
	enter(c, CHILD_KILLING);
	c->ops->kill(c, SIGKILL);
}

static void sweep_drained(struct child *c) {
	c->cause = CHILD_C_EXITED;
	enter(c, CHILD_KILLING);
	c->ops->kill(c, SIGKILL);
}

/* The leader obeyed; its descendants, who may have sessions of their own, have what is left of the time. */
static void pass_on_term(struct child *c) {
	c->ops->kill(c, SIGTERM);
}

static void kill_all(struct child *c) {
	enter(c, CHILD_KILLING);
	c->ops->kill(c, SIGKILL);
}

static void want(struct child *c) {
	c->is_wanted = true;
}

static void unwant(struct child *c) {
	c->is_wanted = false;
}

/* Nothing is left of the process. */
static void end(struct child *c) {
	if (!c->is_wanted)
		rest(c);
	else if (c->cause == CHILD_C_TOLD || !c->n_failures) { /* stopped or drained, then told to start */
		c->backoff_ms = 0;
		enter(c, CHILD_BACKOFF);
	} else
		wait_or_give_up(c);
}

/* --- the table ------------------------------------------------------------------------ */

/* No entry: the event means nothing there. */
static const action_fn actions[CHILD_N_STATES][CHILD_N_EVENTS] = {
	[CHILD_STOPPED] = {
		[CHILD_E_START] = claim,
	},
	[CHILD_CLAIMING] = {
		[CHILD_E_STOP] = rest,
		[CHILD_E_DRAIN] = rest,
		[CHILD_E_CLAIMED] = launch,
		[CHILD_E_REFUSED] = give_up_refused,
	},
	[CHILD_STARTING] = {
		[CHILD_E_STOP] = stop,
		[CHILD_E_DRAIN] = stop,
		[CHILD_E_READY] = serve,
		[CHILD_E_EXITED] = sweep_crashed,
		[CHILD_E_TIMEOUT] = start_late,
	},
	[CHILD_READY] = {
		[CHILD_E_STOP] = stop,
		[CHILD_E_DRAIN] = drain,
		[CHILD_E_ALIVE] = note_alive,
		[CHILD_E_UNREADY] = note_unready,
		[CHILD_E_EXITED] = sweep_crashed,
		[CHILD_E_TIMEOUT] = forgive,
	},
	[CHILD_DRAINING] = {
		[CHILD_E_START] = end_drain,
		[CHILD_E_STOP] = stop,
		[CHILD_E_EXITED] = sweep_drained,
	},
	[CHILD_STOPPING] = {
		[CHILD_E_START] = want,
		[CHILD_E_STOP] = unwant,
		[CHILD_E_DRAIN] = unwant,
		[CHILD_E_EXITED] = pass_on_term,
		[CHILD_E_GONE] = end,
		[CHILD_E_TIMEOUT] = kill_all,
	},
	[CHILD_KILLING] = {
		[CHILD_E_START] = want,
		[CHILD_E_STOP] = unwant,
		[CHILD_E_DRAIN] = unwant,
		[CHILD_E_EXITED] = kill_all,
		[CHILD_E_GONE] = end,
		[CHILD_E_TIMEOUT] = kill_all,
	},
	[CHILD_BACKOFF] = {
		[CHILD_E_START] = launch,
		[CHILD_E_STOP] = rest,
		[CHILD_E_DRAIN] = rest,
		[CHILD_E_TIMEOUT] = launch,
	},
	[CHILD_FAILED] = {
		[CHILD_E_START] = claim_pardoned,
		[CHILD_E_STOP] = rest,
	},
};

void child_init(
    struct child *c, const struct child_ops *ops, const struct child_rules *rules, uint64_t seed) {
	*c = (struct child){ .ops = ops, .rules = rules };
	rng_init(&c->rng, seed);
}

void child_handle(struct child *c, enum child_event event) {
	assert(c->state < CHILD_N_STATES && event < CHILD_N_EVENTS);
	action_fn action = actions[c->state][event];
	if (action)
		action(c);
	assert(c->state != CHILD_FAILED || !c->is_wanted);
}

bool child_has_process(const struct child *c) {
	return c->state >= CHILD_STARTING && c->state <= CHILD_KILLING;
}

const char *child_state_name(enum child_state state) {
	static const char *const names[CHILD_N_STATES] = {
		[CHILD_STOPPED] = "stopped",
		[CHILD_CLAIMING] = "claiming",
		[CHILD_STARTING] = "starting",
		[CHILD_READY] = "ready",
		[CHILD_DRAINING] = "draining",
		[CHILD_STOPPING] = "stopping",
		[CHILD_KILLING] = "killing",
		[CHILD_BACKOFF] = "backoff",
		[CHILD_FAILED] = "failed",
	};
	assert(state < CHILD_N_STATES);
	return names[state];
}

const char *child_event_name(enum child_event event) {
	static const char *const names[CHILD_N_EVENTS] = {
		[CHILD_E_START] = "start",
		[CHILD_E_STOP] = "stop",
		[CHILD_E_DRAIN] = "drain",
		[CHILD_E_CLAIMED] = "claimed",
		[CHILD_E_REFUSED] = "refused",
		[CHILD_E_EXITED] = "exited",
		[CHILD_E_GONE] = "gone",
		[CHILD_E_READY] = "ready",
		[CHILD_E_ALIVE] = "alive",
		[CHILD_E_UNREADY] = "unready",
		[CHILD_E_TIMEOUT] = "timeout",
	};
	assert(event < CHILD_N_EVENTS);
	return names[event];
}

const char *child_cause_text(enum child_cause cause) {
	static const char *const texts[CHILD_N_CAUSES] = {
		[CHILD_C_NONE] = "",
		[CHILD_C_TOLD] = "told to stop",
		[CHILD_C_EXITED] = "ended by itself",
		[CHILD_C_START_LATE] = "not ready in time",
		[CHILD_C_UNRESPONSIVE] = "did not answer",
		[CHILD_C_NOT_SPAWNED] = "could not be started",
		[CHILD_C_REFUSED] = "another babysitter has it",
	};
	assert(cause < CHILD_N_CAUSES);
	return texts[cause];
}
