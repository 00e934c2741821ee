/*
 * decision_json: decisions, scores and demands as JSON, the same in every answer and log.
 *
 * Control thread; allocates. Names and codes are stable (docs/api.md).
 */
#pragma once

#include <jansson.h>

#include "router/decision.h"
#include "router/decision_words.h"

/* `wall_ms` and `now_ns` are one moment on both clocks: records know the monotonic one alone. */
struct decision_moment {
	uint64_t wall_ms, now_ns;
};

struct decision_moment decision_moment_now(void);

/* Once more, but only if the wall clock was set meanwhile: a record's time is the same in every answer. */
void decision_moment_refresh(struct decision_moment *moment);
uint64_t decision_wall_ms(const struct decision_moment *moment, uint64_t at_ns);

/* What a record says of its choice. Any thread. */
struct decision_why decision_why_of(const struct decision *d);

/* These give a new reference. */
json_t *decision_json(const struct decision *d, const struct decision_moment *moment);
json_t *decision_json_number(double value); /* to the millionth; null when it is none */
json_t *decision_json_text(struct slice text);
json_t *decision_json_hex(uint64_t value); /* any 64 bits, which not every reader's numbers have */
json_t *decision_json_features(uint32_t features);

/* By how much this one is behind the other; null where one of them has no score. */
json_t *decision_json_gap(
    const struct policy *scorer, const struct policy_score *score, const struct policy_score *chosen);

/* Puts `code`, `detail` and `text` of a rejection: one that filter_codes() says. */
void decision_json_rejection(json_t *json, enum filter_code code, const struct filter_detail *detail);

/* Puts `reason`, `reasons`, `ring` and `reasoning`. */
void decision_json_why(json_t *json, const struct decision_why *why);

/* Puts the members `score` and `parts`: null and empty where the pick did not look at the instance. */
void decision_json_score(json_t *json, const struct policy *scorer, const struct policy_score *score);
