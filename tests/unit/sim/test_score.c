#include "unit/unit.h"

#include <math.h>

#include "sim/score.h"

#define S 1000000000ull

static void assert_near(double a, double b) {
	if (fabs(a - b) > 1e-9)
		fail_msg("%.12f is not %.12f", a, b);
}

static void figures_are_as_defined(void **state) {
	struct run run = {
		.first_token_ns = calloc(10, sizeof(uint64_t)),
		.work_tokens = calloc(3, sizeof(uint64_t)),
		.n_requests = 10,
		.n_engines = 3,
		.n_hit_blocks = 3,
		.n_blocks = 8,
		.n_output_tokens = 500,
		.ended_ns = 20 * S,
		.decision_ns = 1230,
	};
	struct score score;

	for (uint64_t i = 0; i < 10; i++)
		run.first_token_ns[i] = (10 - i) * S;
	run.work_tokens[0] = 100;
	run.work_tokens[1] = 300;
	run.work_tokens[2] = 200;
	score_init(&score, "p", &run);
	assert_string_equal(score.policy, "p");
	assert_near(score.hit_pct, 37.5);
	assert_near(score.ttft_mean_s, 5.5);
	assert_near(score.ttft_p50_s, 6); /* sorted[int(0.5 x 10)] */
	assert_near(score.ttft_p90_s, 10);
	assert_near(score.ttft_p99_s, 10);
	assert_near(score.tokens_per_s, 25);
	assert_near(score.imbalance, 1.5);
	assert_near(score.decision_ns, 123);
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(score.sorted_ns[i], (i + 1) * S);
	run_deinit(&run);
	score_deinit(&score);
}

static void no_blocks_are_no_hits(void **state) {
	struct run run = {
		.first_token_ns = calloc(1, sizeof(uint64_t)),
		.work_tokens = calloc(1, sizeof(uint64_t)),
		.n_requests = 1,
		.n_engines = 1,
	};
	struct score score;

	run.work_tokens[0] = 1;
	score_init(&score, "p", &run);
	assert_near(score.hit_pct, 0);
	assert_near(score.tokens_per_s, 0);
	assert_near(score.imbalance, 1);
	run_deinit(&run);
	score_deinit(&score);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figures_are_as_defined),
		cmocka_unit_test(no_blocks_are_no_hits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
