/*
 * score: what a run is worth, in the figures that are printed.
 */
#pragma once

#include "sim/run.h"

struct score {
	const char *policy;
	double hit_pct; /* of all blocks, those found cached; 0 when there are none */
	double ttft_mean_s, ttft_p50_s, ttft_p90_s, ttft_p99_s;
	double tokens_per_s; /* output, from the first arrival to the last token */
	double imbalance;    /* prompt tokens computed: the busiest engine's over the mean */
	double decision_ns;  /* a decision on the mean, in real time */
	uint64_t *sorted_ns; /* first token times, ascending; the score's */
	size_t n;
};

/* `policy` is only kept. Takes the first token times out of the run. */
void score_init(struct score *score, const char *policy, struct run *run);
void score_deinit(struct score *score);
