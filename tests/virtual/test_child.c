/*
 * The child's table in a world of its own: processes, time and the place are the test's.
 * Thousands of seeded orders of what can happen, and laws that hold in all of them.
 */
#include <signal.h>

#include "unit/unit.h"

#include "babysitter/child.c"

#define N_SEEDS      3000
#define N_STEPS      300
#define HONEST_STEPS 2000

enum body { BODY_NONE, BODY_ALIVE, BODY_REMNANTS };

/* What the machine's operations do to the world, and what the laws need to remember. */
struct world {
	struct child child;
	struct child_rules rules;
	struct rng rng;
	uint64_t now_ms, due_ms; /* of the timer; CHILD_NEVER: stopped */
	enum body body;
	bool heard_term, heard_kill, ignores_term;
	bool is_asked, is_ours, is_inside;
	bool spawn_fails;
	unsigned n_failures; /* in a row, as the world counts them */
	unsigned n_sweeps;   /* SIGKILLs */
	uint64_t n_states[CHILD_N_STATES];
};

/* Which way has been gone, by all tests: from, event, to. */
static bool was_gone[CHILD_N_STATES][CHILD_N_EVENTS][CHILD_N_STATES];

static struct world *world_of(struct child *c) {
	return container_of(c, struct world, child);
}

static void on_claim(struct child *c) {
	world_of(c)->is_asked = true;
}

static int on_spawn(struct child *c) {
	struct world *w = world_of(c);
	assert_int_equal(w->body, BODY_NONE); /* never two */
	assert_true(w->is_ours);              /* never beside a predecessor's */
	assert_true(c->is_wanted);
	if (w->spawn_fails && rng_below(&w->rng, 3) == 0) {
		w->n_failures++;
		return -11;
	}
	w->body = BODY_ALIVE;
	w->heard_term = w->heard_kill = false;
	w->ignores_term = rng_below(&w->rng, 3) == 0;
	return 0;
}

static void on_kill(struct child *c, int number) {
	struct world *w = world_of(c);
	assert_int_not_equal(w->body, BODY_NONE);
	assert_true(number == SIGTERM || number == SIGKILL);
	if (number == SIGKILL) {
		w->heard_kill = true;
		w->n_sweeps++;
	} else {
		w->heard_term = true;
	}
}

static void on_set_timer(struct child *c, uint64_t delay_ms) {
	struct world *w = world_of(c);
	w->due_ms = delay_ms == CHILD_NEVER ? CHILD_NEVER : w->now_ms + delay_ms;
}

static void check_backoff(struct world *w) {
	uint64_t ms = w->child.backoff_ms;
	assert_int_equal(w->due_ms - w->now_ms, ms);
	if (ms == 0) { /* stopped or drained, and told to start meanwhile */
		assert_true(w->child.cause == CHILD_C_TOLD || w->n_failures == 0);
		return;
	}
	if (w->rules.restart_delay_ms) {
		assert_int_equal(ms, w->rules.restart_delay_ms);
		return;
	}
	uint64_t base_ms = CHILD_BACKOFF_MIN_MS;
	for (unsigned i = 1; i < w->n_failures && base_ms < 24000; i++)
		base_ms *= 2;
	base_ms = u64_min(base_ms, 24000);
	assert_in_range(ms, base_ms, base_ms + base_ms / 4);
	assert_true(ms <= CHILD_BACKOFF_MAX_MS);
}

static void on_state(struct child *c, enum child_state before) {
	struct world *w = world_of(c);
	assert_int_not_equal(c->state, before);
	w->n_states[c->state]++;
	if (c->state == CHILD_BACKOFF)
		check_backoff(w);
	if (c->state == CHILD_FAILED && c->cause != CHILD_C_REFUSED)
		assert_int_equal(w->n_failures, w->rules.max_restarts + 1);
}

static const struct child_ops ops = { on_claim, on_spawn, on_kill, on_set_timer, on_state };

/* --- laws ----------------------------------------------------------------------------- */

static void check(struct world *w) {
	const struct child *c = &w->child;
	assert_int_equal(child_has_process(c), w->body != BODY_NONE);
	/* Who waits for time has a timer. */
	if (c->state == CHILD_STOPPING || c->state == CHILD_KILLING || c->state == CHILD_BACKOFF)
		assert_int_not_equal(w->due_ms, CHILD_NEVER);
	if (c->state == CHILD_STOPPED || c->state == CHILD_FAILED || c->state == CHILD_DRAINING)
		assert_int_equal(w->due_ms, CHILD_NEVER);
	if (c->state == CHILD_STOPPING)
		assert_true(w->heard_term);
	if (c->state == CHILD_KILLING)
		assert_true(w->heard_kill);
	assert_true(w->n_failures <= (uint64_t)w->rules.max_restarts + 1);
	assert_int_equal(c->n_failures, w->n_failures);
}

/* Hands an event in and keeps the world's own count of failures. */
static void tell(struct world *w, enum child_event event) {
	struct child *c = &w->child;
	enum child_state before = c->state;
	unsigned n_unready = c->n_unready;
	bool is_failure = (event == CHILD_E_EXITED && (before == CHILD_STARTING || before == CHILD_READY)) ||
	    (event == CHILD_E_TIMEOUT && before == CHILD_STARTING) ||
	    (event == CHILD_E_UNREADY && before == CHILD_READY && w->rules.max_unready &&
		n_unready + 1 == w->rules.max_unready);
	if (is_failure)
		w->n_failures++;
	if ((event == CHILD_E_TIMEOUT && before == CHILD_READY) ||
	    (event == CHILD_E_START && before == CHILD_FAILED))
		w->n_failures = 0;
	assert_false(w->is_inside); /* operations do not send events */
	w->is_inside = true;
	bool has_meaning = actions[before][event];
	child_handle(c, event);
	w->is_inside = false;
	if (has_meaning)
		was_gone[before][event][c->state] = true;
	else
		assert_int_equal(c->state, before);
	if (c->state == CHILD_STOPPED && before != CHILD_STOPPED)
		w->n_failures = 0;
	if (before == CHILD_FAILED && event != CHILD_E_START && event != CHILD_E_STOP)
		assert_int_equal(c->state, CHILD_FAILED);
	check(w);
}

/* --- the world's own moves ------------------------------------------------------------ */

static void time_passes(struct world *w) {
	if (w->due_ms == CHILD_NEVER) {
		w->now_ms += 1000;
		return;
	}
	w->now_ms = u64_max(w->now_ms, w->due_ms);
	w->due_ms = CHILD_NEVER;
	tell(w, CHILD_E_TIMEOUT);
}

static void answer(struct world *w, bool is_ours) {
	if (!w->is_asked)
		return;
	w->is_asked = false;
	w->is_ours = is_ours;
	tell(w, is_ours ? CHILD_E_CLAIMED : CHILD_E_REFUSED);
}

static void leader_exits(struct world *w) {
	if (w->body != BODY_ALIVE)
		return;
	w->body = BODY_REMNANTS;
	tell(w, CHILD_E_EXITED);
}

/* Nobody is left; in tell(), the operations of the event may already see the next one. */
static void remnants_go(struct world *w) {
	if (w->body != BODY_REMNANTS)
		return;
	w->body = BODY_NONE;
	tell(w, CHILD_E_GONE);
}

static void any_move(struct world *w) {
	switch (rng_below(&w->rng, 14)) {
	case 0:
		tell(w, CHILD_E_START);
		break;
	case 1:
		if (rng_below(&w->rng, 3) == 0)
			tell(w, CHILD_E_STOP);
		break;
	case 2:
		if (rng_below(&w->rng, 3) == 0)
			tell(w, CHILD_E_DRAIN);
		break;
	case 3:
		answer(w, rng_below(&w->rng, 8) > 0);
		break;
	case 4:
	case 5:
		leader_exits(w);
		break;
	case 6:
	case 7:
		remnants_go(w);
		break;
	case 8: /* also one that comes late, about a process that is no more */
	case 9:
		tell(w, CHILD_E_READY);
		break;
	case 10:
		tell(w, CHILD_E_ALIVE);
		break;
	case 11:
		tell(w, CHILD_E_UNREADY);
		break;
	default:
		time_passes(w);
	}
}

/* Whoever is signalled obeys as processes do, within no time; answers come; nobody crashes. */
static void honest_move(struct world *w) {
	if (w->is_asked)
		answer(w, true);
	else if (w->body == BODY_ALIVE && (w->heard_kill || (w->heard_term && !w->ignores_term)))
		leader_exits(w);
	else if (w->body == BODY_REMNANTS && w->heard_kill)
		remnants_go(w);
	else if (w->child.state == CHILD_STARTING)
		tell(w, CHILD_E_READY);
	else
		time_passes(w);
}

static void world_open(struct world *w, uint64_t seed) {
	*w = (struct world){ .due_ms = CHILD_NEVER };
	rng_init(&w->rng, seed);
	w->rules = (struct child_rules){
		.start_ms = 1000 + rng_below(&w->rng, 60000),
		.stop_ms = 100 + rng_below(&w->rng, 10000),
		.healthy_ms = CHILD_HEALTHY_MS,
		.restart_delay_ms = rng_below(&w->rng, 4) == 0 ? 5000 : 0,
		.max_restarts = (uint32_t)rng_below(&w->rng, 12),
		.max_unready = (uint32_t)rng_below(&w->rng, 4),
	};
	w->spawn_fails = rng_below(&w->rng, 2);
	child_init(&w->child, &ops, &w->rules, seed);
}

/* --- tests ---------------------------------------------------------------------------- */

/* After any history: told to stop, it stops in time; told to start, it serves. */
static void laws_hold_in_any_order(void **state) {
	uint64_t n_states[CHILD_N_STATES] = { 0 };
	for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
		struct world w;
		world_open(&w, seed);
		for (unsigned i = 0; i < N_STEPS; i++)
			any_move(&w);

		uint64_t told_ms = w.now_ms;
		bool had_process = child_has_process(&w.child);
		tell(&w, CHILD_E_STOP);
		for (unsigned i = 0; w.child.state != CHILD_STOPPED; i++) {
			assert_true(i < HONEST_STEPS);
			honest_move(&w);
		}
		assert_int_equal(w.body, BODY_NONE);
		if (had_process)
			assert_true(w.now_ms - told_ms <= w.rules.stop_ms + 1000);

		w.spawn_fails = false;
		tell(&w, CHILD_E_START);
		for (unsigned i = 0; w.child.state != CHILD_READY; i++) {
			assert_true(i < HONEST_STEPS);
			honest_move(&w);
		}
		assert_int_equal(w.body, BODY_ALIVE);
		for (unsigned i = 0; i < CHILD_N_STATES; i++)
			n_states[i] += w.n_states[i];
	}
	for (unsigned i = 0; i < CHILD_N_STATES; i++) /* the orders were worth something */
		assert_true(n_states[i] > 100);
}

static void open_and_start(struct world *w) {
	world_open(w, 1);
	w->rules = (struct child_rules){ .start_ms = 10000,
		.stop_ms = 5000,
		.healthy_ms = CHILD_HEALTHY_MS,
		.max_restarts = 1000,
		.max_unready = 3 };
	w->spawn_fails = false;
	tell(w, CHILD_E_START);
	answer(w, true);
	assert_int_equal(w->child.state, CHILD_STARTING);
}

static void crash(struct world *w) {
	leader_exits(w);
	remnants_go(w);
}

/* L47: six exits in ten seconds at most, by any chance. */
static void a_crash_loop_slows_down(void **state) {
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct world w;
		open_and_start(&w);
		rng_init(&w.child.rng, seed);
		uint64_t began_ms = w.now_ms;
		unsigned n_exits = 0;
		for (; w.now_ms - began_ms <= 10000; n_exits++) {
			crash(&w);
			assert_int_equal(w.child.state, CHILD_BACKOFF);
			time_passes(&w);
		}
		assert_in_range(n_exits, 5, 6);
	}
}

static void a_healthy_minute_is_a_new_beginning(void **state) {
	struct world w;
	open_and_start(&w);
	for (unsigned i = 0; i < 20; i++) {
		crash(&w);
		time_passes(&w);
	}
	assert_in_range(w.child.backoff_ms, 24000, 30000);
	tell(&w, CHILD_E_READY);
	assert_int_equal(w.due_ms - w.now_ms, 60000);
	time_passes(&w);
	crash(&w);
	assert_in_range(w.child.backoff_ms, 200, 250);
}

/* L46: whoever is deaf, and whoever forks faster than it is killed, is gone a second after its time. */
static void the_deaf_are_killed_in_time(void **state) {
	struct world w;
	open_and_start(&w);
	tell(&w, CHILD_E_READY);
	uint64_t told_ms = w.now_ms;
	tell(&w, CHILD_E_STOP);
	time_passes(&w);
	assert_int_equal(w.now_ms - told_ms, w.rules.stop_ms);
	assert_int_equal(w.n_sweeps, 1);
	leader_exits(&w);
	while (w.n_sweeps < 20)
		time_passes(&w);
	remnants_go(&w);
	assert_int_equal(w.child.state, CHILD_STOPPED);
	assert_true(w.now_ms - told_ms <= w.rules.stop_ms + 1000);
}

static void a_crash_loop_ends_in_failed(void **state) {
	struct world w;
	open_and_start(&w);
	w.rules.max_restarts = 3;
	for (unsigned i = 0; i < 3; i++) {
		crash(&w);
		assert_int_equal(w.child.state, CHILD_BACKOFF);
		time_passes(&w);
		assert_int_equal(w.child.state, CHILD_STARTING);
		tell(&w, CHILD_E_READY); /* for less than a minute */
	}
	crash(&w);
	assert_int_equal(w.child.state, CHILD_FAILED);
	assert_int_equal(w.child.n_spawned, 4);
	time_passes(&w);
	assert_int_equal(w.child.state, CHILD_FAILED);
	tell(&w, CHILD_E_START);
	answer(&w, true);
	assert_int_equal(w.child.state, CHILD_STARTING);
	assert_int_equal(w.child.n_failures, 0);
}

static void who_is_not_ready_in_time_is_started_again(void **state) {
	struct world w;
	open_and_start(&w);
	w.ignores_term = true;
	assert_int_equal(w.due_ms - w.now_ms, 10000);
	time_passes(&w);
	assert_int_equal(w.child.state, CHILD_STOPPING);
	assert_int_equal(w.child.cause, CHILD_C_START_LATE);
	assert_true(w.heard_term && !w.heard_kill);
	assert_int_equal(w.due_ms - w.now_ms, 5000);
	time_passes(&w);
	assert_int_equal(w.child.state, CHILD_KILLING);
	assert_true(w.heard_kill);
	crash(&w);
	assert_int_equal(w.child.state, CHILD_BACKOFF);
	time_passes(&w);
	assert_int_equal(w.child.n_spawned, 2);
}

static void three_failed_probes_in_a_row_end_it(void **state) {
	struct world w;
	open_and_start(&w);
	tell(&w, CHILD_E_UNREADY); /* not ready yet: does not count */
	tell(&w, CHILD_E_READY);
	tell(&w, CHILD_E_UNREADY);
	tell(&w, CHILD_E_UNREADY);
	tell(&w, CHILD_E_ALIVE);
	tell(&w, CHILD_E_UNREADY);
	tell(&w, CHILD_E_UNREADY);
	assert_int_equal(w.child.state, CHILD_READY);
	tell(&w, CHILD_E_UNREADY);
	assert_int_equal(w.child.state, CHILD_STOPPING);
	assert_int_equal(w.child.cause, CHILD_C_UNRESPONSIVE);
	crash(&w);
	assert_int_equal(w.child.state, CHILD_BACKOFF);
}

static void who_drains_is_not_started_again(void **state) {
	struct world w;
	open_and_start(&w);
	tell(&w, CHILD_E_READY);
	tell(&w, CHILD_E_DRAIN);
	assert_int_equal(w.child.state, CHILD_DRAINING);
	tell(&w, CHILD_E_START);
	assert_int_equal(w.child.state, CHILD_READY);
	tell(&w, CHILD_E_DRAIN);
	crash(&w);
	assert_int_equal(w.child.state, CHILD_STOPPED);
}

static void told_to_start_while_it_stops(void **state) {
	struct world w;
	open_and_start(&w);
	tell(&w, CHILD_E_STOP);
	tell(&w, CHILD_E_START);
	assert_int_equal(w.child.state, CHILD_STOPPING);
	crash(&w);
	time_passes(&w);
	assert_int_equal(w.child.state, CHILD_STARTING);
	assert_int_equal(w.child.n_spawned, 2);
	assert_int_equal(w.child.n_failures, 0);
}

static void a_refused_place_is_final(void **state) {
	struct world w;
	world_open(&w, 1);
	tell(&w, CHILD_E_START);
	answer(&w, false);
	assert_int_equal(w.child.state, CHILD_FAILED);
	assert_int_equal(w.child.cause, CHILD_C_REFUSED);
	assert_int_equal(w.child.n_spawned, 0);
}

/* <tab>from -> to [label = "event... */
static bool read_edge(const char *line, char from[20], char event[20], char to[20]) {
	const char *arrow = strstr(line, " -> "), *label = strstr(line, "[label = \"");
	if (!arrow || !label)
		return false;
	label += strlen("[label = \"");
	snprintf(from, 20, "%.*s", (int)(arrow - line - 1), line + 1);
	snprintf(to, 20, "%.*s", (int)strcspn(arrow + 4, " "), arrow + 4);
	snprintf(event, 20, "%.*s", (int)strcspn(label, ":\""), label);
	return true;
}

static enum child_state state_by_name(const char *name) {
	for (unsigned i = 0; i < CHILD_N_STATES; i++)
		if (strcmp(child_state_name(i), name) == 0)
			return i;
	fail_msg("no state %s", name);
	return CHILD_N_STATES;
}

static enum child_event event_by_name(const char *name) {
	for (unsigned i = 0; i < CHILD_N_EVENTS; i++)
		if (strcmp(child_event_name(i), name) == 0)
			return i;
	fail_msg("no event %s", name);
	return CHILD_N_EVENTS;
}

/* docs/states/child.dot has an edge for each way that was gone, and no other. */
static void the_drawing_is_true(void **state) {
	static bool is_drawn[CHILD_N_STATES][CHILD_N_EVENTS][CHILD_N_STATES];
	char line[300], from[20], to[20], event[20];
	unsigned n_edges = 0;
	FILE *f = fopen("docs/states/child.dot", "r"); /* where tests are run from */
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (!read_edge(line, from, event, to))
			continue;
		is_drawn[state_by_name(from)][event_by_name(event)][state_by_name(to)] = true;
		n_edges++;
	}
	fclose(f);
	assert_true(n_edges > 40);
	for (unsigned i = 0; i < CHILD_N_STATES; i++)
		for (unsigned e = 0; e < CHILD_N_EVENTS; e++)
			for (unsigned j = 0; j < CHILD_N_STATES; j++)
				if (was_gone[i][e][j] != is_drawn[i][e][j])
					fail_msg("%s -> %s by %s is %s", child_state_name(i),
					    child_state_name(j), child_event_name(e),
					    is_drawn[i][e][j] ? "never gone" : "not drawn");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(laws_hold_in_any_order), cmocka_unit_test(a_crash_loop_slows_down),
		cmocka_unit_test(a_healthy_minute_is_a_new_beginning),
		cmocka_unit_test(the_deaf_are_killed_in_time), cmocka_unit_test(a_crash_loop_ends_in_failed),
		cmocka_unit_test(who_is_not_ready_in_time_is_started_again),
		cmocka_unit_test(three_failed_probes_in_a_row_end_it),
		cmocka_unit_test(who_drains_is_not_started_again),
		cmocka_unit_test(told_to_start_while_it_stops), cmocka_unit_test(a_refused_place_is_final),
		cmocka_unit_test(the_drawing_is_true), /* last: of what the others did */
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
