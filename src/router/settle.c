/*
 * The end of a request: the answer that says why there is none, or the cut of one that
 * began, and the one settlement of all that it held.
 */
#include "router/steps.h"

#include "router/hedge.h"
#include "router/journal.h"
#include "router/own_field.h"
#include "router/permit.h"
#include "router/resume.h"
#include "router/split.h"
#include "router/tenancy.h"

#define MODEL_NAME_ROOM 260u
#define SOON_S          1u

/* The model that the client asked for, as text. */
static const char *model_name(const struct exchange *x, char room[MODEL_NAME_ROOM]) {
	struct slice name = slice_head(arrival_asked(x), MODEL_NAME_ROOM - 1);
	memcpy(room, name.p, name.n);
	room[name.n] = '\0';
	return room;
}

/* What the error is about, as text, where it says so. */
static const char *refusal_detail(const struct exchange *x, enum cause cause, char room[MODEL_NAME_ROOM]) {
	bool is_of_model = cause == CAUSE_MODEL_NOT_FOUND ||
	    (cause == CAUSE_TENANT_DENIED && arrival_asked(x).n) ||
	    ((cause == CAUSE_NO_INSTANCE || cause == CAUSE_BREAKERS_OPEN) && x->dialect == REPLY_INFINILM &&
		arrival_asked(x).n);
	if (is_of_model)
		return model_name(x, room);
	const char *limit = tenancy_detail(x, cause, room, MODEL_NAME_ROOM);
	if (limit)
		return limit;
	if (cause != CAUSE_UNKNOWN_HEADER)
		return NULL;
	struct slice field = own_field_unknown(exchange_head(x));
	snprintf(room, MODEL_NAME_ROOM, "%.*s", (int)field.n, field.p);
	return room;
}

/* The longest of what limits, breakers and the queue say; 0: as the cause has it. */
static uint32_t retry_after_s(const struct exchange *x, enum cause cause) {
	uint32_t rest_s = u64_max(x->claim.wait_s, x->retry_after_s);

	return (uint32_t)u64_max(rest_s, turn_retry_after_s(x, cause));
}

/* Room that comes soon is worth a repeat of an SDK's own, which waits for it and costs no engine anything. */
static bool is_final(const struct exchange *x, enum cause cause) {
	unsigned status = reply_error(cause, (enum reply_dialect)x->dialect).status;
	bool is_soon = x->claim.wait_s && x->claim.wait_s <= SOON_S;

	return reply_is_final(cause, status) && !is_soon;
}

/* The answer is ours: an error that says why. */
enum next step_refuse(struct exchange *x) {
	const struct decision *d = decision_find(&x->worker->decisions, x->decision);
	char room[DECISION_TEXT_BYTES];
	enum cause cause = (enum cause)x->cause;
	char name[MODEL_NAME_ROOM], fields[TENANCY_FIELDS_BYTES];
	const char *detail = refusal_detail(x, cause, name);
	struct reply reply = { .request_id = exchange_id(x),
		.fields = tenancy_fields(x, exchange_head(x), fields),
		.retry_after_s = retry_after_s(x, cause) };
	reply.is_final = is_final(x, cause);
	if (cause == CAUSE_INVALID_KEY)
		reply.authenticate = SLICE("Bearer");
	if (d && exchange_config(x)->explain.has_headers)
		reply.decision = decision_text(d, room);
	hedge_end(x, cause);
	split_end(x);
	attempt_drop(x);
	attempt_release(x, cause, 0); /* what follows is our word, not the instance's */
	reply_follow(
	    &reply, exchange_head(x), x->ends_connection || exchange_is_last(x, session_of(&x->down)));
	reply.closes |= !call_is_received(&x->down) || cause == CAUSE_BODY_MALFORMED;
	x->ends_connection = reply.closes;
	int r = reply_refuse(&x->down, &reply, cause, detail, (enum reply_dialect)x->dialect);
	x->status = (uint16_t)reply.status;
	hold_free(&x->hold, exchange_bufs(x));
	inspect_deinit(&x->inspect, exchange_bufs(x));
	return r ? exchange_fail(x, CAUSE_CLIENT_GONE) : exchange_go(x, STEP_RELAY);
}

/* An answer that began cannot be taken back: the client must see that it is not complete. */
static void cut_answer(struct exchange *x) {
	struct call_out o;
	bool gone = x->cause == CAUSE_CLIENT_GONE || x->cause == CAUSE_CLIENT_STALLED;
	if (x->cause == CAUSE_STREAM_BROKEN || x->cause == CAUSE_STREAM_STALLED)
		metric_add(&x->worker->metrics->streams_broken, 1);
	if (!gone && !x->down.out_is_done && x->tap.kind == TAP_EVENTS && x->tap.at_boundary &&
	    x->down.out_framing != FRAMING_LENGTH) {
		char *event = tap_error_event((enum cause)x->cause, (enum reply_dialect)x->dialect);
		struct piece piece = { event, strlen(event), NULL };
		call_begin(&o, &x->down);
		call_put_data(&o, &piece, 1);
		gone = call_flush(&o) != 0;
		free(event);
	}
	/* Chunked and counted answers show by their missing end that they were cut; the others only by a
	 * reset. Of who does not read nobody knows if it ever will, but a stop is no fault of his. */
	bool is_silent_end = x->down.out_framing == FRAMING_CLOSE && !x->down.out_is_done;
	bool is_stuck = call_pending(&x->down) && x->cause != CAUSE_STOPPING;
	if (gone || is_silent_end || is_stuck)
		session_abort(&x->down, true);
	else
		session_next(&x->down, false);
}

/* Ends the client's side: next request, cut or farewell. */
static void settle_down(struct exchange *x) {
	if (x->down.out_is_done && !call_pending(&x->down)) {
		session_next(&x->down, !x->ends_connection);
		return;
	}
	if (x->down.out_has_begun) {
		cut_answer(x);
		return;
	}
	x->status = cause_row((enum cause)x->cause)->status;
	session_abort(&x->down, true);
}

enum next step_settle(struct exchange *x) {
	struct worker *w = x->worker;
	hedge_end(x, (enum cause)x->cause);
	split_end(x);
	attempt_drop(x);
	attempt_release(x, (enum cause)x->cause, x->status);
	turn_settle(x, x->tap.tokens_in + (x->tap.has_usage ? x->tap.tokens_out : x->tap.n_events));
	tenancy_settle(x);
	if (x->cause == CAUSE_CLIENT_GONE)
		metric_add(&w->metrics->client_aborts, 1);
	settle_down(x);
	journal_write(x);
	resume_end(x);

	timer_stop(&x->timer);
	job_cancel(&x->job);
	list_remove(&x->link);
	worker_count_active(w, -1);
	tap_deinit(&x->tap, exchange_bufs(x));
	inspect_deinit(&x->inspect, exchange_bufs(x));
	hold_free(&x->hold, exchange_bufs(x));
	buf_unref(exchange_bufs(x), &x->head);
	worker_view_release(w, &x->view);
	settings_release(&x->settings, w->index);
	panic_subject(NULL, NULL);
	slab_put(&w->exchanges, x);
	return DONE;
}
