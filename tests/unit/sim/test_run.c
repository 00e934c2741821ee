#include "unit/unit.h"

#include "sim/run.h"

#define MS 1000000ull

static void add(struct trace *t, uint64_t at_ms, uint32_t n_input, uint64_t block) {
	trace_add(t,
	    &(struct trace_request){
		.at_ns = at_ms * MS, .n_input_tokens = n_input, .n_output_tokens = 2, .n_blocks = 1 },
	    &block);
}

static struct run_options options_of(const struct trace *trace, const char *policy, uint32_t n_engines) {
	return (struct run_options){
		.trace = trace,
		.policy = policy,
		.engine = {
			.kind = ENGINE_SIMPLE,
			.n_engines = n_engines,
			.prefill_tokens_per_s = 1000,
			.inter_token_ns = 5 * MS,
			.n_cache_blocks = 100,
			.n_block_tokens = 10,
			.n_running_max = 1,
		},
		.n_routers = 1,
	};
}

static void one_engine_serves_in_turn(void **state) {
	struct run_options options;
	struct trace t;
	struct run run;

	trace_init(&t);
	add(&t, 0, 10, 1);
	add(&t, 4, 10, 2);
	add(&t, 8, 10, 1);
	add(&t, 100, 8, 3);
	trace_finish(&t, 1);
	options = options_of(&t, "round_robin", 1);
	assert_true(run_init(&run, &options));
	assert_int_equal(run.first_token_ns[0], 10 * MS);
	assert_int_equal(run.first_token_ns[1], 16 * MS);
	assert_int_equal(run.first_token_ns[2], 13 * MS); /* a hit: one token's work */
	assert_int_equal(run.first_token_ns[3], 8 * MS);
	assert_int_equal(run.n_blocks, 4);
	assert_int_equal(run.n_hit_blocks, 1);
	assert_int_equal(run.work_tokens[0], 10 + 10 + 1 + 8);
	assert_int_equal(run.n_output_tokens, 8);
	assert_int_equal(run.ended_ns, 118 * MS);
	run_deinit(&run);
	trace_deinit(&t);
}

/* What is over when a request arrives, at the very same time even, is not in flight any more. */
static void routers_know_what_is_over(void **state) {
	struct run_options options;
	struct trace t;
	struct run run;

	trace_init(&t);
	add(&t, 0, 10, 1);
	add(&t, 1, 1000, 2);
	add(&t, 2, 1000, 3);
	for (uint32_t i = 0; i < 10; i++)
		add(&t, 20 + 20 * i, 10, 10 + i);
	trace_finish(&t, 1);
	options = options_of(&t, "least_load", 3);
	assert_true(run_init(&run, &options));
	for (size_t i = 3; i < 13; i++)
		assert_int_equal(run.first_token_ns[i], 10 * MS);
	run_deinit(&run);
	trace_deinit(&t);
}

/* Each of two routers sends every other request, and counts only its own. */
static void routers_take_turns_and_share_nothing(void **state) {
	struct run_options options;
	struct trace t;
	struct run run;

	trace_init(&t);
	for (uint32_t i = 0; i < 8; i++)
		add(&t, i, 1000, i);
	trace_finish(&t, 1);
	options = options_of(&t, "vllm", 4);
	options.n_routers = 2;
	assert_true(run_init(&run, &options));
	for (unsigned e = 0; e < 4; e++)
		assert_int_equal(run.work_tokens[e], 2000); /* 0 0 1 1 2 2 3 3 */
	assert_int_equal(run.first_token_ns[0], 1000 * MS);
	assert_int_equal(run.first_token_ns[1], 1999 * MS);
	run_deinit(&run);
	trace_deinit(&t);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_engine_serves_in_turn),
		cmocka_unit_test(routers_know_what_is_over),
		cmocka_unit_test(routers_take_turns_and_share_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
