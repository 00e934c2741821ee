#include "unit/policy/picks.h"

/* Whatever they weigh, and whatever they have to do. */
static void all_are_as_likely(void **state) {
	const uint16_t weights[] = { 1000, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "random", weights, 3, 17);
	picks_charge(&p, 0, 100);
	picks_count(&p, 9000, counts);
	for (unsigned r = 0; r < 3; r++)
		assert_in_range(counts[r], 2850, 3150);
	picks_close(&p);
}

static void what_was_tried_is_never_drawn(void **state) {
	const uint16_t weights[] = { 1000, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX] = { 0 };
	struct picks p;

	picks_open(&p, "random", weights, 3, 17);
	for (unsigned i = 0; i < 1000; i++)
		counts[picks_next(&p, 0, 0)]++;
	assert_int_equal(counts[0], 0);
	assert_in_range(counts[1], 430, 570);
	picks_close(&p);
}

/* The same seed, the same choices: what the simulator relies on. */
static void a_seed_repeats_itself(void **state) {
	const uint16_t weights[] = { 1, 2, 3, 4, 5 };
	struct picks a, b;

	picks_open(&a, "random", weights, 5, 23);
	picks_open(&b, "random", weights, 5, 23);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(picks_next(&a, -1, 0), picks_next(&b, -1, 0));
	picks_close(&a);
	picks_close(&b);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_are_as_likely),
		cmocka_unit_test(what_was_tried_is_never_drawn),
		cmocka_unit_test(a_seed_repeats_itself),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
