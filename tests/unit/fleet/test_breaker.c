#include "unit/unit.h"

#include <pthread.h>

#include "fleet/breaker.h"

static const struct breaker_limits limits = {
	.failures = 3, .successes = 2, .window_ms = 10000, .open_ms = 1000, .open_max_ms = 5000
};

/* A seed that moves the open time by nothing: a tenth off, a tenth on. */
#define STEADY(open_ms) ((open_ms) / 10)

static struct breaker_permit acquire(struct breaker *b, uint64_t now_ms) {
	struct breaker_permit permit;

	assert_true(breaker_acquire(b, now_ms, &permit));
	return permit;
}

static bool refuses(struct breaker *b, uint64_t now_ms) {
	struct breaker_permit permit;

	return !breaker_acquire(b, now_ms, &permit);
}

static bool end(
    struct breaker *b, struct breaker_permit permit, enum breaker_outcome outcome, uint64_t now_ms) {
	return breaker_settle(b, &limits, permit, outcome, 100, now_ms);
}

/* A request from begin to end. */
static bool once(struct breaker *b, enum breaker_outcome outcome, uint64_t now_ms) {
	return end(b, acquire(b, now_ms), outcome, now_ms);
}

/* Opened at this time, for a second. */
static struct breaker opened(uint64_t now_ms) {
	struct breaker b = { 0 };

	assert_false(once(&b, BREAKER_BAD, now_ms));
	assert_false(once(&b, BREAKER_BAD, now_ms));
	assert_true(once(&b, BREAKER_BAD, now_ms));
	return b;
}

static void failures_in_a_row_open_it(void **state) {
	struct breaker b = { 0 };

	once(&b, BREAKER_BAD, 1);
	once(&b, BREAKER_BAD, 2);
	assert_int_equal(breaker_peek(&b, 2).n_failures, 2);
	once(&b, BREAKER_GOOD, 3);
	once(&b, BREAKER_BAD, 4);
	once(&b, BREAKER_BAD, 5);
	once(&b, BREAKER_NEUTRAL, 5);
	assert_int_equal(breaker_peek(&b, 5).state, BREAKER_CLOSED);
	assert_true(once(&b, BREAKER_BAD, 6));
	assert_int_equal(breaker_peek(&b, 6).state, BREAKER_OPEN);
	assert_int_equal(breaker_peek(&b, 6).remaining_ms, 1000);
	assert_true(refuses(&b, 6) && refuses(&b, 1005) && !breaker_is_passable(&b, 1005));
}

static void what_failed_long_ago_does_not_count(void **state) {
	struct breaker b = { 0 };

	once(&b, BREAKER_BAD, 1000);
	once(&b, BREAKER_BAD, 1000);
	once(&b, BREAKER_BAD, 11001);
	assert_int_equal(breaker_peek(&b, 11001).n_failures, 1);
	once(&b, BREAKER_BAD, 21001);
	assert_true(once(&b, BREAKER_BAD, 21001));
}

/* A host that is up for years: the word has room for 36 bits of its time. */
static void the_clock_may_be_large(void **state) {
	const uint64_t turn = UINT64_C(1) << 36,
		       begins[] = { turn - 500, turn, 5 * turn + 7, 9 * turn - 1000 };

	for (size_t i = 0; i < n_elems(begins); i++) {
		uint64_t now = begins[i];
		struct breaker b = opened(now);

		assert_int_equal(breaker_peek(&b, now).remaining_ms, 1000);
		assert_true(refuses(&b, now + 999));
		assert_false(once(&b, BREAKER_GOOD, now + 1000));
		assert_true(once(&b, BREAKER_GOOD, now + 1001));
		once(&b, BREAKER_BAD, now + 2000);
		once(&b, BREAKER_BAD, now + 2001);
		once(&b, BREAKER_BAD, now + 12001); /* the first ones were too long ago */
		assert_int_equal(breaker_peek(&b, now + 12001).n_failures, 1);
		breaker_trip(&b, &limits, now + 20000);
		assert_int_equal(breaker_peek(&b, now + 20000).remaining_ms, 5000);
	}
}

static void half_open_lets_one_through_at_a_time(void **state) {
	struct breaker b = opened(0);
	struct breaker_permit probe;

	assert_int_equal(breaker_peek(&b, 1000).state, BREAKER_HALF_OPEN);
	assert_true(breaker_is_passable(&b, 1000));
	probe = acquire(&b, 1000);
	assert_true(probe.is_probe && probe.is_first);
	assert_true(refuses(&b, 1000) && refuses(&b, 100000) && !breaker_is_passable(&b, 1000));
	assert_false(end(&b, probe, BREAKER_NEUTRAL, 1001)); /* shows nothing: the next one may */
	probe = acquire(&b, 1002);
	assert_true(probe.is_probe && !probe.is_first);
	assert_false(end(&b, probe, BREAKER_GOOD, 1002));
	assert_int_equal(breaker_peek(&b, 1002).n_successes, 1);
	assert_true(once(&b, BREAKER_GOOD, 1003));
	assert_int_equal(breaker_peek(&b, 1003).state, BREAKER_CLOSED);
	acquire(&b, 1003);
	assert_false(acquire(&b, 1003).is_probe);
}

static void it_stays_open_longer_each_time_to_a_limit(void **state) {
	static const uint64_t expected[] = { 2000, 4000, 5000, 5000 };
	struct breaker b = opened(0);
	uint64_t now_ms = 1000;

	for (unsigned i = 0; i < n_elems(expected); i++) {
		struct breaker_permit probe = acquire(&b, now_ms);

		assert_true(breaker_settle(&b, &limits, probe, BREAKER_BAD, STEADY(expected[i]), now_ms));
		assert_int_equal(breaker_peek(&b, now_ms).remaining_ms, expected[i]);
		now_ms += expected[i];
	}
	once(&b, BREAKER_GOOD, now_ms);
	once(&b, BREAKER_GOOD, now_ms);
	once(&b, BREAKER_GOOD, now_ms); /* works again: all is forgotten */
	for (unsigned i = 0; i < 3; i++)
		once(&b, BREAKER_BAD, now_ms);
	assert_int_equal(breaker_peek(&b, now_ms).remaining_ms, 1000);
}

static void the_seed_moves_the_open_time_by_a_tenth(void **state) {
	uint64_t least = UINT64_MAX, most = 0;

	for (uint64_t seed = 0; seed < 1000; seed++) {
		struct breaker b = { 0 };

		for (unsigned i = 0; i < 3; i++)
			breaker_settle(&b, &limits, acquire(&b, 0), BREAKER_BAD, seed, 0);
		least = u64_min(least, breaker_peek(&b, 0).remaining_ms);
		most = u64_max(most, breaker_peek(&b, 0).remaining_ms);
	}
	assert_int_equal(least, 900);
	assert_int_equal(most, 1100);
}

/* Requests that were under way when it opened. */
static void late_ends_of_an_older_generation_are_ignored(void **state) {
	struct breaker b = { 0 };
	struct breaker_permit early[3], late;

	late = acquire(&b, 0);
	for (unsigned i = 0; i < 3; i++)
		early[i] = acquire(&b, 0);
	for (unsigned i = 0; i < 3; i++)
		end(&b, early[i], BREAKER_BAD, 0);
	assert_false(end(&b, late, BREAKER_BAD, 900));
	assert_int_equal(breaker_peek(&b, 900).remaining_ms, 100);
	late = acquire(&b, 1000);
	breaker_reset(&b);
	assert_false(end(&b, late, BREAKER_BAD, 1001));
	assert_int_equal(breaker_peek(&b, 1001).state, BREAKER_CLOSED);
}

static void by_hand_it_opens_and_closes(void **state) {
	const struct breaker_limits never = { .successes = 1, .open_ms = 1000, .open_max_ms = 5000 };
	struct breaker b = { 0 };

	for (unsigned i = 0; i < 300; i++)
		assert_false(breaker_settle(&b, &never, acquire(&b, 0), BREAKER_BAD, 0, 0));
	assert_int_equal(breaker_trip(&b, &never, 10), BREAKER_CLOSED);
	assert_int_equal(breaker_peek(&b, 10).remaining_ms, 5000);
	assert_true(refuses(&b, 5009) && !refuses(&b, 5010));
	assert_int_equal(breaker_reset(&b), BREAKER_HALF_OPEN); /* somebody probes */
	assert_false(refuses(&b, 0));
}

static void the_longest_time_is_kept_where_the_clocks_bits_begin_anew(void **state) {
	const struct breaker_limits longest = { .failures = 1,
		.successes = 1,
		.open_ms = BREAKER_TIME_MAX_MS,
		.open_max_ms = BREAKER_TIME_MAX_MS };
	const uint64_t most = BREAKER_TIME_MAX_MS / 5, now_ms = (UINT64_C(1) << 36) - 1;
	struct breaker b = { 0 };

	assert_true(breaker_settle(&b, &longest, acquire(&b, now_ms), BREAKER_BAD, most, now_ms));
	uint64_t ms = breaker_peek(&b, now_ms).remaining_ms;
	assert_int_equal(ms, BREAKER_TIME_MAX_MS + BREAKER_TIME_MAX_MS / 10);
	assert_true(refuses(&b, now_ms + ms - 1) && !refuses(&b, now_ms + ms));
}

static void good_word_ends_the_wait_unless_it_was_tripped(void **state) {
	struct breaker b = opened(0);

	breaker_relent(&b, 10);
	assert_int_equal(breaker_peek(&b, 10).state, BREAKER_HALF_OPEN);
	assert_true(once(&b, BREAKER_BAD, 10)); /* it counts as before */
	assert_int_equal(breaker_peek(&b, 10).remaining_ms, 1000 * 2 - 100);
	breaker_relent(&b, 20);
	once(&b, BREAKER_GOOD, 20);
	breaker_relent(&b, 20); /* half-open: nothing to do */
	once(&b, BREAKER_GOOD, 20);
	breaker_relent(&b, 20);
	assert_int_equal(breaker_peek(&b, 20).state, BREAKER_CLOSED);
	breaker_trip(&b, &limits, 20);
	breaker_relent(&b, 30);
	assert_int_equal(breaker_peek(&b, 30).remaining_ms, 4990);
	assert_true(once(&b, BREAKER_BAD, 5020)); /* for so long again */
	breaker_relent(&b, 5030);
	assert_in_range(breaker_peek(&b, 5020).remaining_ms, 4500, 5500);
	once(&b, BREAKER_GOOD, 12000);
	once(&b, BREAKER_GOOD, 12000);
	once(&b, BREAKER_GOOD, 12000); /* works again: it was never tripped */
	for (unsigned i = 0; i < 3; i++)
		once(&b, BREAKER_BAD, 12000);
	breaker_relent(&b, 12001);
	assert_int_equal(breaker_peek(&b, 12001).state, BREAKER_HALF_OPEN);
}

/* A look changes nothing, however often. */
static void to_look_is_free_of_effects(void **state) {
	struct breaker b = opened(0);
	uint64_t before = b.word;

	for (uint64_t ms = 0; ms < 3000; ms++)
		breaker_peek(&b, ms);
	assert_int_equal(b.word, before);
}

struct rush {
	struct breaker *breaker;
	pthread_barrier_t *start;
	_Atomic unsigned n_permits;
};

static void *rush_run(void *argument) {
	struct rush *rush = argument;
	struct breaker_permit permit;

	pthread_barrier_wait(rush->start);
	for (unsigned i = 0; i < 1000; i++)
		rush->n_permits += breaker_acquire(rush->breaker, 1000, &permit);
	return NULL;
}

static void of_64_threads_one_probes(void **state) {
	for (unsigned round = 0; round < 20; round++) {
		struct breaker b = opened(0);
		pthread_barrier_t start;
		pthread_t threads[64];
		struct rush rush = { &b, &start, 0 };

		pthread_barrier_init(&start, NULL, n_elems(threads));
		for (unsigned i = 0; i < n_elems(threads); i++)
			assert_int_equal(pthread_create(&threads[i], NULL, rush_run, &rush), 0);
		for (unsigned i = 0; i < n_elems(threads); i++)
			pthread_join(threads[i], NULL);
		pthread_barrier_destroy(&start);
		assert_int_equal(rush.n_permits, 1);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failures_in_a_row_open_it),
		cmocka_unit_test(what_failed_long_ago_does_not_count),
		cmocka_unit_test(the_clock_may_be_large),
		cmocka_unit_test(half_open_lets_one_through_at_a_time),
		cmocka_unit_test(it_stays_open_longer_each_time_to_a_limit),
		cmocka_unit_test(the_seed_moves_the_open_time_by_a_tenth),
		cmocka_unit_test(late_ends_of_an_older_generation_are_ignored),
		cmocka_unit_test(by_hand_it_opens_and_closes),
		cmocka_unit_test(the_longest_time_is_kept_where_the_clocks_bits_begin_anew),
		cmocka_unit_test(good_word_ends_the_wait_unless_it_was_tripped),
		cmocka_unit_test(to_look_is_free_of_effects),
		cmocka_unit_test(of_64_threads_one_probes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
