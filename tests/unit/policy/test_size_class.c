#include "unit/policy/picks.h"

#include <math.h>

#include "policy/choice.h"

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static const struct pair labels[] = { { { "cache_type", 10 }, { "static", 6 } },
	{ { "cache_type", 10 }, { "paged", 5 } }, { { "cache_type", 10 }, { "other", 5 } } };

/* a and b are static, c and d paged, e says nothing of use; a label counts more than a record. */
static void give_classes(struct snapshot_row *rows) {
	rows[0].labels = (struct pairs){ &labels[0], 1 };
	rows[0].metadata = SLICE("{\"cache_type\":\"paged\"}");
	rows[1].metadata = SLICE("{\"gpu\":{\"cache_type\":\"paged\"},\"cache_type\":\"static\"}");
	rows[2].labels = (struct pairs){ &labels[1], 1 };
	rows[3].metadata = SLICE("{\"cache_type\":\"paged\"}");
	rows[4].labels = (struct pairs){ &labels[2], 1 };
	rows[4].metadata = SLICE("{\"cache_type\":7}");
}

static void open_classes(struct picks *p, const struct policy *then, uint64_t seed) {
	picks_open(p, "size_class", equal, 5, seed);
	p->options.size_class_then = then;
	picks_change(p, give_classes);
}

static void the_class_narrows_and_the_other_policy_decides(void **state) {
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	open_classes(&p, &least_load_policy, 1);
	p.demand.prompt_bytes = 51201;
	picks_charge(&p, 0, 2);
	picks_charge(&p, 1, 1);
	picks_count(&p, 50, counts);
	assert_int_equal(counts[1], 50); /* c, d and e are idle */
	p.demand.prompt_bytes = 51200;
	picks_charge(&p, 3, 1);
	picks_count(&p, 50, counts);
	assert_int_equal(counts[2], 50);
	p.options.size_class_bytes = 100;
	picks_count(&p, 50, counts);
	assert_int_equal(counts[1], 50);
	picks_close(&p);
}

/* State of the other policy's lives in our cells: turns are kept over picks and changes of the fleet. */
static void the_other_policy_has_its_cells(void **state) {
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	open_classes(&p, &round_robin_policy, 1);
	p.demand.prompt_bytes = 60000;
	picks_count(&p, 400, counts); /* whose turn is the first is drawn */
	assert_in_range(counts[0], 199, 201);
	assert_in_range(counts[1], 199, 201);
	p.demand.prompt_bytes = 0;
	picks_count(&p, 400, counts);
	assert_in_range(counts[2], 199, 201);
	assert_in_range(counts[3], 199, 201);
	picks_close(&p);
}

static void a_class_is_a_wish(void **state) {
	enum { TRIES = 60 };
	bool is_seen[5] = { false };
	struct picks p;

	open_classes(&p, NULL, 1);
	p.demand.prompt_bytes = 60000;
	instance_avoid(picks_instance(&p, 0), 1000);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(picks_next(&p, -1, 1001), 1); /* the only one of its class that is left */
	instance_avoid(picks_instance(&p, 1), 1000);
	for (unsigned i = 0; i < TRIES; i++)
		is_seen[picks_next(&p, -1, 1001)] = true;
	assert_true(!is_seen[0] && !is_seen[1] && is_seen[2] && is_seen[3] && is_seen[4]);
	picks_close(&p);
}

/* Nobody carries a class: as if the other policy had been chosen. */
static void without_classes_it_is_the_other_policy(void **state) {
	struct picks p, q;

	picks_open(&p, "size_class", equal, 5, 3);
	p.options.size_class_then = &power_of_two_policy;
	picks_open(&q, "power_of_two", equal, 5, 3);
	q.rng = p.rng;
	for (unsigned i = 0; i < 200; i++) {
		uint32_t row = picks_next(&p, -1, 0);

		assert_int_equal(picks_next(&q, -1, 0), row);
		picks_charge(&p, row, 1);
		picks_charge(&q, row, 1);
	}
	picks_close(&p);
	picks_close(&q);
}

/* The scores are the other policy's, in their places; who is not of the class has none. */
static void scores_are_of_the_class(void **state) {
	struct picks p;

	open_classes(&p, &least_load_policy, 1);
	p.demand.prompt_bytes = 60000;
	picks_charge(&p, 0, 4);
	picks_charge(&p, 1, 1);
	(void)picks_next(&p, -1, 0);
	const struct policy *scorer = policy_scorer(&p.set, &p.set.snapshot->models[0]);
	assert_ptr_equal(scorer, &least_load_policy);
	assert_true(policy_is_cost(scorer));
	assert_true(p.set.scores[0].parts[0] == 5 * MEASURE_REQUEST);
	assert_true(p.set.scores[1].parts[0] == 2 * MEASURE_REQUEST);
	for (unsigned i = 2; i < 5; i++)
		assert_true(isnan(p.set.scores[i].total));
	picks_close(&p);
}

/* Sessions are bound for the other policy; a record that changes is read again. */
static void the_other_policy_binds(void **state) {
	struct picks p;

	open_classes(&p, &session_policy, 1);
	p.demand = (struct demand){ .prompt_bytes = 60000, .session = 77 };
	uint32_t home = picks_serve(&p, 0);
	assert_in_range(home, 0, 1);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(picks_serve(&p, 0), home);
	picks_close(&p);
}

static void who_may_follow(void **state) {
	assert_true(policy_can_follow(&cache_aware_policy));
	assert_true(policy_can_follow(&rendezvous_hash_policy));
	assert_true(policy_can_follow(&session_policy));
	assert_false(policy_can_follow(&size_class_policy));
	assert_false(policy_can_follow(&consistent_hash_policy));
	assert_false(policy_can_follow(&bucket_policy));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_class_narrows_and_the_other_policy_decides),
		cmocka_unit_test(the_other_policy_has_its_cells),
		cmocka_unit_test(a_class_is_a_wish),
		cmocka_unit_test(without_classes_it_is_the_other_policy),
		cmocka_unit_test(scores_are_of_the_class),
		cmocka_unit_test(the_other_policy_binds),
		cmocka_unit_test(who_may_follow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
