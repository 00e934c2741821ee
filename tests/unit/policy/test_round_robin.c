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

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(weights_5_1_1_give_the_known_sequence),
		cmocka_unit_test(every_round_is_exact),
		cmocka_unit_test(threads_start_at_different_places),
		cmocka_unit_test(the_others_share_what_one_leaves),
		cmocka_unit_test(a_returner_gets_its_share_and_no_more),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
