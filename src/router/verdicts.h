/*
 * verdicts: asks the operator's servers about clients' keys that are none of ours, and remembers what they
 * said.
 *
 * Lives on the control thread. A worker that finds no verdict in the table (verdicts_find()) posts an inquiry
 * and gets it back with exactly one word. All who inquire of the same key wait for one question; a question
 * is one GET of each URL with the key as bearer token, all at once: one 200 and the key is good, a 4xx of all
 * of them and it is bad; 408, 425 and 429 are no word on the key, nor is any other status, nor silence, and
 * then nothing is remembered, and a good verdict that has just expired goes on for a while.
 * At most VERDICT_QUESTIONS_MAX questions are under way; who comes beyond is told so.
 *
 * An inquiry is its worker's, and lent from verdicts_ask() to its word. A worker that wants it back earlier,
 * since the client left, says so by verdicts_cancel(); mail from one thread to another keeps its order, so
 * the answer to that comes behind any word, and behind it the inquiry is the worker's again. The question
 * goes on.
 *
 * The key itself is in the inquiry, until the question is put, and in the requests that it makes; it is
 * wiped from both. Its digest is what is kept.
 */
#pragma once

#include <stdio.h>

#include "net/loop.h"
#include "router/tenant.h"
#include "router/verdict_table.h"

#define VERDICT_QUESTIONS_MAX 64u
#define VERDICT_URLS_MAX      8u

enum verdict {
	VERDICT_NONE,
	VERDICT_VALID,
	VERDICT_STALE, /* it was valid, and nobody could say whether it still is */
	VERDICT_INVALID,
	VERDICT_FAILED, /* nobody could say */
	VERDICT_BUSY,   /* too many questions are under way */
};

struct verdicts;

struct inquiry {
	struct verdicts *verdicts;
	struct loop *home; /* where it is answered: */
	mail_fn on_verdict, on_cancelled;
	struct mail mail, cancel; /* for the callbacks to find the inquiry by */
	struct job *job;          /* the worker's: woken by the verdict; NULL: cancelled */
	bool is_back;             /* likewise: it has its verdict */
	uint8_t verdict;          /* enum verdict */
	uint8_t digest[DIGEST_BYTES];
	uint16_t n_key;
	char key[TENANT_KEY_MAX];

	/* private */
	struct list link;
};

/* What [auth] says of them. */
struct verdict_options {
	struct option_list urls; /* none: nobody is asked */
	struct verdict_times times;
	uint64_t timeout_ms; /* of a question, whatever it takes */
};

/* NULL: for one of the URLs nothing can be asked; *url_out is that one. The options are copied. Before
 * the workers are started. */
must_use struct verdicts *verdicts_new(
    struct loop *loop, const struct verdict_options *options, const char **url_out);

/* Control thread, whose loop is about to end: all questions end, and those that come are answered at once.
 * Accepts NULL. */
void verdicts_close(struct verdicts *verdicts);

/* Nobody inquires any more. Accepts NULL, clears. */
void verdicts_free(struct verdicts **verdicts);

/* Counters for /metrics. Control thread. */
void verdicts_write_metrics(const struct verdicts *verdicts, FILE *out);

/* --- for workers ------------------------------------------------------------------------ */

/* What is remembered of a key, without waiting. */
enum verdict_found verdicts_find(
    const struct verdicts *verdicts, const uint8_t digest[static DIGEST_BYTES], uint64_t now_ms);

/* Key and digest are in it, and where it goes. */
void verdicts_ask(struct inquiry *inquiry);

/* Not to be called twice, nor after a verdict that was taken. */
void verdicts_cancel(struct inquiry *inquiry);

/* How many connections questions may need at once. */
unsigned verdicts_n_connections(const struct verdicts *verdicts);

/* The longest that a verdict takes: longer, and nobody is there to give it. */
uint64_t verdicts_patience_ms(const struct verdicts *verdicts);
