#include "unit/policy/stands.h"

/* Who comes next when those above may not. */
static void the_highest_gets_all_until_it_may_not(void **state) {
	static const struct stand stands[] = { { .labels = "priority=90 capacity=2" },
		{ .labels = "priority=90 capacity=2" }, { .labels = NULL }, { .labels = "priority=50" },
		{ .labels = "priority=0" } };
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		stands_open(&p, policy_name(*policy), stands, 5);
		assert_null(strpbrk(stands_picked(&p, ""), "cde"));
		assert_string_equal(stands_picked(&p, "a"), "b");
		assert_null(strpbrk(stands_picked(&p, "ab"), "abe"));
		assert_string_equal(stands_picked(&p, "abcd"), "e");
		picks_charge(&p, 0, 2);
		assert_string_equal(stands_picked(&p, ""), "b");
		picks_charge(&p, 1, 2);
		assert_null(strpbrk(stands_picked(&p, ""), "abe"));
		picks_close(&p);
	}
}

static void all_numbers_are_told_apart(void **state) {
	static const struct stand stands[] = { { .labels = "priority=2147483648" },
		{ .labels = "priority=4294967295" }, { .labels = "priority=4294967294" },
		{ .labels = "priority=1000" } };
	struct picks p;

	stands_open(&p, "round_robin", stands, 4);
	assert_string_equal(stands_picked(&p, ""), "b");
	assert_string_equal(stands_picked(&p, "b"), "c");
	assert_string_equal(stands_picked(&p, "bc"), "a");
	assert_string_equal(stands_picked(&p, "abc"), "d");
	picks_close(&p);
}

static void the_ill_come_last_whatever_their_priority(void **state) {
	static const struct stand stands[] = { { .labels = "priority=90", .state = INSTANCE_UNHEALTHY },
		{ .labels = NULL }, { .labels = "priority=60" } };
	struct picks p;

	stands_open(&p, "round_robin", stands, 3);
	assert_string_equal(stands_picked(&p, ""), "c");
	instance_avoid(picks_instance(&p, 2), 0);
	assert_string_equal(stands_picked(&p, ""), "b");
	assert_string_equal(stands_picked(&p, "bc"), "a");
	picks_close(&p);
}

/* Weights count among those of one priority alone. */
static void what_is_left_has_its_weights(void **state) {
	static const struct stand stands[] = { { .labels = "priority=9" }, { .labels = "priority=9" },
		{ .labels = "priority=8" } };
	struct picks p;
	uint16_t slots[PICKS_ROWS_MAX];

	stands_open(&p, "round_robin", stands, 3);
	struct pick_input input = stands_input(&p, "", slots);
	struct filtered f = filter_all(&p.set, &input);

	assert_int_equal(f.n, 2);
	assert_int_equal(f.weight, 2);
	assert_int_equal(f.n_left_out, 1);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_highest_gets_all_until_it_may_not),
		cmocka_unit_test(all_numbers_are_told_apart),
		cmocka_unit_test(the_ill_come_last_whatever_their_priority),
		cmocka_unit_test(what_is_left_has_its_weights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
