#include "router/journal.h"

#include "base/clock.h"
#include "base/line.h"
#include "fleet/label.h"
#include "router/replay.h"
#include "router/resume.h"
#include "router/split.h"
#include "router/tenancy.h"
#include "router/vllm_counts.h"

/* The record of this exchange; NULL: none was made, or newer ones have taken its place. */
static struct decision *journal_decision(const struct exchange *x) {
	return decision_find(&x->worker->decisions, x->decision);
}

/* A new one. The ring is on. */
static struct decision *journal_begin(struct exchange *x) {
	struct decision_ring *ring = &x->worker->decisions;
	x->decision = decision_begin(ring, exchange_id(x), inspect_model(&x->inspect));
	struct decision *d = decision_find(ring, x->decision);
	d->salt = tenancy_of(x)->salt;
	d->tenant = (uint16_t)tenancy_of(x)->label;
	return d;
}

/* NULL: they are not wanted. */
static struct vllm_counts *wanted_counts(const struct worker *w, const struct router_config *config) {
	return config->metrics_compat == ROUTER_METRICS_VLLM ? w->vllm_counts : NULL;
}

static struct vllm_counts *journal_vllm(const struct exchange *x) {
	return wanted_counts(x->worker, exchange_config(x));
}

static void journal_vllm_pick(
    const struct exchange *x, const struct pick_input *input, const struct pick_result *pick) {
	struct vllm_counts *c = journal_vllm(x);

	if (!c)
		return;
	const struct vllm_pick said = { .instance = x->ticket.instance,
		.policy = policy_of(&x->worker->policies, input->model),
		.reason = pick->reason,
		.is_looked_up = x->ticket.is_looked_up,
		.is_cached = x->ticket.cached_tokens };

	vllm_counts_pick(c, &said);
}

void journal_picked(
    struct exchange *x, const struct pick_input *input, const struct pick_result *pick, uint64_t pick_ns) {
	struct decision_ring *ring = &x->worker->decisions;
	struct decision *d = journal_decision(x);
	if (x->worker->replay && !x->replay)
		x->replay = replay_keep(&x->worker->loop.bufs, input->demand);
	journal_vllm_pick(x, input, pick);
	if (!decision_ring_is_on(ring))
		return;
	if (!d)
		d = journal_begin(x);
	decision_pick(d, &x->worker->policies, input, pick, pick_ns);
	d->is_probe = x->permit.is_probe;
	d->predicted_tokens = x->ticket.cached_tokens;
}

/* A request that was tried has its record, of the last try. */
void journal_declined(
    struct exchange *x, const struct pick_input *input, enum cause cause, uint64_t pick_ns) {
	struct decision_ring *ring = &x->worker->decisions;
	if (!decision_ring_is_on(ring) || x->decision != DECISION_NONE)
		return;
	decision_refuse(journal_begin(x), &x->worker->policies, input, cause, pick_ns);
}

void journal_answered(const struct exchange *x) {
	atomic_store_explicit(&x->worker->tallies[x->ticket.instance->slot].answered_ms,
	    loop_now_ms(&x->worker->loop), memory_order_relaxed);
}

void journal_tokens(struct exchange *x, unsigned n_events) {
	struct metric_shard *m = x->worker->metrics;
	uint64_t now = x->worker->loop.now_ns;
	if (!x->at.first_token) {
		x->at.first_token = now;
		metric_observe(&m->first_token, now - x->at.begin);
		ticket_first(&x->ticket, &x->worker->policies, now);
		journal_answered(x);
	} else {
		/* Events that came in one read share its time. */
		for (unsigned i = 0; i < n_events; i++)
			metric_observe(&m->inter_token, (now - x->at.last_token) / n_events);
	}
	x->at.last_token = now;
}

static uint64_t since(uint64_t from, uint64_t to) {
	return to > from && from ? to - from : 0;
}

static const struct instance *journal_instance(const struct exchange *x) {
	return x->row == EXCHANGE_NO_ROW ? NULL : x->view->snapshot->rows[x->row].instance;
}

static bool journal_is_fault(enum cause cause, unsigned status) {
	switch (cause) {
	case CAUSE_NONE:
	case CAUSE_UPSTREAM_REFUSED:
		return status >= 500 && status != 501 && status != 503;
	case CAUSE_UPSTREAM_CLOSED:
	case CAUSE_UPSTREAM_MALFORMED:
	case CAUSE_FIRST_BYTE_TIMEOUT:
	case CAUSE_STREAM_BROKEN:
	case CAUSE_STREAM_STALLED:
		return true;
	default:
		return false;
	}
}

/*
 * It had the whole of a request for long, and has begun no answer since, to nobody: whatever ended the
 * request, it hangs.
 */
static bool journal_is_hung(const struct exchange *x, unsigned slot) {
	const struct router *router = x->worker->router;
	uint64_t stall_ms = exchange_config(x)->health.stall_timeout_ms;
	uint64_t since_ms = u64_max(x->moved_ms, x->worker->resumed_ms); /* we may have stood still */
	if (x->cause != CAUSE_TOTAL_TIMEOUT && x->cause != CAUSE_CLIENT_GONE)
		return false;
	if (!stall_ms || !x->moved_ms || x->at.first_byte || x->n_interim ||
	    loop_now_ms(&x->worker->loop) < since_ms + stall_ms)
		return false;
	for (unsigned i = 0; i < router->n_workers; i++)
		if (atomic_load_explicit(
			&router->workers[i].tallies[slot].answered_ms, memory_order_relaxed) >= x->moved_ms)
			return false;
	return true;
}

bool journal_blames(const struct exchange *x, unsigned slot, enum cause cause, unsigned status) {
	return journal_is_fault(cause, status) || journal_is_hung(x, slot);
}

static void journal_tally(const struct exchange *x, unsigned slot, unsigned status) {
	struct worker_tally *t = &x->worker->tallies[slot];
	metric_add(&t->n_requests, 1);
	if (status >= 500 || x->cause == CAUSE_STREAM_BROKEN || x->cause == CAUSE_STREAM_STALLED)
		metric_add(&t->n_errors, 1);
	if (journal_blames(x, slot, (enum cause)x->cause, status))
		metric_add(&t->n_faults, 1);
	else if (x->cause == CAUSE_NONE && status < 500)
		metric_add(&t->n_good, 1);
}

/* What was never sent says nothing here: a connect that fails is told of elsewhere (instance_avoid). */
void journal_left(struct exchange *x, enum cause cause, unsigned status) {
	struct worker_tally *t = &x->worker->tallies[x->ticket.instance->slot];
	struct decision *d = journal_decision(x);
	bool is_fault = journal_blames(x, x->ticket.instance->slot, cause, status);
	if (d)
		decision_failed(d, x->ticket.instance->label, cause);
	if (!status && !is_fault)
		return;
	metric_add(&t->n_requests, 1);
	if (status >= 500 || is_fault)
		metric_add(&t->n_errors, 1);
	if (is_fault)
		metric_add(&t->n_faults, 1);
}

void journal_retried(const struct exchange *x) {
	struct vllm_counts *c = journal_vllm(x);

	if (c)
		vllm_counts_retry(c, exchange_path(x), split_sends(x), x->backoff_ms);
}

/* What was let go before anything was sent was none. The prefill's label tells the two apart when nothing
 * else of them is left. */
void journal_leg(const struct exchange *x, enum cause cause, bool is_error) {
	struct vllm_counts *c = journal_vllm(x);
	const struct instance *inst = x->ticket.instance;

	if (!c || !x->prefill_label || (cause == CAUSE_HEDGE_LOST && !x->moved_ms))
		return;
	vllm_counts_leg(c, inst, inst->label == x->prefill_label ? VLLM_PREFILL : VLLM_DECODE, is_error);
	if (cause == CAUSE_STREAM_BROKEN || cause == CAUSE_STREAM_STALLED)
		vllm_counts_broken_stream(c, inst);
}

void journal_prefilled(const struct exchange *x) {
	struct worker_tally *t = &x->worker->tallies[x->ticket.instance->slot];
	journal_answered(x);
	metric_add(&t->n_requests, 1);
	metric_add(&t->n_good, 1);
}

void journal_returned(struct exchange *x) {
	struct decision *d = journal_decision(x);
	if (d)
		decision_return(d, x->ticket.instance, (enum pick_reason)x->reason, x->ticket.cached_tokens);
}

/* Exactly one of the four. What the router answers instead of an engine it rejects, unless an engine is to
 * blame. */
static metric_cell *journal_outcome(const struct exchange *x, unsigned status) {
	struct metric_shard *m = x->worker->metrics;
	if (x->cause == CAUSE_CLIENT_GONE || x->cause == CAUSE_CLIENT_STALLED)
		return &m->cancelled;
	if (x->cause == CAUSE_NONE)
		return status < 500 ? &m->succeeded : &m->failed;
	return x->n_attempts ? &m->failed : &m->rejected;
}

static void journal_count(struct exchange *x, unsigned status, uint64_t total_ns) {
	struct worker *w = x->worker;
	const struct instance *inst = journal_instance(x);
	metric_count_request(
	    w->metrics, x->model ? x->model->label : LABEL_OTHER, inst ? inst->label : LABEL_OTHER, status);
	metric_add(journal_outcome(x, status), 1);
	metric_observe(&w->metrics->request, total_ns);
	metric_add(&w->metrics->body_bytes_in, x->down.in_bytes);
	metric_add(&w->metrics->body_bytes_out, x->down.out_bytes);
	metric_add(&w->metrics->tokens_in, x->tap.tokens_in);
	if (x->tap.has_usage)
		metric_add(&w->metrics->tokens_out, x->tap.tokens_out);
	else
		metric_add(&w->metrics->tokens_estimated, x->tap.n_events);
	tenancy_count(x, x->tap.tokens_in, x->tap.has_usage ? x->tap.tokens_out : x->tap.n_events);
	if (x->tap.kind == TAP_EVENTS && !x->cause && !x->tap.is_done)
		metric_add(&w->metrics->stream_no_done, 1);
	if (inst && !x->last_cause) /* else that was told when it was left */
		journal_tally(x, inst->slot, status);
}

static void journal_vllm_request(const struct exchange *x, unsigned status, uint64_t total_ns) {
	struct vllm_counts *c = journal_vllm(x);

	if (!c)
		return;
	const struct vllm_request said = { .path = exchange_path(x),
		.cause = (enum cause)x->cause,
		.status = status,
		.total_ns = total_ns,
		.is_exhausted = x->retry_bar == RETRY_BAR_BUDGET ||
		    (x->retry_bar == RETRY_BAR_ATTEMPTS && x->was_retried),
		.was_split = x->prefill_label };

	vllm_counts_request(c, &said);
}

/* One line of the access log; the fields are those of the contract, in its order. */
struct record {
	struct slice id, method, path, model, instance, reason;
	struct slice prefill; /* who computed the prompt for the instance; empty: itself */
	unsigned status, attempts, resumed, prefill_ms;
	uint64_t bytes_in, bytes_out;
	uint64_t queue_ns, connect_ns, first_byte_ns, first_token_ns, total_ns;
	uint64_t tokens_in, tokens_out;
	bool are_tokens_estimated;
	enum cause cause;
	enum retry_bar retry_bar;
};

static void record_put(struct worker *w, const struct record *r) {
	struct line l;
	line_begin(&l);
	line_time(&l, SLICE("ts"), clock_wall_ms());
	line_text(&l, SLICE("id"), r->id);
	line_text(&l, SLICE("method"), r->method);
	line_text(&l, SLICE("path"), r->path);
	line_text(&l, SLICE("model"), r->model);
	line_text(&l, SLICE("instance"), r->instance);
	line_uint(&l, SLICE("status"), r->status);
	line_uint(&l, SLICE("bytes_in"), r->bytes_in);
	line_uint(&l, SLICE("bytes_out"), r->bytes_out);
	line_ms(&l, SLICE("queue_ms"), r->queue_ns);
	line_ms(&l, SLICE("connect_ms"), r->connect_ns);
	line_ms(&l, SLICE("first_byte_ms"), r->first_byte_ns);
	line_ms(&l, SLICE("first_token_ms"), r->first_token_ns);
	line_ms(&l, SLICE("total_ms"), r->total_ns);
	line_uint(&l, SLICE("tokens_in"), r->tokens_in);
	line_uint(&l, SLICE("tokens_out"), r->tokens_out);
	line_bool(&l, SLICE("tokens_estimated"), r->are_tokens_estimated);
	line_text(&l, SLICE("reason"), r->reason);
	line_uint(&l, SLICE("attempts"), r->attempts);
	line_text(&l, SLICE("cause"), slice_of(cause_row(r->cause)->label));
	if (r->retry_bar)
		line_text(&l, SLICE("no_retry"), slice_of(retry_bar_text(r->retry_bar)));
	if (r->prefill.n) {
		line_text(&l, SLICE("prefill"), r->prefill);
		line_uint(&l, SLICE("prefill_ms"), r->prefill_ms);
	}
	if (r->resumed)
		line_uint(&l, SLICE("resumed"), r->resumed);
	line_end(&l);
	if (!log_ring_put(w->log, (struct slice){ l.text, l.n }))
		metric_add(&w->metrics->log_dropped, 1);
}

/* What became of it. */
static void journal_settle(const struct exchange *x, const struct record *r) {
	struct decision *d = journal_decision(x);
	const struct instance *inst = journal_instance(x);
	if (!d)
		return;
	d->is_settled = true;
	d->prefill = (uint16_t)x->prefill_label;
	d->status = (uint16_t)r->status;
	d->cause = x->cause;
	if (x->cause && d->n_attempts && inst)
		decision_failed(d, inst->label, (enum cause)x->cause);
	d->queue_ns = r->queue_ns;
	d->first_token_ns = r->first_token_ns;
	d->total_ns = r->total_ns;
	d->retry_bar = (uint8_t)r->retry_bar;
	d->n_resumed = (uint8_t)r->resumed;
	d->output_tokens = (uint32_t)u64_min(r->tokens_out, UINT32_MAX);
	d->has_actual = x->tap.has_cached;
	d->actual_tokens = (uint32_t)u64_min(x->tap.tokens_cached, UINT32_MAX);
}

/* What was refused or cut is no part of what an engine has to do. */
static void journal_replay(struct exchange *x, const struct record *r) {
	struct replay_counts counts = { .prompt_tokens = r->tokens_in, .output_tokens = r->tokens_out };
	char room[REPLAY_LINE_BYTES];
	if (!x->replay)
		return;
	if (!r->cause && r->status < 400) {
		counts.at_ns = clock_wall_ms() * 1000000u - r->total_ns;
		if (!log_ring_put(x->worker->replay, replay_line(x->replay, &counts, room)))
			metric_add(&x->worker->metrics->log_dropped, 1);
	}
	buf_unref(&x->worker->loop.bufs, &x->replay);
}

void journal_write(struct exchange *x) {
	const struct exchange_times *at = &x->at;
	const struct instance *inst = journal_instance(x);
	uint64_t now = x->worker->loop.now_ns;
	struct record r = {
		.id = exchange_id(x),
		.method = exchange_method(x),
		.path = exchange_path(x),
		.status = x->cause == CAUSE_CLIENT_GONE ? 499 : x->status,
		.attempts = x->n_attempts,
		.resumed = resume_n(x),
		.bytes_in = x->down.in_bytes,
		.bytes_out = x->down.out_bytes,
		.queue_ns = since(at->begin, at->routed),
		.connect_ns = since(at->routed, at->connected),
		.first_byte_ns = since(at->begin, at->first_byte),
		.first_token_ns = since(at->begin, at->first_token),
		.total_ns = now - at->begin,
		.tokens_in = x->tap.tokens_in,
		.tokens_out = x->tap.has_usage ? x->tap.tokens_out : x->tap.n_events,
		.are_tokens_estimated = !x->tap.has_usage && x->tap.n_events > 0,
		.cause = (enum cause)x->cause,
		.retry_bar = (enum retry_bar)x->retry_bar,
	};
	journal_count(x, r.status, r.total_ns);
	journal_vllm_request(x, r.status, r.total_ns);
	journal_settle(x, &r);
	journal_replay(x, &r);
	if (!x->worker->log)
		return;
	if (x->prefill_label) {
		r.prefill = slice_of(label_text(LABEL_INSTANCE, x->prefill_label));
		r.prefill_ms = x->prefill_ms;
	}
	if (x->model)
		r.model = x->model->name;
	if (inst) {
		r.instance = inst->spec.name;
		r.reason = slice_of(pick_reason_text((enum pick_reason)x->reason));
	}
	record_put(x->worker, &r);
}

void journal_refused(struct server *server, const struct head *head, enum cause cause, struct reply *reply) {
	struct worker *w = server->context;
	struct vllm_counts *counts = wanted_counts(w, w->settings->config);
	struct record r = { .status = reply_error(cause, (enum reply_dialect)server->dialect).status,
		.cause = cause };
	r.id = reply->request_id = worker_id_of(w, head, w->refused_id);
	/* Cut as an exchange cuts them, so that the fields behind have room. */
	r.method = slice_head(head_method(head), EXCHANGE_METHOD_MAX);
	if (head->target_n &&
	    head_path(head).p[0] == '/') /* an authority may have somebody's password in it */
		r.path = slice_head(head_path(head), EXCHANGE_TEXT_MAX - r.id.n - r.method.n);
	metric_count_request(w->metrics, LABEL_OTHER, LABEL_OTHER, r.status);
	metric_add(&w->metrics->accepted, 1);
	metric_add(&w->metrics->rejected, 1);
	if (counts)
		vllm_counts_request(
		    counts, &(struct vllm_request){ .path = r.path, .cause = cause, .status = r.status });
	if (w->log)
		record_put(w, &r);
}
