#include "unit/unit.h"

#include "base/rng.h"
#include "router/inspect.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define JSON "Content-Type: application/json\r\n"
#define FORM "Content-Type: multipart/form-data; boundary=x\r\n"

static struct buf_budget budget;
static struct buf_pool pool;
static struct inspect_rules rules;

static int setup(void **state) {
	budget = (struct buf_budget){ .max_bytes = 1u << 20 };
	buf_pool_init(&pool, &budget);
	static const char *const headers[] = { "x-session-id", "session_id" };
	inspect_rules_init(&rules, headers, n_elems(headers));
	struct slice rest = SLICE(INSPECT_MEMBERS_NAMES), member;
	while (slice_next_member(&rest, &member))
		assert_true(inspect_rules_add(&rules, member));
	return 0;
}

static int teardown(void **state) {
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

static const char *path = "/v1/completions";

/* Starts on a head with these lines. */
static enum cause begin(struct inspect *in, const char *method, const char *fields) {
	char text[1000];
	struct head_room room;
	enum cause cause;
	int n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path, fields);
	assert_int_equal(head_parse_request(&room, (struct slice){ text, (size_t)n }, &cause), 0);
	return inspect_init(in, &rules, &pool, &room.head);
}

/* Feeds a part, in memory of its own; the first cause stays. */
static enum cause feed(struct inspect *in, struct slice part, enum cause before) {
	char *exact = malloc(part.n + !part.n);
	memcpy(exact, part.p, part.n);
	enum cause cause = inspect_feed(in, exact, part.n);
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
	return cause ? cause : inspect_finish(in);
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

/* As far as it has come. */
static bool is_prompt_open(const struct inspect *in) {
	const struct inspect_salt salt = { .model = SLICE("m"), .tokens_per_byte = 0.25 };
	static uint64_t room[PROMPT_BLOCKS_MAX];
	struct demand d;

	inspect_demand(in, &salt, room, &d);
	return d.is_prompt_open;
}

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
		assert_false(is_prompt_open(&in));
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
	assert_true(is_prompt_open(&in)); /* whether or not its length was told */
	/* What comes later can still be wrong. */
	assert_int_equal(feed(&in, SLICE(",\"messages\":[]"), CAUSE_NONE), CAUSE_NONE);
	assert_int_equal(feed(&in, SLICE(",\"model\":"), CAUSE_NONE), CAUSE_DUPLICATE_MODEL);
	assert_int_equal(inspect_finish(&in), CAUSE_DUPLICATE_MODEL);
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
		assert_int_equal(in.body == INSPECT_JSON, heads[i].reads);
		assert_int_equal(inspect_is_decided(&in), !heads[i].reads);
		if (!heads[i].cause && !heads[i].reads) {
			assert_int_equal(feed(&in, SLICE("{\"model\":7"), CAUSE_NONE), CAUSE_NONE);
			assert_int_equal(inspect_finish(&in), CAUSE_NONE);
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
	struct inspect_salt salt = { .model = inspect_model(&in) };
	uint64_t session = inspect_session(&in, &salt);
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

/* ---- forms ------------------------------------------------------------------------- */

#define FIELD(name, value) "--x\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"

static void the_model_of_a_form_is_found(void **state) {
	static const struct {
		const char *body, *model;
		enum cause cause;
	} forms[] = {
		{ FIELD("model", "whisper") FIELD("file", "RIFF") "--x--\r\n", "whisper", CAUSE_NONE },
		{ FIELD("file", "RIFF\r\n--") FIELD("model", "whisper") "--x--", "whisper", CAUSE_NONE },
		{ FIELD("model", "") "--x--", "", CAUSE_NONE },
		{ FIELD("file", "RIFF") "--x--", NULL, CAUSE_NONE },
		{ FIELD("model", MODEL_256) "--x--", MODEL_256, CAUSE_NONE },
		{ FIELD("model", MODEL_256 "m") "--x--", NULL, CAUSE_MODEL_NAME },
		{ FIELD("model", "a\tb") "--x--", NULL, CAUSE_MODEL_NAME },
		{ FIELD("model", "\xff") "--x--", NULL, CAUSE_MODEL_NAME },
		{ FIELD("model", "m") FIELD("model", "m") "--x--", NULL, CAUSE_DUPLICATE_MODEL },
		{ FIELD("model", "m"), NULL, CAUSE_FORM },
		{ "", NULL, CAUSE_FORM },
	};
	const char *before = path;
	path = "/v1/audio/transcriptions";
	for (size_t i = 0; i < n_elems(forms); i++) {
		struct slice body = slice_of(forms[i].body);
		for (size_t first = 0; first <= body.n; first++) {
			struct inspect in;
			assert_int_equal(inspect(&in, FORM, body, first, body.n + 1), forms[i].cause);
			if (!forms[i].cause) {
				assert_true(slice_eq(inspect_model(&in), slice_of(forms[i].model)));
				assert_int_equal(!inspect_model(&in).p, !forms[i].model);
			}
			inspect_deinit(&in, &pool);
		}
	}
	path = before;
}

static void which_forms_are_read(void **state) {
	struct inspect in;
	assert_int_equal(begin(&in, "POST", "Content-Type: multipart/form-data\r\n"), CAUSE_FORM);
	inspect_deinit(&in, &pool);
	assert_int_equal(begin(&in, "POST", FORM "Content-Encoding: gzip\r\n"), CAUSE_NONE);
	assert_int_equal(in.body, INSPECT_NOTHING);
	assert_int_equal(begin(&in, "PUT", FORM), CAUSE_NONE);
	assert_int_equal(in.body, INSPECT_NOTHING);
	const char *before = path;
	path = "/unknown";
	assert_int_equal(inspect(&in, FORM, SLICE(""), 0, 1), CAUSE_NONE);
	inspect_deinit(&in, &pool);
	assert_int_equal(inspect(&in, FORM, SLICE("x"), 0, 1), CAUSE_FORM);
	inspect_deinit(&in, &pool);
	path = before;
	assert_int_equal(begin(&in, "POST", FORM), CAUSE_NONE);
	static const char field[] = FIELD("model", "m");
	assert_int_equal(feed(&in, SLICE(field), CAUSE_NONE), CAUSE_NONE);
	assert_false(inspect_is_decided(&in));
	assert_int_equal(feed(&in, SLICE("--x\r\n"), CAUSE_NONE), CAUSE_NONE);
	assert_true(inspect_is_decided(&in) && !inspect_has_all(&in));
	assert_true(slice_eq(inspect_model(&in), SLICE("m")));
	inspect_deinit(&in, &pool);
}

/* ---- demands ------------------------------------------------------------------------- */

static uint64_t keys[PROMPT_BLOCKS_MAX], others[PROMPT_BLOCKS_MAX];
static const struct inspect_salt salt = { .tenant = 1, .model = { "m", 1 }, .tokens_per_byte = 0.25 };

/* Of a body that is complete, read in parts of `step` bytes. */
static struct demand demand_of(const char *fields, struct slice body, size_t step, uint64_t *out) {
	struct inspect in;
	struct demand demand;
	assert_int_equal(inspect(&in, fields, body, 0, step), CAUSE_NONE);
	inspect_demand(&in, &salt, out, &demand);
	inspect_deinit(&in, &pool);
	assert_ptr_equal(demand.keys, out);
	return demand;
}

#define BIT(feature) (1u << FEATURE_##feature)

#define TOOL_RESULT(parts)                                                                                   \
	"{\"messages\":[{\"content\":[{\"type\":\"tool_result\",\"content\":[" parts "]}]}]"

#define TOOL_OUTPUT(output) "{\"input\":[{\"type\":\"function_call_output\",\"output\":" output "}]"

static void features_and_limits_are_found(void **state) {
	static const struct {
		const char *body;
		uint32_t features, output_max;
	} cases[] = {
		{ "{}", 0, 0 },
		{ "{\"stream\":true}", BIT(STREAM), 0 },
		{ "{\"stream\":1}", 0, 0 },
		{ "{\"tools\":[]}", 0, 0 },
		{ "{\"tools\":[ ]}", 0, 0 },
		{ "{\"tools\":null,\"functions\":[]}", 0, 0 },
		{ "{\"tools\":[{}]}", BIT(TOOLS), 0 },
		{ "{\"tools\":[{}],\"tools\":[]}", 0, 0 },
		{ "{\"functions\":[{\"name\":\"f\"}]}", BIT(TOOLS), 0 },
		{ "{\"response_format\":{\"type\":\"text\"}}", 0, 0 },
		{ "{\"response_format\":{\"type\":\"json_object\"}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"type\":\"text\"}}}",
		    BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"response_format\":{\"type\":\"json_schema\"},\"response_format\":null}", 0, 0 },
		{ "{\"response_format\":{\"type\":\"json_schema\"},\"response_format\":{\"type\":7}}", 0, 0 },
		{ "{\"text\":{\"format\":{\"type\":\"json_schema\"}}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"text\":{\"format\":{\"type\":\"text\"}}}", 0, 0 },
		{ "{\"guided_json\":{}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"guided_regex\":\"a*\"}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"guided_json\":null,\"structured_outputs\":null}", 0, 0 },
		{ "{\"structured_outputs\":{\"json\":{}}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"messages\":[{\"content\":[{\"type\":\"image_url\"},{\"type\":\"text\"}]},{\"content\":"
		  "\"x\"}]}",
		    BIT(IMAGE_INPUT), 0 },
		{ "{\"messages\":[{\"content\":[{\"type\":\"image\"}]},{\"content\":[{\"type\":\"input_"
		  "audio\"}]}]}",
		    BIT(IMAGE_INPUT) | BIT(AUDIO_INPUT), 0 },
		{ "{\"input\":[{\"content\":[{\"type\":\"input_image\"}]}]}", BIT(IMAGE_INPUT), 0 },
		{ "{\"messages\":[{\"content\":[{\"type\":\"image\"}]}],\"messages\":[]}", 0, 0 },
		{ "{\"messages\":[{\"type\":\"image\",\"content\":[{\"x\":{\"type\":\"image\"}}]}]}", 0, 0 },
		{ "{\"x\":{\"messages\":[{\"content\":[{\"type\":\"image\"}]}]}}", 0, 0 },
		/* What a tool brought back, as Anthropic's messages have it. */
		{ TOOL_RESULT("{\"type\":\"image\"}") "}", BIT(IMAGE_INPUT), 0 },
		{ TOOL_RESULT("{\"type\":\"image\"},{\"type\":\"text\"}") "}", BIT(IMAGE_INPUT), 0 },
		{ TOOL_RESULT("{\"type\":\"text\",\"x\":{\"type\":\"image\"}}") "}", 0, 0 },
		{ TOOL_RESULT("{\"type\":\"image\"}") ",\"messages\":[]}", 0, 0 },
		/* And as Responses have it. */
		{ TOOL_OUTPUT("[{\"type\":\"input_text\"},{\"type\":\"input_image\"}]") "}", BIT(IMAGE_INPUT),
		    0 },
		{ TOOL_OUTPUT("[{\"type\":\"input_image\"}]") ",\"input\":[]}", 0, 0 },
		{ TOOL_OUTPUT("\"input_image\"") "}", 0, 0 },
		{ TOOL_OUTPUT("[{\"type\":\"input_text\",\"x\":{\"type\":\"input_image\"}}]") "}", 0, 0 },
		{ "{\"logprobs\":true}", BIT(LOGPROBS), 0 },
		{ "{\"logprobs\":0}", BIT(LOGPROBS), 0 },
		{ "{\"logprobs\":false,\"n\":1}", 0, 0 },
		{ "{\"logprobs\":null,\"n\":2}", BIT(N), 0 },
		{ "{\"best_of\":3}", BIT(N), 0 },
		{ "{\"reasoning\":{}}", BIT(REASONING), 0 },
		{ "{\"reasoning_effort\":\"low\"}", BIT(REASONING), 0 },
		{ "{\"reasoning_effort\":\"none\"}", 0, 0 },
		{ "{\"thinking\":{\"type\":\"enabled\"}}", BIT(REASONING), 0 },
		{ "{\"thinking\":{\"type\":\"disabled\"}}", 0, 0 },
		/* SGLang's lora_path, one or one for each prompt, and llama.cpp's lora. */
		{ "{\"lora_path\":\"a\"}", BIT(ADAPTER), 0 },
		{ "{\"lora_path\":\"\"}", 0, 0 },
		{ "{\"lora_path\":null}", 0, 0 },
		{ "{\"lora_path\":[\"a\",null]}", BIT(ADAPTER), 0 },
		{ "{\"lora_path\":[null,\"an adapter of a long name\"]}", BIT(ADAPTER), 0 },
		{ "{\"lora_path\":[null,null]}", 0, 0 },
		{ "{\"lora_path\":[\"\"]}", 0, 0 },
		{ "{\"lora_path\":[]}", 0, 0 },
		{ "{\"lora_path\":[\"a\"],\"lora_path\":[null]}", 0, 0 },
		{ "{\"lora_path\":[\"a\"],\"lora_path\":null}", 0, 0 },
		{ "{\"lora\":[{\"id\":0,\"scale\":0.5}]}", BIT(ADAPTER), 0 },
		{ "{\"lora\":[]}", 0, 0 },
		/* Of scale 0, or of none, it is there and not used. */
		{ "{\"lora\":[{\"id\":0,\"scale\":0}]}", 0, 0 },
		{ "{\"lora\":[{\"id\":0,\"scale\":0.00}]}", 0, 0 },
		{ "{\"lora\":[{\"id\":0}]}", 0, 0 },
		{ "{\"lora\":[{\"id\":0,\"scale\":\"1\"}]}", 0, 0 },
		{ "{\"lora\":[{\"id\":7,\"scale\":0},{\"id\":1,\"scale\":0.05}]}", BIT(ADAPTER), 0 },
		{ "{\"lora\":[{\"id\":0,\"scale\":10},{\"id\":7,\"scale\":0.0}]}", BIT(ADAPTER), 0 },
		{ "{\"lora\":[{\"scale\":-2e-1}]}", BIT(ADAPTER), 0 },
		{ "{\"lora\":[{\"scale\":1}],\"lora\":[{\"scale\":0}]}", 0, 0 },
		{ "{\"lora\":[{\"scale\":1}],\"lora\":null}", 0, 0 },
		{ "{\"x\":[{\"scale\":1}],\"lora\":[{\"x\":{\"scale\":1}}]}", 0, 0 },
		{ "{\"lora\":null}", 0, 0 },
		{ "{\"x\":{\"lora_path\":\"a\"}}", 0, 0 },
		/* Structured output, in the words of vLLM, SGLang, llama.cpp and Ollama. */
		{ "{\"guided_choice\":[\"a\"]}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"guided_grammar\":\"x\"}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"regex\":\"a*\"}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"ebnf\":\"root\"}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"json_schema\":\"{}\"}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"json_schema\":{}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"grammar\":\"root\"}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"format\":\"json\"}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"format\":{\"type\":\"object\"}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"sampling_params\":{\"regex\":\"a\"}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"sampling_params\":{\"ebnf\":\"a\"}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"sampling_params\":{\"json_schema\":\"{}\"}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"sampling_params\":{\"structural_tag\":\"{}\"}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"sampling_params\":{\"structured_outputs\":{\"regex\":\"a\"}}}", BIT(STRUCTURED_OUTPUT),
		    0 },
		{ "{\"response_format\":{\"type\":\"structural_tag\"}}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"regex\":\"a\",\"ebnf\":null,\"json_schema\":null}", BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"ebnf\":null,\"regex\":\"a\",\"sampling_params\":{\"regex\":null}}",
		    BIT(STRUCTURED_OUTPUT), 0 },
		{ "{\"guided_choice\":[]}", 0, 0 },
		{ "{\"guided_choice\":[ ]}", 0, 0 },
		{ "{\"guided_choice\":null}", 0, 0 },
		{ "{\"guided_grammar\":\"\"}", 0, 0 },
		{ "{\"guided_regex\":\"\"}", 0, 0 },
		{ "{\"regex\":\"\"}", 0, 0 },
		{ "{\"regex\":null}", 0, 0 },
		{ "{\"ebnf\":false}", 0, 0 },
		{ "{\"json_schema\":null}", 0, 0 },
		{ "{\"grammar\":\"\"}", 0, 0 },
		{ "{\"format\":\"\"}", 0, 0 },
		{ "{\"format\":null}", 0, 0 },
		{ "{\"sampling_params\":{\"regex\":null,\"ebnf\":\"\",\"json_schema\":null}}", 0, 0 },
		{ "{\"x\":{\"regex\":\"a\"}}", 0, 0 },
		{ "{\"structured_outputs\":null}", 0, 0 },
		{ "{\"text\":{\"format\":{\"type\":\"text\"}},\"encoding_format\":\"float\"}", 0, 0 },
		/* Media of Ollama and SGLang, and parts that are a video, which is many images. */
		{ "{\"images\":[\"iVBO\"]}", BIT(IMAGE_INPUT), 0 },
		{ "{\"messages\":[{\"content\":\"x\",\"images\":[\"iVBO\"]},{\"content\":\"y\"}]}",
		    BIT(IMAGE_INPUT), 0 },
		{ "{\"image_data\":\"data:x\"}", BIT(IMAGE_INPUT), 0 },
		{ "{\"image_data\":[\"http://x\",null]}", BIT(IMAGE_INPUT), 0 },
		{ "{\"image_data\":[[\"a\"],[\"b\"]]}", BIT(IMAGE_INPUT), 0 },
		{ "{\"image_data\":{\"url\":\"x\"}}", BIT(IMAGE_INPUT), 0 },
		{ "{\"video_data\":[\"x\"]}", BIT(IMAGE_INPUT), 0 },
		{ "{\"messages\":[{\"content\":[{\"type\":\"video_url\"}]}]}", BIT(IMAGE_INPUT), 0 },
		{ "{\"messages\":[{\"content\":[{\"type\":\"image_embeds\"}]}]}", BIT(IMAGE_INPUT), 0 },
		{ "{\"audio_data\":[\"x\"]}", BIT(AUDIO_INPUT), 0 },
		{ "{\"audio_data\":\"x\"}", BIT(AUDIO_INPUT), 0 },
		{ "{\"images\":[]}", 0, 0 },
		{ "{\"images\":[ ]}", 0, 0 },
		{ "{\"images\":null}", 0, 0 },
		{ "{\"messages\":[{\"images\":[]}]}", 0, 0 },
		{ "{\"image_data\":null}", 0, 0 },
		{ "{\"image_data\":\"\"}", 0, 0 },
		{ "{\"image_data\":[null,null]}", 0, 0 },
		{ "{\"image_data\":[]}", 0, 0 },
		{ "{\"image_data\":[[]]}", 0, 0 },
		{ "{\"audio_data\":[]}", 0, 0 },
		{ "{\"audio_data\":[null]}", 0, 0 },
		{ "{\"video_data\":null}", 0, 0 },
		{ "{\"x\":{\"images\":[\"a\"]}}", 0, 0 },
		/* Numbers of vLLM, SGLang and Ollama that lie deeper. */
		{ "{\"sampling_params\":{\"n\":2}}", BIT(N), 0 },
		{ "{\"sampling_params\":{\"n\":1}}", 0, 0 },
		{ "{\"sampling_params\":{\"max_tokens\":8}}", 0, 8 },
		{ "{\"options\":{\"num_predict\":8}}", 0, 8 },
		{ "{\"options\":{\"num_predict\":-1}}", 0, 0 },
		{ "{\"sampling_params\":{\"max_new_tokens\":1e20}}", 0, UINT32_MAX },
		{ "{\"max_tokens\":5}", 0, 5 },
		{ "{\"max_tokens\":5,\"max_completion_tokens\":4}", 0, 4 },
		{ "{\"max_tokens\":5,\"max_completion_tokens\":null}", 0, 5 },
		{ "{\"max_output_tokens\":6}", 0, 6 },
		{ "{\"max_new_tokens\":7}", 0, 7 },
		{ "{\"n_predict\":9}", 0, 9 },
		{ "{\"n_predict\":-1}", 0, 0 },
		{ "{\"n_predict\":9,\"max_tokens\":5}", 0, 5 },
		{ "{\"sampling_params\":{\"max_new_tokens\":8}}", 0, 8 },
		{ "{\"max_tokens\":4294967295}", 0, UINT32_MAX },
		{ "{\"max_tokens\":4294967296}", 0, UINT32_MAX },
		{ "{\"max_tokens\":1e20}", 0, UINT32_MAX },
		{ "{\"max_tokens\":100000000000000000000000000000000000000000}", 0, UINT32_MAX },
		{ "{\"max_tokens\":1e3}", 0, 1000 },
		{ "{\"max_tokens\":5.0}", 0, 5 },
		{ "{\"n\":1e20}", BIT(N), 0 },
		{ "{\"max_tokens\":-1e20}", 0, 0 },
		{ "{\"max_tokens\":-1}", 0, 0 },
		{ "{\"max_tokens\":1.5}", 0, 0 },
		{ "{\"max_tokens\":\"9\"}", 0, 0 },
	};
	for (size_t i = 0; i < n_elems(cases); i++)
		for (size_t step = 1; step < 100; step += 98) {
			struct demand d = demand_of(JSON, slice_of(cases[i].body), step, keys);
			if (d.features != cases[i].features || d.output_max != cases[i].output_max)
				fail_msg("%x, %u: %s", d.features, d.output_max, cases[i].body);
			assert_int_equal(d.capability, CAPABILITY_COMPLETION);
		}
}

/* A completion that is given what stands behind it fills the gap. */
#define IMAGE                                                                                                \
	"{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,"                            \
	"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ\"}}"

/* Four bytes a token, quotes among them. */
static void what_is_text_is_known_of_media(void **state) {
	static const struct {
		const char *body;
		uint32_t n_bytes;
	} cases[] = {
		{ "{\"messages\":[{\"content\":[" IMAGE "]}]}", 0 },
		{ "{\"messages\":[{\"content\":[" IMAGE
		  ",{\"type\":\"text\",\"text\":\"01234567890123\"}]}]}",
		    16 },
		{ "{\"messages\":[{\"content\":\"0123456789\"},{\"content\":[{\"text\":\"01\"}," IMAGE
		  ",{\"text\":\"01\"}]},{\"content\":null}]}",
		    20 },
		{ "{\"system\":\"0123456789\",\"tools\":[{\"a\":\"b\"}],\"messages\":[{\"content\":[" IMAGE
		  "]}]}",
		    12 + 11 },
		{ "{\"input\":[{\"content\":[{\"text\":\"0123456789\"}," IMAGE "]},{\"content\":\"01\"}]}",
		    16 },
		{ "{\"messages\":[{\"content\":\"0123456789\"}],\"messages\":[{\"content\":\"01\"}]}", 4 },
		{ "{\"prompt\":\"0123456789\",\"input\":[{\"content\":\"01\"}]}", 12 },
		{ "{\"input\":\"0123456789\"}", 12 },
		{ "{\"input\":[1000,2000,3000]}", 0 },
		/* And of what has not ended, what is here. */
		{ "{\"messages\":[{\"content\":\"0123456", 8 },
		{ "{\"messages\":[{\"content\":[{\"text\":\"01\"},{\"text\":\"0123456", 12 },
		{ "{\"messages\":[{\"content\":[{\"text\":\"01\"},{\"image_url\":{\"url\":\"data:0123456",
		    4 },
		{ "{\"prompt\":\"0123456", 8 },
	};
	for (size_t i = 0; i < n_elems(cases); i++)
		for (size_t step = 1; step < 200; step += 66) {
			const struct inspect_salt with = { .model = SLICE("m"), .tokens_per_byte = 0.25 };
			struct slice body = slice_of(cases[i].body);
			struct inspect in;
			struct demand d;

			assert_int_equal(begin(&in, "POST", JSON), CAUSE_NONE);
			for (size_t at = 0; at < body.n; at += step)
				(void)feed(&in, slice_head(slice_skip(body, at), step), CAUSE_NONE);
			inspect_demand(&in, &with, keys, &d);
			if (d.text_tokens != cases[i].n_bytes / 4)
				fail_msg("%u: %s", d.text_tokens, cases[i].body);
			inspect_deinit(&in, &pool);
		}
}

static void a_suffix_makes_an_infill(void **state) {
	static const struct {
		const char *path, *body;
		enum capability capability;
	} cases[] = {
		{ "/v1/completions", "{\"prompt\":\"a\",\"suffix\":\"b\"}", CAPABILITY_INFILL },
		{ "/v1/completions", "{\"prompt\":\"a\"}", CAPABILITY_COMPLETION },
		{ "/v1/completions", "{\"suffix\":\"\"}", CAPABILITY_COMPLETION },
		{ "/v1/completions", "{\"suffix\":null}", CAPABILITY_COMPLETION },
		{ "/v1/completions", "{\"suffix\":[\"b\"]}", CAPABILITY_COMPLETION },
		{ "/v1/completions", "{\"suffix\":\"b\",\"suffix\":null}", CAPABILITY_COMPLETION },
		{ "/v1/completions", "{\"x\":{\"suffix\":\"b\"}}", CAPABILITY_COMPLETION },
		{ "/api/generate", "{\"prompt\":\"a\",\"suffix\":\"b\"}", CAPABILITY_INFILL },
		{ "/v1/chat/completions", "{\"suffix\":\"b\"}", CAPABILITY_CHAT },
		{ "/infill", "{\"input_prefix\":\"a\"}", CAPABILITY_INFILL },
	};
	const char *before = path;
	for (size_t i = 0; i < n_elems(cases); i++) {
		path = cases[i].path;
		struct demand d = demand_of(JSON, slice_of(cases[i].body), 3, keys);
		if (d.capability != cases[i].capability)
			fail_msg("%s: %s %s", capability_text(d.capability), path, cases[i].body);
	}
	path = before;
}

/* A member whose value is `n` bytes of a text that is the same for the same seed. */
static void put_text(FILE *out, const char *before, uint64_t seed, size_t n) {
	struct rng rng;
	rng_init(&rng, seed);
	fputs(before, out);
	for (size_t i = 0; i < n; i++)
		fputc("abcdefghijklmnopqrstuvwxyz []{},:"[rng_below(&rng, 33)], out);
	fputs("\"", out);
}

enum { MEMBERS = 5 };

/* The members in an order of their own: tools, system, messages with n bytes, other things. */
static struct slice body_of(unsigned order, size_t n) {
	char *text;
	size_t n_bytes;
	FILE *out = open_memstream(&text, &n_bytes);
	for (unsigned i = 0; i < MEMBERS; i++) {
		fputc(i ? ',' : '{', out);
		switch ((i + order) % MEMBERS) {
		case 0:
			put_text(out, "\"tools\":[{\"type\":\"function\",\"x\":\"", 1, 5000);
			fputs("}]", out);
			break;
		case 1:
			put_text(out, "\"system\":\"", 2, 3000);
			break;
		case 2:
			put_text(out, "\"messages\":[{\"role\":\"user\",\"content\":\"", 3, n);
			fputs("}]", out);
			break;
		case 3:
			fputs("\"model\":\"m\",\"metadata\":{\"messages\":[1],\"tools\":[2]}", out);
			break;
		default:
			put_text(out, "\"other\":\"", order, order * 100);
		}
	}
	fputc('}', out);
	fclose(out);
	return (struct slice){ text, n_bytes };
}

static void keys_are_of_the_prompt_alone(void **state) {
	struct slice body = body_of(0, 20000);
	struct demand whole = demand_of(JSON, body, body.n, keys);
	struct rng rng;
	const size_t n_bytes = strlen("[{\"type\":\"function\",\"x\":\"\"}]") + 5000 + strlen("\"\"") + 3000 +
	    strlen("[{\"role\":\"user\",\"content\":\"\"}]") + 20000;
	assert_int_equal(whole.prompt_bytes, n_bytes);
	assert_int_equal(whole.prompt_tokens, n_bytes / 4);
	assert_int_equal(whole.n_keys, 2 + 1 + 9);
	rng_init(&rng, 5);
	for (unsigned i = 0; i < 200; i++) {
		struct slice again = body_of(i % 7, 20000);
		struct demand d = demand_of(JSON, again, 1 + rng_below(&rng, i % 3 ? 9000 : 40), others);
		assert_int_equal(d.n_keys, whole.n_keys);
		assert_memory_equal(keys, others, d.n_keys * sizeof(*keys));
		assert_int_equal(d.prompt_bytes, n_bytes);
		free((char *)again.p);
	}
	/* The conversation goes on: what was before keeps its keys, but for the end of it. */
	struct slice more = body_of(0, 30000);
	assert_int_equal(demand_of(JSON, more, 777, others).n_keys, 2 + 1 + 14);
	assert_memory_equal(keys, others, 12 * sizeof(*keys));
	free((char *)more.p);
	free((char *)body.p);
}

static bool has_equal_keys(const char *body, const char *other) {
	struct demand a = demand_of(JSON, slice_of(body), 1000, keys);
	struct demand b = demand_of(JSON, slice_of(other), 1000, others);
	assert_true(a.n_keys > 0 && b.n_keys > 0);
	return a.n_keys == b.n_keys && memcmp(keys, others, a.n_keys * sizeof(*keys)) == 0;
}

#define A64   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A512  A64 A64 A64 A64 A64 A64 A64 A64
#define A2048 A512 A512 A512 A512

#define ZEROS_32   ",0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"
#define ZEROS_256  ZEROS_32 ZEROS_32 ZEROS_32 ZEROS_32 ZEROS_32 ZEROS_32 ZEROS_32 ZEROS_32
#define ZEROS_2048 ZEROS_256 ZEROS_256 ZEROS_256 ZEROS_256 ZEROS_256 ZEROS_256 ZEROS_256 ZEROS_256

static void what_a_prompt_is(void **state) {
	static const char *const prompts[] = { "{\"prompt\":\"" A2048 "\"}", "{\"messages\":[\"" A2048 "\"]}",
		"{\"input\":\"" A2048 "\"}", "{\"text\":\"" A2048 "\"}", "{\"system\":\"" A2048 "\"}",
		"{\"instructions\":\"" A2048 "\"}", "{\"tools\":[\"" A2048 "\"]}",
		"{\"prompt\":{\"x\":\"" A2048 "\"}}", "{\"input_ids\":[1" ZEROS_2048 "]}",
		"{\"token_ids\":[1" ZEROS_2048 "]}", "{\"input_ids\":[[1" ZEROS_2048 "],[2]]}",
		"{\"prompt\":[1" ZEROS_2048 "]}" };
	static const char *const none[] = { "{\"x\":{\"messages\":[\"" A2048 "\"]}}",
		"{\"text\":{\"format\":\"" A2048 "\"}}", "{\"x\":[{\"prompt\":\"" A2048 "\"}]}",
		"{\"prompt\":\"" A2048 "\",\"prompt\":null}", "{\"prompt\":\"" A2048 "\",\"prompt\":\"x\"}" };
	for (size_t i = 0; i < n_elems(prompts); i++)
		assert_int_equal(demand_of(JSON, slice_of(prompts[i]), 100, keys).n_keys, 1);
	for (size_t i = 0; i < n_elems(none); i++)
		assert_int_equal(demand_of(JSON, slice_of(none[i]), 100, keys).n_keys, 0);
	/* Raw bytes: an escape is another text. */
	assert_false(has_equal_keys("{\"prompt\":\"a" A2048 "\"}", "{\"prompt\":\"\\u0061" A2048 "\"}"));
	/* The last of several, and of two that make one part the same one, whatever stands first. */
	assert_true(has_equal_keys(
	    "{\"prompt\":\"x" A2048 "\"}", "{\"prompt\":\"" A2048 "\",\"prompt\":\"x" A2048 "\"}"));
	assert_true(has_equal_keys("{\"prompt\":\"x" A2048 "\",\"messages\":[\"" A2048 "\"]}",
	    "{\"messages\":[\"" A2048 "\"],\"prompt\":\"x" A2048 "\"}"));
	assert_true(has_equal_keys("{\"prompt\":\"x" A2048 "\",\"messages\":null}",
	    "{\"messages\":null,\"prompt\":\"x" A2048 "\"}"));
	assert_false(has_equal_keys("{\"prompt\":\"" A2048 "\"}", "{\"prompt\":\"b" A2048 "\"}"));
	assert_false(has_equal_keys("{\"prompt\":\"" A2048 "\"}", "{\"system\":\"" A2048 "\"}"));
	assert_true(has_equal_keys(
	    "{\"input_ids\":[1" ZEROS_2048 "]}", "{\"sampling_params\":{},\"input_ids\":[1" ZEROS_2048 "]}"));
	assert_false(
	    has_equal_keys("{\"input_ids\":[1" ZEROS_2048 "]}", "{\"input_ids\":[2" ZEROS_2048 "]}"));
}

/* What is there and says nothing changes no key, wherever it stands. */
static void what_is_empty_is_no_prompt(void **state) {
	static const char *const members[] = { "\"tools\":[]", "\"tools\":[ ]", "\"tools\":null",
		"\"system\":\"\"", "\"system\":[]", "\"system\":null", "\"instructions\":\"\"",
		"\"prompt\":\"\"", "\"input\":[]", "\"messages\":[]", "\"messages\":null",
		"\"tools\":[1],\"tools\":[]" };
	static const char alone[] = "{\"text\":\"" A2048 "\"}";
	for (size_t i = 0; i < n_elems(members); i++) {
		char body[2200];
		snprintf(body, sizeof(body), "{%s,\"text\":\"" A2048 "\"}", members[i]);
		if (!has_equal_keys(body, alone))
			fail_msg("%s before", members[i]);
		snprintf(body, sizeof(body), "{\"text\":\"" A2048 "\",%s}", members[i]);
		if (!has_equal_keys(body, alone))
			fail_msg("%s behind", members[i]);
	}
	assert_false(has_equal_keys("{\"tools\":[{}],\"text\":\"" A2048 "\"}", alone));
	/* Of two that would make one part the one that says something. */
	assert_true(has_equal_keys("{\"system\":\"x\",\"text\":\"" A2048 "\"}",
	    "{\"instructions\":\"x\",\"system\":\"\",\"text\":\"" A2048 "\"}"));
	assert_true(has_equal_keys("{\"system\":\"x\",\"text\":\"" A2048 "\"}",
	    "{\"system\":\"\",\"instructions\":\"x\",\"text\":\"" A2048 "\"}"));
}

/* Tokens that a client has counted are not guessed; several prompts in one need no common context. */
static void token_ids_are_counted(void **state) {
	static const struct {
		const char *path, *body;
		uint32_t n_tokens;
		bool is_counted, is_batch;
	} cases[] = {
		{ "/generate", "{\"input_ids\":[1,22, 333 ,\n4]}", 4, true, false },
		{ "/generate", "{\"input_ids\": [ [1,2],\n[3,4,5]]}", 5, true, true },
		{ "/generate", "{\"input_ids\":[7]}", 1, true, false },
		{ "/generate", "{\"input_ids\":[]}", 0, false, false },
		{ "/generate", "{\"input_ids\":null,\"text\":\"0123456789\"}", 3, false, false },
		{ "/generate", "{\"text\":\"1,2,3\"}", 1, false, false },
		{ "/generate", "{\"text\":[\"1,2,3,4,5,6,7\",\"8,9\"]}", 5, false, true },
		{ "/generate", "{\"input_ids\":[1,2,3],\"input_ids\":\"01\"}", 1, false, false },
		{ "/inference/v1/generate", "{\"token_ids\":[1,22, 333]}", 3, true, false },
		{ "/v1/completions", "{\"prompt\":[100,200,300]}", 3, true, false },
		{ "/v1/completions", "{\"prompt\":[1" ZEROS_2048 "]}", 1025, true, false },
		{ "/v1/completions", "{\"prompt\":[[100,200],[300]]}", 3, true, true },
		{ "/v1/completions", "{\"prompt\":[100,200],\"system\":\"012345\"}", 4, true, false },
		{ "/v1/embeddings", "{\"input\":[[1,2],[3]]}", 3, true, true },
		{ "/v1/embeddings", "{\"input\":[\"abcdef\",\"gh\"]}", 3, false, true },
		{ "/v1/responses", "{\"input\":[{\"n\":[1,2]}]}", 3, false, false },
		/* One in a list is one, whatever stands in it. */
		{ "/v1/completions", "{\"prompt\":[\"a\"]}", 1, false, false },
		{ "/v1/completions", "{\"prompt\":[[1]]}", 1, true, false },
		{ "/v1/completions", "{\"prompt\":[ [1,22 , 3] ]}", 3, true, false },
		{ "/v1/completions", "{\"prompt\":[\"a, \\\"b\\\", c\\\\\" ]}", 4, false, false },
		{ "/v1/completions", "{\"prompt\":[\"a\\\\\" ,\"b\"]}", 3, false, true },
		{ "/v1/completions", "{\"prompt\":[\"\",\"\"]}", 1, false, true },
		{ "/v1/completions", "{\"prompt\":[]}", 0, false, false },
	};
	const char *before = path;
	for (size_t i = 0; i < n_elems(cases); i++)
		for (size_t step = 1; step < 100; step += 98) {
			path = cases[i].path;
			struct demand d = demand_of(JSON, slice_of(cases[i].body), step, keys);
			if (d.prompt_tokens != cases[i].n_tokens || d.is_counted != cases[i].is_counted ||
			    d.is_batch != cases[i].is_batch)
				fail_msg("%u, %d, %d: %s", d.prompt_tokens, d.is_counted, d.is_batch,
				    cases[i].body);
		}
	path = before;
}

/* What is compared: a query and documents, of a rerank or a score alone. */
static void what_is_compared_counts(void **state) {
	static const struct {
		const char *path, *body;
		uint64_t n_bytes;
		bool is_batch;
	} cases[] = {
		{ "/v1/rerank", "{\"query\":\"abcd\",\"documents\":[\"ab\",\"cd\"]}", 6 + 11, true },
		{ "/rerank", "{\"documents\":[{\"text\":\"ab\"}],\"query\":\"abcd\"}", 6 + 15, true },
		{ "/v1/score", "{\"text_1\":\"abcd\",\"text_2\":\"ab\"}", 6 + 4, false },
		{ "/score", "{\"text_1\":\"abcd\",\"text_2\":[\"ab\",\"cd\"]}", 6 + 11, true },
		{ "/classify", "{\"input\":\"abcd\"}", 6, false },
		{ "/v1/chat/completions", "{\"messages\":[],\"query\":\"abcd\",\"text_1\":\"x\"}", 0, false },
		{ "/v1/completions", "{\"documents\":[\"ab\"],\"text_2\":\"x\"}", 0, false },
	};
	const char *before = path;
	for (size_t i = 0; i < n_elems(cases); i++)
		for (size_t step = 1; step < 100; step += 98) {
			path = cases[i].path;
			struct demand d = demand_of(JSON, slice_of(cases[i].body), step, keys);
			if (d.prompt_bytes != cases[i].n_bytes || d.is_batch != cases[i].is_batch)
				fail_msg("%u, %d: %s", (unsigned)d.prompt_bytes, d.is_batch, cases[i].body);
		}
	path = before;
	/* The query is before what it is compared with, wherever it stands. */
	path = "/v1/rerank";
	assert_true(has_equal_keys("{\"query\":\"q\",\"documents\":[\"" A2048 "\"]}",
	    "{\"documents\":[\"" A2048 "\"],\"query\":\"q\"}"));
	assert_false(has_equal_keys("{\"query\":\"q\",\"documents\":[\"" A2048 "\"]}",
	    "{\"documents\":[\"" A2048 "\"],\"query\":\"r\"}"));
	path = before;
}

static void salts_separate_keys_and_sessions(void **state) {
	static const char body[] = "{\"prompt\":\"" A2048 "\",\"user\":\"u\"}";
	static const struct inspect_salt salts[] = { { 0, { "m", 1 }, 1e9 }, { 0, { "n", 1 }, 0 },
		{ 1, { "m", 1 }, 0 }, { 0, { NULL, 0 }, 0 } };
	uint64_t seen[n_elems(salts)][2];
	struct inspect in;
	struct demand d;
	assert_int_equal(inspect(&in, JSON, SLICE(body), 0, 99), CAUSE_NONE);
	for (size_t i = 0; i < n_elems(salts); i++) {
		inspect_demand(&in, &salts[i], keys, &d);
		assert_int_equal(d.n_keys, 1);
		assert_int_equal(d.prompt_tokens, i == 0 ? UINT32_MAX : 0);
		seen[i][0] = keys[0];
		seen[i][1] = d.session;
		for (size_t k = 0; k < i; k++)
			assert_true(seen[i][0] != seen[k][0] && seen[i][1] != seen[k][1]);
		inspect_demand(&in, &salts[i], keys, &d); /* as often as one likes */
		assert_true(keys[0] == seen[i][0] && d.session == seen[i][1]);
	}
	inspect_deinit(&in, &pool);
}

/* What makes engines compute equal prompts anew, in spaces of their own. */
static void spaces_separate_keys(void **state) {
	static const char *const spaces[] = { "\"x\":0", "\"cache_salt\":\"a\"", "\"cache_salt\":\"b\"",
		"\"cache_salt\":[\"a\",\"b\"]", "\"cache_salt\":[\"b\",\"a\"]", "\"extra_key\":\"a\"",
		"\"extra_key\":\"b\"", "\"lora_path\":\"a\"", "\"lora_path\":\"b\"",
		"\"lora_path\":[\"a\",null]", "\"lora_path\":[null,\"a\"]",
		"\"lora\":[{\"id\":0,\"scale\":0.5}]", "\"lora\":[{\"id\":0,\"scale\":1.0}]",
		"\"cache_salt\":\"a\",\"extra_key\":\"a\"", "\"cache_salt\":\"a\",\"lora_path\":\"a\"",
		"\"cache_salt\":\"" A2048 A64 "\"", "\"cache_salt\":\"" A2048 A64 "a\"" };
	static const char *const none[] = { "\"cache_salt\":\"\"", "\"cache_salt\":null",
		"\"extra_key\":null", "\"extra_key\":\"\"", "\"lora_path\":\"\"", "\"lora_path\":[]",
		"\"lora_path\":null", "\"lora\":[]", "\"cache_salt\":\"a\",\"cache_salt\":null",
		"\"y\":{\"cache_salt\":\"a\"}" };
	uint64_t seen[n_elems(spaces)][2];
	char body[8000];
	for (size_t i = 0; i < n_elems(spaces); i++) {
		snprintf(
		    body, sizeof(body), "{%s,\"tools\":[\"" A2048 "\"],\"prompt\":\"" A2048 "\"}", spaces[i]);
		struct demand d = demand_of(JSON, slice_of(body), 1000, keys);
		assert_int_equal(d.n_keys, 2);
		assert_int_equal(d.prompt_bytes, 2052 + 2050);
		memcpy(seen[i], keys, sizeof(seen[i]));
		for (size_t k = 0; k < i; k++)
			if (seen[i][0] == seen[k][0] || seen[i][1] == seen[k][1])
				fail_msg("%.80s and %.80s", spaces[i], spaces[k]);
		/* Wherever it stands, and however it is cut. */
		snprintf(
		    body, sizeof(body), "{\"tools\":[\"" A2048 "\"],\"prompt\":\"" A2048 "\",%s}", spaces[i]);
		assert_int_equal(demand_of(JSON, slice_of(body), 1 + i, others).n_keys, 2);
		assert_memory_equal(keys, others, sizeof(seen[i]));
	}
	for (size_t i = 0; i < n_elems(none); i++) {
		snprintf(
		    body, sizeof(body), "{%s,\"tools\":[\"" A2048 "\"],\"prompt\":\"" A2048 "\"}", none[i]);
		assert_int_equal(demand_of(JSON, slice_of(body), 99, keys).n_keys, 2);
		if (memcmp(keys, seen[0], sizeof(seen[0])))
			fail_msg("%s", none[i]);
	}
}

/* While it is not known which space it is, no key is. */
static void an_open_space_has_no_keys(void **state) {
	struct inspect in;
	struct demand d;
	assert_int_equal(begin(&in, "POST", JSON), CAUSE_NONE);
	assert_int_equal(
	    feed(&in, SLICE("{\"prompt\":\"" A2048 "\",\"cache_salt\":\"a"), CAUSE_NONE), CAUSE_NONE);
	inspect_demand(&in, &salt, keys, &d);
	assert_int_equal(d.n_keys, 0);
	assert_int_equal(d.prompt_bytes, 2050);
	assert_int_equal(feed(&in, SLICE("\"}"), CAUSE_NONE), CAUSE_NONE);
	inspect_demand(&in, &salt, keys, &d);
	assert_int_equal(d.n_keys, 1);
	inspect_deinit(&in, &pool);
}

static void a_demand_of_what_has_come_so_far(void **state) {
	struct inspect in;
	struct demand d;
	assert_int_equal(begin(&in, "POST", JSON), CAUSE_NONE);
	assert_int_equal(feed(&in, SLICE("{\"user\":\"u\",\"prompt\":\"" A2048 A64), CAUSE_NONE), CAUSE_NONE);
	inspect_demand(&in, &salt, keys, &d);
	assert_int_equal(d.n_keys, 1);
	assert_int_equal(d.prompt_bytes, 1 + 2048 + 64);
	assert_true(d.session != 0 && !inspect_has_session(&in));
	assert_int_equal(feed(&in, SLICE("\",\"prompt_cache_key\":\"k\""), CAUSE_NONE), CAUSE_NONE);
	uint64_t before = d.session;
	inspect_demand(&in, &salt, keys, &d);
	assert_true(d.session != before && inspect_has_session(&in));
	inspect_deinit(&in, &pool);
	inspect_demand(&in, &salt, keys, &d);
	assert_true(!d.n_keys && !d.session && !d.features);
}

/* ---- sessions ---------------------------------------------------------------------- */

static uint64_t session_with(const char *fields, const char *body) {
	return demand_of(fields, slice_of(body), 9, keys).session;
}

static void the_first_of_the_list_is_the_session(void **state) {
	static const char *const members[] = { "\"prompt_cache_key\":\"a\"",
		"\"conversation\":{\"id\":\"b\"}", "\"previous_response_id\":\"c\"",
		"\"session_params\":{\"session_id\":\"d\"}", "\"metadata\":{\"user_id\":\"e\"}",
		"\"user\":\"f\"" };
	static const char letters[] = "abcdef";
	for (size_t i = 0; i < n_elems(members); i++)
		for (size_t k = i; k < n_elems(members); k++) {
			char body[200], one[30];
			snprintf(body, sizeof(body), "{%s,%s}", members[k], k == i ? "\"x\":1" : members[i]);
			snprintf(one, sizeof(one), "{\"user\":\"%c\"}", letters[i]);
			assert_true(session_with(JSON, body) == session_with(JSON, one));
		}
	uint64_t f = session_with(JSON, "{\"user\":\"f\"}");
	assert_true(session_with(JSON, "{\"conversation\":\"f\"}") == f);
	assert_true(session_with(JSON, "{\"user\":\"f\",\"prompt_cache_key\":\"\"}") == f);
	assert_true(session_with(JSON, "{\"user\":\"f\",\"prompt_cache_key\":\"a\\n\"}") == f);
	assert_true(session_with(JSON, "{\"user\":\"f\",\"prompt_cache_key\":7}") == f);
	assert_true(session_with(JSON, "{\"user\":\"f\",\"conversation\":\"x\",\"conversation\":{}}") == f);
	assert_int_equal(session_with(JSON, "{\"user\":\"f\",\"user\":null}"), 0);
	assert_int_equal(session_with(JSON, "{\"metadata\":{\"user_id\":\"e\"},\"metadata\":{}}"), 0);
	assert_int_equal(session_with(JSON, "{\"user_id\":\"e\",\"session_id\":\"x\",\"id\":\"y\"}"), 0);
}

static void a_header_counts_more(void **state) {
	static const char body[] = "{\"prompt_cache_key\":\"body\"}";
	uint64_t in_body = session_with(JSON, body), a = session_with(JSON, "{\"user\":\"a\"}");
	char fields[600];
	assert_true(session_with(JSON "X-Session-Id: a\r\n", body) == a);
	assert_true(session_with(JSON "session_ID:  a \r\n", body) == a);
	assert_true(session_with(JSON "session_id: b\r\nx-session-id: a\r\n", body) == a);
	assert_true(session_with(JSON "x-session-id: a\r\nsession_id: b\r\n", body) == a);
	assert_true(session_with(JSON "x-session-id: a\r\nx-session-id: b\r\n", body) == a);
	assert_true(session_with(JSON "x-session-id:\r\nsession_id: a\r\n", body) == a);
	assert_true(session_with(JSON "x-session-id: \xff\r\n", body) == in_body);
	assert_true(
	    session_with(JSON "x-request-id: a\r\nx-session-idx: a\r\nsession-id: a\r\n", body) == in_body);
	assert_true(session_with("Content-Type: text/plain\r\nx-session-id: a\r\n", "abc") == a);
	snprintf(fields, sizeof(fields), JSON "x-session-id: %s\r\n", MODEL_256);
	assert_true(session_with(fields, body) != in_body);
	snprintf(fields, sizeof(fields), JSON "x-session-id: %sx\r\n", MODEL_256);
	assert_true(session_with(fields, body) == in_body);
}

static void the_rules_say_where_to_look(void **state) {
	struct inspect_rules before = rules;
	inspect_rules_init(&rules, NULL, 0);
	assert_true(inspect_rules_add(&rules, SLICE("user")));
	assert_true(inspect_rules_add(&rules, SLICE("prompt_cache_key")));
	assert_false(inspect_rules_add(&rules, SLICE("user")));
	assert_false(inspect_rules_add(&rules, SLICE("session_id")));
	uint64_t a = session_with(JSON, "{\"user\":\"a\"}");
	assert_true(
	    session_with(JSON "x-session-id: b\r\n", "{\"prompt_cache_key\":\"c\",\"user\":\"a\"}") == a);
	assert_true(session_with(JSON, "{\"prompt_cache_key\":\"a\",\"conversation\":\"d\"}") == a);
	assert_int_equal(session_with(JSON, "{\"conversation\":\"d\"}"), 0);
	inspect_rules_init(&rules, NULL, 0);
	assert_int_equal(session_with(JSON, "{\"user\":\"a\"}"), 0);
	rules = before;
}

/* ---- headers of ours --------------------------------------------------------------------- */

static void our_headers_are_read(void **state) {
	struct demand d =
	    demand_of(JSON "X-Headrace-Privacy: Confidential\r\nx-headrace-origin-zone: a-1\r\n"
			   "x-headrace-cost-tolerance: 100\r\nx-headrace-deadline-ms: 4294967295\r\n",
		SLICE("{}"), 1, keys);
	assert_int_equal(d.privacy, PRIVACY_CONFIDENTIAL);
	assert_true(d.origin_zone == XXH3_64bits("a-1", 3));
	assert_true(d.has_cost_tolerance && d.cost_tolerance == 100);
	assert_true(d.deadline_ms == UINT32_MAX);
	d = demand_of(JSON "x-headrace-cost-tolerance: 0\r\n", SLICE("{}"), 1, keys);
	assert_true(d.has_cost_tolerance && d.cost_tolerance == 0);
	d = demand_of(JSON, SLICE("{}"), 1, keys);
	assert_true(!d.has_cost_tolerance && !d.privacy && !d.origin_zone && !d.deadline_ms);
	d = demand_of("Content-Type: text/plain\r\nx-headrace-accelerator: h100\r\n", SLICE("x"), 1, keys);
	assert_true(d.accelerator == traits_word(SLICE("h100")));
	d = demand_of("Content-Type: text/plain\r\nx-headrace-deadline-ms: 7\r\n", SLICE("x"), 1, keys);
	assert_int_equal(d.deadline_ms, 7);
}

static struct inspect_wishes wishes_of(const char *line) {
	struct inspect in;
	assert_int_equal(begin(&in, "GET", line), CAUSE_NONE);
	struct inspect_wishes wishes = inspect_wishes(&in);
	inspect_deinit(&in, &pool);
	return wishes;
}

static void wishes_of_a_wait(void **state) {
	struct inspect_wishes w = wishes_of("");
	assert_true(w.class == 4 && !w.wait_ms && !w.deadline_ms);
	assert_int_equal(wishes_of("x-headrace-priority: High\r\n").class, 2);
	assert_int_equal(wishes_of("x-headrace-priority: 7\r\n").class, 7);
	assert_true(wishes_of("x-headrace-wait: true\r\n").wait_ms == UINT64_MAX);
	w = wishes_of("x-headrace-wait: 1500ms\r\nx-headrace-deadline-ms: 9\r\n");
	assert_true(w.wait_ms == 1500 && w.deadline_ms == 9);
}

static void what_ours_say_wrongly_is_refused(void **state) {
	static const struct {
		const char *line;
		enum cause cause;
	} cases[] = {
		{ "x-headrace-privacy: secret\r\n", CAUSE_BAD_HEADER },
		{ "x-headrace-privacy: public\r\nx-headrace-privacy: public\r\n", CAUSE_BAD_HEADER },
		{ "a: b\r\nx-headrace-privcy: public\r\n", CAUSE_UNKNOWN_HEADER },
		{ "x-headrace-reason: b\r\nx-headrace-: c\r\n", CAUSE_NONE },
	};
	struct inspect in;
	for (size_t i = 0; i < 2 * n_elems(cases); i++) {
		assert_int_equal(begin(&in, i % 2 ? "GET" : "POST", cases[i / 2].line), cases[i / 2].cause);
		inspect_deinit(&in, &pool);
	}
}

/* What the pick is told of the stored response that such a request is about. */
static uint64_t response_asked_for(const char *method, const char *target, const char *body) {
	const struct inspect_salt with = { .model = SLICE("m"), .tokens_per_byte = 0.25 };
	const char *usual = path;
	struct inspect in;
	struct demand d;

	path = target;
	assert_int_equal(begin(&in, method, body ? JSON : ""), CAUSE_NONE);
	path = usual;
	if (body)
		assert_int_equal(feed(&in, slice_of(body), CAUSE_NONE), CAUSE_NONE);
	assert_int_equal(inspect_finish(&in), CAUSE_NONE);
	inspect_demand(&in, &with, keys, &d);
	assert_int_equal(inspect_names_response(&in), d.response != 0);
	uint64_t hash = inspect_response(&in);
	assert_int_equal(hash != 0, d.response && !in.may_name_response); /* in its body */
	assert_true(!hash || inspect_response_key(hash, 0) == d.response);
	inspect_deinit(&in, &pool);
	assert_true(!inspect_response(&in));
	assert_int_equal(inspect_names_response(&in), d.response != 0); /* also then */
	return d.response;
}

/* One key, whoever asks, whatever the model; tenants have their own. */
static void a_stored_response_is_named(void **state) {
	uint64_t r1 = inspect_response_key(inspect_id_hash(SLICE("resp_1")), 0);
	char long_path[400];

	assert_true(r1 && r1 != inspect_response_key(inspect_id_hash(SLICE("resp_1")), 7));
	assert_true(r1 != inspect_response_key(inspect_id_hash(SLICE("resp_2")), 0));
	assert_true(response_asked_for("GET", "/v1/responses/resp_1", NULL) == r1);
	assert_true(response_asked_for("GET", "/v1/responses/resp_1?stream=true", NULL) == r1);
	assert_true(response_asked_for("GET", "/v1/responses/resp_1/input_items", NULL) == r1);
	assert_true(response_asked_for("DELETE", "/v1/responses/resp_1", NULL) == r1);
	assert_true(response_asked_for("POST", "/v1/responses/resp_1/cancel", NULL) == r1);
	assert_true(response_asked_for("POST", "/v1/responses/resp_1/cancel", "") == r1);
	assert_true(response_asked_for("POST", "/v1/responses/resp_1/cancel", "{}") == r1);
	assert_true(response_asked_for("POST", "/v1/responses",
			"{\"model\":\"m\",\"previous_response_id\":\"resp_1\"}") == r1);
	assert_true(
	    response_asked_for("POST", "/v1/responses", "{\"previous_response_id\":\"resp_\\u0031\"}") == r1);
	assert_int_equal(response_asked_for("POST", "/v1/responses", "{\"previous_response_id\":null}"), 0);
	assert_int_equal(response_asked_for("POST", "/v1/responses", "{\"model\":\"m\"}"), 0);
	assert_int_equal(
	    response_asked_for("POST", "/v1/chat/completions", "{\"previous_response_id\":\"resp_1\"}"), 0);
	/* Two that are no ids, whose bodies name one. */
	assert_int_equal(response_asked_for("POST", "/v1/responses/compact", "{\"model\":\"m\"}"), 0);
	assert_true(response_asked_for(
			"POST", "/v1/responses/compact", "{\"previous_response_id\":\"resp_1\"}") == r1);
	assert_true(response_asked_for("POST", "/v1/responses/input_tokens",
			"{\"model\":\"m\",\"previous_response_id\":\"resp_1\"}") == r1);
	assert_true(response_asked_for("POST", "/v1/responses/resp_1/cancel",
			"{\"previous_response_id\":\"resp_2\"}") == r1);
	assert_int_equal(response_asked_for("GET", "/v1/responses", NULL), 0);
	assert_int_equal(response_asked_for("GET", "/v1/responses/", NULL), 0);
	assert_int_equal(response_asked_for("GET", "/v1/responses//cancel", NULL), 0);
	assert_int_equal(response_asked_for("GET", "/v1/responsesx/resp_1", NULL), 0);
	snprintf(long_path, sizeof(long_path), "/v1/responses/%s", MODEL_256);
	assert_true(response_asked_for("GET", long_path, NULL) != 0);
	snprintf(long_path, sizeof(long_path), "/v1/responses/%sx", MODEL_256);
	assert_int_equal(response_asked_for("GET", long_path, NULL), 0);
}

/* While its body may yet name one, and no longer. */
static void a_stored_response_may_yet_be_named(void **state) {
	const char *usual = path;
	struct inspect in;

	path = "/v1/responses";
	assert_int_equal(begin(&in, "POST", JSON), CAUSE_NONE);
	assert_true(inspect_may_name_response(&in));
	assert_int_equal(feed(&in, SLICE("{\"previous_response_id\":\"r\""), CAUSE_NONE), CAUSE_NONE);
	assert_false(inspect_may_name_response(&in));
	inspect_deinit(&in, &pool);
	assert_int_equal(begin(&in, "POST", JSON), CAUSE_NONE);
	assert_int_equal(feed(&in, SLICE("{}"), CAUSE_NONE), CAUSE_NONE);
	assert_int_equal(inspect_finish(&in), CAUSE_NONE);
	assert_false(inspect_may_name_response(&in));
	inspect_deinit(&in, &pool);
	path = usual;
	assert_int_equal(begin(&in, "POST", JSON), CAUSE_NONE);
	assert_false(inspect_may_name_response(&in));
	inspect_deinit(&in, &pool);
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
		cmocka_unit_test(the_model_of_a_form_is_found),
		cmocka_unit_test(which_forms_are_read),
		cmocka_unit_test(features_and_limits_are_found),
		cmocka_unit_test(what_is_text_is_known_of_media),
		cmocka_unit_test(a_suffix_makes_an_infill),
		cmocka_unit_test(keys_are_of_the_prompt_alone),
		cmocka_unit_test(what_a_prompt_is),
		cmocka_unit_test(what_is_empty_is_no_prompt),
		cmocka_unit_test(token_ids_are_counted),
		cmocka_unit_test(what_is_compared_counts),
		cmocka_unit_test(salts_separate_keys_and_sessions),
		cmocka_unit_test(spaces_separate_keys),
		cmocka_unit_test(an_open_space_has_no_keys),
		cmocka_unit_test(a_demand_of_what_has_come_so_far),
		cmocka_unit_test(the_first_of_the_list_is_the_session),
		cmocka_unit_test(a_header_counts_more),
		cmocka_unit_test(the_rules_say_where_to_look),
		cmocka_unit_test(our_headers_are_read),
		cmocka_unit_test(wishes_of_a_wait),
		cmocka_unit_test(what_ours_say_wrongly_is_refused),
		cmocka_unit_test(a_stored_response_is_named),
		cmocka_unit_test(a_stored_response_may_yet_be_named),
		cmocka_unit_test(without_memory_it_is_overloaded),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
