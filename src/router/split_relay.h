/*
 * split_relay: the answer of a decode engine on its way to the client, with what only the prefill engine
 * knows put into it (router/split_merge.h).
 *
 * A whole answer is gathered, and goes on with its end; of a stream only an event that has not ended is kept
 * back. An answer or an event that is too large for that, or comes while memory is short, goes on as it is.
 * The prefill engine may still be at work when the answer begins: what it has not said by then is not waited
 * for.
 *
 * Part of the exchange's pair, and as long as that.
 */
#pragma once

#include "router/event.h"
#include "router/split_merge.h"

struct exchange;
struct head;
struct call_in;
struct call_out;

enum split_relay_kind { SPLIT_RELAY_NONE, SPLIT_RELAY_WHOLE, SPLIT_RELAY_EVENTS };

struct split_relay {
	struct split_merge merge; /* of the prefill engine's answer; zeroed: nothing */
	struct event_cutter events;
	struct hold held; /* of a whole answer: as far as it has come; of a stream: what goes on next */
	struct hold sent; /* what went on last, until that is flushed */
	uint8_t kind;
	bool has_begun; /* something of a stream has come */
	bool is_large;  /* its event that is coming goes on as it comes */
};

/* The prefill engine's answer has come. */
void split_relay_learn(struct exchange *x);

/* What was learned is of no use: another answer follows, or none. */
void split_relay_forget(struct exchange *x);

/* The client's answer begins with this head. True: its body may become longer than that says. */
must_use bool split_relay_begin(struct exchange *x, const struct head *answer);

/* What has come of it, behind what is in `out`: as much as may go on. It is flushed before the next call. */
void split_relay_put(struct exchange *x, const struct call_in *in, struct call_out *out);

void split_relay_end(struct exchange *x);
