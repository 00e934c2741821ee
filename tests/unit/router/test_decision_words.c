#include "unit/unit.h"

#include <math.h>
#include <stdlib.h>

#include "router/decision_json.h"

static void assert_rejection(enum filter_code code, float value, float limit, const char *expected) {
	struct filter_detail detail = { value, limit };
	char *is = decision_rejection(code, &detail);

	assert_string_equal(is, expected);
	free(is);
}

static void rejections_have_their_numbers(void **state) {
	float tools = (float)(1u << FEATURE_TOOLS | 1u << FEATURE_LOGPROBS);

	assert_rejection(FILTER_CONTEXT_TOO_SMALL, 2553, 1000,
	    "its context is too small: 2553 tokens are needed, it has 1000");
	assert_rejection(FILTER_CLEARANCE_LOW, PRIVACY_RESTRICTED, PRIVACY_INTERNAL,
	    "may not see such data: they are restricted, it is cleared for internal");
	assert_rejection(
	    FILTER_FEATURE_MISSING, tools, NAN, "lacks a feature that is asked for: tools, logprobs");
	assert_rejection(FILTER_AVOIDED, 700, NAN,
	    "could not be connected to within the last seconds: it is left alone for 700 ms more");
	assert_rejection(
	    FILTER_BREAKER_OPEN, 700, NAN, "failed too often lately: its breaker is open for 700 ms more");
	assert_rejection(FILTER_BREAKER_OPEN, 0, NAN,
	    "failed too often lately: its breaker lets one request through at a time, and one is there");
	assert_rejection(FILTER_AT_CAPACITY, 4, 4, "is full: 4 requests in flight, it takes 4");
	assert_rejection(
	    FILTER_SLO_UNATTAINABLE, 1234.4f, 500, "would be too late: 1234 ms are predicted, 500 allowed");
	assert_rejection(FILTER_OVER_COST, 5.25f, 3, "costs too much: 5.25, 3 allowed");
	assert_rejection(FILTER_BELOW_MIN_SCORE, 0.05f, 0.1f, "its score is too low: 0.05, the least is 0.1");
	assert_rejection(FILTER_DRAINING, NAN, NAN, "is being drained");
}

static void numbers_have_names(void **state) {
	static const struct {
		enum filter_code code;
		struct filter_detail detail;
		const char *json;
	} rows[] = {
		{ FILTER_CONTEXT_TOO_SMALL, { 20, 10 }, "{\"needed_tokens\":20,\"context_tokens\":10}" },
		{ FILTER_CLEARANCE_LOW, { PRIVACY_INTERNAL, PRIVACY_PUBLIC },
		    "{\"needed\":\"internal\",\"clearance\":\"public\"}" },
		{ FILTER_FEATURE_MISSING, { 1u << FEATURE_TOOLS, NAN }, "{\"missing\":[\"tools\"]}" },
		{ FILTER_BREAKER_OPEN, { 0, NAN }, "{\"left_ms\":0}" },
		{ FILTER_AVOIDED, { 700, NAN }, "{\"left_ms\":700}" },
		{ FILTER_AT_CAPACITY, { 5, 4 }, "{\"in_flight\":5,\"capacity\":4}" },
		{ FILTER_SLO_UNATTAINABLE, { 12.5f, 1 }, "{\"predicted_ms\":12.5,\"deadline_ms\":1}" },
		{ FILTER_OVER_COST, { 5.2f, 3 }, "{\"price\":5.2,\"ceiling\":3}" },
		{ FILTER_BELOW_MIN_SCORE, { 0.05f, 0.1f }, "{\"score\":0.05,\"min_score\":0.1}" },
		{ FILTER_REGION_DENIED, { NAN, NAN }, "null" },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		json_t *json = json_object();

		decision_json_rejection(json, rows[i].code, &rows[i].detail);
		char *detail = json_dumps(
		    json_object_get(json, "detail"), JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
		assert_string_equal(detail, rows[i].json);
		assert_string_equal(
		    json_string_value(json_object_get(json, "code")), filter_text(rows[i].code));
		assert_non_null(json_string_value(json_object_get(json, "text")));
		free(detail);
		json_decref(json);
	}
}

static void assert_reasoning(const struct decision_why *why, const char *expected) {
	char *is = decision_reasoning(why);

	assert_string_equal(is, expected);
	free(is);
}

static void a_choice_has_all_its_reasons(void **state) {
	struct decision_why why = { .instance = SLICE("a"),
		.reason = PICK_ROUND_ROBIN,
		.ring = PICK_RING_NONE,
		.score = NAN,
		.next_score = NAN };
	const char *words[DECISION_REASONS_MAX];

	assert_reasoning(&why, "a: it is its turn (round_robin)");
	assert_int_equal(decision_reasons(&why, words), 1);
	why.reason = PICK_LOWEST_TTFT;
	why.ring = PICK_RING_REGION;
	why.is_retry = why.is_panic = why.is_probe = true;
	why.score = 0.125;
	why.next = SLICE("b");
	why.next_score = 0.5;
	assert_reasoning(&why,
	    "a: its first token is expected soonest, as the policy counts (lowest_ttft); in its region, "
	    "outside of its zone (spill_region); others were tried before it (retry_exclude); most are "
	    "unhealthy, so that those are asked, too (panic_mode); to see if it works again (probe_permit); "
	    "score 0.125, next b with 0.5");
	assert_int_equal(decision_reasons(&why, words), 5);
	assert_string_equal(words[0], "lowest_ttft");
	assert_string_equal(words[1], "spill_region");
	assert_string_equal(words[2], "retry_exclude");
	assert_string_equal(words[3], "panic_mode");
	assert_string_equal(words[4], "probe_permit");
	for (unsigned i = 0; i < 5; i++)
		assert_true(decision_is_reason(words[i]) && decision_has_reason(&why, words[i]));
	assert_true(decision_is_reason("local_zone") && !decision_has_reason(&why, "local_zone"));
	assert_false(decision_is_reason("") || decision_is_reason("why"));
}

static void nobody_has_a_refusal(void **state) {
	struct decision_why why = { .refusal = CAUSE_PRIVACY_VIOLATION };
	const char *words[DECISION_REASONS_MAX];

	assert_reasoning(&why, "nobody: no instance of this model may be given this request");
	assert_int_equal(decision_reasons(&why, words), 0);
}

/* A sentence without the word in brackets that ends it. */
static size_t sentence_n(const char *text) {
	const char *bracket = strrchr(text, '(');

	assert_non_null(bracket);
	return (size_t)(bracket - text);
}

static bool says_the_same(struct decision_why why, enum pick_reason one, enum pick_reason other) {
	why.reason = one;
	char *a = decision_reasoning(&why);
	why.reason = other;
	char *b = decision_reasoning(&why);
	bool is_same = sentence_n(a) == sentence_n(b) && !memcmp(a, b, sentence_n(a));

	free(a);
	free(b);
	return is_same;
}

/* What the policies and filters can say is never without words, and no two say the same. */
static void each_reason_and_code_has_words(void **state) {
	struct decision_why why = { .instance = SLICE("a"), .score = NAN, .ring = PICK_RING_NONE };
	struct filter_detail none = { 0, 0 };

	for (unsigned i = 0; i < PICK_REASONS; i++) {
		why.reason = (enum pick_reason)i;
		char *text = decision_reasoning(&why);
		assert_null(strstr(text, "null"));
		free(text);
		for (unsigned other = 0; other < i; other++)
			assert_false(says_the_same(why, (enum pick_reason)i, (enum pick_reason)other));
	}
	why.reason = PICK_RANDOM;
	for (unsigned i = 0; i < PICK_RING_NONE; i++) {
		why.ring = (enum pick_ring)i;
		char *text = decision_reasoning(&why);
		assert_null(strstr(text, "null"));
		assert_non_null(strstr(text, pick_ring_text(why.ring)));
		free(text);
	}
	for (unsigned i = FILTER_NONE + 1; i < FILTER_CODES; i++) {
		char *text = decision_rejection((enum filter_code)i, &none);

		for (unsigned other = FILTER_NONE + 1; other < i; other++) {
			char *same = decision_rejection((enum filter_code)other, &none);
			assert_string_not_equal(text, same);
			assert_string_not_equal(
			    filter_text((enum filter_code)i), filter_text((enum filter_code)other));
			free(same);
		}
		free(text);
	}
}

static void gaps_are_behind_the_chosen(void **state) {
	struct policy_score best = { .total = 0.25f }, other = { .total = 1 }, none = { .total = NAN };
	const struct policy *cost = policy_find(SLICE("cache_aware")),
			    *score = policy_find(SLICE("composite"));
	json_t *gap = decision_json_gap(cost, &other, &best);

	assert_true(json_real_value(gap) == 0.75);
	json_decref(gap);
	gap = decision_json_gap(score, &best, &other);
	assert_true(json_real_value(gap) == 0.75);
	json_decref(gap);
	gap = decision_json_gap(cost, &none, &best);
	assert_true(json_is_null(gap));
	json_decref(gap);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rejections_have_their_numbers),
		cmocka_unit_test(numbers_have_names),
		cmocka_unit_test(a_choice_has_all_its_reasons),
		cmocka_unit_test(nobody_has_a_refusal),
		cmocka_unit_test(each_reason_and_code_has_words),
		cmocka_unit_test(gaps_are_behind_the_chosen),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
