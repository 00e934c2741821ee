#include "unit/unit.h"

#include "base/rng.h"
#include "sim/agenda.h"

static void what_is_first_comes_first(void **state) {
	struct agenda a;

	agenda_init(&a);
	assert_int_equal(agenda_at_ns(&a), AGENDA_NEVER);
	agenda_add(&a, 30, 3);
	agenda_add(&a, 10, 1);
	agenda_add(&a, 20, 2);
	for (uint64_t i = 1; i <= 3; i++) {
		assert_int_equal(agenda_at_ns(&a), 10 * i);
		assert_int_equal(agenda_take(&a), i);
	}
	assert_int_equal(agenda_at_ns(&a), AGENDA_NEVER);
	agenda_deinit(&a);
}

/* Few different times, so that most are equal; a third of them is taken in between. */
static void equal_times_leave_in_the_order_they_came(void **state) {
	for (uint64_t seed = 0; seed < 50; seed++) {
		uint64_t times[600], n = 0, last_at = 0, last_what = 0;
		struct agenda a;
		struct rng rng;

		rng_init(&rng, seed);
		agenda_init(&a);
		for (unsigned i = 0; i < 900; i++) {
			if (i % 3 < 2) {
				times[n] = last_at + rng_below(&rng, 8);
				agenda_add(&a, times[n], n);
				n++;
				continue;
			}
			uint64_t at = agenda_at_ns(&a), what = agenda_take(&a);
			assert_int_equal(at, times[what]);
			assert_true(at > last_at || (at == last_at && (what > last_what || i == 2)));
			last_at = at;
			last_what = what;
		}
		assert_int_equal(a.n, 300);
		agenda_deinit(&a);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_first_comes_first),
		cmocka_unit_test(equal_times_leave_in_the_order_they_came),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
