#include "unit/policy/picks.h"

#include "policy/composite.c"

#define NOW_MS 100000

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static void show(struct picks *p, uint32_t row, double first_token_s) {
	struct learned *learned = &picks_instance(p, row)->learned;

	learned_write(&learned->first_token_s, first_token_s);
	atomic_store(&learned->first_ns, NOW_MS * UINT64_C(1000000));
}

static void scores_are_weighed_means(void **state) {
	struct picks p;

	picks_open(&p, "composite", equal, 3, 1);
	show(&p, 0, 0.1);
	show(&p, 1, 0.2);
	show(&p, 2, 0.4);
	picks_charge(&p, 0, 3);
	picks_charge(&p, 1, 1);
	assert_int_equal(picks_next(&p, -1, NOW_MS), 2);
	/* load 1/4, 1/2, 1; latency 1, 1/2, 1/4; weights 2, 1, and 1 and 1 for what is not known */
	static const double totals[] = { 3.5 / 5, 3.5 / 5, 4.25 / 5 };
	for (unsigned i = 0; i < 3; i++) {
		double off = (double)p.set.scores[i].total - totals[i];

		assert_true(off > -1e-6 && off < 1e-6);
	}
	p.options.composite_weights[PART_LATENCY] = 4;
	assert_int_equal(picks_next(&p, -1, NOW_MS), 0);
	p.options.composite_weights[PART_LATENCY] = 0;
	assert_int_equal(picks_next(&p, -1, NOW_MS), 2);
	picks_close(&p);
}

static void no_part_leaves_its_range(void **state) {
	struct rng rng;
	struct picks p;

	rng_init(&rng, 3);
	picks_open(&p, "composite", equal, 8, 1);
	for (unsigned i = 0; i < 300; i++) {
		uint32_t row = (uint32_t)rng_below(&rng, 8);

		picks_charge(&p, row, (unsigned)rng_below(&rng, 20));
		show(&p, row, (double)rng_below(&rng, 1000) / 100);
		(void)picks_next(&p, -1, NOW_MS);
		for (unsigned k = 0; k < 8; k++) {
			assert_true(p.set.scores[k].total >= 0 && p.set.scores[k].total <= 1);
			for (unsigned part = 0; part < POLICY_PARTS; part++)
				assert_true(
				    p.set.scores[k].parts[part] >= 0 && p.set.scores[k].parts[part] <= 1);
		}
	}
	picks_close(&p);
}

static void make_tiers(struct snapshot_row *rows) {
	rows[0].state = INSTANCE_UNKNOWN;
	rows[1].state = INSTANCE_DEGRADED;
}

/* The tiers decide, as far as the score of somebody there is worth it. */
static void tiers_come_first(void **state) {
	struct picks p;

	picks_open(&p, "composite", equal, 3, 1);
	picks_change(&p, make_tiers);
	picks_charge(&p, 2, 8);
	assert_int_equal(picks_next(&p, -1, 0), 2);
	assert_int_equal(picks_next(&p, 2, 0), 1);
	p.options.composite_min_score = 0.7;
	assert_int_equal(picks_next(&p, -1, 0), 1); /* 2 / 9 of load: (4/9 + 3) / 5 */
	p.options.composite_min_score = 1;
	picks_charge(&p, 1, 1);
	assert_int_equal(picks_next(&p, -1, 0), 0);
	picks_charge(&p, 0, 1);
	p.options.composite_min_score = 2; /* nobody: the tiers alone */
	assert_int_equal(picks_next(&p, -1, 0), 2);
	picks_close(&p);
}

/* Equal ones share, and the same request goes to the same one again. */
static void ties_are_shared_and_replayed(void **state) {
	unsigned counts[4] = { 0 };
	struct picks p, q;

	picks_open(&p, "composite", equal, 4, 1);
	picks_open(&q, "composite", equal, 4, 2);
	for (uint64_t i = 1; i <= 400; i++) {
		p.demand.seed = q.demand.seed = i;
		uint32_t row = picks_next(&p, -1, 0);

		assert_int_equal(picks_next(&q, -1, 0), row);
		counts[row]++;
	}
	for (unsigned r = 0; r < 4; r++)
		assert_in_range(counts[r], 70, 130);
	picks_close(&p);
	picks_close(&q);
}

/* From cheap and slow to dear and quick: the more speed is worth, the further the choice, never back. */
static void tolerance_moves_the_choice_one_way(void **state) {
	static const float offers[][POLICY_PARTS] = { [0] = { .2f, .1f, 1, 1 },
		[1] = { .4f, .3f, 1, .8f },
		[2] = { .7f, .6f, 1, .5f },
		[3] = { 1, 1, 1, .1f } };
	static const double weights[] = { 2, 1, 1, 1 };
	unsigned was = 0, n_steps = 0;

	for (uint8_t t = 0; t <= 100; t++) {
		struct demand demand = { .cost_tolerance = t, .has_cost_tolerance = true };
		unsigned best = 0;

		for (unsigned i = 1; i < n_elems(offers); i++)
			if (total_of(offers[i], weights, &demand) > total_of(offers[best], weights, &demand))
				best = i;
		assert_true(best >= was);
		n_steps += best != was;
		was = best;
		assert_true(t > 0 || best == 0);
	}
	assert_int_equal(was, 3);
	assert_true(n_steps >= 2);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scores_are_weighed_means),
		cmocka_unit_test(no_part_leaves_its_range),
		cmocka_unit_test(tiers_come_first),
		cmocka_unit_test(ties_are_shared_and_replayed),
		cmocka_unit_test(tolerance_moves_the_choice_one_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
