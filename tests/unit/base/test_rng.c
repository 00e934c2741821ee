#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"

/* The first numbers of splitmix64 from 0 and of xoshiro256** from 1, 2, 3, 4, as published. */
static void known_numbers(void **state) {
	static const uint64_t seeded[] = { UINT64_C(0xe220a8397b1dcdaf), UINT64_C(0x6e789e6aa1b965f4),
		UINT64_C(0x06c45d188009454f), UINT64_C(0xf88bb8a8724c81ec) };
	static const uint64_t drawn[] = { 11520, 0, 1509978240, UINT64_C(1215971899390074240) };
	struct rng rng;

	rng_init(&rng, 0);
	assert_memory_equal(rng.s, seeded, sizeof(seeded));
	rng = (struct rng){ { 1, 2, 3, 4 } };
	for (size_t i = 0; i < n_elems(drawn); i++)
		assert_int_equal(rng_next(&rng), drawn[i]);
}

static void below_stays_below_and_reaches_all(void **state) {
	unsigned n_drawn[7] = { 0 };
	struct rng rng;

	rng_init(&rng, 42);
	for (int i = 0; i < 70000; i++) {
		uint64_t x = rng_below(&rng, 7);

		assert_true(x < 7);
		n_drawn[x]++;
	}
	for (size_t i = 0; i < 7; i++)
		assert_in_range(n_drawn[i], 9600, 10400);
	assert_int_equal(rng_below(&rng, 1), 0);
}

static void random_seeds_differ(void **state) {
	struct rng a, b;

	rng_init_random(&a);
	rng_init_random(&b);
	assert_memory_not_equal(&a, &b, sizeof(a));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_numbers),
		cmocka_unit_test(below_stays_below_and_reaches_all),
		cmocka_unit_test(random_seeds_differ),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
