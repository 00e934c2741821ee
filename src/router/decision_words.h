/*
 * decision_words: what decisions and explanations say to people.
 *
 * Sentences in fixed wording, made of codes, numbers and names of instances alone: of equal ones the text is
 * equal. They are stable as far as tests go; programs read the codes (docs/api.md).
 *
 * Control thread; texts are on the heap and the caller's to free.
 */
#pragma once

#include "base/cause.h"
#include "policy/filter.h"

/* What speaks for the one that was chosen, or why nobody was. */
struct decision_why {
	enum cause refusal;          /* CAUSE_NONE: somebody was chosen, and all below counts */
	struct slice instance, next; /* the latter is the best of the others; empty: nobody was compared */
	enum pick_reason reason;
	enum pick_ring ring;
	bool is_retry, is_panic;
	bool is_probe;            /* its breaker is half-open */
	double score, next_score; /* NAN: there is none */
};

/* The words of `why`, the first the most important; their number. They are static. */
#define DECISION_REASONS_MAX 5
unsigned decision_reasons(const struct decision_why *why, const char *words[static DECISION_REASONS_MAX]);

/* Whether decision_reasons() says this word of any choice, and whether it does of this one. Any thread. */
bool decision_is_reason(const char *word);
bool decision_has_reason(const struct decision_why *why, const char *word);

/* "a: it is its turn (round_robin); in the zone of the request (local_zone)" */
char *decision_reasoning(const struct decision_why *why);

/* "its context is too small: 2553 tokens are needed, it has 1000". Of FILTER_NONE there are none. */
char *decision_rejection(enum filter_code code, const struct filter_detail *detail);
