/*
 * mock_call: one request to the mock engine, between mock_call.c, which takes and answers it, and
 * mock_leg.c, which brings the legs of a pair together.
 */
#pragma once

#include "engine/kv_fetch.h"
#include "engine/mock.h"

enum call_state { CALL_BODY = 1, CALL_DELAYED, CALL_AWAITING, CALL_RUNNING, CALL_HUNG, CALL_CUTTING };

struct mock_call {
	struct call call;
	struct job job;
	struct timer timer;
	struct list link; /* mock->calls */
	struct mock *mock;
	struct buf *head;  /* until the request is understood */
	struct bytes body; /* likewise */
	struct generation generation;
	struct fault_verdict verdict;
	struct kv_fetch fetch;  /* of a decode */
	struct list await_link; /* mock->awaiting: a prefill whose decode has not come */
	const char *failure;    /* what it failed by but a fault: static */
	uint8_t state;          /* enum call_state */
	bool is_api;            /* the generation was parsed */
	bool makes_blocks;      /* a prefill that holds nothing yet */
	bool is_counted;        /* it is in the ledger and has not ended */
	bool keeps;             /* the connection, after the answer */
	bool invites;           /* the client waits for 100 (Continue) */
	bool is_http10;
	bool is_sick;      /* x-mock-fault asks for health:fail */
	bool is_anthropic; /* the shape of its errors */
};

/* --- legs of a pair ----------------------------------------------------------------- */

enum leg_outcome { LEG_READY, LEG_WAITS, LEG_FAILED };

/*
 * A leg begins: a decode fetches its blocks, a prefill may wait for its decode. A call that waits is
 * woken when mock_leg_look() may say something else. A failed one has why.
 */
enum leg_outcome mock_leg_begin(struct mock_call *c, struct refusal *why);
enum leg_outcome mock_leg_look(struct mock_call *c, struct refusal *why);

/* A prefill's blocks are complete: they are kept for its decode. May be said again. */
void mock_leg_hold(struct mock_call *c);

/* The call ends. A prefill that holds nothing has failed for its decode. */
void mock_leg_end(struct mock_call *c);

/* Looks again at all that wait for their decodes. */
void mock_leg_on_asked(struct kv_channel *channel);
