#include "unit/discovery/far_engine.h"

#include "discovery/fetch.h"

enum { TIMEOUT_MS = 5000, BODY_BYTES_MAX = 1000 };

struct scene {
	struct rig rig;
	struct far_engine engine;
	struct fetch fetch;
	unsigned n_calls, status;
	int outcome;
	size_t n;
	char body[BODY_BYTES_MAX];
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
	rig_close(&s->rig);
	far_close(&s->engine);
	clock_set_source(NULL);
	free(s);
}

static void scene_start(struct scene *s) {
	fetch_start(&s->fetch, &s->rig.loop, &s->engine.address, SLICE("engine:8000"), SLICE("/v1/models"));
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

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_asks_as_a_client_should),
		cmocka_unit_test(an_answer_may_come_in_any_framing),
		cmocka_unit_test(what_is_no_answer_says_why),
		cmocka_unit_test(interim_answers_have_a_limit),
		cmocka_unit_test(a_body_has_a_limit),
		cmocka_unit_test(silence_has_a_limit),
		cmocka_unit_test(a_refusal_is_a_failed_connect),
		cmocka_unit_test(what_cannot_begin_is_a_failed_connect),
		cmocka_unit_test(a_connect_without_end_is_a_failed_connect),
		cmocka_unit_test(what_is_cancelled_is_not_heard_of),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
