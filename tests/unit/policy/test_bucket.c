#include "unit/policy/picks.h"

#define SECOND UINT64_C(1000000000)

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static uint32_t serve(struct picks *p, uint32_t tokens, uint64_t now_ns) {
	p->demand = (struct demand){ .prompt_tokens = tokens };
	return picks_serve(p, now_ns);
}

static void lengths_are_parted_from_the_start(void **state) {
	struct picks p;

	picks_open(&p, "bucket", equal, 3, 1);
	assert_int_equal(serve(&p, 20, SECOND), 0);
	assert_int_equal(serve(&p, 500, SECOND), 1);
	assert_int_equal(serve(&p, 5000, SECOND), 2);
	assert_int_equal(serve(&p, 1000000, SECOND), 2);
	p.demand = (struct demand){ .prompt_bytes = 2000 }; /* tokens are not known, bytes are */
	assert_int_equal(picks_serve(&p, SECOND), 1);
	picks_close(&p);
}

/* All are long: the ranges close in on them, and each has its share of the tokens, by weight. */
static void ranges_adapt_to_the_tokens(void **state) {
	const uint16_t weights[] = { 1, 1, 2 };
	double tokens[3] = { 0 }, total = 0;
	struct rng rng;
	struct picks p;

	rng_init(&rng, 5);
	picks_open(&p, "bucket", weights, 3, 1);
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t n = 50000 + (uint32_t)rng_below(&rng, 50000);
		uint32_t row = serve(&p, n, (1 + i) * SECOND / 100);

		if (i < 10000)
			continue;
		tokens[row] += n;
		total += n;
	}
	for (unsigned r = 0; r < 3; r++) {
		double share = tokens[r] / total * 4 / weights[r];

		assert_true(share > 0.9 && share < 1.1);
	}
	picks_close(&p);
}

/* Ranges stand for 5 s, and for as long as hardly anybody comes. */
static void ranges_stand_for_a_while(void **state) {
	struct picks p;

	picks_open(&p, "bucket", equal, 3, 1);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(serve(&p, 2000 + 80 * i, SECOND), 2);
	assert_int_equal(serve(&p, 2000, 5 * SECOND), 2);
	assert_int_equal(serve(&p, 2000, 6 * SECOND), 0); /* the shortest of the long ones */
	assert_int_equal(serve(&p, 9900, 6 * SECOND), 2);
	picks_close(&p);

	picks_open(&p, "bucket", equal, 3, 1);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(serve(&p, 5000, (1 + 10 * i) * SECOND), 2);
	picks_close(&p);
}

static void the_same_requests_get_the_same_ranges(void **state) {
	struct picks p, q;

	picks_open(&p, "bucket", equal, 5, 1);
	picks_open(&q, "bucket", equal, 5, 2);
	for (unsigned i = 0; i < 3000; i++) {
		uint32_t tokens = 1 + i * 7919 % 30000;

		assert_int_equal(
		    serve(&p, tokens, (1 + i) * SECOND / 50), serve(&q, tokens, (1 + i) * SECOND / 50));
	}
	picks_close(&p);
	picks_close(&q);
}

static void a_range_that_drowns_is_helped(void **state) {
	struct picks p;

	picks_open(&p, "bucket", equal, 3, 1);
	picks_charge(&p, 2, 9);
	assert_int_equal(picks_next(&p, 0, 0), 1);
	picks_charge(&p, 1, 2);
	assert_int_equal(serve(&p, 5000, SECOND), 0);
	picks_charge(&p, 0, 7); /* 9 are not more than twice the others' 4.5 */
	assert_int_equal(serve(&p, 5000, SECOND), 2);
	picks_close(&p);
}

static void the_next_in_order_stands_in(void **state) {
	struct picks p;

	picks_open(&p, "bucket", equal, 3, 1);
	p.demand = (struct demand){ .prompt_tokens = 20 };
	assert_int_equal(picks_next(&p, 0, 1000), 1);
	p.demand.prompt_tokens = 5000;
	assert_int_equal(picks_next(&p, 2, 1000), 1);
	picks_close(&p);
}

/* Of four one leaves: the ranges of the three are made of what was learned, not begun anew. */
static void what_was_learned_outlives_changes(void **state) {
	struct picks p;

	picks_open(&p, "bucket", equal, 4, 1);
	for (unsigned i = 0; i < 8000; i++)
		serve(&p, 20000 + i * 7919 % 20000, (1 + i) * SECOND / 50);
	picks_adopt(&p, "abd");
	unsigned counts[3] = { 0 };
	for (unsigned i = 0; i < 1000; i++)
		counts[serve(&p, 20000 + i * 7919 % 20000, 161 * SECOND)]++;
	for (unsigned r = 0; r < 3; r++)
		assert_in_range(counts[r], 200, 500);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_are_parted_from_the_start),
		cmocka_unit_test(ranges_adapt_to_the_tokens),
		cmocka_unit_test(ranges_stand_for_a_while),
		cmocka_unit_test(the_same_requests_get_the_same_ranges),
		cmocka_unit_test(a_range_that_drowns_is_helped),
		cmocka_unit_test(the_next_in_order_stands_in),
		cmocka_unit_test(what_was_learned_outlives_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
