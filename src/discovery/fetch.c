#include "discovery/fetch.h"

#include "base/version.h"

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
};

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

static void fetch_end(struct fetch_link *l, unsigned status) {
	struct fetch *f = l->fetch;
	struct slice body = { l->body, l->body_bytes };
	char *text = l->body;
	l->body = NULL;
	fetch_link_close(l);
	f->on_done(f, status, status ? body : (struct slice){ NULL, 0 });
	free(text);
}

void fetch_init(struct fetch *f, uint64_t timeout_ms, size_t body_bytes_max, fetch_fn on_done) {
	*f = (struct fetch){ .on_done = on_done, .timeout_ms = timeout_ms, .body_bytes_max = body_bytes_max };
}

void fetch_cancel(struct fetch *f) {
	if (f->link)
		fetch_link_close(f->link);
}

static bool fetch_keep(struct fetch_link *l, const struct call_in *in) {
	if (l->body_bytes + in->bytes > l->fetch->body_bytes_max)
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
		if (r == 0 && room.head.status >= 200)
			l->status = room.head.status;
		return r;
	}
	struct call_in in;
	int r = call_recv(&l->call, LOOP_READ_BYTES, &in);
	if (r)
		return r;
	return fetch_keep(l, &in) ? 0 : CALL_E_BAD;
}

static void fetch_run(struct job *job) {
	struct fetch_link *l = container_of(job, struct fetch_link, job);
	int r = 0;
	if (l->conn.state == CONN_CONNECTING && !l->conn.is_broken)
		return;
	while (r == 0 && !(l->status && call_is_received(&l->call)))
		r = fetch_receive(l);
	if (r != CALL_E_AGAIN)
		fetch_end(l, r == 0 ? l->status : 0);
}

static void fetch_on_timer(struct timer *t) {
	fetch_end(container_of(t, struct fetch_link, timer), 0);
}

void fetch_start(struct fetch *f, struct loop *loop, const struct sockaddr_storage *address,
    struct slice authority, struct slice path) {
	assert(!f->link);
	struct fetch_link *l = calloc(1, sizeof(*l));
	job_init(&l->job, fetch_run);
	timer_init(&l->timer, fetch_on_timer);
	if (conn_connect(&l->conn, loop, (const struct sockaddr *)address, &l->job, fetch_on_closed) < 0) {
		free(l);
		f->on_done(f, 0, (struct slice){ NULL, 0 });
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
