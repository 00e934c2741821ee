#include "discovery/fetch.h"

#include "base/version.h"

#define INTERIM_MAX 64u /* 1xx heads: each is a turn in the same run of the job */

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
	bool is_too_large;
};

const char *fetch_outcome_text(enum fetch_outcome outcome) {
	static const char *const texts[] = {
		[FETCH_E_CONNECT] = "connect failed",
		[FETCH_E_TIMEOUT] = "timed out",
		[FETCH_E_BROKEN] = "connection ended",
		[FETCH_E_MALFORMED] = "not valid HTTP/1.1",
		[FETCH_E_TOO_LARGE] = "too large",
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
	if (f->link)
		fetch_link_close(f->link);
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

/* One step of receiving: 0 to go on, CALL_E_AGAIN, or how it ended. */
static int fetch_receive(struct fetch_link *l) {
	if (!l->status) {
		struct head_room room;
		int r = call_recv_head(&l->call, &room, METHOD_GET);
		if (r)
			return r;
		if (room.head.status >= 200)
			l->status = room.head.status;
		else if (++l->n_interim > INTERIM_MAX)
			return CALL_E_BAD;
		return 0;
	}
	struct call_in in;
	int r = call_recv(&l->call, LOOP_READ_BYTES, &in);
	if (r)
		return r;
	return fetch_keep(l, &in) ? 0 : CALL_E_BAD;
}

static enum fetch_outcome fetch_failure(const struct fetch_link *l, int r) {
	if (fetch_is_connecting(l))
		return FETCH_E_CONNECT;
	if (l->is_too_large)
		return FETCH_E_TOO_LARGE;
	return r == CALL_E_BAD ? FETCH_E_MALFORMED : FETCH_E_BROKEN;
}

static void fetch_run(struct job *job) {
	struct fetch_link *l = container_of(job, struct fetch_link, job);
	int r = 0;
	if (fetch_is_connecting(l) && !l->conn.is_broken)
		return;
	while (r == 0 && !(l->status && call_is_received(&l->call)))
		r = fetch_receive(l);
	if (r != CALL_E_AGAIN)
		fetch_end(l, r == 0 ? 0 : (int)fetch_failure(l, r));
}

static void fetch_on_timer(struct timer *t) {
	struct fetch_link *l = container_of(t, struct fetch_link, timer);
	fetch_end(l, fetch_is_connecting(l) ? FETCH_E_CONNECT : FETCH_E_TIMEOUT);
}

void fetch_start(struct fetch *f, struct loop *loop, const struct sockaddr_storage *address,
    struct slice authority, struct slice path) {
	assert(!f->link);
	struct fetch_link *l = calloc(1, sizeof(*l));
	job_init(&l->job, fetch_run);
	timer_init(&l->timer, fetch_on_timer);
	if (conn_connect(&l->conn, loop, (const struct sockaddr *)address, &l->job, fetch_on_closed) < 0) {
		free(l);
		f->on_done(f, FETCH_E_CONNECT, 0, (struct slice){ NULL, 0 });
		return;
	}
	f->link = l;
	l->fetch = f;
	loop_timer(loop, &l->timer, f->timeout_ms);

	struct call_out o;
	call_init(&l->call, &l->conn, FRAMING_NONE, 0);
	call_begin(&o, &l->call);
	call_put_request_line(&o, SLICE("GET"), path);
	call_put_field(&o, SLICE("host"), authority);
	call_put_field(&o, SLICE("accept"), SLICE("application/json"));
	call_put_field(&o, SLICE("user-agent"), SLICE("headrace/" HEADRACE_VERSION));
	call_put_field(&o, SLICE("connection"), SLICE("close"));
	call_put_head_end(&o, FRAMING_NONE, 0);
	if (call_flush(&o)) /* kept until the connection is open */
		loop_wake(loop, &l->job);
}
