#include "unit/router/held.h"

#include "router/split_params.h"

static const size_t steps[] = { 1, 7, 1000 };

/* What a decode gets of the params in this answer, in all cuts of it; NULL: there are none. */
static void assert_given(const char *answer, bool is_led, const char *expected) {
	for (unsigned i = 0; i < n_elems(steps); i++) {
		struct hold h = held(slice_of(answer), steps[i]);
		struct split_range ranges[SPLIT_RANGES];
		struct split_params p;
		char text[256];
		size_t used = 0;

		assert_true(split_params_read(&p, &h));
		assert_int_equal(p.n != 0, expected != NULL);
		unsigned n = p.n ? split_params_ranges(&p, is_led, ranges) : 0;
		for (unsigned k = 0; k < n; k++)
			for (uint64_t at = ranges[k].at; at < ranges[k].at + ranges[k].n; at++)
				text[used++] = hold_byte(&h, at);
		text[used] = '\0';
		assert_string_equal(text, expected ? expected : "");
		hold_free(&h, &pool);
	}
}

static void params_are_found(void **state) {
	assert_given("{\"id\":1,\"kv_transfer_params\": {\"a\":[1,{}] , \"b\":null} ,\"x\":2}", false,
	    "{\"a\":[1,{}] , \"b\":null}");
	assert_given("{\"kv_transfer_params\":{\"a\":1}}", true, "\"a\":1}");
}

static void there_may_be_none(void **state) {
	assert_given("{}", false, NULL);
	assert_given("[]", false, NULL);
	assert_given("{\"choices\":[{\"kv_transfer_params\":{\"a\":1}}]}", false, NULL);
	assert_given("{\"kv_transfer_params\":null}", false, NULL);
	assert_given("{\"kv_transfer_params\":[1,2]}", false, NULL);
	assert_given("{\"kv_transfer_params\":\"{\\\"a\\\":1}\"}", false, NULL);
	assert_given("{\"kv_transfer_params\":{}}", false, NULL);
	assert_given("{\"kv_transfer_params\":{ \t}}", true, NULL);
}

static void how_it_is_transferred_is_not_for_the_decode(void **state) {
	assert_given("{\"kv_transfer_params\":{\"transfer_mode\":\"push\",\"a\":1}}", false, "{\"a\":1}");
	assert_given("{\"kv_transfer_params\":{\"a\":1,\"transfer_mode\":\"pull\",\"b\":2}}", false,
	    "{\"a\":1,\"b\":2}");
	assert_given("{\"kv_transfer_params\":{\"a\":1,\"transfer_mode\":null}}", false, "{\"a\":1}");
	assert_given("{\"kv_transfer_params\":{\"a\":1,\"transfer_mode\":\"push\"}}", true, "\"a\":1}");
	/* Nothing is left of these. */
	assert_given("{\"kv_transfer_params\":{\"transfer_mode\":\"push\"}}", false, NULL);
	assert_given("{\"kv_transfer_params\":{ \"transfer_mode\" : \"push\" \n}}", true, NULL);
}

static void what_is_no_answer_is_seen(void **state) {
	static const char *const texts[] = { "", "{\"kv_transfer_params\":{\"a\":1}", "{} {}", "no JSON" };
	for (unsigned i = 0; i < n_elems(texts); i++) {
		struct hold h = held(slice_of(texts[i]), 3);
		struct split_params p = { .n = 7 };

		assert_false(split_params_read(&p, &h));
		assert_int_equal(p.n, 0);
		hold_free(&h, &pool);
	}
}

/* --- who pushes --------------------------------------------------------------------------------- */

/* Whether the engine of that answer can be reached by what it says, and then how. */
static bool reads_push(const char *params, char room[static SPLIT_PUSH_BYTES], struct split_push *push_out) {
	char answer[2048];
	struct split_params p;

	snprintf(answer, sizeof(answer), "{\"kv_transfer_params\":{%s}}", params);
	struct hold h = held(slice_of(answer), 5);
	assert_true(split_params_read(&p, &h));
	bool is_known = split_params_push(&p, &h, room, push_out);
	hold_free(&h, &pool);
	return is_known;
}

#define REST "\"remote_port\":5600,\"tp_size\":8,\"remote_block_ids\":[1]"

static void who_pushes_says_where_it_is(void **state) {
	char room[SPLIT_PUSH_BYTES];
	struct split_push push;

	assert_true(reads_push("\"transfer_mode\":\"push\",\"remote_host\":\"10.0.0.1\",\"remote_engine_id\":"
			       "\"\\u0065-1\"," REST,
	    room, &push));
	assert_true(slice_eq(push.engine, SLICE("\"\\u0065-1\"")));
	assert_true(slice_eq(push.host, SLICE("\"10.0.0.1\"")));
	assert_true(slice_eq(push.port, SLICE("5600")));
	assert_true(slice_eq(push.tp_size, SLICE("8")));
}

static void who_does_not_push_or_does_not_say_is_not_known(void **state) {
	static const char *const params[] = {
		"\"remote_host\":\"h\",\"remote_engine_id\":\"e\"," REST,
		"\"transfer_mode\":\"pull\",\"remote_host\":\"h\",\"remote_engine_id\":\"e\"," REST,
		"\"transfer_mode\":true,\"remote_host\":\"h\",\"remote_engine_id\":\"e\"," REST,
		"\"transfer_mode\":\"push\",\"remote_engine_id\":\"e\"," REST,
		"\"transfer_mode\":\"push\",\"remote_host\":{\"a\":1},\"remote_engine_id\":\"e\"," REST,
		"\"transfer_mode\":\"push\",\"remote_host\":\"h\",\"remote_engine_id\":[1]," REST,
		"\"transfer_mode\":\"a mode that is much too long\",\"remote_host\":\"h\","
		"\"remote_engine_id\":\"e\"," REST,
	};
	char room[SPLIT_PUSH_BYTES];
	struct split_push push;

	for (unsigned i = 0; i < n_elems(params); i++)
		assert_false(reads_push(params[i], room, &push));
}

static void names_have_a_limit(void **state) {
	const size_t rest = SPLIT_PUSH_BYTES -
	    strlen("\"e\""
		   "5600"
		   "8") -
	    2;
	char room[SPLIT_PUSH_BYTES], params[SPLIT_PUSH_BYTES + 256];
	struct split_push push;

	for (size_t n = rest; n <= rest + 1; n++) {
		snprintf(params, sizeof(params),
		    "\"transfer_mode\":\"push\",\"remote_engine_id\":\"e\",\"remote_host\":\"%0*d\"," REST,
		    (int)n, 0);
		assert_int_equal(reads_push(params, room, &push), n == rest);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(params_are_found),
		cmocka_unit_test(there_may_be_none),
		cmocka_unit_test(how_it_is_transferred_is_not_for_the_decode),
		cmocka_unit_test(what_is_no_answer_is_seen),
		cmocka_unit_test(who_pushes_says_where_it_is),
		cmocka_unit_test(who_does_not_push_or_does_not_say_is_not_known),
		cmocka_unit_test(names_have_a_limit),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
