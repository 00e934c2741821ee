#include "router/decision_words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define RETRY "retry_exclude"
#define PANIC "panic_mode"
#define PROBE "probe_permit"

static const char *const reasons[PICK_REASONS] = {
	[PICK_ONLY_CANDIDATE] = "nobody else is left",
	[PICK_ROUND_ROBIN] = "it is its turn",
	[PICK_LEAST_LOAD] = "it has the least work for its weight",
	[PICK_POWER_OF_TWO] = "of two that were drawn it has the less work",
	[PICK_RANDOM] = "it was drawn",
	[PICK_RENDEZVOUS_HASH] = "it is first for the session, of those that have room",
	[PICK_WEIGHTED_RANDOM] = "it was drawn, by weight",
	[PICK_CONSISTENT_HASH] =
	    "it is next on the ring for the session or the prompt, of those that have room",
	[PICK_LOWEST_TTFT] = "its first token is expected soonest, as the policy counts",
	[PICK_STICKY_HIT] = "the session lives there",
	[PICK_STICKY_NEW] = "the session is new and the fewest live there",
	[PICK_STICKY_SPILL] = "the session's home is too busy or out",
	[PICK_RESPONSE_OWNER] = "the stored response is there and nowhere else",
	[PICK_BUCKET] = "prompts of such a length go there",
	[PICK_SIZE_CLASS] = "it is the only one of the class that the prompt's size wants",
	[PICK_BEST_SCORE] = "its score is best, healthier ones first",
	[PICK_PREFIX_HIT] = "its first token is expected soonest, with part of the prompt in its cache",
	[PICK_ALL_AVOIDED] = "all failed lately, so that one of them is tried again",
	[PICK_LAST_RESORT] = "all others were tried or are out",
};

static const char *const rings[PICK_RINGS] = {
	[PICK_RING_ZONE] = "in the zone of the request",
	[PICK_RING_REGION] = "in its region, outside of its zone",
	[PICK_RING_FAR] = "outside of its zone and region",
};

static const char *const rejections[FILTER_CODES] = {
	[FILTER_DISABLED] = "gets no requests by somebody's will",
	[FILTER_DRAINING] = "is being drained",
	[FILTER_LOADING] = "its models or addresses are not known yet",
	[FILTER_MODEL_ABSENT] = "does not serve the model",
	[FILTER_CAPABILITY_MISSING] = "cannot do what is asked",
	[FILTER_FEATURE_MISSING] = "lacks a feature that is asked for",
	[FILTER_CONTEXT_TOO_SMALL] = "its context is too small",
	[FILTER_TENANT_DENIED] = "is not for this tenant",
	[FILTER_CLEARANCE_LOW] = "may not see such data",
	[FILTER_RESIDENCY_MISSING] = "is not where the data may go",
	[FILTER_REGION_DENIED] = "is not where the operator wants it",
	[FILTER_ACCELERATOR_MISSING] = "does not run on the accelerator that is asked for",
	[FILTER_ROLE_MISMATCH] = "prefills or decodes only, or by another connector",
	[FILTER_RANK_ABSENT] = "is another data-parallel rank than the one that is asked for",
	[FILTER_PRIORITY_LOW] = "is of too low a priority",
	[FILTER_BREAKER_OPEN] = "failed too often lately",
	[FILTER_UNHEALTHY] = "is unhealthy",
	[FILTER_AVOIDED] = "could not be connected to within the last seconds",
	[FILTER_AT_CAPACITY] = "is full",
	[FILTER_RESPONSE_ELSEWHERE] = "does not have the response",
	[FILTER_SLO_UNATTAINABLE] = "would be too late",
	[FILTER_OVER_COST] = "costs too much",
	[FILTER_ALREADY_TRIED] = "was tried for this request",
	[FILTER_BELOW_MIN_SCORE] = "its score is too low",
};

static FILE *text_open(char **text, size_t *n) {
	FILE *out = open_memstream(text, n);

	assert(out);
	return out;
}

/* --- who was chosen ----------------------------------------------------------------------- */

unsigned decision_reasons(const struct decision_why *why, const char *words[static DECISION_REASONS_MAX]) {
	unsigned n = 0;

	if (why->refusal)
		return 0;
	words[n++] = pick_reason_text(why->reason);
	if (why->ring != PICK_RING_NONE)
		words[n++] = pick_ring_text(why->ring);
	if (why->is_retry)
		words[n++] = RETRY;
	if (why->is_panic)
		words[n++] = PANIC;
	if (why->is_probe)
		words[n++] = PROBE;
	return n;
}

bool decision_is_reason(const char *word) {
	bool is_one = !strcmp(word, RETRY) || !strcmp(word, PANIC) || !strcmp(word, PROBE);

	for (unsigned i = 0; i < PICK_REASONS && !is_one; i++)
		is_one = !strcmp(word, pick_reason_text((enum pick_reason)i));
	for (unsigned i = 0; i < PICK_RING_NONE && !is_one; i++)
		is_one = !strcmp(word, pick_ring_text((enum pick_ring)i));
	return is_one;
}

bool decision_has_reason(const struct decision_why *why, const char *word) {
	const char *words[DECISION_REASONS_MAX];
	unsigned n = decision_reasons(why, words);

	while (n > 0 && strcmp(words[n - 1], word) != 0)
		n--;
	return n > 0;
}

char *decision_reasoning(const struct decision_why *why) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = text_open(&text, &n);

	if (why->refusal) {
		fprintf(out, "nobody: %s", cause_row(why->refusal)->message);
		fclose(out);
		return text;
	}
	fprintf(out, "%.*s: %s (%s)", (int)why->instance.n, why->instance.n ? why->instance.p : "",
	    reasons[why->reason], pick_reason_text(why->reason));
	if (why->ring != PICK_RING_NONE)
		fprintf(out, "; %s (%s)", rings[why->ring], pick_ring_text(why->ring));
	if (why->is_retry)
		fputs("; others were tried before it (" RETRY ")", out);
	if (why->is_panic)
		fputs("; most are unhealthy, so that those are asked, too (" PANIC ")", out);
	if (why->is_probe)
		fputs("; to see if it works again (" PROBE ")", out);
	if (!isnan(why->score))
		fprintf(out, "; score %.4g", why->score);
	if (why->next.n && !isnan(why->next_score))
		fprintf(out, ", next %.*s with %.4g", (int)why->next.n, why->next.p, why->next_score);
	fclose(out);
	return text;
}

/* --- who was not -------------------------------------------------------------------------- */

static void put_features(FILE *out, uint32_t features) {
	const char *before = ": ";

	for (unsigned i = 0; i < FEATURES; i++)
		if (features & 1u << i) {
			fprintf(out, "%s%s", before, feature_text((enum feature)i));
			before = ", ";
		}
}

char *decision_rejection(enum filter_code code, const struct filter_detail *detail) {
	double value = detail->value, limit = detail->limit;
	char *text = NULL;
	size_t n = 0;
	FILE *out = text_open(&text, &n);

	assert(code > FILTER_NONE && code < FILTER_CODES);
	fputs(rejections[code], out);
	if (code == FILTER_FEATURE_MISSING)
		put_features(out, (uint32_t)value);
	else if (code == FILTER_CONTEXT_TOO_SMALL)
		fprintf(out, ": %.0f tokens are needed, it has %.0f", value, limit);
	else if (code == FILTER_CLEARANCE_LOW)
		fprintf(out, ": they are %s, it is cleared for %s", privacy_text((enum privacy)value),
		    privacy_text((enum privacy)limit));
	else if (code == FILTER_PRIORITY_LOW)
		fprintf(out, ": %.0f, the least is %.0f", value, limit);
	else if (code == FILTER_BREAKER_OPEN && value > 0)
		fprintf(out, ": its breaker is open for %.0f ms more", value);
	else if (code == FILTER_BREAKER_OPEN)
		fputs(": its breaker lets one request through at a time, and one is there", out);
	else if (code == FILTER_AVOIDED)
		fprintf(out, ": it is left alone for %.0f ms more", value);
	else if (code == FILTER_AT_CAPACITY)
		fprintf(out, ": %.0f requests in flight, it takes %.0f", value, limit);
	else if (code == FILTER_SLO_UNATTAINABLE)
		fprintf(out, ": %.0f ms are predicted, %.0f allowed", value, limit);
	else if (code == FILTER_OVER_COST)
		fprintf(out, ": %.12g, %.12g allowed", value, limit);
	else if (code == FILTER_BELOW_MIN_SCORE)
		fprintf(out, ": %.4g, the least is %.4g", value, limit);
	fclose(out);
	return text;
}
