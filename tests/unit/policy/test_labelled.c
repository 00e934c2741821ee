/* Which policy a model has when those who serve it name one. */
#include "unit/policy/stands.h"

static const char *policy_now(const struct picks *p, const char *model) {
	const struct snapshot *snap = p->set.snapshot;

	return policy_name(policy_of(&p->set, model[0] ? snapshot_model(snap, slice_of(model)) : &snap->any));
}

static void the_first_that_names_a_policy_counts(void **state) {
	static const struct stand stands[] = { { .labels = "policy=none_such" },
		{ .labels = "policy=least_load", .state = INSTANCE_UNHEALTHY }, { .labels = "policy=random" },
		{ .labels = "policy@other=random", .model = "n" } };
	static const struct stand fewer[] = { { .labels = "policy=none_such" }, { .labels = NULL },
		{ .labels = "policy=random" }, { .labels = "policy@n=power_of_two", .model = "n" } };
	struct picks p;

	stands_open(&p, "round_robin", stands, 4);
	assert_string_equal(policy_now(&p, "m"), "least_load");
	assert_string_equal(policy_now(&p, "n"), "round_robin");
	assert_string_equal(policy_now(&p, ""), "round_robin");
	stands_adopt(&p, fewer, 4);
	assert_string_equal(policy_now(&p, "m"), "random");
	assert_string_equal(policy_now(&p, "n"), "power_of_two");
	assert_string_equal(policy_now(&p, ""), "round_robin");
	picks_close(&p);
}

static void what_the_operator_named_comes_first(void **state) {
	static const struct stand stands[] = { { .labels = "policy=random" },
		{ .labels = "policy=random", .model = "n" } };
	const struct policy_of_model own = { { "m", 1 }, policy_find(SLICE("session")) };
	struct picks p;

	stands_open(&p, "round_robin", stands, 2);
	p.options.models = &own;
	p.options.n_models = 1;
	policy_set_retune(&p.set, &p.options);
	assert_string_equal(policy_now(&p, "m"), "session");
	assert_string_equal(policy_now(&p, "n"), "random");
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_that_names_a_policy_counts),
		cmocka_unit_test(what_the_operator_named_comes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
