#include "unit/http/wire.h"

#include <jansson.h>

#include "http/reply.h"

static void answers_are_whole(void **state) {
	static const struct {
		struct reply reply;
		const char *text;
	} rows[] = {
		{ { .status = 200 }, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" },
		{ { .status = 200, .content_type = SLICE("text/plain"), .body = SLICE("hi") },
		    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi" },
		{ { .status = 200, .is_head = true, .body = SLICE("hi") },
		    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" },
		{ { .status = 405, .allow = SLICE("GET"), .closes = true, .request_id = SLICE("id-1") },
		    "HTTP/1.1 405 Method Not Allowed\r\nx-request-id: id-1\r\nallow: GET\r\nconnection: "
		    "close\r\n"
		    "content-length: 0\r\n\r\n" },
		{ { .status = 503, .retry_after_s = 12, .keeps_http10 = true },
		    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 12\r\nconnection: keep-alive\r\n"
		    "content-length: 0\r\n\r\n" },
		{ { .status = 204, .body = SLICE("hi") }, "HTTP/1.1 204 No Content\r\n\r\n" },
		{ { .status = 401, .authenticate = SLICE("Bearer") },
		    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct wire w;
		wire_open(&w, FRAMING_NONE, 0);
		assert_int_equal(reply_send(&w.call, &rows[i].reply), 0);
		assert_true(w.call.out_is_done);
		wire_heard(&w, rows[i].text);
		wire_close(&w);
	}
}

static void a_refusal_is_the_row_of_its_cause(void **state) {
	struct reply reply = { .closes = true, .request_id = SLICE("r") };
	struct wire w;
	wire_open(&w, FRAMING_NONE, 0);
	assert_int_equal(reply_refuse(&w.call, &reply, CAUSE_OVERLOADED, NULL, REPLY_OPENAI), 0);
	wire_heard(&w,
	    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nx-request-id: r\r\n"
	    "retry-after: 1\r\nconnection: close\r\ncontent-length: 113\r\n\r\n"
	    "{\"error\":{\"message\":\"the router holds as much as it may\",\"type\":\"server_error\","
	    "\"param\":null,\"code\":\"overloaded\"}}");
	wire_close(&w);
}

static void a_refusal_may_know_better_how_long_to_wait(void **state) {
	struct reply reply = { .closes = true, .retry_after_s = 42 };
	struct wire w;
	wire_open(&w, FRAMING_NONE, 0);
	assert_int_equal(reply_refuse(&w.call, &reply, CAUSE_BREAKERS_OPEN, NULL, REPLY_PLAIN), 0);
	wire_heard(&w,
	    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 42\r\n"
	    "connection: close\r\ncontent-length: 107\r\n\r\n"
	    "{\"error\":\"every instance that could take the request failed too often lately\","
	    "\"code\":\"no_healthy_instance\"}");
	wire_close(&w);
}

static void who_is_gone_is_told(void **state) {
	struct reply reply = { .closes = true };
	struct wire w;
	wire_open(&w, FRAMING_NONE, 0);
	wire_end(&w, true);
	assert_int_equal(reply_refuse(&w.call, &reply, CAUSE_MALFORMED, NULL, REPLY_OPENAI), CALL_E_GONE);
	wire_close(&w);
}

static void it_follows_the_request(void **state) {
	static const struct {
		const char *text;
		bool is_last, is_head, closes, keeps_http10;
	} rows[] = {
		{ "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, false, false, false },
		{ "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", true, true, true, false },
		{ "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, false, true, false },
		{ "GET / HTTP/1.0\r\n\r\n", false, false, true, false },
		{ "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, false, false, true },
		{ "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, false, true, false },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room room;
		struct reply reply = { .status = 200 };
		enum cause cause;
		assert_int_equal(head_parse_request(&room, slice_of(rows[i].text), &cause), 0);
		reply_follow(&reply, &room.head, rows[i].is_last);
		assert_int_equal(reply.is_head, rows[i].is_head);
		assert_int_equal(reply.closes, rows[i].closes);
		assert_int_equal(reply.keeps_http10, rows[i].keeps_http10);
	}
}

static void paths_have_dialects(void **state) {
	static const struct {
		const char *path;
		enum reply_dialect dialect;
	} rows[] = { { "/", REPLY_OPENAI }, { "/v1/chat/completions", REPLY_OPENAI },
		{ "/v1/message", REPLY_OPENAI }, { "/v1/messages", REPLY_ANTHROPIC },
		{ "/v1/messages/count_tokens", REPLY_ANTHROPIC }, { "/v1/responses", REPLY_RESPONSES },
		{ "/v1/responses/resp_1/cancel", REPLY_RESPONSES } };
	for (size_t i = 0; i < n_elems(rows); i++)
		assert_int_equal(reply_dialect(REPLY_BY_PATH, slice_of(rows[i].path)), rows[i].dialect);
	assert_int_equal(reply_dialect(REPLY_PLAIN, SLICE("/v1/messages")), REPLY_PLAIN);
}

/* The value at a path of keys joined by dots. */
static const char *string_at(const json_t *json, const char *path) {
	char key[40];
	for (const char *p = path; *p; p += strcspn(p, "."), p += *p == '.') {
		snprintf(key, sizeof(key), "%.*s", (int)strcspn(p, "."), p);
		json = json_object_get(json, key);
	}
	assert_true(json_is_string(json));
	return json_string_value(json);
}

static void errors_have_the_shape_of_their_api(void **state) {
	static const enum reply_dialect dialects[] = { REPLY_OPENAI, REPLY_ANTHROPIC, REPLY_RESPONSES };
	static const char *const details[] = { NULL, "a \"detail\"", "bad \xff text" };
	for (size_t d = 0; d < n_elems(dialects); d++) {
		for (unsigned cause = 1; cause < N_CAUSES; cause++) {
			const struct cause_row *row = cause_row((enum cause)cause);
			const char *detail = details[cause % n_elems(details)];
			char *text = reply_error_text((enum cause)cause, detail, dialects[d]);
			json_t *json = json_loads(text, 0, NULL);
			assert_string_equal(string_at(json, "error.code"), row->code);
			const char *message = string_at(json, "error.message");
			assert_memory_equal(message, row->message, strlen(row->message));
			assert_string_equal(
			    message + strlen(row->message), detail == details[1] ? ": a \"detail\"" : "");
			if (dialects[d] == REPLY_ANTHROPIC) {
				assert_string_equal(string_at(json, "type"), "error");
				assert_string_equal(
				    string_at(json, "error.type"), cause_anthropic_type(row->status));
			} else {
				assert_string_equal(string_at(json, "error.type"), row->type);
				assert_true(
				    json_is_null(json_object_get(json_object_get(json, "error"), "param")));
			}
			json_decref(json);
			free(text);
		}
	}
}

static void plain_errors_are_flat(void **state) {
	static const struct {
		const char *detail, *text;
	} rows[] = {
		{ NULL, "{\"error\":\"the request body stopped arriving\",\"code\":\"client_timeout\"}" },
		{ "x", "{\"error\":\"the request body stopped arriving: x\",\"code\":\"client_timeout\"}" },
		{ "\xff", "{\"error\":\"the request body stopped arriving\",\"code\":\"client_timeout\"}" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		char *text = reply_error_text(CAUSE_BODY_TIMEOUT, rows[i].detail, REPLY_PLAIN);
		assert_string_equal(text, rows[i].text);
		free(text);
	}
}

/* Byte for byte, and everything else with the words of our own table. */
static void another_systems_errors(void **state) {
	static const struct {
		enum cause cause;
		const char *detail;
		unsigned status;
		const char *text;
	} rows[] = {
		{ CAUSE_NO_INSTANCE, NULL, 503,
		    "{\"error\":\"No healthy services available\",\"code\":\"no_healthy_instance\"}" },
		{ CAUSE_NO_INSTANCE, "m", 503,
		    "{\"error\":\"No healthy services available for model "
		    "'m'\",\"code\":\"no_healthy_instance\"}" },
		{ CAUSE_MODEL_NOT_FOUND, "a\"b", 503,
		    "{\"error\":\"No healthy services available for model "
		    "'a\\\"b'\",\"code\":\"model_not_found\"}" },
		{ CAUSE_MODEL_NOT_FOUND, "\xff", 503,
		    "{\"error\":\"No healthy services available\",\"code\":\"model_not_found\"}" },
		{ CAUSE_CONNECT_FAILED, NULL, 503,
		    "{\"error\":\"Service unavailable - connection refused\",\"code\":\"upstream_failed\"}" },
		{ CAUSE_CONNECT_TIMEOUT, NULL, 504, "{\"error\":\"Service timeout\",\"code\":\"timeout\"}" },
		{ CAUSE_FIRST_BYTE_TIMEOUT, NULL, 504,
		    "{\"error\":\"Service timeout\",\"code\":\"timeout\"}" },
		{ CAUSE_TOTAL_TIMEOUT, NULL, 504, "{\"error\":\"Service timeout\",\"code\":\"timeout\"}" },
		{ CAUSE_STREAM_STALLED, NULL, 504, "{\"error\":\"Service timeout\",\"code\":\"timeout\"}" },
		{ CAUSE_UPSTREAM_CLOSED, NULL, 502,
		    "{\"error\":\"Bad gateway - error communicating with "
		    "service\",\"code\":\"upstream_failed\"}" },
		{ CAUSE_UPSTREAM_MALFORMED, NULL, 502,
		    "{\"error\":\"Bad gateway - error communicating with "
		    "service\",\"code\":\"upstream_failed\"}" },
		{ CAUSE_STREAM_BROKEN, NULL, 502,
		    "{\"error\":\"Failed to read response from service\",\"code\":\"upstream_failed\"}" },
		{ CAUSE_BODY_MALFORMED, NULL, 400,
		    "{\"error\":\"Failed to read request body\",\"code\":\"bad_request\"}" },
		{ CAUSE_METHOD, NULL, 400,
		    "{\"error\":\"Invalid HTTP method\",\"code\":\"not_implemented\"}" },
		{ CAUSE_BODY_TOO_LARGE, NULL, 413,
		    "{\"error\":\"the request body is larger than the limit\",\"code\":\"body_too_large\"}" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		char *text = reply_error_text(rows[i].cause, rows[i].detail, REPLY_INFINILM);
		assert_string_equal(text, rows[i].text);
		assert_int_equal(reply_error(rows[i].cause, REPLY_INFINILM).status, rows[i].status);
		free(text);
	}
	for (unsigned cause = 1; cause < N_CAUSES; cause++)
		assert_int_equal(reply_error((enum cause)cause, REPLY_OPENAI).status,
		    cause_row((enum cause)cause)->status);
}

static void the_status_line_is_the_dialects(void **state) {
	struct reply reply = { .request_id = SLICE("r") };
	struct wire w;
	wire_open(&w, FRAMING_NONE, 0);
	assert_int_equal(reply_refuse(&w.call, &reply, CAUSE_MODEL_NOT_FOUND, "m", REPLY_INFINILM), 0);
	assert_int_equal(reply.status, 503);
	wire_heard(&w,
	    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nx-request-id: r\r\n"
	    "content-length: 80\r\n\r\n"
	    "{\"error\":\"No healthy services available for model 'm'\",\"code\":\"model_not_found\"}");
	wire_close(&w);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_whole),
		cmocka_unit_test(a_refusal_is_the_row_of_its_cause),
		cmocka_unit_test(a_refusal_may_know_better_how_long_to_wait),
		cmocka_unit_test(who_is_gone_is_told),
		cmocka_unit_test(it_follows_the_request),
		cmocka_unit_test(paths_have_dialects),
		cmocka_unit_test(errors_have_the_shape_of_their_api),
		cmocka_unit_test(plain_errors_are_flat),
		cmocka_unit_test(another_systems_errors),
		cmocka_unit_test(the_status_line_is_the_dialects),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
