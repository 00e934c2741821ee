#include "unit/policy/stands.h"

#include <math.h>

#include "policy/filter.h"
#include "router/decision.h"

static const uint16_t equal[] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static void a_ring_keeps_the_newest(void **state) {
	struct decision_ring ring;
	uint32_t handles[25];
	char room[DECISION_TEXT_BYTES];

	decision_ring_init(&ring, 3, 10);
	assert_null(decision_at(&ring, 0));
	for (uint32_t i = 0; i < 25; i++) {
		char id[8];

		snprintf(id, sizeof(id), "r%u", i);
		handles[i] = decision_begin(&ring, slice_of(id), SLICE("m"));
		assert_int_not_equal(handles[i], DECISION_NONE);
	}
	for (uint32_t i = 0; i < 25; i++)
		assert_int_equal(decision_find(&ring, handles[i]) != NULL, i >= 15);
	assert_null(decision_find(&ring, DECISION_NONE));
	for (uint32_t age = 0; age < 10; age++)
		assert_ptr_equal(decision_at(&ring, age), decision_find(&ring, handles[24 - age]));
	assert_null(decision_at(&ring, 10));
	const struct decision *d = decision_at(&ring, 0);
	assert_true(slice_eq((struct slice){ d->id, d->id_n }, SLICE("r24")));
	assert_true(slice_eq(decision_text(d, room), SLICE("3-25")));
	decision_ring_deinit(&ring);
}

static void a_handle_is_never_that_of_none(void **state) {
	struct decision_ring ring;

	decision_ring_init(&ring, 0, 4);
	ring.n_begun = UINT32_MAX - 1;
	uint32_t last = decision_begin(&ring, SLICE("a"), SLICE("m")),
		 next = decision_begin(&ring, SLICE("b"), SLICE("m"));
	assert_int_not_equal(next, DECISION_NONE);
	assert_int_not_equal(last, next);
	assert_non_null(decision_find(&ring, last));
	assert_non_null(decision_find(&ring, next));
	assert_ptr_equal(decision_at(&ring, 0), decision_find(&ring, next));
	decision_ring_deinit(&ring);
}

static void a_ring_may_be_off(void **state) {
	struct decision_ring ring;

	decision_ring_init(&ring, 0, 0);
	assert_false(decision_ring_is_on(&ring));
	assert_null(decision_find(&ring, 1));
	assert_null(decision_at(&ring, 0));
	decision_ring_deinit(&ring);
}

/* What fits of it, in whole characters. */
static void the_model_asked_for_is_kept(void **state) {
	struct decision_ring ring;
	char name[DECISION_MODEL_MAX + 8];

	decision_ring_init(&ring, 0, 4);
	struct decision *d = decision_find(&ring, decision_begin(&ring, SLICE("r"), SLICE("m")));
	assert_true(slice_eq((struct slice){ d->asked, d->asked_n }, SLICE("m")));
	d = decision_find(&ring, decision_begin(&ring, SLICE("r"), (struct slice){ NULL, 0 }));
	assert_int_equal(d->asked_n, 0);
	memset(name, 'x', sizeof(name));
	for (size_t n = DECISION_MODEL_MAX - 1; n <= sizeof(name); n++) {
		d = decision_find(&ring, decision_begin(&ring, SLICE("r"), (struct slice){ name, n }));
		assert_int_equal(d->asked_n, size_min(n, DECISION_MODEL_MAX));
	}
	memcpy(name + DECISION_MODEL_MAX - 2, "\xe2\x82\xac", 3); /* three bytes, two of which would fit */
	d = decision_find(&ring, decision_begin(&ring, SLICE("r"), (struct slice){ name, sizeof(name) }));
	assert_int_equal(d->asked_n, DECISION_MODEL_MAX - 2);
	decision_ring_deinit(&ring);
}

/* One pick for the record, with these rows tried. */
static struct decision *record(
    struct decision_ring *ring, struct picks *p, const uint16_t *tried, uint32_t n_tried) {
	struct pick_input input = { .model = snapshot_model(p->set.snapshot, SLICE("m")),
		.demand = &p->demand,
		.tried = tried,
		.n_tried = n_tried,
		.now_ns = 200000000 };
	struct decision *d = decision_find(ring, decision_begin(ring, SLICE("id"), SLICE("m")));
	struct pick_result pick;

	assert_int_equal(policy_pick(&p->set, &input, &pick), 0);
	decision_pick(d, &p->set, &input, &pick, 123);
	assert_int_equal(d->chosen.serial, pick.instance->serial);
	assert_int_equal(d->reason, pick.reason);
	return d;
}

/* Queues of 0, 100, 200 ... tokens: the order of their costs is that of the rows. */
static void alternatives_are_the_best_of_the_others(void **state) {
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "cache_aware", equal, 8, 1);
	p.demand = (struct demand){ .prompt_tokens = 1000, .prompt_bytes = 4000, .seed = 5, .session = 1 };
	for (uint32_t i = 0; i < 8; i++)
		load_charge(p.load, 0, picks_instance(&p, (i * 3) % 8)->slot, i * 8000);
	struct decision *d = record(&ring, &p, NULL, 0);
	assert_true(d->has_scores);
	assert_int_equal(d->chosen.serial, picks_instance(&p, 0)->serial);
	assert_int_equal(d->n_alternatives, DECISION_ALTERNATIVES);
	for (uint32_t i = 0; i < DECISION_ALTERNATIVES; i++)
		assert_int_equal(d->alternatives[i].serial, picks_instance(&p, ((i + 1) * 3) % 8)->serial);
	assert_int_equal(d->pick_ns, 123);
	assert_int_equal(d->prompt_tokens, 1000);
	assert_true(d->has_session);
	assert_int_equal(d->n_rejected, 0);
	for (uint32_t i = 0; i < 8; i++)
		load_release_prefill(p.load, 0, picks_instance(&p, (i * 3) % 8)->slot, i * 8000);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

static void classify(struct snapshot_row *rows) {
	static const struct pair labels[] = { { { "cache_type", 10 }, { "paged", 5 } },
		{ { "cache_type", 10 }, { "static", 6 } } };

	for (uint32_t r = 0; r < 8; r++)
		rows[r].labels = (struct pairs){ &labels[r >= 4], 1 };
}

/* size_class has another policy's costs, and none of those that are not of the class. */
static void alternatives_are_ranked_by_whose_scores_they_are(void **state) {
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "size_class", equal, 8, 1);
	p.options.size_class_then = policy_find(SLICE("least_load"));
	picks_change(&p, classify);
	for (uint32_t i = 0; i < 4; i++)
		picks_charge(&p, (i * 3) % 4, i);
	struct decision *d = record(&ring, &p, NULL, 0);
	assert_ptr_equal(d->scorer, p.options.size_class_then);
	assert_int_equal(d->chosen.serial, picks_instance(&p, 0)->serial);
	assert_int_equal(d->n_alternatives, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(d->alternatives[i].serial, picks_instance(&p, ((i + 1) * 3) % 4)->serial);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

/* Two were drawn: nothing is known of the others. */
static void alternatives_were_compared(void **state) {
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "power_of_two", equal, 8, 1);
	for (uint32_t i = 0; i < 8; i++)
		picks_charge(&p, i, i);
	for (unsigned i = 0; i < 20; i++) {
		struct decision *d = record(&ring, &p, NULL, 0);

		assert_int_equal(d->n_alternatives, 1);
		assert_true(d->chosen.score.total < d->alternatives[0].score.total);
	}
	picks_close(&p);
	decision_ring_deinit(&ring);
}

static void the_rejected_have_their_first_code(void **state) {
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "round_robin", equal, 8, 1);
	picks_ail(&p, "gh");
	for (uint32_t i = 1; i < 4; i++)
		instance_avoid(picks_instance(&p, i), 100);
	uint16_t tried[] = { picks_instance(&p, 0)->slot };
	struct decision *d = record(&ring, &p, tried, 1);
	assert_false(d->has_scores);
	assert_int_equal(d->n_alternatives, 0);
	assert_int_equal(d->n_rejected, 6);
	assert_int_equal(d->n_listed, DECISION_REJECTED);
	assert_int_equal(d->rejected[0].code, FILTER_ALREADY_TRIED);
	assert_int_equal(d->rejected[1].code, FILTER_AVOIDED);
	assert_int_equal(d->rejected[3].label, picks_instance(&p, 3)->label);
	assert_true(isnan(d->rejected[0].detail.value));
	assert_true(d->rejected[1].detail.value > 0); /* ms for which it is avoided */
	picks_close(&p);
	decision_ring_deinit(&ring);
}

/* Queues of 5, 4 ... 0 requests: scores of .67 .68 .7 .73 .8 1. */
static void composite_leaves_out_the_worst(void **state) {
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "composite", equal, 6, 1);
	for (uint32_t i = 0; i < 6; i++)
		picks_charge(&p, i, 5 - i);
	p.options.composite_min_score = 0.69;
	struct decision *d = record(&ring, &p, NULL, 0);
	assert_int_equal(d->chosen.serial, picks_instance(&p, 5)->serial);
	assert_int_equal(d->n_eligible, 4);
	assert_int_equal(d->n_alternatives, 3);
	assert_int_equal(d->n_rejected, 2);
	assert_int_equal(d->n_listed, 2);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(d->rejected[i].label, picks_instance(&p, i)->label);
		assert_int_equal(d->rejected[i].code, FILTER_BELOW_MIN_SCORE);
		assert_float_equal(d->rejected[i].detail.value, i ? 0.68 : 0.667, 0.001);
		assert_float_equal(d->rejected[i].detail.limit, 0.69, 0.001);
	}
	p.options.composite_candidates_max = 2;
	d = record(&ring, &p, NULL, 0);
	assert_int_equal(d->n_eligible, 2);
	assert_int_equal(d->n_rejected, 4);
	assert_int_equal(d->n_alternatives, 1);
	assert_int_equal(d->alternatives[0].serial, picks_instance(&p, 4)->serial);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

/* The far ones are in order: nobody's code says so, but there are more of them than rejected ones are listed.
 */
static void the_ring_stands_beside_the_reason(void **state) {
	static const struct stand stands[] = { { .labels = "zone=z2 region=r1" },
		{ .labels = "zone=z1 region=r1" }, { .labels = "zone=z1 region=r1" },
		{ .labels = "zone=z3 region=r2" } };
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	stands_open(&p, "round_robin", stands, 4);
	assert_int_equal(record(&ring, &p, NULL, 0)->ring, PICK_RING_NONE);
	p.options.locality = (struct locality_options){ LOCALITY_PREFER, traits_word(SLICE("z1")),
		traits_word(SLICE("r1")), 0.8, 64 };
	struct decision *d = record(&ring, &p, NULL, 0);
	assert_int_equal(d->ring, PICK_RING_ZONE);
	assert_int_equal(d->reason, PICK_ROUND_ROBIN);
	assert_int_equal(d->n_eligible, 2);
	assert_int_equal(d->n_rejected, 2);
	assert_int_equal(d->n_listed, 0);
	uint16_t tried[] = { picks_instance(&p, 1)->slot, picks_instance(&p, 2)->slot };
	d = record(&ring, &p, tried, 2);
	assert_int_equal(d->ring, PICK_RING_REGION);
	assert_int_equal(d->chosen.serial, picks_instance(&p, 0)->serial);
	assert_int_equal(d->n_rejected, 3);
	assert_int_equal(d->n_listed, 2);
	assert_int_equal(d->rejected[0].code, FILTER_ALREADY_TRIED);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

/* Only what a filter speaks against is listed, be it the last of them all. */
static void those_beside_an_owner_are_not_listed(void **state) {
	static const struct stand stands[] = { { .labels = NULL }, { .labels = NULL }, { .labels = NULL },
		{ .labels = NULL }, { .labels = NULL }, { .labels = "context=10" } };
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	stands_open(&p, "round_robin", stands, 6);
	picks_keep_response(&p, 1, 77, 0);
	p.demand.response = 77;
	struct decision *d = record(&ring, &p, NULL, 0);
	assert_int_equal(d->reason, PICK_RESPONSE_OWNER);
	assert_int_equal(d->n_rejected, 5);
	assert_int_equal(d->n_listed, 0);
	p.demand.prompt_tokens = 100;
	d = record(&ring, &p, NULL, 0);
	assert_int_equal(d->reason, PICK_RESPONSE_OWNER);
	assert_int_equal(d->n_rejected, 5);
	assert_int_equal(d->n_listed, 1);
	assert_int_equal(d->rejected[0].label, picks_instance(&p, 5)->label);
	assert_int_equal(d->rejected[0].code, FILTER_CONTEXT_TOO_SMALL);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

static void a_panic_is_in_the_record(void **state) {
	struct decision_ring ring;
	struct picks p;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "round_robin", equal, 8, 1);
	picks_ail(&p, "abcd");
	assert_false(record(&ring, &p, NULL, 0)->is_panic);
	picks_ail(&p, "abcde");
	assert_true(record(&ring, &p, NULL, 0)->is_panic);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

static void attempts_keep_what_they_died_of(void **state) {
	struct decision_ring ring;
	struct picks p;
	struct pick_result pick;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "round_robin", equal, 8, 1);
	struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
		.demand = &p.demand };
	struct decision *d = record(&ring, &p, NULL, 0);
	for (unsigned i = 1; i < 7; i++) {
		uint32_t label = d->chosen.label;
		decision_failed(d, label, i == 1 ? CAUSE_CONNECT_FAILED : CAUSE_CONNECT_TIMEOUT);
		decision_failed(d, label, CAUSE_NO_INSTANCE); /* what came of it, not what it died of */
		assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
		decision_pick(d, &p.set, &input, &pick, 0);
	}
	assert_int_equal(d->n_attempts, 7);
	assert_int_equal(d->attempts[0].cause, CAUSE_CONNECT_FAILED);
	for (unsigned i = 1; i < DECISION_ATTEMPTS; i++)
		assert_int_equal(d->attempts[i].cause, CAUSE_CONNECT_TIMEOUT);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

/* Two have a request at a time: each dies of its own, and the first may be the one that answers. */
static void each_of_two_has_its_own_cause(void **state) {
	struct decision_ring ring;
	struct picks p;
	struct pick_result pick;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "round_robin", equal, 8, 1);
	struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
		.demand = &p.demand };
	struct decision *d = record(&ring, &p, NULL, 0);
	assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
	const struct instance *first = pick.instance;
	decision_pick(d, &p.set, &input, &pick, 0);
	assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
	decision_pick(d, &p.set, &input, &pick, 0);
	assert_int_not_equal(first->label, pick.instance->label);
	decision_failed(d, first->label, CAUSE_UPSTREAM_CLOSED);
	assert_int_equal(d->attempts[1].cause, CAUSE_UPSTREAM_CLOSED);
	assert_int_equal(d->attempts[2].cause, CAUSE_NONE);
	decision_failed(d, pick.instance->label, CAUSE_HEDGE_LOST);
	assert_int_equal(d->attempts[2].cause, CAUSE_HEDGE_LOST);
	decision_return(d, first, PICK_ROUND_ROBIN, 7);
	assert_int_equal(d->chosen.serial, first->serial);
	assert_int_equal(d->chosen.label, first->label);
	assert_int_equal(d->predicted_tokens, 7);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

static void who_was_refused_has_a_record(void **state) {
	struct decision_ring ring;
	struct picks p;
	struct pick_result pick;

	decision_ring_init(&ring, 0, 4);
	picks_open(&p, "round_robin", equal, 8, 1);
	p.demand = (struct demand){ .privacy = PRIVACY_RESTRICTED,
		.features = 1u << FEATURE_TOOLS,
		.prompt_bytes = 40,
		.session = 7 };
	struct pick_input input = {
		.model = snapshot_model(p.set.snapshot, SLICE("m")), .demand = &p.demand, .now_ns = 77
	};
	struct decision *d = decision_find(&ring, decision_begin(&ring, SLICE("id"), SLICE("m")));
	assert_int_equal(policy_pick(&p.set, &input, &pick), PICK_E_PRIVACY);
	decision_refuse(d, &p.set, &input, CAUSE_PRIVACY_VIOLATION, 5);
	assert_int_equal(d->refusal, CAUSE_PRIVACY_VIOLATION);
	assert_int_equal(d->chosen.serial, 0);
	assert_int_equal(d->at_ns, 77);
	assert_int_equal(d->prompt_bytes, 40);
	assert_int_equal(d->n_candidates, 8);
	assert_int_equal(d->n_eligible, 0);
	assert_int_equal(d->n_rejected, 8);
	assert_int_equal(d->n_listed, DECISION_REJECTED);
	assert_int_equal(d->features, 1u << FEATURE_TOOLS);
	for (unsigned i = 0; i < DECISION_REJECTED; i++) {
		assert_int_equal(d->rejected[i].code, FILTER_CLEARANCE_LOW);
		assert_true(d->rejected[i].detail.value == PRIVACY_RESTRICTED);
		assert_true(d->rejected[i].detail.limit == PRIVACY_PUBLIC);
	}
	input.model = NULL;
	d = decision_find(&ring, decision_begin(&ring, SLICE("id"), SLICE("m")));
	decision_refuse(d, &p.set, &input, CAUSE_MODEL_NOT_FOUND, 0);
	assert_null(d->policy);
	assert_int_equal(d->n_rejected, 0);
	picks_close(&p);
	decision_ring_deinit(&ring);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ring_keeps_the_newest),
		cmocka_unit_test(a_handle_is_never_that_of_none),
		cmocka_unit_test(the_model_asked_for_is_kept),
		cmocka_unit_test(a_ring_may_be_off),
		cmocka_unit_test(alternatives_are_the_best_of_the_others),
		cmocka_unit_test(alternatives_are_ranked_by_whose_scores_they_are),
		cmocka_unit_test(alternatives_were_compared),
		cmocka_unit_test(the_rejected_have_their_first_code),
		cmocka_unit_test(composite_leaves_out_the_worst),
		cmocka_unit_test(the_ring_stands_beside_the_reason),
		cmocka_unit_test(those_beside_an_owner_are_not_listed),
		cmocka_unit_test(a_panic_is_in_the_record),
		cmocka_unit_test(attempts_keep_what_they_died_of),
		cmocka_unit_test(each_of_two_has_its_own_cause),
		cmocka_unit_test(who_was_refused_has_a_record),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
