/*
 * decision_json: decisions, scores and demands as JSON, the same in every answer and log.
 *
 * Control thread; allocates. Names and codes are stable (docs/api.md).
 */
#pragma once

#include <jansson.h>

#include "router/decision.h"

/* `wall_ms` and `now_ns` are one moment on both clocks: records know the monotonic one alone. */
struct decision_moment {
	uint64_t wall_ms, now_ns;
};

struct decision_moment decision_moment_now(void);

/* Once more, but only if the wall clock was set meanwhile: a record's time is the same in every answer. */
void decision_moment_refresh(struct decision_moment *moment);
uint64_t decision_wall_ms(const struct decision_moment *moment, uint64_t at_ns);

/* These give a new reference. */
json_t *decision_json(const struct decision *d, const struct decision_moment *moment);
json_t *decision_json_number(double value); /* to the millionth; null when it is none */
json_t *decision_json_text(struct slice text);

/* Puts the members `score` and `parts`: null and empty where the pick did not look at the instance. */
void decision_json_score(json_t *json, const struct policy *scorer, const struct policy_score *score);
