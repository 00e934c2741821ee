#include "router/journal.h"

#include "base/clock.h"
#include "base/line.h"
#include "fleet/label.h"

void journal_tokens(struct exchange *x, unsigned n_events) {
	struct metric_shard *m = x->worker->metrics;
	uint64_t now = x->worker->loop.now_ns;
	if (!x->at.first_token) {
		x->at.first_token = now;
		metric_observe(&m->first_token, now - x->at.begin);
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

static void journal_count(struct exchange *x, unsigned status, uint64_t total_ns) {
	struct worker *w = x->worker;
	const struct instance *inst = journal_instance(x);
	metric_count_request(
	    w->metrics, x->model ? x->model->label : LABEL_OTHER, inst ? inst->label : LABEL_OTHER, status);
	metric_observe(&w->metrics->request, total_ns);
	metric_add(&w->metrics->body_bytes_in, x->down.in_bytes);
	metric_add(&w->metrics->body_bytes_out, x->down.out_bytes);
	metric_add(&w->metrics->tokens_in, x->tap.tokens_in);
	if (x->tap.has_usage)
		metric_add(&w->metrics->tokens_out, x->tap.tokens_out);
	else
		metric_add(&w->metrics->tokens_estimated, x->tap.n_events);
	if (x->tap.kind == TAP_EVENTS && !x->cause && !x->tap.is_done)
		metric_add(&w->metrics->stream_no_done, 1);
	if (inst) {
		metric_add(&w->tallies[inst->slot].n_requests, 1);
		if (status >= 500 || x->cause == CAUSE_STREAM_BROKEN || x->cause == CAUSE_STREAM_STALLED)
			metric_add(&w->tallies[inst->slot].n_errors, 1);
	}
}

static void journal_put(struct worker *w, struct line *l) {
	line_end(l);
	if (!log_ring_put(w->log, (struct slice){ l->text, l->n }))
		metric_add(&w->metrics->log_dropped, 1);
}

static void journal_begin(struct line *l, struct slice id, struct slice method, struct slice path) {
	line_begin(l);
	line_time(l, SLICE("ts"), clock_wall_ms());
	line_text(l, SLICE("id"), id);
	line_text(l, SLICE("method"), method);
	line_text(l, SLICE("path"), path);
}

void journal_write(struct exchange *x) {
	const struct exchange_times *at = &x->at;
	const struct instance *inst = journal_instance(x);
	uint64_t now = x->worker->loop.now_ns;
	unsigned status = x->cause == CAUSE_CLIENT_GONE ? 499 : x->status;
	struct line l;

	journal_count(x, status, now - at->begin);
	if (!x->worker->log)
		return;
	journal_begin(&l, exchange_id(x), exchange_method(x), exchange_path(x));
	line_text(&l, SLICE("model"), x->model ? x->model->name : SLICE(""));
	line_text(&l, SLICE("instance"), inst ? inst->spec.name : SLICE(""));
	line_uint(&l, SLICE("status"), status);
	line_uint(&l, SLICE("bytes_in"), x->down.in_bytes);
	line_uint(&l, SLICE("bytes_out"), x->down.out_bytes);
	line_ms(&l, SLICE("queue_ms"), since(at->begin, at->routed));
	line_ms(&l, SLICE("connect_ms"), since(at->routed, at->connected));
	line_ms(&l, SLICE("first_byte_ms"), since(at->begin, at->first_byte));
	line_ms(&l, SLICE("first_token_ms"), since(at->begin, at->first_token));
	line_ms(&l, SLICE("total_ms"), now - at->begin);
	line_uint(&l, SLICE("tokens_in"), x->tap.tokens_in);
	line_uint(&l, SLICE("tokens_out"), x->tap.has_usage ? x->tap.tokens_out : x->tap.n_events);
	line_bool(&l, SLICE("tokens_estimated"), !x->tap.has_usage && x->tap.n_events > 0);
	line_text(
	    &l, SLICE("reason"), inst ? slice_of(pick_reason_text((enum pick_reason)x->reason)) : SLICE(""));
	line_uint(&l, SLICE("attempts"), x->n_attempts);
	line_text(&l, SLICE("cause"), slice_of(cause_row((enum cause)x->cause)->label));
	journal_put(x->worker, &l);
}

void journal_refused(struct server *server, struct session *session, enum cause cause) {
	struct worker *w = server->context;
	struct line l;
	char room[32];
	unsigned status = cause_row(cause)->status;
	metric_count_request(w->metrics, LABEL_OTHER, LABEL_OTHER, status);
	if (!w->log)
		return;
	journal_begin(&l, worker_make_id(w, room), SLICE(""), SLICE(""));
	line_uint(&l, SLICE("status"), status);
	line_text(&l, SLICE("cause"), slice_of(cause_row(cause)->label));
	journal_put(w, &l);
}
