#include "unit/unit.h"

#include "base/cause.h"
#include "base/slice.h"

static void nothing_went_wrong(void **state) {
	const struct cause_row *row = cause_row(CAUSE_NONE);
	assert_string_equal(row->label, "none");
	assert_int_equal(row->status, 200);
}

static void rows_say_what_they_should(void **state) {
	static const struct {
		enum cause cause;
		unsigned status;
		const char *label, *code, *type;
		bool helps_to_wait;
	} rows[] = {
		{ CAUSE_MALFORMED, 400, "malformed", "bad_request", "invalid_request_error", false },
		{ CAUSE_HEAD_TOO_LARGE, 431, "head_too_large", "head_too_large", "invalid_request_error",
		    false },
		{ CAUSE_BODY_TOO_LARGE, 413, "body_too_large", "body_too_large", "invalid_request_error",
		    false },
		{ CAUSE_MODEL_LATE, 413, "model_late", "model_not_found_in_time", "invalid_request_error",
		    false },
		{ CAUSE_ENCODING, 415, "encoding", "unsupported_encoding", "invalid_request_error", false },
		{ CAUSE_OVERLOADED, 503, "overloaded", "overloaded", "server_error", true },
		{ CAUSE_NO_INSTANCE, 503, "no_instance", "no_healthy_instance", "server_error", true },
		{ CAUSE_FIRST_BYTE_TIMEOUT, 504, "first_byte_timeout", "timeout", "server_error", false },
		{ CAUSE_CLIENT_GONE, 499, "client_gone", "client_gone", "invalid_request_error", false },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		const struct cause_row *row = cause_row(rows[i].cause);
		assert_int_equal(row->status, rows[i].status);
		assert_string_equal(row->label, rows[i].label);
		assert_string_equal(row->code, rows[i].code);
		assert_string_equal(row->type, rows[i].type);
		assert_int_equal(row->retry_after_s > 0, rows[i].helps_to_wait);
	}
}

/* The codes that are promised, and the one of a client that will not read it. */
static bool is_stable_code(const char *code) {
	static const char *const codes[] = { "invalid_json", "duplicate_model", "model_not_found",
		"model_not_found_in_time", "unsupported_encoding", "body_too_large", "head_too_large",
		"bad_request", "client_timeout", "upstream_failed", "timeout", "no_healthy_instance",
		"overloaded", "not_implemented", "client_gone", "unsupported_capability",
		"unsupported_feature", "context_length_exceeded", "privacy_violation", "over_budget",
		"slo_unattainable", "invalid_api_key", "tenant_denied", "rate_limit_exceeded" };
	for (size_t i = 0; i < n_elems(codes); i++)
		if (strcmp(codes[i], code) == 0)
			return true;
	return false;
}

static void every_row_is_sound(void **state) {
	for (unsigned i = 1; i < N_CAUSES; i++) {
		const struct cause_row *row = cause_row((enum cause)i);
		assert_in_range(row->status, 400, 505);
		assert_true(is_stable_code(row->code));
		bool ours = row->status >= 502 && row->status <= 504; /* 501 and 505 are the client's doing */
		if (row->status == 429) /* OpenAI's: what there was too much of */
			assert_true(!strcmp(row->type, "requests") || !strcmp(row->type, "tokens"));
		else
			assert_string_equal(row->type, ours ? "server_error" : "invalid_request_error");
		assert_true(strlen(row->message) > 10);
		assert_true(row->retry_after_s == 0 || row->status >= 500 || row->status == 429);
		for (const char *p = row->label; *p; p++)
			assert_true((*p >= 'a' && *p <= 'z') || *p == '_');
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(row->label, cause_row((enum cause)k)->label);
	}
}

static void anthropic_has_its_own_types(void **state) {
	static const struct {
		unsigned status;
		const char *type;
	} rows[] = {
		{ 400, "invalid_request_error" },
		{ 401, "authentication_error" },
		{ 403, "permission_error" },
		{ 404, "not_found_error" },
		{ 413, "request_too_large" },
		{ 415, "invalid_request_error" },
		{ 429, "rate_limit_error" },
		{ 499, "invalid_request_error" },
		{ 500, "api_error" },
		{ 502, "api_error" },
		{ 503, "overloaded_error" },
		{ 504, "timeout_error" },
	};
	for (size_t i = 0; i < n_elems(rows); i++)
		assert_string_equal(cause_anthropic_type(rows[i].status), rows[i].type);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_went_wrong),
		cmocka_unit_test(rows_say_what_they_should),
		cmocka_unit_test(every_row_is_sound),
		cmocka_unit_test(anthropic_has_its_own_types),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
