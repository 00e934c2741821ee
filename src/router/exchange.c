/*
 * The steps of one request, in the order in which they happen, and their driver.
 *
 * Both directions are pumped by the same two functions in every step from SEND on:
 * pump_up() moves the request's body towards the engine, pump_down() the answer
 * towards the client. Each makes one read per run at most, so that a busy exchange
 * cannot keep the thread from the others; level-triggered events bring it back.
 */
#include "router/exchange.h"

#include "base/clock.h"
#include "base/log.h"
#include "router/forward.h"
#include "router/journal.h"
#include "router/local.h"
#include "router/patience.h"
#include "router/permit.h"
#include "router/tenancy.h"

#define DOWN_READ_BYTES  65536u /* what a client that does not read can make us hold */
#define DOWN_READ_HUNGRY 4096u  /* the same while memory is short: answers go on, since they end */
#define WRITE_STEP_BYTES                                                                                     \
	4096u /* a client that takes less of its answer in a deadline's time does not read                   \
	       */
#define REPLAY_BYTES_MAX (1u << 20)
#define WHOLE_BYTES      65536u
#define INTERIM_MAX      64u
#define HUNGRY_RETRY_MS  10u
#define MODEL_NAME_ROOM  260u

/* Instances that are avoided are tried, too, when there are no others, but each may cost a connect timeout.
 */
#define AVOIDED_TRIES_MAX 8

enum next { NEXT, WAIT, DONE };

static void exchange_run(struct job *job);

static struct buf_pool *bufs(const struct exchange *x) {
	return &x->worker->loop.bufs;
}

static const struct head *request_head(const struct exchange *x) {
	return (const struct head *)x->head->data;
}

static uint64_t now_ns(const struct exchange *x) {
	return x->worker->loop.now_ns;
}

static const struct router_timeouts *timeouts(const struct exchange *x) {
	return &x->worker->router->config->timeout;
}

static enum next go(struct exchange *x, enum exchange_step step) {
	x->step = (uint8_t)step;
	return NEXT;
}

/*
 * The one way to fail. A client that is still there and has no answer yet gets one; if it does not take
 * that, that is the cause.
 */
static enum next exchange_fail(struct exchange *x, enum cause cause) {
	bool is_gone = cause == CAUSE_CLIENT_GONE || cause == CAUSE_CLIENT_STALLED;
	x->cause = (uint8_t)cause;
	turn_leave(x, cause);
	return go(x, is_gone || x->down.out_has_begun ? STEP_SETTLE : STEP_REFUSE);
}

/* Whether the client should be told that this answer is the last on its connection: the router is being
 * stopped. */
static bool is_last(const struct exchange *x, const struct session *session) {
	return session_is_last(session) ||
	    atomic_load_explicit(&x->worker->router->is_draining, memory_order_relaxed);
}

/* --- engines: charge, release, retry ---------------------------------------- */

/* The attempt is over. What a whole answer says of its usage, and how long it took, is a lesson. */
static void release_instance(struct exchange *x, enum cause cause, unsigned status) {
	const struct tap *tap = &x->tap;
	struct ticket_usage usage = { .prompt_tokens = tap->tokens_in,
		.cached_tokens = tap->tokens_cached,
		.output_tokens = tap->has_usage ? tap->tokens_out : tap->n_events,
		.has_cached = tap->has_cached };
	bool is_awaited = x->ticket.is_capped;
	permit_settle(x, cause, status);
	ticket_close(&x->ticket, &x->worker->policies, cause ? NULL : &usage);
	if (is_awaited)
		turn_vacate(x->worker);
}

static void drop_upstream(struct exchange *x) {
	if (!x->upstream)
		return;
	call_deinit(&x->up);
	upstream_close(&x->upstream);
}

/* This instance did not take the request: another one may. `status`: of what it said; 0: nothing. */
static enum next try_another(struct exchange *x, enum cause cause, unsigned status) {
	drop_upstream(x);
	journal_left(x, cause, status);
	x->tried[x->n_tried++] = x->ticket.instance->slot;
	release_instance(x, cause, status);
	x->last_cause = (uint8_t)cause; /* what to say when nobody is left */
	return go(x, STEP_PICK);
}

static enum next connect_failed(struct exchange *x, enum cause cause) {
	metric_add(&x->worker->metrics->connect_failures, 1);
	drop_upstream(x);
	if (x->n_addresses < x->view->snapshot->rows[x->row].n_addresses)
		return go(x, STEP_CONNECT);
	instance_avoid(x->ticket.instance, loop_now_ms(&x->worker->loop));
	return try_another(x, cause, 0);
}

/* Whether an engine that may have had it gets it again, or another one; if so, that is paid for. */
static bool may_retry(struct exchange *x) {
	const struct retry_options *options = &x->worker->router->config->retry;
	struct retry_budget *budget = &x->worker->budgets[x->model->label];

	if (!x->keeps_replay || x->n_interim || x->n_sends >= options->attempts ||
	    x->reason == PICK_RESPONSE_OWNER) /* nobody else has what it asks for */
		return false;
	bool is_paid = retry_budget_take(budget, options, loop_now_ms(&x->worker->loop));
	metric_add(is_paid ? &x->worker->metrics->retries : &x->worker->metrics->retries_denied, 1);
	return is_paid;
}

/* Not at once: what could not be done now may be possible then. */
static enum next retry(struct exchange *x, enum cause cause, unsigned status, uint64_t least_ms) {
	const struct retry_options *options = &x->worker->router->config->retry;

	x->backoff_ms = (uint32_t)u64_max(retry_wait_ms(options, x->n_sends, &x->worker->rng), least_ms);
	x->may_return = true;
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	(void)try_another(x, cause, status);
	return go(x, STEP_BACK_OFF);
}

/* The engine's connection ended before its answer began. */
static enum next lost_before_answer(struct exchange *x, enum cause cause) {
	struct conn *c = &x->upstream->conn;
	bool nothing_came = !c->unread.n;
	bool stale = x->upstream->is_reused &&
	    (c->sent_bytes == x->upstream->sent_before || (!c->is_broken && upstream_is_unsent(x->upstream)));
	bool replayable = x->keeps_replay && !x->n_interim;
	bool repeatable = x->is_repeatable && x->n_sends < EXCHANGE_SENDS_MAX;

	if (nothing_came && !stale && !repeatable && x->worker->router->config->retry.sent && may_retry(x))
		return retry(x, cause, 0, 0);
	if (!nothing_came || !replayable || !(stale || repeatable))
		return exchange_fail(x, cause);
	metric_add(&x->worker->metrics->unsent_retries, 1);
	if (!stale)
		return try_another(x, cause, 0);
	drop_upstream(x);
	return go(x, STEP_CONNECT);
}

/* --- the steps --------------------------------------------------------------- */

/* A browser asks what a page may send: no key comes with that. */
static enum next answer_preflight(struct exchange *x) {
	char room[CORS_FIELDS_BYTES];
	struct reply reply = { .request_id = exchange_id(x), .status = 204 };
	reply_follow(&reply, request_head(x), x->ends_connection);
	reply.closes |= !call_is_received(&x->down);
	reply.fields = cors_preflight_fields(&x->worker->router->config->cors_origins, request_head(x), room);
	x->status = (uint16_t)reply.status;
	x->ends_connection |= reply.closes;
	return reply_send(&x->down, &reply) ? exchange_fail(x, CAUSE_CLIENT_GONE) : go(x, STEP_RELAY);
}

static enum next step_begin(struct exchange *x) {
	const struct head *h = request_head(x);
	if (cors_is_preflight(&x->worker->router->config->cors_origins, h))
		return answer_preflight(x);
	enum cause cause = local_is_open(h) ? CAUSE_NONE : tenancy_admit(x, h);
	if (cause)
		return exchange_fail(x, cause);
	x->turn.place.tenant = x->tenant;
	return go(x, local_is_ours(h) ? STEP_LOCAL : STEP_ADMIT);
}

/* One of our own endpoints. */
static enum next step_local(struct exchange *x) {
	struct reply reply = { .request_id = exchange_id(x) };
	char room[CORS_FIELDS_BYTES];
	const struct local_question q = { x->worker, x->view->snapshot, request_head(x), tenancy_of(x) };
	reply_follow(&reply, request_head(x), x->ends_connection);
	reply.closes |= !call_is_received(&x->down);
	if (x->worker->router->config->cors_origins.n)
		reply.fields = cors_fields(&x->worker->router->config->cors_origins, request_head(x), room);
	int r = local_answer(&q, &x->down, &reply);
	x->status = (uint16_t)reply.status;
	x->ends_connection |= reply.closes;
	return r ? exchange_fail(x, CAUSE_CLIENT_GONE) : go(x, STEP_RELAY);
}

static enum next step_admit(struct exchange *x) {
	const struct head *h = request_head(x);
	if (buf_is_over_budget(bufs(x)))
		return exchange_fail(x, CAUSE_OVERLOADED);
	if (h->framing == FRAMING_LENGTH && h->content_length > x->worker->router->config->body_limit_bytes)
		return exchange_fail(x, CAUSE_BODY_TOO_LARGE);
	enum cause cause = inspect_init(&x->inspect, &x->worker->router->config->inspect, bufs(x), h);
	return cause ? exchange_fail(x, cause) : go(x, STEP_INSPECT);
}

/* Reads once from the client and has it scanned; what came is in *in. 0, or CALL_E_AGAIN, or failed. */
static int receive_body(struct exchange *x, struct call_in *in, enum cause *cause) {
	*cause = CAUSE_NONE;
	int r = call_recv(&x->down, LOOP_READ_BYTES, in);
	if (r == CALL_E_GONE)
		*cause = CAUSE_CLIENT_GONE;
	else if (r == CALL_E_BAD)
		*cause = CAUSE_BODY_MALFORMED;
	if (r)
		return r;
	if (x->down.in_bytes > x->worker->router->config->body_limit_bytes)
		*cause = CAUSE_BODY_TOO_LARGE;
	for (size_t i = 0; i < in->n && !*cause; i++)
		*cause = inspect_feed(&x->inspect, in->pieces[i].p, in->pieces[i].n);
	if (in->is_end && !*cause)
		*cause = inspect_finish(&x->inspect);
	return *cause ? CALL_E_BAD : 0;
}

static int send_continue(struct exchange *x) {
	struct call_out o;
	if (!request_head(x)->expects_continue || x->has_continued || x->down.in_bytes ||
	    call_has_input(&x->down))
		return 0;
	x->has_continued = true;
	call_begin(&o, &x->down);
	call_put_status_line(&o, 100);
	call_put_interim_end(&o);
	return call_flush(&o);
}

/*
 * The name of the model that was asked for; empty: of any. Once the body is complete its
 * scanner is gone: what was found before has the name.
 */
static struct slice find_name(const struct exchange *x) {
	return x->model ? x->model->name : inspect_model(&x->inspect);
}

static const struct model *find_model(const struct exchange *x, const struct snapshot *snap) {
	struct slice name = find_name(x);
	return name.n ? snapshot_model(snap, name) : &snap->any;
}

/* Whose model it is decides where it goes, or whether it may, and it has not come yet. */
static bool must_wait(const struct worker *w, const struct tenant *tenant, const struct inspect *in) {
	return (w->view->snapshot->n_models > 1 || tenant->models.n) && !inspect_is_decided(in);
}

const struct model *exchange_model(const struct snapshot *snap, const struct inspect *in) {
	struct slice name = inspect_model(in);
	return name.n ? snapshot_model(snap, name) : &snap->any;
}

/* The policy of its model goes by what has yet to come. */
static bool policy_waits(const struct policy_set *set, const struct inspect *in) {
	const struct model *model = exchange_model(set->snapshot, in);
	if (!model || in->body != INSPECT_JSON)
		return false;
	return policy_wants_prompt(set, model) ||
	    (policy_wants_session(set, model) && !(inspect_has_session(in) && inspect_is_decided(in)));
}

/*
 * Enough of the body is here to go on: its model is known, if models matter, and the stored response that
 * it goes on from, which one engine alone has. A small JSON
 * body is waited for whole, since no engine can begin before it has all of it: what is
 * wrong with it is then found before an engine sees it.
 */
bool exchange_has_enough(
    const struct worker *w, const struct tenant *tenant, const struct inspect *in, uint64_t n_bytes) {
	uint64_t limit = w->router->config->inspect_limit_bytes;
	if (inspect_has_all(in))
		return true;
	if (must_wait(w, tenant, in))
		return false;
	if (w->policies.responses && inspect_may_name_response(in))
		limit = w->router->config->hold_limit_bytes; /* SDKs name it behind the input */
	else if (!policy_waits(&w->policies, in))
		limit = u64_min(limit, WHOLE_BYTES);
	return n_bytes >= limit || buf_is_over_budget(&w->loop.bufs);
}

static bool inspect_is_enough(const struct exchange *x) {
	return exchange_has_enough(x->worker, tenancy_of(x), &x->inspect, x->hold.bytes);
}

/* One receive of the body, held. CALL_E_AGAIN: nothing came, or a cause ends the exchange. */
static int hold_once(struct exchange *x, enum cause *cause) {
	struct call_in in;
	int r = receive_body(x, &in, cause);
	if (r)
		return CALL_E_AGAIN;
	if (x->hold.bytes + in.bytes > x->worker->router->config->hold_limit_bytes &&
	    must_wait(x->worker, tenancy_of(x), &x->inspect))
		*cause = CAUSE_MODEL_LATE;
	else if (!hold_append(&x->hold, bufs(x), in.pieces, in.n))
		*cause = CAUSE_OVERLOADED;
	return *cause ? CALL_E_AGAIN : 0;
}

/* Takes what of the body has come, one read of the socket, and holds it until there is enough. */
static enum next step_inspect(struct exchange *x) {
	enum cause cause;
	int r;
	do
		r = hold_once(x, &cause);
	while (r == 0 && x->down.conn->unread.n && !inspect_is_enough(x));
	if (cause)
		return exchange_fail(x, cause);
	if (!call_is_received(&x->down) && send_continue(x))
		return exchange_fail(x, CAUSE_CLIENT_GONE);
	if (inspect_is_enough(x))
		return go(x, STEP_QUEUE);
	return WAIT;
}

/* Its place among those in flight, if its tenant may ask for the model, whether or not there is such a one.
 */
static enum next step_queue(struct exchange *x) {
	enum cause cause = CAUSE_NONE;
	if (!rate_is_taken(&x->claim))
		cause = tenancy_permit(x, find_name(x), request_head(x));
	if (cause)
		return exchange_fail(x, cause);
	int r = turn_take(x, &cause);
	if (!r)
		return go(x, STEP_PICK);
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	if (r == TURN_E_WAIT && patience_speak(x))
		return exchange_fail(x, CAUSE_CLIENT_GONE);
	return r == TURN_E_WAIT ? WAIT : exchange_fail(x, cause);
}

/* What filters and the policy may know of a request for this model; its keys are the worker's scratch. */
static void make_demand(struct exchange *x, const struct model *model, struct demand *demand) {
	const struct head *head = request_head(x);
	worker_demand(x->worker, &x->inspect, model, tenancy_of(x), demand);
	demand->seed = worker_seed(exchange_id(x));
	if (demand->deadline_ms && x->turn.ends_ms) /* part of it is over */
		demand->deadline_ms = (uint32_t)u64_max(1,
		    demand->deadline_ms - u64_min(demand->deadline_ms, (now_ns(x) - x->at.begin) / 1000000u));
	if (head->framing == FRAMING_LENGTH)
		worker_expect(x->worker, &x->inspect, model, head->content_length, demand);
}

enum cause exchange_cause(int outcome) {
	static const uint8_t causes[PICK_OUTCOMES] = {
		[PICK_E_NONE_LEFT] = CAUSE_NO_INSTANCE,
		[PICK_E_NONE_EXIST] = CAUSE_NO_INSTANCE,
		[PICK_E_CAPABILITY] = CAUSE_UNSUPPORTED_CAPABILITY,
		[PICK_E_FEATURE] = CAUSE_UNSUPPORTED_FEATURE,
		[PICK_E_CONTEXT] = CAUSE_CONTEXT_LENGTH,
		[PICK_E_PRIVACY] = CAUSE_PRIVACY_VIOLATION,
		[PICK_E_FULL] = CAUSE_INSTANCES_FULL,
		[PICK_E_ACCELERATOR] = CAUSE_ACCELERATOR,
		[PICK_E_LATE] = CAUSE_SLO_UNATTAINABLE,
		[PICK_E_COST] = CAUSE_OVER_BUDGET,
		[PICK_E_OWNER] = CAUSE_OWNER_BUSY,
		[PICK_E_OPEN] = CAUSE_BREAKERS_OPEN,
	};

	return (enum cause)causes[outcome];
}

/* Nobody is left to pick: who were tried failed, or all were refused before. */
static enum cause cause_of(const struct exchange *x, int outcome) {
	return outcome == PICK_E_NONE_LEFT && x->last_cause ? (enum cause)x->last_cause
							    : exchange_cause(outcome);
}

/* Picks are timed when they are remembered: two looks at the clock are most of what that costs. */
static int pick_instance(
    struct exchange *x, const struct pick_input *input, struct pick_result *pick_out, uint64_t *ns_out) {
	bool is_timed = decision_ring_is_on(&x->worker->decisions);
	uint64_t begin_ns = is_timed ? clock_now_ns() : 0;
	int r = policy_pick(&x->worker->policies, input, pick_out);
	*ns_out = is_timed ? clock_now_ns() - begin_ns : 0;
	return r;
}

/* With nobody there, the fleet is what is missing. */
static enum next fail_without_model(struct exchange *x) {
	const struct model *any = &x->view->snapshot->any;
	enum cause cause = any->n_candidates + any->n_reserve ? CAUSE_MODEL_NOT_FOUND : CAUSE_NO_INSTANCE;
	struct demand demand;
	struct pick_input input = { .demand = &demand, .now_ns = now_ns(x) };
	if (turn_again(x, cause))
		return go(x, STEP_QUEUE);
	make_demand(x, any, &demand);
	journal_declined(x, &input, cause, 0);
	return exchange_fail(x, cause);
}

static enum next pick_failed(
    struct exchange *x, const struct pick_input *input, int outcome, uint64_t pick_ns) {
	if (outcome == PICK_E_OPEN)
		x->retry_after_s = permit_retry_after_s(x, input);
	journal_declined(x, input, cause_of(x, outcome), pick_ns);
	return exchange_fail(x, cause_of(x, outcome));
}

/* The policy works on the worker's current snapshot: a request that waited moves to it. Its model may be gone
 * then. */
static void move_to_current_view(struct exchange *x) {
	struct view *old = x->view;
	if (old != x->worker->view) {
		x->view = worker_view(x->worker);
		x->row = EXCHANGE_NO_ROW;
	}
	x->model = find_model(x, x->view->snapshot);
	if (x->view != old)
		worker_view_release(x->worker, &old);
}

/* It goes there: its ticket is open. */
static enum next begin_attempt(struct exchange *x, const struct pick_result *pick) {
	if (!x->n_attempts)
		retry_budget_pay(&x->worker->budgets[x->model->label], &x->worker->router->config->retry,
		    loop_now_ms(&x->worker->loop));
	metric_add(&x->worker->metrics->picks, 1);
	x->row = pick->row;
	x->reason = (uint8_t)pick->reason;
	x->first_address =
	    instance_good_address(x->ticket.instance, x->view->snapshot->rows[x->row].n_addresses);
	x->n_addresses = 0;
	x->is_tls_refused = false;
	x->n_attempts++;
	if (!x->at.routed)
		x->at.routed = now_ns(x);
	return go(x, STEP_CONNECT);
}

static enum next step_pick(struct exchange *x) {
	move_to_current_view(x);
	if (!x->model)
		return fail_without_model(x);

	struct demand demand;
	struct pick_input input = { .model = x->model,
		.demand = &demand,
		.tried = x->tried,
		.n_tried = x->n_tried,
		.now_ns = now_ns(x) };
	make_demand(x, x->model, &demand);
	enum cause cause = tenancy_reserve(x, x->model, &demand);
	if (cause)
		return exchange_fail(x, cause);
	struct pick_result pick;
	uint64_t pick_ns = 0;
	int r =
	    x->n_tried < EXCHANGE_TRIES_MAX ? pick_instance(x, &input, &pick, &pick_ns) : PICK_E_NONE_LEFT;
	if ((r == PICK_E_NONE_LEFT || (r == PICK_E_FULL && x->n_tried)) &&
	    x->may_return) { /* who refused it before */
		x->may_return = false;
		x->n_tried = 0;
		return NEXT;
	}
	if (r == 0 && pick.reason >= PICK_ALL_AVOIDED && x->n_tried >= AVOIDED_TRIES_MAX)
		r = PICK_E_NONE_LEFT; /* the fleet is away, as others have found before */
	if (r && turn_again(x, cause_of(x, r)))
		return go(x, STEP_QUEUE);
	if (r)
		return pick_failed(x, &input, r, pick_ns);
	if (!permit_take(x, pick.instance))
		return NEXT;
	if (!ticket_try_open(&x->ticket, &x->worker->policies, &input, &pick)) {
		permit_return(x, pick.instance);
		return NEXT; /* another worker took the last place there: the next pick knows */
	}
	turn_picked(x);
	journal_picked(x, &input, &pick, pick_ns);
	return begin_attempt(x, &pick);
}

/* A body that cannot be sent twice goes over a fresh connection, which is never stale. */
static bool may_reuse(const struct exchange *x) {
	if (call_is_received(&x->down))
		return true;
	const struct head *h = request_head(x);
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

static enum next step_connect(struct exchange *x) {
	if (x->upstream) { /* woken: how did it go? */
		if (x->upstream->conn.is_broken)
			return connect_failed(x, refusal_cause(x));
		if (x->upstream->conn.state == CONN_CONNECTING)
			return WAIT;
		instance_succeeded(x->ticket.instance);
		instance_set_good_address(x->ticket.instance, address_at(x, x->n_addresses - 1));
		return go(x, STEP_SEND);
	}
	if (may_reuse(x))
		x->upstream = upstream_get(&x->worker->pool, x->ticket.instance, &x->job);
	if (x->upstream)
		return go(x, STEP_SEND);

	const struct snapshot_row *row = &x->view->snapshot->rows[x->row];
	if (x->n_addresses >= row->n_addresses)
		return connect_failed(x, refusal_cause(x));
	const struct sockaddr_storage *to = &row->addresses[address_at(x, x->n_addresses++)];
	int r = upstream_connect(&x->worker->pool, x->ticket.instance, to, &x->job, &x->upstream);
	if ((r == -EMFILE || r == -ENFILE) &&
	    x->worker->pool.n_idle) { /* idle ones hold what this one needs */
		upstream_pool_close_idle(&x->worker->pool);
		r = upstream_connect(&x->worker->pool, x->ticket.instance, to, &x->job, &x->upstream);
	}
	if (r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM)
		return exchange_fail(x, CAUSE_OVERLOADED);
	if (r == -EADDRNOTAVAIL && row->n_addresses == 1) /* our ports to it are used up: not its fault */
		return try_another(x, CAUSE_OVERLOADED, 0);
	if (r < 0)
		return connect_failed(x, refusal_cause(x));
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	return WAIT;
}

/* Length if we know it by now, whatever the client used. */
static enum framing upload_framing(const struct exchange *x, uint64_t *length) {
	const struct head *h = request_head(x);
	*length = h->content_length;
	if (h->framing != FRAMING_CHUNKED || !call_is_received(&x->down))
		return (enum framing)h->framing;
	struct head_room trailer;
	if (call_trailer(&x->down, &trailer) && trailer.head.n_fields)
		return FRAMING_CHUNKED;
	*length = x->hold.bytes;
	return FRAMING_LENGTH;
}

/* The end of the upload, with the client's trailers; once its head is forgotten nobody knows which may go on.
 */
static void put_upload_end(struct exchange *x, struct call_out *o) {
	struct head_room trailer;
	bool has = x->head && call_trailer(&x->down, &trailer);
	if (has)
		forward_mark_trailer(&trailer.head, request_head(x));
	call_put_end(o, has ? &trailer.head : NULL);
}

/* Ours, for the engine; empty: none. */
static struct slice upstream_key(const struct exchange *x) {
	return instance_key(&x->ticket.instance->spec, x->worker->router->config->upstream_key);
}

/* Keys that clients showed us are not for engines. */
static bool drops_keys(const struct exchange *x) {
	const struct router_config *config = x->worker->router->config;
	return config->tenants && !config->passes_keys;
}

static enum next step_send(struct exchange *x) {
	struct session *session = session_of(&x->down);
	char room[46];
	struct forward f = { .request_id = exchange_id(x),
		.peer = session_peer(session, room),
		.key = upstream_key(x),
		.drops_keys = drops_keys(x) };
	struct call_out o;
	uint64_t length;
	enum framing framing;
	enum cause cause = CAUSE_NONE;
	if (!call_is_received(&x->down) && call_has_input(&x->down) &&
	    !buf_is_over_budget(bufs(x))) /* what came while we were connecting */
		(void)hold_once(x, &cause);
	if (cause)
		return exchange_fail(x, cause);
	framing = upload_framing(x, &length);
	x->at.connected = now_ns(x);
	x->n_sends += x->n_sends < UINT8_MAX;
	x->is_upload_broken = false;
	x->moved_ms = 0;
	call_init(&x->up, &x->upstream->conn, FRAMING_NONE, 0);
	struct buf *at = x->hold.first;
	call_begin(&o, &x->up);
	forward_request(&o, request_head(x), x->ticket.instance, &f, framing, length);
	int r = 0;
	do {
		struct piece pieces[CALL_PIECES_MAX];
		size_t n = hold_pieces(&at, pieces, CALL_PIECES_MAX);
		if (n)
			call_put_data(&o, pieces, n);
		if (!at && call_is_received(&x->down))
			put_upload_end(x, &o);
		r = call_flush(&o);
		call_begin(&o, &x->up);
	} while (at && r == 0);
	if (r)
		return lost_before_answer(x, CAUSE_UPSTREAM_CLOSED);
	return go(x, STEP_AWAIT_HEAD);
}

/* What was sent cannot be sent again. */
static void drop_replay(struct exchange *x) {
	x->keeps_replay = x->is_repeatable = false;
	hold_free(&x->hold, bufs(x));
}

/* Keeps a copy for another try, unless there is none or the copy would be large. */
static void keep_replay(struct exchange *x, const struct call_in *in) {
	if (!x->keeps_replay)
		return;
	bool is_of_use = x->upstream->is_reused || x->n_sends < x->worker->router->config->retry.attempts;
	if (x->hold.bytes + in->bytes <= REPLAY_BYTES_MAX && is_of_use &&
	    hold_append(&x->hold, bufs(x), in->pieces, in->n))
		return;
	drop_replay(x);
}

/* The body named its model behind what was waited for: it is too late to choose by it, but the log should
 * know. */
static void learn_model(struct exchange *x) {
	const struct snapshot *snap = x->view->snapshot;
	if (x->model != &snap->any || !inspect_is_decided(&x->inspect))
		return;
	struct slice name = inspect_model(&x->inspect);
	const struct model *model = name.n ? snapshot_model(snap, name) : NULL;
	if (model)
		x->model = model;
}

/* One receive of the body, passed on. CALL_E_AGAIN: nothing came, or a cause ends the exchange. */
static int pump_up_once(struct exchange *x, enum cause *cause) {
	struct call_in in;
	struct call_out o;
	int r = receive_body(x, &in, cause);
	if (r)
		return CALL_E_AGAIN;
	keep_replay(x, &in);
	learn_model(x);
	call_begin(&o, &x->up);
	call_put_data(&o, in.pieces, in.n);
	if (in.is_end) {
		put_upload_end(x, &o);
		if (x->at.first_byte) /* nobody asks any more */
			inspect_deinit(&x->inspect, bufs(x));
	}
	if (call_flush(&o))
		x->is_upload_broken = true;
	return 0;
}

/* The rest of the body, as it comes: one read of the socket, all of what it brought. */
static enum cause pump_up(struct exchange *x) {
	enum cause cause = CAUSE_NONE;
	int r = 0;
	if (x->up.out_is_done)
		return CAUSE_NONE;
	if (buf_is_over_budget(bufs(x))) /* who waits for memory must not hold any that can be spared */
		drop_replay(x);
	do {
		bool may_read = !x->is_upload_broken && !call_pending(&x->up) && !buf_is_over_budget(bufs(x));
		call_want(&x->down, may_read);
		if (!may_read)
			break;
		r = pump_up_once(x, &cause);
	} while (r == 0 && x->down.conn->unread.n && !x->up.out_is_done);
	return cause;
}

/* 1xx other than 100, which we have answered ourselves, goes to clients that can read it (RFC 9110
 * section 15.2). */
static enum cause relay_interim(struct exchange *x, const struct head *interim) {
	struct call_out o;
	if (++x->n_interim > INTERIM_MAX)
		return CAUSE_UPSTREAM_MALFORMED;
	if (interim->status == 100 || request_head(x)->minor == 0 || x->down.out_has_begun)
		return CAUSE_NONE;
	call_begin(&o, &x->down);
	forward_interim(&o, interim);
	return call_flush(&o) ? CAUSE_CLIENT_GONE : CAUSE_NONE;
}

/* Head and replay body are not needed any more: an open stream costs little. */
static void forget_request(struct exchange *x) {
	drop_replay(x);
	conn_relax(x->down.conn);
	buf_unref(bufs(x), &x->head);
	if (call_is_received(&x->down) || x->is_upload_broken)
		inspect_deinit(&x->inspect, bufs(x));
}

/* What the answer has told so far, before the client can know it. */
static void heed_news(struct exchange *x, struct tap_news news) {
	if (news.n_content)
		journal_tokens(x, news.n_content);
	if (news.response)
		ticket_keep_response(&x->ticket, &x->worker->policies,
		    worker_response_key(tenancy_of(x), news.response), now_ns(x));
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

/* Takes the next part of the answer into o. 0, CALL_E_AGAIN, or the outcome that cut it. */
static int take_answer(struct exchange *x, struct call_out *o) {
	struct call_in in;
	int r = call_recv(&x->up, buf_is_over_budget(bufs(x)) ? DOWN_READ_HUNGRY : DOWN_READ_BYTES, &in);
	if (r)
		return r;
	if (in.n) {
		heed_news(x, tap_feed(&x->tap, &x->worker->tap, bufs(x), in.pieces, in.n));
		call_put_data(o, in.pieces, in.n);
	}
	if (in.is_end) {
		struct head_room trailer;
		call_put_end(o, call_trailer(&x->up, &trailer) ? &trailer.head : NULL);
		heed_news(x, tap_finish(&x->tap, &x->worker->tap, bufs(x)));
		learn_refusal(x);
	}
	return 0;
}

/* Bytes of the answer have gone through. Who holds up the next ones? */
static void mark_move(struct exchange *x) {
	x->moved_ms = call_pending(&x->down) ? 0 : loop_now_ms(&x->worker->loop);
}

/* For the client, where the configuration says so. */
static const struct forward_explained *explain_choice(
    const struct exchange *x, struct forward_explained *e, char room[static DECISION_TEXT_BYTES]) {
	const struct decision *d = decision_find(&x->worker->decisions, x->decision);
	if (!x->worker->router->config->explain.has_headers)
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

static enum next relay_head(struct exchange *x, const struct head *answer) {
	struct forward_explained explained;
	char room[DECISION_TEXT_BYTES], fields_room[TENANCY_FIELDS_BYTES];
	const struct router *router = x->worker->router;
	struct forward_answer f = { .request = request_head(x),
		.request_id = exchange_id(x),
		.explained = explain_choice(x, &explained, room),
		.fields = tenancy_fields(x, request_head(x), fields_room),
		.owns_limits = rate_is_limited(router->rates, x->tenant),
		.owns_origins = router->config->cors_origins.n,
		/* The rest of a body that nobody waits for ends the connection. */
		.is_last =
		    x->ends_connection || !call_is_received(&x->down) || is_last(x, session_of(&x->down)) };
	bool has_begun = x->down.out_has_begun; /* while it waited for its place */
	struct call_out o;

	if (has_begun && !patience_fits(answer))
		return exchange_fail(x, CAUSE_NO_STREAM);
	x->at.first_byte = now_ns(x);
	x->status = answer->status;
	tap_init(&x->tap, answer);
	x->tap.seeks_response =
	    inspect_capability(&x->inspect) == CAPABILITY_RESPONSES && answer->status < 300;
	/* Else it cost the engine no work. */
	if (x->tap.kind != TAP_EVENTS && answer->status < 300 && x->model->name.n) {
		ticket_answered(&x->ticket, &x->worker->policies, x->at.first_byte);
		journal_answered(x);
	}
	call_begin(&o, &x->down);
	if (!has_begun)
		x->ends_connection = forward_response(&o, answer, &f);
	x->is_engine_kept = answer->keep_alive;
	forget_request(x);
	int r = 0;
	if (x->upstream->conn.unread.n || call_is_received(&x->up))
		r = take_answer(x, &o);
	if (call_flush(&o))
		return exchange_fail(x, CAUSE_CLIENT_GONE);
	mark_move(x);
	if (r == CALL_E_GONE || r == CALL_E_BAD)
		return exchange_fail(x, CAUSE_STREAM_BROKEN);
	return go(x, STEP_RELAY);
}

/* The engine says that it did nothing. Does another one get the request, or the client the refusal? */
static bool is_refused(struct exchange *x, const struct head *answer, uint64_t *wait_ms_out) {
	const struct retry_options *options = &x->worker->router->config->retry;
	bool has_others = x->n_tried + 1u < x->model->n_candidates;

	if (!retry_is_refusal(options, answer->status))
		return false;
	uint64_t after_ms =
	    retry_after_ms(head_find(answer, FIELD_RETRY_AFTER), (int64_t)(clock_wall_ms() / 1000));
	if (after_ms)
		instance_rest(x->ticket.instance, loop_now_ms(&x->worker->loop), after_ms);
	*wait_ms_out = has_others ? 0 : after_ms;
	return *wait_ms_out <= options->backoff_max_ms && may_retry(x);
}

/* The wait before a retry. The client's leaving ends it, like any other. */
static enum next step_back_off(struct exchange *x) {
	return x->backoff_ms ? WAIT : go(x, STEP_PICK);
}

static enum next step_await_head(struct exchange *x) {
	struct head_room room;
	enum cause cause = pump_up(x);
	if (cause)
		return exchange_fail(x, cause);
	if (!x->moved_ms && x->up.out_is_done && !call_pending(&x->up)) /* it has all that it needs */
		x->moved_ms = loop_now_ms(&x->worker->loop);
	for (;;) {
		uint64_t wait_ms;
		int r = call_recv_head(&x->up, &room, x->is_head ? METHOD_HEAD : METHOD_OTHER);
		if (r == CALL_E_AGAIN)
			return WAIT;
		if (r == CALL_E_BAD)
			return exchange_fail(x, CAUSE_UPSTREAM_MALFORMED);
		if (r)
			return lost_before_answer(x, CAUSE_UPSTREAM_CLOSED);
		if (room.head.status >= 200 && is_refused(x, &room.head, &wait_ms))
			return retry(x, CAUSE_UPSTREAM_REFUSED, room.head.status, wait_ms);
		if (room.head.status >= 200)
			return relay_head(x, &room.head);
		cause = relay_interim(x, &room.head);
		if (cause)
			return exchange_fail(x, cause);
	}
}

/* The engine has said everything: its connection goes back to the pool, or ends. */
static void finish_upstream(struct exchange *x) {
	if (!x->upstream)
		return;
	bool reusable = x->up.out_is_done && !call_pending(&x->up) && x->is_engine_kept;
	call_deinit(&x->up);
	if (reusable)
		upstream_put(&x->upstream);
	else
		upstream_close(&x->upstream);
}

static enum next step_relay(struct exchange *x) {
	struct call_out o;
	while (!x->down.out_is_done) {
		enum cause cause = pump_up(x);
		if (cause)
			return exchange_fail(x, cause);
		if (call_pending(&x->down)) {
			call_want(&x->up, false);
			mark_move(x);
			return WAIT;
		}
		if (!x->moved_ms) /* until now it was the client */
			mark_move(x);
		call_want(&x->up, true);
		call_begin(&o, &x->down);
		int r = take_answer(x, &o);
		if (r == CALL_E_AGAIN)
			return WAIT;
		if (r)
			return exchange_fail(x, CAUSE_STREAM_BROKEN);
		if (call_flush(&o))
			return exchange_fail(x, CAUSE_CLIENT_GONE);
		mark_move(x);
		if (!x->upstream->conn.unread.n && !x->down.out_is_done)
			return WAIT; /* one read a turn: the others wait too */
	}
	finish_upstream(x);
	release_instance(x, CAUSE_NONE, x->status);
	call_want(&x->down, false); /* nobody wants the rest of its body */
	return call_pending(&x->down) ? WAIT : go(x, STEP_SETTLE);
}

/* --- the end ------------------------------------------------------------------ */

/* The model that the client asked for, as text. */
static const char *model_name(const struct exchange *x, char room[MODEL_NAME_ROOM]) {
	struct slice name = slice_head(find_name(x), MODEL_NAME_ROOM - 1);
	memcpy(room, name.p, name.n);
	room[name.n] = '\0';
	return room;
}

/* What the error is about, as text, where it says so. */
static const char *refusal_detail(const struct exchange *x, enum cause cause, char room[MODEL_NAME_ROOM]) {
	bool is_of_model = cause == CAUSE_MODEL_NOT_FOUND ||
	    (cause == CAUSE_TENANT_DENIED && find_name(x).n) ||
	    ((cause == CAUSE_NO_INSTANCE || cause == CAUSE_BREAKERS_OPEN) && x->dialect == REPLY_INFINILM &&
		find_name(x).n);
	if (is_of_model)
		return model_name(x, room);
	const char *limit = tenancy_detail(x, cause, room, MODEL_NAME_ROOM);
	if (limit)
		return limit;
	if (cause != CAUSE_UNKNOWN_HEADER)
		return NULL;
	struct slice field = inspect_unknown_field(request_head(x));
	snprintf(room, MODEL_NAME_ROOM, "%.*s", (int)field.n, field.p);
	return room;
}

/* The longest of what limits, breakers and the queue say; 0: as the cause has it. */
static uint32_t retry_after_s(const struct exchange *x, enum cause cause) {
	uint32_t rest_s = u64_max(x->claim.wait_s, x->retry_after_s);

	return (uint32_t)u64_max(rest_s, turn_retry_after_s(x, cause));
}

/* The answer is ours: an error that says why. */
static enum next step_refuse(struct exchange *x) {
	const struct decision *d = decision_find(&x->worker->decisions, x->decision);
	char room[DECISION_TEXT_BYTES];
	enum cause cause = (enum cause)x->cause;
	char name[MODEL_NAME_ROOM], fields[TENANCY_FIELDS_BYTES];
	const char *detail = refusal_detail(x, cause, name);
	struct reply reply = { .request_id = exchange_id(x),
		.fields = tenancy_fields(x, request_head(x), fields),
		.retry_after_s = retry_after_s(x, cause) };
	reply.is_final = turn_retry_after_s(x, cause) > 0;
	if (cause == CAUSE_INVALID_KEY)
		reply.authenticate = SLICE("Bearer");
	if (d && x->worker->router->config->explain.has_headers)
		reply.decision = decision_text(d, room);
	drop_upstream(x);
	release_instance(x, cause, 0); /* what follows is our word, not the instance's */
	reply_follow(&reply, request_head(x), x->ends_connection || is_last(x, session_of(&x->down)));
	reply.closes |= !call_is_received(&x->down) || cause == CAUSE_BODY_MALFORMED;
	x->ends_connection = reply.closes;
	int r = reply_refuse(&x->down, &reply, cause, detail, (enum reply_dialect)x->dialect);
	x->status = (uint16_t)reply.status;
	hold_free(&x->hold, bufs(x));
	inspect_deinit(&x->inspect, bufs(x));
	return r ? exchange_fail(x, CAUSE_CLIENT_GONE) : go(x, STEP_RELAY);
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
	 * reset. */
	if (gone || x->down.out_framing == FRAMING_CLOSE || call_pending(&x->down))
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

static enum next step_settle(struct exchange *x) {
	struct worker *w = x->worker;
	drop_upstream(x);
	release_instance(x, (enum cause)x->cause, x->status);
	turn_settle(x, x->tap.tokens_in + (x->tap.has_usage ? x->tap.tokens_out : x->tap.n_events));
	tenancy_settle(x);
	if (x->cause == CAUSE_CLIENT_GONE)
		metric_add(&w->metrics->client_aborts, 1);
	settle_down(x);
	journal_write(x);

	timer_stop(&x->timer);
	job_cancel(&x->job);
	list_remove(&x->link);
	worker_count_active(w, -1);
	tap_deinit(&x->tap, bufs(x));
	inspect_deinit(&x->inspect, bufs(x));
	hold_free(&x->hold, bufs(x));
	buf_unref(bufs(x), &x->head);
	worker_view_release(w, &x->view);
	panic_subject(NULL, NULL);
	slab_put(&w->exchanges, x);
	return DONE;
}

/* --- the driver ---------------------------------------------------------------- */

typedef enum next (*step_fn)(struct exchange *x);

static const struct {
	step_fn run;
	const char *name;
} steps[] = {
	[STEP_BEGIN] = { step_begin, "begin" },
	[STEP_ADMIT] = { step_admit, "admit" },
	[STEP_LOCAL] = { step_local, "local" },
	[STEP_INSPECT] = { step_inspect, "inspect" },
	[STEP_QUEUE] = { step_queue, "queue" },
	[STEP_PICK] = { step_pick, "pick" },
	[STEP_CONNECT] = { step_connect, "connect" },
	[STEP_SEND] = { step_send, "send" },
	[STEP_AWAIT_HEAD] = { step_await_head, "await_head" },
	[STEP_BACK_OFF] = { step_back_off, "back_off" },
	[STEP_RELAY] = { step_relay, "relay" },
	[STEP_REFUSE] = { step_refuse, "refuse" },
	[STEP_SETTLE] = { step_settle, "settle" },
};

static void exchange_describe(const void *object, char *line, size_t size) {
	const struct exchange *x = object;
	snprintf(line, size, "exchange %.*s, step %s, %s", (int)x->id_n, x->text, steps[x->step].name,
	    cause_row((enum cause)x->cause)->label);
}

/* What is waited for: how long, what it means when that passes, and what starts it afresh when it grows. */
struct deadline {
	uint64_t ms; /* 0: none */
	enum cause cause;
	uint64_t progress;
};

static struct deadline exchange_deadline(const struct exchange *x) {
	const struct router_timeouts *t = timeouts(x);
	if (call_pending(&x->down))
		return (struct deadline){ t->write_idle_ms, CAUSE_CLIENT_STALLED,
			x->down.conn->sent_bytes / WRITE_STEP_BYTES };
	switch ((enum exchange_step)x->step) {
	case STEP_INSPECT:
		return (struct deadline){ t->body_idle_ms, CAUSE_BODY_TIMEOUT, x->down.in_bytes };
	case STEP_QUEUE:
		return (struct deadline){ x->turn.ends_ms -
			    u64_min(x->turn.ends_ms, loop_now_ms(&x->worker->loop)) + 1,
			(enum cause)x->turn.late_cause, 0 };
	case STEP_CONNECT:
		return (struct deadline){ t->connect_ms, CAUSE_CONNECT_TIMEOUT,
			(uint64_t)x->n_attempts << 32 | x->n_addresses };
	case STEP_BACK_OFF:
		return (struct deadline){ x->backoff_ms, CAUSE_UPSTREAM_REFUSED, x->n_sends };
	case STEP_RELAY:
		return (struct deadline){ t->stream_idle_ms, CAUSE_STREAM_STALLED,
			x->up.in_bytes + x->down.in_bytes };
	default:
		break;
	}
	if (!x->up.out_is_done && !x->is_upload_broken && !call_pending(&x->up))
		return (struct deadline){ t->body_idle_ms, CAUSE_BODY_TIMEOUT, x->down.in_bytes };
	bool applies = t->first_byte_all || x->inspect.is_streamed;
	return (struct deadline){ applies ? t->first_byte_ms : 0, CAUSE_FIRST_BYTE_TIMEOUT, x->n_sends };
}

/* When this wait ends; x->wait_cause says what it means. */
static uint64_t exchange_ends_ms(struct exchange *x, uint64_t now_ms) {
	struct deadline d = exchange_deadline(x);
	if (d.cause != x->wait_cause || d.progress != x->progress) {
		x->deadline_ms = d.ms ? now_ms + d.ms : UINT64_MAX;
		x->progress = d.progress;
	}
	x->wait_cause = (uint8_t)d.cause;
	uint64_t total_ms =
	    x->step == STEP_RELAY && x->cause ? 0 : timeouts(x)->total_ms; /* a refusal is out */
	uint64_t total_end_ms = total_ms ? x->at.begin / 1000000u + total_ms : UINT64_MAX;
	if (total_end_ms > x->deadline_ms)
		return x->deadline_ms;
	x->wait_cause = CAUSE_TOTAL_TIMEOUT;
	return total_end_ms;
}

/* Is it the engine that is waited for, and for how long? */
static bool is_engines_turn(const struct exchange *x, uint64_t *silent_ms_out) {
	uint64_t now_ms = loop_now_ms(&x->worker->loop);
	*silent_ms_out = now_ms > x->moved_ms ? now_ms - x->moved_ms : 0;
	return x->ticket.instance && x->moved_ms;
}

bool exchange_is_streaming(const struct exchange *x, uint64_t *silent_ms_out) {
	return is_engines_turn(x, silent_ms_out) && x->step == STEP_RELAY && x->tap.kind == TAP_EVENTS &&
	    x->at.first_token;
}

bool exchange_is_waiting(const struct exchange *x, uint64_t *silent_ms_out) {
	bool has_empty_head = x->step == STEP_RELAY && x->tap.kind == TAP_EVENTS && !x->at.first_token;
	return is_engines_turn(x, silent_ms_out) && (x->step == STEP_AWAIT_HEAD || has_empty_head) &&
	    !x->n_interim && x->model->name.n;
}

/* The deadline passed. Connecting may go on elsewhere, all else ends here. */
static enum next on_late(struct exchange *x) {
	enum cause cause = (enum cause)x->wait_cause;
	if (x->step == STEP_CONNECT && cause == CAUSE_CONNECT_TIMEOUT)
		return connect_failed(x, cause);
	if (x->step == STEP_BACK_OFF && cause == CAUSE_UPSTREAM_REFUSED) /* the wait is over */
		return go(x, STEP_PICK);
	if (cause == CAUSE_BODY_TIMEOUT && buf_is_over_budget(bufs(x))) /* it is us who do not read */
		cause = CAUSE_OVERLOADED;
	return exchange_fail(x, cause);
}

/*
 * Nothing more can be done now: sleeps until an event or the deadline. The deadline is looked at after
 * the steps, so that what has come meanwhile counts even if we were the ones who were stopped.
 */
static enum next exchange_wait(struct exchange *x) {
	uint64_t now_ms = loop_now_ms(&x->worker->loop);
	uint64_t end_ms = exchange_ends_ms(x, now_ms);
	if (end_ms <= now_ms)
		return on_late(x);
	if (x->step == STEP_QUEUE)
		end_ms = u64_min(end_ms, patience_due_ms(x));
	if (buf_is_over_budget(bufs(x))) /* looks again soon: others may have given back */
		end_ms = u64_min(end_ms, now_ms + HUNGRY_RETRY_MS);
	if (end_ms != UINT64_MAX)
		loop_timer(&x->worker->loop, &x->timer, end_ms - now_ms);
	else
		timer_stop(&x->timer);
	return WAIT;
}

static void exchange_on_timer(struct timer *t) {
	struct exchange *x = container_of(t, struct exchange, timer);
	loop_wake(&x->worker->loop, &x->job);
}

/* The client's FIN is a departure, unless the configuration says to serve half-closed clients. */
static bool is_client_gone(struct exchange *x) {
	if (x->step == STEP_SETTLE || !call_is_gone(&x->down))
		return false;
	if (x->down.conn->is_broken || x->down.conn->has_failed)
		return true;
	if (x->down.out_is_done && !call_pending(&x->down))
		return false; /* it has taken all of its answer */
	if (x->worker->router->config->half_close == ROUTER_HALF_CLOSE_ABORT)
		return true;
	if (call_is_received(&x->down))
		conn_ignore_peer_close(x->down.conn);
	return false;
}

static void exchange_run(struct job *job) {
	struct exchange *x = container_of(job, struct exchange, job);
	panic_subject(exchange_describe, x);
	if (is_client_gone(x))
		exchange_fail(x, CAUSE_CLIENT_GONE);
	enum next next = NEXT;
	while (next == NEXT) {
		next = steps[x->step].run(x);
		if (next == WAIT)
			next = exchange_wait(x);
	}
	if (next == WAIT)
		panic_subject(NULL, NULL);
}

void exchange_kill(struct exchange *x, enum cause cause) {
	exchange_fail(x, cause);
	if (x->step == STEP_REFUSE)
		step_refuse(x);
	go(x, STEP_SETTLE);
	exchange_run(&x->job);
}

/* Keeps what the log needs at the end: id, method, path without its query, the latter cut to what is left. */
static void keep_text(struct exchange *x, const struct head *head) {
	char room[32];
	struct slice id = worker_id_of(x->worker, head, room);
	struct slice method = slice_head(head_method(head), EXCHANGE_METHOD_MAX);
	struct slice path = slice_head(head_path(head), sizeof(x->text) - id.n - method.n);
	memcpy(x->text, id.p, id.n);
	memcpy(x->text + id.n, method.p, method.n);
	memcpy(x->text + id.n + method.n, path.p, path.n);
	x->id_n = (uint8_t)id.n;
	x->method_n = (uint8_t)method.n;
	x->path_n = (uint16_t)path.n;
}

struct job *exchange_begin(struct server *server, struct session *session, const struct head *head) {
	struct worker *w = server->context;
	struct exchange *x = slab_get_zeroed(&w->exchanges);
	x->worker = w;
	x->at.begin = w->loop.now_ns;
	x->row = EXCHANGE_NO_ROW;
	job_init(&x->job, exchange_run);
	timer_init(&x->timer, exchange_on_timer);
	list_init(&x->link);
	list_push(&w->active, &x->link);
	worker_count_active(w, +1);
	metric_add(&w->metrics->accepted, 1);
	x->view = worker_view(w);
	x->head = head_copy(&w->loop.bufs, head);
	keep_text(x, head);
	x->dialect = (uint8_t)reply_dialect((enum reply_dialect)server->dialect, head_path(head));
	x->is_head = head->method == METHOD_HEAD;
	x->is_repeatable = x->is_head || head->method == METHOD_GET || head->method == METHOD_OPTIONS;
	x->ends_connection = is_last(x, session);
	x->keeps_replay = true;
	session_take(session, &x->down, &x->job, head);
	return &x->job;
}
