#include "unit/unit.h"

#include "engine/api.h"
#include "engine/scheduler.h"

#define MS 1000000ull

static const char *const models[] = { "m" };
static const struct generation_rules rules = {
	.models = models,
	.n_models = 1,
	.n_model_tokens = 1000,
	.n_tokens_default = 2,
	.n_block_tokens = 4,
};
static const struct scheduler_options options_of_all = {
	.latency = { .prefill_tokens_per_s = 1000, .inter_token_ns = 10 * MS, .n_running_max = 2 },
	.n_cache_blocks = 100,
	.n_block_tokens = 4,
};

/* With a ledger of its own. */
static void open_rank(struct scheduler *s) {
	struct scheduler_options options = options_of_all;
	options.ledger = ledger_new(10, 1 * MS);
	scheduler_init(s, &options);
}

static void close_rank(struct scheduler *s) {
	struct ledger *ledger = s->ledger;
	scheduler_deinit(s);
	ledger_free(&ledger);
}

static struct generation completion(const char *body) {
	struct generation_name name = { .id = SLICE("x") };
	struct refusal refusal;
	struct generation g;
	assert_true(generation_parse(&g, &api_completions, &rules, &name, slice_of(body), &refusal));
	return g;
}

static void start(struct scheduler *s, struct generation *g, uint64_t now_ms) {
	scheduler_start(s, g, slice_of(g->id), now_ms * MS);
	scheduler_submit(s, g, now_ms * MS);
}

/* Makes what is due by then and ends what is complete. */
static void run(struct scheduler *s, uint64_t now_ms) {
	struct bytes out = { .n_max = 1 << 20 };
	struct generation *g;
	while ((g = scheduler_next(s, now_ms * MS))) {
		while (generation_is_behind(g))
			generation_step(g, &out);
		if (g->sequence.state == LATENCY_DONE)
			scheduler_end(s, g, LEDGER_FINISHED, NULL, now_ms * MS);
	}
	bytes_deinit(&out);
}

static bool has_line(const struct scheduler *s, const char *line) {
	struct bytes text = { .n_max = 1 << 20 };
	scheduler_metrics(s, 1, "m", &text);
	bool has = memmem(text.p, text.n, line, strlen(line));
	bytes_deinit(&text);
	return has;
}

/* Sixteen tokens are four blocks. */
#define PROMPT "{\"prompt\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}"

static void a_prompt_seen_before_is_quicker(void **state) {
	struct scheduler s;
	open_rank(&s);
	struct generation a = completion(PROMPT), b = completion(PROMPT);
	start(&s, &a, 10);
	assert_int_equal(a.n_cached_tokens, 0);
	assert_int_equal(scheduler_due_ns(&s), 26 * MS);
	run(&s, 36);
	assert_int_equal(generation_made_tokens(&a), 2);
	start(&s, &b, 50);
	assert_int_equal(b.n_cached_tokens, 12); /* the last block is computed anew */
	assert_int_equal(scheduler_due_ns(&s), 54 * MS);
	run(&s, 64);
	assert_int_equal(ledger_count(s.ledger, LEDGER_FINISHED), 2);
	assert_true(has_line(&s, "\nvllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} 32\n"));
	assert_true(has_line(&s, "\nvllm:prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 12\n"));
	assert_true(has_line(&s, "\nvllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 32\n"));
	assert_true(has_line(&s, "\nvllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 4\n"));
	generation_deinit(&a);
	generation_deinit(&b);
	scheduler_forget(&s);
	struct generation c = completion(PROMPT);
	start(&s, &c, 70);
	assert_int_equal(c.n_cached_tokens, 0);
	scheduler_end(&s, &c, LEDGER_CANCELLED, NULL, 70 * MS);
	generation_deinit(&c);
	close_rank(&s);
}

static void a_twin_that_waits_for_the_prefill_finds_what_it_leaves(void **state) {
	struct scheduler s;
	open_rank(&s);
	struct generation a = completion(PROMPT), twin = completion(PROMPT);
	start(&s, &a, 10);
	start(&s, &twin, 11);
	assert_int_equal(twin.n_cached_tokens, 0); /* nothing is there before it was computed */
	assert_true(has_line(&s, "\nvllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} 16\n"));
	run(&s, 26);
	assert_int_equal(twin.n_cached_tokens, 12);
	run(&s, 29);
	assert_int_equal(generation_made_tokens(&twin), 0);
	run(&s, 30);
	assert_int_equal(generation_made_tokens(&twin), 1); /* four tokens later */
	run(&s, 100);
	assert_true(has_line(&s, "\nvllm:prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 12\n"));
	generation_deinit(&a);
	generation_deinit(&twin);
	close_rank(&s);
}

static void a_prompt_that_was_not_computed_is_not_cached(void **state) {
	struct scheduler s;
	struct generation g[4];
	open_rank(&s);
	g[0] = completion("{\"prompt\":\"x\",\"max_tokens\":100}");
	g[1] = completion("{\"prompt\":\"y\",\"max_tokens\":100}");
	for (size_t i = 2; i < 4; i++)
		g[i] = completion(PROMPT);
	for (size_t i = 0; i < 3; i++)
		start(&s, &g[i], 10);
	run(&s, 20);
	scheduler_end(&s, &g[2], LEDGER_CANCELLED, NULL, 20 * MS); /* it waited for a place */
	scheduler_end(&s, &g[1], LEDGER_CANCELLED, NULL, 20 * MS);
	generation_deinit(&g[2]);
	g[2] = completion(PROMPT);
	start(&s, &g[2], 21);
	scheduler_end(&s, &g[2], LEDGER_CANCELLED, NULL, 30 * MS); /* in the middle of its prefill */
	start(&s, &g[3], 31);
	assert_int_equal(g[3].n_cached_tokens, 0);
	run(&s, 47);
	assert_int_equal(generation_made_tokens(&g[3]), 1); /* all 16 tokens were to be computed */
	scheduler_end(&s, &g[0], LEDGER_CANCELLED, NULL, 47 * MS);
	scheduler_end(&s, &g[3], LEDGER_CANCELLED, NULL, 47 * MS);
	for (size_t i = 0; i < 4; i++)
		generation_deinit(&g[i]);
	close_rank(&s);
}

#define OF_MODEL "{engine=\"0\",model_name=\"m\"} "

static void times_are_told_in_histograms(void **state) {
	static const char *const lines[] = {
		"time_to_first_token_seconds_bucket{engine=\"0\",le=\"0.02\",model_name=\"m\"} 1\n",
		"time_to_first_token_seconds_bucket{engine=\"0\",le=\"0.04\",model_name=\"m\"} 2\n",
		"time_to_first_token_seconds_bucket{engine=\"0\",le=\"2560.0\",model_name=\"m\"} 3\n",
		"time_to_first_token_seconds_bucket{engine=\"0\",le=\"+Inf\",model_name=\"m\"} 3\n",
		"time_to_first_token_seconds_count" OF_MODEL "3\n",
		"time_to_first_token_seconds_sum" OF_MODEL "0.096\n", /* 16, 32 and 48 ms */
		"inter_token_latency_seconds_bucket{engine=\"0\",le=\"0.01\",model_name=\"m\"} 3\n",
		"inter_token_latency_seconds_sum" OF_MODEL "0.03\n",
		"time_per_output_token_seconds_count" OF_MODEL "3\n",
		"e2e_request_latency_seconds_bucket{engine=\"0\",le=\"0.3\",model_name=\"m\"} 3\n",
		"e2e_request_latency_seconds_sum" OF_MODEL "0.126\n", /* 26, 42 and 58 */
		"request_queue_time_seconds_count" OF_MODEL "3\n",
		"request_queue_time_seconds_sum" OF_MODEL "0.026\n", /* the third waits for the first's end */
		"num_preemptions_total" OF_MODEL "0\n",
	};
	struct scheduler s;
	struct generation g[4];
	open_rank(&s);
	for (size_t i = 0; i < n_elems(g); i++) {
		char body[128];
		snprintf(body, sizeof(body), "{\"prompt\":\"%zu%063d\"}", i, 0); /* 16 tokens, none shared */
		g[i] = completion(body);
		start(&s, &g[i], 10);
	}
	scheduler_end(&s, &g[3], LEDGER_CANCELLED, NULL, 11 * MS); /* only what is finished counts */
	run(&s, 100);
	for (size_t i = 0; i < n_elems(lines); i++) {
		char line[160];
		snprintf(line, sizeof(line), "\nvllm:%s", lines[i]);
		if (!has_line(&s, line))
			fail_msg("no line %s", lines[i]);
	}
	assert_true(has_line(&s, "\n# TYPE vllm:time_to_first_token_seconds histogram\n"));
	for (size_t i = 0; i < n_elems(g); i++)
		generation_deinit(&g[i]);
	close_rank(&s);
}

static void every_choice_has_a_token_in_a_step(void **state) {
	struct scheduler s;
	open_rank(&s);
	struct generation g = completion("{\"prompt\":\"x\",\"n\":3,\"max_tokens\":5}");
	start(&s, &g, 10);
	run(&s, 100);
	assert_true(has_line(&s, "\nvllm:generation_tokens_total" OF_MODEL "15\n"));
	assert_true(has_line(&s, "\nvllm:time_to_first_token_seconds_count" OF_MODEL "1\n"));
	assert_true(has_line(&s, "\nvllm:inter_token_latency_seconds_count" OF_MODEL "12\n"));
	generation_deinit(&g);
	close_rank(&s);
}

static void gauges_follow_what_runs(void **state) {
	struct scheduler s;
	struct generation g[3];
	open_rank(&s);
	for (size_t i = 0; i < 3; i++) {
		g[i] = completion(PROMPT);
		start(&s, &g[i], 10);
	}
	assert_true(has_line(&s, "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 2\n"));
	assert_true(has_line(&s, "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1\n"));
	assert_true(
	    scheduler_cache_usage(&s) > 0.079 && scheduler_cache_usage(&s) < 0.081); /* 32 of 400 tokens */
	scheduler_end(&s, &g[0], LEDGER_CANCELLED, NULL, 11 * MS);
	assert_true(has_line(&s, "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0\n"));
	scheduler_end(&s, &g[1], LEDGER_FAILED, "reset", 11 * MS);
	run(&s, 100);
	assert_true(has_line(&s, "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0\n"));
	assert_true(scheduler_cache_usage(&s) == 0);
	assert_true(has_line(&s, "finished_reason=\"length\",model_name=\"m\"} 1\n"));
	assert_true(has_line(&s, "finished_reason=\"abort\",model_name=\"m\"} 1\n"));
	assert_true(has_line(&s, "finished_reason=\"error\",model_name=\"m\"} 1\n"));
	assert_true(has_line(&s, "finished_reason=\"stop\",model_name=\"m\"} 0\n"));
	for (size_t i = 0; i < 3; i++)
		generation_deinit(&g[i]);
	close_rank(&s);
}

static void a_hung_engine_shows_no_progress(void **state) {
	struct scheduler s;
	open_rank(&s);
	struct generation g = completion("{\"prompt\":\"x\",\"max_tokens\":9}");
	start(&s, &g, 10);
	run(&s, 21);
	assert_true(has_line(&s, "vllm:iteration_tokens_total_count{engine=\"0\",model_name=\"m\"} 1\n"));
	scheduler_hold(&s, &g, 22 * MS);
	run(&s, 1000);
	assert_true(has_line(&s, "vllm:iteration_tokens_total_count{engine=\"0\",model_name=\"m\"} 1\n"));
	assert_true(has_line(&s, "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1\n"));
	scheduler_end(&s, &g, LEDGER_CANCELLED, "hang_stream", 1000 * MS);
	generation_deinit(&g);
	close_rank(&s);
}

static void a_limit_of_steps_holds_it_also_for_a_late_caller(void **state) {
	struct scheduler s;
	open_rank(&s);
	struct generation g = completion("{\"prompt\":\"x\",\"max_tokens\":9}");
	g.n_steps_max = 2;
	start(&s, &g, 10);
	run(&s, 1000);
	assert_int_equal(generation_made_tokens(&g), 2);
	assert_int_equal(g.sequence.state, LATENCY_HELD);
	scheduler_end(&s, &g, LEDGER_CANCELLED, "hang_stream", 1000 * MS);
	generation_deinit(&g);
	close_rank(&s);
}

static void a_step_is_what_was_made_in_one_go(void **state) {
	struct scheduler s;
	open_rank(&s);
	struct generation g = completion(PROMPT);
	start(&s, &g, 10);
	run(&s, 26); /* 16 of the prompt and the first of the answer */
	run(&s, 30); /* nothing */
	run(&s, 36); /* one */
	assert_true(
	    has_line(&s, "vllm:iteration_tokens_total_bucket{engine=\"0\",le=\"1.0\",model_name=\"m\"} 1\n"));
	assert_true(has_line(
	    &s, "vllm:iteration_tokens_total_bucket{engine=\"0\",le=\"16.0\",model_name=\"m\"} 1\n"));
	assert_true(has_line(
	    &s, "vllm:iteration_tokens_total_bucket{engine=\"0\",le=\"32.0\",model_name=\"m\"} 2\n"));
	assert_true(has_line(
	    &s, "vllm:iteration_tokens_total_bucket{engine=\"0\",le=\"+Inf\",model_name=\"m\"} 2\n"));
	assert_true(has_line(&s, "vllm:iteration_tokens_total_sum{engine=\"0\",model_name=\"m\"} 18\n"));
	generation_deinit(&g);
	close_rank(&s);
}

static void embeddings_end_with_their_prefill(void **state) {
	struct generation_name name = { .id = SLICE("x") };
	struct refusal refusal;
	struct generation g;
	struct scheduler s;
	open_rank(&s);
	assert_true(generation_parse(
	    &g, &api_embeddings, &rules, &name, SLICE("{\"input\":\"0123456789\"}"), &refusal));
	start(&s, &g, 10);
	assert_int_equal(scheduler_due_ns(&s), 13 * MS);
	run(&s, 13);
	assert_int_equal(ledger_count(s.ledger, LEDGER_FINISHED), 1);
	assert_true(has_line(&s, "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 3\n"));
	assert_true(has_line(&s, "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 0\n"));
	generation_deinit(&g);
	close_rank(&s);
}

static void ranks_have_their_own_lines(void **state) {
	struct scheduler ranks[2];
	struct bytes text = { .n_max = 1 << 20 };
	struct generation g = completion(PROMPT);

	open_rank(&ranks[0]);
	open_rank(&ranks[1]);
	start(&ranks[1], &g, 10);
	scheduler_metrics(ranks, 2, "m", &text);
	assert_true(bytes_add(&text, (struct slice){ "", 1 }));
	assert_non_null(strstr(text.p,
	    "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0\n"
	    "vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 1\n"));
	const char *type = strstr(text.p, "# TYPE vllm:e2e_request_latency_seconds ");
	assert_null(strstr(type + 1, "# TYPE vllm:e2e_request_latency_seconds "));
	assert_non_null(strstr(type, "vllm:e2e_request_latency_seconds_count{engine=\"1\""));
	bytes_deinit(&text);
	scheduler_end(&ranks[1], &g, LEDGER_CANCELLED, NULL, 20 * MS);
	generation_deinit(&g);
	close_rank(&ranks[1]);
	close_rank(&ranks[0]);
}

static void what_was_fetched_is_not_computed(void **state) {
	struct generation g = completion(PROMPT);
	struct scheduler s;

	open_rank(&s);
	g.is_fetched = true;
	start(&s, &g, 10);
	assert_int_equal(scheduler_due_ns(&s), 10 * MS);
	run(&s, 30);
	assert_int_equal(g.n_cached_tokens, 0);
	assert_true(has_line(&s, "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"m\"} 0\n"));
	generation_deinit(&g);
	g = completion(PROMPT);
	start(&s, &g, 40); /* but it is there now */
	run(&s, 100);
	assert_true(g.n_cached_tokens > 0);
	generation_deinit(&g);
	close_rank(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prompt_seen_before_is_quicker),
		cmocka_unit_test(a_twin_that_waits_for_the_prefill_finds_what_it_leaves),
		cmocka_unit_test(a_prompt_that_was_not_computed_is_not_cached),
		cmocka_unit_test(times_are_told_in_histograms),
		cmocka_unit_test(every_choice_has_a_token_in_a_step),
		cmocka_unit_test(gauges_follow_what_runs),
		cmocka_unit_test(a_hung_engine_shows_no_progress),
		cmocka_unit_test(a_limit_of_steps_holds_it_also_for_a_late_caller),
		cmocka_unit_test(a_step_is_what_was_made_in_one_go),
		cmocka_unit_test(embeddings_end_with_their_prefill),
		cmocka_unit_test(ranks_have_their_own_lines),
		cmocka_unit_test(what_was_fetched_is_not_computed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
