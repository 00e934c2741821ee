#include "unit/net/rig.h"

#include <arpa/inet.h>

#include "http/reply.h"
#include "http/server.h"
#include "unit/net/certs.h"

/* --- a handler that says what it heard ------------------------------------------------ */

enum { ECHO_BYTES_MAX = 65536 };

/* One request: its first line, body and trailer, said back in the framing in which it came. */
struct echo {
	struct call call;
	struct job job;
	struct house *house;
	struct reply reply;
	bool is_chunked, is_early;
	size_t n;
	char text[ECHO_BYTES_MAX];
};

struct house {
	struct rig rig;
	struct server server;
	struct client_budget budget;
	uint16_t port;
	unsigned n_begun, n_gone, n_refused;
	enum cause refused;
	struct echo *at_work;
	bool aborts;  /* every request ends by a reset */
	bool is_slow; /* the answer waits until house_go_on() */
};

static void echo_add(struct echo *e, struct slice text) {
	assert_true(e->n + text.n <= ECHO_BYTES_MAX);
	memcpy(e->text + e->n, text.p, text.n);
	e->n += text.n;
}

static void echo_end(struct echo *e, bool keep) {
	e->house->at_work = NULL;
	session_next(&e->call, keep);
	free(e);
}

static void echo_answer(struct echo *e) {
	struct head_room trailer;
	struct call_out o;
	struct piece body = { e->text, e->n, NULL };
	e->reply.closes |= session_is_last(session_of(&e->call));
	if (e->is_chunked) {
		bool has = call_trailer(&e->call, &trailer);
		call_begin(&o, &e->call);
		call_put_status_line(&o, 200);
		call_put_head_end(&o, FRAMING_CHUNKED, 0);
		call_put_data(&o, &body, 1);
		call_put_end(&o, has ? &trailer.head : NULL);
		assert_int_equal(call_flush(&o), 0);
	} else {
		e->reply.body = (struct slice){ e->text, e->n };
		assert_int_equal(reply_send(&e->call, &e->reply), 0);
	}
	echo_end(e, !e->reply.closes);
}

static void echo_run(struct job *job) {
	struct echo *e = container_of(job, struct echo, job);
	struct house *h = e->house;
	struct call_in in = { .is_end = e->is_early };
	int r = 0;
	if (h->aborts) {
		h->at_work = NULL;
		session_abort(&e->call, true);
		free(e);
		return;
	}
	while (r == 0 && !in.is_end) {
		r = call_recv(&e->call, 1000, &in);
		for (size_t i = 0; r == 0 && i < in.n; i++)
			echo_add(e, (struct slice){ in.pieces[i].p, in.pieces[i].n });
	}
	if (r == CALL_E_GONE) {
		h->n_gone++;
		h->at_work = NULL;
		session_abort(&e->call, true);
		free(e);
	} else if (r == CALL_E_BAD) {
		e->reply.closes = true;
		assert_int_equal(reply_refuse(&e->call, &e->reply, CAUSE_MALFORMED, NULL, REPLY_OPENAI), 0);
		echo_end(e, false);
	} else if (r == 0 && !h->is_slow) {
		echo_answer(e);
	}
}

static struct job *echo_begin(struct server *server, struct session *session, const struct head *head) {
	struct house *h = server->context;
	struct echo *e = calloc(1, sizeof(*e));
	h->n_begun++;
	h->at_work = e;
	e->house = h;
	e->reply.status = 200;
	e->is_chunked = head->framing == FRAMING_CHUNKED;
	e->is_early = slice_eq(head_path(head), SLICE("/early"));
	reply_follow(&e->reply, head, false);
	echo_add(e, head_method(head));
	echo_add(e, SLICE(" "));
	echo_add(e, head_target(head));
	echo_add(e, SLICE("\n"));
	job_init(&e->job, echo_run);
	session_take(session, &e->call, &e->job, head);
	return &e->job;
}

static void echo_refused(
    struct server *server, const struct head *head, enum cause cause, struct reply *reply) {
	struct house *h = server->context;
	h->n_refused++;
	h->refused = cause;
	reply->request_id = SLICE("refused-1");
}

/* --- the house ------------------------------------------------------------------------ */

static const struct server_limits patient = { .head_ms = 60000, .keepalive_ms = 60000 };

static struct house *house_open(const struct server_limits *limits) {
	static const struct server_handler handler = { .begin = echo_begin, .refused = echo_refused };
	struct house *h = calloc(1, sizeof(*h));
	h->budget.n_max = 100;
	rig_open(&h->rig);
	int fd = rig_listen(&h->port);
	assert_int_equal(server_open(&h->server, &h->rig.loop, fd, &h->budget, limits, &handler, h), 0);
	return h;
}

static void house_close(struct house *h) {
	server_close(&h->server);
	assert_int_equal(h->server.n_sessions, 0);
	assert_int_equal(h->budget.n_open, 0);
	rig_close(&h->rig);
	server_deinit(&h->server);
	free(h);
}

static void house_go_on(struct house *h) {
	h->is_slow = false;
	loop_wake(&h->rig.loop, &h->at_work->job);
}

/* The client hears just this, and the connection stays open. */
static void assert_hears(struct house *h, int fd, const char *text) {
	struct heard heard = { .n = 0 };
	rig_listen_to(&h->rig, fd, &heard, strlen(text));
	if (!slice_eq(rig_heard(&heard), slice_of(text)))
		fail_msg("heard \"%.*s\", not \"%s\"", (int)heard.n, heard.p, text);
	assert_false(heard.is_ended || heard.is_reset);
	heard_free(&heard);
}

/* An answer whose head begins with this comes, and then the end in order. */
static void assert_last_words(struct house *h, int fd, const char *text) {
	struct heard heard = { .n = 0 };
	rig_listen_to(&h->rig, fd, &heard, SIZE_MAX);
	if (!slice_has_prefix(rig_heard(&heard), slice_of(text)) || heard.is_reset)
		fail_msg("heard \"%.*s\"%s, not \"%s\"", (int)heard.n, heard.p,
		    heard.is_reset ? " and a reset" : "", text);
	heard_free(&heard);
}

#define OK_WITH(length, text) "HTTP/1.1 200 OK\r\ncontent-length: " #length "\r\n\r\n" text

/* --- requests and answers --------------------------------------------------------------- */

static void a_connection_serves_many(void **state) {
	struct house *h = house_open(&patient);
	int fd = rig_connect(h->port);
	rig_say(fd, SLICE("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(h, fd, OK_WITH(7, "GET /a\n"));
	assert_int_equal(h->server.n_sessions, 1);
	assert_int_equal(h->budget.n_open, 1);
	rig_say(fd, SLICE("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"));
	assert_hears(h, fd, OK_WITH(12, "POST /b\nbody"));
	rig_say(fd, SLICE("HEAD /c HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(h, fd, OK_WITH(8, ""));
	close(fd);
	rig_until(&h->rig, h->server.n_sessions == 0);
	assert_int_equal(h->budget.n_open, 0);
	assert_int_equal(h->n_begun, 3);
	house_close(h);
}

static void what_is_pipelined_waits_its_turn(void **state) {
	struct house *h = house_open(&patient);
	int fd = rig_connect(h->port);
	h->is_slow = true;
	rig_say(fd,
	    SLICE("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"
		  "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
		  "\r\nPOST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"
		  "GET /4 HTTP/1.1\r\nHost: x\r\n\r\nGET /5 HT"));
	rig_until(&h->rig, h->n_begun);
	rig_spin(&h->rig, 5);
	assert_int_equal(h->n_begun, 1);
	house_go_on(h);
	assert_hears(h, fd,
	    OK_WITH(7, "GET /1\n")
		OK_WITH(10, "POST /2\nab") "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nPOST "
					   "/3\nc\r\n0\r\n\r\n" OK_WITH(7, "GET /4\n"));
	rig_say(fd, SLICE("TP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(h, fd, OK_WITH(7, "GET /5\n"));
	assert_int_equal(h->n_begun, 5);
	close(fd);
	house_close(h);
}

/* At every place, and in single bytes; an empty line before the request line is no matter (RFC 9112
 * section 2.2). */
static void a_request_may_come_in_two_parts(void **state) {
	static const struct slice texts[] = { SLICE("\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n"),
		SLICE("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc") };
	static const char *const answers[] = { OK_WITH(7, "GET /a\n"), OK_WITH(11, "POST /a\nabc") };
	struct house *h = house_open(&patient);
	for (size_t t = 0; t < n_elems(texts); t++) {
		int fd = rig_connect(h->port);
		for (size_t n = 1; n < texts[t].n; n++) {
			rig_say(fd, slice_head(texts[t], n));
			rig_spin(&h->rig, 2);
			rig_say(fd, slice_skip(texts[t], n));
			assert_hears(h, fd, answers[t]);
		}
		for (size_t n = 0; n < texts[t].n; n++) {
			rig_say(fd, (struct slice){ texts[t].p + n, 1 });
			rig_spin(&h->rig, 2);
		}
		assert_hears(h, fd, answers[t]);
		close(fd);
	}
	house_close(h);
}

static void chunks_and_trailers_go_both_ways(void **state) {
	struct house *h = house_open(&patient);
	int fd = rig_connect(h->port);
	rig_say(fd,
	    SLICE("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		  "3;ext\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nX-Sum: 42\r\nHost: evil\r\n\r\n"));
	assert_hears(h, fd,
	    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
	    "19\r\nPUT /\nabc0123456789abcdef\r\n0\r\nX-Sum: 42\r\n\r\n");
	close(fd);
	house_close(h);
}

static void large_heads_fit(void **state) {
	static char text[70000];
	struct house *h = house_open(&patient);
	int fd = rig_connect(h->port);
	size_t n = (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: x\r\na: ");
	memset(text + n, 'y', HEAD_BYTES_MAX - 4 - n);
	memcpy(text + HEAD_BYTES_MAX - 4, "\r\n\r\n", 4);
	for (size_t at = 0; at < HEAD_BYTES_MAX; at += 9999) {
		rig_say(fd, slice_head((struct slice){ text + at, HEAD_BYTES_MAX - at }, 9999));
		rig_spin(&h->rig, 2);
	}
	assert_hears(h, fd, OK_WITH(6, "GET /\n"));
	assert_int_equal(rig_lent(&h->rig), 0); /* an idle connection holds nothing */
	close(fd);
	house_close(h);
}

/* --- ends ------------------------------------------------------------------------------- */

static void bad_heads_are_refused(void **state) {
	static const struct {
		const char *text, *answer;
		enum cause cause;
	} rows[] = {
		{ "garbage\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", CAUSE_MALFORMED },
		{ "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", CAUSE_MALFORMED },
		{ "GET / HTTP/1.1\nHost: x\n\n", "HTTP/1.1 400 Bad Request\r\n", CAUSE_MALFORMED },
		{ "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n",
		    CAUSE_MALFORMED },
		{ "GET / HTTP/3.0\r\n", "HTTP/1.1 505 HTTP Version Not Supported\r\n", CAUSE_VERSION },
		{ "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 501 Not Implemented\r\n", CAUSE_METHOD },
		{ "GET / HTTP/1.1\r\nHost: x\r\nExpect: no\r\n\r\n", "HTTP/1.1 417 Expectation Failed\r\n",
		    CAUSE_EXPECTATION },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct house *h = house_open(&patient);
		int fd = rig_connect(h->port);
		rig_say(fd, SLICE("GET /good HTTP/1.1\r\nHost: x\r\n\r\n"));
		assert_hears(h, fd, OK_WITH(10, "GET /good\n"));
		rig_say(fd, slice_of(rows[i].text));
		assert_last_words(h, fd, rows[i].answer);
		assert_int_equal(h->n_refused, 1);
		assert_int_equal(h->refused, rows[i].cause);
		assert_int_equal(h->n_begun, 1);
		close(fd);
		rig_until(&h->rig, h->server.n_sessions == 0);
		house_close(h);
	}
}

/* As far as the head was read, the refusal is what its client expects. */
static void a_refusal_follows_what_was_read(void **state) {
	static const struct {
		const char *text, *answer;
	} rows[] = {
		{ "POST /v1/messages HTTP/1.1\r\nHost: x\r\nbad\r\n\r\n",
		    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-request-id: "
		    "refused-1\r\n"
		    "connection: close\r\ncontent-length: 124\r\n\r\n{\"type\":\"error\"," },
		{ "POST /v1/chat HTTP/1.1\r\nHost: x\r\nbad\r\n\r\n",
		    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-request-id: "
		    "refused-1\r\n"
		    "connection: close\r\ncontent-length: 122\r\n\r\n{\"error\":{" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct house *h = house_open(&patient);
		int fd = rig_connect(h->port);
		rig_say(fd, slice_of(rows[i].text));
		assert_last_words(h, fd, rows[i].answer);
		close(fd);
		house_close(h);
	}
}

/* Whatever is wrong with its head: once HEAD was read, a body would be taken for the next answer. */
static void a_refusal_of_head_has_no_body(void **state) {
	static const struct {
		const char *text, *answer;
	} rows[] = {
		{ "HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n" },
		{ "HEAD / HTTP/1.1\r\nHost: x\r\nbad\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n" },
		{ "HEAD x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n" },
		{ "HEAD / HTTP/3.0\r\n", "HTTP/1.1 505 HTTP Version Not Supported\r\n" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct heard heard = { .n = 0 };
		struct house *h = house_open(&patient);
		int fd = rig_connect(h->port);
		rig_say(fd, slice_of(rows[i].text));
		rig_listen_to(&h->rig, fd, &heard, SIZE_MAX);
		assert_true(slice_has_prefix(rig_heard(&heard), slice_of(rows[i].answer)));
		const char *end = memmem(heard.p, heard.n, "\r\n\r\n", 4);
		assert_ptr_equal(end, heard.p + heard.n - 4);
		assert_non_null(memmem(heard.p, heard.n, "\r\ncontent-length: 1", 19)); /* of what GET gets */
		heard_free(&heard);
		close(fd);
		house_close(h);
	}
}

static void a_head_that_is_too_large_is_refused(void **state) {
	static char text[HEAD_BYTES_MAX];
	struct house *h = house_open(&patient);
	int fd = rig_connect(h->port);
	memset(text, 'x', sizeof(text));
	memcpy(text, "GET / HTTP/1.1\r\na: ", 19);
	for (size_t at = 0; at < sizeof(text); at += 6000) {
		assert_int_equal(h->n_refused, 0);
		rig_say(fd, slice_head((struct slice){ text + at, sizeof(text) - at }, 6000));
		rig_spin(&h->rig, 2);
	}
	assert_last_words(h, fd, "HTTP/1.1 431 ");
	close(fd);
	house_close(h);
}

/* Who still speaks when the answer is there must not lose it to a reset. */
static void the_answer_survives_unread_input(void **state) {
	static const char *const heads[] = { "bad head\r\n\r\n",
		"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nbad" };
	static char text[60000];
	for (size_t i = 0; i < n_elems(heads); i++) {
		struct house *h = house_open(&patient);
		int fd = rig_connect(h->port);
		rig_say(fd, slice_of(heads[i]));
		for (unsigned k = 0; k < 5; k++) {
			rig_say(fd, (struct slice){ text, sizeof(text) });
			rig_spin(&h->rig, 2);
		}
		assert_last_words(h, fd, i == 1 ? OK_WITH(12, "POST /early\n") : "HTTP/1.1 400 ");
		assert_int_equal(h->server.n_sessions, 1); /* waits for the client's end */
		close(fd);
		rig_until(&h->rig, h->server.n_sessions == 0);
		house_close(h);
	}
}

static void who_sends_for_ever_is_cut(void **state) {
	static char text[60000];
	struct house *h = house_open(&patient);
	int fd = rig_connect(h->port);
	rig_say(fd, SLICE("bad head\r\n\r\n"));
	rig_until(&h->rig, h->n_refused);
	size_t n = 0;
	for (ssize_t r = 0; h->server.n_sessions; n += r > 0 ? (size_t)r : 0) {
		r = send(fd, text, sizeof(text), MSG_NOSIGNAL | MSG_DONTWAIT);
		rig_spin(&h->rig, 1);
	}
	assert_in_range(n, 1u << 20, 8u << 20);
	close(fd);
	house_close(h);
}

static void a_client_may_leave_at_any_time(void **state) {
	static const char text[] = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab";
	struct house *h = house_open(&patient);
	for (size_t n = 0; n < sizeof(text); n += 3) {
		for (unsigned reset = 0; reset < 2; reset++) {
			int fd = rig_connect(h->port);
			rig_say(fd, (struct slice){ text, n });
			rig_until(&h->rig, h->server.n_sessions);
			rig_spin(&h->rig, 2);
			if (reset)
				rig_reset(fd);
			else
				close(fd);
			rig_until(&h->rig, h->server.n_sessions == 0);
		}
	}
	assert_int_equal(h->n_refused, 0);
	assert_int_equal(h->n_gone, h->n_begun);
	house_close(h);
}

static void an_abort_is_a_reset(void **state) {
	struct heard heard = { .n = 0 };
	struct house *h = house_open(&patient);
	int fd = rig_connect(h->port);
	h->aborts = true;
	rig_say(fd, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
	rig_listen_to(&h->rig, fd, &heard, SIZE_MAX);
	assert_true(heard.is_reset && heard.n == 0);
	heard_free(&heard);
	close(fd);
	house_close(h);
}

static void close_is_obeyed(void **state) {
	static const char *const texts[] = {
		"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\n",
		"GET / HTTP/1.0\r\n\r\n"
	};
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct house *h = house_open(&patient);
		int fd = rig_connect(h->port);
		rig_say(fd, slice_of(texts[i]));
		assert_last_words(
		    h, fd, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nGET /\n");
		assert_int_equal(h->n_begun, 1);
		close(fd);
		house_close(h);
	}
}

/* --- time ------------------------------------------------------------------------------- */

static void a_slow_head_times_out(void **state) {
	static const struct server_limits limits = { .head_ms = 20, .keepalive_ms = 60000 };
	struct house *h = house_open(&limits);
	int silent = rig_connect(h->port), slow = rig_connect(h->port);
	rig_say(slow, SLICE("GET / HTTP/1.1\r\n"));
	assert_last_words(h, slow, "HTTP/1.1 408 Request Timeout\r\n");
	assert_int_equal(h->refused, CAUSE_HEAD_TIMEOUT);
	assert_last_words(h, silent, "");
	assert_int_equal(h->n_refused, 1); /* silence is no request */

	int fd = rig_connect(h->port);
	rig_say(fd, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\nG"));
	assert_hears(h, fd, OK_WITH(6, "GET /\n"));
	assert_last_words(h, fd, "HTTP/1.1 408 ");
	close(silent);
	close(slow);
	close(fd);
	house_close(h);
}

/* It is the time of the whole head that counts, not of each byte. */
static void a_dripping_head_times_out(void **state) {
	static const struct server_limits limits = { .head_ms = 30, .keepalive_ms = 60000 };
	struct house *h = house_open(&limits);
	int fd = rig_connect(h->port);
	rig_say(fd, SLICE("GET / HTTP/1.1\r\n"));
	while (!h->n_refused) {
		ssize_t n = send(fd, "a: b\r\n", 6, MSG_NOSIGNAL | MSG_DONTWAIT);
		(void)n;
		rig_spin(&h->rig, 1);
	}
	assert_true(h->refused == CAUSE_HEAD_TIMEOUT || h->refused == CAUSE_HEAD_TOO_LARGE);
	close(fd);
	house_close(h);
}

static void an_idle_connection_ends(void **state) {
	static const struct server_limits limits = { .head_ms = 60000, .keepalive_ms = 20 };
	struct house *h = house_open(&limits);
	int fd = rig_connect(h->port);
	rig_say(fd, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(h, fd, OK_WITH(6, "GET /\n"));
	assert_last_words(h, fd, "");
	assert_int_equal(h->n_refused, 0);
	close(fd);
	house_close(h);
}

static uint64_t fake_ns;

static uint64_t fake_source(void) {
	return fake_ns;
}

/* The first client after a quiet time has its whole deadline before it. */
static void a_loop_that_slept_serves_the_next_client(void **state) {
	static const struct server_limits limits = { .head_ms = 3000, .keepalive_ms = 3000 };
	fake_ns = 1000000000;
	clock_set_source(fake_source);
	struct house *h = house_open(&limits);
	rig_spin(&h->rig, 1);
	fake_ns += 4000000000;
	int fd = rig_connect(h->port);
	rig_say(fd, SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
	rig_spin(&h->rig, 20);
	unsigned n_begun = h->n_begun;
	close(fd);
	clock_set_source(NULL);
	house_close(h);
	assert_int_equal(n_begun, 1);
}

/* --- stopping ----------------------------------------------------------------------------- */

static void a_drain_lets_requests_finish(void **state) {
	struct house *h = house_open(&patient);
	int idle = rig_connect(h->port), fresh = rig_connect(h->port), busy = rig_connect(h->port);
	rig_say(idle, SLICE("GET /i HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(h, idle, OK_WITH(7, "GET /i\n"));
	h->is_slow = true;
	rig_say(busy, SLICE("GET /b HTTP/1.1\r\nHost: x\r\n\r\n"));
	rig_until(&h->rig, h->n_begun == 2 && h->server.n_sessions == 3);
	int queued = rig_connect(h->port); /* in the backlog: is served, too */

	server_drain(&h->server);
	server_drain(&h->server);
	assert_int_equal(h->server.n_sessions, 3);
	assert_last_words(h, idle, "");
	house_go_on(h);
	assert_last_words(h, busy, "HTTP/1.1 200 OK\r\nconnection: close\r\n");
	rig_say(fresh, SLICE("GET /f HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_last_words(h, fresh, "HTTP/1.1 200 OK\r\nconnection: close\r\n");
	rig_say(queued, SLICE("GET /q HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_last_words(h, queued, "HTTP/1.1 200 OK\r\nconnection: close\r\n");
	assert_int_equal(h->n_begun, 4);
	int all[] = { idle, fresh, busy, queued };
	for (size_t i = 0; i < n_elems(all); i++)
		close(all[i]);
	rig_until(&h->rig, h->server.n_sessions == 0);
	house_close(h);
}

/* Requests that crossed the drain: no event has told of them when idle clients are closed. */
static void a_drain_answers_what_has_just_come(void **state) {
	struct house *h = house_open(&patient);
	int fds[] = { rig_connect(h->port), rig_connect(h->port), rig_connect(h->port) };
	for (size_t i = 0; i < n_elems(fds); i++) {
		rig_say(fds[i], SLICE("GET /i HTTP/1.1\r\nHost: x\r\n\r\n"));
		assert_hears(h, fds[i], OK_WITH(7, "GET /i\n"));
	}
	rig_say(fds[0], SLICE("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"));
	rig_say(fds[2], SLICE("GET /b HTTP/1.1\r\n"));
	server_drain(&h->server);
	assert_last_words(h, fds[0], "HTTP/1.1 200 OK\r\nconnection: close\r\n");
	assert_last_words(h, fds[1], "");
	rig_say(fds[2], SLICE("Host: x\r\n\r\n"));
	assert_last_words(h, fds[2], "HTTP/1.1 200 OK\r\nconnection: close\r\n");
	for (size_t i = 0; i < n_elems(fds); i++)
		close(fds[i]);
	rig_until(&h->rig, h->server.n_sessions == 0);
	house_close(h);
}

/* A client that came just before the end and says nothing: it has a second, in the backlog or not. */
static void who_never_asks_does_not_hold_a_drain_up(void **state) {
	fake_ns = 1000000000;
	clock_set_source(fake_source);
	struct house *h = house_open(&patient);
	int fresh = rig_connect(h->port);
	rig_until(&h->rig, h->server.n_sessions == 1);
	rig_spin(&h->rig, 3);
	int queued = rig_connect(h->port);
	server_drain(&h->server);
	assert_int_equal(h->server.n_sessions, 2);
	rig_spin(&h->rig, 3);
	unsigned n_at_once = h->server.n_sessions;
	fake_ns += 1000000000;
	rig_spin(&h->rig, 3);
	unsigned n_later = h->server.n_sessions;
	house_close(h);
	clock_set_source(NULL);
	close(fresh);
	close(queued);
	assert_int_equal(n_at_once, 2);
	assert_int_equal(n_later, 0);
}

static void a_close_ends_everybody(void **state) {
	struct house *h = house_open(&patient);
	int fresh = rig_connect(h->port), half = rig_connect(h->port), bad = rig_connect(h->port);
	rig_say(half, SLICE("GET / HT"));
	rig_say(bad, SLICE("bad\r\n"));
	rig_until(&h->rig, h->server.n_sessions == 3 && h->n_refused);
	rig_spin(&h->rig, 3);
	house_close(h);
	close(fresh);
	close(half);
	close(bad);
}

static void peers_have_addresses(void **state) {
	static const char *const addresses[] = { "1.2.3.4", "255.255.255.255", "0.0.0.0", "127.0.0.1", "::1",
		"fe80::1:2", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255" };
	for (size_t i = 0; i < n_elems(addresses); i++) {
		struct session s = { .peer.sa.sa_family = strchr(addresses[i], ':') ? AF_INET6 : AF_INET };
		char room[46], text[46];
		void *at = s.peer.sa.sa_family == AF_INET6 ? (void *)&s.peer.in6.sin6_addr
							   : (void *)&s.peer.in.sin_addr;
		assert_int_equal(inet_pton(s.peer.sa.sa_family, addresses[i], at), 1);
		assert_non_null(inet_ntop(s.peer.sa.sa_family, at, text, sizeof(text)));
		assert_true(slice_eq(session_peer(&s, room), slice_of(text)));
	}
}

static void ask_once(struct house *h, int client) {
	unsigned n = h->n_begun;
	rig_say(client, SLICE("GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
	rig_until(&h->rig, h->n_begun == n + 1 && !h->at_work);
}

static void at_the_end_all_are_told(void **state) {
	struct house *h = house_open(&patient);
	int idle = rig_connect(h->port), half = rig_connect(h->port);
	char reply[512] = { 0 };
	ask_once(h, idle);
	rig_say(half, SLICE("GET / HTTP/1.1\r\n"));
	rig_until(&h->rig, !list_is_empty(&h->server.sessions[SESSION_HEAD]));
	server_end(&h->server);
	assert_int_equal(h->refused, CAUSE_STOPPING);
	rig_until(&h->rig, recv(half, reply, sizeof(reply) - 1, MSG_DONTWAIT) > 0);
	assert_non_null(strstr(reply, "HTTP/1.1 503 "));
	assert_non_null(strstr(reply, "being stopped"));
	close(half);
	close(idle);
	rig_until(&h->rig, h->server.n_sessions == 0);
	house_close(h);
}

/* --- several doors -------------------------------------------------------------------------- */

static void clients_come_by_each_door(void **state) {
	struct house *h = house_open(&patient);
	uint16_t other;
	assert_int_equal(server_listen(&h->server, rig_listen(&other)), 0);
	int clients[] = { rig_connect(h->port), rig_connect(other) };
	for (unsigned i = 0; i < n_elems(clients); i++)
		ask_once(h, clients[i]);
	assert_int_equal(h->server.n_sessions, 2);
	assert_int_equal(h->budget.n_open, 2);
	close(clients[0]);
	close(clients[1]);
	house_close(h);
}

static void a_place_is_found_by_each_door(void **state) {
	struct house *h = house_open(&patient);
	uint16_t other;
	h->budget.n_max = 1;
	assert_int_equal(server_listen(&h->server, rig_listen(&other)), 0);
	int first = rig_connect(h->port);
	ask_once(h, first);
	int second = rig_connect(other);
	rig_spin(&h->rig, 5);
	assert_int_equal(h->server.n_sessions, 1);
	close(first);
	ask_once(h, second);
	assert_int_equal(h->server.n_sessions, 1);
	assert_int_equal(h->budget.n_open, 1);
	close(second);
	house_close(h);
}

static void a_server_without_a_door_waits_for_one(void **state) {
	static const struct server_handler handler = { .begin = echo_begin, .refused = echo_refused };
	struct house *h = calloc(1, sizeof(*h));
	h->budget.n_max = 100;
	rig_open(&h->rig);
	assert_int_equal(server_open(&h->server, &h->rig.loop, -1, &h->budget, &patient, &handler, h), 0);
	assert_int_equal(server_listen(&h->server, rig_listen(&h->port)), 0);
	int client = rig_connect(h->port);
	ask_once(h, client);
	close(client);
	house_close(h);
}

/* Who has been let in is served; somebody else has the socket, and what comes from now on. */
static void a_socket_that_is_left_goes_on_elsewhere(void **state) {
	struct house *h = house_open(&patient);
	uint16_t port;
	int fd = rig_listen(&port), shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(server_listen(&h->server, fd), 0);
	int before = rig_connect(port); /* waits in the queue: it is taken */
	server_leave(&h->server);
	assert_int_equal(h->server.n_sessions, 1);
	int after = rig_connect(port);
	ask_once(h, before);
	ask_once(h, before);
	assert_int_equal(h->server.n_sessions, 1);
	int accepted = rig_accept(shared);
	assert_true(accepted >= 0);
	server_drain(&h->server);
	close(before);
	rig_until(&h->rig, h->server.n_sessions == 0);
	close(after);
	close(accepted);
	close(shared);
	house_close(h);
}

/* --- all places are taken ------------------------------------------------------------------- */

/* A house of n places on a clock of its own; nobody is spared any more once it has turned. */
static struct house *house_of(unsigned n) {
	fake_ns = 1000000000;
	clock_set_source(fake_source);
	struct house *h = house_open(&patient);
	h->budget.n_max = n;
	return h;
}

static int house_let_in(struct house *h) {
	unsigned n = h->server.n_sessions;
	int fd = rig_connect(h->port);
	rig_until(&h->rig, h->server.n_sessions == n + 1);
	return fd;
}

static void house_turn_clock(struct house *h, uint64_t ms) {
	fake_ns += ms * 1000000;
	rig_spin(&h->rig, 5);
}

static void house_leave(struct house *h, const int *fds, size_t n) {
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	rig_until(&h->rig, h->server.n_sessions == 0);
	house_close(h);
	clock_set_source(NULL);
}

static void who_is_idle_for_longest_gives_way(void **state) {
	struct house *h = house_of(3);
	int fds[] = { house_let_in(h), house_let_in(h), house_let_in(h), 0 };
	ask_once(h, fds[0]); /* it came first, and the second has been idle for longer */
	assert_hears(h, fds[0], OK_WITH(6, "GET /\n"));
	house_turn_clock(h, 999);
	fds[3] = rig_connect(h->port);
	rig_spin(&h->rig, 5);
	assert_int_equal(recv(fds[1], &(char){ 0 }, 1, MSG_DONTWAIT), -1); /* it is spared for a second */
	house_turn_clock(h, 200);
	assert_last_words(h, fds[1], "");
	ask_once(h, fds[3]);
	ask_once(h, fds[2]);
	ask_once(h, fds[0]);
	assert_int_equal(h->n_refused, 0);
	assert_int_equal(h->budget.n_open, 3);
	house_leave(h, fds, n_elems(fds));
}

/* Nobody is ended for nobody. */
static void a_full_house_is_left_alone(void **state) {
	struct house *h = house_of(2);
	int fds[] = { house_let_in(h), house_let_in(h) };
	house_turn_clock(h, 30000);
	house_turn_clock(h, 1000);
	assert_int_equal(h->server.n_sessions, 2);
	house_leave(h, fds, n_elems(fds));
}

static void who_sends_a_head_for_longest_is_next(void **state) {
	struct house *h = house_of(3);
	int fds[] = { house_let_in(h), house_let_in(h), house_let_in(h), 0, 0 };
	rig_say(fds[2], SLICE("GET / HTTP/1.1\r\n"));
	house_turn_clock(h, 1);
	rig_say(fds[1], SLICE("GET / HTTP/1.1\r\n"));
	house_turn_clock(h, 2000);
	rig_say(fds[2], SLICE("x: y\r\n")); /* a line more is no request */
	fds[3] = rig_connect(h->port);
	assert_last_words(h, fds[0], ""); /* it has said nothing at all */
	ask_once(h, fds[3]);
	assert_int_equal(h->n_refused, 0);
	fds[4] = rig_connect(h->port);
	assert_last_words(h, fds[2], "HTTP/1.1 408 ");
	assert_int_equal(h->refused, CAUSE_HEAD_TIMEOUT);
	ask_once(h, fds[4]);
	rig_say(fds[1], SLICE("host: a\r\n\r\n"));
	assert_hears(h, fds[1], OK_WITH(6, "GET /\n"));
	house_leave(h, fds, n_elems(fds));
}

/* No event has told of them when somebody else comes. */
static void what_has_just_come_is_answered_instead(void **state) {
	struct house *h = house_of(3);
	int fds[] = { house_let_in(h), house_let_in(h), house_let_in(h), 0 };
	house_turn_clock(h, 2000);
	rig_say(fds[0], SLICE("GET /a HTTP/1.1\r\nhost: x\r\n\r\n"));
	rig_say(fds[1], SLICE("GET /b HTTP/1.1\r\n"));
	loop_wake(&h->rig.loop, &h->server.make_room);
	rig_spin(&h->rig, 1);
	assert_last_words(h, fds[2], "");
	assert_hears(h, fds[0], OK_WITH(7, "GET /a\n"));
	rig_say(fds[1], SLICE("host: x\r\n\r\n"));
	assert_hears(h, fds[1], OK_WITH(7, "GET /b\n"));
	house_leave(h, fds, 3);
}

static void who_is_at_work_is_never_ended(void **state) {
	struct house *h = house_of(2);
	h->is_slow = true;
	int fds[] = { house_let_in(h), house_let_in(h), 0 };
	rig_say(fds[0], SLICE("POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{"));
	rig_say(fds[1], SLICE("bad\r\n\r\n")); /* it has been answered: it lingers */
	rig_until(&h->rig, h->at_work && h->n_refused);
	house_turn_clock(h, 1500);
	fds[2] = rig_connect(h->port);
	rig_until(&h->rig, h->budget.is_awaited); /* perhaps another thread has somebody */
	assert_int_equal(h->server.n_sessions, 2);
	rig_say(fds[0], SLICE("}"));
	h->is_slow = false;
	assert_hears(h, fds[0], OK_WITH(10, "POST /a\n{}"));
	house_turn_clock(h, 500);
	ask_once(h, fds[2]);
	house_leave(h, fds, n_elems(fds));
}

/* Two servers stand for two threads: at the one somebody waits, at the other one everybody is idle. */
static void a_place_is_made_for_another_thread(void **state) {
	struct house *h = house_of(2);
	int fds[] = { house_let_in(h), house_let_in(h) };
	house_turn_clock(h, 2000);
	server_yield(&h->server);
	assert_int_equal(h->server.n_sessions, 2); /* nobody waits */
	h->budget.is_awaited = true;
	server_yield(&h->server);
	assert_int_equal(h->server.n_sessions, 1);
	assert_false(h->budget.is_awaited);
	h->budget.is_awaited = true;
	server_yield(&h->server); /* there is room: it waits no more */
	assert_int_equal(h->server.n_sessions, 1);
	assert_false(h->budget.is_awaited);
	assert_last_words(h, fds[0], "");
	house_leave(h, fds, n_elems(fds));
}

/* --- TLS ----------------------------------------------------------------------------------- */

static void too_many_handshakes_end_the_oldest(void **state) {
	struct house *h = house_open(&patient);
	char why[TLS_WHY_BYTES], byte;
	struct certs certs;
	int fds[4];
	certs_open(&certs);
	const struct cert *a = certs_make(&certs, "a", "DNS:a.example", NULL);
	const struct tls_files files = { a->path, a->path };
	h->server.tls = tls_server_new(
	    &(struct tls_server_files){ .certificates = &files, .n = 1, .client_ca = "" }, why);
	assert_non_null(h->server.tls);
	h->server.n_handshakes_max = 2;
	for (unsigned i = 0; i < n_elems(fds); i++) {
		fds[i] = rig_connect(h->port);
		if (i < 2)
			rig_until(&h->rig, h->server.n_handshakes == i + 1);
		else
			rig_until(&h->rig, recv(fds[i - 2], &byte, 1, MSG_DONTWAIT) == 0);
	}
	assert_int_equal(h->server.n_handshakes, 2);
	assert_int_equal(h->server.n_sessions, 2);
	assert_int_equal(h->budget.n_open, 2);
	for (unsigned i = 0; i < n_elems(fds); i++)
		close(fds[i]);
	tls_server_unref(&h->server.tls);
	certs_close(&certs);
	house_close(h);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connection_serves_many),
		cmocka_unit_test(what_is_pipelined_waits_its_turn),
		cmocka_unit_test(a_request_may_come_in_two_parts),
		cmocka_unit_test(chunks_and_trailers_go_both_ways),
		cmocka_unit_test(large_heads_fit),
		cmocka_unit_test(bad_heads_are_refused),
		cmocka_unit_test(a_refusal_follows_what_was_read),
		cmocka_unit_test(a_refusal_of_head_has_no_body),
		cmocka_unit_test(a_head_that_is_too_large_is_refused),
		cmocka_unit_test(the_answer_survives_unread_input),
		cmocka_unit_test(who_sends_for_ever_is_cut),
		cmocka_unit_test(a_client_may_leave_at_any_time),
		cmocka_unit_test(an_abort_is_a_reset),
		cmocka_unit_test(close_is_obeyed),
		cmocka_unit_test(a_slow_head_times_out),
		cmocka_unit_test(a_dripping_head_times_out),
		cmocka_unit_test(an_idle_connection_ends),
		cmocka_unit_test(a_loop_that_slept_serves_the_next_client),
		cmocka_unit_test(a_drain_lets_requests_finish),
		cmocka_unit_test(a_drain_answers_what_has_just_come),
		cmocka_unit_test(who_never_asks_does_not_hold_a_drain_up),
		cmocka_unit_test(a_close_ends_everybody),
		cmocka_unit_test(peers_have_addresses),
		cmocka_unit_test(at_the_end_all_are_told),
		cmocka_unit_test(clients_come_by_each_door),
		cmocka_unit_test(a_place_is_found_by_each_door),
		cmocka_unit_test(a_server_without_a_door_waits_for_one),
		cmocka_unit_test(a_socket_that_is_left_goes_on_elsewhere),
		cmocka_unit_test(who_is_idle_for_longest_gives_way),
		cmocka_unit_test(a_full_house_is_left_alone),
		cmocka_unit_test(who_sends_a_head_for_longest_is_next),
		cmocka_unit_test(what_has_just_come_is_answered_instead),
		cmocka_unit_test(who_is_at_work_is_never_ended),
		cmocka_unit_test(a_place_is_made_for_another_thread),
		cmocka_unit_test(too_many_handshakes_end_the_oldest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
