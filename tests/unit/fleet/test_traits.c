#include "fleet/traits.h"

#include "unit/unit.h"

#define LABEL(key, value)                                                                                    \
	{                                                                                                    \
		{ key, sizeof(key) - 1 }, {                                                                  \
			value, sizeof(value) - 1                                                             \
		}                                                                                            \
	}

static struct traits declared(const struct pair *labels, uint32_t n, const char *model, bool is_ours) {
	struct traits t = { .known = 0 };

	traits_declare(&t, (struct pairs){ labels, n }, slice_of(model), is_ours);
	return t;
}

static void nothing_said_is_nothing_known(void **state) {
	static const struct pair labels[] = { LABEL("rack", "7"), LABEL("rôle", "decode"), LABEL("", "") };
	struct traits t = declared(labels, n_elems(labels), "m", true);

	assert_memory_equal(&t, &(struct traits){ .known = 0 }, sizeof(t));
}

static void every_label_is_read(void **state) {
	static const struct pair labels[] = {
		LABEL("capabilities", "rerank,score"),
		LABEL("features", "tools"),
		LABEL("context", "8192"),
		LABEL("clearance", "confidential"),
		LABEL("residency", "eu, de"),
		LABEL("zone", "z1"),
		LABEL("region", "r1"),
		LABEL("accelerator", "h100"),
		LABEL("price_in", "150000"),
		LABEL("price_cached", "0"),
		LABEL("price_out", "1000000000000"),
		LABEL("capacity", "16"),
		LABEL("role", "decode"),
		LABEL("kv_connector", "moriio"),
		LABEL("kv_mode", "write"),
		LABEL("bootstrap_port", "8998"),
		LABEL("zmq_address", "10.0.0.1:5555"),
		LABEL("tp_size", "8"),
		LABEL("dp_size", "2"),
		LABEL("priority", "4294967295"),
		LABEL("cost", "0.25"),
		LABEL("policy", "random"),
		LABEL("provider", "openai"),
	};
	struct traits t = declared(labels, n_elems(labels), "m", true);

	assert_int_equal(t.known, (1u << TRAITS) - 1);
	assert_int_equal(t.capabilities, 1u << CAPABILITY_RERANK | 1u << CAPABILITY_SCORE);
	assert_int_equal(t.features, 1u << FEATURE_TOOLS);
	assert_int_equal(t.context_tokens, 8192);
	assert_int_equal(t.clearance, PRIVACY_CONFIDENTIAL);
	assert_true(slice_eq(t.residency, SLICE("eu, de")));
	assert_true(t.zone == traits_word(SLICE("z1")) && t.region == traits_word(SLICE("r1")));
	assert_true(t.zone != t.region && t.accelerator == traits_word(SLICE("h100")));
	assert_int_equal(traits_priority(&t), UINT32_MAX);
	assert_true(traits_cost(&t) == 0.25);
	assert_true(slice_eq(t.policy, SLICE("random")));
	assert_int_equal(t.price_in, 150000);
	assert_int_equal(t.price_cached, 0);
	assert_int_equal(t.price_out, 1000000000000);
	assert_int_equal(t.capacity, 16);
	assert_int_equal(t.kv.role, ROLE_DECODE);
	assert_int_equal(t.kv.connector, CONNECTOR_MORIIO);
	assert_int_equal(t.kv.mode, KV_MODE_WRITE);
	assert_int_equal(t.kv.bootstrap_port, 8998);
	assert_true(slice_eq(t.kv.zmq_address, SLICE("10.0.0.1:5555")));
	assert_int_equal(t.kv.tp_size, 8);
	assert_int_equal(t.kv.dp_size, 2);
	for (size_t i = 0; i < n_elems(labels); i++)
		assert_null(traits_mistake(labels[i].key, labels[i].value, true));
}

static void a_label_of_the_model_counts_more(void **state) {
	static const struct pair labels[] = { LABEL("context", "1000"), LABEL("context@m", "2000"),
		LABEL("context@a@b", "3000"), LABEL("capabilities@m", "rerank") };

	assert_int_equal(declared(labels, n_elems(labels), "m", true).context_tokens, 2000);
	assert_int_equal(declared(labels, n_elems(labels), "a@b", true).context_tokens, 3000);
	assert_int_equal(declared(labels, n_elems(labels), "other", true).context_tokens, 1000);
	assert_int_equal(declared(labels, n_elems(labels), "", true).context_tokens, 1000);
	assert_int_equal(declared(labels, n_elems(labels), "m", true).capabilities, 1u << CAPABILITY_RERANK);
	assert_int_equal(declared(labels, n_elems(labels), "other", true).capabilities, 0);
}

static void only_the_operator_clears(void **state) {
	static const struct pair labels[] = { LABEL("clearance", "restricted"), LABEL("residency", "eu"),
		LABEL("clearance@m", "restricted"), LABEL("zone", "z1") };
	struct traits t = declared(labels, n_elems(labels), "m", false);

	assert_int_equal(t.known, 1u << TRAIT_ZONE);
	assert_int_equal(t.clearance, PRIVACY_PUBLIC);
	assert_int_equal(t.residency.n, 0);
	assert_non_null(traits_mistake(labels[0].key, labels[0].value, false));
	assert_non_null(traits_mistake(labels[1].key, labels[1].value, false));
	assert_null(traits_mistake(labels[3].key, labels[3].value, false));
}

static void mistakes_are_named_and_not_read(void **state) {
	static const struct pair labels[] = {
		LABEL("capabilities", "chats"),
		LABEL("capabilities", ""),
		LABEL("features", "tool"),
		LABEL("context", "0"),
		LABEL("context", "8k"),
		LABEL("context", "4294967296"),
		LABEL("clearance", "secret"),
		LABEL("clearance", "Restricted"),
		LABEL("zone", ""),
		LABEL("region", ""),
		LABEL("accelerator", ""),
		LABEL("price_in", "0.15"),
		LABEL("price_cached", "-1"),
		LABEL("price_out", "1000000000001"),
		LABEL("capacity", "many"),
		LABEL("capacity@m", "many"),
		LABEL("priority", "4294967296"),
		LABEL("priority", "-1"),
	};

	for (size_t i = 0; i < n_elems(labels); i++) {
		struct traits t = declared(&labels[i], 1, "m", true);

		assert_non_null(traits_mistake(labels[i].key, labels[i].value, true));
		assert_memory_equal(&t, &(struct traits){ .known = 0 }, sizeof(t));
	}
	assert_non_null(traits_mistake(SLICE("context@"), SLICE("1"), true));
	assert_null(traits_mistake(SLICE("contexts"), SLICE("x"), true));
	assert_null(traits_mistake(SLICE("team@home"), SLICE("x"), true));
	assert_true(slice_eq(traits_model(SLICE("clearance@a@b")), SLICE("a@b")));
	assert_null(traits_model(SLICE("team@home")).p);
	assert_null(traits_model(SLICE("clearance")).p);
}

static void the_engine_says_its_context(void **state) {
	static const struct {
		const char *object;
		uint32_t tokens;
	} cases[] = {
		{ "", 0 },
		{ "{\"id\":\"m\"}", 0 },
		{ "{\"id\":\"m\",\"max_model_len\":4096}", 4096 },
		{ "{\"id\":\"m\",\"max_model_len\":null}", 0 },
		{ "{\"id\":\"m\",\"max_model_len\":-1}", 0 },
		{ "{\"id\":\"m\",\"max_model_len\":99999999999}", UINT32_MAX },
		{ "{\"id\":\"max_model_len\"}", 0 },
		{ "{\"max_model_len\":", 0 },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct traits t = { .known = 0 };

		traits_discover(&t, slice_of(cases[i].object));
		assert_int_equal(t.context_tokens, cases[i].tokens);
		assert_int_equal(t.known, cases[i].tokens ? 1u << TRAIT_CONTEXT : 0);
	}
	struct traits t = { .known = 1u << TRAIT_CONTEXT, .context_tokens = 7 };
	traits_discover(&t, slice_of(cases[2].object));
	assert_int_equal(t.context_tokens, 7);
}

static void the_least_is_what_all_can_do(void **state) {
	static const struct pair labels[][3] = {
		{ LABEL("capabilities", "completion,rerank"), LABEL("context", "100"),
		    LABEL("clearance", "restricted") },
		{ LABEL("capabilities", "rerank,score"), LABEL("context", "90"),
		    LABEL("clearance", "internal") },
		{ LABEL("features", "tools"), LABEL("zone", "z"), LABEL("clearance", "confidential") },
	};
	struct traits_least least = TRAITS_LEAST;

	for (unsigned i = 0; i < 3; i++) {
		struct traits t = declared(labels[i], 3, "m", true);

		traits_join(&least, &t);
	}
	assert_int_equal(least.capabilities, 1u << CAPABILITY_RERANK);
	assert_int_equal(least.features, 1u << FEATURE_TOOLS);
	assert_int_equal(least.context_tokens, 90);
	assert_int_equal(least.clearance, PRIVACY_INTERNAL);
	traits_join(&least, &(struct traits){ .known = 0 });
	assert_int_equal(least.capabilities, 1u << CAPABILITY_RERANK);
	assert_int_equal(least.context_tokens, 90);
	assert_int_equal(least.clearance, PRIVACY_PUBLIC);
}

static void tags_are_a_subset(void **state) {
	assert_true(traits_has_tags(SLICE("eu, de"), SLICE("de")));
	assert_true(traits_has_tags(SLICE("eu,de"), SLICE(" de ,eu")));
	assert_true(traits_has_tags(SLICE("eu"), SLICE("")));
	assert_true(traits_has_tags((struct slice){ NULL, 0 }, (struct slice){ NULL, 0 }));
	assert_false(traits_has_tags(SLICE("eu"), SLICE("eu,de")));
	assert_false(traits_has_tags(SLICE("eux"), SLICE("eu")));
	assert_false(traits_has_tags((struct slice){ NULL, 0 }, SLICE("eu")));
}

static void levels_have_words(void **state) {
	enum privacy level = PRIVACY_RESTRICTED;

	for (unsigned i = 0; i < PRIVACY_LEVELS; i++) {
		assert_true(privacy_find(slice_of(privacy_text((enum privacy)i)), &level));
		assert_int_equal(level, i);
	}
	assert_false(privacy_find(SLICE(""), &level));
	assert_false(privacy_find(SLICE("publi"), &level));
	assert_int_equal(level, PRIVACY_RESTRICTED);
	assert_int_equal(traits_word(SLICE("")), 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_said_is_nothing_known),
		cmocka_unit_test(every_label_is_read),
		cmocka_unit_test(a_label_of_the_model_counts_more),
		cmocka_unit_test(only_the_operator_clears),
		cmocka_unit_test(mistakes_are_named_and_not_read),
		cmocka_unit_test(the_engine_says_its_context),
		cmocka_unit_test(the_least_is_what_all_can_do),
		cmocka_unit_test(tags_are_a_subset),
		cmocka_unit_test(levels_have_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
