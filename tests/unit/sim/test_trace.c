#include "unit/unit.h"

#include "sim/trace.h"

#define S 1000000000ull

static void add(struct trace *t, uint64_t at_ns, uint32_t n_input, uint32_t n_blocks) {
	const uint64_t blocks[] = { n_input, n_input + 1, n_input + 2 };

	assert_true(n_blocks <= n_elems(blocks));
	trace_add(t,
	    &(struct trace_request){ .at_ns = at_ns, .n_input_tokens = n_input, .n_blocks = n_blocks },
	    blocks);
}

static void equal_times_are_spread_to_the_next(void **state) {
	const uint64_t expected[] = { 0, 1 * S, 2 * S, 3 * S, 4 * S, 5500000000 };
	struct trace t;

	trace_init(&t);
	for (uint32_t i = 0; i < 3; i++)
		add(&t, 100 * S, i, 0);
	add(&t, 103 * S, 3, 0);
	add(&t, 104 * S, 4, 0);
	add(&t, 104 * S, 5, 0); /* the last ones: over 3 s */
	trace_finish(&t, 1);
	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(t.requests[i].at_ns, expected[i]);
		assert_int_equal(t.requests[i].n_input_tokens, i);
	}
	trace_deinit(&t);
}

static void rows_are_sorted_and_equal_ones_keep_their_order(void **state) {
	struct trace t;

	trace_init(&t);
	for (uint32_t i = 0; i < 1000; i++)
		add(&t, (i * 7 % 10) * S, i, i % 4);
	trace_finish(&t, 1);
	for (uint32_t i = 0; i < 1000; i++) {
		const struct trace_request *r = &t.requests[i];

		if (i % 100)
			assert_true(r->row > r[-1].row && r->at_ns > r[-1].at_ns);
		assert_int_equal(r->at_ns / S, i < 900 ? i / 100 : 9 + i % 100 * 3 / 100);
		assert_int_equal(r->n_blocks, r->n_input_tokens % 4);
		for (uint32_t b = 0; b < r->n_blocks; b++)
			assert_int_equal(trace_blocks(&t, r)[b], r->n_input_tokens + b);
	}
	trace_deinit(&t);
}

static void speed_divides_time(void **state) {
	struct trace t;

	trace_init(&t);
	add(&t, 10 * S, 0, 0);
	add(&t, 15 * S, 1, 0);
	add(&t, 20 * S, 2, 0);
	trace_finish(&t, 2.5);
	assert_int_equal(t.requests[0].at_ns, 0);
	assert_int_equal(t.requests[1].at_ns, 2 * S);
	assert_int_equal(t.requests[2].at_ns, 4 * S);
	trace_deinit(&t);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_times_are_spread_to_the_next),
		cmocka_unit_test(rows_are_sorted_and_equal_ones_keep_their_order),
		cmocka_unit_test(speed_divides_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
