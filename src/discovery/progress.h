/*
 * progress: asks an engine that keeps requests waiting whether it works meanwhile.
 *
 * Its own counters at /metrics are read twice, `pause_ms` apart: any that differ are
 * progress. One that has none is asked for a token instead, the canary (POST
 * /v1/completions, or /v1/chat/completions where there is no such path): a whole answer
 * below 300 within `pause_ms` is progress; a refusal says nothing of the engine behind. One
 * that is known to hang does no work that its counters could show: it gets the canary in
 * place of the pause. A data-parallel rank is asked for itself: by its own counters, where they say
 * engine="RANK", and by a canary that is for it.
 *
 * on_done runs once, on the loop's thread; it may then be started again. Whatever an
 * engine sends is bounded in time and size, and is let go of before on_done.
 */
#pragma once

#include "fleet/health_state.h"
#include "http/fetch.h"

struct progress;
typedef void (*progress_fn)(struct progress *p, enum health_progress progress);

struct progress {
	struct fetch fetch;
	struct timer pause;
	struct loop *loop;
	progress_fn on_done;
	uint64_t answer_ms, pause_ms;
	struct sockaddr_storage address;
	struct slice authority, bearer; /* good until it is done */
	const char *tls_host;           /* likewise */
	char engine[8];                 /* its rank, as counters say it; empty: it has none */
	char *model;                    /* of the canary; NULL: none is sent */
	double sum;                     /* of its counters, the first time */
	bool has_sum, is_hung, is_second_path;
	bool is_mute;    /* its canary had no answer, or a failure */
	bool is_refused; /* its canary had an answer without work: below 500 */
};

struct progress_question {
	const struct instance *instance;
	const struct sockaddr_storage *address;
	struct slice bearer; /* must outlive the answer, as the instance must */
	struct slice model;  /* p NULL: no canary is sent */
	bool is_hung;
};

/* A question is answered, or not, within `answer_ms`; the canary within `pause_ms`. */
void progress_init(
    struct progress *p, struct loop *loop, uint64_t answer_ms, uint64_t pause_ms, progress_fn on_done);

/* Not while it is busy. May call on_done before it returns. */
void progress_start(struct progress *p, const struct progress_question *question);

/* Ends it without a callback; when it is not busy, nothing. */
void progress_cancel(struct progress *p);

static inline bool progress_is_busy(const struct progress *p) {
	return fetch_is_busy(&p->fetch) || timer_is_running(&p->pause);
}
