#include "unit/policy/picks.h"

/* Two different ones are drawn: the worst of three never wins, the best in two of three pairs. */
static void the_better_of_two_wins(void **state) {
	const uint16_t weights[] = { 1, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "power_of_two", weights, 3, 7);
	picks_charge(&p, 0, 1);
	picks_charge(&p, 1, 2);
	picks_count(&p, 3000, counts);
	assert_in_range(counts[2], 1900, 2100);
	assert_in_range(counts[0], 900, 1100);
	assert_int_equal(counts[1], 0);
	picks_close(&p);
}

static void two_left_is_least_load(void **state) {
	const uint16_t weights[] = { 2, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "power_of_two", weights, 2, 7);
	picks_charge(&p, 0, 2);
	picks_count(&p, 100, counts);
	assert_int_equal(counts[1], 100); /* 3 / 2 against 1 / 1 */
	picks_charge(&p, 1, 1);
	picks_count(&p, 100, counts);
	assert_int_equal(counts[0], 100); /* 3 / 2 against 2 / 1 */
	picks_close(&p);
}

/*
 * Equal measures, so the first one drawn wins and the shares are the weights': only
 * the weights of the draw can make this come out.
 */
static void the_draw_follows_the_weights(void **state) {
	const uint16_t weights[] = { 6, 3, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "power_of_two", weights, 3, 13);
	picks_charge(&p, 0, 5);
	picks_charge(&p, 1, 2);
	picks_count(&p, 10000, counts);
	assert_in_range(counts[0], 5800, 6200);
	assert_in_range(counts[1], 2800, 3200);
	assert_in_range(counts[2], 850, 1150);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_better_of_two_wins),
		cmocka_unit_test(two_left_is_least_load),
		cmocka_unit_test(the_draw_follows_the_weights),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
