#include "router/decision_json.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "fleet/label.h"

#define CLOCK_SLACK_MS 100u

struct decision_moment decision_moment_now(void) {
	return (struct decision_moment){ clock_wall_ms(), clock_now_ns() };
}

void decision_moment_refresh(struct decision_moment *moment) {
	struct decision_moment now = decision_moment_now();
	uint64_t expected_ms = moment->wall_ms + (now.now_ns - moment->now_ns) / 1000000u;

	if (now.wall_ms + CLOCK_SLACK_MS < expected_ms || now.wall_ms > expected_ms + CLOCK_SLACK_MS)
		*moment = now;
}

uint64_t decision_wall_ms(const struct decision_moment *moment, uint64_t at_ns) {
	return (uint64_t)((int64_t)moment->wall_ms + ((int64_t)at_ns - (int64_t)moment->now_ns) / 1000000);
}

json_t *decision_json_number(double value) {
	return isfinite(value) ? json_real(round(value * 1e6) / 1e6) : json_null();
}

json_t *decision_json_text(struct slice text) {
	json_t *t = json_stringn(text.p, text.n);

	return t ? t : json_string("");
}

static json_t *uint_of(uint64_t value) {
	return json_integer((json_int_t)u64_min(value, INT64_MAX));
}

static json_t *ms_of(uint64_t ns, bool has_been) {
	return has_been ? json_real(round((double)ns / 1e3) / 1e3) : json_null();
}

json_t *decision_json_hex(uint64_t value) {
	char text[17];

	snprintf(text, sizeof(text), "%016llx", (unsigned long long)value);
	return json_string(text);
}

static json_t *time_of(uint64_t wall_ms) {
	time_t t = (time_t)(wall_ms / 1000);
	char text[40];
	struct tm tm;
	size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", gmtime_r(&t, &tm));

	snprintf(text + n, sizeof(text) - n, ".%03uZ", (unsigned)(wall_ms % 1000));
	return json_string(text);
}

void decision_json_score(json_t *json, const struct policy *scorer, const struct policy_score *score) {
	json_t *parts = json_object();

	for (unsigned i = 0; i < POLICY_PARTS && policy_part_text(scorer, i) && !isnan(score->total); i++)
		json_object_set_new(
		    parts, policy_part_text(scorer, i), decision_json_number((double)score->parts[i]));
	json_object_set_new(json, "score", decision_json_number((double)score->total));
	json_object_set_new(json, "parts", parts);
}

json_t *decision_json_gap(
    const struct policy *scorer, const struct policy_score *score, const struct policy_score *chosen) {
	double gap = (double)score->total - (double)chosen->total;

	return decision_json_number(scorer && policy_is_cost(scorer) ? gap : 0 - gap);
}

json_t *decision_json_features(uint32_t features) {
	json_t *list = json_array();

	for (unsigned i = 0; i < FEATURES; i++)
		if (features & 1u << i)
			json_array_append_new(list, json_string(feature_text((enum feature)i)));
	return list;
}

/* --- why ------------------------------------------------------------------------------------ */

/* What the numbers of a code are called; NULL: it has no such number. */
static const struct {
	const char *value, *limit;
} names[FILTER_CODES] = {
	[FILTER_FEATURE_MISSING] = { "missing", NULL },
	[FILTER_CONTEXT_TOO_SMALL] = { "needed_tokens", "context_tokens" },
	[FILTER_CLEARANCE_LOW] = { "needed", "clearance" },
	[FILTER_PRIORITY_LOW] = { "priority", "priority_min" },
	[FILTER_BREAKER_OPEN] = { "left_ms", NULL },
	[FILTER_AVOIDED] = { "left_ms", NULL },
	[FILTER_AT_CAPACITY] = { "in_flight", "capacity" },
	[FILTER_SLO_UNATTAINABLE] = { "predicted_ms", "deadline_ms" },
	[FILTER_OVER_COST] = { "price", "ceiling" },
	[FILTER_BELOW_MIN_SCORE] = { "score", "min_score" },
};

static json_t *number_json(enum filter_code code, double number) {
	bool is_whole = fabs(number) < 1e15 && number == floor(number);

	if (code == FILTER_FEATURE_MISSING)
		return decision_json_features((uint32_t)number);
	if (code == FILTER_CLEARANCE_LOW)
		return json_string(privacy_text((enum privacy)number));
	return is_whole ? json_integer((json_int_t)number) : decision_json_number(number);
}

void decision_json_rejection(json_t *json, enum filter_code code, const struct filter_detail *detail) {
	json_t *numbers = names[code].value ? json_object() : json_null();
	char *text = decision_rejection(code, detail);

	if (names[code].value)
		json_object_set_new(numbers, names[code].value, number_json(code, detail->value));
	if (names[code].limit)
		json_object_set_new(numbers, names[code].limit, number_json(code, detail->limit));
	json_object_set_new(json, "code", json_string(filter_text(code)));
	json_object_set_new(json, "detail", numbers);
	json_object_set_new(json, "text", json_string(text));
	free(text);
}

void decision_json_why(json_t *json, const struct decision_why *why) {
	const char *words[DECISION_REASONS_MAX], *ring = pick_ring_text(why->ring);
	unsigned n = decision_reasons(why, words);
	char *text = decision_reasoning(why);
	json_t *list = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, json_string(words[i]));
	json_object_set_new(json, "reason", n ? json_string(words[0]) : json_null());
	json_object_set_new(json, "reasons", list);
	json_object_set_new(json, "ring", ring[0] ? json_string(ring) : json_null());
	json_object_set_new(json, "reasoning", decision_json_text(slice_of(text)));
	free(text);
}

/* --- a record --------------------------------------------------------------------------------- */

static json_t *choice_json(const struct decision *d, const struct decision_choice *choice) {
	json_t *json = json_object();

	json_object_set_new(json, "instance", json_string(label_text(LABEL_INSTANCE, choice->label)));
	json_object_set_new(json, "serial", uint_of(choice->serial));
	decision_json_score(json, d->scorer, &choice->score);
	return json;
}

static json_t *alternatives_json(const struct decision *d) {
	json_t *list = json_array();

	for (unsigned i = 0; i < d->n_alternatives; i++) {
		const struct policy_score *score = &d->alternatives[i].score;
		json_t *json = choice_json(d, &d->alternatives[i]);

		json_object_set_new(json, "gap", decision_json_gap(d->scorer, score, &d->chosen.score));
		json_array_append_new(list, json);
	}
	return list;
}

static json_t *rejected_json(const struct decision *d) {
	json_t *list = json_array();

	for (unsigned i = 0; i < d->n_listed; i++) {
		const struct decision_rejected *r = &d->rejected[i];
		json_t *json = json_pack("{s:s}", "instance", label_text(LABEL_INSTANCE, r->label));

		decision_json_rejection(json, (enum filter_code)r->code, &r->detail);
		json_array_append_new(list, json);
	}
	return list;
}

static json_t *attempts_json(const struct decision *d) {
	json_t *list = json_array();

	for (unsigned i = 0; i < d->n_attempts && i < DECISION_ATTEMPTS; i++)
		json_array_append_new(list,
		    json_pack("{s:s, s:s}", "instance", label_text(LABEL_INSTANCE, d->attempts[i].label),
			"cause", cause_row((enum cause)d->attempts[i].cause)->label));
	return list;
}

struct decision_why decision_why_of(const struct decision *d) {
	const struct decision_choice *next = d->n_alternatives ? &d->alternatives[0] : NULL;
	struct decision_why why = { .refusal = (enum cause)d->refusal,
		.instance = slice_of(label_text(LABEL_INSTANCE, d->chosen.label)),
		.reason = (enum pick_reason)d->reason,
		.ring = (enum pick_ring)d->ring,
		.is_retry = d->n_attempts > 1,
		.is_panic = d->is_panic,
		.is_probe = d->is_probe,
		.score = d->has_scores ? (double)d->chosen.score.total : NAN,
		.next_score = next ? (double)next->score.total : NAN };

	if (next)
		why.next = slice_of(label_text(LABEL_INSTANCE, next->label));
	return why;
}

static void put_choice(json_t *json, const struct decision *d) {
	struct decision_why why = decision_why_of(d);

	json_object_set_new(json, "policy", d->policy ? json_string(policy_name(d->policy)) : json_null());
	json_object_set_new(json, "snapshot", uint_of(d->snapshot));
	decision_json_why(json, &why);
	json_object_set_new(
	    json, "refusal", d->refusal ? json_string(cause_row((enum cause)d->refusal)->code) : json_null());
	json_object_set_new(json, "chosen", d->refusal ? json_null() : choice_json(d, &d->chosen));
	json_object_set_new(json, "alternatives", alternatives_json(d));
	json_object_set_new(json, "rejected", rejected_json(d));
	json_object_set_new(json, "n_candidates", uint_of(d->n_candidates));
	json_object_set_new(json, "n_eligible", uint_of(d->n_eligible));
	json_object_set_new(json, "n_rejected", uint_of(d->n_rejected));
	json_object_set_new(json, "pick_ns", uint_of(d->pick_ns));
	json_object_set_new(json, "seed", decision_json_hex(d->seed));
	json_object_set_new(json, "salt", decision_json_hex(d->salt));
	json_object_set_new(
	    json, "tenant", d->salt ? json_string(label_text(LABEL_TENANT, d->tenant)) : json_null());
}

static void put_demand(json_t *json, const struct decision *d) {
	json_object_set_new(json, "capability", json_string(capability_text((enum capability)d->capability)));
	json_object_set_new(json, "features", decision_json_features(d->features));
	json_object_set_new(json, "model", json_string(label_text(LABEL_MODEL, d->model)));
	json_object_set_new(json, "model_asked",
	    d->asked_n ? decision_json_text((struct slice){ d->asked, d->asked_n }) : json_null());
	json_object_set_new(json, "session", json_boolean(d->has_session));
	json_object_set_new(json, "prompt_bytes", uint_of(d->prompt_bytes));
	json_object_set_new(json, "prompt_tokens", uint_of(d->prompt_tokens));
	json_object_set_new(json, "predicted_cached_tokens", uint_of(d->predicted_tokens));
	json_object_set_new(
	    json, "actual_cached_tokens", d->has_actual ? uint_of(d->actual_tokens) : json_null());
}

static void put_outcome(json_t *json, const struct decision *d) {
	json_object_set_new(
	    json, "prefill", d->prefill ? json_string(label_text(LABEL_INSTANCE, d->prefill)) : json_null());
	json_object_set_new(json, "attempts", attempts_json(d));
	json_object_set_new(json, "n_attempts", uint_of(d->n_attempts));
	json_object_set_new(json, "no_retry",
	    d->retry_bar ? json_string(retry_bar_text((enum retry_bar)d->retry_bar)) : json_null());
	json_object_set_new(json, "resumed", uint_of(d->n_resumed));
	json_object_set_new(json, "settled", json_boolean(d->is_settled));
	json_object_set_new(json, "status", d->is_settled ? uint_of(d->status) : json_null());
	json_object_set_new(
	    json, "cause", d->is_settled ? json_string(cause_row((enum cause)d->cause)->label) : json_null());
	json_object_set_new(json, "output_tokens", uint_of(d->output_tokens));
	json_object_set_new(json, "queue_ms", ms_of(d->queue_ns, d->is_settled && d->n_attempts));
	json_object_set_new(json, "first_token_ms", ms_of(d->first_token_ns, d->first_token_ns));
	json_object_set_new(json, "total_ms", ms_of(d->total_ns, d->is_settled));
}

json_t *decision_json(const struct decision *d, const struct decision_moment *moment) {
	char room[DECISION_TEXT_BYTES];
	uint64_t wall_ms = decision_wall_ms(moment, d->at_ns);
	json_t *json = json_object();

	json_object_set_new(json, "id", decision_json_text(decision_text(d, room)));
	json_object_set_new(json, "request_id", decision_json_text((struct slice){ d->id, d->id_n }));
	json_object_set_new(json, "ts", time_of(wall_ms));
	json_object_set_new(json, "ts_ms", uint_of(wall_ms));
	put_demand(json, d);
	put_choice(json, d);
	put_outcome(json, d);
	return json;
}
