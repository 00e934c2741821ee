#include "unit/unit.h"

#include "base/rng.h"
#include "router/lateness.h"

static const struct hedge_options options = { .is_enabled = true, .percentile = 0.95, .budget = 0.05 };

static struct hedge_options at(double percentile) {
	struct hedge_options o = options;

	o.percentile = percentile;
	return o;
}

static void nothing_is_late_before_enough_is_known(void **state) {
	const struct hedge_options strict = at(0.99), median = at(0.5);
	struct lateness l = { 0 };

	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(lateness_ms(&l, &options) != LATENESS_NEVER, i >= 20);
		assert_int_equal(lateness_ms(&l, &median) != LATENESS_NEVER, i >= 20);
		assert_int_equal(lateness_ms(&l, &strict) != LATENESS_NEVER, i >= 100);
		lateness_learn(&l, 10);
	}
}

/* Of one time only: never too early, and no more than a fifth and a rounding too late. */
static void times_are_told_as_they_are(void **state) {
	for (uint64_t ms = 0; ms < 1000000; ms += 1 + ms / 50) {
		struct lateness l = { 0 };

		for (unsigned i = 0; i < 40; i++)
			lateness_learn(&l, ms);
		assert_in_range(lateness_ms(&l, &options), ms, ms + ms / 4 + 1);
	}
}

static void what_is_beyond_all_steps_is_the_last(void **state) {
	struct lateness l = { 0 };

	for (unsigned i = 0; i < 40; i++)
		lateness_learn(&l, UINT64_MAX);
	assert_in_range(lateness_ms(&l, &options), 900000, 1100000);
}

static void the_percentile_is_that_of_the_times(void **state) {
	static const double percentiles[] = { 0.5, 0.9, 0.95, 0.99 };
	struct lateness l = { 0 };
	struct rng rng;

	rng_init(&rng, 1);
	for (unsigned i = 0; i < 2000; i++)
		lateness_learn(&l, rng_below(&rng, 1000));
	for (unsigned i = 0; i < n_elems(percentiles); i++) {
		const struct hedge_options o = at(percentiles[i]);
		double ms = (double)lateness_ms(&l, &o);

		assert_true(ms >= 1000 * percentiles[i] * 0.97 && ms <= 1000 * percentiles[i] * 1.26);
	}
}

/* One in twenty that is slow does not make the others' time longer; one in ten does. */
static void few_slow_ones_do_not_count(void **state) {
	for (unsigned every = 10; every <= 30; every += 20) {
		struct lateness l = { 0 };

		for (unsigned i = 0; i < 600; i++)
			lateness_learn(&l, i % every ? 20 : 5000);
		assert_int_equal(lateness_ms(&l, &options) > 1000, every == 10);
	}
}

static void old_times_fade(void **state) {
	struct lateness l = { 0 };
	unsigned n = 0;

	for (unsigned i = 0; i < 100000; i++)
		lateness_learn(&l, 1000);
	for (; lateness_ms(&l, &options) < 10000; n++)
		lateness_learn(&l, 10000);
	assert_true(n < 200); /* slow ones soon are one in twenty */
	for (n = 0; lateness_ms(&l, &options) > 2000; n++)
		lateness_learn(&l, 1000);
	assert_true(n < 4 * LATENESS_MEMORY);
}

static void nobody_is_late_at_once(void **state) {
	struct hedge_options o = options;
	struct lateness l = { 0 };

	o.wait_min_ms = 50;
	for (unsigned i = 0; i < 40; i++)
		lateness_learn(&l, 3);
	assert_int_equal(lateness_ms(&l, &o), 50);
	for (unsigned i = 0; i < 400; i++)
		lateness_learn(&l, 300);
	assert_in_range(lateness_ms(&l, &o), 300, 380);
}

static void sizes_and_streams_are_apart(void **state) {
	static const uint32_t sizes[] = { 0, 512, 513, 2048, 2049, 8192, 8193, UINT32_MAX };
	struct lateness_model m = { 0 };

	for (unsigned i = 0; i < n_elems(sizes); i++)
		for (unsigned k = 0; k < 2; k++)
			assert_ptr_equal(lateness_of(&m, sizes[i], k), &m.of[k][i / 2]);
}

/* Whatever comes when: no more than the part, and what was saved up before. */
static void the_budget_holds(void **state) {
	struct lateness_model m = { 0 };
	unsigned n = 0;

	assert_false(lateness_spend(&m));
	for (unsigned i = 1; i <= 1000; i++) {
		lateness_save(&m, &options);
		n += lateness_spend(&m);
		assert_int_equal(n, i / 20);
	}
	for (unsigned i = 0; i < 10000; i++)
		lateness_save(&m, &options);
	for (n = 0; lateness_spend(&m);)
		n++;
	assert_int_equal(n, 10);
	lateness_give_back(&m);
	assert_true(lateness_spend(&m));
	assert_false(lateness_spend(&m));
}

static void no_budget_is_none(void **state) {
	struct hedge_options none = options;
	struct lateness_model m = { 0 };

	none.budget = 0;
	for (unsigned i = 0; i < 1000; i++)
		lateness_save(&m, &none);
	assert_false(lateness_spend(&m));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_late_before_enough_is_known),
		cmocka_unit_test(times_are_told_as_they_are),
		cmocka_unit_test(what_is_beyond_all_steps_is_the_last),
		cmocka_unit_test(the_percentile_is_that_of_the_times),
		cmocka_unit_test(few_slow_ones_do_not_count),
		cmocka_unit_test(old_times_fade),
		cmocka_unit_test(nobody_is_late_at_once),
		cmocka_unit_test(sizes_and_streams_are_apart),
		cmocka_unit_test(the_budget_holds),
		cmocka_unit_test(no_budget_is_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
