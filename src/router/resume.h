/*
 * resume: a stream that an engine cut in the middle of its answer goes on at another one, and the client
 * sees one stream (docs/resume.md, docs/decisions/0026-resume.md).
 *
 * For requests where that is sound, as far as the body says (router/continuation.h), the body is kept
 * beyond the head of the answer, and the text beside it as it passes; only whole events go to the client,
 * since half an event cannot be taken back. When the stream breaks, or falls silent for too long, behind
 * text and before its end, the attempt is settled like any that failed, and another instance is picked and
 * asked for the rest. What it says comes out as if the first one had said it. If nobody can, the client is
 * told as without all this. What cannot be gone on with any more is let go, and passes as it comes.
 *
 * A struct resume belongs to its exchange, lives in a slab of the worker, and is there only while it is of
 * use: x->resume is NULL for all others. Memory for body and text comes from the budget and has a limit
 * for each request.
 */
#pragma once

#include "router/continuation.h"
#include "router/event.h"
#include "router/exchange.h"

struct resume {
	struct continuation continuation;
	struct continuation_request request;
	struct hold body; /* as the client sent it */
	struct hold text; /* said so far, escaped */
	struct hold out;  /* what goes to the client next */
	struct event_cutter events;
	uint8_t cause;   /* why the stream was cut last */
	uint8_t n;       /* how often it was gone on with, or tried to */
	bool is_seeking; /* it was cut, and nobody answers yet */
	bool is_kept;    /* body and text are there: it may be gone on with */
	bool is_bad;     /* an event of another engine was not understood */
	bool has_spoken; /* the instance at work has said some text */
};

/*
 * The head of the first answer has been passed on. When it may be gone on with, the body that was held is
 * kept from now on, and the exchange must keep its head as long as resume_is_kept().
 */
void resume_begin(struct exchange *x, const struct head *answer);

static inline bool resume_is_kept(const struct exchange *x) {
	return x->resume && x->resume->is_kept;
}

/* Another instance's answer begins, and is what it must be. */
void resume_answered(struct exchange *x);

/* Bytes of the answer have come: in their place *in gets what goes to the client now, valid until
 * resume_sent(). Behind what is not understood there is no end. */
void resume_take(struct exchange *x, struct call_in *in);

/* What resume_take() gave has been sent. False: the stream is not understood behind it, and counts as cut. */
must_use bool resume_sent(struct exchange *x);

/* For exchange_fail(), before anything else. True: the attempt is over, and another instance is to be picked
 * for the rest. */
must_use bool resume_again(struct exchange *x, enum cause cause);

/* It is not: what the exchange fails for. Who was asked for the rest, and did not do, is settled by `cause`.
 */
enum cause resume_give_up(struct exchange *x, enum cause cause);

/* How often it was gone on with, or tried to. */
static inline unsigned resume_n(const struct exchange *x) {
	return x->resume ? x->resume->n : 0;
}

/* At settle. */
void resume_end(struct exchange *x);
