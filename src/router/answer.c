/*
 * The engine's answer on its way to the client. One read a run at most, as with the
 * upload.
 */
#include "router/steps.h"

#include "base/log.h"
#include "router/forward.h"
#include "router/hedge.h"
#include "router/journal.h"
#include "router/patience.h"
#include "router/resume.h"
#include "router/seek.h"
#include "router/split.h"
#include "router/tenancy.h"

#define DOWN_READ_BYTES  65536u /* what a client that does not read can make us hold */
#define DOWN_READ_HUNGRY 4096u  /* the same while memory is short: answers go on, since they end */

enum cause answer_interim(struct exchange *x, const struct head *interim) {
	struct call_out o;
	if (++x->n_interim > INTERIM_MAX)
		return CAUSE_UPSTREAM_MALFORMED;
	if (interim->status == 100 || exchange_head(x)->minor == 0 || x->down.out_has_begun ||
	    hedge_is_out(x) || split_is_prefilling(x))
		return CAUSE_NONE;
	call_begin(&o, &x->down);
	forward_interim(&o, interim);
	return call_flush(&o) ? CAUSE_CLIENT_GONE : CAUSE_NONE;
}

void answer_forget_request(struct exchange *x) {
	upload_forget(x);
	conn_relax(x->down.conn);
	buf_unref(exchange_bufs(x), &x->head);
	if (call_is_received(&x->down) || x->is_upload_broken)
		inspect_deinit(&x->inspect, exchange_bufs(x));
}

/* What the answer has told so far, before the client can know it. */
static void heed_news(struct exchange *x, struct tap_news news) {
	if (news.n_content)
		journal_tokens(x, news.n_content);
	if (news.response)
		ticket_keep_response(&x->ticket, &x->worker->policies,
		    worker_response_key(tenancy_of(x), news.response), exchange_now_ns(x));
}

/*
 * Its answer has ended: does the engine not serve what was asked for? Then others are asked for it, for a
 * while.
 */
static void learn_refusal(struct exchange *x) {
	bool is_refusal = x->status == 404 || x->status == 405 || x->status == 501;
	enum capability asked = (enum capability)x->ticket.capability; /* not what was known later */
	struct learned *learned = &x->ticket.instance->learned;
	struct log_event e;

	if (!is_refusal || x->tap.is_of_request || asked == CAPABILITY_OTHER)
		return;
	if (inspect_names_response(&x->inspect)) /* that may be what is not there */
		return;
	if (!learned_clear(learned, asked, x->model->label, loop_now_ms(&x->worker->loop)))
		return;
	metric_add(&x->worker->metrics->capability_cleared, 1);
	log_begin(&e, LOG_INFO, "engine refused a route");
	line_text(&e.line, SLICE("instance"), x->ticket.instance->spec.name);
	line_text(&e.line, SLICE("model"), x->model->name);
	line_text(&e.line, SLICE("capability"), slice_of(capability_text(asked)));
	line_uint(&e.line, SLICE("status"), x->status);
	log_end(&e);
}

void answer_pass(struct exchange *x, struct call_out *o, const struct piece *pieces, size_t n) {
	if (!n)
		return;
	heed_news(x, tap_feed(&x->tap, &x->worker->tap, exchange_bufs(x), pieces, n));
	call_put_data(o, pieces, n);
}

/* Takes the next part of the answer into o. 0, CALL_E_AGAIN, or the outcome that cut it. */
static int take_answer(struct exchange *x, struct call_out *o) {
	struct call_in in;
	int r =
	    call_recv(&x->up, buf_is_over_budget(exchange_bufs(x)) ? DOWN_READ_HUNGRY : DOWN_READ_BYTES, &in);
	if (r)
		return r;
	if (x->asked_ms && in.n)
		hedge_learn(x);
	if (x->resume)
		resume_take(x, &in);
	if (x->split)
		split_relay_put(x, &in, o);
	else
		answer_pass(x, o, in.pieces, in.n);
	if (in.is_end) {
		struct head_room trailer;
		call_put_end(o, call_trailer(&x->up, &trailer) ? &trailer.head : NULL);
		heed_news(x, tap_finish(&x->tap, &x->worker->tap, exchange_bufs(x)));
		learn_refusal(x);
	}
	return 0;
}

/* Bytes of the answer have gone through. Who holds up the next ones? */
static void answer_mark_move(struct exchange *x) {
	x->moved_ms = call_pending(&x->down) ? 0 : loop_now_ms(&x->worker->loop);
	x->n_heartbeats = 0;
}

/* Between two events, and never where it could be taken for a part of the answer. */
uint64_t answer_heartbeat_ms(const struct exchange *x) {
	uint64_t every_ms = exchange_config(x)->heartbeat_ms;
	if (!every_ms || !x->moved_ms || x->tap.kind != TAP_EVENTS || !x->tap.at_boundary ||
	    x->down.out_framing == FRAMING_LENGTH || x->down.out_is_done || x->n_heartbeats == UINT16_MAX)
		return UINT64_MAX;
	return x->moved_ms + (x->n_heartbeats + UINT64_C(1)) * every_ms;
}

/* Nothing has come. What stands between us and the client may take silence for the end. */
static enum next beat(struct exchange *x) {
	static const char comment[] = ": heartbeat\n\n";
	struct piece piece = { comment, sizeof(comment) - 1, NULL };
	struct call_out o;
	if (answer_heartbeat_ms(x) > loop_now_ms(&x->worker->loop))
		return WAIT;
	x->n_heartbeats++;
	call_begin(&o, &x->down);
	call_put_data(&o, &piece, 1);
	return call_flush(&o) ? exchange_fail(x, CAUSE_CLIENT_GONE) : WAIT;
}

/* What was gathered goes out. */
static enum cause send_answer(struct exchange *x, struct call_out *o) {
	if (call_flush(o))
		return CAUSE_CLIENT_GONE;
	answer_mark_move(x);
	return x->resume && !resume_sent(x) ? CAUSE_STREAM_BROKEN : CAUSE_NONE;
}

/* For the client, where the configuration says so. */
static const struct forward_explained *explain_choice(
    const struct exchange *x, struct forward_explained *e, char room[static DECISION_TEXT_BYTES]) {
	const struct decision *d = decision_find(&x->worker->decisions, x->decision);
	if (!exchange_config(x)->explain.has_headers)
		return NULL;
	*e = (struct forward_explained){ .instance = x->ticket.instance->spec.name,
		.reason = slice_of(pick_reason_text((enum pick_reason)x->reason)),
		.n_attempts = x->n_attempts };
	if (x->ticket.prompt_tokens)
		e->cached_percent = x->ticket.cached_tokens * UINT64_C(100) / x->ticket.prompt_tokens;
	if (d)
		e->decision = decision_text(d, room);
	return e;
}

/* Its client has had the head of a stream: what the engine says instead cannot be passed on. */
static enum next lacks_stream(struct exchange *x, unsigned status) {
	if (status >= 400) /* refusals cost nothing */
		x->claim.prompt_tokens = 0;
	attempt_leave(x, CAUSE_UPSTREAM_REFUSED, status);
	return exchange_fail(x, CAUSE_NO_STREAM);
}

/* What has come of the body, behind what is in o. */
static enum next relay_first(struct exchange *x, struct call_out *o) {
	int r = 0;
	if (x->upstream->conn.unread.n || call_is_received(&x->up))
		r = take_answer(x, o);
	enum cause cause = send_answer(x, o);
	if (cause)
		return exchange_fail(x, cause);
	if (r == CALL_E_GONE || r == CALL_E_BAD)
		return exchange_fail(x, CAUSE_STREAM_BROKEN);
	return exchange_go(x, STEP_RELAY);
}

/* Another engine was asked for the rest of a stream. */
static enum next answer_go_on(struct exchange *x, const struct head *answer) {
	struct call_out o;
	if (!patience_fits(answer)) {
		attempt_leave(x, CAUSE_UPSTREAM_REFUSED, answer->status);
		return exchange_fail(x, CAUSE_UPSTREAM_REFUSED);
	}
	x->is_engine_kept = answer->keep_alive;
	resume_answered(x);
	call_begin(&o, &x->down);
	return relay_first(x, &o);
}

/* A refusal that we have moved on from already, or would have if fewer others had been: SDKs repeat each of
 * those twice. */
static bool is_multiplied(const struct exchange *x, unsigned status) {
	bool is_refusal =
	    status == 429 || status == 503 || retry_is_refusal(&exchange_config(x)->retry, status);

	return is_refusal && (x->was_retried || x->retry_bar == RETRY_BAR_BUDGET);
}

enum next answer_begin(struct exchange *x, const struct head *answer) {
	struct forward_explained explained;
	char room[DECISION_TEXT_BYTES], fields_room[TENANCY_FIELDS_BYTES];
	struct forward_answer f = { .request = exchange_head(x),
		.request_id = exchange_id(x),
		.explained = explain_choice(x, &explained, room),
		.fields = tenancy_fields(x, exchange_head(x), fields_room),
		.is_final = is_multiplied(x, answer->status),
		.owns_limits = rate_is_limited(x->settings->rates, x->tenant),
		.owns_origins = exchange_config(x)->cors_origins.n,
		/* The rest of a body that nobody waits for ends the connection. */
		.is_last = x->ends_connection || !call_is_received(&x->down) ||
		    exchange_is_last(x, session_of(&x->down)) };
	bool has_begun = x->down.out_has_begun; /* while it waited for its place */
	struct call_out o;

	if (x->resume)
		return answer_go_on(x, answer);
	if (has_begun && !patience_fits(answer))
		return lacks_stream(x, answer->status);
	x->at.first_byte = exchange_now_ns(x);
	x->status = answer->status;
	tap_init(&x->tap, answer);
	x->tap.seeks_response =
	    inspect_capability(&x->inspect) == CAPABILITY_RESPONSES && answer->status < 300;
	/* Else it cost the engine no work. */
	if (x->tap.kind != TAP_EVENTS && answer->status < 300 && x->model->name.n) {
		ticket_answered(&x->ticket, &x->worker->policies, x->at.first_byte);
		journal_answered(x);
	}
	seek_learn(x, answer->status);
	f.is_edited = split_answered(x, answer);
	call_begin(&o, &x->down);
	if (!has_begun)
		x->ends_connection = forward_response(&o, answer, &f);
	x->is_engine_kept = answer->keep_alive;
	resume_begin(x, answer);
	if (!resume_is_kept(x))
		answer_forget_request(x);
	return relay_first(x, &o);
}

void answer_finish_upstream(struct exchange *x) {
	if (!x->upstream)
		return;
	bool reusable = x->up.out_is_done && !call_pending(&x->up) && x->is_engine_kept;
	call_deinit(&x->up);
	if (reusable)
		upstream_put(&x->upstream);
	else
		upstream_close(&x->upstream);
}

enum next step_relay(struct exchange *x) {
	struct call_out o;
	enum next next;
	while (!x->down.out_is_done) {
		if (x->split && split_hear(x, &next))
			return next;
		enum cause cause = upload_pump(x);
		if (cause)
			return exchange_fail(x, cause);
		if (call_pending(&x->down)) {
			call_want(&x->up, false);
			answer_mark_move(x);
			return WAIT;
		}
		if (!x->moved_ms) /* until now it was the client */
			answer_mark_move(x);
		call_want(&x->up, true);
		call_begin(&o, &x->down);
		int r = take_answer(x, &o);
		if (r == CALL_E_AGAIN)
			return beat(x);
		if (r)
			return exchange_fail(x, CAUSE_STREAM_BROKEN);
		cause = send_answer(x, &o);
		if (cause)
			return exchange_fail(x, cause);
		if (!x->upstream->conn.unread.n && !x->down.out_is_done)
			return WAIT; /* one read a turn: the others wait too */
	}
	answer_finish_upstream(x);
	attempt_release(x, CAUSE_NONE, x->status);
	split_end(x);               /* no prefill is waited for, if the client is slow to read */
	call_want(&x->down, false); /* nobody wants the rest of its body */
	return call_pending(&x->down) ? WAIT : exchange_go(x, STEP_SETTLE);
}
