/*
 * held_head: the head of an event stream, held back until something comes behind it.
 *
 * Many engines send the head before any work is done: it says nothing, and as long as the client has not got
 * it the request may be had from another engine. So it is where there may be a hedge (router/hedge.h), and
 * while the prompt is computed elsewhere (router/split.h). On the exchange's thread.
 */
#pragma once

#include "router/exchange.h"

/*
 * As call_recv_head() of `up`. While `is_awaited`, heads of good streams without anything behind them are
 * copied to *held, which the caller frees when the attempt is over, and CALL_E_AGAIN is returned; when the
 * connection ends there, CALL_E_GONE. *head_out is in `room` or in *held.
 */
must_use int held_head_recv(struct exchange *x, struct call *up, struct buf **held, bool is_awaited,
    struct head_room *room, const struct head **head_out);

/* Is this the head of a stream that went well so far? */
bool held_head_is_stream(const struct head *head);
