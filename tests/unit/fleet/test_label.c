#include "unit/fleet/scene.h"

#include "fleet/label.h"

static uint32_t label_of(unsigned i) {
	char name[32];

	snprintf(name, sizeof(name), "model-%u", i);
	return label_intern(LABEL_MODEL, slice_of(name));
}

/* The table is the process's and never shrinks: the tests share it and run in this order. */
static void names_get_one_label_for_good(void **state) {
	assert_int_equal(label_count(LABEL_MODEL), 1);
	uint32_t llama = label_intern(LABEL_MODEL, SLICE("llama")),
		 qwen = label_intern(LABEL_MODEL, SLICE("qwen"));

	assert_int_not_equal(llama, LABEL_OTHER);
	assert_int_not_equal(llama, qwen);
	assert_int_equal(label_intern(LABEL_MODEL, SLICE("llama")), llama);
	assert_int_not_equal(label_intern(LABEL_MODEL, SLICE("Llama")), llama);
	assert_string_equal(label_text(LABEL_MODEL, qwen), "qwen");
	assert_int_equal(label_count(LABEL_MODEL), 4);
}

static void a_model_called_other_is_no_second_series(void **state) {
	uint32_t n = label_count(LABEL_MODEL);

	assert_int_equal(label_intern(LABEL_MODEL, SLICE("other")), LABEL_OTHER);
	assert_string_equal(label_text(LABEL_MODEL, LABEL_OTHER), "other");
	assert_int_equal(label_count(LABEL_MODEL), n);
}

static void beyond_a_thousand_all_are_other(void **state) {
	unsigned i = 0;

	while (label_count(LABEL_MODEL) < 1 + 999)
		assert_int_not_equal(label_of(i++), LABEL_OTHER);
	uint32_t last = label_of(i);

	assert_int_equal(last, 1000);
	assert_int_equal(label_of(i + 1), LABEL_OTHER);
	assert_int_equal(label_of(i + 2), LABEL_OTHER);
	assert_int_equal(label_count(LABEL_MODEL), LABELS);
	/* The ones that made it keep theirs. */
	assert_int_equal(label_of(i), last);
	for (unsigned j = 0; j < i; j++) {
		char name[32];

		snprintf(name, sizeof(name), "model-%u", j);
		assert_string_equal(label_text(LABEL_MODEL, label_of(j)), name);
	}
}

static void kinds_are_apart(void **state) {
	uint32_t n = label_count(LABEL_MODEL), engine = label_intern(LABEL_INSTANCE, SLICE("engine-1"));

	assert_int_equal(engine, 1);
	assert_string_equal(label_text(LABEL_INSTANCE, engine), "engine-1");
	assert_string_equal(label_text(LABEL_INSTANCE, LABEL_OTHER), "other");
	assert_int_equal(label_count(LABEL_MODEL), n);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_get_one_label_for_good),
		cmocka_unit_test(a_model_called_other_is_no_second_series),
		cmocka_unit_test(beyond_a_thousand_all_are_other),
		cmocka_unit_test(kinds_are_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
