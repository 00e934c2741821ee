#include "unit/unit.h"

#include "engine/mock.h"

static struct mock mock;
static struct mock_config config;

static int set_up(void **state) {
	char *argv[] = { "mock-engine", "--models", "m,n", "--fault", "reset:1", "--max-model-len", "500",
		NULL };
	if (mock_config_load(&config, 7, argv) != -1)
		return -1;
	mock_core_init(&mock, &config, 1000);
	return 0;
}

static int tear_down(void **state) {
	mock_core_deinit(&mock);
	mock_config_deinit(&config);
	return 0;
}

/* The caller owns what is returned: NULL when there is no body of JSON. */
static json_t *ask(const char *method, const char *path, const char *body, uint32_t status) {
	const struct mock_request request = { slice_of(method), slice_of(path), slice_of(body), false };
	struct mock_response r;
	mock_answer(&mock, &request, &r);
	assert_int_equal(r.status, status);
	json_t *json = NULL;
	if (r.content_type && strcmp(r.content_type, "application/json") == 0)
		json = json_loadb(r.body.p, r.body.n, 0, NULL);
	bytes_deinit(&r.body);
	return json;
}

static void assert_member(json_t *json, const char *key, const char *value) {
	assert_string_equal(json_string_value(json_object_get(json, key)), value);
	json_decref(json);
}

static void models_are_listed(void **state) {
	json_t *json = ask("GET", "/v1/models", "", 200);
	const json_t *data = json_object_get(json, "data"), *second = json_array_get(data, 1);
	assert_int_equal(json_array_size(data), 2);
	assert_string_equal(json_string_value(json_object_get(second, "id")), "n");
	assert_string_equal(json_string_value(json_object_get(second, "root")), "n");
	assert_string_equal(json_string_value(json_object_get(second, "object")), "model");
	assert_string_equal(json_string_value(json_object_get(second, "owned_by")), "vllm");
	assert_true(json_is_null(json_object_get(second, "parent")));
	assert_int_equal(json_integer_value(json_object_get(second, "max_model_len")), 500);
	const json_t *permission = json_array_get(json_object_get(second, "permission"), 0);
	const char *id = json_string_value(json_object_get(permission, "id"));
	assert_int_equal(json_array_size(json_object_get(second, "permission")), 1);
	assert_true(strncmp(id, "modelperm-", 10) == 0 && strlen(id) == 42);
	assert_string_equal(json_string_value(json_object_get(permission, "object")), "model_permission");
	assert_true(json_is_integer(json_object_get(permission, "created")));
	assert_true(json_is_false(json_object_get(permission, "allow_create_engine")));
	assert_true(json_is_true(json_object_get(permission, "allow_sampling")));
	assert_string_equal(json_string_value(json_object_get(permission, "organization")), "*");
	assert_true(json_is_null(json_object_get(permission, "group")));
	json_t *again = ask("GET", "/v1/models", "", 200);
	assert_true(json_equal(json, again)); /* whoever compares sees no change */
	json_decref(again);
	json_decref(json);
}

static void health_has_no_body(void **state) {
	struct mock_request request = { SLICE("GET"), SLICE("/health"), SLICE(""), false };
	struct mock_response r;
	mock_answer(&mock, &request, &r);
	assert_int_equal(r.status, 200);
	assert_null(r.content_type);
	assert_int_equal(r.body.n, 0);
	request.is_sick = true;
	mock_answer(&mock, &request, &r);
	assert_int_equal(r.status, 503);
	json_decref(ask("POST", "/mock/faults", "health:fail", 200));
	assert_null(ask("GET", "/health", "", 503));
	json_decref(ask("POST", "/mock/faults", "health:ok", 200));
	assert_null(ask("GET", "/health", "", 200));
}

static void version_and_load(void **state) {
	json_t *json = ask("GET", "/version", "", 200);
	assert_true(json_is_string(json_object_get(json, "version")));
	json_decref(json);
	mock.n_serving = 3;
	json = ask("GET", "/load", "", 200);
	assert_int_equal(json_integer_value(json_object_get(json, "server_load")), 3);
	json_decref(json);
	mock.n_serving = 0;
}

static void metrics_are_text(void **state) {
	const struct mock_request request = { SLICE("GET"), SLICE("/metrics"), SLICE(""), false };
	struct mock_response r;
	mock_answer(&mock, &request, &r);
	assert_int_equal(r.status, 200);
	assert_string_equal(r.content_type, "text/plain; version=0.0.4; charset=utf-8");
	assert_non_null(memmem(r.body.p, r.body.n, "model_name=\"m\"} 0\n", 18));
	bytes_deinit(&r.body);
}

static void faults_are_set_in_two_ways(void **state) {
	assert_member(ask("GET", "/mock/faults", "", 200), "fault", "reset:1");
	assert_member(ask("POST", "/mock/faults", "{\"fault\":\"status:503\"}", 200), "fault", "status:503");
	assert_int_equal(fault_judge(&mock.fault).status, 503);
	assert_member(ask("POST", "/mock/faults", "hang_head,latency:1s\r\n", 200), "fault",
	    "hang_head,latency:1000ms");
	assert_member(ask("POST", "/mock/faults", "hang", 400), "error", "\"hang\" is no fault");
	assert_member(
	    ask("POST", "/mock/faults", "{\"fault\":7}", 400), "error", "expected {\"fault\":\"SPEC\"}");
	assert_member(ask("GET", "/mock/faults", "", 200), "fault", "hang_head,latency:1000ms");
	assert_member(ask("POST", "/mock/faults", "", 200), "fault", "none");
}

static void a_reset_puts_everything_back(void **state) {
	uint64_t ticket = ledger_start(mock.ledger, SLICE("x"), "chat", "m", false, 2000);
	ledger_end(mock.ledger, ticket, LEDGER_FINISHED, NULL, 1, 3000);
	capture_add(&mock.capture, &(struct capture_request){ .method = SLICE("GET") });
	json_decref(ask("POST", "/mock/faults", "crash", 200));
	assert_member(ask("POST", "/mock/reset", "", 200), "fault", "reset:1");
	json_t *json = ask("GET", "/mock/ledger", "", 200);
	assert_int_equal(json_array_size(json_object_get(json, "generations")), 0);
	json_decref(json);
	json = ask("GET", "/captured_requests", "", 200);
	assert_int_equal(json_array_size(json_object_get(json, "requests")), 0);
	json_decref(json);
}

static void captured_requests_can_be_cleared(void **state) {
	capture_add(
	    &mock.capture, &(struct capture_request){ .method = SLICE("GET"), .target = SLICE("/x") });
	json_t *json = ask("GET", "/captured_requests", "", 200);
	assert_int_equal(json_array_size(json_object_get(json, "requests")), 1);
	json_decref(json);
	json = ask("DELETE", "/captured_requests", "", 200);
	assert_int_equal(json_array_size(json_object_get(json, "requests")), 0);
	json_decref(json);
}

static void tokens_are_counted(void **state) {
	json_t *json = ask("POST", "/tokenize", "{\"prompt\":\"12345\"}", 200);
	assert_int_equal(json_integer_value(json_object_get(json, "count")), 2);
	json_decref(json);
	json = ask("POST", "/v1/messages/count_tokens",
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 200);
	assert_int_equal(json_integer_value(json_object_get(json, "input_tokens")), 7); /* 25 bytes */
	json_decref(json);
	assert_member(ask("POST", "/v1/messages/count_tokens", "[]", 400), "type", "error");
	json = ask("POST", "/tokenize", "[]", 400);
	assert_true(json_is_object(json_object_get(json, "error")));
	json_decref(json);
}

static void assert_missing(const char *method, const char *path) {
	json_t *json = ask(method, path, "", 404);
	const json_t *error = json_object_get(json, "error");
	assert_string_equal(
	    json_string_value(json_object_get(error, "message")), "Response with id 'resp_a' not found.");
	assert_string_equal(json_string_value(json_object_get(error, "type")), "invalid_request_error");
	assert_true(json_is_null(json_object_get(error, "param")));
	assert_int_equal(json_integer_value(json_object_get(error, "code")), 404);
	json_decref(json);
}

static void stored_responses_are_shown(void **state) {
	char id[] = "resp_a";
	assert_missing("GET", "/v1/responses/resp_a");
	assert_missing("DELETE", "/v1/responses/resp_a");
	assert_missing("POST", "/v1/responses/resp_a/cancel");
	stored_put(&mock.stored, &(struct stored_response){ id, "m", 77, true });
	json_t *json = ask("GET", "/v1/responses/resp_a", "", 200);
	assert_int_equal(json_integer_value(json_object_get(json, "created_at")), 77);
	assert_string_equal(json_string_value(json_object_get(json, "object")), "response");
	assert_string_equal(json_string_value(json_object_get(json, "status")), "completed");
	assert_string_equal(json_string_value(json_object_get(json, "model")), "m");
	assert_member(json, "id", "resp_a");
	json = ask("POST", "/v1/responses/resp_a/cancel", "", 400);
	assert_string_equal(json_string_value(json_object_get(json_object_get(json, "error"), "message")),
	    "Cannot cancel a synchronous response.");
	json_decref(json);
	json_decref(ask("GET", "/v1/responses/resp_a/x", "", 404));
	json_decref(ask("PUT", "/v1/responses/resp_a", "", 404));
	json_decref(ask("GET", "/v1/responses/", "", 404));
	json_decref(ask("GET", "/v1/responses/resp_a", "", 200));
	json = ask("DELETE", "/v1/responses/resp_a", "", 200);
	assert_true(json_is_true(json_object_get(json, "deleted")));
	assert_member(json, "id", "resp_a");
	assert_missing("GET", "/v1/responses/resp_a");
	stored_put(&mock.stored, &(struct stored_response){ id, "m", 77, false });
	assert_member(ask("GET", "/v1/responses/resp_a", "", 200), "status", "incomplete");
	json_decref(ask("POST", "/mock/reset", "", 200));
	assert_missing("GET", "/v1/responses/resp_a");
}

static void what_is_not_there(void **state) {
	static const struct {
		const char *method, *path, *allow;
	} rows[] = { { "GET", "/nowhere", NULL }, { "POST", "/health", "GET" }, { "HEAD", "/health", "GET" },
		{ "GET", "/v1/chat/completions", "POST" }, { "PUT", "/mock/reset", "POST" },
		{ "GET", "/", NULL } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		const struct mock_request request = { slice_of(rows[i].method), slice_of(rows[i].path),
			SLICE(""), false };
		struct mock_response r;
		mock_answer(&mock, &request, &r);
		assert_int_equal(r.status, rows[i].allow ? 405 : 404);
		if (rows[i].allow)
			assert_string_equal(r.allow, rows[i].allow);
		bytes_deinit(&r.body);
	}
	assert_member(ask("GET", "/nowhere", "", 404), "detail", "Not Found");
	assert_member(ask("POST", "/health", "", 405), "detail", "Method Not Allowed");
}

static void wrong_options_are_refused(void **state) {
	static char *wrong[][3] = { { "mock-engine", "--fault", "nonsense" },
		{ "mock-engine", "--models", "a\"b" }, { "mock-engine", "--block-tokens", "0" },
		{ "mock-engine", "--reply", "song" } };
	for (size_t i = 0; i < n_elems(wrong); i++) {
		struct mock_config c;
		assert_int_equal(mock_config_load(&c, 3, wrong[i]), 2);
		mock_config_deinit(&c);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(models_are_listed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(health_has_no_body, set_up, tear_down),
		cmocka_unit_test_setup_teardown(version_and_load, set_up, tear_down),
		cmocka_unit_test_setup_teardown(metrics_are_text, set_up, tear_down),
		cmocka_unit_test_setup_teardown(faults_are_set_in_two_ways, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_reset_puts_everything_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(captured_requests_can_be_cleared, set_up, tear_down),
		cmocka_unit_test_setup_teardown(tokens_are_counted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stored_responses_are_shown, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_there, set_up, tear_down),
		cmocka_unit_test(wrong_options_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
