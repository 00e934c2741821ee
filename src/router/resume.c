#include "router/resume.h"

#include "router/journal.h"
#include "router/retry.h"
#include "router/steps.h"

/* Of what one read makes, about: the first one's identity may be much longer than the one it takes the place
 * of. */
#define OUT_BYTES_MAX (1u << 20)

/* A few bufs that grow, then large ones. */
_Static_assert(OUT_BYTES_MAX / (BUF_BYTES_MAX / 2) + 16 <= CALL_PIECES_MAX, "out fits a call_in");

static const struct router_resume *resume_options(const struct exchange *x) {
	return &exchange_config(x)->resume;
}

/* Which of the two APIs it is; -1: neither. */
static int kind_of(const struct exchange *x) {
	struct slice path = head_path(exchange_head(x));

	if (slice_eq(path, SLICE("/v1/chat/completions")))
		return CONTINUATION_CHAT;
	return slice_eq(path, SLICE("/v1/completions")) ? CONTINUATION_COMPLETION : -1;
}

/* As far as the head of the answer, and what is held, can say. */
static bool may_begin(const struct exchange *x, const struct head *answer) {
	struct head_room trailer;

	return answer->status == 200 && x->tap.kind == TAP_EVENTS && x->inspect.is_streamed &&
	    call_is_received(&x->down) && x->keeps_replay && !call_trailer(&x->down, &trailer) &&
	    x->down.out_framing != FRAMING_LENGTH && x->hold.bytes <= resume_options(x)->max_bytes &&
	    kind_of(x) >= 0;
}

void resume_begin(struct exchange *x, const struct head *answer) {
	struct continuation_request request;

	assert(!x->resume);
	if (!resume_options(x)->is_enabled || !may_begin(x, answer))
		return;
	enum continuation_kind kind = (enum continuation_kind)kind_of(x);
	if (!continuation_accepts(&request, kind, &x->hold))
		return;
	struct resume *r = x->resume = slab_get_zeroed(&x->worker->resumes);
	continuation_init(&r->continuation, kind);
	r->request = request;
	r->body = x->hold;
	r->is_kept = true;
	x->hold = (struct hold){ NULL, NULL, 0 };
	conn_relax(x->down.conn);
	inspect_deinit(&x->inspect, exchange_bufs(x));
}

void resume_answered(struct exchange *x) {
	struct resume *r = x->resume;

	assert(r->is_seeking && r->is_kept);
	r->is_seeking = r->has_spoken = false;
	hold_free(&x->hold, exchange_bufs(x));
	inspect_deinit(&x->inspect, exchange_bufs(x));
}

/* It will not be gone on with: whatever was kept for that is let go. */
static void stop_keeping(struct exchange *x) {
	struct resume *r = x->resume;

	if (!r->is_kept)
		return;
	r->is_kept = false;
	hold_free(&r->body, exchange_bufs(x));
	hold_free(&r->text, exchange_bufs(x));
	answer_forget_request(x);
}

/* --- events on their way ------------------------------------------------------------------ */

static void put(struct exchange *x, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };
	hold_append_forced(&x->resume->out, exchange_bufs(x), &piece, 1);
}

/* Passes what came as it came from now on: an event, or what there is of it, and what follows. Of another
 * engine's stream that cannot be. */
static void give_way(struct exchange *x, struct slice event, struct slice rest) {
	struct resume *r = x->resume;

	stop_keeping(x);
	r->is_bad = r->continuation.is_resumed;
	if (!r->is_bad) {
		put(x, event);
		put(x, rest);
	}
	event_cutter_clear(&r->events, exchange_bufs(x));
}

static void keep_text(struct exchange *x, struct slice text) {
	struct resume *r = x->resume;
	struct piece piece = { text.p, text.n, NULL };

	if (r->continuation.is_resumed && !r->has_spoken) {
		r->has_spoken = true;
		ticket_first(&x->ticket, &x->worker->policies, exchange_now_ns(x));
		journal_answered(x);
	}
	if (!r->is_kept)
		return;
	if (r->body.bytes + r->text.bytes + text.n > resume_options(x)->max_bytes ||
	    !hold_append(&r->text, exchange_bufs(x), &piece, 1))
		stop_keeping(x);
}

/* A whole event. False: it is not understood, or others have become too much. */
static bool take_event(struct exchange *x, struct slice text) {
	struct resume *r = x->resume;
	struct continuation_event event;

	if (r->out.bytes > OUT_BYTES_MAX || !continuation_take(&r->continuation, text, &event))
		return false;
	if (event.text.n)
		keep_text(x, event.text);
	for (unsigned i = 0; i < event.n_parts; i++)
		put(x, event.parts[i]);
	if (r->continuation.is_over)
		stop_keeping(x);
	return true;
}

/* Of no use any more: what follows goes on as it comes. */
static bool is_done_with(const struct resume *r) {
	return !r->is_kept && !r->continuation.is_resumed && !event_part(&r->events).n;
}

static void take_piece(struct exchange *x, struct slice text) {
	struct resume *r = x->resume;
	struct slice event;

	while (text.n && !is_done_with(r) && !r->is_bad) {
		int outcome =
		    event_cut(&r->events, exchange_bufs(x), r->continuation.is_resumed, &text, &event);
		if (outcome == EVENT_LARGE)
			event = event_part(&r->events);
		if (outcome == EVENT_MORE)
			return;
		if (outcome || !take_event(x, event)) {
			give_way(x, event, text);
			return;
		}
	}
	if (!r->is_bad)
		put(x, text);
}

void resume_take(struct exchange *x, struct call_in *in) {
	struct resume *r = x->resume;
	struct buf *at;

	assert(!r->is_seeking && !r->out.bytes);
	for (size_t i = 0; i < in->n; i++)
		take_piece(x, (struct slice){ in->pieces[i].p, in->pieces[i].n });
	if (r->is_bad) /* the client has not had what was before this end */
		in->is_end = false;
	if (in->is_end) /* maybe within an event, as it would have without us */
		put(x, event_part(&r->events));
	at = r->out.first;
	in->n = hold_pieces(&at, in->pieces, CALL_PIECES_MAX);
	assert(!at); /* each buf is as large as all before it, up to the largest */
}

bool resume_sent(struct exchange *x) {
	struct resume *r = x->resume;
	bool is_bad = r->is_bad;

	hold_free(&r->out, exchange_bufs(x));
	if (is_done_with(r)) {
		event_cutter_clear(&r->events, exchange_bufs(x));
		slab_put(&x->worker->resumes, r);
		x->resume = NULL;
	}
	return !is_bad;
}

/* --- cuts ------------------------------------------------------------------------------------ */

/* Causes that are the engine's, and after which another one may do better. */
static bool is_cut(enum cause cause) {
	return cause == CAUSE_STREAM_BROKEN || cause == CAUSE_STREAM_STALLED ||
	    cause == CAUSE_UPSTREAM_CLOSED || cause == CAUSE_UPSTREAM_MALFORMED ||
	    cause == CAUSE_FIRST_BYTE_TIMEOUT;
}

static bool is_paid(struct exchange *x) {
	bool is_paid = retry_budget_take(
	    &x->worker->budgets[x->model->label], &exchange_config(x)->retry, loop_now_ms(&x->worker->loop));
	if (!is_paid)
		metric_add(&x->worker->metrics->retries_denied, 1);
	return is_paid;
}

/* What the pick goes by is learned once more: it is many times the size of most bodies. */
static bool inspect_again(struct exchange *x) {
	struct resume *r = x->resume;

	inspect_deinit(&x->inspect, exchange_bufs(x));
	enum cause cause =
	    inspect_init(&x->inspect, &exchange_config(x)->inspect, exchange_bufs(x), exchange_head(x));
	for (const struct buf *b = r->body.first; b && !cause; b = b->next)
		cause = inspect_feed(&x->inspect, b->data, b->used);
	return !cause && !inspect_finish(&x->inspect);
}

/* What asks for the rest is what is sent from now on. */
static bool make_request(struct exchange *x) {
	struct resume *r = x->resume;
	struct hold body = { NULL, NULL, 0 };

	if (!continuation_ask(
		&r->request, &r->body, &r->text, r->continuation.n_tokens, exchange_bufs(x), &body) ||
	    !inspect_again(x) || !is_paid(x)) {
		hold_free(&body, exchange_bufs(x));
		return false;
	}
	hold_free(&x->hold, exchange_bufs(x));
	x->hold = body;
	x->keeps_replay = true;
	return true;
}

bool resume_again(struct exchange *x, enum cause cause) {
	struct resume *r = x->resume;

	if (!is_cut(cause) || !r->is_kept || r->n >= resume_options(x)->attempts ||
	    !ticket_is_open(&x->ticket) || !continuation_is_possible(&r->continuation) || !make_request(x))
		return false;
	if (!r->is_seeking)
		r->cause = (uint8_t)cause;
	r->is_seeking = true;
	r->n++;
	event_cutter_clear(&r->events, exchange_bufs(x));
	hold_free(&r->out, exchange_bufs(x));
	continuation_resume(&r->continuation);
	metric_add(&x->worker->metrics->resumes, 1);
	x->n_interim = 0;
	x->may_return = false; /* who was tried is not asked again */
	(void)attempt_elsewhere(x, cause, 0);
	return true;
}

static bool is_of_client(enum cause cause) {
	return cause == CAUSE_CLIENT_GONE || cause == CAUSE_CLIENT_STALLED || cause == CAUSE_TOTAL_TIMEOUT ||
	    cause == CAUSE_STOPPING;
}

enum cause resume_give_up(struct exchange *x, enum cause cause) {
	struct resume *r = x->resume;

	if (!r->is_seeking || is_of_client(cause))
		return cause;
	if (ticket_is_open(&x->ticket))
		attempt_leave(x, cause, 0);
	return (enum cause)r->cause;
}

void resume_end(struct exchange *x) {
	struct resume *r = x->resume;

	if (!r)
		return;
	if (r->n && x->cause == CAUSE_NONE)
		metric_add(&x->worker->metrics->resumes_good, 1);
	hold_free(&r->body, exchange_bufs(x));
	hold_free(&r->text, exchange_bufs(x));
	hold_free(&r->out, exchange_bufs(x));
	event_cutter_clear(&r->events, exchange_bufs(x));
	slab_put(&x->worker->resumes, r);
	x->resume = NULL;
}
