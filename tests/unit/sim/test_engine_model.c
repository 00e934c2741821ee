#include "unit/unit.h"

#include "sim/engine_model.h"

#define MS 1000000ull

/* 1 token a ms, blocks of 10 tokens, 4 of them, 5 ms between two tokens. */
static const struct engine_options small = {
	.n_engines = 2,
	.prefill_tokens_per_s = 1000,
	.inter_token_ns = 5 * MS,
	.n_cache_blocks = 4,
	.n_block_tokens = 10,
	.n_running_max = 2,
};

struct bench {
	struct trace trace;
	struct engine_model *model;
};

static void bench_add(struct bench *b, uint32_t n_input, uint32_t n_output, const uint64_t *blocks) {
	struct trace_request request = {
		.n_input_tokens = n_input, .n_output_tokens = n_output, .n_blocks = (n_input + 9) / 10
	};

	trace_add(&b->trace, &request, blocks);
}

static void bench_open(struct bench *b, enum engine_kind kind) {
	struct engine_options options = small;

	options.kind = kind;
	b->model = engine_model_new(&options, &b->trace);
}

static void bench_close(struct bench *b) {
	engine_model_free(&b->model);
	assert_null(b->model);
	trace_deinit(&b->trace);
}

static void expect(
    struct bench *b, enum engine_event_kind kind, uint32_t request, uint64_t at_ms, uint32_t n_hit_blocks) {
	struct engine_event event;

	assert_true(engine_model_next(b->model, UINT64_MAX, &event));
	assert_int_equal(event.request, request);
	assert_int_equal(event.kind, kind);
	assert_int_equal(event.at_ns, at_ms * MS);
	assert_int_equal(event.n_hit_blocks, n_hit_blocks);
}

static void expect_silence(struct bench *b, uint64_t until_ns) {
	struct engine_event event;

	assert_false(engine_model_next(b->model, until_ns, &event));
}

/* The second finds the first one's blocks though that has not even begun; a partial one, too. */
static void simple_counts_hits_at_arrival(void **state) {
	const uint64_t blocks[] = { 1, 2, 3 };
	struct engine_event event;
	struct bench b = { .model = NULL };

	bench_add(&b, 25, 3, blocks);
	bench_add(&b, 25, 0, blocks);
	bench_add(&b, 30, 1, blocks);
	bench_open(&b, ENGINE_SIMPLE);
	engine_model_submit(b.model, 0, 0, 0);
	engine_model_submit(b.model, 0, 1, 1 * MS);
	engine_model_submit(b.model, 1, 2, 2 * MS); /* another engine: nothing there */
	expect_silence(&b, 25 * MS - 1);
	expect(&b, ENGINE_FIRST_TOKEN, 0, 25, 0);
	assert_true(engine_model_next(b.model, UINT64_MAX, &event));
	assert_int_equal(event.request, 1);
	assert_int_equal(event.at_ns, 26 * MS); /* one token's work at least */
	assert_int_equal(event.n_hit_blocks, 3);
	assert_int_equal(event.n_cached_tokens, 25); /* not 30 */
	expect(&b, ENGINE_DONE, 1, 26, 3);
	expect(&b, ENGINE_FIRST_TOKEN, 2, 32, 0);
	expect(&b, ENGINE_DONE, 2, 37, 0);
	expect(&b, ENGINE_DONE, 0, 40, 0);
	expect_silence(&b, UINT64_MAX);
	bench_close(&b);
}

static void simple_forgets_the_least_recent(void **state) {
	const uint64_t a[] = { 1, 2 }, c[] = { 11, 12, 13 };
	struct bench b = { .model = NULL };

	bench_add(&b, 20, 0, a);
	bench_add(&b, 30, 0, c); /* 1 is out: four blocks fit */
	bench_add(&b, 20, 0, a); /* 2 is there, but not leading; 11 is out */
	bench_add(&b, 10, 0, c);
	bench_open(&b, ENGINE_SIMPLE);
	for (uint32_t r = 0; r < 4; r++)
		engine_model_submit(b.model, 0, r, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 0, 20, 0);
	expect(&b, ENGINE_DONE, 0, 20, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 1, 50, 0);
	expect(&b, ENGINE_DONE, 1, 50, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 2, 70, 0);
	expect(&b, ENGINE_DONE, 2, 70, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 3, 80, 0);
	bench_close(&b);
}

/* Two run; the third waits for the end of one, and then for nothing: all but a token is cached. */
static void mock_runs_a_limited_number(void **state) {
	const uint64_t blocks[] = { 1, 2, 3 }, other[] = { 7, 8, 9 };
	struct bench b = { .model = NULL };

	bench_add(&b, 25, 3, blocks);
	bench_add(&b, 10, 9, other);
	bench_add(&b, 25, 1, blocks);
	bench_add(&b, 20, 2, blocks);
	bench_open(&b, ENGINE_MOCK);
	for (uint32_t r = 0; r < 4; r++)
		engine_model_submit(b.model, 0, r, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 0, 25, 0);
	expect(&b, ENGINE_DONE, 0, 35, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 1, 35, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 2, 40, 2); /* its third block is not full */
	expect(&b, ENGINE_DONE, 2, 40, 2);
	expect(&b, ENGINE_FIRST_TOKEN, 3, 50, 1); /* a block is always computed */
	expect(&b, ENGINE_DONE, 3, 55, 1);
	expect(&b, ENGINE_DONE, 1, 75, 0);
	expect_silence(&b, UINT64_MAX);
	bench_close(&b);
}

static void mock_tells_no_more_than_was_asked_for(void **state) {
	const uint64_t blocks[] = { 1, 2, 3 };
	struct bench b = { .model = NULL };

	bench_add(&b, 10, 3, blocks);
	bench_add(&b, 10, 2, blocks);
	bench_add(&b, 5, 0, blocks);
	bench_open(&b, ENGINE_MOCK);
	engine_model_submit(b.model, 0, 0, 0);
	expect_silence(&b, 9 * MS);
	engine_model_submit(b.model, 1, 1, 9 * MS);
	expect(&b, ENGINE_FIRST_TOKEN, 0, 10, 0);
	expect_silence(&b, 17 * MS);
	engine_model_submit(b.model, 0, 2, 18 * MS);
	expect(&b, ENGINE_FIRST_TOKEN, 1, 19, 0);
	expect(&b, ENGINE_DONE, 0, 20, 0);
	expect(&b, ENGINE_FIRST_TOKEN, 2, 23, 0);
	expect(&b, ENGINE_DONE, 2, 23, 0);
	expect(&b, ENGINE_DONE, 1, 24, 0);
	expect_silence(&b, UINT64_MAX);
	bench_close(&b);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(simple_counts_hits_at_arrival),
		cmocka_unit_test(simple_forgets_the_least_recent),
		cmocka_unit_test(mock_runs_a_limited_number),
		cmocka_unit_test(mock_tells_no_more_than_was_asked_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
