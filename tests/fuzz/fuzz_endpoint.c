/*
 * fuzz_endpoint: a client of a program's own endpoints says anything; what it gets is the same however its
 * words are cut, and nothing of it is left. The first byte says how they are cut.
 */
#include "virtual/fake_net.h"

#include "base/clock.h"
#include "http/endpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { BODY_MAX = 200 };

static struct buf_budget budget = { .max_bytes = 8u << 20 };
static struct loop loop;
static struct endpoint_server server;

static json_t *text_of(struct slice s) {
	json_t *text = s.p ? json_stringn(s.p, s.n) : json_null();
	return text ? text : json_string("no UTF-8");
}

/* All that a row may ask of its call. */
static void run_echo(struct endpoint_call *c) {
	char room[ENDPOINT_PEER_BYTES];
	json_t *query = text_of(endpoint_query(c, "a"));
	endpoint_answer_json(c, 200,
	    json_pack("{s:o, s:o, s:o, s:o, s:b, s:b}", "name", text_of(endpoint_param(c)), "query", query,
		"body", text_of(endpoint_body(c)), "peer", text_of(endpoint_peer(c, room)), "good",
		endpoint_query_is_good(c), "here", endpoint_is_local(c)));
}

static void run_error(struct endpoint_call *c) {
	struct slice name = endpoint_param(c);
	endpoint_answer_error(c, 503, "overloaded", "'%.*s' cannot", (int)name.n, name.p);
}

static void on_gone(void *owner) {}

static void run_events(struct endpoint_call *c) {
	static const char event[] = "data: 1\n\n";
	endpoint_keep(c, on_gone, NULL);
	if (!endpoint_wants_events(c)) {
		endpoint_answer_text(c, 406, NULL, SLICE(""));
		return;
	}
	endpoint_stream_begin(c, "text/event-stream");
	bool is_taken = endpoint_stream_put(c, (struct piece){ event, sizeof(event) - 1, NULL });
	endpoint_stream_end(c, !is_taken);
}

static const struct endpoint rows[] = {
	{ METHOD_GET, "/things", .run = run_echo },
	{ METHOD_GET, "/things/{name}", .run = run_echo },
	{ METHOD_POST, "/things", .run = run_echo, .body_bytes_max = BODY_MAX },
	{ METHOD_PUT, "/things/{name}", .run = run_echo, .body_bytes_max = BODY_MAX, .writes = true },
	{ METHOD_DELETE, "/things/{name}", .run = run_echo, .writes = true },
	{ METHOD_GET, "/error/{name}", .run = run_error },
	{ METHOD_GET, "/events", .run = run_events },
};

static void set_up(void) {
	net.now_ns = 1000000000u;
	clock_set_source(net_clock);
	int r = loop_init(&loop, &budget);
	assert(r == 0);
	struct peer *listener = net_peer_new(-1);
	listener->link = PEER_UP;
	r = endpoint_server_open(&server, &loop, listener->fd, rows, n_elems(rows), NULL, "token");
	assert(r == 0);
}

static void turn(void) {
	net_poll();
	loop_turn(&loop);
	while (!list_is_empty(&loop.ready))
		loop_turn(&loop);
	net_end_turn();
}

/* What a client gets that says `text` in steps, closes its side, and lets time pass until the server is done
 * with it. */
static struct bytes *answers(struct slice text, size_t step) {
	struct peer *p = net_client();
	for (size_t at = 0; at < text.n; at += step) {
		peer_say(p, slice_head(slice_skip(text, at), step));
		turn();
	}
	peer_says(p, "\r\n\r\n"); /* a part of a line may be judged, or waited with */
	turn();
	peer_finish(p);
	for (unsigned i = 0; !p->was_closed; i++) {
		assert(i < 1000);
		turn();
		net.now_ns += 1000000000u;
	}
	turn();
	assert(atomic_load(&server.server.n_sessions) == 0 && list_is_empty(&server.active));
	assert(server.bodies_bytes == 0);
	return &p->got;
}

/* An invitation is for who has not sent its body yet. */
static void drop_invitations(struct bytes *got) {
	static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
	const size_t n_line = sizeof(line) - 1;
	char *at;
	while (got->n && (at = memmem(got->p, got->n, line, n_line))) {
		memmove(at, at + n_line, got->n - n_line - (size_t)(at - got->p));
		got->n -= n_line;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (n < 2 || n > 4096)
		return 0;
	if (!server.rows)
		set_up();
	struct slice text = { (const char *)data + 1, n - 1 };
	net_reset();
	struct bytes *whole = answers(text, text.n), *cut = answers(text, data[0] + 1u);
	drop_invitations(whole);
	drop_invitations(cut);
	if (!slice_eq(bytes_slice(whole), bytes_slice(cut))) {
		fprintf(stderr, "whole: %.*s\ncut: %.*s\n", (int)whole->n, whole->p, (int)cut->n, cut->p);
		abort();
	}
	return 0;
}
