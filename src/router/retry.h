/*
 * retry: whether, when and how often a request is sent again.
 *
 * What an engine refused may be sent to another one: a status that says that nothing was
 * done (429 and 503, others where the configuration says so), never after a byte of an
 * answer went to the client. Two things keep repeats from feeding the outage that they are
 * the answer to: the wait before each grows, with jitter, and they are paid from a budget, a part of
 * the requests that came lately (RFC 9110 sections 9.2.2 and 10.2.3; "The Tail at Scale" names the budget
 * for hedges).
 *
 * Pure. Times are milliseconds.
 */
#pragma once

#include "base/rng.h"
#include "base/slice.h"

#define RETRY_ATTEMPTS_MAX   64u
#define RETRY_BACKOFF_MAX_MS 86400000u /* of both waits: twice as long, with jitter, is 32 bits */

/* The statuses that may be refusals. */
enum retry_status { RETRY_408, RETRY_429, RETRY_500, RETRY_502, RETRY_503, RETRY_504, RETRY_STATUSES };

/* Of its text. RETRY_STATUSES: it is none of them. */
enum retry_status retry_status_read(struct slice text);

struct retry_options {
	uint32_t attempts; /* at all, the first among them; 1: no retry. At most RETRY_ATTEMPTS_MAX */
	bool sent;         /* also where the connection broke and the engine may have begun */
	uint8_t refusals;  /* bits of enum retry_status: answers that say that nothing was done */
	uint64_t backoff_ms, backoff_max_ms; /* before the first retry, and the longest */
	double multiplier;                   /* 1 or more: from one wait to the next */
	double jitter;                       /* 0 to 1: part of a wait that it may be shorter or longer */
	double budget;                       /* 0 to 1: retries by requests; 0: none */
};

/* Why a request that failed or was refused is not sent again. */
enum retry_bar {
	RETRY_BAR_NONE,
	RETRY_BAR_ATTEMPTS,       /* it was sent as often as it may be */
	RETRY_BAR_BUDGET,         /* too many others were */
	RETRY_BAR_RETRY_AFTER,    /* nobody else is there, and who is wants to be left alone for too long */
	RETRY_BAR_NOT_REPLAYABLE, /* its body was not kept: it is too large, or memory was short */
	RETRY_BAR_RESPONSE_OWNER, /* nobody else has what it is about */
	RETRY_BAR_MAY_HAVE_BEGUN, /* the connection ended, and the engine may be at work */
	RETRY_BAR_ANSWER_BEGAN,   /* some of an answer had come */
	RETRY_BARS
};

/* The word of the contract; NULL for RETRY_BAR_NONE. */
const char *retry_bar_text(enum retry_bar bar);

/* Is such an answer an explicit refusal? */
must_use bool retry_is_refusal(const struct retry_options *options, unsigned status);

/* The wait before the next attempt, after `n_attempts` of them; the refusal itself may ask for more. */
uint64_t retry_wait_ms(const struct retry_options *options, uint32_t n_attempts, struct rng *rng);

/*
 * Of a Retry-After field: seconds or a date (RFC 9110 section 10.2.3). `now_s` is the wall clock.
 * 0 where there is none, it is over, or it cannot be read; at most RETRY_AFTER_MAX_MS.
 */
#define RETRY_AFTER_MAX_MS 3600000u
uint64_t retry_after_ms(struct slice value, int64_t now_s);

/*
 * What retries are paid from, for the requests of one model on one thread. Each request pays in a part, each
 * retry takes out a whole; what was paid in fades within some ten seconds. The first few are free, or a model
 * with few requests would have none.
 */
#define RETRY_BUDGET_FREE 3.0

struct retry_budget {
	double paid, taken; /* as of at_ms; they fade */
	uint64_t at_ms;
};

/* A request came. */
void retry_budget_pay(struct retry_budget *b, const struct retry_options *options, uint64_t now_ms);

/* For one retry. False: there is not enough, and nothing was taken. */
must_use bool retry_budget_take(struct retry_budget *b, const struct retry_options *options, uint64_t now_ms);
