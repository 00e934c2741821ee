/* How long each wait may take, and what it means when it takes longer. */
#include "virtual/expect.h"

/* Nothing ends before this time has passed. */
static void pass_deadline(struct world *w, const struct peer *client, uint64_t ms) {
	size_t n_before = client->got.n;
	world_pass(w, ms - 1);
	assert_int_equal(client->got.n, n_before);
	assert_false(client->was_closed || client->was_shut);
	world_pass(w, 2);
}

/* --- clients ------------------------------------------------------------------------------- */

static void test_head(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "GET /x HTTP/1.1\r\nhost:");
	pass_deadline(w, client, 1000);
	expect_refusal(client, 408, "client_timeout");
	assert_true(client->was_shut);
	expect_end(w, 1);
}

static void test_head_that_drips(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = net_client();
	for (const char *p = "GET / HTTP/1.1\r\n"; *p && !client->was_shut; p++) {
		peer_say(client, (struct slice){ p, 1 });
		world_pass(w, 150);
	}
	expect_refusal(client, 408, "client_timeout");
	assert_true(net.peers[1].said.n <= 8);
	expect_end(w, 1);
}

static void test_connection_without_a_request(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = net_client();
	world_settle(w);
	pass_deadline(w, client, 1000);
	expect_closed(client);
	expect_nothing(client);
	expect_end(w, 0);
}

static void test_keepalive(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	pass_deadline(w, client, 8000);
	expect_closed(client);
	expect_nothing(client);

	client = ask(w, GET);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	world_pass(w, 7990);
	say(w, client, "GET"); /* from here on it is a head */
	pass_deadline(w, client, 1000);
	expect_refusal(client, 408, "client_timeout");
	expect_end(w, 3);
}

#define STEP 16384 /* bytes of a body that are progress */

/* n bytes within a text of JSON. */
static void say_padding(struct world *w, struct peer *p, size_t n) {
	static char text[STEP];
	memset(text, 'x', sizeof(text));
	assert_true(n <= sizeof(text));
	peer_say(p, (struct slice){ text, n });
	world_settle(w);
}

static void expect_body_timeout(struct world *w, struct peer *client) {
	expect_refusal(client, 408, "client_timeout");
	assert_true(client->was_shut);
	expect_logged(w, 408, "body_timeout");
}

/* A byte now and then is as good as none. */
static void test_body_that_is_held_and_drips(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = post_part(w, CHAT, 100, "{");
	world_pass(w, 1000);
	say(w, client, " ");
	pass_deadline(w, client, 1000);
	expect_body_timeout(w, client);
	expect_end(w, 1);
}

static void test_body_that_flows_and_drips(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, 100, "{"), *engine = net_newest(0);
	world_pass(w, 1000);
	say(w, client, " ");
	assert_true(parsed_has(peer_unseen(engine), "{ "));
	pass_deadline(w, client, 1000);
	expect_body_timeout(w, client);
	expect_closed(engine);
	expect_end(w, 1);
}

/* Who sends 16 KiB in each such time is never late; who sends a byte less is. */
static void test_body_that_comes_slowly(void **state) {
	for (unsigned is_held = 0; is_held < 2; is_held++) {
		struct world *w = is_held ? WORLD("a", "b") : WORLD("m");
		w->config.hold_limit_bytes = 1u << 20;
		struct peer *client = post_part(w, CHAT, 13 * STEP, "{\"a\":\"");
		say_padding(w, client, STEP - 6);
		for (unsigned i = 0; i < 10; i++) {
			world_pass(w, 1999);
			say_padding(w, client, STEP);
		}
		expect_nothing(client);
		world_pass(w, 1000);
		say_padding(w, client, STEP - 1);
		pass_deadline(w, client, 1000);
		expect_body_timeout(w, client);
		expect_end(w, 1);
	}
}

/* Its last piece may be small. */
static void test_body_that_ends_in_time(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, STEP + 2, "{\"a\":\""), *engine = net_newest(0);
	world_pass(w, 1999);
	say_padding(w, client, STEP - 6);
	world_pass(w, 1999);
	say(w, client, "\"}");
	world_pass(w, 5000);
	expect_nothing(client);
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* An engine that answers before the body has come in full is waited for no longer for its drops. */
static void test_body_that_drips_into_an_answer(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, 100, "{"), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	for (unsigned i = 0; i < 6; i++) {
		world_pass(w, 1000);
		say(w, client, " ");
	}
	pass_deadline(w, client, 1000);
	expect_cut(client, NULL);
	expect_closed(engine);
	expect_logged(w, 200, "stream_stalled");
	expect_end(w, 1);
}

/* An engine that does not read is not the client's fault. */
static void test_body_that_the_engine_does_not_take(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, 16, "{\"a\":"), *engine = net_newest(0);
	peer_stall(engine, 0);
	say(w, client, "\"0123");
	world_pass(w, 30000);
	expect_nothing(client);
	peer_stall(engine, SIZE_MAX);
	world_settle(w);
	world_pass(w, 1999); /* all of its time is left */
	expect_nothing(client);
	say(w, client, "4567\"}");
	expect_request(engine, "POST " CHAT " HTTP/1.1", "{\"a\":\"01234567\"}");
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_client_that_does_not_read(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	peer_stall(client, 5);
	say(w, engine, SSE_HEAD);
	world_pass(w, 2000);
	peer_stall(client, 1); /* a byte now and then is not reading */
	world_settle(w);
	pass_deadline(w, client, 1000);
	assert_true(client->was_reset);
	expect_closed(engine);
	expect_logged(w, 200, "client_stalled");
	expect_end(w, 1);
}

/* Slow is who takes 4 KiB in that time, and who does is never late. */
static void test_client_that_reads_slowly(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	static char text[100000];
	memset(text, 'x', sizeof(text));
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
	peer_stall(client, 8192 - client->got.n);
	peer_say(engine, (struct slice){ text, sizeof(text) });
	world_settle(w);
	for (unsigned i = 0; i < 12; i++) {
		world_pass(w, 2900);
		peer_stall(client, 4096);
		world_settle(w);
	}
	assert_false(client->was_closed);
	for (unsigned i = 0; i < 3; i++) {
		world_pass(w, 950);
		peer_stall(client, 1365); /* together one byte less than 4 KiB */
		world_settle(w);
	}
	pass_deadline(w, client, 150);
	assert_true(client->was_reset);
	expect_logged(w, 200, "client_stalled");
	expect_end(w, 1);
}

/* The same when all is said and only the client's part is left. */
static void test_client_that_does_not_read_the_end(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	peer_stall(client, 5);
	say(w, engine, ANSWER_OK);
	assert_int_equal(world_load(w), 0);
	pass_deadline(w, client, 3000);
	assert_true(client->was_reset);
	assert_false(engine->was_closed); /* it has done its work */
	expect_logged(w, 200, "client_stalled");
	expect_end(w, 1);
}

/* Where the end of the connection is the end of the answer, only a reset says that this is not it. */
static void test_cut_end_does_not_look_complete(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "GET /x HTTP/1.0\r\n\r\n"), *engine = net_newest(0);
	peer_stall(client, 60);
	say(w, engine, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n");
	world_pass(w, 20000);
	expect_closed(client);
	assert_true(client->was_reset);
	expect_logged(w, 200, "client_stalled");
	expect_end(w, 1);
}

static void test_linger(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999\r\n\r\n");
	expect_refusal(client, 413, "body_too_large");
	assert_true(client->was_shut);
	say(w, client, "more"); /* is read, so that no reset overtakes the answer */
	assert_int_equal(client->n_heard, client->said.n);
	world_pass(w, 1990);
	assert_false(client->was_closed);
	world_pass(w, 20);
	expect_closed(client);
	assert_false(client->was_reset);
	expect_end(w, 1);
}

/* --- engines ----------------------------------------------------------------------------------- */

static void test_first_byte_of_a_stream(void **state) {
	struct world *w = WORLD("m", "m");
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(-1);
	pass_deadline(w, client, 6000);
	expect_refusal(client, 504, "timeout");
	expect_closed(engine);
	expect_logged(w, 504, "first_byte_timeout");
	assert_int_equal(net_n_connects(-1), 1); /* it was sent */
	expect_end(w, 1);
}

static void test_first_byte_of_others_may_take_long(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, CHAT, "{\"model\":\"m\",\"stream\":false}");
	world_pass(w, 3600000);
	expect_nothing(client);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");

	w->config.timeout.first_byte_all = true;
	say(w, client, GET);
	pass_deadline(w, client, 6000);
	expect_refusal(client, 504, "timeout");
	expect_end(w, 2);
}

static void test_stream_that_falls_silent(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	for (unsigned i = 0; i < 4; i++) {
		world_pass(w, 6900);
		say_chunk(w, engine, "data: {}\n\n");
	}
	pass_deadline(w, client, 7000);
	assert_true(parsed_has(peer_unseen(client), "\"code\":\"timeout\""));
	expect_cut(client, NULL);
	expect_closed(engine);
	expect_logged(w, 200, "stream_stalled");
	expect_end(w, 1);
}

/* What stands between us and the client hears that the stream lives, and the engine is no less silent. */
static void test_a_silent_stream_has_heartbeats(void **state) {
	struct world *w = WORLD("m");
	w->config.heartbeat_ms = 1000;
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, "data: {}\n\n");
	world_pass(w, 2500);
	say_chunk(w, engine, "data: {"); /* nothing may stand in an event */
	world_pass(w, 3000);
	say_chunk(w, engine, "}\n\n");
	world_pass(w, 1500);
	say_chunk(w, engine, "data: [DONE]\n\n");
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200,
	    "data: {}\n\n: heartbeat\n\n: heartbeat\n\ndata: {}\n\n: heartbeat\n\ndata: [DONE]\n\n");
	client = post(w, CHAT, STREAMED);
	engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	world_pass(w, 7010);
	expect_cut(client, NULL);
	expect_logged(w, 200, "stream_stalled");
	expect_end(w, 2);
}

/* No byte is put into what has a length, an encoding, or no events. */
static void test_other_answers_have_no_heartbeats(void **state) {
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 4\r\n\r\n",
		("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
		 "transfer-encoding: chunked\r\n\r\n"),
		"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
	};
	for (size_t i = 0; i < n_elems(answers); i++) {
		struct world *w = WORLD("m");
		w->config.heartbeat_ms = 1000;
		struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
		say(w, engine, answers[i]);
		world_pass(w, 3500);
		say(w, engine, i ? "4\r\nbody\r\n0\r\n\r\n" : "body");
		expect_answer(client, 200, "body");
		expect_end(w, 1);
	}
}

/* It counts from the sending: an engine that says a little now and then has not answered. */
static void test_first_byte_of_an_engine_that_drips(void **state) {
	static const char *const drips[] = { "HTTP/1.1 200 OK\r\nx-drip: 0123456789",
		"HTTP/1.1 103 Early Hints\r\n\r\n" };
	for (size_t i = 0; i < n_elems(drips); i++) {
		struct world *w = WORLD("m", "m");
		struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(-1);
		for (unsigned k = 0; k < 29; k++) {
			world_pass(w, 200);
			struct slice drip = slice_skip(slice_of(drips[i]), i ? 0 : k);
			peer_say(engine, i ? drip : slice_head(drip, 1));
		}
		world_settle(w);
		pass_deadline(w, client, 200);
		for (unsigned k = 0; i && k < 29; k++)
			expect_answer(client, 103, "");
		expect_refusal(client, 504, "timeout");
		expect_closed(engine);
		expect_logged(w, 504, "first_byte_timeout");
		expect_end(w, 1);
	}
}

static void test_total_before_the_answer(void **state) {
	struct world *w = WORLD("m");
	w->config.timeout.total_ms = 1500;
	struct peer *client = ask(w, GET);
	pass_deadline(w, client, 1500);
	expect_refusal(client, 504, "timeout");
	expect_logged(w, 504, "total_timeout");

	w->config.timeout.total_ms = 300; /* less than connecting may take */
	net.moods[0][0] = MOOD_SILENT;
	client = ask(w, GET);
	pass_deadline(w, client, 300);
	expect_refusal(client, 504, "timeout");
	expect_logged(w, 504, "total_timeout");
	expect_end(w, 2);
}

static void test_total_in_the_answer(void **state) {
	struct world *w = WORLD("m");
	w->config.timeout.total_ms = 1500;
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	for (unsigned i = 0; i < 14; i++) {
		world_pass(w, 100);
		say_chunk(w, engine, "data: {}\n\n");
	}
	assert_false(client->was_shut);
	world_pass(w, 101);
	expect_cut(client, NULL);
	expect_closed(engine);
	expect_logged(w, 200, "total_timeout");
	expect_end(w, 1);
}

/* All was said, but the client has not taken it: nothing can be put behind the last event any more. */
static void test_total_at_the_end_of_the_answer(void **state) {
	struct world *w = WORLD("m");
	w->config.timeout.total_ms = 1500;
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	peer_stall(client, 100);
	say(w, engine, SSE_HEAD "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
	pass_deadline(w, client, 1500);
	expect_closed(client);
	assert_false(engine->was_closed); /* it has done its work */
	expect_logged(w, 200, "total_timeout");
	expect_end(w, 1);
}

static void test_deadlines_that_are_off(void **state) {
	struct world *w = WORLD("m");
	w->config.timeout.body_idle_ms = w->config.timeout.write_idle_ms = 0;
	w->config.timeout.first_byte_ms = w->config.timeout.stream_idle_ms = 0;
	struct peer *client = post_part(w, CHAT, strlen(STREAMED), "{"), *engine;
	world_pass(w, 1000000);
	say(w, client, &STREAMED[1]);
	engine = net_newest(0);
	world_pass(w, 1000000);
	say(w, engine, SSE_HEAD);
	world_pass(w, 1000000);
	peer_stall(client, 0);
	say_chunk(w, engine, "data: {}\n\n");
	world_pass(w, 1000000);
	peer_stall(client, SIZE_MAX);
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, "data: {}\n\n");
	expect_end(w, 1);
}

/* --- a router that is stopped ------------------------------------------------------------------ */

/*
 * It may be the router that was late (a paused process): what has come by the time at which it looks
 * counts, whatever the clock says.
 */
static uint64_t wall_ms;

static uint64_t fake_wall(void) {
	return wall_ms;
}

/* A day on, a day back, and before the epoch's first second: no deadline looks at it, and no time is
 * negative. */
static void test_wall_clock_jumps(void **state) {
	const uint64_t day_ms = 86400000, times_ms[] = { 20000 * day_ms, 20001 * day_ms, 19999 * day_ms, 0 };
	struct world *w = WORLD("m");
	clock_set_wall_source(fake_wall);
	wall_ms = times_ms[0];
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	for (size_t i = 0; i < n_elems(times_ms); i++) {
		wall_ms = times_ms[i];
		say(w, engine, i ? "a\r\ndata: {}\n\n\r\n" : SSE_HEAD);
		world_pass(w, 1000);
	}
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, "data: {}\n\ndata: {}\n\ndata: {}\n\n");
	expect_logged(w, 200, "none");
	assert_null(memmem(w->log.p, w->log.n, "_ms\":-", 6));
	assert_non_null(memmem(w->log.p, w->log.n, "\"total_ms\":4", 12));
	expect_end(w, 1);
	clock_set_wall_source(NULL);
}

static void test_pause_while_connecting(void **state) {
	struct world *w = WORLD("m", "m");
	net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
	struct peer *client = ask(w, GET), *engine = net_newest(-1);
	peer_answer_connect(engine, true);
	world_pause(600);
	world_settle(w);
	expect_request(engine, "GET /x HTTP/1.1", "");
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(net_n_connects(-1), 1);
	assert_int_equal(metric_read(&w->worker.metrics->connect_failures), 0);
	expect_end(w, 1);
}

static void test_pause_between_requests(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *silent = net_client();
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	peer_says(client, GET);
	world_pause(8100);
	world_settle(w);
	expect_closed(silent); /* nothing came */
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	pass_deadline(w, client, 8000); /* it begins anew */
	expect_closed(client);
	expect_end(w, 2);
}

/* Its first part alone is there: from now on it is a head like all others. */
static void test_pause_within_a_head(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = net_client();
	world_settle(w);
	peer_says(client, "GET /x HTTP/1.1\r\n");
	world_pause(1100);
	world_settle(w);
	pass_deadline(w, client, 1000);
	expect_refusal(client, 408, "client_timeout");
	expect_end(w, 1);
}

static void test_pause_before_the_end_of_a_head(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "GET /x HTTP/1.1\r\n");
	peer_says(client, "host: h\r\n\r\n");
	world_pause(1100);
	world_settle(w);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_pause_within_a_body(void **state) {
	for (unsigned flows = 0; flows < 2; flows++) {
		struct world *w = flows ? WORLD("m") : WORLD("m", "b");
		struct peer *client = post_part(w, CHAT, 13, "{");
		assert_int_equal(net_n_connects(-1), flows);
		peer_says(client, "\"model\":\"m\"");
		world_pause(2100);
		world_settle(w);
		say(w, client, "}");
		say(w, net_newest(0), ANSWER_OK);
		expect_answer(client, 200, "ok");
		expect_end(w, 1);
	}
}

static void test_pause_before_the_first_byte(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	peer_says(engine, ANSWER_OK);
	world_pause(6100);
	world_settle(w);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_pause_within_a_stream(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	peer_says(engine, "a\r\ndata: {}\n\n\r\n");
	world_pause(7100);
	world_settle(w);
	assert_true(parsed_has(peer_unseen(client), "data: {}"));
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, "data: {}\n\n");
	expect_logged(w, 200, "none");
	expect_end(w, 1);
}

static void test_pause_while_the_client_reads(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	peer_stall(client, 5);
	say(w, engine, ANSWER_OK);
	peer_stall(client, SIZE_MAX);
	world_pause(3100);
	world_settle(w);
	expect_answer(client, 200, "ok");
	expect_logged(w, 200, "none");
	expect_end(w, 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_head_that_drips),
		cmocka_unit_test(test_connection_without_a_request),
		cmocka_unit_test(test_keepalive),
		cmocka_unit_test(test_body_that_is_held_and_drips),
		cmocka_unit_test(test_body_that_flows_and_drips),
		cmocka_unit_test(test_body_that_comes_slowly),
		cmocka_unit_test(test_body_that_ends_in_time),
		cmocka_unit_test(test_body_that_drips_into_an_answer),
		cmocka_unit_test(test_body_that_the_engine_does_not_take),
		cmocka_unit_test(test_client_that_does_not_read),
		cmocka_unit_test(test_client_that_reads_slowly),
		cmocka_unit_test(test_client_that_does_not_read_the_end),
		cmocka_unit_test(test_cut_end_does_not_look_complete),
		cmocka_unit_test(test_linger),
		cmocka_unit_test(test_first_byte_of_a_stream),
		cmocka_unit_test(test_first_byte_of_an_engine_that_drips),
		cmocka_unit_test(test_first_byte_of_others_may_take_long),
		cmocka_unit_test(test_stream_that_falls_silent),
		cmocka_unit_test(test_a_silent_stream_has_heartbeats),
		cmocka_unit_test(test_other_answers_have_no_heartbeats),
		cmocka_unit_test(test_total_before_the_answer),
		cmocka_unit_test(test_total_in_the_answer),
		cmocka_unit_test(test_total_at_the_end_of_the_answer),
		cmocka_unit_test(test_deadlines_that_are_off),
		cmocka_unit_test(test_wall_clock_jumps),
		cmocka_unit_test(test_pause_while_connecting),
		cmocka_unit_test(test_pause_between_requests),
		cmocka_unit_test(test_pause_within_a_head),
		cmocka_unit_test(test_pause_before_the_end_of_a_head),
		cmocka_unit_test(test_pause_within_a_body),
		cmocka_unit_test(test_pause_before_the_first_byte),
		cmocka_unit_test(test_pause_within_a_stream),
		cmocka_unit_test(test_pause_while_the_client_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
