/*
 * summary: scores as a table for people and as JSON for programs.
 */
#pragma once

#include <stdio.h>

#include "sim/score.h"

/* One line a score; what a decision costs only when `shows_cpu`. */
void summary_table(const struct score *scores, size_t n, bool shows_cpu, FILE *out);

/* A list of objects: policy, hit_pct, ttft_mean_s, ttft_p50_s, ttft_p90_s, ttft_p99_s, imbalance. */
void summary_json(const struct score *scores, size_t n, FILE *out);
