/*
 * One attempt at one instance: connect, send, wait for its answer's head; and whether
 * another attempt follows when nothing came of it.
 */
#include "router/steps.h"

#include "base/clock.h"
#include "router/forward.h"
#include "router/hedge.h"
#include "router/journal.h"
#include "router/patience.h"
#include "router/permit.h"
#include "router/seek.h"
#include "router/split.h"

struct ticket_usage attempt_usage(const struct exchange *x) {
	const struct tap *tap = &x->tap;
	return (struct ticket_usage){ .prompt_tokens = tap->tokens_in,
		.cached_tokens = tap->tokens_cached,
		.output_tokens = tap->has_usage ? tap->tokens_out : tap->n_events,
		.has_cached = tap->has_cached };
}

void attempt_release(struct exchange *x, enum cause cause, unsigned status) {
	struct ticket_usage usage = attempt_usage(x);
	attempt_release_with(x, cause, status, cause ? NULL : &usage);
}

void attempt_release_with(
    struct exchange *x, enum cause cause, unsigned status, const struct ticket_usage *usage) {
	bool is_awaited = x->ticket.is_capped;
	permit_settle(x, cause, status);
	ticket_close(&x->ticket, &x->worker->policies, usage);
	if (is_awaited)
		turn_vacate(x->worker);
}

void attempt_drop(struct exchange *x) {
	buf_unref(exchange_bufs(x), &x->held_head);
	if (!x->upstream)
		return;
	call_deinit(&x->up);
	upstream_close(&x->upstream);
}

void attempt_leave(struct exchange *x, enum cause cause, unsigned status) {
	attempt_drop(x);
	journal_left(x, cause, status);
	attempt_release(x, cause, status);
	x->moved_ms = 0;
	x->last_cause = (uint8_t)cause;
}

enum next attempt_elsewhere(struct exchange *x, enum cause cause, unsigned status) {
	x->tried[x->n_tried++] = x->ticket.instance->slot;
	attempt_leave(x, cause, status);
	if (x->split)
		split_step_back(x, status);
	return exchange_go(x, STEP_PICK);
}

/* No other attempt follows, unless one is under way. */
static enum next attempt_failed(struct exchange *x, enum cause cause) {
	if (!hedge_is_out(x))
		return exchange_fail(x, cause);
	x->retry_bar = RETRY_BAR_NONE;
	return hedge_fall_back(x, cause, 0);
}

enum next attempt_unconnected(struct exchange *x, enum cause cause) {
	metric_add(&x->worker->metrics->connect_failures, 1);
	attempt_drop(x);
	if (x->n_addresses < x->view->snapshot->rows[x->row].n_addresses)
		return exchange_go(x, STEP_CONNECT);
	instance_avoid(x->ticket.instance, loop_now_ms(&x->worker->loop));
	return attempt_elsewhere(x, cause, 0);
}

static enum retry_bar retry_bar_of(const struct exchange *x) {
	if (split_sends(x) >= exchange_config(x)->retry.attempts)
		return RETRY_BAR_ATTEMPTS;
	if (!x->keeps_replay)
		return RETRY_BAR_NOT_REPLAYABLE;
	if (x->n_interim && !split_is_prefilling(x))
		return RETRY_BAR_ANSWER_BEGAN;
	return x->reason == PICK_RESPONSE_OWNER ? RETRY_BAR_RESPONSE_OWNER : RETRY_BAR_NONE;
}

/* Whether an engine that may have had it gets it again, or another one; if so, that is paid for. */
static bool may_retry(struct exchange *x) {
	const struct retry_options *options = &exchange_config(x)->retry;
	struct retry_budget *budget = &x->worker->budgets[x->model->label];

	x->retry_bar = (uint8_t)retry_bar_of(x);
	if (x->retry_bar)
		return false;
	bool is_paid = retry_budget_take(budget, options, loop_now_ms(&x->worker->loop));
	metric_add(is_paid ? &x->worker->metrics->retries : &x->worker->metrics->retries_denied, 1);
	x->retry_bar = is_paid ? RETRY_BAR_NONE : RETRY_BAR_BUDGET;
	return is_paid;
}

/* Not at once: what could not be done now may be possible then. */
static enum next retry(struct exchange *x, enum cause cause, unsigned status, uint64_t least_ms) {
	const struct retry_options *options = &exchange_config(x)->retry;

	x->backoff_ms = (uint32_t)u64_max(retry_wait_ms(options, split_sends(x), &x->worker->rng), least_ms);
	x->was_retried = true;
	journal_retried(x);
	x->may_return = !x->resume; /* who cut a stream is not asked for its rest */
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	(void)attempt_elsewhere(x, cause, status);
	return exchange_go(x, STEP_BACK_OFF);
}

enum next attempt_lost(struct exchange *x, enum cause cause) {
	struct conn *c = &x->upstream->conn;
	bool is_stale = x->upstream->is_reused &&
	    (c->sent_bytes == x->upstream->sent_before || (!c->is_broken && upstream_is_unsent(x->upstream)));
	bool is_prefill = split_is_prefilling(x); /* the client gets nothing of its answer */
	bool may_repeat =
	    is_stale || split_may_repeat(x) || x->is_repeatable || exchange_config(x)->retry.sent;
	bool has_begun = !is_prefill && (c->unread.n || x->n_interim);

	x->retry_bar = has_begun ? RETRY_BAR_ANSWER_BEGAN
	    : may_repeat         ? RETRY_BAR_NONE
				 : RETRY_BAR_MAY_HAVE_BEGUN;
	if (x->retry_bar)
		return attempt_failed(x, cause);
	if (is_stale && x->keeps_replay) { /* it was never sent, which costs nothing */
		metric_add(&x->worker->metrics->unsent_retries, 1);
		x->n_sends--;
		attempt_drop(x);
		return exchange_go(x, STEP_CONNECT);
	}
	if (x->split)
		split_judge(x, 0);
	if (hedge_is_out(x) || !may_retry(x))
		return attempt_failed(x, cause);
	return retry(x, cause, 0, 0);
}

/* A body that cannot be sent twice goes over a fresh connection, which is never stale. */
static bool may_reuse(const struct exchange *x) {
	if (call_is_received(&x->down))
		return true;
	const struct head *h = exchange_head(x);
	return h->framing == FRAMING_LENGTH && h->content_length <= REPLAY_BYTES_MAX;
}

/* Which address is tried after n others: the one that answered last comes first. */
static uint32_t address_at(const struct exchange *x, uint32_t n) {
	return (x->first_address + n) % x->view->snapshot->rows[x->row].n_addresses;
}

/* One address that was taken for somebody else's says more than others that refuse. */
static enum cause refusal_cause(struct exchange *x) {
	if (x->upstream && conn_tls_failure(&x->upstream->conn))
		x->is_tls_refused = true;
	return x->is_tls_refused ? CAUSE_TLS_FAILED : CAUSE_CONNECT_FAILED;
}

enum next step_connect(struct exchange *x) {
	enum next next;
	if ((x->hedge && hedge_hear(x, &next)) || (x->split && split_hear(x, &next)))
		return next;
	if (patience_speak(x))
		return exchange_fail(x, CAUSE_CLIENT_GONE);
	if (x->upstream) { /* woken: how did it go? */
		if (x->upstream->conn.is_broken)
			return attempt_unconnected(x, refusal_cause(x));
		if (x->upstream->conn.state == CONN_CONNECTING)
			return WAIT;
		instance_succeeded(x->ticket.instance);
		instance_set_good_address(x->ticket.instance, address_at(x, x->n_addresses - 1));
		return exchange_go(x, STEP_SEND);
	}
	if (may_reuse(x))
		x->upstream = upstream_get(&x->worker->pool, x->ticket.instance, &x->job);
	if (x->upstream)
		return exchange_go(x, STEP_SEND);

	const struct snapshot_row *row = &x->view->snapshot->rows[x->row];
	if (x->n_addresses >= row->n_addresses)
		return attempt_unconnected(x, refusal_cause(x));
	const struct sockaddr_storage *to = &row->addresses[address_at(x, x->n_addresses++)];
	int r = upstream_connect(&x->worker->pool, x->ticket.instance, to, &x->job, &x->upstream);
	if ((r == -EMFILE || r == -ENFILE) &&
	    x->worker->pool.n_idle) { /* idle ones hold what this one needs */
		upstream_pool_close_idle(&x->worker->pool);
		r = upstream_connect(&x->worker->pool, x->ticket.instance, to, &x->job, &x->upstream);
	}
	if (r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM)
		return attempt_failed(x, CAUSE_OVERLOADED);
	if (r == -EADDRNOTAVAIL && row->n_addresses == 1) /* our ports to it are used up: not its fault */
		return attempt_elsewhere(x, CAUSE_OVERLOADED, 0);
	if (r < 0)
		return attempt_unconnected(x, refusal_cause(x));
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	return WAIT;
}

/* Ours, for the engine; empty: none. */
static struct slice upstream_key(const struct exchange *x) {
	return instance_key(&x->ticket.instance->spec, exchange_config(x)->upstream_key);
}

/* Keys that clients showed us are not for engines. */
static bool drops_keys(const struct exchange *x) {
	const struct router_config *config = exchange_config(x);
	bool has_keys = config->tenants || config->validation.urls.n;
	return has_keys && !config->passes_keys;
}

/* Of a leg the engine gets its own. */
static void edit_leg(const struct exchange *x, struct splice *edits, struct forward *f) {
	struct slice id = split_edit(x, edits);
	if (id.n)
		f->request_id = id;
	f->wants_plain = true; /* what two engines say is put together */
}

enum next step_send(struct exchange *x) {
	struct session *session = session_of(&x->down);
	char room[46];
	struct forward f = { .request_id = exchange_id(x),
		.peer = session_peer(session, room),
		.key = upstream_key(x),
		.drops_keys = drops_keys(x),
		.trusts_rank = exchange_config(x)->trusts_rank };
	struct splice edits;
	struct splice_cursor at;
	struct call_out o;
	size_t n;
	uint64_t length;
	enum framing framing;
	enum cause cause = CAUSE_NONE;
	if (!call_is_received(&x->down) && call_has_input(&x->down) &&
	    !buf_is_over_budget(exchange_bufs(x))) /* what came while we were connecting */
		(void)arrival_hold(x, &cause);
	if (cause)
		return exchange_fail(x, cause);
	edits.n = 0; /* it is large: the rest is written when it is used */
	upload_edit(x, &edits);
	if (x->split)
		edit_leg(x, &edits, &f);
	framing = upload_framing(x, &length);
	length = splice_length(&edits, length);
	if (!x->at.first_byte)
		x->at.connected = exchange_now_ns(x);
	x->n_sends += x->n_sends < UINT8_MAX;
	hedge_sent(x);
	turn_sent(x);
	x->is_upload_broken = false;
	x->moved_ms = 0;
	call_init(&x->up, &x->upstream->conn, FRAMING_NONE, 0);
	splice_begin(&at, &edits, &x->hold);
	call_begin(&o, &x->up);
	forward_request(&o, exchange_head(x), x->ticket.instance, &f, framing, length);
	int r = 0;
	do {
		struct piece pieces[CALL_PIECES_MAX];
		n = splice_pieces(&at, pieces, CALL_PIECES_MAX);
		if (n)
			call_put_data(&o, pieces, n);
		if (n < CALL_PIECES_MAX && call_is_received(&x->down))
			upload_put_end(x, &o);
		r = call_flush(&o);
		call_begin(&o, &x->up);
	} while (n == CALL_PIECES_MAX && r == 0);
	if (r)
		return attempt_lost(x, CAUSE_UPSTREAM_CLOSED);
	return exchange_go(x, STEP_AWAIT_HEAD);
}

uint64_t attempt_heed_rest(struct exchange *x, const struct head *answer) {
	if (!retry_is_refusal(&exchange_config(x)->retry, answer->status))
		return 0;
	uint64_t after_ms =
	    retry_after_ms(head_find(answer, FIELD_RETRY_AFTER), (int64_t)(clock_wall_ms() / 1000));
	if (after_ms)
		instance_rest(x->ticket.instance, loop_now_ms(&x->worker->loop), after_ms);
	return after_ms;
}

/* The engine says that it did nothing. Does another one get the request, or the client the refusal? */
static bool is_refused(struct exchange *x, const struct head *answer, uint64_t *wait_ms_out) {
	const struct retry_options *options = &exchange_config(x)->retry;
	bool has_others = x->split || x->n_tried + 1u < x->model->n_candidates;

	if (!retry_is_refusal(options, answer->status))
		return false;
	uint64_t after_ms = attempt_heed_rest(x, answer);
	*wait_ms_out = has_others ? 0 : after_ms;
	if (*wait_ms_out <= options->backoff_max_ms)
		return may_retry(x);
	x->retry_bar = RETRY_BAR_RETRY_AFTER;
	return false;
}

/* The wait before a retry. The client's leaving ends it, like any other. */
enum next step_back_off(struct exchange *x) {
	return x->backoff_ms ? WAIT : exchange_go(x, STEP_PICK);
}

/* The engine has all that it needs. */
static void mark_sent(struct exchange *x) {
	x->moved_ms = loop_now_ms(&x->worker->loop);
	if (exchange_config(x)->hedge.is_enabled && !x->split)
		hedge_watch(x);
}

/* The client's answer begins. */
static enum next begin_answer(struct exchange *x, const struct head *head) {
	struct buf *held = x->held_head; /* where the head may stand */

	x->held_head = NULL;
	if (x->hedge)
		hedge_answer(x, head);
	enum next next = answer_begin(x, head);
	buf_unref(exchange_bufs(x), &held);
	return next;
}

enum next attempt_answered(struct exchange *x, const struct head *head) {
	uint64_t wait_ms;
	if (hedge_does_lose(x, head)) {
		(void)attempt_heed_rest(x, head);
		return hedge_fall_back(x, CAUSE_UPSTREAM_REFUSED, head->status);
	}
	if (x->split)
		split_judge(x, head->status);
	if (is_refused(x, head, &wait_ms))
		return retry(x, CAUSE_UPSTREAM_REFUSED, head->status, wait_ms);
	if (seek_goes_on(x, head))
		return exchange_go(x, STEP_PICK);
	if (!x->retry_bar && x->split && split_is_doubted(x, head->status) &&
	    exchange_config(x)->retry.sent && may_retry(x))
		return retry(x, CAUSE_UPSTREAM_CLOSED, head->status, 0);
	if (x->split && split_takes(x, head))
		return NEXT;
	return begin_answer(x, head);
}

static int recv_head(struct exchange *x, struct head_room *room, const struct head **head_out) {
	if (x->hedge)
		return hedge_recv_head(x, room, head_out);
	if (x->split)
		return split_recv_head(x, room, head_out);
	*head_out = &room->head;
	return call_recv_head(&x->up, room, x->is_head ? METHOD_HEAD : METHOD_OTHER);
}

/* Nothing has come. Is that too long? */
static enum next await_more(struct exchange *x) {
	return hedge_due_ms(x) <= loop_now_ms(&x->worker->loop) ? hedge_begin(x) : WAIT;
}

enum next step_await_head(struct exchange *x) {
	struct head_room room;
	const struct head *head;
	enum next next;
	enum cause cause = upload_pump(x);
	if (cause)
		return exchange_fail(x, cause);
	if (!x->moved_ms && x->up.out_is_done && !call_pending(&x->up))
		mark_sent(x);
	if (x->split && (split_goes_on(x, &next) || split_hear(x, &next)))
		return next;
	if (x->hedge && hedge_hear(x, &next))
		return next;
	for (;;) {
		int r = recv_head(x, &room, &head);
		if (r == CALL_E_AGAIN)
			return await_more(x);
		enum cause lost = r == CALL_E_BAD ? CAUSE_UPSTREAM_MALFORMED : CAUSE_UPSTREAM_CLOSED;
		if (r == CALL_E_BAD && !split_is_prefilling(x))
			return attempt_failed(x, lost);
		if (r)
			return attempt_lost(x, lost);
		if (head->status >= 200)
			return attempt_answered(x, head);
		cause = answer_interim(x, head);
		if (cause == CAUSE_UPSTREAM_MALFORMED)
			return attempt_failed(x, cause);
		if (cause)
			return exchange_fail(x, cause);
	}
}
