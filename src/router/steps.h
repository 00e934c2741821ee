/*
 * steps: what the steps of an exchange have in common; for the files that are made of
 * them and for nobody else.
 *
 * In the order in which they happen: arrival.c (begin, verify, local, admit, inspect, queue), submission.c
 * (submit), choice.c (pick) with split.c, attempt.c (connect, send, await_head, back_off) with upload.c and
 * split_leg.c (collect), answer.c (relay), settle.c (refuse, settle); exchange.c drives them. A step returns
 * NEXT when x->step says what follows, WAIT when events or a deadline must come first, DONE when the
 * exchange is no more. All on the exchange's worker.
 */
#pragma once

#include "http/reply.h"
#include "router/exchange.h"

enum next { NEXT, WAIT, DONE };

#define REPLAY_BYTES_MAX (1u << 20) /* of a body that can be sent again */
#define INTERIM_MAX      64u        /* 1xx heads before an answer */

static inline struct buf_pool *exchange_bufs(const struct exchange *x) {
	return &x->worker->loop.bufs;
}

/* The request's; until the answer begins. */
static inline const struct head *exchange_head(const struct exchange *x) {
	return (const struct head *)x->head->data;
}

static inline uint64_t exchange_now_ns(const struct exchange *x) {
	return x->worker->loop.now_ns;
}

static inline const struct router_timeouts *exchange_timeouts(const struct exchange *x) {
	return &exchange_config(x)->timeout;
}

static inline enum next exchange_go(struct exchange *x, enum exchange_step step) {
	x->step = (uint8_t)step;
	return NEXT;
}

/*
 * The one way to fail. A client that is still there and has no answer yet gets one; if it does not take
 * that, that is the cause.
 */
enum next exchange_fail(struct exchange *x, enum cause cause);

/* Whether the client should be told that this answer is the last on its connection: the router is being
 * stopped. */
bool exchange_is_last(const struct exchange *x, const struct session *session);

/* --- arrival.c ------------------------------------------------------------------ */

enum next step_begin(struct exchange *x);
enum next step_verify(struct exchange *x);
enum next step_local(struct exchange *x);
enum next step_admit(struct exchange *x);
enum next step_inspect(struct exchange *x);
enum next step_queue(struct exchange *x);

/* What all answers of our own have; its fields stand in the room. */
struct reply arrival_reply(const struct exchange *x, char room[static CORS_FIELDS_BYTES]);

/* It was sent, and that came to r. */
enum next arrival_replied(struct exchange *x, const struct reply *reply, int r);

/* Its client waits to be asked for the body (100-continue). 0 or CALL_E_GONE. */
int arrival_invite(struct exchange *x);

/* Reads once from the client and has it scanned; what came is in *in. 0, or CALL_E_AGAIN, or failed. */
int arrival_receive(struct exchange *x, struct call_in *in, enum cause *cause);

/* The same, held. CALL_E_AGAIN: nothing came, or a cause ends the exchange. */
int arrival_hold(struct exchange *x, enum cause *cause);

/* The name of the model as the client has it, be that an alias; empty: it named none. */
struct slice arrival_asked(const struct exchange *x);

/* NULL: nobody has it. */
const struct model *arrival_model(const struct exchange *x, const struct snapshot *snap);

/* --- submission.c --------------------------------------------------------------- */

enum next step_submit(struct exchange *x);

/* --- choice.c ------------------------------------------------------------------- */

enum next step_pick(struct exchange *x);

/* What its tenant may use is asked before it waits, not behind; of a model that nobody has yet at the pick.
 */
enum cause choice_reserve(struct exchange *x);

/* Whether somebody who is well can be picked besides those tried, or those denied where others may return. */
must_use bool choice_has_others(struct exchange *x);

/* --- attempt.c ------------------------------------------------------------------ */

enum next step_connect(struct exchange *x);
enum next step_send(struct exchange *x);
enum next step_await_head(struct exchange *x);
enum next step_back_off(struct exchange *x);

/* The attempt is over. What a whole answer says of its usage, and how long it took, is a lesson. */
void attempt_release(struct exchange *x, enum cause cause, unsigned status);

/* The same with another usage than its own; NULL: none. */
void attempt_release_with(
    struct exchange *x, enum cause cause, unsigned status, const struct ticket_usage *usage);

/* What the answer that came last said, or showed. */
struct ticket_usage attempt_usage(const struct exchange *x);

/* It came to nothing, and what it says of its instance is told now. `status`: of what that said; 0: nothing.
 */
void attempt_leave(struct exchange *x, enum cause cause, unsigned status);

/* Its connection, if there is one, ends. */
void attempt_drop(struct exchange *x);

/* The engine's connection ended before the client had anything of an answer. */
enum next attempt_lost(struct exchange *x, enum cause cause);

/* The head of an answer with a final status has come. */
enum next attempt_answered(struct exchange *x, const struct head *head);

/* How long an instance that refuses wants to be left alone, in ms; from now on it is. 0: it does not say. */
uint64_t attempt_heed_rest(struct exchange *x, const struct head *answer);

/* This instance did not take the request, or gave it up: another one may. `status`: of what it said; 0:
 * nothing. */
enum next attempt_elsewhere(struct exchange *x, enum cause cause, unsigned status);

/* The address did not do: the next one, or another instance. */
enum next attempt_unconnected(struct exchange *x, enum cause cause);

/* --- upload.c ------------------------------------------------------------------- */

/* Length if we know it by now, whatever the client used. */
enum framing upload_framing(const struct exchange *x, uint64_t *length);

/* The end of the upload, with the client's trailers; once its head is forgotten nobody knows which may go on.
 */
void upload_put_end(struct exchange *x, struct call_out *o);

/* What of the held body goes out otherwise than it came. */
void upload_edit(const struct exchange *x, struct splice *edits);

/* What was sent cannot be sent again. */
void upload_forget(struct exchange *x);

/* The rest of the body, as it comes: one read of the socket, all of what it brought. */
enum cause upload_pump(struct exchange *x);

/* --- answer.c ------------------------------------------------------------------- */

enum next step_relay(struct exchange *x);

/* When the client of a stream whose engine is silent is to have a comment; UINT64_MAX: not at all. */
uint64_t answer_heartbeat_ms(const struct exchange *x);

/* 1xx other than 100, which we have answered ourselves, goes to clients that can read it (RFC 9110
 * section 15.2), unless two engines are asked: nobody knows yet whose answer it belongs to. */
enum cause answer_interim(struct exchange *x, const struct head *interim);

/* Pieces of the client's answer, heard and sent; what is not sent yet is copied. */
void answer_pass(struct exchange *x, struct call_out *o, const struct piece *pieces, size_t n);

/* The engine has said everything: its connection goes back to the pool, or ends. */
void answer_finish_upstream(struct exchange *x);

/* Head, held body and what was learned of the request are not needed any more: an open stream costs little.
 */
void answer_forget_request(struct exchange *x);

/* The engine's last word on the status has come. */
enum next answer_begin(struct exchange *x, const struct head *answer);

/* --- settle.c ------------------------------------------------------------------- */

enum next step_refuse(struct exchange *x);
enum next step_settle(struct exchange *x);
