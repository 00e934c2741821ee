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

static void samples_come_one_by_one(void **state) {
	struct slice text = SLICE("\n# TYPE a gauge\na 1\n b 2\nc{x=\"y z\"} 3\nlast");
	static const struct {
		const char *name;
		double value; /* -1: none */
	} rows[] = { { "a", 1 }, { "c", 3 }, { "last", -1 } };
	struct sample sample;

	for (size_t i = 0; i < n_elems(rows); i++) {
		double value = -1;

		assert_true(samples_next(&text, &sample));
		assert_true(slice_eq(sample.name, slice_of(rows[i].name)));
		assert_true(sample_value(&sample, &value) == (rows[i].value >= 0) && value == rows[i].value);
	}
	assert_false(samples_next(&text, &sample));
}

static void labels_are_found(void **state) {
	static const struct {
		const char *line, *text; /* of label "k"; NULL: there is none */
	} rows[] = {
		{ "a{k=\"v\"} 1", "v" },
		{ "a{k=\"\"} 1", "" },
		{ "a{j=\"k=\\\"\",k=\"v\"} 1", "v" },
		{ "a{ j=\"1\", k = \"v\", } 1", "v" },
		{ "a {k=\"v\"} 1", NULL }, /* a space ends the name; what follows is no value either */
		{ "a{kk=\"v\",j=\"k\"} 1", NULL },
		{ "a{} 1 # {k=\"v\"} 2", NULL }, /* an exemplar's */
		{ "a{j=\"v\"} 1 # {k=\"v\"} 2", NULL },
		{ "a 1", NULL },
		{ "a{k", NULL },
		{ "a{k=", NULL },
		{ "a{k=v} 1", NULL },
		{ "a{k=\"v", NULL },
		{ "a{k=\"v\\", NULL },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		size_t n = strlen(rows[i].line);
		char *line = malloc(n); /* with nothing behind it */
		struct slice text, all = { memcpy(line, rows[i].line, n), n };
		struct sample sample;

		assert_true(samples_next(&all, &sample));
		bool has = sample_label(&sample, SLICE("k"), &text);
		if (has != !!rows[i].text || (has && !slice_eq(text, slice_of(rows[i].text))))
			fail_msg("row %zu", i);
		free(line);
	}
}

static void samples_of_one_engine_are_summed(void **state) {
	static const char text[] = "a:n_total{engine=\"0\",x=\"1\"} 1\na:n_total{engine=\"1\"} 2\n"
				   "b:n_sum{engine=\"10\"} 4\nb:n_sum{x=\"1\"} 8\n";
	double sum = 0;

	assert_true(samples_sum_of(SLICE(text), names, n_elems(names), SLICE("1"), &sum));
	assert_true(sum == 2 + 8);
	assert_true(samples_sum(SLICE(text), names, n_elems(names), &sum));
	assert_true(sum == 1 + 2 + 4 + 8);
	assert_false(
	    samples_sum_of(SLICE("a:n_total{engine=\"0\"} 1\n"), names, n_elems(names), SLICE("1"), &sum));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(samples_of_the_names_are_summed),
		cmocka_unit_test(what_is_no_sample_is_passed_over),
		cmocka_unit_test(any_cut_of_a_text_is_read),
		cmocka_unit_test(samples_come_one_by_one),
		cmocka_unit_test(labels_are_found),
		cmocka_unit_test(samples_of_one_engine_are_summed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
