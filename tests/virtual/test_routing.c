/* Which engine a request goes to, what is held until that is known, and what is refused. */
#include "virtual/expect.h"

#define JSON_POST "POST " CHAT " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"

/* --- models --------------------------------------------------------------------------- */

static void expect_routed(struct world *w, const char *body, int engine) {
	struct peer *client = post(w, CHAT, body), *at = net_newest(-1);
	assert_int_equal(at->engine, engine);
	expect_request(at, "POST " CHAT " HTTP/1.1", body);
	say(w, at, ANSWER_OK);
	expect_answer(client, 200, "ok");
	peer_close(client);
	peer_close(at);
	world_settle(w);
}

static void test_model_decides(void **state) {
	struct world *w = WORLD("a", "b", "tenant/c");
	expect_routed(w, "{\"model\":\"a\"}", 0);
	expect_routed(w, "{\"messages\":[{\"model\":\"a\"}],\"model\":\"b\"}", 1);
	expect_routed(w, "{\"s\":\"\\\"model\\\":\\\"a\\\"\",\"mod\\u0065l\":\"\\u0062\"}", 1);
	expect_routed(w, "{\"model\":\"tenant\\/c\"}", 2);
	expect_end(w, 4);
}

static void test_without_a_model_anybody_serves(void **state) {
	struct world *w = WORLD("a", "b");
	unsigned n_at[2] = { 0 };
	for (unsigned i = 0; i < 4; i++) {
		struct peer *client = post(w, CHAT, i & 1 ? "{}" : "{\"model\":null}");
		n_at[net_newest(-1)->engine]++;
		peer_break(client);
		world_settle(w);
	}
	assert_int_equal(n_at[0], 2);
	assert_int_equal(n_at[1], 2);
	expect_end(w, 4);
}

static void test_only_json_posts_are_read(void **state) {
	static const char *const texts[] = {
		"PUT /x HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: "
		"12\r\n\r\n{\"model\":1}}",
		"POST /x HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\n{{{",
		"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
		"POST /x HTTP/1.1\r\nhost: h\r\ncontent-type: multipart/mixed\r\ncontent-length: "
		"1\r\n\r\n{",
	};
	struct world *w = WORLD("a", "b");
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct peer *client = ask(w, texts[i]);
		say(w, net_newest(-1), ANSWER_OK);
		expect_answer(client, 200, "ok");
		peer_close(net_newest(-1)); /* each request has a connection of its own */
		world_settle(w);
	}
	expect_end(w, n_elems(texts));
}

static void test_body_is_held_until_the_model_is_known(void **state) {
	struct world *w = WORLD("a", "b");
	const char *body = "{\"messages\":[],\"model\":\"b\",\"t\":[1,2,3]}";
	struct peer *client = post_part(w, CHAT, strlen(body), "{\"messages\":[],\"model\"");
	assert_int_equal(net_n_connects(-1), 0);
	say(w, client, ":\"b\"");
	struct peer *engine = net_newest(-1);
	assert_int_equal(engine->engine, 1); /* the rest flows */
	say(w, client, ",\"t\":[1,2,3]}");
	expect_request(engine, "POST " CHAT " HTTP/1.1", body);
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* Too late to choose by it, which one model does not need; but the log knows. */
static void test_late_model_is_logged(void **state) {
	enum { PROMPT_BYTES = 100000 };
	struct world *w = WORLD("m");
	w->config.inspect_limit_bytes = 1u << 20;
	char *prompt = calloc(1, PROMPT_BYTES + 1);
	memset(prompt, 'x', PROMPT_BYTES);
	struct peer *client = post_part(w, CHAT, PROMPT_BYTES + 20, "{\"p\":\""), *engine;
	say(w, client, prompt);
	engine = net_newest(0);
	assert_true(engine->got.n > PROMPT_BYTES);
	say(w, client, "\",\"model\":\"m\"}");
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_true(parsed_has(bytes_slice(&w->log), "\"model\":\"m\""));
	free(prompt);
	expect_end(w, 1);
}

static void test_expectation_is_met_before_the_model_is_known(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = ask(w, JSON_POST "expect: 100-continue\r\ncontent-length: 13\r\n\r\n");
	expect_answer(client, 100, "");
	say(w, client, "{\"model\":");
	expect_nothing(client); /* once */
	say(w, client, "\"a\"}");
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* --- refusals -------------------------------------------------------------------------- */

static void expect_refused(struct world *w, const char *body, unsigned status, const char *code) {
	struct peer *client = post(w, CHAT, body);
	expect_refusal(client, status, code);
	assert_false(client->was_shut); /* all of it was read: the connection goes on */
	peer_close(client);
	world_settle(w);
}

static void test_bodies_that_are_refused(void **state) {
	struct world *w = WORLD("a", "b");
	expect_refused(w, "{\"model\":\"c\"}", 404, "model_not_found");
	expect_refused(w, "{\"model\":\"a\",\"model\":\"b\"}", 400, "duplicate_model");
	expect_refused(w, "{\"model\":\"a\",\"\\u006dodel\":\"a\"}", 400, "duplicate_model");
	expect_refused(w, "{\"model\":\"a\"", 400, "invalid_json");
	expect_refused(w, "", 400, "invalid_json");
	expect_refused(w, "{\"model\":7}", 400, "bad_request");
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 6);
}

#define FORM_POST                                                                                            \
	"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: h\r\ncontent-type: multipart/form-data; "           \
	"boundary=x\r\n"

static void test_the_model_of_a_form_decides(void **state) {
	static const char *const bodies[] = {
		"--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nb\r\n--x--",
		"--x\r\n\r\nwav\r\n--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nb\r\n--x--",
	};
	struct world *w = WORLD("a", "b");
	for (size_t i = 0; i < n_elems(bodies); i++) {
		char text[400];
		snprintf(text, sizeof(text), FORM_POST "content-length: %zu\r\n\r\n%s", strlen(bodies[i]),
		    bodies[i]);
		struct peer *client = ask(w, text), *engine = net_newest(-1);
		assert_int_equal(engine->engine, 1);
		expect_request(engine, "POST /v1/audio/transcriptions HTTP/1.1", bodies[i]);
		say(w, engine, ANSWER_OK);
		expect_answer(client, 200, "ok");
		peer_close(engine);
		world_settle(w);
	}
	expect_end(w, 2);
}

static void test_forms_that_are_refused(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = ask(w, FORM_POST "content-length: 5\r\n\r\n--x\r\n");
	expect_refusal(client, 400, "bad_request");
	assert_true(parsed_has(bytes_slice(&w->log), "\"cause\":\"form\""));
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 1);
}

static void test_bad_headers_of_ours_are_refused(void **state) {
	struct world *w = WORLD("a");
	struct peer *client = ask(w, "GET /x HTTP/1.1\r\nhost: h\r\nx-headrace-privacy: secret\r\n\r\n");
	expect_refusal(client, 400, "bad_request");
	assert_true(parsed_has(bytes_slice(&w->log), "\"cause\":\"bad_header\""));
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 1);
}

static void test_compressed_json(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = ask(w, JSON_POST "content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc");
	expect_refusal(client, 415, "unsupported_encoding");
	client =
	    ask(w, JSON_POST "content-encoding: identity\r\ncontent-length: 13\r\n\r\n{\"model\":\"a\"}");
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

static void test_refusals_have_the_shape_of_the_api(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = post(w, "/v1/messages", "{\"model\":\"c\"}");
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 404, NULL);
	assert_true(parsed_has(bytes_slice(&m.body), "\"type\":\"error\""));
	assert_true(parsed_has(bytes_slice(&m.body), "\"type\":\"not_found_error\""));
	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"model_not_found\""));
	parsed_deinit(&m);
	expect_end(w, 1);
}

static void test_malformed_request_reaches_nobody(void **state) {
	static const char *const texts[] = {
		"GET /x HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n",
		"GET /x HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
		"GET /x HTTP/1.1\nhost: h\n\n",
	};
	struct world *w = WORLD("m");
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct peer *client = ask(w, texts[i]);
		expect_refusal(client, 400, "bad_request");
		assert_true(client->was_shut);
	}
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, n_elems(texts));
}

/* An authority is no path, and what stands in it may be somebody's key. */
static void test_keys_in_targets_are_not_logged(void **state) {
	static const char *const texts[] = {
		"GET http://user:hunter2@h/ HTTP/1.1\r\nhost: h\r\n\r\n",
		"GET http://user:hunter2@h/ HTTP/1.1\r\nhost: user:hunter2@h\r\n\r\n",
		"GET http://user:hunter2@h/ HTTP/1.1\r\n\r\n",
		"GET http://user:hunter2@h/ HTTP/1.1\r\nhost: h\r\nbad\r\n\r\n",
		"CONNECT user:hunter2@h:80 HTTP/1.1\r\nhost: h\r\n\r\n",
		"GET user:hunter2@h HTTP/1.1\r\nhost: h\r\n\r\n",
	};
	struct world *w = WORLD("m");
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct peer *client = ask(w, texts[i]);
		assert_true(client->was_shut);
		assert_false(parsed_has(bytes_slice(&w->log), "hunter2"));
		assert_false(parsed_has(bytes_slice(&client->got), "hunter2"));
	}
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, n_elems(texts));
}

/* A path that is long once it is escaped does not push the rest out of the log. */
static void test_strange_path_is_logged(void **state) {
	static const char *const tails[] = { " HTTP/1.1\r\nhost: h\r\n\r\n",
		" HTTP/1.1\r\nhost: \xff\r\n\r\n" };
	for (size_t i = 0; i < n_elems(tails); i++) {
		struct world *w = WORLD("m");
		char text[3000] = "GET /";
		memset(text + 5, 0x80, 2000);
		memcpy(text + 2005, tails[i], strlen(tails[i]) + 1);
		struct peer *client = ask(w, text);
		if (net_newest(0))
			say(w, net_newest(0), ANSWER_OK);
		expect_answer(client, i ? 400 : 200, NULL);
		expect_logged(w, i ? 400 : 200, i ? "malformed" : "none");
		expect_end(w, 1);
	}
}

static void test_bad_chunks_end_both_sides(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_chunked(w, CHAT);
	say_chunk(w, client, "{\"a\":");
	struct peer *engine = net_newest(0);
	say(w, client, "zz\r\n");
	expect_refusal(client, 400, "bad_request");
	assert_true(client->was_shut);
	expect_closed(engine);
	struct parsed m = expect_message(engine, PARSED_REQUEST);
	assert_false(m.is_whole);
	parsed_deinit(&m);
	expect_end(w, 1);
}

/* The engine has all of the body but what makes it wrong, and so never a complete one. */
static void test_late_mistakes_leave_the_body_incomplete(void **state) {
	static const struct {
		const char *text, *code;
	} late[] = {
		{ ",\"model\":\"m\"}", "duplicate_model" },
		{ ",\"mode\\u006c\":1}", "duplicate_model" },
		{ "]}", "invalid_json" },
		{ "}}", "invalid_json" },
	};
	for (size_t i = 0; i < n_elems(late); i++) {
		struct world *w = WORLD("m", "other");
		size_t n = strlen("{\"model\":\"m\",\"a\":1") + strlen(late[i].text);
		struct peer *client = post_part(w, CHAT, n, "{\"model\":\"m\",\"a\":1"),
			    *engine = net_newest(0);
		assert_non_null(engine);
		say(w, client, late[i].text);
		expect_refusal(client, 400, late[i].code);
		expect_closed(engine);
		struct parsed m = expect_message(engine, PARSED_REQUEST);
		assert_false(m.is_whole);
		parsed_deinit(&m);
		expect_end(w, 1);
	}
}

static void test_late_end_of_the_json(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post_chunked(w, CHAT), *engine;
	say_chunk(w, client, "{\"model\":\"m\"");
	engine = net_newest(0);
	say(w, client, "0\r\n\r\n"); /* the body ends, the text has not */
	expect_refusal(client, 400, "invalid_json");
	struct parsed m = expect_message(engine, PARSED_REQUEST);
	assert_false(m.is_whole);
	parsed_deinit(&m);
	expect_end(w, 1);
}

/* --- engines that do not speak HTTP ------------------------------------------------------- */

static void test_malformed_answers(void **state) {
	static const char *const texts[] = {
		"hello\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
		"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
		"HTTP/1.1 200 OK\nfoo: bar\n\n",
		"HTTP/1.1 200 OK\r\nx: \001\r\n\r\n",
		"HTTP/2.0 200 OK\r\n\r\n",
	};
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct world *w = WORLD("m", "m");
		struct peer *client = ask(w, GET), *engine = net_newest(-1);
		say(w, engine, texts[i]);
		expect_refusal(client, 502, "upstream_failed");
		expect_closed(engine);
		assert_int_equal(net_n_connects(-1), 1); /* it answered: nobody else is asked */
		expect_logged(w, 502, "upstream_malformed");
		expect_end(w, 1);
	}
}

static void test_bad_chunk_in_an_answer_cuts_it(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	say(w, engine, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
	say(w, engine, "3\r\nabcd\r\n");
	expect_cut(client, NULL);
	expect_closed(engine);
	expect_logged(w, 200, "stream_broken");
	expect_end(w, 1);
}

static void test_endless_interim_answers(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *engine = net_newest(0);
	for (unsigned i = 0; i < 100 && !engine->was_closed; i++)
		say(w, engine, "HTTP/1.1 103 Early Hints\r\n\r\n");
	expect_closed(engine);
	for (unsigned i = 0; i < 64; i++)
		expect_answer(client, 103, "");
	expect_refusal(client, 502, "upstream_failed");
	expect_end(w, 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model_decides),
		cmocka_unit_test(test_without_a_model_anybody_serves),
		cmocka_unit_test(test_only_json_posts_are_read),
		cmocka_unit_test(test_body_is_held_until_the_model_is_known),
		cmocka_unit_test(test_late_model_is_logged),
		cmocka_unit_test(test_expectation_is_met_before_the_model_is_known),
		cmocka_unit_test(test_bodies_that_are_refused),
		cmocka_unit_test(test_the_model_of_a_form_decides),
		cmocka_unit_test(test_forms_that_are_refused),
		cmocka_unit_test(test_bad_headers_of_ours_are_refused),
		cmocka_unit_test(test_compressed_json),
		cmocka_unit_test(test_refusals_have_the_shape_of_the_api),
		cmocka_unit_test(test_malformed_request_reaches_nobody),
		cmocka_unit_test(test_keys_in_targets_are_not_logged),
		cmocka_unit_test(test_strange_path_is_logged),
		cmocka_unit_test(test_bad_chunks_end_both_sides),
		cmocka_unit_test(test_late_mistakes_leave_the_body_incomplete),
		cmocka_unit_test(test_late_end_of_the_json),
		cmocka_unit_test(test_malformed_answers),
		cmocka_unit_test(test_bad_chunk_in_an_answer_cuts_it),
		cmocka_unit_test(test_endless_interim_answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
