#include "unit/policy/stands.h"

#include "base/mix.h"
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

static float part_of(const struct picks *p, uint32_t row, enum part part) {
	return p->set.scores[row].parts[part];
}

static void assert_part(const struct picks *p, uint32_t row, enum part part, double expected) {
	assert_float_equal(part_of(p, row, part), expected, 1e-6);
}

/* Where nobody has a price; who says nothing costs 1. */
static void without_prices_costs_are_compared(void **state) {
	static const struct stand stands[] = { { .labels = "cost=4" }, { .labels = "cost=0.5" },
		{ .labels = NULL } };
	static const struct stand priced[] = { { .labels = "cost=4" }, { .labels = "price_in=2" },
		{ .labels = NULL } };
	struct picks p;

	stands_open(&p, "composite", stands, 3);
	assert_int_equal(picks_next(&p, -1, 0), 1);
	assert_part(&p, 0, PART_COST, 0.125);
	assert_part(&p, 1, PART_COST, 1);
	assert_part(&p, 2, PART_COST, 0.5);
	stands_adopt(&p, priced, 3);
	(void)picks_next(&p, -1, 0);
	assert_part(&p, 0, PART_COST, 1);
	picks_close(&p);
}

/* Cached tokens, uncached ones and those of the answer, each at what they cost there. */
static void the_price_is_of_this_request(void **state) {
	static const struct stand stands[] = { { .labels = "price_in=4000 price_out=4000" },
		{ .labels = "price_in=1000 price_out=8000" }, { .labels = "price_in=2000 price_out=2000" },
		{ .labels = NULL }, { .labels = "price_in=4000 price_in@m=3000 price_out=2000" } };
	struct picks p;

	stands_open(&p, "composite", stands, 5);
	p.options.composite_weights[PART_LOAD] = 0;
	p.options.composite_weights[PART_COST] = 100;
	p.demand.prompt_tokens = 1000;
	p.demand.output_tokens = 100;
	(void)picks_next(&p, -1, 0); /* 4.4, 1.8, 2.2, not known, 3.2 */
	assert_part(&p, 0, PART_COST, 1.8 / 4.4);
	assert_part(&p, 1, PART_COST, 1);
	assert_part(&p, 2, PART_COST, 1.8 / 2.2);
	assert_part(&p, 3, PART_COST, 1);
	assert_part(&p, 4, PART_COST, 1.8 / 3.2);
	assert_int_equal(picks_next(&p, 3, 0), 1);
	p.demand.output_tokens = 1000; /* 8, 9, 4, -, 5 */
	assert_int_equal(picks_next(&p, 3, 0), 2);
	assert_part(&p, 1, PART_COST, 4.0 / 9);
	p.demand.output_max = 10; /* 4.04, 1.08, 2.02, -, 3.02: no more than was asked for */
	assert_int_equal(picks_next(&p, 3, 0), 1);
	assert_part(&p, 0, PART_COST, 1.08 / 4.04);
	picks_close(&p);
}

/* Who is free is cheaper than who is cheap, and nobody is as good as that. */
static void free_is_a_price(void **state) {
	static const struct stand stands[] = { { .labels = "price_in=1" }, { .labels = "price_in=1000000" },
		{ .labels = "price_in=0 price_out=0" } };
	struct picks p;

	stands_open(&p, "composite", stands, 3);
	p.demand.prompt_tokens = 1000;
	assert_int_equal(picks_next(&p, -1, 0), 2);
	assert_part(&p, 0, PART_COST, 0);
	assert_part(&p, 1, PART_COST, 0);
	assert_part(&p, 2, PART_COST, 1);
	picks_close(&p);
}

/* What is cached at a dear one may make it the cheapest. */
static void cached_tokens_have_their_own_price(void **state) {
	static const struct stand stands[] = { { .labels = "price_in=2000 price_cached=1000" },
		{ .labels = "price_in=2000" }, { .labels = "price_in=4000 price_cached=500" } };
	uint64_t keys[8];
	struct picks p;

	for (uint64_t i = 0; i < n_elems(keys); i++)
		keys[i] = mix64(i + 1);
	stands_open(&p, "composite", stands, 3);
	p.set.index = prefix_index_new(1u << 20);
	stands_adopt(&p, stands, 3);
	p.options.composite_weights[PART_COST] = 100;
	p.demand = (struct demand){ .keys = keys,
		.n_keys = n_elems(keys),
		.prompt_bytes = n_elems(keys) * PROMPT_BLOCK_BYTES,
		.prompt_tokens = 4096 };
	for (uint32_t r = 0; r < 3; r++) {
		struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
			.demand = &p.demand };
		struct pick_result result;
		struct ticket t = { .phase = TICKET_CLOSED };

		assert_int_equal(policy_pick(&p.set, &input, &result), 0);
		result.instance = picks_instance(&p, r);
		result.row = r;
		ticket_open(&t, &p.set, &input, &result);
		ticket_close(&t, &p.set, NULL);
	}
	assert_int_equal(picks_next(&p, -1, 0), 2); /* 1000, 2000, 500 each */
	assert_part(&p, 0, PART_COST, 0.5);
	assert_part(&p, 1, PART_COST, 0.25);
	p.demand.n_keys = 4; /* half of it: 1500, 2000, 2250 */
	assert_int_equal(picks_next(&p, -1, 0), 0);
	assert_part(&p, 1, PART_COST, 1500.0 / 2000);
	assert_part(&p, 2, PART_COST, 1500.0 / 2250);
	prefix_index_free(&p.set.index);
	picks_close(&p);
}

static void nearness_is_of_the_request(void **state) {
	static const struct stand stands[] = { { .labels = "zone=z3 region=r2" },
		{ .labels = "zone=z2 region=r1" }, { .labels = "zone=z1 region=r1" }, { .labels = NULL } };
	static const float at_z1[] = { 0, 0.5f, 1, 0 }, at_z3[] = { 1, 0, 0, 0 }, at_z2[] = { 0, 1, 0.5f, 0 };
	static const struct {
		const char *zone;
		const float *parts;
		uint32_t picked;
	} cases[] = { { "", at_z1, 2 }, { "z3", at_z3, 0 }, { "z2", at_z2, 1 }, { "z1", at_z1, 2 } };
	struct picks p;

	stands_open(&p, "composite", stands, 4);
	(void)picks_next(&p, -1, 0); /* nobody said where we are */
	for (uint32_t r = 0; r < 4; r++)
		assert_part(&p, r, PART_LOCALITY, 1);
	p.options.locality.zone = traits_word(SLICE("z1"));
	p.options.locality.region = traits_word(SLICE("r1"));
	for (unsigned i = 0; i < n_elems(cases); i++) {
		p.demand.origin_zone = traits_word(slice_of(cases[i].zone));
		assert_int_equal(picks_next(&p, -1, 0), cases[i].picked);
		for (uint32_t r = 0; r < 4; r++)
			assert_part(&p, r, PART_LOCALITY, (double)cases[i].parts[r]);
	}
	picks_close(&p);
}

/* From cheap and slow to dear and quick: the more speed is worth, the further the choice, never back. The
 * letters are not in that order, and one is neither. */
static void tolerance_moves_the_choice_one_way(void **state) {
	static const struct {
		double first_token_s;
		struct stand stand;
		int place; /* on the way from the cheapest to the fastest; -1: not on it */
	} offers[] = {
		{ 0.15, { .labels = "price_in=1200 price_out=1200" }, 2 },
		{ 2, { .labels = "price_in=2500 price_out=2500" }, -1 },
		{ 0.1, { .labels = "price_in=10000 price_out=10000" }, 3 },
		{ 1, { .labels = "price_in=1000 price_out=1000" }, 0 },
		{ 0.3, { .labels = "price_in=1050 price_out=1050" }, 1 },
	};
	struct stand stands[n_elems(offers)];
	unsigned n_steps = 0;
	int was = 0;
	struct picks p;

	for (unsigned i = 0; i < n_elems(offers); i++)
		stands[i] = offers[i].stand;
	stands_open(&p, "composite", stands, n_elems(offers));
	for (unsigned i = 0; i < n_elems(offers); i++)
		show(&p, i, offers[i].first_token_s);
	p.demand.prompt_tokens = 1000;
	p.demand.has_cost_tolerance = true;
	for (uint8_t t = 0; t <= 100; t++) {
		p.demand.cost_tolerance = t;
		int place = offers[picks_next(&p, -1, NOW_MS)].place;

		assert_true(place >= was);
		assert_true(t > 0 || place == 0);
		n_steps += place != was;
		was = place;
	}
	assert_int_equal(was, 3);
	assert_int_equal(n_steps, 3); /* none is passed over */
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scores_are_weighed_means),
		cmocka_unit_test(no_part_leaves_its_range),
		cmocka_unit_test(tiers_come_first),
		cmocka_unit_test(ties_are_shared_and_replayed),
		cmocka_unit_test(without_prices_costs_are_compared),
		cmocka_unit_test(the_price_is_of_this_request),
		cmocka_unit_test(free_is_a_price),
		cmocka_unit_test(cached_tokens_have_their_own_price),
		cmocka_unit_test(nearness_is_of_the_request),
		cmocka_unit_test(tolerance_moves_the_choice_one_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
