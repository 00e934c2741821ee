#include "unit/unit.h"

#include "router/split_breaker.h"

#define NOW 1000

static struct split_breaker breaker;

static int setup(void **state) {
	memset(&breaker, 0, sizeof(breaker));
	return 0;
}

static void fail_often(uint64_t prefill, uint64_t decode, unsigned n, uint64_t now_s) {
	while (n--)
		split_breaker_fail(&breaker, prefill, decode, now_s);
}

static void three_failures_in_a_row_open_it(void **state) {
	fail_often(1, 2, SPLIT_BREAKER_FAILURES - 1, NOW);
	assert_false(split_breaker_is_open(&breaker, 1, 2, NOW));
	fail_often(1, 2, 1, NOW);
	assert_true(split_breaker_is_open(&breaker, 1, 2, NOW));
	assert_false(split_breaker_is_open(&breaker, 2, 1, NOW));
	assert_false(split_breaker_is_open(&breaker, 1, 3, NOW));
}

static void a_success_forgives_all(void **state) {
	fail_often(1, 2, SPLIT_BREAKER_FAILURES - 1, NOW);
	split_breaker_succeed(&breaker, 1, 3);
	split_breaker_succeed(&breaker, 1, 2);
	fail_often(1, 2, SPLIT_BREAKER_FAILURES - 1, NOW);
	assert_false(split_breaker_is_open(&breaker, 1, 2, NOW));
}

static void after_its_rest_one_failure_is_enough(void **state) {
	fail_often(1, 2, SPLIT_BREAKER_FAILURES, NOW);
	assert_true(split_breaker_is_open(&breaker, 1, 2, NOW + SPLIT_BREAKER_REST_S - 1));
	assert_false(split_breaker_is_open(&breaker, 1, 2, NOW + SPLIT_BREAKER_REST_S));
	fail_often(1, 2, 1, NOW + 100);
	assert_true(split_breaker_is_open(&breaker, 1, 2, NOW + 100 + SPLIT_BREAKER_REST_S - 1));
}

/* The upper half of a life counts restarts. */
static void who_is_restarted_begins_anew(void **state) {
	const uint64_t again = UINT64_C(1) << 32;

	fail_often(1, 2, SPLIT_BREAKER_FAILURES, NOW);
	assert_false(split_breaker_is_open(&breaker, again | 1, 2, NOW));
	assert_false(split_breaker_is_open(&breaker, 1, again | 2, NOW));
	assert_false(split_breaker_is_open(&breaker, again | 1, again | 2, NOW));
	assert_true(split_breaker_is_open(&breaker, 1, 2, NOW));
}

/* More than there are cells. */
static void who_never_failed_is_not_taken_for_another_one(void **state) {
	unsigned n_open = 0;

	for (uint64_t decode = 1; decode <= 4 * SPLIT_BREAKER_CELLS; decode++)
		fail_often(1, decode, SPLIT_BREAKER_FAILURES, NOW);
	for (uint64_t decode = 1; decode <= 4 * SPLIT_BREAKER_CELLS; decode++) {
		assert_false(split_breaker_is_open(&breaker, 2, decode, NOW));
		n_open += split_breaker_is_open(&breaker, 1, decode, NOW);
	}
	assert_in_range(n_open, SPLIT_BREAKER_CELLS / 2, SPLIT_BREAKER_CELLS);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(three_failures_in_a_row_open_it, setup),
		cmocka_unit_test_setup(a_success_forgives_all, setup),
		cmocka_unit_test_setup(after_its_rest_one_failure_is_enough, setup),
		cmocka_unit_test_setup(who_is_restarted_begins_anew, setup),
		cmocka_unit_test_setup(who_never_failed_is_not_taken_for_another_one, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
