#include "unit/unit.h"

#include "engine/buckets.h"

static const struct buckets_scale scale = { 1000, 3, { 0.5, 1, 2.5 } };

static void a_bound_belongs_to_what_is_below_it(void **state) {
	static const char expected[] = "vllm:x_seconds_bucket{engine=\"3\",le=\"0.5\",model_name=\"m\"} 1\n"
				       "vllm:x_seconds_bucket{engine=\"3\",le=\"1.0\",model_name=\"m\"} 4\n"
				       "vllm:x_seconds_bucket{engine=\"3\",le=\"2.5\",model_name=\"m\"} 4\n"
				       "vllm:x_seconds_bucket{engine=\"3\",le=\"+Inf\",model_name=\"m\"} 5\n"
				       "vllm:x_seconds_count{engine=\"3\",model_name=\"m\"} 5\n"
				       "vllm:x_seconds_sum{engine=\"3\",model_name=\"m\"} 5.503\n";
	struct buckets h = { .scale = &scale };
	struct bytes out = { .n_max = 1 << 16 };
	buckets_add(&h, 500, 1);
	buckets_add(&h, 501, 1);
	buckets_add(&h, 1000, 2);
	buckets_add(&h, 2502, 1);
	buckets_print(&h, "x_seconds", 3, "m", &out);
	assert_int_equal(out.n, strlen(expected));
	assert_memory_equal(out.p, expected, out.n);
	bytes_deinit(&out);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bound_belongs_to_what_is_below_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
