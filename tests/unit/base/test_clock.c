#include "unit/unit.h"

#include <time.h>

#include "base/clock.h"

static uint64_t fake_ns;

static uint64_t fake_source(void) {
	return fake_ns;
}

static void it_never_goes_back(void **state) {
	uint64_t before = clock_now_ns();
	for (int i = 0; i < 1000; i++) {
		uint64_t now = clock_now_ns();
		assert_true(now >= before);
		before = now;
	}
}

static void it_agrees_with_the_system(void **state) {
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	uint64_t ns = clock_now_ns();
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_in_range(ns, (uint64_t)a.tv_sec * 1000000000u + (uint64_t)a.tv_nsec,
	    (uint64_t)b.tv_sec * 1000000000u + (uint64_t)b.tv_nsec);

	clock_gettime(CLOCK_REALTIME, &a);
	uint64_t ms = clock_wall_ms();
	clock_gettime(CLOCK_REALTIME, &b);
	assert_in_range(ms, (uint64_t)a.tv_sec * 1000u + (uint64_t)a.tv_nsec / 1000000u,
	    (uint64_t)b.tv_sec * 1000u + (uint64_t)b.tv_nsec / 1000000u);
}

static void a_source_takes_its_place(void **state) {
	uint64_t real = clock_now_ns();
	fake_ns = 42;
	clock_set_source(fake_source);
	assert_int_equal(clock_now_ns(), 42);
	fake_ns = 7;
	assert_int_equal(clock_now_ns(), 7);
	clock_set_source(NULL);
	assert_true(clock_now_ns() >= real);
}

static void the_wall_clock_has_a_source_of_its_own(void **state) {
	uint64_t real = clock_wall_ms();
	fake_ns = 42;
	clock_set_wall_source(fake_source);
	assert_int_equal(clock_wall_ms(), 42);
	assert_true(clock_now_ns() > 42);
	clock_set_wall_source(NULL);
	assert_true(clock_wall_ms() >= real);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_never_goes_back),
		cmocka_unit_test(it_agrees_with_the_system),
		cmocka_unit_test(a_source_takes_its_place),
		cmocka_unit_test(the_wall_clock_has_a_source_of_its_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
