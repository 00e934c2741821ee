#include "unit/fleet/scene.h"

#include "fleet/health_state.h"

enum { INTERVAL_MS = 5000, SLOW_MS = 10000, STALL_MS = 30000, ERRORS_MAX = 3, START_MS = 1000000 };

static const struct health_limits probed = { INTERVAL_MS, SLOW_MS, STALL_MS, ERRORS_MAX, 1 };
static const struct health_limits wary = { INTERVAL_MS, SLOW_MS, STALL_MS, ERRORS_MAX, 3 };
static const struct health_limits unprobed = { 0, SLOW_MS, STALL_MS, ERRORS_MAX, 1 };

/* One instance, and its time. */
struct life {
	struct health_state h;
	uint64_t now_ms;
};

static struct life life_begin(const struct health_limits *limits) {
	struct life l = { .now_ms = START_MS };

	health_state_init(&l.h, limits, l.now_ms);
	return l;
}

static struct life life_ready(void) {
	struct life l = life_begin(&probed);

	health_state_probe(&l.h, HEALTH_PROBE_GOOD, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_READY);
	return l;
}

static void probe(struct life *l, enum health_verdict verdict) {
	health_state_probe(&l->h, verdict, l->now_ms);
}

/* In steps, as the owner's timer does. */
static void pass(struct life *l, uint64_t ms) {
	for (uint64_t i = 0; i < ms; i += 100) {
		l->now_ms += 100;
		health_state_tick(&l->h, l->now_ms);
	}
}

static unsigned share(const struct life *l) {
	return health_state_share(&l->h, l->now_ms);
}

static void assert_is(const struct life *l, enum instance_state state, enum health_cause cause) {
	assert_string_equal(instance_state_text(l->h.state), instance_state_text(state));
	assert_string_equal(health_cause_text(l->h.cause), health_cause_text(cause));
}

/* --- the table ---------------------------------------------------------------------------- */

static void every_move_of_the_table_is_legal(void **state) {
	for (int from = 0; from < INSTANCE_STATES; from++)
		for (int event = 0; event < HEALTH_EVENTS; event++) {
			enum instance_state to =
			    health_state_next((enum instance_state)from, (enum health_event)event);

			assert_true(to == (enum instance_state)from ||
			    instance_state_may_follow((enum instance_state)from, to));
			/* Health undoes nobody's will. */
			if (from >= INSTANCE_DRAINING && event < HEALTH_EVENT_DRAIN)
				assert_int_equal(to, from);
		}
}

static void what_is_out_comes_back_by_good_news_alone(void **state) {
	for (int event = 0; event < HEALTH_EVENT_DRAIN; event++)
		assert_int_equal(health_state_next(INSTANCE_UNHEALTHY, (enum health_event)event),
		    event == HEALTH_EVENT_GOOD ? INSTANCE_READY : INSTANCE_UNHEALTHY);
}

static void somebodys_will_stands_until_it_is_taken_back(void **state) {
	struct life l = life_ready();

	health_state_will(&l.h, INSTANCE_DRAINING, l.now_ms);
	probe(&l, HEALTH_PROBE_GOOD);
	probe(&l, HEALTH_PROBE_REFUSED);
	pass(&l, 10 * INTERVAL_MS);
	assert_is(&l, INSTANCE_DRAINING, HEALTH_CAUSE_WILL);
	health_state_will(&l.h, INSTANCE_DISABLED, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_DISABLED);
	health_state_will(&l.h, INSTANCE_DRAINING, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_DRAINING);
	health_state_will(&l.h, INSTANCE_UNKNOWN, l.now_ms);
	assert_is(&l, INSTANCE_UNKNOWN, HEALTH_CAUSE_WILL);
	assert_int_equal(share(&l), 1);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
	assert_int_equal(share(&l), INSTANCE_SHARE_FULL);
}

/* There will be no probe to end a trial. */
static void who_is_not_probed_comes_back_at_once(void **state) {
	struct life l = life_begin(&unprobed);

	health_state_will(&l.h, INSTANCE_DRAINING, l.now_ms);
	health_state_will(&l.h, INSTANCE_UNKNOWN, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_READY);
}

/* The engine's own word: no outage, whatever is heard afterwards, until it says that it is well. */
static void what_drains_by_its_own_word_is_not_ill(void **state) {
	struct life l = life_ready();

	probe(&l, HEALTH_PROBE_DRAINS);
	assert_is(&l, INSTANCE_DRAINING, HEALTH_CAUSE_LEAVES);
	for (unsigned i = 0; i < 2 * ERRORS_MAX; i++)
		probe(&l, i % 2 ? HEALTH_PROBE_REFUSED : HEALTH_PROBE_BAD);
	health_state_answers(&l.h, 0, 50, l.now_ms);
	assert_is(&l, INSTANCE_DRAINING, HEALTH_CAUSE_LEAVES);
	assert_int_equal(l.h.n_flaps, 0);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_PROBE);
}

static void what_its_babysitter_drains_is_not_ill(void **state) {
	struct life l = life_ready();

	health_state_word(&l.h, HEALTH_WORD_DRAINS, l.now_ms);
	probe(&l, HEALTH_PROBE_GOOD); /* the engine itself is well */
	assert_is(&l, INSTANCE_DRAINING, HEALTH_CAUSE_LEAVES);
	health_state_word(&l.h, HEALTH_WORD_SERVES, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_UNKNOWN);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
	health_state_word(&l.h, HEALTH_WORD_DRAINS, l.now_ms);
	health_state_word(&l.h, HEALTH_WORD_DENIES, l.now_ms);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_SITTER);
}

static void both_must_let_go_of_it(void **state) {
	for (unsigned i = 0; i < 2; i++) {
		struct life l = life_ready();

		health_state_will(&l.h, INSTANCE_DRAINING, l.now_ms);
		probe(&l, HEALTH_PROBE_DRAINS);
		if (i)
			probe(&l, HEALTH_PROBE_GOOD);
		else
			health_state_will(&l.h, INSTANCE_UNKNOWN, l.now_ms);
		assert_int_equal(l.h.state, INSTANCE_DRAINING);
		if (!i)
			probe(&l, HEALTH_PROBE_GOOD);
		else
			health_state_will(&l.h, INSTANCE_UNKNOWN, l.now_ms);
		assert_int_equal(l.h.state, i ? INSTANCE_UNKNOWN : INSTANCE_READY);
	}
}

/* --- probes ------------------------------------------------------------------------------- */

static void a_new_one_is_on_trial_until_its_first_probe(void **state) {
	struct life l = life_begin(&probed);

	assert_is(&l, INSTANCE_UNKNOWN, HEALTH_CAUSE_NEW);
	assert_int_equal(share(&l), 1);
	probe(&l, HEALTH_PROBE_BAD);
	assert_int_equal(l.h.state, INSTANCE_UNKNOWN);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_PROBE);
	assert_int_equal(share(&l), INSTANCE_SHARE_FULL);
}

static void bad_probes_in_a_row_eject(void **state) {
	struct life l = life_ready();

	probe(&l, HEALTH_PROBE_BAD);
	assert_is(&l, INSTANCE_DEGRADED, HEALTH_CAUSE_PROBE);
	assert_int_equal(share(&l), INSTANCE_SHARE_FULL / 4);
	probe(&l, HEALTH_PROBE_GOOD); /* the row ends */
	assert_int_equal(l.h.state, INSTANCE_READY);
	probe(&l, HEALTH_PROBE_BAD);
	probe(&l, HEALTH_PROBE_BAD);
	assert_int_equal(l.h.state, INSTANCE_DEGRADED);
	probe(&l, HEALTH_PROBE_BAD);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_PROBE);
	assert_false(health_state_is_refusing(&l.h));
}

static void a_refused_connection_ejects_at_once(void **state) {
	for (int by_worker = 0; by_worker < 2; by_worker++) {
		struct life l = life_ready();

		assert_int_equal(health_state_probe_wait_ms(&l.h), INTERVAL_MS);
		if (by_worker)
			health_state_refused(&l.h, l.now_ms);
		else
			probe(&l, HEALTH_PROBE_REFUSED);
		assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_REFUSED);
		assert_true(health_state_is_refusing(&l.h));
		assert_int_equal(health_state_probe_wait_ms(&l.h), 1000);
		probe(&l, HEALTH_PROBE_GOOD); /* the first time it is believed at once */
		assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_PROBE);
		assert_false(health_state_is_refusing(&l.h));
	}
}

static void who_recovers_starts_slowly(void **state) {
	static const unsigned shares[] = { 1, 4, 8, 12, 16, 16 };
	struct life l = life_ready();

	probe(&l, HEALTH_PROBE_REFUSED);
	probe(&l, HEALTH_PROBE_GOOD);
	for (size_t i = 0; i < n_elems(shares); i++) {
		assert_int_equal(share(&l), shares[i]);
		pass(&l, SLOW_MS / 4);
		probe(&l, HEALTH_PROBE_GOOD);
	}
}

static void who_goes_up_and_down_is_held_out_longer_each_time(void **state) {
	struct life l = life_ready();
	uint64_t held_ms = 500;

	probe(&l, HEALTH_PROBE_REFUSED);
	probe(&l, HEALTH_PROBE_GOOD);
	for (unsigned i = 0; i < 12; i++) {
		held_ms = u64_min(2 * held_ms, HEALTH_HOLD_MAX_MS);
		probe(&l, HEALTH_PROBE_REFUSED);
		assert_int_equal(l.h.held_ms, held_ms);
		pass(&l, held_ms - 100);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
		assert_false(health_state_is_refusing(&l.h)); /* a panic may use it */
		pass(&l, 100);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
	}
	assert_int_equal(held_ms, HEALTH_HOLD_MAX_MS);
	for (unsigned i = 0; i < 601; i++) { /* long enough in health */
		pass(&l, 1000);
		probe(&l, HEALTH_PROBE_GOOD);
	}
	probe(&l, HEALTH_PROBE_REFUSED);
	assert_int_equal(l.h.held_ms, 0);
}

static void who_comes_and_goes_is_held_out_though_its_probes_are_good(void **state) {
	struct life l = life_begin(&probed);

	health_state_hold(&l.h, l.now_ms + 8000, l.now_ms);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_FLAPS);
	pass(&l, 7900);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_FLAPS);
	pass(&l, 100);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_PROBE);
	assert_int_equal(share(&l), 1); /* slowly */
}

static void who_is_held_out_comes_back_without_probes_and_who_is_not_stays(void **state) {
	struct life l = life_begin(&unprobed);

	health_state_hold(&l.h, 0, l.now_ms);
	health_state_hold(&l.h, l.now_ms, l.now_ms);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_NEW);
	health_state_hold(&l.h, l.now_ms + 1000, l.now_ms);
	pass(&l, 900);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_FLAPS);
	pass(&l, 100);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_HELD_OUT);
}

/* In a panic both get requests: who is out no more of them than who has just come back. */
static void who_is_out_has_the_smallest_share(void **state) {
	struct life l = life_ready();

	probe(&l, HEALTH_PROBE_REFUSED);
	assert_int_equal(share(&l), 1);
	pass(&l, 2 * SLOW_MS);
	assert_int_equal(share(&l), 1);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(share(&l), 1);
	pass(&l, SLOW_MS / 4);
	assert_true(share(&l) > 1);
}

static void without_news_nothing_is_known(void **state) {
	struct life l = life_ready();

	pass(&l, 3 * INTERVAL_MS);
	assert_int_equal(l.h.state, INSTANCE_READY);
	pass(&l, 100);
	assert_is(&l, INSTANCE_UNKNOWN, HEALTH_CAUSE_SILENT);
	probe(&l, HEALTH_PROBE_REFUSED);
	pass(&l, 10 * INTERVAL_MS);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
}

static void a_standstill_of_ours_is_no_silence(void **state) {
	struct life l = life_ready();

	l.now_ms += 30000;
	health_state_forgive(&l.h, 30000, l.now_ms);
	health_state_tick(&l.h, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_READY);
	probe(&l, HEALTH_PROBE_GOOD); /* what came before the standstill was seen */
	health_state_forgive(&l.h, 30000, l.now_ms);
	pass(&l, 3 * INTERVAL_MS);
	assert_int_equal(l.h.state, INSTANCE_READY);
	pass(&l, 100);
	assert_int_equal(l.h.state, INSTANCE_UNKNOWN);
}

/* --- the babysitter ------------------------------------------------------------------------- */

static void a_babysitters_no_counts_more_than_a_good_probe(void **state) {
	struct life l = life_ready();

	health_state_word(&l.h, true, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_READY);
	health_state_word(&l.h, false, l.now_ms);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_SITTER);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
	assert_false(health_state_is_refusing(&l.h)); /* a panic tries it all the same */
	health_state_word(&l.h, true, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY); /* the engine itself must say so */
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
}

/* --- answers --------------------------------------------------------------------------------- */

static void failed_requests_in_a_row_eject(void **state) {
	struct life l = life_ready();

	health_state_answers(&l.h, 0, 2, l.now_ms);
	health_state_answers(&l.h, 1, 0, l.now_ms);
	health_state_answers(&l.h, 0, 2, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_READY);
	health_state_answers(&l.h, 0, 1, l.now_ms);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_IN_ROW);
	assert_false(health_state_is_refusing(&l.h));
}

/* n answers in a second, of which every second one fails. */
static void half_fail(struct life *l, unsigned n) {
	for (unsigned i = 0; i < n; i += 2)
		health_state_answers(&l->h, 1, 1, l->now_ms);
}

static void half_of_twenty_within_ten_seconds_eject(void **state) {
	struct life l = life_ready();

	half_fail(&l, 18);
	assert_int_equal(l.h.state, INSTANCE_READY);
	pass(&l, 10000); /* they are forgotten */
	probe(&l, HEALTH_PROBE_GOOD);
	half_fail(&l, 18);
	assert_int_equal(l.h.state, INSTANCE_READY);
	pass(&l, 9000);
	probe(&l, HEALTH_PROBE_GOOD);
	half_fail(&l, 2);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_HALF);
}

static void less_than_half_is_borne(void **state) {
	struct life l = life_ready();

	for (unsigned i = 0; i < 1000; i++) {
		health_state_answers(&l.h, 11, 9, l.now_ms);
		pass(&l, 100);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
	}
}

/* An engine that fails requests may well answer /health: its probes alone do not bring it back. */
static void failed_requests_cannot_be_undone_by_probes(void **state) {
	struct life l = life_ready();
	uint64_t held_ms = 5000;

	for (unsigned i = 0; i < 9; i++) {
		health_state_answers(&l.h, 0, ERRORS_MAX, l.now_ms);
		assert_int_equal(l.h.held_ms, held_ms);
		pass(&l, held_ms - 100);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
		pass(&l, 100);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
		assert_int_equal(share(&l), 1);
		held_ms = u64_min(2 * held_ms, HEALTH_HOLD_MAX_MS);
	}
}

static void without_probes_time_brings_it_back(void **state) {
	struct life l = life_begin(&unprobed);

	assert_int_equal(l.h.state, INSTANCE_READY);
	pass(&l, 3600000);
	assert_int_equal(l.h.state, INSTANCE_READY);
	health_state_refused(&l.h, l.now_ms);
	pass(&l, 900);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
	pass(&l, 100);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_HELD_OUT);
	assert_int_equal(share(&l), 1);
}

/* --- streams ----------------------------------------------------------------------------------- */

static void stalled_streams_eject(void **state) {
	static const struct {
		uint32_t n, n_stalled;
		enum instance_state state;
	} rows[] = { { 0, 0, INSTANCE_READY }, { 9, 0, INSTANCE_READY }, { 9, 1, INSTANCE_DEGRADED },
		{ 9, 2, INSTANCE_UNHEALTHY }, { 1, 1, INSTANCE_UNHEALTHY } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct life l = life_ready();

		health_state_streams(&l.h, rows[i].n, rows[i].n_stalled, l.now_ms);
		assert_int_equal(l.h.state, rows[i].state);
		probe(&l, HEALTH_PROBE_GOOD); /* a hung engine says that it is well */
		assert_int_equal(l.h.state, rows[i].state);
	}
}

static void bytes_bring_a_hung_one_back(void **state) {
	struct life l = life_ready();

	health_state_streams(&l.h, 5, 5, l.now_ms);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_STALLED);
	pass(&l, 60000);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY); /* as long as they hang */
	health_state_streams(&l.h, 5, 0, l.now_ms);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
}

static void bytes_shorten_the_time_out(void **state) {
	struct life l = life_ready();

	health_state_streams(&l.h, 5, 5, l.now_ms);
	health_state_streams(&l.h, 5, 0, l.now_ms);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
}

static void streams_that_were_cut_do_not(void **state) {
	struct life l = life_ready();

	health_state_streams(&l.h, 5, 5, l.now_ms);
	health_state_streams(&l.h, 0, 0, l.now_ms);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
	pass(&l, 60000);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY); /* its clients gave up, it has shown nothing */
	assert_true(health_state_is_suspect(&l.h, l.now_ms));
	health_state_progress(&l.h, HEALTH_PROGRESS_MOVES, l.now_ms);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
}

static void who_could_not_be_asked_stays_what_it_was(void **state) {
	struct life l = life_ready();

	health_state_waits(&l.h, 3);
	health_state_progress(&l.h, HEALTH_PROGRESS_UNASKED, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_READY);
	assert_false(health_state_is_suspect(&l.h, l.now_ms)); /* not at once */
	pass(&l, STALL_MS);
	assert_true(health_state_is_suspect(&l.h, l.now_ms));
	health_state_progress(&l.h, HEALTH_PROGRESS_STILL, l.now_ms);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
	pass(&l, 60000);
	health_state_progress(&l.h, HEALTH_PROGRESS_UNASKED, l.now_ms);
	assert_false(health_state_is_suspect(&l.h, l.now_ms));
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
	pass(&l, 1000);
	assert_true(health_state_is_suspect(&l.h, l.now_ms));
}

/* --- requests without a first byte -------------------------------------------------------------- */

static bool is_suspect(const struct life *l) {
	return health_state_is_suspect(&l->h, l->now_ms);
}

/* n requests wait for long, and the engine was asked whether it works. */
static void wait_and_say(struct life *l, uint32_t n, enum health_progress progress) {
	health_state_waits(&l->h, n);
	health_state_progress(&l->h, progress, l->now_ms);
}

static void waiting_alone_makes_a_suspect(void **state) {
	struct life l = life_ready();

	assert_false(is_suspect(&l));
	health_state_waits(&l.h, 9);
	assert_true(is_suspect(&l));
	pass(&l, 3 * INTERVAL_MS);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
	health_state_waits(&l.h, 0);
	assert_false(is_suspect(&l));
	health_state_waits(&l.h, 1);
	health_state_will(&l.h, INSTANCE_DRAINING, l.now_ms); /* it gets no requests: what for? */
	assert_false(is_suspect(&l));
}

/* Whatever speaks for it, or when nobody can say: it is left in peace for the stall timeout. */
static void a_suspect_is_trusted_for_a_time(void **state) {
	for (unsigned i = 0; i < 4; i++) {
		struct life l = life_ready();

		health_state_waits(&l.h, 9);
		if (i == 0)
			health_state_acquit(&l.h, l.now_ms);
		else if (i == 1)
			health_state_streams(&l.h, 2, 1, l.now_ms);
		else
			health_state_progress(
			    &l.h, i == 2 ? HEALTH_PROGRESS_MOVES : HEALTH_PROGRESS_UNSAID, l.now_ms);
		l.now_ms += STALL_MS - 1;
		assert_false(is_suspect(&l));
		l.now_ms++;
		assert_true(is_suspect(&l));
		assert_int_equal(l.h.state, i == 1 ? INSTANCE_DEGRADED : INSTANCE_READY);
	}
}

static void witnesses_of_standstill_are_weighed(void **state) {
	static const struct {
		uint32_t n_streams, n_stalled, n_waiting;
		enum health_progress progress;
		enum instance_state state;
	} rows[] = {
		{ 0, 0, 9, HEALTH_PROGRESS_MOVES, INSTANCE_READY },
		{ 0, 0, 9, HEALTH_PROGRESS_UNSAID, INSTANCE_READY },
		{ 0, 0, 0, HEALTH_PROGRESS_STILL, INSTANCE_READY },
		{ 0, 0, 1, HEALTH_PROGRESS_STILL, INSTANCE_UNHEALTHY }, /* all that it has */
		{ 1, 0, 1, HEALTH_PROGRESS_STILL, INSTANCE_DEGRADED },
		{ 1, 0, 2, HEALTH_PROGRESS_STILL, INSTANCE_UNHEALTHY },
		{ 2, 1, 1, HEALTH_PROGRESS_STILL, INSTANCE_UNHEALTHY },
		{ 1, 0, 1, HEALTH_PROGRESS_MUTE, INSTANCE_UNHEALTHY }, /* the canary is one, too */
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct life l = life_ready();

		health_state_streams(&l.h, rows[i].n_streams, rows[i].n_stalled, l.now_ms);
		wait_and_say(&l, rows[i].n_waiting, rows[i].progress);
		if (l.h.state != rows[i].state)
			fail_msg("row %zu: %s", i, instance_state_text(l.h.state));
		probe(&l, HEALTH_PROBE_GOOD); /* a hung engine says that it is well */
		assert_int_equal(l.h.state, rows[i].state);
	}
}

/* One witness is a doubt, and gone with its client. */
static void a_lone_witness_that_leaves_is_forgotten(void **state) {
	struct life l = life_ready();

	health_state_streams(&l.h, 1, 0, l.now_ms);
	wait_and_say(&l, 1, HEALTH_PROGRESS_STILL);
	assert_is(&l, INSTANCE_DEGRADED, HEALTH_CAUSE_IDLE);
	health_state_waits(&l.h, 0);
	probe(&l, HEALTH_PROBE_GOOD);
	assert_int_equal(l.h.state, INSTANCE_READY);
}

static struct life life_hung(const struct health_limits *limits) {
	struct life l = life_begin(limits);

	probe(&l, HEALTH_PROBE_GOOD);
	wait_and_say(&l, 2, HEALTH_PROGRESS_STILL);
	assert_is(&l, INSTANCE_UNHEALTHY, HEALTH_CAUSE_IDLE);
	assert_true(health_state_is_hung(&l.h));
	assert_int_equal(l.h.held_ms, 5000);
	return l;
}

/* Its clients have left: only it can tell. */
static void what_hung_is_asked_whenever_its_time_out_is_over(void **state) {
	struct life l = life_hung(&probed);
	uint64_t held_ms = 5000;

	for (unsigned i = 0; i < 9; i++) {
		health_state_waits(&l.h, 0);
		pass(&l, held_ms - 100);
		assert_false(is_suspect(&l));
		pass(&l, 100);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
		assert_true(is_suspect(&l));
		health_state_progress(&l.h, HEALTH_PROGRESS_MUTE, l.now_ms);
		held_ms = u64_min(2 * held_ms, HEALTH_HOLD_MAX_MS);
		assert_int_equal(l.h.held_ms, held_ms);
		assert_false(is_suspect(&l));
	}
	assert_int_equal(held_ms, HEALTH_HOLD_MAX_MS);
	health_state_progress(&l.h, HEALTH_PROGRESS_MOVES, l.now_ms);
	assert_false(health_state_is_hung(&l.h));
	probe(&l, HEALTH_PROBE_GOOD);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_PROBE);
	assert_int_equal(share(&l), 1);
}

/* An answer, a stream that goes on, or another process in its place: nobody waits for the time out. */
static void progress_shortens_the_time_out(void **state) {
	for (unsigned i = 0; i < 3; i++) {
		struct life l = life_hung(&probed);

		if (i == 0) {
			health_state_acquit(&l.h, l.now_ms);
		} else if (i == 1) {
			health_state_streams(&l.h, 1, 1, l.now_ms);
			health_state_streams(&l.h, 1, 0, l.now_ms);
		} else {
			probe(&l, HEALTH_PROBE_REFUSED);
		}
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
	}
}

/* No canary and nobody who waits: time and a probe are all there is. */
static void what_cannot_be_asked_comes_back_in_time(void **state) {
	static const enum health_progress said[] = { HEALTH_PROGRESS_UNSAID, HEALTH_PROGRESS_STILL };

	for (size_t i = 0; i < n_elems(said); i++) {
		struct life l = life_hung(&probed);

		pass(&l, 5000);
		wait_and_say(&l, 0, said[i]);
		assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
	}
}

static void without_probes_progress_brings_it_back(void **state) {
	struct life l = life_hung(&unprobed);

	pass(&l, 60000);
	assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
	health_state_progress(&l.h, HEALTH_PROGRESS_MOVES, l.now_ms);
	pass(&l, 100);
	assert_is(&l, INSTANCE_READY, HEALTH_CAUSE_HELD_OUT);
}

/* Whatever is heard in whatever order: no assertion breaks, and shares stay in their range. */
static void any_order_of_events_is_survived(void **state) {
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct life l = life_begin(seed % 3 ? &probed : &unprobed);
		uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15);

		for (unsigned i = 0; i < 2000; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			unsigned n = (unsigned)(x >> 20) % 30, k = (unsigned)(x >> 40) % 30;

			switch (x % 11) {
			case 0:
				probe(&l, n == 29 ? HEALTH_PROBE_DRAINS : (enum health_verdict)(n % 3));
				break;
			case 1:
				health_state_word(&l.h, n % 2, l.now_ms);
				break;
			case 2:
				health_state_refused(&l.h, l.now_ms);
				break;
			case 3:
				health_state_answers(&l.h, n, k, l.now_ms);
				break;
			case 4:
				health_state_streams(&l.h, n, n ? k % (n + 1) : 0, l.now_ms);
				break;
			case 5:
				if (k == 0)
					health_state_will(&l.h,
					    n % 3 ? (enum instance_state)(INSTANCE_DRAINING + n % 2)
						  : INSTANCE_UNKNOWN,
					    l.now_ms);
				break;
			case 6:
				health_state_waits(&l.h, n % 4);
				break;
			case 7:
				health_state_progress(&l.h, (enum health_progress)(n % 4), l.now_ms);
				break;
			case 8:
				health_state_acquit(&l.h, l.now_ms);
				break;
			default:
				pass(&l, 100 * n);
			}
			assert_in_range(share(&l), 1, INSTANCE_SHARE_FULL);
			assert_in_range(l.h.held_ms, 0, HEALTH_HOLD_MAX_MS);
			/* Nobody stays out whom nobody asks. */
			assert_true(l.h.n_mute == 0 || l.h.state != INSTANCE_UNHEALTHY ||
			    health_state_is_suspect(&l.h, l.h.held_until_ms));
		}
	}
}

/* <tab>from -> to [label = "event...; without a label the event is "", as only one from the start has it. */
static bool read_edge(const char *line, char from[20], char event[20], char to[20]) {
	const char *arrow = strstr(line, " -> "), *label = strstr(line, "[label = \"");

	if (line[0] != '\t' || !arrow)
		return false;
	snprintf(from, 20, "%.*s", (int)(arrow - line - 1), line + 1);
	snprintf(to, 20, "%.*s", (int)strcspn(arrow + 4, " ;"), arrow + 4);
	label = label ? label + strlen("[label = \"") : "";
	snprintf(event, 20, "%.*s", (int)strcspn(label, ":\""), label);
	return true;
}

static enum instance_state state_by_name(const char *name) {
	for (enum instance_state s = 0; s < INSTANCE_STATES; s++)
		if (strcmp(instance_state_text(s), name) == 0)
			return s;
	fail_msg("no state %s", name);
	return INSTANCE_STATES;
}

static const char *const events[HEALTH_EVENTS] = { "good", "doubt", "bad", "silent", "drain", "disable",
	"enable" };

static enum health_event event_by_name(const char *name) {
	for (enum health_event e = 0; e < HEALTH_EVENTS; e++)
		if (strcmp(events[e], name) == 0)
			return e;
	fail_msg("no event \"%s\"", name);
	return HEALTH_EVENTS;
}

/* What a new one is: probed, unprobed, held out. */
static enum instance_state first_state(const char *when) {
	bool is_unprobed = strcmp(when, "probes are off") == 0;
	struct life l = life_begin(is_unprobed ? &unprobed : &probed);

	if (strcmp(when, "it comes and goes") == 0)
		health_state_hold(&l.h, START_MS + 1, START_MS);
	else
		assert_true(is_unprobed || !*when);
	return l.h.state;
}

/* docs/states/instance.dot has an edge for each move of the table, and no other. */
static void the_drawing_is_true(void **state) {
	bool is_drawn[INSTANCE_STATES][HEALTH_EVENTS] = { { false } };
	char line[300], from[20], to[20], event[20];
	unsigned n_starts = 0;
	FILE *f = fopen("docs/states/instance.dot", "r"); /* where tests are run from */

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (!read_edge(line, from, event, to))
			continue;
		if (strcmp(from, "start") == 0) {
			assert_int_equal(first_state(event), state_by_name(to));
			n_starts++;
			continue;
		}
		enum instance_state s = state_by_name(from);
		enum health_event e = event_by_name(event);
		if (health_state_next(s, e) != state_by_name(to) || is_drawn[s][e])
			fail_msg("%s -> %s by %s is drawn twice, or is not in the table", from, to, event);
		is_drawn[s][e] = true;
	}
	fclose(f);
	assert_int_equal(n_starts, 3);
	for (enum instance_state s = 0; s < INSTANCE_STATES; s++)
		for (enum health_event e = 0; e < HEALTH_EVENTS; e++)
			if (is_drawn[s][e] != (health_state_next(s, e) != s))
				fail_msg("%s by %s is not drawn, or leads back to itself",
				    instance_state_text(s), events[e]);
}

/* In a row; of one that was never out, one is enough. */
static void so_many_good_probes_bring_it_back(void **state) {
	static const enum health_verdict spoilers[] = { HEALTH_PROBE_BAD, HEALTH_PROBE_REFUSED };

	for (size_t i = 0; i < n_elems(spoilers); i++) {
		struct life l = life_begin(&wary);

		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
		for (unsigned k = 0; k < 5; k++)
			probe(&l, HEALTH_PROBE_GOOD);
		probe(&l, HEALTH_PROBE_REFUSED);
		for (unsigned k = 0; k < 2; k++)
			probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
		probe(&l, spoilers[i]);
		for (unsigned k = 0; k < 2; k++)
			probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_UNHEALTHY);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
	}
}

static void a_new_rank_begins_as_its_engine_is(void **state) {
	static const struct {
		enum instance_state known, becomes;
	} rows[] = { { INSTANCE_UNKNOWN, INSTANCE_UNKNOWN }, { INSTANCE_READY, INSTANCE_READY },
		{ INSTANCE_DEGRADED, INSTANCE_READY }, { INSTANCE_UNHEALTHY, INSTANCE_UNHEALTHY },
		{ INSTANCE_DRAINING, INSTANCE_UNKNOWN } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct life l = life_begin(&probed);

		health_state_begin(&l.h, rows[i].known, l.now_ms);
		assert_int_equal(l.h.state, rows[i].becomes);
		probe(&l, HEALTH_PROBE_GOOD);
		assert_int_equal(l.h.state, INSTANCE_READY);
	}
}

/* Of the ranks of one engine: who has shown work lately stays. */
static void a_hang_takes_along_who_shows_no_work(void **state) {
	struct life idle = life_ready(), busy = life_ready(), answering = life_ready();

	pass(&idle, STALL_MS);
	health_state_streams(&busy.h, 3, 1, busy.now_ms);
	health_state_acquit(&answering.h, answering.now_ms);
	health_state_join_hang(&idle.h, idle.now_ms);
	health_state_join_hang(&busy.h, busy.now_ms + 2 * STALL_MS);
	health_state_join_hang(&answering.h, answering.now_ms + STALL_MS - 1);
	assert_is(&idle, INSTANCE_UNHEALTHY, HEALTH_CAUSE_IDLE);
	assert_true(health_state_is_hung(&idle.h));
	assert_int_equal(busy.h.state, INSTANCE_DEGRADED);
	assert_int_equal(answering.h.state, INSTANCE_READY);
	/* It owes a sign of work, and comes back by one. */
	pass(&idle, HEALTH_HOLD_MAX_MS);
	probe(&idle, HEALTH_PROBE_GOOD);
	assert_int_equal(idle.h.state, INSTANCE_UNHEALTHY);
	assert_true(health_state_is_suspect(&idle.h, idle.now_ms));
	health_state_progress(&idle.h, HEALTH_PROGRESS_MOVES, idle.now_ms);
	probe(&idle, HEALTH_PROBE_GOOD);
	assert_int_equal(idle.h.state, INSTANCE_READY);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_move_of_the_table_is_legal),
		cmocka_unit_test(so_many_good_probes_bring_it_back),
		cmocka_unit_test(what_is_out_comes_back_by_good_news_alone),
		cmocka_unit_test(somebodys_will_stands_until_it_is_taken_back),
		cmocka_unit_test(who_is_not_probed_comes_back_at_once),
		cmocka_unit_test(what_drains_by_its_own_word_is_not_ill),
		cmocka_unit_test(what_its_babysitter_drains_is_not_ill),
		cmocka_unit_test(both_must_let_go_of_it),
		cmocka_unit_test(a_new_one_is_on_trial_until_its_first_probe),
		cmocka_unit_test(bad_probes_in_a_row_eject),
		cmocka_unit_test(a_refused_connection_ejects_at_once),
		cmocka_unit_test(who_recovers_starts_slowly),
		cmocka_unit_test(who_goes_up_and_down_is_held_out_longer_each_time),
		cmocka_unit_test(who_comes_and_goes_is_held_out_though_its_probes_are_good),
		cmocka_unit_test(who_is_held_out_comes_back_without_probes_and_who_is_not_stays),
		cmocka_unit_test(who_is_out_has_the_smallest_share),
		cmocka_unit_test(without_news_nothing_is_known),
		cmocka_unit_test(a_standstill_of_ours_is_no_silence),
		cmocka_unit_test(a_babysitters_no_counts_more_than_a_good_probe),
		cmocka_unit_test(failed_requests_in_a_row_eject),
		cmocka_unit_test(half_of_twenty_within_ten_seconds_eject),
		cmocka_unit_test(less_than_half_is_borne),
		cmocka_unit_test(failed_requests_cannot_be_undone_by_probes),
		cmocka_unit_test(without_probes_time_brings_it_back),
		cmocka_unit_test(stalled_streams_eject),
		cmocka_unit_test(bytes_bring_a_hung_one_back),
		cmocka_unit_test(bytes_shorten_the_time_out),
		cmocka_unit_test(streams_that_were_cut_do_not),
		cmocka_unit_test(who_could_not_be_asked_stays_what_it_was),
		cmocka_unit_test(waiting_alone_makes_a_suspect),
		cmocka_unit_test(a_suspect_is_trusted_for_a_time),
		cmocka_unit_test(witnesses_of_standstill_are_weighed),
		cmocka_unit_test(a_lone_witness_that_leaves_is_forgotten),
		cmocka_unit_test(what_hung_is_asked_whenever_its_time_out_is_over),
		cmocka_unit_test(progress_shortens_the_time_out),
		cmocka_unit_test(what_cannot_be_asked_comes_back_in_time),
		cmocka_unit_test(without_probes_progress_brings_it_back),
		cmocka_unit_test(any_order_of_events_is_survived),
		cmocka_unit_test(the_drawing_is_true),
		cmocka_unit_test(a_new_rank_begins_as_its_engine_is),
		cmocka_unit_test(a_hang_takes_along_who_shows_no_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
