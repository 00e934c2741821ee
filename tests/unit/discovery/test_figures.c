#include "unit/unit.h"

#include "discovery/figures.h"

#define NOT -1 /* said */

static void assert_figures(size_t row, const char *text, const double *values) {
	struct figures f;

	if (!figures_read(slice_of(text), &f))
		fail_msg("row %zu has none", row);
	for (unsigned i = 0; i < FIGURES; i++)
		if (f.is_said[i] != (values[i] >= 0) || f.values[i] != (f.is_said[i] ? values[i] : 0))
			fail_msg("row %zu, figure %u: %g", row, i, f.values[i]);
}

/* In the order of enum figure. */
static void each_engine_is_understood(void **state) {
	static const struct {
		const char *text;
		double values[FIGURES];
	} rows[] = {
		{ "# HELP vllm:num_requests_running x\n"
		  "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0\n"
		  "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 2.0\n"
		  "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\n"
		  "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 1e3\n"
		  "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"1000\"} 1.0\n"
		  "process_start_time_seconds 1.79e9\n",
		    { 3, 2, 0.25, NOT, 1000, 16000, 1.79e9 } },
		{ "vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.5\n",
		    { 1, NOT, 0.5, NOT, NOT, NOT, NOT } },
		{ "sglang:num_running_reqs{tp_rank=\"0\"} 4\nsglang:num_queue_reqs 5\nsglang:token_usage "
		  "0.125\n"
		  "sglang:gen_throughput 812.5\nsglang:generation_tokens_total 9\n"
		  "sglang:cache_config_info{num_pages=\"100\",page_size=\"64\"} 1\n"
		  "sglang:max_total_num_tokens 6401\n",
		    { 4, 5, 0.125, 812.5, 9, 6400, NOT } },
		{ "sglang:num_queue_reqs 0\nsglang:max_total_num_tokens 77\n",
		    { NOT, 0, NOT, NOT, NOT, 77, NOT } },
		{ "trtllm_num_requests_running 1\ntrtllm_num_requests_waiting 2\n"
		  "trtllm_kv_cache_utilization 0.75\n",
		    { 1, 2, 0.75, NOT, NOT, NOT, NOT } },
		{ "llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\n"
		  "llamacpp:kv_cache_usage_ratio 0\nllamacpp:predicted_tokens_seconds 41.5\n"
		  "llamacpp:tokens_predicted_total 8\n",
		    { 1, 2, 0, 41.5, 8, NOT, NOT } },
	};

	for (size_t i = 0; i < n_elems(rows); i++)
		assert_figures(i, rows[i].text, rows[i].values);
}

static void ranks_are_summed_and_their_usage_averaged(void **state) {
	static const double values[FIGURES] = { 3, 30, 0.5, NOT, 11, 48, 5 };

	assert_figures(0,
	    "vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"1\"} 2\n"
	    "vllm:num_requests_waiting{engine=\"0\"} 10\nvllm:num_requests_waiting{engine=\"1\"} 20\n"
	    "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n"
	    "vllm:gpu_cache_usage_perc{engine=\"0\"} 0.9\n" /* the old name beside the new one */
	    "vllm:generation_tokens_total{engine=\"0\"} 5\nvllm:generation_tokens_total{engine=\"1\"} 6\n"
	    "vllm:cache_config_info{engine=\"0\",block_size=\"2\",num_gpu_blocks=\"4\"} 1\n"
	    "vllm:cache_config_info{engine=\"1\",block_size=\"4\",num_gpu_blocks=\"10\"} 1\n"
	    "process_start_time_seconds 2\nprocess_start_time_seconds 3\n",
	    values);
}

static void a_value_that_cannot_be_is_not_said(void **state) {
	static const struct {
		const char *line;
		enum figure figure;
	} rows[] = {
		{ "vllm:num_requests_waiting NaN", FIGURE_WAITING },
		{ "vllm:num_requests_waiting -1", FIGURE_WAITING },
		{ "vllm:num_requests_waiting +Inf", FIGURE_WAITING },
		{ "vllm:num_requests_waiting 1e7", FIGURE_WAITING },
		{ "vllm:num_requests_waiting 9e5\nvllm:num_requests_waiting 9e5",
		    FIGURE_WAITING }, /* the sum */
		{ "vllm:kv_cache_usage_perc 25", FIGURE_KV_USAGE },
		{ "vllm:kv_cache_usage_perc nan", FIGURE_KV_USAGE },
		{ "sglang:gen_throughput 1e10", FIGURE_GENERATION_RATE },
		{ "vllm:generation_tokens_total 1e300", FIGURE_GENERATED },
		{ "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1",
		    FIGURE_CACHE_TOKENS },
		{ "vllm:cache_config_info{block_size=\"16\"} 1", FIGURE_CACHE_TOKENS },
		{ "vllm:cache_config_info 1", FIGURE_CACHE_TOKENS },
		{ "vllm:cache_config_info{block_size=\"4294967295\",num_gpu_blocks=\"4294967295\"} 1",
		    FIGURE_CACHE_TOKENS },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct figures f;
		char text[256];

		snprintf(text, sizeof(text), "vllm:num_requests_running 7\n%s\n", rows[i].line);
		if (!figures_read(slice_of(text), &f) || f.is_said[rows[i].figure] ||
		    f.values[FIGURE_RUNNING] != 7)
			fail_msg("row %zu", i);
	}
}

static void a_usage_above_one_by_a_rounding_is_one(void **state) {
	static const double values[FIGURES] = { 0, NOT, 1, NOT, NOT, NOT, NOT };

	assert_figures(0, "vllm:num_requests_running 0\nvllm:kv_cache_usage_perc 1.0000001\n", values);
}

static void a_page_without_load_is_none(void **state) {
	static const char *const texts[] = { "", "garbage", "{\"a\": [1, 2]}", "vllm:num_requests_running",
		"vllm:num_requests_running NaN\n", "process_start_time_seconds 3\n",
		"vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"2\"} 1\n",
		"vllm:num_requests_running_total 3\nmy_vllm:num_requests_running 3\n",
		"# vllm:num_requests_running 3\n" };
	struct figures f;

	for (size_t i = 0; i < n_elems(texts); i++)
		if (figures_read(slice_of(texts[i]), &f))
			fail_msg("row %zu", i);
}

static void each_rank_has_its_own(void **state) {
	static const char text[] =
	    "vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"1\"} 2\n"
	    "vllm:num_requests_waiting{engine=\"0\"} 10\nvllm:num_requests_waiting{engine=\"1\"} 20\n"
	    "vllm:kv_cache_usage_perc{engine=\"1\"} 0.75\nvllm:kv_cache_usage_perc{engine=\"2\"} 0.5\n"
	    "vllm:num_requests_running{engine=\"7\"} 9\nvllm:num_requests_running{engine=\"x\"} 9\n"
	    "vllm:cache_config_info{engine=\"1\",block_size=\"4\",num_gpu_blocks=\"10\"} 1\n"
	    "process_start_time_seconds 2\nprocess_start_time_seconds 3\n";
	struct figures all, ranks[3];

	assert_true(figures_read(SLICE(text), &all));
	assert_int_equal(all.n_engines, 4); /* 0, 1, 2 and 7 */
	figures_read_ranks(SLICE(text), ranks, 3);
	assert_true(ranks[0].values[FIGURE_RUNNING] == 1);
	assert_true(ranks[1].values[FIGURE_RUNNING] == 2);
	assert_true(ranks[1].values[FIGURE_WAITING] == 20);
	assert_true(ranks[1].values[FIGURE_KV_USAGE] == 0.75);
	assert_true(ranks[1].values[FIGURE_CACHE_TOKENS] == 40);
	assert_false(ranks[0].is_said[FIGURE_KV_USAGE]);
	assert_true(ranks[0].values[FIGURE_STARTED] == 5);
	assert_false(ranks[2].is_said[FIGURE_KV_USAGE]); /* nor how busy it is */
	assert_false(ranks[2].is_said[FIGURE_STARTED]);
}

static void engines_are_counted_where_vllm_names_them(void **state) {
	static const struct {
		const char *text;
		uint32_t n;
	} rows[] = { { "vllm:num_requests_running 1\n", 0 },
		{ "vllm:num_requests_running{engine=\"0\"} 1\n", 1 },
		{ "vllm:num_requests_running{engine=\"3\"} 1\nvllm:num_requests_waiting{engine=\"3\"} 1\n",
		    1 },
		{ "sglang:num_running_reqs{engine=\"3\"} 1\n", 0 },
		{ "vllm:num_requests_running{engine=\"1024\"} 1\n", 0 } };
	struct figures figures;

	for (size_t i = 0; i < n_elems(rows); i++) {
		assert_true(figures_read(slice_of(rows[i].text), &figures));
		assert_int_equal(figures.n_engines, rows[i].n);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_engine_is_understood),
		cmocka_unit_test(ranks_are_summed_and_their_usage_averaged),
		cmocka_unit_test(a_value_that_cannot_be_is_not_said),
		cmocka_unit_test(a_usage_above_one_by_a_rounding_is_one),
		cmocka_unit_test(a_page_without_load_is_none),
		cmocka_unit_test(each_rank_has_its_own),
		cmocka_unit_test(engines_are_counted_where_vllm_names_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
