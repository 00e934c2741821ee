#include "unit/unit.h"

#include "babysitter/advertise.h"
#include "base/text.h"

static void loopback_is_known(void **state) {
	assert_true(advertise_is_loopback("127.0.0.1") && advertise_is_loopback("127.9.9.9"));
	assert_true(advertise_is_loopback("::1") && advertise_is_loopback("localhost"));
	assert_false(advertise_is_loopback("12.7.0.0") || advertise_is_loopback("::2"));
	assert_false(advertise_is_loopback("localhost.example"));
}

static void a_machine_has_a_name(void **state) {
	char host[ADVERTISE_BYTES];
	advertise_by_name(host);
	assert_true(host[0] && !text_is_wildcard(slice_of(host)));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loopback_is_known),
		cmocka_unit_test(a_machine_has_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
