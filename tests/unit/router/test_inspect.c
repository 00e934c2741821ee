#include "unit/unit.h"

#include "router/inspect.h"

static struct buf_budget budget;
static struct buf_pool pool;

static int setup(void **state) {
	budget = (struct buf_budget){ .max_bytes = 1u << 20 };
	buf_pool_init(&pool, &budget);
	return 0;
}

static int teardown(void **state) {
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

static const char *path = "/v1/completions";

/* Starts on a head with these lines. */
static enum cause begin(struct inspect *in, const char *method, const char *fields) {
	char text[500];
	struct head_room room;
	enum cause cause;
	int n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path, fields);
	assert_int_equal(head_parse_request(&room, (struct slice){ text, (size_t)n }, &cause), 0);
	return inspect_init(in, &pool, &room.head);
}

/* Feeds a part, in memory of its own; the first cause stays. */
static enum cause feed(struct inspect *in, struct slice part, enum cause before) {
	char *exact = malloc(part.n + !part.n);
	memcpy(exact, part.p, part.n);
	enum cause cause = inspect_feed(in, &pool, exact, part.n);
	free(exact);
	if (before)
		assert_int_equal(cause, before);
	return cause;
}

/* The whole body in parts: `first` bytes, then `step` at a time. */
static enum cause inspect(
    struct inspect *in, const char *fields, struct slice body, size_t first, size_t step) {
	enum cause cause = begin(in, "POST", fields);
	assert_int_equal(cause, CAUSE_NONE);
	cause = feed(in, slice_head(body, first), cause);
	for (size_t at = first; at < body.n; at += step)
		cause = feed(in, slice_head(slice_skip(body, at), step), cause);
	return cause ? cause : inspect_finish(in, &pool);
}

#define MODEL_64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define MODEL_256 MODEL_64 MODEL_64 MODEL_64 MODEL_64

static const struct row {
	const char *body, *model;
	enum cause cause;
	bool is_streamed;
} rows[] = {
	{ "{\"model\":\"m\"}", "m", CAUSE_NONE, false },
	{ "{\"model\":\"m\",\"stream\":true}", "m", CAUSE_NONE, true },
	{ "{\"stream\":true,\"messages\":[{\"content\":\"a \\\"quoted\\\" \\\\\"}],\"model\":\"m\"}", "m",
	    CAUSE_NONE, true },
	{ "{\"stream\":false,\"model\":\"m\"}", "m", CAUSE_NONE, false },
	{ "{\"stream\":1,\"model\":\"m\"}", "m", CAUSE_NONE, false },
	{ "{\"stream\":\"true\",\"model\":\"m\"}", "m", CAUSE_NONE, false },
	{ "{\"stream\":false,\"stream\":true,\"model\":\"m\"}", "m", CAUSE_NONE, true },
	{ " \r\n{ \"model\" : \"m\" } \n", "m", CAUSE_NONE, false },
	{ "{\"m\\u006fdel\":\"\\u006d\\/\\u00e9\\ud83d\\ude00\"}", "m/\xc3\xa9\xf0\x9f\x98\x80", CAUSE_NONE,
	    false },
	{ "{\"model\":\"" MODEL_256 "\"}", MODEL_256, CAUSE_NONE, false },
	{ "{\"model\":\"\"}", "", CAUSE_NONE, false },
	{ "{\"model\":null}", NULL, CAUSE_NONE, false },
	{ "{}", NULL, CAUSE_NONE, false },
	{ "[]", NULL, CAUSE_NONE, false },
	{ "[{\"model\":\"m\"}]", NULL, CAUSE_NONE, false },
	{ "{\"x\":{\"model\":\"m\"},\"y\":\"\\\"model\\\":\\\"z\\\"\"}", NULL, CAUSE_NONE, false },
	{ "\"model\"", NULL, CAUSE_NONE, false },
	{ "{\"model\":\"" MODEL_256 "x\"}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":7}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":true}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":[\"m\"]}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":{}}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":\"a\\u0000b\"}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":\"a\\nb\"}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":\"\\ud800\"}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":\"\xff\"}", NULL, CAUSE_MODEL_NAME, false },
	{ "{\"model\":\"m\",\"model\":\"m\"}", NULL, CAUSE_DUPLICATE_MODEL, false },
	{ "{\"model\":\"m\",\"\\u006dodel\":\"n\"}", NULL, CAUSE_DUPLICATE_MODEL, false },
	{ "{\"model\":null,\"model\":\"m\"}", NULL, CAUSE_DUPLICATE_MODEL, false },
	{ "{\"model\":\"m\"", NULL, CAUSE_INVALID_JSON, false },
	{ "{\"model\":\"m\"}}", NULL, CAUSE_INVALID_JSON, false },
	{ "{\"model\":\"m\",}", NULL, CAUSE_INVALID_JSON, false },
	{ "{'model':'m'}", NULL, CAUSE_INVALID_JSON, false },
	{ "{\"model\":\"a\nb\"}", NULL, CAUSE_INVALID_JSON, false },
	{ "\xef\xbb\xbf{}", NULL, CAUSE_INVALID_JSON, false },
	{ "", NULL, CAUSE_INVALID_JSON, false },
};

static void assert_row(const struct row *row, size_t first, size_t step) {
	struct inspect in;
	enum cause cause =
	    inspect(&in, "Content-Type: application/json\r\n", slice_of(row->body), first, step);
	if (cause != row->cause)
		fail_msg("%s, not %s (parts of %zu, %zu): %s", cause_row(cause)->label,
		    cause_row(row->cause)->label, first, step, row->body);
	if (!cause) {
		struct slice model = inspect_model(&in);
		if (!model.p != !row->model || !slice_eq(model, slice_of(row->model)))
			fail_msg("\"%.*s\" in %s", (int)model.n, model.p ? model.p : "", row->body);
		assert_int_equal(in.is_streamed, row->is_streamed);
		assert_true(in.is_complete && inspect_is_decided(&in));
	}
	inspect_deinit(&in, &pool);
	inspect_deinit(&in, &pool);
}

/* One outcome for one body, however it is cut. */
static void bodies_are_read_in_any_parts(void **state) {
	for (size_t i = 0; i < n_elems(rows); i++) {
		size_t n = strlen(rows[i].body);
		for (size_t first = 0; first <= n; first++)
			assert_row(&rows[i], first, n + 1);
		for (size_t step = 1; step < 4; step++)
			assert_row(&rows[i], 0, step);
	}
}

static void an_empty_body_is_wrong_where_something_is_made(void **state) {
	static const struct {
		const char *path, *body;
		enum cause cause;
	} cases[] = {
		{ "/v1/chat/completions", "", CAUSE_INVALID_JSON },
		{ "/v1/completions?x=/y", "", CAUSE_INVALID_JSON },
		{ "/v1/embeddings", "", CAUSE_INVALID_JSON },
		{ "/v1/messages", " \r\n", CAUSE_INVALID_JSON },
		{ "/v1/responses", "", CAUSE_INVALID_JSON },
		{ "/v1/responses/r1/cancel", "", CAUSE_NONE },
		{ "/v1/responses/r1/cancel", " \n", CAUSE_NONE },
		{ "/v1/responses/r1/cancel", "{", CAUSE_INVALID_JSON },
		{ "/reset_prefix_cache", "", CAUSE_NONE },
	};
	const char *before = path;
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct inspect in;
		path = cases[i].path;
		assert_int_equal(
		    inspect(&in, "Content-Type: application/json\r\n", slice_of(cases[i].body), 1, 1),
		    cases[i].cause);
		inspect_deinit(&in, &pool);
	}
	path = before;
}

static void the_model_is_known_before_the_end(void **state) {
	struct inspect in;
	assert_int_equal(begin(&in, "POST", "Content-Type: application/json\r\n"), CAUSE_NONE);
	assert_int_equal(feed(&in, SLICE("{\"stream\":true,\"model\":\"na"), CAUSE_NONE), CAUSE_NONE);
	assert_false(inspect_is_decided(&in));
	assert_null(inspect_model(&in).p);
	assert_true(in.is_streamed);
	assert_int_equal(feed(&in, SLICE("me\""), CAUSE_NONE), CAUSE_NONE);
	assert_true(inspect_is_decided(&in));
	assert_true(slice_eq(inspect_model(&in), SLICE("name")));
	assert_false(in.is_complete);
	/* What comes later can still be wrong. */
	assert_int_equal(feed(&in, SLICE(",\"messages\":[]"), CAUSE_NONE), CAUSE_NONE);
	assert_int_equal(feed(&in, SLICE(",\"model\":"), CAUSE_NONE), CAUSE_DUPLICATE_MODEL);
	assert_int_equal(inspect_finish(&in, &pool), CAUSE_DUPLICATE_MODEL);
	inspect_deinit(&in, &pool);
}

static void only_json_of_a_post_is_read(void **state) {
	static const struct {
		const char *method, *fields;
		bool reads;
		enum cause cause;
	} heads[] = {
		{ "POST", "Content-Type: application/json\r\n", true, CAUSE_NONE },
		{ "POST", "Content-Type: text/json\r\n", true, CAUSE_NONE },
		{ "POST", "content-type: Application/JSON; charset=utf-8\r\n", true, CAUSE_NONE },
		{ "POST", "Content-Type: application/json ;x\r\n", true, CAUSE_NONE },
		{ "POST", "Content-Type: application/vnd.api+json\r\n", true, CAUSE_NONE },
		{ "POST", "Content-Type: application/json\r\nContent-Encoding: identity\r\n", true,
		    CAUSE_NONE },
		{ "POST", "", true, CAUSE_NONE },
		{ "POST", "Content-Type:\r\n", false, CAUSE_NONE },
		{ "POST", "Content-Type: +json\r\n", false, CAUSE_NONE },
		{ "POST", "Content-Type: application/jsonl\r\n", false, CAUSE_NONE },
		{ "POST", "Content-Type: text/plain; x=application/json\r\n", false, CAUSE_NONE },
		{ "POST", "Content-Type: multipart/form-data; boundary=x\r\n", false, CAUSE_NONE },
		{ "POST", "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", false, CAUSE_NONE },
		{ "PUT", "Content-Type: application/json\r\n", false, CAUSE_NONE },
		{ "GET", "Content-Type: application/json\r\n", false, CAUSE_NONE },
		{ "GET", "", false, CAUSE_NONE },
		{ "POST", "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", false,
		    CAUSE_ENCODING },
		{ "POST", "Content-Type: application/json\r\nContent-Encoding: identity, br\r\n", false,
		    CAUSE_ENCODING },
	};
	for (size_t i = 0; i < n_elems(heads); i++) {
		struct inspect in;
		assert_int_equal(begin(&in, heads[i].method, heads[i].fields), heads[i].cause);
		assert_int_equal(in.buf != NULL, heads[i].reads);
		assert_int_equal(inspect_is_decided(&in), !heads[i].reads);
		if (!heads[i].cause && !heads[i].reads) {
			assert_int_equal(feed(&in, SLICE("{\"model\":7"), CAUSE_NONE), CAUSE_NONE);
			assert_int_equal(inspect_finish(&in, &pool), CAUSE_NONE);
			assert_null(inspect_model(&in).p);
		}
		inspect_deinit(&in, &pool);
	}
}

/* Where no type was given the first byte decides. */
static void an_untyped_body_is_guessed(void **state) {
	static const struct {
		const char *body, *model;
		enum cause cause;
	} bodies[] = {
		{ "{\"model\":\"m\"}", "m", CAUSE_NONE },
		{ "{broken", NULL, CAUSE_INVALID_JSON },
		{ " \r\n{\"model\":\"m\"}", "m", CAUSE_NONE },
		{ " \t\r\n", NULL, CAUSE_NONE },
		{ " x", NULL, CAUSE_NONE },
		{ "model=m", NULL, CAUSE_NONE },
		{ "[1", NULL, CAUSE_NONE },
		{ "\x1f\x8b", NULL, CAUSE_NONE },
		{ "", NULL, CAUSE_NONE },
	};
	for (size_t i = 0; i < n_elems(bodies); i++) {
		for (size_t step = 1; step < 10; step += 8) {
			struct inspect in;
			assert_int_equal(
			    inspect(&in, "Content-Encoding: \r\n", slice_of(bodies[i].body), 0, step),
			    bodies[i].cause);
			if (!bodies[i].cause)
				assert_true(slice_eq(inspect_model(&in), slice_of(bodies[i].model)));
			inspect_deinit(&in, &pool);
		}
	}
}

static uint64_t session_of(const char *body) {
	struct inspect in;

	assert_int_equal(
	    inspect(&in, "Content-Type: application/json\r\n", slice_of(body), 0, 7), CAUSE_NONE);
	uint64_t session = inspect_session(&in);
	inspect_deinit(&in, &pool);
	return session;
}

static void a_session_is_of_key_and_model(void **state) {
	static const char *const none[] = { "{}", "{\"prompt_cache_key\":\"\"}", "{\"prompt_cache_key\":7}",
		"{\"prompt_cache_key\":null}", "{\"x\":{\"prompt_cache_key\":\"a\"}}" };
	char long_key[400] = "{\"prompt_cache_key\":\"";
	uint64_t session = session_of("{\"model\":\"m\",\"prompt_cache_key\":\"a\"}");

	assert_true(session != 0);
	assert_true(session == session_of("{\"prompt_cache_key\":\"\\u0061\",\"n\":1,\"model\":\"m\"}"));
	assert_true(session != session_of("{\"model\":\"m\",\"prompt_cache_key\":\"b\"}"));
	assert_true(session != session_of("{\"model\":\"n\",\"prompt_cache_key\":\"a\"}"));
	for (size_t i = 0; i < n_elems(none); i++)
		assert_int_equal(session_of(none[i]), 0);
	size_t at = strlen(long_key);
	memset(long_key + at, 'k', 256);
	memcpy(long_key + at + 256, "\"}", 3);
	assert_true(session_of(long_key) != 0);
	memcpy(long_key + at + 256, "k\"}", 4);
	assert_int_equal(session_of(long_key), 0);
}

static void without_memory_it_is_overloaded(void **state) {
	struct inspect in;
	budget.max_bytes = 0;
	assert_int_equal(begin(&in, "POST", "Content-Type: application/json\r\n"), CAUSE_OVERLOADED);
	assert_int_equal(begin(&in, "GET", ""), CAUSE_NONE);
	budget.max_bytes = 1u << 20;
	inspect_deinit(&in, &pool);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bodies_are_read_in_any_parts),
		cmocka_unit_test(an_empty_body_is_wrong_where_something_is_made),
		cmocka_unit_test(the_model_is_known_before_the_end),
		cmocka_unit_test(only_json_of_a_post_is_read),
		cmocka_unit_test(an_untyped_body_is_guessed),
		cmocka_unit_test(a_session_is_of_key_and_model),
		cmocka_unit_test(without_memory_it_is_overloaded),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
