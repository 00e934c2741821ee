#include "unit/discovery/far_engine.h"

#include <sys/resource.h>

#include "base/version.h"
#include "http/fetch.h"

enum { TIMEOUT_MS = 5000, BODY_BYTES_MAX = 1000 };

struct scene {
	struct rig rig;
	struct far_engine engine;
	struct fetch fetch;
	unsigned n_calls, status;
	int outcome;
	size_t n;
	char body[BODY_BYTES_MAX];
	struct heard parts; /* all of them */
	unsigned n_parts, n_parts_wanted;
	bool restarts;
};

static void on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct scene *s = container_of(f, struct scene, fetch);
	s->n_calls++;
	s->outcome = outcome;
	s->status = status;
	s->n = body.n;
	if (body.n)
		memcpy(s->body, body.p, body.n);
	assert_false(fetch_is_busy(f));
}

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));
	far_clock_start();
	rig_open(&s->rig);
	far_open(&s->engine);
	fetch_init(&s->fetch, TIMEOUT_MS, BODY_BYTES_MAX, on_done);
	return s;
}

static void scene_close(struct scene *s) {
	heard_free(&s->parts);
	rig_close(&s->rig);
	far_close(&s->engine);
	clock_set_source(NULL);
	free(s);
}

static void scene_start(struct scene *s) {
	const struct fetch_request request = { .authority = SLICE("engine:8000"),
		.path = SLICE("/v1/models") };
	fetch_start(&s->fetch, &s->rig.loop, &s->engine.address, &request);
}

static void assert_fails(struct scene *s, enum fetch_outcome outcome) {
	far_until(&s->rig, s->n_calls);
	assert_string_equal(fetch_outcome_text(s->outcome), fetch_outcome_text(outcome));
	assert_int_equal(s->n_calls, 1);
	assert_int_equal(s->status, 0);
	assert_int_equal(s->n, 0);
}

static void it_asks_as_a_client_should(void **state) {
	struct scene *s = scene_open();
	struct heard heard;
	scene_start(s);
	assert_true(fetch_is_busy(&s->fetch));
	int fd = far_hear(&s->rig, &s->engine, &heard);
	static const char *const fields[] = { "GET /v1/models HTTP/1.1\r\n", "\r\nhost: engine:8000\r\n",
		"\r\naccept: application/json\r\n", "\r\nuser-agent: headrace/",
		"\r\nconnection: close\r\n" };
	for (size_t i = 0; i < n_elems(fields); i++)
		if (!memmem(heard.p, heard.n, fields[i], strlen(fields[i])))
			fail_msg("no \"%s\" in \"%.*s\"", fields[i], (int)heard.n, heard.p);
	heard_free(&heard);
	fetch_cancel(&s->fetch);
	far_await_end(&s->rig, fd);
	scene_close(s);
}

static void an_answer_may_come_in_any_framing(void **state) {
	static const struct {
		const char *text, *body;
		unsigned status;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello", 200 },
		{ "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
		    "hello", 200 },
		{ "HTTP/1.0 200 OK\r\n\r\nhello", "hello", 200 },
		{ "HTTP/1.1 204 No Content\r\n\r\n", "", 204 },
		{ "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", "no", 404 },
		{ "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", "x", 200 },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open();
		scene_start(s);
		far_answer(&s->rig, &s->engine, "/v1/models", slice_of(rows[i].text));
		assert_int_equal(s->n_calls, 1);
		assert_int_equal(s->outcome, 0);
		assert_int_equal(s->status, rows[i].status);
		assert_true(slice_eq((struct slice){ s->body, s->n }, slice_of(rows[i].body)));
		scene_close(s);
	}
}

static void what_is_no_answer_says_why(void **state) {
	static const struct {
		const char *text;
		enum fetch_outcome outcome;
	} rows[] = {
		{ "", FETCH_E_BROKEN },
		{ "HTTP/1.1 200 OK\r\n", FETCH_E_BROKEN },
		{ "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", FETCH_E_BROKEN },
		{ "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", FETCH_E_BROKEN },
		{ "SSH-2.0-OpenSSH_9.2\r\n\r\n", FETCH_E_MALFORMED },
		{ "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhello", FETCH_E_MALFORMED },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open();
		scene_start(s);
		far_answer(&s->rig, &s->engine, "/v1/models", slice_of(rows[i].text));
		assert_fails(s, rows[i].outcome);
		scene_close(s);
	}
}

/* Or one that sends nothing else would keep the thread for as long as it likes. */
static void interim_answers_have_a_limit(void **state) {
	static const char interim[] = "HTTP/1.1 102 Processing\r\n\r\n";
	for (unsigned over = 0; over < 2; over++) {
		struct scene *s = scene_open();
		char text[4096];
		size_t n = 0;
		for (unsigned i = 0; i < 64 + over; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", interim);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "HTTP/1.1 200 OK\r\n\r\nhello");
		scene_start(s);
		far_answer(&s->rig, &s->engine, "/v1/models", (struct slice){ text, n });
		if (over)
			assert_fails(s, FETCH_E_MALFORMED);
		else
			assert_int_equal(s->status, 200);
		scene_close(s);
	}
}

static void a_body_has_a_limit(void **state) {
	for (unsigned i = 0; i < 4; i++) { /* announced and not, at the limit and beyond */
		struct scene *s = scene_open();
		char text[BODY_BYTES_MAX + 200], field[64];
		size_t bytes = BODY_BYTES_MAX + i % 2;
		snprintf(field, sizeof(field), "content-length: %zu\r\n", bytes);
		int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s\r\n", i < 2 ? field : "");
		memset(text + n, 'x', bytes);
		scene_start(s);
		far_answer(&s->rig, &s->engine, "/v1/models", (struct slice){ text, (size_t)n + bytes });
		if (i % 2) {
			assert_fails(s, FETCH_E_TOO_LARGE);
		} else {
			assert_int_equal(s->status, 200);
			assert_int_equal(s->n, BODY_BYTES_MAX);
		}
		scene_close(s);
	}
}

static void silence_has_a_limit(void **state) {
	static const char *const texts[] = { "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nhello" };
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct scene *s = scene_open();
		struct heard heard;
		scene_start(s);
		int fd = far_hear(&s->rig, &s->engine, &heard);
		rig_say(fd, slice_of(texts[i]));
		far_pass(&s->rig, TIMEOUT_MS / 2);
		assert_int_equal(s->n_calls, 0);
		assert_fails(s, FETCH_E_TIMEOUT);
		far_await_end(&s->rig, fd);
		heard_free(&heard);
		scene_close(s);
	}
}

/* Connecting has a limit of its own; what it leaves is for the answer. */
static void an_answer_has_the_rest_of_the_time(void **state) {
	struct scene *s = scene_open();
	struct heard heard;
	s->fetch.timeout_ms = 4 * FETCH_CONNECT_MS;
	uint64_t since_ns = far_now_ns;
	scene_start(s);
	int fd = far_hear(&s->rig, &s->engine, &heard);
	far_pass(&s->rig, 4 * FETCH_CONNECT_MS - 1000);
	assert_int_equal(s->n_calls, 0);
	assert_fails(s, FETCH_E_TIMEOUT);
	assert_in_range(far_now_ns - since_ns, 20000000000, 20500000000);
	far_await_end(&s->rig, fd);
	heard_free(&heard);
	scene_close(s);
}

static void a_refusal_is_a_failed_connect(void **state) {
	struct scene *s = scene_open();
	far_close(&s->engine);
	scene_start(s);
	assert_fails(s, FETCH_E_CONNECT);
	far_open(&s->engine);
	s->n_calls = 0;
	scene_start(s); /* and again */
	far_answer(&s->rig, &s->engine, "/v1/models", SLICE("HTTP/1.1 200 OK\r\n\r\n"));
	assert_int_equal(s->status, 200);
	scene_close(s);
}

/* Nothing was opened: the callback comes from within fetch_start(). */
static void what_cannot_begin_is_a_failed_connect(void **state) {
	struct scene *s = scene_open();
	((struct sockaddr_in *)&s->engine.address)->sin_addr.s_addr = INADDR_BROADCAST;
	scene_start(s);
	assert_int_equal(s->n_calls, 1);
	assert_fails(s, FETCH_E_CONNECT);
	scene_close(s);
}

static void a_shortage_of_our_own_is_nobodys_fault(void **state) {
	struct scene *s = scene_open();
	struct rlimit old, none;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	scene_start(s);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_fails(s, FETCH_E_LOCAL);
	s->n_calls = 0;
	scene_start(s); /* and again */
	far_answer(&s->rig, &s->engine, "/v1/models", SLICE("HTTP/1.1 200 OK\r\n\r\n"));
	assert_int_equal(s->status, 200);
	scene_close(s);
}

/* The kernel drops who comes to a full backlog: the connection never opens. */
static void a_connect_without_end_is_a_failed_connect(void **state) {
	struct scene *s = scene_open();
	int queued[8];
	listen(s->engine.listening, 0);
	for (size_t i = 0; i < n_elems(queued); i++) {
		queued[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		int r = connect(queued[i], (struct sockaddr *)&s->engine.address, sizeof(struct sockaddr_in));
		assert_true(r == 0 || errno == EINPROGRESS);
	}
	scene_start(s);
	far_pass(&s->rig, TIMEOUT_MS / 2);
	assert_int_equal(s->n_calls, 0);
	assert_fails(s, FETCH_E_CONNECT);
	for (size_t i = 0; i < n_elems(queued); i++)
		close(queued[i]);
	scene_close(s);
}

static void what_is_cancelled_is_not_heard_of(void **state) {
	struct scene *s = scene_open();
	int fd;
	fetch_cancel(&s->fetch); /* there is none yet */
	scene_start(s);
	fetch_cancel(&s->fetch);
	assert_false(fetch_is_busy(&s->fetch));
	far_until(&s->rig, (fd = far_accept(&s->engine)) >= 0);
	far_await_end(&s->rig, fd);
	far_pass(&s->rig, 2 * TIMEOUT_MS);
	assert_int_equal(s->n_calls, 0);
	scene_close(s);
}

/* --- other requests than the plain one -------------------------------------------------- */

static void it_says_what_it_is_told_to(void **state) {
	static const struct {
		struct fetch_request request;
		const char *text;
	} rows[] = {
		{ { .method = SLICE("POST"),
		      .path = SLICE("/services"),
		      .body = SLICE("{\"a\":1}"),
		      .bearer = SLICE("secret") },
		    "POST /services HTTP/1.1\r\nhost: engine:8000\r\naccept: application/json\r\n"
		    "user-agent: headrace/" HEADRACE_VERSION "\r\nauthorization: Bearer secret\r\n"
		    "content-type: application/json\r\nconnection: close\r\ncontent-length: "
		    "7\r\n\r\n{\"a\":1}" },
		{ { .method = SLICE("POST"), .path = SLICE("/s"), .body = SLICE("") },
		    "POST /s HTTP/1.1\r\nhost: engine:8000\r\naccept: application/json\r\n"
		    "user-agent: headrace/" HEADRACE_VERSION "\r\ncontent-type: application/json\r\n"
		    "connection: close\r\ncontent-length: 0\r\n\r\n" },
		{ { .method = SLICE("PUT"), .path = SLICE("/s") },
		    "PUT /s HTTP/1.1\r\nhost: engine:8000\r\naccept: application/json\r\n"
		    "user-agent: headrace/" HEADRACE_VERSION
		    "\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" },
		{ { .method = SLICE("DELETE"), .path = SLICE("/s"), .accept = SLICE("*/*") },
		    "DELETE /s HTTP/1.1\r\nhost: engine:8000\r\naccept: */*\r\n"
		    "user-agent: headrace/" HEADRACE_VERSION "\r\nconnection: close\r\n\r\n" },
		{ { .method = SLICE("HEAD"), .path = SLICE("/s") },
		    "HEAD /s HTTP/1.1\r\nhost: engine:8000\r\naccept: application/json\r\n"
		    "user-agent: headrace/" HEADRACE_VERSION "\r\nconnection: close\r\n\r\n" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open();
		struct heard heard;
		struct fetch_request request = rows[i].request;
		request.authority = SLICE("engine:8000");
		fetch_start(&s->fetch, &s->rig.loop, &s->engine.address, &request);
		int fd = far_hear(&s->rig, &s->engine, &heard);
		far_until(&s->rig, (rig_hear(fd, &heard, SIZE_MAX), heard.n >= strlen(rows[i].text)));
		if (!slice_eq(rig_heard(&heard), slice_of(rows[i].text)))
			fail_msg("heard \"%.*s\", not \"%s\"", (int)heard.n, heard.p, rows[i].text);
		bool is_head = slice_eq(request.method, SLICE("HEAD"));
		far_say(&s->rig, fd,
		    is_head ? SLICE("HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\n")
			    : SLICE("HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello"));
		far_until(&s->rig, s->n_calls);
		assert_int_equal(s->outcome, 0);
		assert_int_equal(s->status, 201);
		assert_int_equal(s->n, is_head ? 0 : 5);
		heard_free(&heard);
		far_await_end(&s->rig, fd);
		scene_close(s);
	}
}

/* The texts are the caller's again when fetch_start() is back, however long the body. */
static void a_large_body_goes_out_whole(void **state) {
	struct scene *s = scene_open();
	struct heard heard;
	size_t n = 8 << 20;
	char *body = malloc(n);
	memset(body, 'x', n);
	const struct fetch_request request = {
		.method = SLICE("POST"), .authority = SLICE("x"), .path = SLICE("/"), .body = { body, n }
	};
	fetch_start(&s->fetch, &s->rig.loop, &s->engine.address, &request);
	memset(body, 'y', n);
	free(body);
	int fd = far_hear(&s->rig, &s->engine, &heard);
	size_t head_n = (size_t)((char *)memmem(heard.p, heard.n, "\r\n\r\n", 4) - heard.p) + 4;
	while (heard.n < head_n + n) { /* no time passes meanwhile */
		rig_spin(&s->rig, 1);
		rig_hear(fd, &heard, SIZE_MAX);
	}
	assert_int_equal(heard.n, head_n + n);
	assert_null(memchr(heard.p + head_n, 'y', n));
	far_say(&s->rig, fd, SLICE("HTTP/1.1 204 No Content\r\n\r\n"));
	far_until(&s->rig, s->n_calls);
	assert_int_equal(s->status, 204);
	heard_free(&heard);
	far_await_end(&s->rig, fd);
	scene_close(s);
}

/* --- answers without end ---------------------------------------------------------------- */

#define STREAM "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

static void on_part(struct fetch *f, struct slice part) {
	struct scene *s = container_of(f, struct scene, fetch);
	assert_int_equal(s->n_calls, 0);
	assert_true(part.n > 0);
	s->parts.p = realloc(s->parts.p, s->parts.n + part.n);
	memcpy(s->parts.p + s->parts.n, part.p, part.n);
	s->parts.n += part.n;
	if (++s->n_parts != s->n_parts_wanted)
		return;
	fetch_cancel(f);
	if (s->restarts)
		scene_start(s);
}

static struct scene *scene_open_stream(int *fd_out) {
	struct scene *s = scene_open();
	struct heard heard;
	s->fetch.on_part = on_part;
	scene_start(s);
	*fd_out = far_hear(&s->rig, &s->engine, &heard);
	heard_free(&heard);
	return s;
}

static void a_stream_comes_in_parts(void **state) {
	int fd;
	struct scene *s = scene_open_stream(&fd);
	far_pass(&s->rig, TIMEOUT_MS - 500);
	rig_say(fd, SLICE(STREAM));
	far_pass(&s->rig, TIMEOUT_MS - 100);
	assert_int_equal(s->n_parts, 0);
	for (unsigned i = 1; i <= 5; i++) { /* much longer than the longest silence */
		rig_say(fd, SLICE("3\r\nabc\r\n"));
		far_pass(&s->rig, TIMEOUT_MS - 100);
		assert_int_equal(s->n_parts, i);
	}
	assert_int_equal(s->n_calls, 0);
	far_say(&s->rig, fd, SLICE("1\r\nd\r\n0\r\n\r\n"));
	far_until(&s->rig, s->n_calls);
	assert_int_equal(s->outcome, 0);
	assert_int_equal(s->status, 200);
	assert_int_equal(s->n, 0);
	assert_true(slice_eq(rig_heard(&s->parts), SLICE("abcabcabcabcabcd")));
	far_await_end(&s->rig, fd);
	scene_close(s);
}

static void a_stream_has_no_limit_but_silence(void **state) {
	int fd;
	struct scene *s = scene_open_stream(&fd);
	static char text[100 * BODY_BYTES_MAX];
	rig_say(fd, SLICE("HTTP/1.1 200 OK\r\n\r\n"));
	for (unsigned i = 0; i < 40; i++) {
		for (struct slice rest = { text, sizeof(text) }; rest.n;) {
			ssize_t n = send(fd, rest.p, rest.n, MSG_NOSIGNAL);
			rest = slice_skip(rest, n > 0 ? (size_t)n : 0);
			rig_spin(&s->rig, 1);
		}
	}
	far_pass(&s->rig, TIMEOUT_MS - 100);
	assert_int_equal(s->parts.n, 40 * sizeof(text));
	assert_int_equal(s->n_calls, 0);
	far_pass(&s->rig, 200);
	assert_fails(s, FETCH_E_TIMEOUT);
	far_await_end(&s->rig, fd);
	scene_close(s);
}

/* More of them than are taken in one turn, and no event follows. */
static void many_small_parts_come_all(void **state) {
	int fd;
	struct scene *s = scene_open_stream(&fd);
	char text[8192];
	size_t n = 0;
	for (unsigned i = 0; i < 1000; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "1\r\nx\r\n");
	rig_say(fd, SLICE(STREAM));
	rig_say(fd, (struct slice){ text, n });
	far_pass(&s->rig, 500);
	assert_int_equal(s->parts.n, 1000);
	fetch_cancel(&s->fetch);
	far_await_end(&s->rig, fd);
	scene_close(s);
}

/* What came in time counts, however late it is looked at. */
static void a_late_look_is_no_silence(void **state) {
	int fd;
	struct scene *s = scene_open_stream(&fd);
	rig_say(fd, SLICE(STREAM));
	far_pass(&s->rig, 100);
	rig_say(fd, SLICE("3\r\nabc\r\n"));
	far_now_ns += 10 * (uint64_t)TIMEOUT_MS * 1000000u; /* the process was stopped */
	rig_spin(&s->rig, 4);
	assert_int_equal(s->n_parts, 1);
	assert_int_equal(s->n_calls, 0);
	fetch_cancel(&s->fetch);
	far_await_end(&s->rig, fd);
	scene_close(s);
}

static void only_a_good_answer_has_parts(void **state) {
	int fd;
	struct scene *s = scene_open_stream(&fd);
	far_say(&s->rig, fd, SLICE("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"));
	far_until(&s->rig, s->n_calls);
	assert_int_equal(s->status, 404);
	assert_int_equal(s->n, 2);
	assert_int_equal(s->n_parts, 0);
	far_await_end(&s->rig, fd);
	scene_close(s);
}

static void a_stream_that_breaks_says_so(void **state) {
	static const struct {
		const char *text;
		enum fetch_outcome outcome;
	} rows[] = { { "3\r\nabc\r\n", FETCH_E_BROKEN }, { "3\r\nabc\r\nz", FETCH_E_MALFORMED } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		int fd;
		struct scene *s = scene_open_stream(&fd);
		rig_say(fd, SLICE(STREAM));
		far_say(&s->rig, fd, slice_of(rows[i].text));
		assert_fails(s, rows[i].outcome);
		assert_true(i > 0 || s->n_parts == 1);
		far_await_end(&s->rig, fd);
		scene_close(s);
	}
}

static void who_hears_a_part_may_cancel(void **state) {
	for (unsigned restarts = 0; restarts < 2; restarts++) {
		int fd;
		struct scene *s = scene_open_stream(&fd);
		s->n_parts_wanted = 2;
		s->restarts = restarts;
		rig_say(fd, SLICE(STREAM "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"));
		far_await_end(&s->rig, fd);
		assert_true(slice_eq(rig_heard(&s->parts), SLICE("ab")));
		assert_int_equal(s->n_calls, 0);
		assert_int_equal(fetch_is_busy(&s->fetch), restarts);
		if (restarts) {
			far_answer(&s->rig, &s->engine, "/v1/models", SLICE(STREAM "1\r\nd\r\n0\r\n\r\n"));
			assert_true(slice_eq(rig_heard(&s->parts), SLICE("abd")));
			assert_int_equal(s->n_calls, 1);
		}
		scene_close(s);
	}
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_asks_as_a_client_should),
		cmocka_unit_test(an_answer_may_come_in_any_framing),
		cmocka_unit_test(what_is_no_answer_says_why),
		cmocka_unit_test(interim_answers_have_a_limit),
		cmocka_unit_test(a_body_has_a_limit),
		cmocka_unit_test(silence_has_a_limit),
		cmocka_unit_test(an_answer_has_the_rest_of_the_time),
		cmocka_unit_test(a_refusal_is_a_failed_connect),
		cmocka_unit_test(what_cannot_begin_is_a_failed_connect),
		cmocka_unit_test(a_shortage_of_our_own_is_nobodys_fault),
		cmocka_unit_test(a_connect_without_end_is_a_failed_connect),
		cmocka_unit_test(what_is_cancelled_is_not_heard_of),
		cmocka_unit_test(it_says_what_it_is_told_to),
		cmocka_unit_test(a_large_body_goes_out_whole),
		cmocka_unit_test(a_stream_comes_in_parts),
		cmocka_unit_test(a_stream_has_no_limit_but_silence),
		cmocka_unit_test(many_small_parts_come_all),
		cmocka_unit_test(a_late_look_is_no_silence),
		cmocka_unit_test(only_a_good_answer_has_parts),
		cmocka_unit_test(a_stream_that_breaks_says_so),
		cmocka_unit_test(who_hears_a_part_may_cancel),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
