#include "unit/unit.h"

#include "engine/capture.h"

static void add(struct capture *c, const char *target, struct slice body) {
	capture_add(c,
	    &(struct capture_request){
		.method = SLICE("POST"),
		.target = slice_of(target),
		.fields = SLICE("Host: a\nX-Twice: 1\nX-Twice:  2\nX-Latin: \xe9\nX-Empty:\n"),
		.body = body,
	    });
}

static const json_t *request_in(const json_t *json, size_t i) {
	return json_array_get(json_object_get(json, "requests"), i);
}

static void a_request_comes_back_as_it_was(void **state) {
	static const char *const fields[][2] = { { "Host", "a" }, { "X-Twice", "1" }, { "X-Twice", "2" },
		{ "X-Latin", "?" }, { "X-Empty", "" } };
	struct capture c = { 0 };
	add(&c, "/v1/x?y=z", SLICE("{\"a\":\"\xc3\xa9\"}"));
	json_t *json = capture_json(&c);
	const json_t *r = request_in(json, 0), *headers = json_object_get(r, "headers");
	assert_string_equal(json_string_value(json_object_get(r, "method")), "POST");
	assert_string_equal(json_string_value(json_object_get(r, "path")), "/v1/x?y=z");
	assert_string_equal(json_string_value(json_object_get(r, "body")), "{\"a\":\"\xc3\xa9\"}");
	assert_int_equal(json_integer_value(json_object_get(r, "body_bytes")), 10);
	assert_int_equal(json_array_size(headers), n_elems(fields));
	for (size_t i = 0; i < n_elems(fields); i++)
		for (size_t k = 0; k < 2; k++)
			assert_string_equal(
			    json_string_value(json_array_get(json_array_get(headers, i), k)), fields[i][k]);
	json_decref(json);
	capture_clear(&c);
	json = capture_json(&c);
	assert_int_equal(json_array_size(json_object_get(json, "requests")), 0);
	json_decref(json);
}

static void bytes_that_are_no_text_come_as_base64(void **state) {
	struct capture c = { 0 };
	add(&c, "/", (struct slice){ "\xff\x00\xfe", 3 });
	add(&c, "/", (struct slice){ "a\0b", 3 });
	json_t *json = capture_json(&c);
	assert_null(json_object_get(request_in(json, 0), "body"));
	assert_string_equal(json_string_value(json_object_get(request_in(json, 0), "body_base64")), "/wD+");
	assert_int_equal(json_string_length(json_object_get(request_in(json, 1), "body")), 3);
	json_decref(json);
	capture_clear(&c);
}

static void the_oldest_goes_first(void **state) {
	struct capture c = { 0 };
	for (unsigned i = 0; i < CAPTURE_REQUESTS_MAX + 3; i++)
		add(&c, i == 3 ? "/third" : "/other", SLICE(""));
	json_t *json = capture_json(&c);
	assert_int_equal(json_array_size(json_object_get(json, "requests")), CAPTURE_REQUESTS_MAX);
	assert_string_equal(json_string_value(json_object_get(request_in(json, 0), "path")), "/third");
	assert_int_equal(json_integer_value(json_object_get(request_in(json, 0), "number")), 3);
	json_decref(json);
	capture_clear(&c);
	assert_int_equal(c.n_bytes, 0);
}

static void bodies_are_bounded_alone_and_together(void **state) {
	struct capture c = { 0 };
	size_t n = CAPTURE_BODY_BYTES + 5;
	char *body = malloc(n);
	memset(body, 'x', n);
	for (int i = 0; i < 40; i++) {
		add(&c, "/", (struct slice){ body, n });
		assert_true(c.n_bytes <= CAPTURE_BYTES_MAX);
	}
	assert_int_equal(c.n_kept, 15); /* the 16th has no room for its head */
	json_t *json = capture_json(&c);
	assert_int_equal(
	    json_string_length(json_object_get(request_in(json, 0), "body")), CAPTURE_BODY_BYTES);
	assert_int_equal(
	    json_integer_value(json_object_get(request_in(json, 0), "body_bytes")), (json_int_t)n);
	json_decref(json);
	capture_clear(&c);
	free(body);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_comes_back_as_it_was),
		cmocka_unit_test(bytes_that_are_no_text_come_as_base64),
		cmocka_unit_test(the_oldest_goes_first),
		cmocka_unit_test(bodies_are_bounded_alone_and_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
