#include "unit/unit.h"

#include "router/tenant_number.h"

static uint32_t take(const char *name) {
	return tenant_number_take(slice_of(name));
}

static void one_name_has_one_number(void **state) {
	uint32_t a = take("a"), b = take("b");

	assert_int_equal(a, 1); /* 0 is nobody's */
	assert_int_equal(b, 2);
	assert_int_equal(take("a"), a);
	tenant_number_give(a);
	assert_int_equal(take("a"), a); /* still held once */
	tenant_number_give(a);
	tenant_number_give(a);
	tenant_number_give(b);
}

static void a_number_is_reused_when_nobody_has_it(void **state) {
	uint32_t a = take("a"), b = take("b");

	tenant_number_give(a);
	assert_int_equal(take("c"), a);
	assert_true(take("a") > b); /* it comes back as somebody new */
	for (uint32_t i = 1; i <= 3; i++)
		tenant_number_give(i);
}

static void there_is_an_end(void **state) {
	char name[16];

	for (uint32_t i = 1; i < TENANT_NUMBERS_MAX; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		assert_int_equal(take(name), i);
	}
	assert_int_equal(take("one more"), 0);
	assert_int_equal(take("t7"), 7);
	tenant_number_give(7);
	tenant_number_give(9);
	assert_int_equal(take("one more"), 9);
	for (uint32_t i = 1; i < TENANT_NUMBERS_MAX; i++)
		tenant_number_give(i);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_name_has_one_number),
		cmocka_unit_test(a_number_is_reused_when_nobody_has_it),
		cmocka_unit_test(there_is_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
