/*
 * A request's beginning, the driver of its steps, and how long each may wait. The steps
 * are in the files that steps.h names.
 */
#include "router/steps.h"

#include "router/hedge.h"
#include "router/patience.h"
#include "router/proof.h"
#include "router/resume.h"
#include "router/split.h"
#include "router/submission.h"

/* A client that takes less of its answer, or sends less of its body, in a deadline's time is too slow. */
#define WRITE_STEP_BYTES 4096u
#define BODY_STEP_BYTES  16384u
#define HUNGRY_RETRY_MS  10u

static void exchange_run(struct job *job);

enum next exchange_fail(struct exchange *x, enum cause cause) {
	if (x->resume) {
		if (resume_again(x, cause))
			return NEXT;
		cause = resume_give_up(x, cause);
	}
	bool is_gone = cause == CAUSE_CLIENT_GONE || cause == CAUSE_CLIENT_STALLED;
	x->cause = (uint8_t)cause;
	(x->step == STEP_SUBMIT ? submission_leave : proof_leave)(x);
	turn_leave(x, cause);
	return exchange_go(x, is_gone || x->down.out_has_begun ? STEP_SETTLE : STEP_REFUSE);
}

bool exchange_is_last(const struct exchange *x, const struct session *session) {
	return session_is_last(session) ||
	    atomic_load_explicit(&x->worker->router->is_leaving, memory_order_relaxed);
}

/* --- the driver ---------------------------------------------------------------- */

typedef enum next (*step_fn)(struct exchange *x);

static const struct {
	step_fn run;
	const char *name;
} steps[] = {
	[STEP_BEGIN] = { step_begin, "begin" },
	[STEP_VERIFY] = { step_verify, "verify" },
	[STEP_ADMIT] = { step_admit, "admit" },
	[STEP_LOCAL] = { step_local, "local" },
	[STEP_SUBMIT] = { step_submit, "submit" },
	[STEP_INSPECT] = { step_inspect, "inspect" },
	[STEP_QUEUE] = { step_queue, "queue" },
	[STEP_PICK] = { step_pick, "pick" },
	[STEP_CONNECT] = { step_connect, "connect" },
	[STEP_SEND] = { step_send, "send" },
	[STEP_AWAIT_HEAD] = { step_await_head, "await_head" },
	[STEP_COLLECT] = { step_collect, "collect" },
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

/* A byte now and then is no progress: a body that drips holds a place, and memory. */
static uint64_t body_steps(const struct exchange *x) {
	return x->down.in_bytes / BODY_STEP_BYTES;
}

/* Time in which this process stood still was not the client's: it begins anew. */
static struct deadline body_deadline(const struct exchange *x) {
	return (struct deadline){ exchange_timeouts(x)->body_idle_ms, CAUSE_BODY_TIMEOUT,
		body_steps(x) + x->worker->resumed_ms };
}

static struct deadline exchange_deadline(const struct exchange *x) {
	const struct router_timeouts *t = exchange_timeouts(x);
	if (call_pending(&x->down))
		return (struct deadline){ t->write_idle_ms, CAUSE_CLIENT_STALLED,
			x->down.conn->sent_bytes / WRITE_STEP_BYTES };
	switch ((enum exchange_step)x->step) {
	case STEP_VERIFY:
		return (struct deadline){ proof_patience_ms(x), CAUSE_KEY_UNVERIFIED, 0 };
	case STEP_INSPECT:
		return body_deadline(x);
	case STEP_SUBMIT: /* the control thread has deadlines of its own for what it does */
		if (!petition_is_sent(x->petition))
			return body_deadline(x);
		return (struct deadline){ .cause = CAUSE_FIRST_BYTE_TIMEOUT };
	case STEP_QUEUE:
		return (struct deadline){ x->turn.ends_ms -
			    u64_min(x->turn.ends_ms, loop_now_ms(&x->worker->loop)) + 1,
			(enum cause)x->turn.late_cause, 0 };
	case STEP_CONNECT:
		return (struct deadline){ t->connect_ms, CAUSE_CONNECT_TIMEOUT,
			(uint64_t)x->n_attempts << 32 | x->n_addresses };
	case STEP_COLLECT:
		return (struct deadline){ t->stream_idle_ms, CAUSE_FIRST_BYTE_TIMEOUT, x->up.in_bytes };
	case STEP_BACK_OFF:
		return (struct deadline){ x->backoff_ms, CAUSE_UPSTREAM_REFUSED, x->n_sends };
	case STEP_RELAY:
		return (struct deadline){ t->stream_idle_ms, CAUSE_STREAM_STALLED,
			x->up.in_bytes + body_steps(x) };
	default:
		break;
	}
	if (!x->up.out_is_done && !x->is_upload_broken && !call_pending(&x->up))
		return body_deadline(x);
	bool applies = t->first_byte_all || x->inspect.is_streamed || split_is_prefilling(x);
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
	    x->step == STEP_RELAY && x->cause ? 0 : exchange_timeouts(x)->total_ms; /* a refusal is out */
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

/* A stream whose instance has brought no content yet; of one that goes on another one may have. */
static bool is_unspoken(const struct exchange *x) {
	bool is_resumed = x->resume && x->resume->continuation.is_resumed;
	return !x->at.first_token || (is_resumed && !x->resume->has_spoken);
}

bool exchange_is_streaming(const struct exchange *x, uint64_t *silent_ms_out) {
	return is_engines_turn(x, silent_ms_out) && x->step == STEP_RELAY && x->tap.kind == TAP_EVENTS &&
	    !is_unspoken(x);
}

bool exchange_is_waiting(const struct exchange *x, uint64_t *silent_ms_out) {
	bool has_empty_head = x->step == STEP_RELAY && x->tap.kind == TAP_EVENTS && is_unspoken(x);
	return is_engines_turn(x, silent_ms_out) && (x->step == STEP_AWAIT_HEAD || has_empty_head) &&
	    !x->n_interim && x->model->name.n;
}

/* The deadline passed. Connecting, and legs of pairs, may go on elsewhere, all else ends here. */
static enum next on_late(struct exchange *x) {
	enum cause cause = (enum cause)x->wait_cause;
	if (x->step == STEP_CONNECT && cause == CAUSE_CONNECT_TIMEOUT)
		return attempt_unconnected(x, cause);
	if (x->step == STEP_BACK_OFF && cause == CAUSE_UPSTREAM_REFUSED) /* the wait is over */
		return exchange_go(x, STEP_PICK);
	if (cause == CAUSE_FIRST_BYTE_TIMEOUT && split_may_repeat(x))
		return attempt_lost(x, cause);
	if (cause == CAUSE_BODY_TIMEOUT &&
	    buf_is_over_budget(exchange_bufs(x))) /* it is us who do not read */
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
	if (x->step == STEP_QUEUE || x->step == STEP_CONNECT)
		end_ms = u64_min(end_ms, patience_due_ms(x));
	if (x->step == STEP_AWAIT_HEAD)
		end_ms = u64_min(end_ms, hedge_due_ms(x));
	end_ms = u64_min(end_ms, u64_max(split_due_ms(x), now_ms));
	if (x->step == STEP_RELAY)
		end_ms = u64_min(end_ms, answer_heartbeat_ms(x));
	if (buf_is_over_budget(exchange_bufs(x))) /* looks again soon: others may have given back */
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
	if (exchange_config(x)->half_close == ROUTER_HALF_CLOSE_ABORT)
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
	exchange_go(x, STEP_SETTLE);
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
	x->path_n = (uint8_t)path.n;
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
	x->settings = worker_settings(w);
	x->head = head_copy(&w->loop.bufs, head);
	keep_text(x, head);
	x->dialect = (uint8_t)reply_dialect((enum reply_dialect)server->dialect, head_path(head));
	x->is_head = head->method == METHOD_HEAD;
	x->is_repeatable = x->is_head || head->method == METHOD_GET || head->method == METHOD_OPTIONS;
	x->ends_connection = exchange_is_last(x, session);
	x->keeps_replay = true;
	session_take(session, &x->down, &x->job, head);
	return &x->job;
}
