#include "unit/unit.h"

#include "base/samples.h"

static const char *const names[] = { "a:n_total", "b:n_sum" };

static void samples_of_the_names_are_summed(void **state) {
	static const struct {
		const char *text;
		double sum; /* -1: there are none */
	} rows[] = {
		{ "", -1 },
		{ "other 3\n# HELP a:n_total 7\n", -1 },
		{ "a:n_total 3\n", 3 },
		{ "a:n_total 3", 3 },
		{ "a:n_total{} 3\r\nb:n_sum\t4\n", 7 },
		{ "a:n_total{x=\"y\"} 1.5\na:n_total{x=\"z\"} 1e3\nb:n_sum 0\n", 1001.5 },
		{ "a:n_total{x=\"} 9\",y=\"\\\"} 8\"} 2\n", 2 },
		{ "a:n_total{x=\"y\"}3\n", 3 },
		{ "a:n_total 3 1795347653000\n", 3 }, /* with a time */
		{ "a:n_total   3\n", 3 },
		{ "a:n_total_created 9\na:n 9\nb:n_sum_total 9\n", -1 },
		{ " a:n_total 9\n", -1 },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		double sum = -1;

		assert_true(
		    samples_sum(slice_of(rows[i].text), names, n_elems(names), &sum) == (rows[i].sum >= 0));
		if (sum != rows[i].sum)
			fail_msg("row %zu gives %g", i, sum);
	}
}

static void what_is_no_sample_is_passed_over(void **state) {
	static const char *const texts[] = { "a:n_total\n", "a:n_total \n", "a:n_total{\n",
		"a:n_total{x=\" 3\n", "a:n_total{x=\"\\\n", "a:n_total x\n", "a:n_total 3x\n",
		"a:n_total NaN\n", "a:n_total +Inf\n", "a:n_total 1e999\n", "a:n_total -1\n",
		"a:n_total {}\n",
		"a:n_total 0000000000000000000000000000000000000000000000000000000000000003\n" };
	double sum = 5;

	for (size_t i = 0; i < n_elems(texts); i++)
		if (samples_sum(slice_of(texts[i]), names, n_elems(names), &sum))
			fail_msg("row %zu gives %g", i, sum);
	assert_true(sum == 5);
}

/* No byte beyond the text is looked at: the last one has no neighbour. */
static void any_cut_of_a_text_is_read(void **state) {
	static const char text[] = "# x\na:n_total{k=\"\\\"\"} 12\nb:n_sum 3 4\n";

	for (size_t n = 0; n < sizeof(text); n++) {
		char *cut = malloc(n + !n);
		double sum = 0;

		memcpy(cut, text, n);
		bool has_any = samples_sum((struct slice){ cut, n }, names, n_elems(names), &sum);
		assert_true(has_any == (n > 22));
		assert_in_range((uint64_t)sum, 0, 15);
		free(cut);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(samples_of_the_names_are_summed),
		cmocka_unit_test(what_is_no_sample_is_passed_over),
		cmocka_unit_test(any_cut_of_a_text_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
