#include "unit/policy/picks.h"

static const uint16_t equal[] = { 1, 1, 1, 1 };

/* From some pick of the first round on, nginx's sequence, over and over. */
static void weights_5_1_1_give_the_known_sequence(void **state) {
	static const char known[] = "aabacaaaabacaaaabacaaaabacaa";
	const uint16_t weights[] = { 5, 1, 1 };
	bool is_start_seen[7] = { false };

	for (uint64_t seed = 0; seed < 100; seed++) {
		struct picks p;
		char got[36] = "";
		unsigned start = 0;

		picks_open(&p, "round_robin", weights, 3, seed);
		for (unsigned i = 0; i < sizeof(got) - 1; i++)
			got[i] = (char)('a' + picks_next(&p, -1, 0));
		while (start < 7 && strncmp(got + start, known, sizeof(known) - 1) != 0)
			start++;
		assert_true(start < 7);
		is_start_seen[start] = true;
		picks_close(&p);
	}
	for (unsigned start = 0; start < 7; start++)
		assert_true(is_start_seen[start]);
}

/* Whatever the weights: after the first, every round gives each its weight, to the unit. */
static void every_round_is_exact(void **state) {
	struct rng rng;

	rng_init(&rng, 1);
	for (uint64_t seed = 0; seed < 20; seed++) {
		uint16_t weights[PICKS_ROWS_MAX];
		unsigned counts[PICKS_ROWS_MAX], total = 0;
		uint32_t n = 2 + (uint32_t)rng_below(&rng, PICKS_ROWS_MAX - 1);
		struct picks p;

		for (uint32_t r = 0; r < n; r++)
			total += weights[r] = (uint16_t)(1 + rng_below(&rng, r % 3 ? 100 : 3));
		picks_open(&p, "round_robin", weights, n, seed);
		for (int round = 0; round < 4; round++) {
			picks_count(&p, total, counts);
			for (uint32_t r = 0; r < n && round > 0; r++)
				assert_int_equal(counts[r], weights[r]);
		}
		picks_close(&p);
	}
}

static void threads_start_at_different_places(void **state) {
	unsigned n_first[4] = { 0 };

	for (uint64_t seed = 0; seed < 400; seed++) {
		struct picks p;

		picks_open(&p, "round_robin", equal, 4, seed);
		n_first[picks_next(&p, -1, 0)]++;
		picks_close(&p);
	}
	for (unsigned r = 0; r < 4; r++)
		assert_in_range(n_first[r], 50, 150);
}

static void the_others_share_what_one_leaves(void **state) {
	const uint16_t weights[] = { 4, 2, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX] = { 0 };
	struct picks p;

	picks_open(&p, "round_robin", weights, 4, 3);
	picks_count(&p, 16, counts);
	memset(counts, 0, sizeof(counts));
	for (unsigned i = 0; i < 400; i++)
		counts[picks_next(&p, 0, 0)]++;
	assert_int_equal(counts[0], 0);
	assert_in_range(counts[1], 199, 201);
	assert_in_range(counts[2], 99, 101);
	assert_in_range(counts[3], 99, 101);
	picks_close(&p);
}

/* What was away for long is not flooded when it returns. */
static void a_returner_gets_its_share_and_no_more(void **state) {
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "round_robin", equal, 4, 9);
	for (unsigned i = 0; i < 1001; i++)
		assert_int_not_equal(picks_next(&p, 2, 0), 2);
	picks_count(&p, 40, counts);
	for (unsigned r = 0; r < 4; r++)
		assert_in_range(counts[r], 9, 11);
	picks_close(&p);
}

/* Whoever joins, and wherever in the table: the others go on in turn. */
static void a_newcomer_does_not_disturb_the_turns(void **state) {
	static const char *const joined[] = { "abc", "bcd" };

	for (uint64_t seed = 0; seed < 100; seed++) {
		struct picks p;

		picks_open(&p, "round_robin", equal, 4, seed);
		picks_adopt(&p, "bc");
		char last = 0;
		for (unsigned i = 0; i < 3 + seed % 4; i++)
			last = picks_name(&p);
		picks_adopt(&p, joined[seed % 2]);
		for (unsigned i = 0; i < 12; i++) {
			char name = picks_name(&p);

			if (name != 'b' && name != 'c')
				continue;
			assert_int_not_equal(name, last);
			last = name;
		}
		picks_close(&p);
	}
}

/* Nor does one that leaves: the others keep their order. */
static void a_leaver_does_not_disturb_the_turns(void **state) {
	for (uint64_t seed = 0; seed < 100; seed++) {
		char before[4], after[3];
		struct picks p;

		picks_open(&p, "round_robin", equal, 4, seed);
		for (unsigned i = 0; i < 4; i++)
			before[i] = picks_name(&p);
		picks_adopt(&p, "abd");
		for (unsigned i = 0; i < 3; i++)
			after[i] = picks_name(&p);
		for (unsigned i = 0, n = 0; i < 4; i++)
			if (before[i] != 'c')
				assert_int_equal(after[n++], before[i]);
		picks_close(&p);
	}
}

/* A newcomer starts at another place on each thread, or all would send it their next request. */
static void newcomers_start_at_different_places(void **state) {
	unsigned n_first = 0;

	for (uint64_t seed = 0; seed < 400; seed++) {
		struct picks p;

		picks_open(&p, "round_robin", equal, 4, seed);
		picks_adopt(&p, "abc");
		picks_name(&p);
		picks_adopt(&p, "abcd");
		n_first += picks_name(&p) == 'd';
		picks_close(&p);
	}
	assert_in_range(n_first, 50, 150);
}

/* Credit in units of the larger round would keep one of those that stay away, or alone, for long. */
static void many_that_leave_leave_no_debts(void **state) {
	const uint16_t weights[PICKS_ROWS_MAX] = { 1000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		1, 1, 1, 1, 1, 1, 1 };

	for (unsigned n_before = 0; n_before < 60; n_before++) {
		unsigned counts[PICKS_ROWS_MAX];
		struct picks p;

		picks_open(&p, "round_robin", weights, PICKS_ROWS_MAX, n_before);
		picks_count(&p, 17 * n_before, counts);
		picks_adopt(&p, "bz");
		picks_count(&p, 4, counts);
		assert_in_range(counts[0], 1, 3);
		picks_count(&p, 10, counts);
		assert_int_equal(counts[0], 5);
		picks_close(&p);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(weights_5_1_1_give_the_known_sequence),
		cmocka_unit_test(every_round_is_exact),
		cmocka_unit_test(threads_start_at_different_places),
		cmocka_unit_test(the_others_share_what_one_leaves),
		cmocka_unit_test(a_returner_gets_its_share_and_no_more),
		cmocka_unit_test(a_newcomer_does_not_disturb_the_turns),
		cmocka_unit_test(a_leaver_does_not_disturb_the_turns),
		cmocka_unit_test(newcomers_start_at_different_places),
		cmocka_unit_test(many_that_leave_leave_no_debts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
