#include "unit/unit.h"

#include "base/decimal.h"

static void decimals_are_read_exactly(void **state) {
	const struct {
		const char *text;
		double value;
	} good[] = { { "0", 0 }, { "2", 2 }, { "0.5", 0.5 }, { "1.25", 1.25 },
		{ "10.000000001", 10.000000001 }, { "99", 99 } };

	for (size_t i = 0; i < n_elems(good); i++) {
		double value = -1;
		assert_true(decimal_parse(slice_of(good[i].text), 99, &value));
		assert_true(value == good[i].value);
	}
}

static void anything_else_is_left_alone(void **state) {
	const char *const bad[] = { "", ".", ".5", "1.", "-1", "+1", " 1", "1 ", "1e3", "1.0000000001",
		"1.2.3", "0x1", "nan", "inf", "99.5", "100", "1,5" };

	for (size_t i = 0; i < n_elems(bad); i++) {
		double value = -1;
		assert_false(decimal_parse(slice_of(bad[i]), 99, &value));
		assert_true(value == -1);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decimals_are_read_exactly),
		cmocka_unit_test(anything_else_is_left_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
