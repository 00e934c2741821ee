/*
 * filter: which candidates may get a request at all, and why the others may not. Pure.
 *
 * The codes are in the order in which filters are asked, cheap ones first: a pick stops at
 * the first refusal of a candidate, an explanation shows all of them. Codes and their words
 * are stable.
 *
 * What nobody said of an instance is held against it where privacy is at stake, and only there:
 * who is not labelled is cleared for public requests alone. No last resort crosses that, or any
 * other filter that is more than a judgement of health; nor does it an open breaker, which is opened by what
 * happened to requests and lets one through from time to time. Two figures are known to err: the size
 * of a prompt is an estimate, and what a route was refused for once may have been that one
 * request. So before nobody is left those are taken for whom half the prompt would do, or who
 * refused such requests.
 *
 * Of those that are left only the owner stays when the request is about a stored response. When only
 * what passes speaks against the owner (its breaker, avoided, at capacity, late) nobody stays: the client is
 * to come again. Requests about a response by its path cost no generation, and may make room: neither a
 * capacity nor a deadline keeps them out.
 */
#pragma once

#include "policy/policy.h"

/* Why an instance was not eligible. Bits of a mask in explanations: 1 << code. */
enum filter_code {
	FILTER_NONE,
	FILTER_DISABLED,
	FILTER_DRAINING,
	FILTER_LOADING, /* its models or addresses are not known yet */
	FILTER_MODEL_ABSENT,
	FILTER_CAPABILITY_MISSING,
	FILTER_FEATURE_MISSING,
	FILTER_CONTEXT_TOO_SMALL,
	FILTER_TENANT_DENIED,
	FILTER_CLEARANCE_LOW,
	FILTER_RESIDENCY_MISSING,
	FILTER_REGION_DENIED,
	FILTER_ACCELERATOR_MISSING,
	FILTER_ROLE_MISMATCH, /* it does another part of the work, or has another connector */
	FILTER_RANK_ABSENT,   /* it is another data-parallel rank than the one asked for */
	FILTER_PRIORITY_LOW,
	FILTER_BREAKER_OPEN, /* or half-open, and somebody is there to see */
	FILTER_UNHEALTHY,
	FILTER_AVOIDED, /* a connect failed within the last seconds */
	FILTER_AT_CAPACITY,
	FILTER_SLO_UNATTAINABLE,
	FILTER_OVER_COST,
	FILTER_ALREADY_TRIED,
	FILTER_BELOW_MIN_SCORE,    /* eligible, but the composite score was too low */
	FILTER_RESPONSE_ELSEWHERE, /* another one made the response, and will take requests again */
	FILTER_CODES,
};

const char *filter_text(enum filter_code code);

/*
 * What a code goes by: what the request needs or would meet there, and what there is or may be. NAN: the
 * code has no such number.
 *
 *     context_too_small   tokens of prompt and output                  tokens of the context
 *     clearance_low       enum privacy, of the request                 of the instance
 *     feature_missing     1 << enum feature: those that are missing
 *     priority_low        its priority                                 the least
 *     breaker_open        milliseconds until a request is let through; 0: one is there
 *     avoided             milliseconds until it no longer is
 *     at_capacity         requests in flight                           its capacity
 *     slo_unattainable    milliseconds that are predicted              the deadline
 *     over_cost           micro-units, or its label cost               the ceiling, or the most
 *     below_min_score     its score                                    the least
 */
struct filter_detail {
	double value, limit;
};

/* What is asked of everybody, for codes and details; good as long as set, input and what was matched are. */
struct filter_ask {
	const struct policy_set *set;
	const struct pick_input *input;

	/* private */
	uint32_t checks; /* 1 << code: the filters that could refuse somebody */
	enum privacy privacy;
	uint64_t n_prompt, n_output; /* tokens; at least so many of a prompt that cannot be measured */
	uint64_t n_context;          /* of the prompt's, those that one context must hold */
	double group_rate;           /* prompt tokens a second, of those that are known; 0: of none */
	bool minds_lessons;          /* who refused such a request lately is out */
	bool is_relaxed;             /* nobody was left: estimates and lessons are doubted */
};

/* To be made once for all rows: linear in the model's candidates for a request with a deadline. */
struct filter_ask filter_ask(const struct policy_set *set, const struct pick_input *input);

/* What the filters left, and for what reason the choice is among them. */
struct filtered {
	uint32_t n; /* in set->eligible */
	uint64_t weight;
	enum pick_reason reason; /* PICK_REASONS: the policy's own */
	uint8_t last_ring;       /* where a place is preferred: the farthest that is in */
	uint32_t n_left_out;     /* that they left, and the owner or the rings did not */
	uint32_t refused;        /* 1 << enum filter_code: at what the others stopped */
};

/* Fills set->eligible. */
struct filtered filter_all(struct policy_set *set, const struct pick_input *input);

/* Does anybody pass all of them who is neither avoided nor in reserve? Fills set->eligible. */
must_use bool filter_leaves_well(struct policy_set *set, const struct pick_input *input);

/* What it means that nobody is left: an enum pick_outcome, by the filter that removed the last ones, or the
 * owner. */
int filter_outcome(uint32_t refused);

/* After PICK_E_OPEN: in so many milliseconds the first breaker lets a request such as this one through; 0:
 * who knows. Linear in the model's candidates. */
uint64_t filter_open_ms(const struct policy_set *set, const struct pick_input *input);

/*
 * All that speaks against a row of the set's snapshot, candidate or not: a mask of 1 << enum filter_code; 0:
 * nothing. Who is unhealthy or avoided may get a request all the same, when there is nobody else. Of a
 * candidate, or one in reserve, the traits are at hand; of others they are read anew, which allocates.
 */
uint32_t filter_codes(const struct filter_ask *ask, uint32_t row);

/* What these of the codes of filter_codes() go by; the others' are not written. */
void filter_details(const struct filter_ask *ask, uint32_t row, uint32_t codes,
    struct filter_detail details[static FILTER_CODES]);
