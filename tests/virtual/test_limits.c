/* What peers can make the router hold, and how it slows them down before it refuses. */
#include "virtual/expect.h"

#define JSON_POST "POST " CHAT " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"

/* n bytes in the middle of something: as they are, or as one chunk. */
static void say_much(struct world *w, struct peer *p, size_t n, bool is_chunk) {
	char line[24], *text = malloc(n + 1);
	memset(text, 'x', n);
	snprintf(line, sizeof(line), "%zx\r\n", n);
	peer_says(p, is_chunk ? line : "");
	peer_say(p, (struct slice){ text, n });
	peer_says(p, is_chunk ? "\r\n" : "");
	free(text);
	world_settle(w);
}

static void expect_cut_request(struct peer *engine) {
	struct parsed m = expect_message(engine, PARSED_REQUEST);
	assert_false(m.is_whole);
	parsed_deinit(&m);
	expect_closed(engine);
}

/* --- body_limit ------------------------------------------------------------------------- */

static void test_declared_body_at_the_limit(void **state) {
	struct world *w = WORLD("m");
	w->config.body_limit_bytes = 10;
	struct peer *client = ask(w, "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n0123456789");
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	client = ask(w, "POST /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n");
	expect_refusal(client, 413, "body_too_large"); /* before it was sent */
	assert_true(client->was_shut);
	assert_int_equal(net_n_connects(-1), 1);
	expect_end(w, 2);
}

static void test_chunked_body_at_the_limit(void **state) {
	struct world *w = WORLD("m");
	w->config.body_limit_bytes = 10;
	struct peer *client = ask(w, "POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
	say_chunk(w, client, "0123456789");
	struct peer *engine = net_newest(0);
	expect_nothing(client);
	say_chunk(w, client, "0");
	expect_refusal(client, 413, "body_too_large");
	assert_true(client->was_shut);
	expect_cut_request(engine);
	expect_end(w, 1);
}

/* --- hold_limit ---------------------------------------------------------------------------- */

static void test_model_beyond_the_hold_limit(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = post_part(w, CHAT, 1u << 20, "{\"p\":\"");
	say_much(w, client, (32u << 10) - 6, false);
	expect_nothing(client);
	say(w, client, "x");
	expect_refusal(client, 413, "model_not_found_in_time");
	assert_true(client->was_shut);
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 1);
}

static void test_model_at_the_hold_limit(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = post_part(w, CHAT, 1u << 20, "{\"p\":\"");
	say_much(w, client, (32u << 10) - 6 - 13, false);
	say(w, client, "\",\"model\":\"b\"");
	assert_int_equal(net_n_connects(1), 1);
	peer_close(client);
	expect_end(w, 1);
}

/* Not for a moment, however much comes at once. */
static void test_hold_limit_is_never_exceeded(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = post_part(w, CHAT, 1u << 20, "{\"p\":\"");
	say_much(w, client, 250000, false);
	expect_refusal(client, 413, "model_not_found_in_time");
	assert_int_equal(w->worker.loop.bufs.n_spares[1], 0); /* no buf of 256 KiB was ever lent */
	client = post_part(w, CHAT, 1u << 20, "{\"p\":\"");
	for (unsigned i = 0; i < 32; i++) {
		say_much(w, client, 1000, false);
		assert_in_range(world_held(w) - w->rest.budget_bytes, 1, (32u << 10) + (64u << 10));
	}
	expect_nothing(client);
	say_much(w, client, 1000, false);
	expect_refusal(client, 413, "model_not_found_in_time");
	expect_end(w, 2);
}

/* The limit is for bodies that are held: one whose model is known may be larger, however it comes. */
static void test_hold_limit_is_not_a_body_limit(void **state) {
	static const char *const types[] = { "application/json", "text/plain" };
	for (size_t i = 0; i < n_elems(types); i++) {
		struct world *w = WORLD("a", "b");
		struct peer *client = net_client();
		char head[256];
		snprintf(head, sizeof(head),
		    "POST /x HTTP/1.1\r\nhost: h\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n",
		    types[i], (size_t)100000 + 20);
		peer_says(client, head);
		peer_says(client, "{\"model\":\"b\",\"p\":\"");
		say_much(w, client, 100000, false);
		say(w, client, "\"}");
		struct peer *engine = net_newest(-1);
		assert_non_null(engine);
		say(w, engine, ANSWER_OK);
		expect_answer(client, 200, "ok");
		expect_end(w, 1);
	}
}

/* --- inspect_limit -------------------------------------------------------------------------- */

/* JSON is waited for, so that what is wrong with it is found before an engine sees it. */
static void test_small_json_is_whole_before_it_is_sent(void **state) {
	struct world *w = WORLD("m");
	w->config.inspect_limit_bytes = 1000;
	struct peer *client = post_part(w, CHAT, 23, "{\"model\":\"m\",");
	assert_int_equal(net_n_connects(-1), 0);
	say(w, client, "\"model\":1}");
	expect_refusal(client, 400, "duplicate_model");
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 1);
}

static void test_large_json_flows(void **state) {
	struct world *w = WORLD("m");
	w->config.inspect_limit_bytes = 1000;
	struct peer *client = post_part(w, CHAT, 1u << 20, "{\"model\":\"m\",\"p\":\"");
	say_much(w, client, 900, false);
	assert_int_equal(net_n_connects(-1), 0);
	say_much(w, client, 100, false);
	assert_int_equal(net_n_connects(-1), 1);
	size_t n = net_newest(0)->got.n;
	say(w, client, "more");
	assert_int_equal(net_newest(0)->got.n, n + 4);
	expect_end(w, 1);
}

/* --- the budget ------------------------------------------------------------------------------- */

static void test_budget(void **state) {
	struct world *w = WORLD("a", "b");
	w->config.hold_limit_bytes = w->config.body_limit_bytes = 64u << 20;
	w->router.budget.max_bytes = 1u << 20;
	struct peer *holders[8], *client;
	unsigned n_refused = 0;
	for (size_t i = 0; i < n_elems(holders); i++) {
		holders[i] = post_part(w, CHAT, 1u << 20, "{\"p\":\"");
		say_much(w, holders[i], 256u << 10, false);
		assert_true(world_held(w) <= (1u << 20) + (512u << 10)); /* what one read may overshoot */
	}
	for (size_t i = 0; i < n_elems(holders); i++)
		if (holders[i]->got.n && ++n_refused)
			expect_refusal(holders[i], 503, "overloaded");
	assert_true(n_refused >= 3 && n_refused < 8);

	w->router.budget.max_bytes = 1;
	client = ask(w, GET); /* whatever it is */
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 503, NULL);
	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"overloaded\""));
	expect_field(&m, "retry-after", "1");
	parsed_deinit(&m);
	w->router.budget.max_bytes = 16u << 20;
	say(w, client, GET); /* there is room again */
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2 + n_elems(holders));
}

/* Heads that do not come to their end must not hold what others could use. */
static void test_incomplete_heads_while_the_budget_is_used_up(void **state) {
	struct world *w = WORLD("m");
	struct peer *small = ask(w, "GET /x HTTP/1.1\r\nhost: h\r\n"), *large;
	say_much(w, small, 3000, false);
	w->router.budget.max_bytes = 1;
	say_much(w, small, 1000, false);
	expect_nothing(small);
	uint64_t held = world_held(w);
	large = ask(w, "GET /x HTTP/1.1\r\nhost: h\r\n");
	say_much(w, large, 5000, false);
	expect_last_word(large, 503, "overloaded", true);
	assert_true(large->was_shut);
	expect_logged(w, 503, "overloaded");
	assert_int_equal(world_held(w), held);
	w->router.budget.max_bytes = 16u << 20;
	say(w, small, ": y\r\n\r\n");
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(small, 200, "ok");
	expect_end(w, 2);
}

/* An answer that is on its way waits for the budget and is not harmed. */
static void test_answers_go_on_while_the_budget_is_used_up(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n");
	w->router.budget.max_bytes = 1;
	say_much(w, engine, 60000, false);
	expect_answer(client, 200, NULL);
	expect_end(w, 1);
}

/* What a client that does not read makes us hold is little then. */
static void test_answers_are_held_in_small_parts_while_the_budget_is_used_up(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n");
	w->router.budget.max_bytes = 1;
	peer_stall(client, 0);
	say_much(w, engine, 60000, false);
	assert_in_range(world_held(w) - w->rest.budget_bytes, 1, 16u << 10);
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	expect_answer(client, 200, NULL);
	expect_end(w, 1);
}

/* Those who hold the memory wait for peers like all others, and as long. */
static void test_deadlines_hold_while_the_budget_is_used_up(void **state) {
	struct world *w = WORLD("m");
	w->router.budget.max_bytes = 32u << 10;
	struct peer *client = ask(w, GET), *engine = net_newest(0), *other;
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
	peer_stall(client, 0);
	say_much(w, engine, 60000, false);
	assert_true(world_held(w) >= w->router.budget.max_bytes);
	other = ask(w, GET);
	expect_last_word(other, 503, "overloaded", true);
	world_pass(w, 2990);
	assert_false(client->was_closed);
	world_pass(w, 20);
	expect_closed(client);
	expect_closed(engine);
	assert_int_equal(world_held(w), w->rest.budget_bytes);
	expect_logged(w, 200, "client_stalled");
	expect_end(w, 2);
}

/* But one that takes some of it now and then goes on, however long that is. */
static void test_slow_reader_lives_while_the_budget_is_used_up(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	w->router.budget.max_bytes = 32u << 10;
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n");
	peer_stall(client, 0);
	say_much(w, engine, 60000, false);
	for (unsigned i = 0; i < 10; i++) {
		world_pass(w, 2900);
		peer_stall(client, 4096);
		world_settle(w);
	}
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	expect_answer(client, 200, NULL);
	expect_end(w, 1);
}

/* A body that is not read since there is no memory is not the client's fault, but does not wait for ever. */
static void test_body_that_waits_for_the_budget(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, 7, "{\"a\":");
	w->router.budget.max_bytes = 1;
	say(w, client, "1}");
	world_pass(w, 2100);
	expect_refusal(client, 503, "overloaded");
	expect_closed(net_newest(0));
	expect_end(w, 1);
}

/* --- back-pressure ------------------------------------------------------------------------------ */

static void test_client_that_does_not_read_stops_the_engine(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	peer_stall(client, 1000);
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 8000000\r\n\r\n");
	for (unsigned i = 0; i < 8; i++)
		say_much(w, engine, 1000000, false);
	assert_true(engine->n_heard <= 3 * 65536);
	assert_true(world_held(w) <= 256u << 10);
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 200, NULL);
	assert_int_equal(m.body.n, 8000000);
	parsed_deinit(&m);
	expect_end(w, 1);
}

static void test_engine_that_does_not_read_stops_the_client(void **state) {
	struct world *w = WORLD("m");
	w->config.body_limit_bytes = 64u << 20;
	struct peer *client = ask(w, "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 8000000\r\n\r\n");
	struct peer *engine = net_newest(0);
	peer_stall(engine, 1000);
	for (unsigned i = 0; i < 8; i++)
		say_much(w, client, 1000000, false);
	assert_true(client->n_heard <= 2 * LOOP_READ_BYTES);
	assert_true(world_held(w) <= 1u << 20);
	peer_stall(engine, SIZE_MAX);
	world_settle(w);
	struct parsed m = expect_request_head(engine, "POST /x HTTP/1.1");
	assert_int_equal(m.body.n, 8000000);
	parsed_deinit(&m);
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* A client that asks again and again for what is refused, and has not read any of it. */
static struct peer *ask_in_vain(struct world *w, unsigned n) {
	struct peer *client = net_client();
	peer_stall(client, 0);
	for (unsigned i = 0; i < n; i++) {
		char text[200];
		snprintf(text, sizeof(text), JSON_POST "x-request-id: r%u\r\ncontent-length: 1\r\n\r\n]", i);
		peer_says(client, text);
	}
	world_settle(w);
	return client;
}

static void test_refusals_wait_for_their_client(void **state) {
	enum { N_REQUESTS = 2000 };
	struct world *w = WORLD("m");
	struct peer *client = ask_in_vain(w, N_REQUESTS);
	assert_in_range(world_held(w) - w->rest.budget_bytes, 1, 8u << 10);
	world_pass(w, 2900);
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	for (unsigned i = 0; i < N_REQUESTS; i++) {
		char id[16];
		snprintf(id, sizeof(id), "r%u", i);
		struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 400, NULL);
		expect_field(&m, "x-request-id", id);
		parsed_deinit(&m);
	}
	expect_end(w, N_REQUESTS);
}

static void test_refusals_that_are_not_read(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask_in_vain(w, 300);
	world_pass(w, 2990);
	assert_false(client->was_closed);
	world_pass(w, 20);
	assert_true(client->was_reset);
	assert_int_equal(world_held(w), w->rest.budget_bytes);
	expect_logged(w, 400, "client_stalled");
	expect_end(w, 1);
}

/* Many requests in one connection's socket are not read ahead. */
static void test_pipelined_requests_stay_in_the_socket(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET);
	for (unsigned i = 0; i < 50000; i++)
		peer_says(client, GET);
	world_settle(w);
	assert_true(client->n_heard <= LOOP_READ_BYTES);
	expect_end(w, 1);
}

/* An idle stream costs little: the request's head and body are given back when the answer begins. */
static void test_idle_stream_holds_nothing(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	assert_true(world_n_bufs(w) > w->rest.n_bufs);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, "data: {\"choices\":[{}]}\n\n");
	assert_true(client->got.n > 0);
	assert_int_equal(world_n_bufs(w), w->rest.n_bufs);
	assert_int_equal(world_held(w), w->rest.budget_bytes);
	expect_end(w, 1);
}

/* Nor does an idle connection, however its last request came. */
static void test_idle_connection_holds_nothing(void **state) {
	static const char *const paths[] = { "/liveness", "/x" };
	for (size_t i = 0; i < n_elems(paths); i++) {
		struct world *w = WORLD("m");
		char line[64];
		snprintf(line, sizeof(line), "GET %s HTTP/1.1\r\n", paths[i]);
		struct peer *client = ask(w, line);
		say(w, client, "host: h\r\n\r\n");
		if (net_newest(0))
			say(w, net_newest(0), ANSWER_OK);
		expect_answer(client, 200, NULL);
		assert_false(client->was_shut);
		assert_int_equal(world_n_bufs(w), w->rest.n_bufs);
		assert_int_equal(world_held(w), w->rest.budget_bytes);
		expect_end(w, 1);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_declared_body_at_the_limit),
		cmocka_unit_test(test_chunked_body_at_the_limit),
		cmocka_unit_test(test_model_beyond_the_hold_limit),
		cmocka_unit_test(test_model_at_the_hold_limit),
		cmocka_unit_test(test_hold_limit_is_never_exceeded),
		cmocka_unit_test(test_hold_limit_is_not_a_body_limit),
		cmocka_unit_test(test_small_json_is_whole_before_it_is_sent),
		cmocka_unit_test(test_large_json_flows),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_incomplete_heads_while_the_budget_is_used_up),
		cmocka_unit_test(test_answers_go_on_while_the_budget_is_used_up),
		cmocka_unit_test(test_answers_are_held_in_small_parts_while_the_budget_is_used_up),
		cmocka_unit_test(test_deadlines_hold_while_the_budget_is_used_up),
		cmocka_unit_test(test_slow_reader_lives_while_the_budget_is_used_up),
		cmocka_unit_test(test_body_that_waits_for_the_budget),
		cmocka_unit_test(test_client_that_does_not_read_stops_the_engine),
		cmocka_unit_test(test_engine_that_does_not_read_stops_the_client),
		cmocka_unit_test(test_refusals_wait_for_their_client),
		cmocka_unit_test(test_refusals_that_are_not_read),
		cmocka_unit_test(test_pipelined_requests_stay_in_the_socket),
		cmocka_unit_test(test_idle_stream_holds_nothing),
		cmocka_unit_test(test_idle_connection_holds_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
