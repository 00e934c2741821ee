#include <pthread.h>

#include "base/rng.h"
#include "policy/session_table.h"
#include "unit/fleet/scene.h"

#define IDLE_S 1600

static const struct session_home one = { 1, 11 }, two = { 2, 22 };

static uint64_t nth_key(uint64_t n) {
	return (n + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void a_session_is_found_until_it_is_idle(void **state) {
	struct session_table *t = session_table_new(64, IDLE_S);
	struct session_home home;

	assert_false(session_table_find(t, nth_key(0), 5000, &home));
	session_table_bind(t, nth_key(0), one, 5000);
	session_table_bind(t, nth_key(1), two, 5000);
	assert_true(session_table_find(t, nth_key(0), 5000 + IDLE_S, &home));
	assert_int_equal(home.slot, 1);
	assert_int_equal(home.serial, 11);
	assert_false(session_table_find(t, nth_key(2), 5000, &home));

	/* Use renews it; the other one is over. A tick is 16 s. */
	session_table_bind(t, nth_key(0), one, 6000);
	assert_true(session_table_find(t, nth_key(0), 6000 + IDLE_S, &home));
	assert_false(session_table_find(t, nth_key(1), 5000 + IDLE_S + 2 * SESSION_TICK_S, &home));
	session_table_free(&t);
	assert_null(t);
	session_table_free(&t);
}

static void moving_moves_the_count(void **state) {
	struct session_table *t = session_table_new(64, IDLE_S);
	struct session_home home;

	for (uint64_t i = 0; i < 5; i++)
		session_table_bind(t, nth_key(i), one, 1);
	session_table_bind(t, nth_key(3), two, 1);
	session_table_bind(t, nth_key(3), two, 1);
	assert_int_equal(session_table_count(t, one), 4);
	assert_int_equal(session_table_count(t, two), 1);
	assert_true(session_table_find(t, nth_key(3), 1, &home));
	assert_int_equal(home.slot, 2);

	assert_true(session_table_end(t, nth_key(3)));
	assert_false(session_table_end(t, nth_key(3)));
	assert_false(session_table_find(t, nth_key(3), 1, &home));
	assert_int_equal(session_table_count(t, two), 0);
	session_table_free(&t);
}

/* The instance that had the slot before is not the one that has it: its sessions are nobody's. */
static void a_slot_that_is_given_again_starts_at_nothing(void **state) {
	const struct session_home next = { 1, 12 };
	struct session_table *t = session_table_new(64, IDLE_S);
	struct instance inst = { .slot = 1, .serial = 11 + 4096 };
	struct session_home home;

	session_table_bind(t, nth_key(0), one, 1);
	session_table_bind(t, nth_key(1), one, 1);
	session_table_bind(t, nth_key(2), next, 1);
	assert_int_equal(session_table_count(t, one), 0);
	assert_int_equal(session_table_count(t, next), 1);
	assert_true(session_table_end(t, nth_key(0)));
	assert_int_equal(session_table_count(t, next), 1);
	assert_true(session_table_find(t, nth_key(1), 1, &home));
	inst.serial = 12;
	assert_false(session_home_is(home, &inst));
	inst.serial = 11;
	assert_true(session_home_is(home, &inst));
	session_table_free(&t);
}

/* More than fit: the newest are known, the counts are of those that are. */
static void a_full_table_forgets_the_oldest(void **state) {
	struct session_table *t = session_table_new(64, IDLE_S);
	size_t capacity = session_table_capacity(t);
	unsigned n_known = 0, n_new = 0;
	struct session_home home;

	assert_int_equal(capacity, 64);
	for (uint64_t i = 0; i < 1000; i++)
		session_table_bind(t, nth_key(i), i % 2 ? one : two, 16 * i / 10);
	for (uint64_t i = 0; i < 1000; i++) {
		bool is_known = session_table_find(t, nth_key(i), 1600, &home);

		n_known += is_known;
		n_new += is_known && i >= 900;
	}
	assert_in_range(n_known, 60, 64);
	assert_in_range(n_new, 50, 64);
	assert_int_equal(session_table_count(t, one) + session_table_count(t, two), n_known);
	session_table_free(&t);
}

/* Nobody asks for those that are idle, and yet they are counted no more. */
static void the_idle_are_swept_out(void **state) {
	struct session_table *t = session_table_new(4096, IDLE_S);
	uint64_t now_s = 100000;

	for (uint64_t i = 0; i < 1000; i++)
		session_table_bind(t, nth_key(i), one, now_s);
	assert_int_equal(session_table_count(t, one), 1000);
	for (uint64_t i = 0; i < 100; i++)
		session_table_bind(t, nth_key(5000), two, now_s += 20);
	assert_int_equal(session_table_count(t, two), 1);
	for (uint64_t i = 0; i < 100; i++)
		session_table_bind(t, nth_key(5000), two, now_s += 20);
	assert_int_equal(session_table_count(t, one), 0);
	assert_int_equal(session_table_count(t, two), 1);
	session_table_free(&t);
}

struct hand {
	struct session_table *t;
	unsigned index;
};

/* Binds, moves, looks up and ends the same few sessions as the others do. */
static void *work(void *object) {
	const struct hand *hand = object;
	struct rng rng;

	rng_init(&rng, hand->index);
	for (unsigned i = 0; i < 30000; i++) {
		uint64_t key = nth_key(rng_below(&rng, 200)), now_s = 1000 + i / 10;
		struct session_home home = rng_below(&rng, 2) ? one : two, found;

		if (rng_below(&rng, 8) == 0)
			(void)session_table_end(hand->t, key);
		else
			session_table_bind(hand->t, key, home, now_s);
		if (session_table_find(hand->t, key, now_s, &found) &&
		    found.serial != 11 * found.slot) /* a word of two */
			return "torn";
	}
	return NULL;
}

/* Whatever they did to each other, the counts are those of what is left, and 0 after the end of all. */
static void threads_keep_the_counts_exact(void **state) {
	struct session_table *t = session_table_new(128, IDLE_S); /* less than there are: they evict, too */
	struct hand hands[4];
	pthread_t threads[4];
	struct session_home home;
	unsigned n_known = 0;
	void *complaint;

	for (unsigned i = 0; i < 4; i++) {
		hands[i] = (struct hand){ t, i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &hands[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &complaint), 0);
		assert_null(complaint);
	}
	for (uint64_t i = 0; i < 200; i++)
		n_known += session_table_find(t, nth_key(i), 4000, &home);
	assert_in_range(n_known, 50, 128);
	/* Two that bind one at once may leave it there twice. */
	assert_in_range(session_table_count(t, one) + session_table_count(t, two), n_known, 128);
	for (uint64_t i = 0; i < 200; i++)
		(void)session_table_end(t, nth_key(i));
	assert_int_equal(session_table_count(t, one), 0);
	assert_int_equal(session_table_count(t, two), 0);
	session_table_free(&t);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_is_found_until_it_is_idle),
		cmocka_unit_test(moving_moves_the_count),
		cmocka_unit_test(a_slot_that_is_given_again_starts_at_nothing),
		cmocka_unit_test(a_full_table_forgets_the_oldest),
		cmocka_unit_test(the_idle_are_swept_out),
		cmocka_unit_test(threads_keep_the_counts_exact),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
