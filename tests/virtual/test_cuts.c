/* Engines that die in the middle of an answer: what the client sees must not look complete. */
#include "virtual/expect.h"

struct stream {
	const char *path, *body; /* of the request */
	const char *events;
	const char *error; /* how the event that tells of the cut begins */
};

static const struct stream streams[] = {
	{ CHAT, STREAMED,
	    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
	    ": comment\n\n"
	    "data: {\"choices\":[{\"delta\":{\"content\":\"\\n\\n\"}}]}\r\n\r\n"
	    "data: [DONE]\n\n",
	    "data: {\"error\":{" },
	{ "/v1/messages", STREAMED,
	    "event: message_start\ndata: {\"type\":\"message_start\"}\n\n"
	    "event: ping\ndata: {\"type\": \"ping\"}\n\n"
	    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n"
	    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
	    "event: error\ndata: {\"type\":\"error\"" },
	{ "/v1/responses", STREAMED,
	    "event: response.created\ndata: {\"type\":\"response.created\"}\n\n"
	    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\"}\n\n"
	    "event: response.incomplete\ndata: {\"type\":\"response.incomplete\"}\n\n",
	    "event: response.failed\ndata: {\"type\":\"response.failed\"" },
};

/* Behind an empty line, by the letter of the event stream's grammar: LF or CRLF. */
static bool is_boundary(const char *events, size_t n) {
	if (n == 0 || events[n - 1] != '\n')
		return n == 0;
	return (n >= 2 && events[n - 2] == '\n') ||
	    (n >= 3 && events[n - 2] == '\r' && events[n - 3] == '\n');
}

/* The engine dies behind n bytes of the events. */
static void cut_stream(const struct stream *s, size_t n, bool breaks, bool at_once) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, s->path, s->body), *engine = net_newest(0);
	char line[24];
	peer_says(engine, SSE_HEAD);
	if (!at_once)
		world_settle(w);
	snprintf(line, sizeof(line), "%zx\r\n", strlen(s->events));
	peer_says(engine, line);
	peer_say(engine, slice_head(slice_of(s->events), n));
	if (!at_once)
		world_settle(w);
	(breaks ? peer_break : peer_close)(engine);
	world_settle(w);

	struct parsed m = expect_message(client, PARSED_RESPONSE);
	assert_false(m.is_whole);
	assert_true(client->was_shut || client->was_closed);
	struct slice body = bytes_slice(&m.body);
	if (!slice_has_prefix(body, slice_head(slice_of(s->events), n)))
		fail_msg("%zu bytes were not passed: \"%.*s\"", n, (int)body.n, body.p);
	body = slice_skip(body, n);
	if (!is_boundary(s->events, n))
		assert_int_equal(body.n, 0);
	else if (!slice_has_prefix(body, slice_of(s->error)) ||
	    !slice_eq(slice_skip(body, body.n - 2), SLICE("\n\n")))
		fail_msg("cut behind %zu bytes, \"%.*s\" follows", n, (int)body.n, body.p);
	parsed_deinit(&m);
	expect_closed(engine);
	expect_logged(w, 200, "stream_broken");
	assert_int_equal(metric_read(&w->worker.metrics->streams_broken), 1);
	expect_end(w, 1);
}

static void test_stream_cut_at_every_byte(void **state) {
	for (size_t i = 0; i < n_elems(streams); i++)
		for (size_t n = 0; n <= strlen(streams[i].events); n++)
			for (unsigned how = 0; how < 4; how++)
				cut_stream(&streams[i], n, how & 1, how & 2);
}

static void test_error_event_is_json(void **state) {
	for (size_t i = 0; i < n_elems(streams); i++) {
		struct world *w = WORLD("m");
		struct peer *client = post(w, streams[i].path, streams[i].body), *engine = net_newest(0);
		say(w, engine, SSE_HEAD);
		peer_close(engine);
		world_settle(w);
		struct parsed m = expect_message(client, PARSED_RESPONSE);
		assert_true(m.body.n > 2);
		m.body.p[m.body.n - 1] = '\0';
		json_t *data = json_loads(strstr(m.body.p, "data: ") + 6, 0, NULL);
		assert_non_null(data);
		assert_true(parsed_has(bytes_slice(&m.body), "\"upstream_failed\""));
		json_decref(data);
		parsed_deinit(&m);
		expect_end(w, 1);
	}
}

/* --- answers that cannot carry an event -------------------------------------------------- */

/* Cut behind n bytes of this answer; the client must not have a complete one. */
static void cut_answer_text(const char *request, const char *answer, size_t n, bool breaks) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, request), *engine = net_newest(0);
	bool has_head = n >= (size_t)(strstr(answer, "\r\n\r\n") + 4 - answer);
	peer_say(engine, slice_head(slice_of(answer), n));
	world_settle(w);
	(breaks ? peer_break : peer_close)(engine);
	world_settle(w);
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	if (!has_head) { /* nothing of it was passed */
		assert_int_equal(m.status, 502);
		assert_true(m.is_whole);
	} else {
		assert_int_equal(m.status, 200);
		assert_false(m.is_whole);
		assert_false(parsed_has(bytes_slice(&m.body), "error"));
		assert_true(client->was_shut || client->was_closed);
		expect_logged(w, 200, "stream_broken");
	}
	parsed_deinit(&m);
	expect_end(w, 1);
}

#define POST_X "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"

static void test_answers_cut_at_every_byte(void **state) {
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
		"12\r\n\r\n{\"a\":\"bcde\"}",
		"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 12\r\n\r\ndata: "
		"{}\n\n\n\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nx-t: "
		"1\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
		"transfer-encoding: chunked\r\n\r\n4\r\n\x1f\x8b\n\n\r\n0\r\n\r\n",
	};
	for (size_t i = 0; i < n_elems(answers); i++)
		for (size_t n = 0; n < strlen(answers[i]); n++)
			for (unsigned breaks = 0; breaks < 2; breaks++)
				cut_answer_text(POST_X, answers[i], n, breaks);
}

/* An HTTP/1.0 client knows the end by that of the connection alone: the cut must be a reset. */
static void test_http10_sees_a_reset(void **state) {
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: "
		"chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	};
	for (size_t i = 0; i < n_elems(answers); i++)
		for (size_t n = (size_t)(strstr(answers[i], "\r\n\r\n") + 4 - answers[i]);
		     n < strlen(answers[i]); n++) {
			struct world *w = WORLD("m");
			struct peer *client = ask(w, "POST /x HTTP/1.0\r\ncontent-length: 0\r\n\r\n");
			struct peer *engine = net_newest(0);
			peer_say(engine, slice_head(slice_of(answers[i]), n));
			world_settle(w);
			peer_close(engine);
			world_settle(w);
			expect_closed(client);
			assert_true(client->was_reset);
			expect_end(w, 1);
		}
}

/* What an engine ends by closing is complete when it closes in order, and cut when it breaks. */
static void test_close_delimited_answer_that_breaks(void **state) {
	static const char *const requests[] = { POST_X, "POST /x HTTP/1.0\r\ncontent-length: 0\r\n\r\n" };
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = WORLD("m");
		struct peer *client = ask(w, requests[i]), *engine = net_newest(0);
		say(w, engine, "HTTP/1.1 200 OK\r\n\r\nabc");
		peer_break(engine);
		world_settle(w);
		expect_cut(client, "abc");
		assert_int_equal(client->was_reset, i == 1);
		expect_end(w, 1);
	}
}

/* --- ends that are none ---------------------------------------------------------------------- */

/* What an engine says and ends in order. */
struct ended {
	const char *path;
	const char *events;
	bool has_end; /* as its dialect ends a stream */
};

static const struct ended ends[] = {
	{ CHAT, "data: {\"choices\":[{}]}\n\n", false },
	{ CHAT, "data: {\"choices\":[{}]}\n\ndata: [DONE]\n\n", true },
	{ "/v1/messages", "event: message_delta\ndata: {\"type\":\"message_delta\"}\n\n", false },
	{ "/v1/messages", "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true },
	{ "/v1/responses", "data: {\"type\":\"response.in_progress\"}\n\n", false },
	{ "/v1/responses", "data: {\"type\":\"response.completed\"}\n\n", true },
	{ "/v1/responses", "data: {\"type\":\"response.incomplete\"}\n\n", true },
	{ "/v1/responses", "data: {\"type\":\"response.failed\"}\n\n", true },
};

static void test_stream_without_an_end_is_passed_and_counted(void **state) {
	struct world *w = WORLD("m");
	unsigned n_endless = 0;
	for (size_t i = 0; i < n_elems(ends); i++) {
		struct peer *client = post(w, ends[i].path, STREAMED), *engine = net_newest(0);
		say(w, engine, SSE_HEAD);
		say_chunk(w, engine, ends[i].events);
		say(w, engine, "0\r\n\r\n");
		expect_answer(client, 200, ends[i].events);
		n_endless += !ends[i].has_end;
		if (metric_read(&w->worker.metrics->stream_no_done) != n_endless)
			fail_msg("counted %s: %s", ends[i].has_end ? "though ended" : "not", ends[i].events);
	}
	assert_int_equal(metric_read(&w->worker.metrics->streams_broken), 0);
	expect_end(w, n_elems(ends));
}

/* The client's upload was still going on: its answer is cut all the same, and so is the upload. */
static void test_engine_dies_in_both_directions(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, 100, "{\"a\":"), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	say(w, client, "1");
	peer_close(engine);
	peer_says(client, ",");
	world_settle(w);
	expect_cut(client, NULL);
	expect_closed(engine);
	expect_end(w, 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream_cut_at_every_byte),
		cmocka_unit_test(test_error_event_is_json),
		cmocka_unit_test(test_answers_cut_at_every_byte),
		cmocka_unit_test(test_http10_sees_a_reset),
		cmocka_unit_test(test_close_delimited_answer_that_breaks),
		cmocka_unit_test(test_stream_without_an_end_is_passed_and_counted),
		cmocka_unit_test(test_engine_dies_in_both_directions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
