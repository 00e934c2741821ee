/* Clients that leave, and a router that is stopped, in every step of a request. */
#include "virtual/expect.h"

/* A request that has come as far as the step's name; the client is at work with it. */
struct scene {
	struct world *w;
	struct peer *client, *engine; /* NULL: none is connected */
};

static struct scene scene_inspect(void) {
	struct scene s = { .w = WORLD("a", "b") };
	s.client = post_part(s.w, CHAT, 1000, "{\"p\":");
	return s;
}

static struct scene scene_connect(void) {
	struct scene s = { .w = WORLD("m") };
	net.moods[0][0] = MOOD_SILENT;
	s.client = ask(s.w, GET);
	s.engine = net_newest(0);
	return s;
}

static struct scene scene_upload(void) {
	struct scene s = { .w = WORLD("m") };
	s.client = post_part(s.w, CHAT, 1000, "{\"p\":");
	s.engine = net_newest(0);
	return s;
}

static struct scene scene_blocked_upload(void) {
	struct scene s = scene_upload();
	peer_stall(s.engine, 0);
	say(s.w, s.client, "\"xxxxxxxx");
	return s;
}

static struct scene scene_await_head(void) {
	struct scene s = { .w = WORLD("m") };
	s.client = post(s.w, CHAT, STREAMED);
	s.engine = net_newest(0);
	return s;
}

static struct scene scene_half_a_head(void) {
	struct scene s = scene_await_head();
	say(s.w, s.engine, "HTTP/1.1 200");
	return s;
}

static struct scene scene_interim(void) {
	struct scene s = scene_await_head();
	say(s.w, s.engine, "HTTP/1.1 103 Early Hints\r\n\r\n");
	return s;
}

static struct scene scene_stream(void) {
	struct scene s = scene_await_head();
	say(s.w, s.engine, SSE_HEAD);
	say_chunk(s.w, s.engine, "data: {\"choices\":[{}]}\n\n");
	return s;
}

static struct scene scene_event_in_part(void) {
	struct scene s = scene_stream();
	say_chunk(s.w, s.engine, "data: {\"choi");
	return s;
}

static struct scene scene_early_answer(void) {
	struct scene s = scene_upload();
	say(s.w, s.engine, SSE_HEAD);
	return s;
}

static struct scene scene_blocked_answer(void) {
	struct scene s = scene_await_head();
	peer_stall(s.client, 10);
	say(s.w, s.engine, SSE_HEAD);
	return s;
}

typedef struct scene (*scene_fn)(void);

static const scene_fn scenes[] = { scene_inspect, scene_connect, scene_upload, scene_blocked_upload,
	scene_await_head, scene_half_a_head, scene_interim, scene_stream, scene_event_in_part,
	scene_early_answer, scene_blocked_answer };

/* --- clients ------------------------------------------------------------------------------- */

/* The engine's connection is closed in the turn in which the client's end is seen. */
static void leave(struct scene s, void (*how)(struct peer *)) {
	how(s.client);
	world_turn(s.w);
	if (s.engine)
		expect_closed(s.engine);
	expect_closed(s.client);
	assert_true(list_is_empty(&s.w->worker.active));
	assert_int_equal(world_load(s.w), 0);
	expect_logged(s.w, 499, "client_gone");
	assert_int_equal(metric_read(&s.w->worker.metrics->client_aborts), 1);
	expect_end(s.w, 1);
}

static void test_client_leaves_in_every_step(void **state) {
	for (size_t i = 0; i < n_elems(scenes); i++) {
		leave(scenes[i](), peer_finish);
		leave(scenes[i](), peer_close);
		leave(scenes[i](), peer_break);
	}
}

/* With requests behind it in the socket, a client is seen to leave all the same. */
static void test_client_leaves_with_a_request_behind(void **state) {
	struct scene s = scene_await_head();
	say(s.w, s.client, GET);
	leave(s, peer_finish);
}

static void test_client_leaves_within_a_head(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "GET /x HTT");
	peer_finish(client);
	world_settle(w);
	expect_closed(client);
	expect_nothing(client);
	expect_end(w, 0);
}

/* The answer and the client's end come in one turn: whoever is seen first, nothing is left. */
static void test_client_leaves_with_the_answer(void **state) {
	struct scene s = scene_stream();
	say_chunk(s.w, s.engine, "data: [DONE]\n\n");
	peer_says(s.engine, "0\r\n\r\n");
	peer_close(s.client);
	world_settle(s.w);
	expect_closed(s.client);
	expect_end(s.w, 1);
}

/* It takes the rest of its answer and ends its side in one turn: it got what it came for. */
static void test_client_leaves_with_all_of_its_answer(void **state) {
	static const struct {
		const char *body, *cause;
		unsigned status;
	} rows[] = { { STREAMED, "none", 200 }, { "]", "invalid_json", 400 } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct world *w = WORLD("m");
		struct peer *client = net_client();
		peer_stall(client, 5);
		peer_says(client, "POST " CHAT " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n");
		char length[64];
		snprintf(length, sizeof(length), "content-length: %zu\r\n\r\n", strlen(rows[i].body));
		peer_says(client, length);
		say(w, client, rows[i].body);
		if (net_newest(0))
			say(w, net_newest(0), ANSWER_OK);
		peer_stall(client, SIZE_MAX);
		peer_finish(client);
		world_settle(w);
		expect_answer(client, rows[i].status, NULL);
		expect_logged(w, rows[i].status, rows[i].cause);
		expect_end(w, 1);
	}
}

static void test_request_and_end_together(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = net_client();
	peer_says(client, GET);
	peer_finish(client);
	world_settle(w);
	expect_closed(client);
	assert_int_equal(net_n_connects(-1), 0); /* no engine works for somebody who is gone */
	expect_logged(w, 499, "client_gone");
	expect_end(w, 1);
}

static void test_half_closed_client_is_served_if_told_so(void **state) {
	struct world *w = WORLD("m");
	w->config.half_close = ROUTER_HALF_CLOSE_SERVE;
	struct peer *client = net_client();
	peer_says(client, GET GET);
	peer_finish(client);
	world_settle(w);
	say(w, net_newest(0), ANSWER_OK);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_answer(client, 200, "ok");
	world_pass(w, 10000);
	expect_closed(client);
	expect_end(w, 2);
}

/* It has ended its side already, and its engine is silent: only a reset tells that it is gone. */
static void test_half_closed_client_that_breaks(void **state) {
	struct scene s = scene_stream();
	s.w->config.half_close = ROUTER_HALF_CLOSE_SERVE;
	peer_finish(s.client);
	world_settle(s.w);
	assert_false(s.engine->was_closed);
	say_chunk(s.w, s.engine, "data: {}\n\n");
	assert_true(parsed_has(bytes_slice(&s.client->got), "data: {}\n\n"));
	peer_break(s.client);
	world_turn(s.w);
	expect_closed(s.engine);
	expect_logged(s.w, 499, "client_gone");
	expect_end(s.w, 1);
}

/* A body that ends by FIN is not complete, whatever half_close says. */
static void test_half_closed_client_within_its_body(void **state) {
	struct scene s = scene_upload();
	s.w->config.half_close = ROUTER_HALF_CLOSE_SERVE;
	leave(s, peer_finish);
}

/* --- the end of the router --------------------------------------------------------------------- */

static void stop_all(struct world *w) {
	list_each_safe (it, &w->worker.active)
		exchange_kill(container_of(it, struct exchange, link), CAUSE_STOPPING);
	net_end_turn();
	world_settle(w);
}

static void test_stop_in_every_step(void **state) {
	for (size_t i = 0; i < n_elems(scenes); i++) {
		struct scene s = scenes[i]();
		bool has_begun = scenes[i] == scene_blocked_answer ||
		    parsed_has(bytes_slice(&s.client->got), "HTTP/1.1 200");
		stop_all(s.w);
		if (s.engine)
			expect_closed(s.engine);
		peer_stall(s.client, SIZE_MAX);
		world_settle(s.w);
		if (scenes[i] == scene_interim)
			expect_answer(s.client, 103, "");
		if (has_begun) /* who had not taken what there was takes it first */
			expect_cut(s.client, NULL);
		else
			expect_last_word(s.client, 503, "overloaded", false); /* others serve */
		expect_end(s.w, 1);
	}
}

/* What comes while the router tells everybody that it ends. */
static void test_who_comes_late_is_refused(void **state) {
	struct world *w = WORLD("m");
	struct peer *late = net_client();
	atomic_store(&w->router.is_ending, true);
	say(w, late, GET);
	expect_last_word(late, 503, "overloaded", false);
	expect_logged(w, 503, "stopping");
	expect_end(w, 1);
}

/* It gets all that there is when it reads again; nothing of it is reset. */
static void test_stop_while_a_client_does_not_read(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "GET /x HTTP/1.0\r\n\r\n");
	peer_stall(client, 50);
	say(w, net_newest(0), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
	stop_all(w);
	assert_false(client->was_shut);
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	assert_true(client->was_shut && !client->was_reset);
	assert_true(slice_eq(slice_skip(bytes_slice(&client->got), client->got.n - 3), SLICE("abc")));
	expect_end(w, 1);
}

/* All of the answer is here, but the client has not taken it: what is missing must be seen to miss. */
static void test_stop_while_the_client_reads_the_end(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "GET /x HTTP/1.0\r\n\r\n");
	peer_stall(client, 50);
	say(w, net_newest(0), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
	stop_all(w);
	server_drain(&w->worker.server);
	server_close(&w->worker.server);
	net_end_turn();
	expect_closed(client);
	assert_true(client->was_reset);
	expect_logged(w, 200, "stopping");
	expect_end(w, 1);
}

static void test_drain(void **state) {
	struct world *w = WORLD("m");
	struct peer *idle = ask(w, GET), *engine = net_newest(0), *busy, *late;
	say(w, engine, ANSWER_OK);
	busy = ask(w, GET);
	late = net_client(); /* waits in the listener's queue */
	server_drain(&w->worker.server);
	net_end_turn();
	expect_closed(idle);
	say(w, late, GET);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(late, 200, "ok");
	assert_true(late->was_shut);
	say(w, engine, ANSWER_OK);
	struct parsed m = expect_answer_kind(busy, PARSED_RESPONSE, 200, "ok");
	expect_field(&m, "connection", "close");
	parsed_deinit(&m);
	assert_true(busy->was_shut);
	expect_end(w, 3);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client_leaves_in_every_step),
		cmocka_unit_test(test_client_leaves_with_a_request_behind),
		cmocka_unit_test(test_client_leaves_within_a_head),
		cmocka_unit_test(test_client_leaves_with_the_answer),
		cmocka_unit_test(test_client_leaves_with_all_of_its_answer),
		cmocka_unit_test(test_request_and_end_together),
		cmocka_unit_test(test_half_closed_client_is_served_if_told_so),
		cmocka_unit_test(test_half_closed_client_that_breaks),
		cmocka_unit_test(test_half_closed_client_within_its_body),
		cmocka_unit_test(test_stop_in_every_step),
		cmocka_unit_test(test_who_comes_late_is_refused),
		cmocka_unit_test(test_stop_while_a_client_does_not_read),
		cmocka_unit_test(test_stop_while_the_client_reads_the_end),
		cmocka_unit_test(test_drain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
