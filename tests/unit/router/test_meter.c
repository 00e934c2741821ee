#include "unit/unit.h"

#include <pthread.h>

#include "router/meter.h"

#define SECOND UINT64_C(1000000000)
#define START  (1000 * SECOND)

static bool take(struct meter *m, uint64_t per_minute, uint64_t n, uint64_t now_ns) {
	struct meter_view view;

	return meter_take(m, per_minute, n, now_ns, &view);
}

static struct meter_view asked(struct meter *m, uint64_t per_minute, uint64_t n, uint64_t now_ns) {
	struct meter_view view;

	bool is_taken = meter_take(m, per_minute, n, now_ns, &view);
	assert_int_equal(is_taken, !view.wait_ns);
	return view;
}

static void a_minutes_worth_can_be_taken_at_once(void **state) {
	struct meter m = { 0 };

	for (unsigned i = 0; i < 60; i++) {
		struct meter_view view = asked(&m, 60, 1, START);

		assert_int_equal(view.remaining, 59 - i);
		assert_int_equal(view.full_in_ns, (i + 1) * SECOND);
		assert_int_equal(view.wait_ns, 0);
	}
	assert_false(take(&m, 60, 1, START));
	assert_int_equal(asked(&m, 60, 1, START).wait_ns, SECOND);
	assert_int_equal(asked(&m, 60, 5, START).wait_ns, 5 * SECOND);
	assert_false(take(&m, 60, 1, START + SECOND - 1));
	assert_true(take(&m, 60, 1, START + SECOND));
	assert_false(take(&m, 60, 1, START + SECOND));
}

static void what_waited_for_is_there_then(void **state) {
	struct meter m = { 0 };

	assert_true(take(&m, 90000, 80000, START));
	uint64_t wait_ns = asked(&m, 90000, 30000, START).wait_ns;
	assert_false(take(&m, 90000, 30000, START + wait_ns - 1));
	assert_true(take(&m, 90000, 30000, START + wait_ns));
}

static void more_than_a_minutes_worth_is_a_debt(void **state) {
	struct meter m = { 0 };

	assert_true(take(&m, 1000, 3000, START));
	assert_int_equal(asked(&m, 1000, 1, START).remaining, 0);
	assert_false(take(&m, 1000, 1, START + 119 * SECOND));
	assert_true(take(&m, 1000, 1, START + 121 * SECOND));
	assert_false(take(&m, 1000, 2000, START + 150 * SECOND)); /* only when it is full */
	assert_true(take(&m, 1000, 2000, START + 190 * SECOND));
}

static void what_was_too_much_is_given_back(void **state) {
	struct meter m = { 0 };

	assert_true(take(&m, 1000, 900, START));
	meter_settle(&m, 1000, 900, 100, START);
	assert_int_equal(asked(&m, 1000, 1, START).remaining, 899);
	meter_settle(&m, 1000, 900, 0, START); /* more than there is: it is full, not fuller */
	assert_int_equal(asked(&m, 1000, 1, START).remaining, 999);
}

static void what_was_too_little_is_owed(void **state) {
	struct meter m = { 0 };

	assert_true(take(&m, 1000, 100, START));
	meter_settle(&m, 1000, 100, 600, START);
	assert_int_equal(asked(&m, 1000, 1, START).remaining, 399);
	meter_settle(&m, 1000, 0, 3000, START);
	assert_false(take(&m, 1000, 1, START + 60 * SECOND));
}

static void nothing_overflows(void **state) {
	struct meter m = { 0 };

	assert_true(take(&m, METER_MAX, UINT64_MAX, START));
	assert_false(take(&m, METER_MAX, UINT64_MAX, START));
	struct meter slow = { 0 };
	for (unsigned i = 0; i < 10; i++)
		meter_settle(&slow, 1, 0, UINT64_MAX, START);
	assert_false(take(&slow, 1, 1, START + 3599 * SECOND));
	assert_true(take(&slow, 1, 1, START + 3600 * SECOND));
}

struct rush {
	struct meter meter;
	_Atomic uint64_t n_taken;
};

static void *rush_run(void *argument) {
	struct rush *rush = argument;

	for (unsigned i = 0; i < 5000; i++)
		rush->n_taken += take(&rush->meter, 10000, 1, START);
	return NULL;
}

static void threads_take_no_more_than_there_is(void **state) {
	struct rush rush = { .n_taken = 0 };
	pthread_t threads[8];

	for (unsigned i = 0; i < n_elems(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, rush_run, &rush), 0);
	for (unsigned i = 0; i < n_elems(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(rush.n_taken, 10000);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_minutes_worth_can_be_taken_at_once),
		cmocka_unit_test(what_waited_for_is_there_then),
		cmocka_unit_test(more_than_a_minutes_worth_is_a_debt),
		cmocka_unit_test(what_was_too_much_is_given_back),
		cmocka_unit_test(what_was_too_little_is_owed),
		cmocka_unit_test(nothing_overflows),
		cmocka_unit_test(threads_take_no_more_than_there_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
