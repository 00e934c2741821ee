#include "unit/unit.h"

#include "sim/curves.h"

/* All times of the one are ten times those of the other. */
static char *draw(const char *title) {
	static uint64_t quick[1000], slow[1000];
	struct score scores[] = { { .policy = "quick", .sorted_ns = quick, .n = 1000 },
		{ .policy = "slow", .sorted_ns = slow, .n = 1000 } };
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);

	for (uint64_t i = 0; i < 1000; i++) {
		quick[i] = (100 + i) * 1000000;
		slow[i] = 10 * quick[i];
	}
	curves_print(scores, 2, title, out);
	fclose(out);
	return text;
}

static void it_has_a_curve_and_a_name_each(void **state) {
	const char *const parts[] = { "<svg xmlns=\"http://www.w3.org/2000/svg\"", "time to first token",
		">quick<", ">slow<", ">0.1 s<", ">1 s<", ">100 s<", ">50 %<", "</svg>\n" };
	char *text = draw("a trace");
	unsigned n_curves = 0;

	for (size_t i = 0; i < n_elems(parts); i++)
		if (!strstr(text, parts[i]))
			fail_msg("%s is not there", parts[i]);
	assert_null(strstr(text, "nan"));
	assert_null(strstr(text, "inf"));
	for (const char *at = text; (at = strstr(at, "fill=\"none\"")); at++)
		n_curves++;
	assert_int_equal(n_curves, 2);
	free(text);
}

/* A decade later on the axis, from the bottom to the top: y is the share, x the time. */
static void curves_are_where_their_times_are(void **state) {
	char *text = draw("t");
	const char *quick = strstr(text, "stroke-width=\"2\" d=\"M"), *slow;
	double x[2], y[2];

	assert_non_null(quick);
	slow = strstr(quick + 1, "stroke-width=\"2\" d=\"M");
	assert_non_null(slow);
	const char *at[] = { quick, slow };
	for (int i = 0; i < 2; i++) {
		char *end;
		x[i] = strtod(at[i] + strlen("stroke-width=\"2\" d=\"M"), &end);
		y[i] = strtod(end, NULL);
	}
	/* 0.1 s to 100 s are 3 decades over 758: 0.1 s is at the left edge. */
	assert_int_equal((int)(x[0] + 0.5), 70);
	assert_int_equal((int)(x[1] + 0.5), 70 + 253);
	assert_true(y[0] == 440 && y[1] == 440);
	free(text);
}

static void a_title_cannot_break_out(void **state) {
	char *text = draw("<a> & \x01");

	assert_non_null(strstr(text, "&#60;a&#62; &#38; &#32;<"));
	free(text);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_has_a_curve_and_a_name_each),
		cmocka_unit_test(curves_are_where_their_times_are),
		cmocka_unit_test(a_title_cannot_break_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
