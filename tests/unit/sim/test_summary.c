#include "unit/unit.h"

#include <jansson.h>

#include "sim/summary.h"

static const struct score scores[] = {
	{ .policy = "one",
	    .hit_pct = 12.5,
	    .ttft_mean_s = 0.25,
	    .ttft_p50_s = 0.2,
	    .ttft_p90_s = 1.5,
	    .ttft_p99_s = 2.25,
	    .tokens_per_s = 1234.4,
	    .imbalance = 1.125,
	    .decision_ns = 77 },
	{ .policy = "two \"\\", .imbalance = 1 },
};

static void the_table_has_a_line_each(void **state) {
	char *text = NULL;
	size_t n;

	for (int shows_cpu = 0; shows_cpu < 2; shows_cpu++) {
		FILE *out = open_memstream(&text, &n);
		unsigned n_lines = 0;

		summary_table(scores, 2, shows_cpu, out);
		fclose(out);
		for (size_t i = 0; i < n; i++)
			n_lines += text[i] == '\n';
		assert_int_equal(n_lines, 3);
		assert_non_null(strstr(
		    text, "one                12.50     0.250     0.200     1.500     2.250      1234"));
		assert_int_equal(strstr(text, "cpu ns") != NULL, shows_cpu);
		assert_int_equal(strstr(text, " 77\n") != NULL, shows_cpu);
		free(text);
	}
}

static void json_has_these_members(void **state) {
	const char *const names[] = { "hit_pct", "ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s",
		"imbalance" };
	const double values[] = { 12.5, 0.25, 0.2, 1.5, 2.25, 1.125 };
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);

	summary_json(scores, 2, out);
	fclose(out);
	json_t *list = json_loads(text, 0, NULL);
	assert_int_equal(json_array_size(list), 2);
	json_t *first = json_array_get(list, 0);
	assert_int_equal(json_object_size(first), 7);
	assert_string_equal(json_string_value(json_object_get(first, "policy")), "one");
	for (size_t i = 0; i < n_elems(names); i++)
		assert_true(json_number_value(json_object_get(first, names[i])) == values[i]);
	assert_string_equal(
	    json_string_value(json_object_get(json_array_get(list, 1), "policy")), "two \"\\");
	json_decref(list);
	free(text);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_has_a_line_each),
		cmocka_unit_test(json_has_these_members),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
