/* The whole exchange, peer to peer, when all goes well: what passes, and in which form. */
#include "virtual/expect.h"

/* --- heads and bodies --------------------------------------------------------------- */

static void test_get(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w,
	    "GET /a?b=%20c HTTP/1.1\r\nhost: h:1\r\nx-request-id: id-1\r\n"
	    "x-forwarded-for: 9.9.9.9\r\nconnection: x-hop\r\nx-hop: 1\r\nx-keep: 2\r\n\r\n");
	struct peer *engine = net_newest(0);
	struct parsed m = expect_request_head(engine, "GET /a?b=%20c HTTP/1.1");
	expect_field(&m, "host", "e0:8000");
	expect_field(&m, "x-forwarded-host", "h:1");
	expect_field(&m, "x-forwarded-for", "9.9.9.9, 127.0.0.1");
	expect_field(&m, "x-request-id", "id-1");
	expect_field(&m, "x-keep", "2");
	expect_no_field(&m, "x-hop");
	expect_no_field(&m, "content-length");
	parsed_deinit(&m);
	expect_nothing(client);
	say(w, engine, "HTTP/1.1 200 Fine\r\nx-a: b\r\nkeep-alive: 1\r\ncontent-length: 2\r\n\r\nok");
	m = expect_answer_kind(client, PARSED_RESPONSE, 200, "ok");
	expect_field(&m, "x-request-id", "id-1");
	expect_field(&m, "x-a", "b");
	expect_no_field(&m, "keep-alive");
	parsed_deinit(&m);
	expect_logged(w, 200, "none");
	expect_end(w, 1);
}

static void test_post_of_known_length(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, CHAT, "{\"model\":\"m\"}"), *engine = net_newest(0);
	expect_request(engine, "POST " CHAT " HTTP/1.1", "{\"model\":\"m\"}");
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_chunked_post_that_is_complete_gets_a_length(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = net_client();
	peer_says(client, "POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
	say(w, client, "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
	struct parsed m = expect_request_head(net_newest(0), "POST /x HTTP/1.1");
	expect_field(&m, "content-length", "5");
	expect_body(&m, "abcde");
	parsed_deinit(&m);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_chunked_post_flows_while_it_arrives(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_chunked(w, "/x");
	say_chunk(w, client, "{\"a\":");
	struct peer *engine = net_newest(0);
	say_chunk(w, client, "\"");
	size_t n = engine->got.n;
	say_chunk(w, client, "bc");
	assert_true(engine->got.n > n); /* at once */
	say_chunk(w, client, "\"}");
	say(w, client, "0\r\nx-sum: 7\r\nhost: evil\r\n\r\n");
	expect_request(engine, "POST /x HTTP/1.1", "{\"a\":\"bc\"}");
	assert_true(parsed_has(bytes_slice(&engine->got), "0\r\nx-sum: 7\r\n\r\n"));
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* What a head may not bring to an engine, a trailer may not either. */
static void test_trailers_that_do_not_go_on(void **state) {
	struct world *w = WORLD("m");
	for (unsigned flows = 0; flows < 2; flows++) {
		struct peer *client = ask(w,
		    "POST /x HTTP/1.1\r\nhost: h\r\nconnection: X-Mine, x-sum-of\r\ncontent-type: "
		    "text/plain\r\n"
		    "transfer-encoding: chunked\r\n\r\n");
		struct peer *engine = net_newest(0);
		peer_says(client, "2\r\nab\r\n");
		if (flows)
			world_settle(w);
		say(w, client,
		    "0\r\nx_sum: 1\r\nx-request-id: forged\r\nx-mine: 2\r\nX-Sum: 3\r\nsession_id: "
		    "4\r\n\r\n");
		expect_request(engine, "POST /x HTTP/1.1", "ab");
		assert_true(
		    parsed_has(bytes_slice(&engine->got), "\r\n0\r\nX-Sum: 3\r\nsession_id: 4\r\n\r\n"));
		say(w, engine, ANSWER_OK);
		expect_answer(client, 200, "ok");
		peer_close(engine);
		world_settle(w);
	}
	expect_end(w, 2);
}

static void test_chunked_answer_with_trailers(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
	say_chunk(w, engine, "ab");
	assert_true(parsed_has(peer_unseen(client), "ab")); /* in the turn in which it came */
	say_chunk(w, engine, "c");
	say(w, engine, "0\r\nx-sum: 7\r\ncontent-length: 9\r\n\r\n");
	assert_true(parsed_has(peer_unseen(client), "0\r\nx-sum: 7\r\n\r\n"));
	expect_answer(client, 200, "abc");
	assert_false(client->was_closed);
	expect_end(w, 1);
}

static void test_answer_up_to_the_end_of_the_connection(void **state) {
	struct world *w = WORLD("m");
	struct peer *modern = ask(w, GET), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\n\r\nabc");
	peer_close(engine);
	world_settle(w);
	struct parsed m = expect_answer_kind(modern, PARSED_RESPONSE, 200, "abc");
	assert_true(m.is_chunked);
	parsed_deinit(&m);
	assert_false(modern->was_shut);

	struct peer *old = ask(w, "GET /x HTTP/1.0\r\n\r\n");
	engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
	m = expect_answer_kind(old, PARSED_RESPONSE, 200, "abc");
	assert_true(m.is_to_end);
	expect_field(&m, "connection", "close");
	parsed_deinit(&m);
	expect_end(w, 2);
}

static void test_answers_without_a_body(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, "HEAD /x HTTP/1.1\r\nhost: h\r\n\r\n"), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n");
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE_TO_HEAD, 200, "");
	expect_field(&m, "content-length", "99");
	parsed_deinit(&m);

	say(w, client, GET);
	say(w, engine, "HTTP/1.1 204 No Content\r\n\r\n");
	m = expect_answer_kind(client, PARSED_RESPONSE, 204, "");
	expect_no_field(&m, "content-length");
	expect_no_field(&m, "transfer-encoding");
	parsed_deinit(&m);

	say(w, client, GET);
	say(w, engine, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n");
	expect_answer(client, 304, "");
	assert_int_equal(net_n_connects(-1), 1); /* all over one connection */
	expect_end(w, 3);
}

static void test_interim_answers(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
	expect_answer(client, 103, "");
	expect_nothing(client);
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");

	client = ask(w, "GET /x HTTP/1.0\r\n\r\n");
	say(w, engine, "HTTP/1.1 103 Early Hints\r\n\r\n" ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

static void test_expectation_is_met_by_the_router(void **state) {
	struct world *w = WORLD("m");
	struct peer *client =
	    ask(w, "POST /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
	expect_answer(client, 100, "");
	say(w, client, "abc");
	struct parsed m = expect_request_head(net_newest(0), "POST /x HTTP/1.1");
	expect_no_field(&m, "expect");
	expect_body(&m, "abc");
	parsed_deinit(&m);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_early_answer_ends_the_connection(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, 1000, "{\"a\":"), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\n\r\nno");
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 429, "no");
	expect_field(&m, "connection", "close");
	parsed_deinit(&m);
	assert_true(client->was_shut); /* the rest of the body is not waited for */
	expect_closed(engine);
	expect_end(w, 1);
}

/* --- connections ---------------------------------------------------------------------- */

static void test_connections_are_kept(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, ANSWER_OK);
	say(w, client, GET);
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_answer(client, 200, "ok");
	assert_int_equal(net_n_connects(-1), 1);
	world_pass(w, 20001); /* pool_idle */
	expect_closed(engine);
	expect_closed(client);
	expect_end(w, 2);
}

static void test_pipelined_requests_are_answered_in_order(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w,
	    "GET /1 HTTP/1.1\r\nhost: h\r\n\r\n"
	    "POST /2 HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"
	    "GET /3 HTTP/1.1\r\nhost: h\r\n\r\n");
	struct peer *engine = net_newest(0);
	expect_request(engine, "GET /1 HTTP/1.1", "");
	expect_nothing(engine); /* one at a time */
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1");
	expect_request(engine, "POST /2 HTTP/1.1", "abc");
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2");
	expect_request(engine, "GET /3 HTTP/1.1", "");
	say(w, engine, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3");
	expect_answer(client, 200, "1");
	expect_answer(client, 200, "2");
	expect_answer(client, 200, "3");
	expect_end(w, 3);
}

/* What nobody wants to read yet must not wake anybody: expect_end() knows. */
static void test_what_waits_in_the_socket_is_quiet(void **state) {
	struct world *w = WORLD("m");
	net.moods[0][0] = MOOD_SILENT;
	struct peer *connects = ask(w, GET GET), *uploads = post_part(w, CHAT, 100, "{\"a\":1,");
	say(w, uploads, "\"b\":2,");
	struct peer *stalls = net_client();
	peer_stall(stalls, 0);
	say(w, stalls, "GET /health HTTP/1.1\r\nhost: h\r\n\r\n" GET);
	world_pass(w, 400);
	assert_false(w->is_spinning);
	expect_nothing(connects);
	expect_end(w, 3);
}

/* The engine answered before it had all of the body, and the client goes on sending but does not read. */
static void test_upload_that_nobody_wants_is_quiet(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_part(w, CHAT, 1000, "{\"a\":"), *engine = net_newest(0);
	peer_stall(client, 10);
	say(w, engine, ANSWER_OK);
	say(w, client, "\"0123456789");
	assert_false(w->is_spinning);
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_engine_that_says_close_is_not_used_again(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 200, "ok");
	expect_no_field(&m, "connection");
	parsed_deinit(&m);
	expect_closed(engine);
	assert_false(client->was_shut);
	expect_end(w, 1);
}

static void test_bytes_behind_an_answer_end_the_connection(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, ANSWER_OK "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
	expect_answer(client, 200, "ok");
	expect_closed(engine);

	say(w, client, GET);
	engine = net_newest(0);
	say(w, engine, ANSWER_OK);
	say(w, engine, "x"); /* out of turn, while it is idle */
	expect_closed(engine);
	expect_answer(client, 200, "ok");
	expect_nothing(client);
	expect_end(w, 2);
}

/* --- in pieces ------------------------------------------------------------------------- */

static const char *const request_text =
    "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    "5\r\n{\"mod\r\n8\r\nel\":\"m\"}\r\n0\r\n\r\n";
static const char *const answer_text =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n1\r\ne\r\n0\r\nx-t: 1\r\n\r\n";

/* Both messages, cut in two. */
static void pass_in_pieces(size_t request_at, size_t answer_at) {
	struct world *w = WORLD("m", "other");
	struct peer *client = net_client();
	peer_say(client, slice_head(slice_of(request_text), request_at));
	world_settle(w);
	say(w, client, request_text + request_at);
	struct peer *engine = net_newest(-1);
	expect_request(engine, "POST /v1/chat/completions HTTP/1.1", "{\"model\":\"m\"}");
	peer_say(engine, slice_head(slice_of(answer_text), answer_at));
	world_settle(w);
	say(w, engine, answer_text + answer_at);
	expect_answer(client, 200, "abcde");
	assert_int_equal(engine->engine, 0);
	expect_end(w, 1);
}

static void test_cut_at_every_byte(void **state) {
	for (size_t at = 0; at < strlen(request_text); at++)
		pass_in_pieces(at, 0);
	for (size_t at = 0; at < strlen(answer_text); at++)
		pass_in_pieces(0, at);
}

static void test_byte_by_byte(void **state) {
	struct world *w = WORLD("m", "other");
	net.read_max = net.write_max = 1;
	struct peer *client = ask(w, request_text), *engine = net_newest(-1);
	expect_request(engine, "POST /v1/chat/completions HTTP/1.1", "{\"model\":\"m\"}");
	say(w, engine, answer_text);
	expect_answer(client, 200, "abcde");
	expect_end(w, 1);
}

/* --- our own endpoints ------------------------------------------------------------------- */

static void test_local_endpoints_ask_nobody(void **state) {
	static const char *const paths[] = { "/v1/models", "/models", "/health", "/liveness", "/readiness",
		"/services", "/stats" };
	struct world *w = WORLD("m,n", "n");
	struct peer *client = net_client();
	for (size_t i = 0; i < n_elems(paths); i++) {
		char text[64];
		snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nhost: h\r\n\r\n", paths[i]);
		say(w, client, text);
		expect_answer(client, 200, NULL);
	}
	say(w, client, "HEAD /health HTTP/1.1\r\nhost: h\r\n\r\n");
	parsed_deinit((struct parsed[]){ expect_answer_kind(client, PARSED_RESPONSE_TO_HEAD, 200, "") });
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 8);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_post_of_known_length),
		cmocka_unit_test(test_chunked_post_that_is_complete_gets_a_length),
		cmocka_unit_test(test_chunked_post_flows_while_it_arrives),
		cmocka_unit_test(test_trailers_that_do_not_go_on),
		cmocka_unit_test(test_chunked_answer_with_trailers),
		cmocka_unit_test(test_answer_up_to_the_end_of_the_connection),
		cmocka_unit_test(test_answers_without_a_body),
		cmocka_unit_test(test_interim_answers),
		cmocka_unit_test(test_expectation_is_met_by_the_router),
		cmocka_unit_test(test_early_answer_ends_the_connection),
		cmocka_unit_test(test_connections_are_kept),
		cmocka_unit_test(test_pipelined_requests_are_answered_in_order),
		cmocka_unit_test(test_what_waits_in_the_socket_is_quiet),
		cmocka_unit_test(test_upload_that_nobody_wants_is_quiet),
		cmocka_unit_test(test_engine_that_says_close_is_not_used_again),
		cmocka_unit_test(test_bytes_behind_an_answer_end_the_connection),
		cmocka_unit_test(test_cut_at_every_byte),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_local_endpoints_ask_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
