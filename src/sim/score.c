#include "sim/score.h"

#include <stdlib.h>

#define NS_PER_S 1e9

static int compare(const void *a, const void *b) {
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double percentile_s(const struct score *score, size_t percent) {
	size_t at = score->n * percent / 100;

	return (double)score->sorted_ns[at] / NS_PER_S;
}

static double mean_s(const struct score *score) {
	double sum = 0;

	for (size_t i = 0; i < score->n; i++)
		sum += (double)score->sorted_ns[i];
	return sum / (double)score->n / NS_PER_S;
}

static double imbalance_of(const struct run *run) {
	uint64_t most = 0, sum = 0;

	for (uint32_t e = 0; e < run->n_engines; e++) {
		most = u64_max(most, run->work_tokens[e]);
		sum += run->work_tokens[e];
	}
	return (double)most * run->n_engines / (double)sum;
}

void score_init(struct score *score, const char *policy, struct run *run) {
	assert(run->n_requests > 0);
	*score = (struct score){
		.policy = policy,
		.hit_pct = run->n_blocks ? 100.0 * (double)run->n_hit_blocks / (double)run->n_blocks : 0,
		.tokens_per_s =
		    run->ended_ns ? (double)run->n_output_tokens / ((double)run->ended_ns / NS_PER_S) : 0,
		.imbalance = imbalance_of(run),
		.decision_ns = (double)run->decision_ns / (double)run->n_requests,
		.sorted_ns = run->first_token_ns,
		.n = run->n_requests,
	};
	run->first_token_ns = NULL;
	qsort(score->sorted_ns, score->n, sizeof(*score->sorted_ns), compare);
	score->ttft_mean_s = mean_s(score);
	score->ttft_p50_s = percentile_s(score, 50);
	score->ttft_p90_s = percentile_s(score, 90);
	score->ttft_p99_s = percentile_s(score, 99);
}

void score_deinit(struct score *score) {
	free(score->sorted_ns);
	*score = (struct score){ .n = 0 };
}
