#include "unit/policy/picks.h"

static void shares_follow_the_weights(void **state) {
	const uint16_t weights[] = { 6, 3, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "weighted_random", weights, 3, 17);
	picks_charge(&p, 0, 100); /* load does not matter here */
	picks_count(&p, 10000, counts);
	assert_in_range(counts[0], 5800, 6200);
	assert_in_range(counts[1], 2800, 3200);
	assert_in_range(counts[2], 850, 1150);
	picks_close(&p);
}

static void what_was_tried_is_never_drawn(void **state) {
	const uint16_t weights[] = { 1000, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX] = { 0 };
	struct picks p;

	picks_open(&p, "weighted_random", weights, 3, 17);
	for (unsigned i = 0; i < 1000; i++)
		counts[picks_next(&p, 0, 0)]++;
	assert_int_equal(counts[0], 0);
	assert_in_range(counts[1], 430, 570);
	picks_close(&p);
}

/* 0 makes all alike, 2 squares, the most there may be does not overflow. */
static void sharpness_is_a_power(void **state) {
	const uint16_t weights[] = { 65535, 21845, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "weighted_random", weights, 3, 17);
	p.options.random_sharpness = 0;
	picks_count(&p, 9000, counts);
	for (unsigned r = 0; r < 3; r++)
		assert_in_range(counts[r], 2850, 3150);
	p.options.random_sharpness = 2;
	picks_count(&p, 10000, counts);
	assert_in_range(counts[0], 8850, 9150);
	assert_in_range(counts[1], 850, 1150);
	p.options.random_sharpness = POLICY_SHARPNESS_MAX;
	picks_count(&p, 82000, counts);
	assert_in_range(counts[1], 850, 1150);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_follow_the_weights),
		cmocka_unit_test(what_was_tried_is_never_drawn),
		cmocka_unit_test(sharpness_is_a_power),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
