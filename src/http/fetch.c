#include "http/fetch.h"

#include <errno.h>

#include "base/version.h"

#define INTERIM_MAX  64u /* 1xx heads: each is a turn in the same run of the job */
#define RECEIVES_MAX 16u /* of a stream in one run of the job: others want to run as well */

/* Outlives its fetch until libuv has let go of the connection. */
struct fetch_link {
	struct conn conn;
	struct job job;
	struct timer timer;
	struct fetch *fetch; /* NULL: cancelled or done */
	struct call call;
	char *body;
	size_t body_bytes;
	unsigned status; /* 0 until the head has come */
	unsigned n_interim;
	uint64_t started_ms;
	bool is_head; /* HEAD was asked for: no body follows */
	bool is_open; /* connected, and its timer knows */
	bool is_late; /* the timer has run out */
	bool is_too_large;
};

const char *fetch_outcome_text(enum fetch_outcome outcome) {
	static const char *const texts[] = {
		[FETCH_E_CONNECT] = "connect failed",
		[FETCH_E_TIMEOUT] = "timed out",
		[FETCH_E_BROKEN] = "connection ended",
		[FETCH_E_MALFORMED] = "not valid HTTP/1.1",
		[FETCH_E_TOO_LARGE] = "too large",
		[FETCH_E_TLS] = "TLS handshake failed",
		[FETCH_E_LOCAL] = "no descriptor, memory or port of our own",
	};
	assert(outcome > 0 && outcome < n_elems(texts));
	return texts[outcome];
}

static void fetch_on_closed(struct conn *c) {
	struct fetch_link *l = container_of(c, struct fetch_link, conn);
	free(l->body);
	free(l);
}

static void fetch_link_close(struct fetch_link *l) {
	l->fetch->link = NULL;
	l->fetch = NULL;
	job_cancel(&l->job);
	timer_stop(&l->timer);
	call_deinit(&l->call);
	conn_close(&l->conn);
}

static void fetch_end(struct fetch_link *l, int outcome) {
	struct fetch *f = l->fetch;
	unsigned status = outcome ? 0 : l->status;
	struct slice body = { l->body, outcome ? 0 : l->body_bytes };
	char *text = l->body;
	l->body = NULL;
	f->failure = conn_tls_failure(&l->conn);
	fetch_link_close(l);
	f->on_done(f, outcome, status, body);
	free(text);
}

static bool fetch_is_connecting(const struct fetch_link *l) {
	return l->conn.state == CONN_CONNECTING;
}

void fetch_init(struct fetch *f, uint64_t timeout_ms, size_t body_bytes_max, fetch_fn on_done) {
	*f = (struct fetch){ .on_done = on_done, .timeout_ms = timeout_ms, .body_bytes_max = body_bytes_max };
}

void fetch_cancel(struct fetch *f) {
	assert(!f->attempt);
	if (f->link)
		fetch_link_close(f->link);
}

/* --- receiving ---------------------------------------------------------------------- */

static bool fetch_is_stream(const struct fetch_link *l) {
	return l->fetch->on_part && l->status == 200;
}

static bool fetch_keep(struct fetch_link *l, const struct call_in *in) {
	l->is_too_large = in->bytes > l->fetch->body_bytes_max - l->body_bytes;
	if (l->is_too_large)
		return false;
	l->body = realloc(l->body, l->body_bytes + in->bytes + 1);
	for (size_t i = 0; i < in->n; i++) {
		memcpy(l->body + l->body_bytes, in->pieces[i].p, in->pieces[i].n);
		l->body_bytes += in->pieces[i].n;
	}
	return true;
}

/* Until it is cancelled by who hears it. */
static void fetch_tell(struct fetch_link *l, const struct call_in *in) {
	for (size_t i = 0; i < in->n && l->fetch; i++)
		l->fetch->on_part(l->fetch, (struct slice){ in->pieces[i].p, in->pieces[i].n });
}

/* It has spoken: silence begins afresh. */
static void fetch_heard(struct fetch_link *l) {
	l->is_late = false;
	timer_stop(&l->timer);
	loop_timer(l->conn.loop, &l->timer, l->fetch->timeout_ms);
}

static int fetch_receive_head(struct fetch_link *l) {
	struct head_room room;
	int r = call_recv_head(&l->call, &room, l->is_head ? METHOD_HEAD : METHOD_GET);
	if (r)
		return r;
	l->fetch->has_retry_after = head_find(&room.head, FIELD_RETRY_AFTER).p;
	if (room.head.status >= 200)
		l->status = room.head.status;
	else if (++l->n_interim > INTERIM_MAX)
		return CALL_E_BAD;
	if (fetch_is_stream(l))
		fetch_heard(l);
	return 0;
}

/* One step of receiving: 0 to go on, CALL_E_AGAIN, or how it ended. */
static int fetch_receive(struct fetch_link *l) {
	struct call_in in;
	if (!l->status)
		return fetch_receive_head(l);
	int r = call_recv(&l->call, LOOP_READ_BYTES, &in);
	if (r)
		return r;
	if (!fetch_is_stream(l))
		return fetch_keep(l, &in) ? 0 : CALL_E_BAD;
	fetch_heard(l);
	fetch_tell(l, &in);
	return 0;
}

static enum fetch_outcome fetch_failure(const struct fetch_link *l, int r) {
	if (conn_tls_failure(&l->conn))
		return FETCH_E_TLS;
	if (fetch_is_connecting(l))
		return FETCH_E_CONNECT;
	if (r == CALL_E_AGAIN)
		return FETCH_E_TIMEOUT;
	if (l->is_too_large)
		return FETCH_E_TOO_LARGE;
	return r == CALL_E_BAD ? FETCH_E_MALFORMED : FETCH_E_BROKEN;
}

/* The connection is open: what is left of the time is for the answer. */
static void fetch_opened(struct fetch_link *l) {
	uint64_t passed_ms = loop_now_ms(l->conn.loop) - l->started_ms;
	l->is_open = true;
	l->is_late = false;
	timer_stop(&l->timer);
	loop_timer(l->conn.loop, &l->timer, l->fetch->timeout_ms - u64_min(passed_ms, l->fetch->timeout_ms));
}

static void fetch_run(struct job *job) {
	struct fetch_link *l = container_of(job, struct fetch_link, job);
	int r = CALL_E_AGAIN;
	unsigned n = 0;
	if (!fetch_is_connecting(l) && !l->is_open)
		fetch_opened(l);
	if (!fetch_is_connecting(l) || l->conn.is_broken)
		r = 0;
	while (r == 0 && !(l->status && call_is_received(&l->call))) {
		if (l->status && fetch_is_stream(l) && n++ == RECEIVES_MAX) {
			loop_wake(l->conn.loop, &l->job);
			return;
		}
		r = fetch_receive(l);
		if (!l->fetch) /* cancelled by who heard a part */
			return;
	}
	if (r != CALL_E_AGAIN || l->is_late)
		fetch_end(l, r == 0 ? 0 : (int)fetch_failure(l, r));
}

/* What has come in time, but was not looked at yet, still counts: the job decides. */
static void fetch_on_timer(struct timer *t) {
	struct fetch_link *l = container_of(t, struct fetch_link, timer);
	l->is_late = true;
	loop_wake(l->conn.loop, &l->job);
}

/* --- asking ------------------------------------------------------------------------- */

/* Kept by the connection until it is open. */
static int fetch_ask(struct fetch_link *l, const struct fetch_request *q) {
	struct call_out o;
	bool may_have_body = slice_eq(q->method, SLICE("POST")) || slice_eq(q->method, SLICE("PUT"));
	call_init(&l->call, &l->conn, FRAMING_NONE, 0);
	call_begin(&o, &l->call);
	call_put_request_line(&o, q->method.n ? q->method : SLICE("GET"), q->base, q->path);
	call_put_field(&o, SLICE("host"), q->authority);
	call_put_field(&o, SLICE("accept"), q->accept.n ? q->accept : SLICE("application/json"));
	call_put_field(&o, SLICE("user-agent"), SLICE("headrace/" HEADRACE_VERSION));
	if (q->bearer.n) {
		call_put_text(&o, SLICE("authorization: Bearer "));
		call_put_text(&o, q->bearer);
		call_put_text(&o, SLICE("\r\n"));
	}
	if (q->fields.n)
		call_put_text(&o, q->fields);
	if (q->body.p)
		call_put_field(&o, SLICE("content-type"), SLICE("application/json"));
	call_put_field(&o, SLICE("connection"), SLICE("close"));
	if (q->body.p || may_have_body) {
		call_put_head_end(&o, FRAMING_LENGTH, q->body.n);
		call_put_data(&o, &(struct piece){ q->body.p, q->body.n, NULL }, 1);
	} else {
		call_put_head_end(&o, FRAMING_NONE, 0);
	}
	return call_flush(&o);
}

/* Nothing could be opened: whose fault is that? */
static enum fetch_outcome fetch_refusal(int error) {
	switch (error) {
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
	case EADDRNOTAVAIL:
		return FETCH_E_LOCAL;
	default:
		return FETCH_E_CONNECT;
	}
}

/* A connection that is on its way, NULL when there is none, for the reason in *r_out. */
static struct fetch_link *fetch_connect(struct loop *loop, const struct sockaddr_storage *address,
    const struct fetch_request *request, int *r_out) {
	struct tls *tls = request->tls_host && loop->tls ? tls_connect(loop->tls, request->tls_host) : NULL;
	if (request->tls_host && !tls) {
		*r_out = -ENOMEM;
		return NULL;
	}
	struct fetch_link *l = calloc(1, sizeof(*l));
	job_init(&l->job, fetch_run);
	timer_init(&l->timer, fetch_on_timer);
	*r_out = conn_connect(&l->conn, loop, (const struct sockaddr *)address, &l->job, fetch_on_closed);
	if (*r_out < 0) {
		tls_free(&tls);
		free(l);
		return NULL;
	}
	if (tls)
		conn_secure(&l->conn, tls);
	return l;
}

void fetch_start(struct fetch *f, struct loop *loop, const struct sockaddr_storage *address,
    const struct fetch_request *request) {
	assert(!f->link);
	int r;
	struct fetch_link *l = fetch_connect(loop, address, request, &r);
	if (!l) {
		f->on_done(f, (int)fetch_refusal(-r), 0, (struct slice){ NULL, 0 });
		return;
	}
	f->link = l;
	l->fetch = f;
	l->is_head = slice_eq(request->method, SLICE("HEAD"));
	loop_timer(loop, &l->timer, u64_min(f->timeout_ms, FETCH_CONNECT_MS));
	l->started_ms = loop_now_ms(loop);
	if (fetch_ask(l, request))
		loop_wake(loop, &l->job);
}
