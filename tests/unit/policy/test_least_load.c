#include "unit/policy/picks.h"

static void the_least_loaded_is_taken(void **state) {
	const uint16_t weights[] = { 1, 1, 1, 1 };

	for (uint64_t seed = 0; seed < 20; seed++) {
		struct picks p;

		picks_open(&p, "least_load", weights, 4, seed);
		picks_charge(&p, 0, 3);
		picks_charge(&p, 1, 2);
		picks_charge(&p, 2, 1);
		picks_charge(&p, 3, 2);
		assert_int_equal(picks_next(&p, -1, 0), 2);
		picks_close(&p);
	}
}

/* With 4 on it the heavy one is as loaded as the light one with none, with 5 it is more. */
static void load_is_measured_by_weight(void **state) {
	const uint16_t weights[] = { 5, 1 };
	struct picks p;

	picks_open(&p, "least_load", weights, 2, 1);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(picks_next(&p, -1, 0), 0);
		picks_charge(&p, 0, 1);
	}
	picks_charge(&p, 0, 1);
	assert_int_equal(picks_next(&p, -1, 0), 1);
	picks_close(&p);
}

/* Requests that stay are spread as the weights are. */
static void standing_requests_follow_the_weights(void **state) {
	const uint16_t weights[] = { 3, 2, 1 };
	struct picks p;

	picks_open(&p, "least_load", weights, 3, 5);
	for (unsigned i = 0; i < 600; i++)
		picks_charge(&p, picks_next(&p, -1, 0), 1);
	for (uint32_t r = 0; r < 3; r++)
		assert_int_equal(load_requests(p.load, picks_instance(&p, r)->slot), 100u * weights[r]);
	picks_close(&p);
}

static void an_idle_fleet_is_entered_everywhere(void **state) {
	const uint16_t weights[] = { 1, 1, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "least_load", weights, 4, 11);
	picks_count(&p, 4000, counts);
	for (uint32_t r = 0; r < 4; r++)
		assert_in_range(counts[r], 900, 1100);
	picks_close(&p);
}

/* A prompt of 100,000 tokens is worth many short requests, in prefill; in decode a few. */
static void tokens_are_load(void **state) {
	const uint16_t weights[] = { 1, 1, 1 };
	struct picks p;

	picks_open(&p, "least_load", weights, 3, 5);
	uint16_t slot = picks_instance(&p, 0)->slot;
	load_charge(p.load, 0, slot, 100000);
	picks_charge(&p, 1, 40);
	picks_charge(&p, 2, 50);
	assert_int_equal(picks_next(&p, -1, 0), 1);
	load_move(p.load, 0, slot, 100000, 100000);
	assert_int_equal(picks_next(&p, -1, 0), 0);
	picks_close(&p);
}

/* Others' requests that wait there count while the figure is fresh; ours are known, not counted twice. */
static void what_waits_there_is_load(void **state) {
	const uint16_t weights[] = { 1, 1, 1 };
	struct picks p;

	picks_open(&p, "least_load", weights, 3, 5);
	struct learned *learned = &picks_instance(&p, 0)->learned;
	picks_charge(&p, 0, 1);
	picks_charge(&p, 1, 3);
	picks_charge(&p, 2, 4);
	learned_hear_requests(learned, 2, 6, 2);        /* three of four are others' */
	assert_int_equal(picks_next(&p, -1, 20000), 0); /* nobody asked the engine */
	atomic_store(&learned->scraped_ms, 15000);
	assert_int_equal(picks_next(&p, -1, 20000), 1);
	assert_int_equal(picks_next(&p, -1, 26000), 0);
	learned_hear_requests(learned, 0, 6, 100);
	assert_int_equal(picks_next(&p, -1, 20000), 0); /* ours, as it seems now */
	learned_hear_requests(learned, 0, 1e300, 1);
	assert_int_equal(picks_next(&p, -1, 20000), 1);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_least_loaded_is_taken),
		cmocka_unit_test(load_is_measured_by_weight),
		cmocka_unit_test(standing_requests_follow_the_weights),
		cmocka_unit_test(an_idle_fleet_is_entered_everywhere),
		cmocka_unit_test(tokens_are_load),
		cmocka_unit_test(what_waits_there_is_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
