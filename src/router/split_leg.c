/*
 * The legs of a pair at work: what each is sent, what the prefill answers, in hand or aside.
 */
#include "router/split.h"

#include "router/held_head.h"
#include "router/journal.h"
#include "router/split_breaker.h"
#include "router/split_pushers.h"
#include "router/steps.h"

#define READ_BYTES 65536u

/* --- what is sent ----------------------------------------------------------------------------- */

/* The parameters that the prefill answered with, without what is not for the decode. */
static void edit_from_answer(const struct split *p, struct splice *out) {
	struct split_range ranges[SPLIT_RANGES];
	unsigned n = split_params_ranges(&p->params, p->wire.decode_lead.n, ranges);

	split_body_decode_from(&p->body, p->wire.decode_lead, &p->answer, ranges, n, out);
}

struct slice split_edit(const struct exchange *x, struct splice *out) {
	const struct split *p = x->split;

	if (p->phase == SPLIT_ALONE)
		return (struct slice){ NULL, 0 };
	if (p->connector == CONNECTOR_SGLANG)
		split_body_bootstrap(&p->body, &p->wire.bootstrap, out);
	else if (p->phase == SPLIT_PREFILL)
		split_body_prefill(&p->body, p->wire.prefill_params, out);
	else if (!p->wire.takes_answer)
		split_body_decode(&p->body, p->wire.decode_params, out);
	else if (p->params.n)
		edit_from_answer(p, out);
	else
		split_body_decode(&p->body, (struct slice){ NULL, 0 }, out);
	return p->wire.id;
}

/* --- the prefill's answer --------------------------------------------------------------------- */

/* All of it is there: what it means for the decode, and for those that follow. */
static void read_answer(struct exchange *x) {
	struct split *p = x->split;
	char room[SPLIT_PUSH_BYTES];
	struct split_push push;

	p->has_answer = true;
	split_relay_learn(x);
	if (split_params_push(&p->params, &p->answer, room, &push))
		split_pushers_keep(&x->worker->pushers, p->prefill_instance, &push);
	if (p->wire.takes_answer && !p->params.n)
		metric_add(&x->worker->metrics->prefills_without_params, 1);
	x->prefill_ms = (uint32_t)((exchange_now_ns(x) - p->prefill_begun_ns) / 1000000u);
	metric_observe(&x->worker->metrics->prefill_leg, exchange_now_ns(x) - p->prefill_begun_ns);
	metric_add(&x->worker->metrics->prefills, 1);
}

/* The prefill leg, which is in hand, has done its work. Its view stays: the wire has texts of it. */
static void end_prefill(struct exchange *x, const struct ticket_usage *usage) {
	struct split *p = x->split;

	ticket_answered(&x->ticket, &x->worker->policies, exchange_now_ns(x));
	journal_prefilled(x);
	answer_finish_upstream(x);
	attempt_release_with(x, CAUSE_NONE, 200, usage);
	x->moved_ms = 0;
	p->prefill_view = x->view;
	x->view = NULL;
	x->row = EXCHANGE_NO_ROW;
}

/* Keeps what has come of the body. 0, or why not. */
static enum cause keep_answer(struct exchange *x, const struct call_in *in) {
	struct hold *answer = &x->split->answer;

	if (answer->bytes + in->bytes > exchange_config(x)->hold_limit_bytes)
		return CAUSE_UPSTREAM_MALFORMED;
	return hold_append(answer, exchange_bufs(x), in->pieces, in->n) ? CAUSE_NONE : CAUSE_OVERLOADED;
}

static enum next begin_decode(struct exchange *x) {
	struct split *p = x->split;

	split_set_phase(x, SPLIT_DECODE);
	split_take(x, &p->decode);
	return exchange_go(x, STEP_CONNECT);
}

void split_close_tap(struct exchange *x) {
	tap_deinit(&x->tap, exchange_bufs(x));
	x->tap = (struct tap){ .kind = 0 };
}

static enum next collected(struct exchange *x) {
	struct split *p = x->split;
	struct ticket_usage usage;

	(void)tap_finish(&x->tap, &x->worker->tap, exchange_bufs(x));
	usage = attempt_usage(x);
	usage.output_tokens = 0; /* its one token says nothing of answers */
	if (!split_params_read(&p->params, &p->answer) && !p->is_stream)
		return attempt_lost(x, CAUSE_UPSTREAM_MALFORMED);
	read_answer(x);
	end_prefill(x, &usage);
	split_close_tap(x);
	return begin_decode(x);
}

static enum cause cause_of(int outcome) {
	return outcome == CALL_E_BAD ? CAUSE_UPSTREAM_MALFORMED : CAUSE_UPSTREAM_CLOSED;
}

enum next step_collect(struct exchange *x) {
	struct call_in in;

	for (;;) {
		int r = call_recv(&x->up, READ_BYTES, &in);

		if (r == CALL_E_AGAIN)
			return WAIT;
		if (r)
			return attempt_lost(x, cause_of(r));
		(void)tap_feed(&x->tap, &x->worker->tap, exchange_bufs(x), in.pieces, in.n);
		enum cause cause = keep_answer(x, &in);
		if (cause == CAUSE_OVERLOADED)
			return exchange_fail(x, cause);
		if (cause)
			return attempt_lost(x, cause);
		if (in.is_end)
			return collected(x);
		if (!x->upstream->conn.unread.n)
			return WAIT;
	}
}

int split_recv_head(struct exchange *x, struct head_room *room, const struct head **head_out) {
	bool is_awaited = x->split->phase == SPLIT_DECODE && aside_is_there(&x->split->prefill) &&
	    !exchange_config(x)->heartbeat_ms; /* which a client may wait for */

	return held_head_recv(x, &x->up, &x->held_head, is_awaited, room, head_out);
}

/* What the two make of it together counts for both, as the answer to the decode leg says. */
void split_judge(struct exchange *x, unsigned status) {
	const struct split *p = x->split;
	struct split_breaker *b = x->worker->router->split_breaker;

	if (p->phase != SPLIT_DECODE)
		return;
	uint64_t prefill = instance_life(p->prefill_instance), decode = instance_life(p->decode_instance);

	if (!status || (status >= 500 && status != 501 && status != 503)) {
		if (!x->was_retried) /* one request alone says little of them */
			split_breaker_fail(b, prefill, decode, loop_now_ms(&x->worker->loop) / 1000);
		/* It may be another process since. */
		split_pushers_forget(x->worker->pushers, p->prefill_instance);
		atomic_fetch_add_explicit(&p->prefill_instance->learned.n_doubts, 1, memory_order_relaxed);
	} else if (status < 400) {
		split_breaker_succeed(b, prefill, decode);
	}
}

bool split_takes(struct exchange *x, const struct head *head) {
	struct split *p = x->split;

	if (head->status >= 300) /* that is the client's answer: nobody works for it any more */
		split_drop_aside(x);
	if (p->phase != SPLIT_PREFILL || head->status >= 300)
		return false;
	tap_init(&x->tap, head);
	p->is_stream = x->tap.kind == TAP_EVENTS;
	x->is_engine_kept = head->keep_alive;
	x->step = STEP_COLLECT;
	return true;
}

/* --- both at once ------------------------------------------------------------------------------ */

/* For so long; 0: for ever. */
static void wait_aside(struct exchange *x, uint64_t ms) {
	x->split->prefill_due_ms = ms ? loop_now_ms(&x->worker->loop) + ms : UINT64_MAX;
}

uint64_t split_due_ms(const struct exchange *x) {
	const struct split *p = x->split;

	return p && p->phase == SPLIT_DECODE && p->prefill.upstream ? p->prefill_due_ms : UINT64_MAX;
}

bool split_goes_on(struct exchange *x, enum next *next_out) {
	struct split *p = x->split;

	if (p->phase != SPLIT_PREFILL || !p->wire.is_concurrent || !x->moved_ms)
		return false;
	aside_put(x, &p->prefill);
	wait_aside(x, exchange_timeouts(x)->first_byte_ms);
	*next_out = begin_decode(x);
	return true;
}

/* The prefill leg aside is over, and was good. Its usage was not listened to. */
static void settle_aside(struct exchange *x) {
	struct split *p = x->split;
	bool is_engine_kept = x->is_engine_kept;

	(void)split_params_read(&p->params, &p->answer);
	read_answer(x);
	aside_swap(x, &p->prefill);
	x->is_engine_kept = p->keeps_engine;
	end_prefill(x, NULL);
	x->is_engine_kept = is_engine_kept;
	aside_swap(x, &p->prefill);
}

/* What the decode, which is in hand, was asked is of no use: it is picked, and no more, as before. */
static void set_back_decode(struct exchange *x) {
	attempt_drop(x);
	x->moved_ms = 0;
	x->n_addresses = 0;
	x->n_interim = 0;
	aside_put(x, &x->split->decode);
}

/* It failed; `head`: of what it said instead, NULL: nothing. */
static bool fail_aside(struct exchange *x, enum cause cause, const struct head *head, enum next *next_out) {
	struct split *p = x->split;
	uint8_t last_cause = x->last_cause;

	if (x->at.first_byte) { /* what the client has had stays: the decode may know how to go on */
		aside_swap(x, &p->prefill);
		attempt_leave(x, cause, head ? head->status : 0);
		worker_view_release(x->worker, &x->view);
		aside_swap(x, &p->prefill);
		x->last_cause = last_cause;
		return false;
	}
	set_back_decode(x);
	split_take(x, &p->prefill);
	split_set_phase(x, SPLIT_PREFILL);
	*next_out = head ? attempt_answered(x, head) : attempt_lost(x, cause);
	return true;
}

/* The head of the prefill leg aside. 0: it is good; CALL_E_AGAIN: not yet; else it failed, with a status of
 * 300 or more if that was what it said. */
static int hear_head(struct exchange *x, struct head_room *room) {
	struct split *p = x->split;
	struct tap tap;

	do {
		int r = call_recv_head(&p->prefill.up, room, METHOD_OTHER);

		if (r)
			return r;
		if (room->head.status < 200 && ++p->prefill.n_interim > INTERIM_MAX)
			return CALL_E_BAD;
	} while (room->head.status < 200);
	tap_init(&tap, &room->head);
	p->is_stream = tap.kind == TAP_EVENTS;
	p->keeps_engine = room->head.keep_alive;
	p->has_head = room->head.status < 300;
	wait_aside(x, exchange_timeouts(x)->stream_idle_ms);
	return p->has_head ? 0 : CALL_E_BAD;
}

/* What comes behind its head. 0: there was its end; CALL_E_AGAIN: not yet; else it failed. */
static int hear_body(struct exchange *x) {
	struct split *p = x->split;
	struct call_in in;
	int r;

	do {
		r = call_recv(&p->prefill.up, READ_BYTES, &in);
		if (r)
			return r;
		wait_aside(x, exchange_timeouts(x)->stream_idle_ms);
		p->is_unheard = p->is_unheard || keep_answer(x, &in);
		if (p->is_unheard)
			hold_free(&p->answer, exchange_bufs(x));
	} while (!in.is_end && p->prefill.upstream->conn.unread.n);
	return in.is_end ? 0 : CALL_E_AGAIN;
}

bool split_hear(struct exchange *x, enum next *next_out) {
	struct split *p = x->split;
	struct head_room room;
	int r = 0;

	if (p->phase != SPLIT_DECODE || !p->prefill.upstream)
		return false;
	room.head.status = 0; /* it is large: the rest is written when it is used */
	if (!p->has_head)
		r = hear_head(x, &room);
	if (!r)
		r = hear_body(x);
	if (!r)
		settle_aside(x);
	if (r == CALL_E_AGAIN && loop_now_ms(&x->worker->loop) >= p->prefill_due_ms)
		return fail_aside(x, CAUSE_FIRST_BYTE_TIMEOUT, NULL, next_out);
	if (!r || r == CALL_E_AGAIN)
		return false;
	return fail_aside(x, cause_of(r), room.head.status >= 300 ? &room.head : NULL, next_out);
}
