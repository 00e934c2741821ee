#include "unit/fleet/scene.h"

#include "fleet/label.h"

static uint32_t label_of(unsigned i) {
	char name[32];

	snprintf(name, sizeof(name), "model-%u", i);
	return label_intern(LABEL_MODEL, slice_of(name));
}

/* The table is the process's and never shrinks: the tests share it and run in this order. */
static void names_get_one_label_for_good(void **state) {
	assert_int_equal(label_intern(LABEL_MODEL, SLICE("llama")), 1);
	assert_int_equal(label_intern(LABEL_MODEL, SLICE("qwen")), 2);
	assert_int_equal(label_intern(LABEL_MODEL, SLICE("llama")), 1);
	assert_int_equal(label_intern(LABEL_MODEL, SLICE("Llama")), 3);
	assert_string_equal(label_text(LABEL_MODEL, 2), "qwen");
}

static void a_model_called_other_is_no_second_series(void **state) {
	assert_int_equal(label_intern(LABEL_MODEL, SLICE("other")), LABEL_OTHER);
	assert_string_equal(label_text(LABEL_MODEL, LABEL_OTHER), "other");
	assert_int_equal(label_intern(LABEL_MODEL, SLICE("another")), 4);
}

static void beyond_a_thousand_all_are_other(void **state) {
	for (uint32_t label = 5; label <= LABELS_MAX; label++)
		assert_int_equal(label_of(label), label);
	assert_int_equal(label_of(LABELS_MAX + 1), LABEL_OTHER);
	assert_int_equal(label_of(LABELS_MAX + 2), LABEL_OTHER);
	/* The ones that made it keep theirs. */
	for (uint32_t label = 5; label <= LABELS_MAX; label++) {
		char name[32];

		snprintf(name, sizeof(name), "model-%u", label);
		assert_int_equal(label_of(label), label);
		assert_string_equal(label_text(LABEL_MODEL, label), name);
	}
}

static void kinds_are_apart(void **state) {
	/* That of models is full. */
	uint32_t engine = label_intern(LABEL_INSTANCE, SLICE("engine-1"));

	assert_int_equal(engine, 1);
	assert_string_equal(label_text(LABEL_INSTANCE, engine), "engine-1");
	assert_string_equal(label_text(LABEL_INSTANCE, LABEL_OTHER), "other");
	assert_string_equal(label_text(LABEL_MODEL, engine), "llama");
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
