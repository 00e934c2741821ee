#include "unit/unit.h"

#include <math.h>

#include "engine/api.h"
#include "engine/generation.h"
#include "engine/tokens.h"

static const char *const models[] = { "m", "other" };
static const struct generation_rules rules = {
	.models = models,
	.n_models = 2,
	.n_model_tokens = 1000,
	.n_tokens_default = 4,
	.n_block_tokens = 16,
};
static struct generation_rules echo_rules;

static int set_up(void **state) {
	echo_rules = rules;
	echo_rules.echoes = true;
	return 0;
}

static bool parse(struct generation *g, const char *path, const struct generation_rules *r, const char *body,
    struct refusal *refusal) {
	struct generation_name name = { .id = SLICE("id-1"), .created_s = 1700000000 };
	const struct api *api = api_of_path(slice_of(path));
	assert_non_null(api);
	return generation_parse(g, api, r, &name, slice_of(body), refusal);
}

static struct generation parsed(const char *path, const struct generation_rules *r, const char *body) {
	struct generation g;
	struct refusal refusal;
	if (!parse(&g, path, r, body, &refusal))
		fail_msg("%s: %s", body, refusal.message);
	return g;
}

/* Makes all tokens. */
static void run(struct generation *g, struct bytes *out) {
	bytes_init(out, 1 << 20);
	if (g->is_stream)
		generation_open(g, out);
	for (uint32_t i = generation_output_tokens(g); i > 0; i--)
		generation_step(g, out);
	if (g->is_stream)
		generation_close(g, out);
	else
		assert_true(generation_whole(g, out));
}

static json_t *answer_to(const char *path, const struct generation_rules *r, const char *body) {
	struct generation g = parsed(path, r, body);
	struct bytes out;
	run(&g, &out);
	json_t *json = json_loadb(out.p, out.n, 0, NULL);
	assert_non_null(json);
	bytes_deinit(&out);
	generation_deinit(&g);
	return json;
}

/* The value at "choices.0.text" and the like; NULL when there is none. */
static const json_t *at(const json_t *json, const char *path) {
	struct slice rest = slice_of(path);
	while (json && rest.n) {
		const char *dot = memchr(rest.p, '.', rest.n);
		struct slice key = slice_head(rest, dot ? (size_t)(dot - rest.p) : rest.n);
		if (json_is_array(json))
			json = json_array_get(json, (size_t)(key.p[0] - '0'));
		else
			json = json_object_getn(json, key.p, key.n);
		rest = slice_skip(rest, size_min(key.n + 1, rest.n));
	}
	return json;
}

static void assert_text(const json_t *json, const char *path, const char *value) {
	const char *text = json_string_value(at(json, path));
	if (!text || strcmp(text, value) != 0)
		fail_msg("%s is \"%s\", not \"%s\"", path, text ? text : "no string", value);
}

static void assert_number(const json_t *json, const char *path, json_int_t value) {
	const json_t *number = at(json, path);
	if (!json_is_integer(number) || json_integer_value(number) != value)
		fail_msg(
		    "%s is %lld, not %lld", path, (long long)json_integer_value(number), (long long)value);
}

static void assert_null_at(const json_t *json, const char *path) {
	if (!json_is_null(at(json, path)))
		fail_msg("%s is not null", path);
}

/* Server-sent events, taken apart by the letter of the format. */
struct event {
	char name[64];
	json_t *data; /* NULL: [DONE] */
};

static size_t read_events(const struct bytes *out, struct event *events, size_t n_max) {
	size_t n = 0;
	struct slice rest = bytes_slice(out);
	while (rest.n) {
		const char *end = memmem(rest.p, rest.n, "\n\n", 2);
		assert_non_null(end);
		assert_true(n < n_max);
		struct slice event = slice_head(rest, (size_t)(end - rest.p));
		events[n].name[0] = '\0';
		if (slice_has_prefix(event, SLICE("event: "))) {
			const char *line = memchr(event.p, '\n', event.n);
			assert_non_null(line);
			snprintf(events[n].name, sizeof(events[n].name), "%.*s", (int)(line - event.p - 7),
			    event.p + 7);
			event = slice_skip(event, (size_t)(line - event.p) + 1);
		}
		assert_true(slice_has_prefix(event, SLICE("data: ")));
		event = slice_skip(event, 6);
		events[n].data = json_loadb(event.p, event.n, 0, NULL);
		assert_true(events[n].data || slice_eq(event, SLICE("[DONE]")));
		n++;
		rest = slice_skip(rest, (size_t)(end - rest.p) + 2);
	}
	return n;
}

static size_t stream_of(const char *path, const struct generation_rules *r, const char *body,
    struct event *events, size_t n_max) {
	struct generation g = parsed(path, r, body);
	struct bytes out;
	assert_true(g.is_stream);
	run(&g, &out);
	size_t n = read_events(&out, events, n_max);
	bytes_deinit(&out);
	generation_deinit(&g);
	return n;
}

static void free_events(struct event *events, size_t n) {
	for (size_t i = 0; i < n; i++)
		json_decref(events[i].data);
}

#define CHAT "\"messages\":[{\"role\":\"user\",\"content\":\"one two three\"}]"

static void a_chat_has_the_shape_of_vllm(void **state) {
	json_t *json =
	    answer_to("/v1/chat/completions", &rules, "{\"model\":\"m\"," CHAT ",\"max_tokens\":7}");
	assert_text(json, "id", "chatcmpl-id-1");
	assert_text(json, "object", "chat.completion");
	assert_number(json, "created", 1700000000);
	assert_text(json, "model", "m");
	assert_number(json, "choices.0.index", 0);
	assert_text(json, "choices.0.message.role", "assistant");
	assert_text(json, "choices.0.finish_reason", "length");
	assert_null_at(json, "choices.0.stop_reason");
	assert_null_at(json, "choices.0.logprobs");
	assert_null_at(json, "system_fingerprint");
	assert_true(json_is_array(at(json, "choices.0.message.tool_calls")));
	/* "<|user|>\none two three\n<|assistant|>\n" are 37 bytes */
	assert_number(json, "usage.prompt_tokens", 10);
	assert_number(json, "usage.completion_tokens", 7);
	assert_number(json, "usage.total_tokens", 17);
	assert_number(json, "usage.prompt_tokens_details.cached_tokens", 0);
	json_decref(json);
}

static void the_text_depends_on_model_prompt_seed_and_index_alone(void **state) {
	static const char *const bodies[] = {
		"{\"model\":\"m\"," CHAT "}",
		"{" CHAT ",\"model\":null,\"temperature\":1.5,\"user\":\"x\"}",
		"{\"model\":\"other\"," CHAT "}",
		"{\"model\":\"m\"," CHAT ",\"seed\":7}",
		"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"one two thre\"}]}",
	};
	char texts[n_elems(bodies)][128];
	for (size_t i = 0; i < n_elems(bodies); i++) {
		json_t *json = answer_to("/v1/chat/completions", &rules, bodies[i]);
		snprintf(texts[i], sizeof(texts[i]), "%s",
		    json_string_value(at(json, "choices.0.message.content")));
		json_decref(json);
	}
	assert_string_equal(texts[0], texts[1]);
	for (size_t i = 2; i < n_elems(bodies); i++)
		assert_string_not_equal(texts[0], texts[i]);

	json_t *json = answer_to("/v1/chat/completions", &rules, "{\"model\":\"m\"," CHAT ",\"n\":2}");
	assert_text(json, "choices.0.message.content", texts[0]);
	assert_string_not_equal(json_string_value(at(json, "choices.1.message.content")), texts[0]);
	assert_number(json, "usage.completion_tokens", 8);
	json_decref(json);
}

static void how_long_an_answer_is(void **state) {
	static const struct {
		const char *body;
		bool echoes;
		uint32_t n_tokens;
		const char *finish, *text;
	} rows[] = {
		{ "{" CHAT "}", false, 4, "stop", NULL },
		{ "{" CHAT ",\"max_tokens\":1}", false, 1, "length", NULL },
		{ "{" CHAT ",\"max_tokens\":1,\"max_completion_tokens\":2}", false, 2, "length", NULL },
		{ "{" CHAT "}", true, 3, "stop", "one two three" },
		{ "{" CHAT ",\"max_tokens\":4}", true, 3, "stop", "one two three" },
		{ "{" CHAT ",\"max_tokens\":2}", true, 2, "length", "one two" },
		{ "{" CHAT ",\"stop\":\"two\"}", true, 2, "stop", "one " },
		{ "{" CHAT ",\"stop\":[\"x\",\"e t\"]}", true, 2, "stop", "on" },
		{ "{" CHAT ",\"stop\":\"e t\",\"include_stop_str_in_output\":true}", true, 2, "stop",
		    "one t" },
		{ "{" CHAT ",\"stop\":null,\"max_tokens\":null}", true, 3, "stop", "one two three" },
		{ "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", true, 1, "stop", "" },
		{ "{\"messages\":[{\"role\":\"system\",\"content\":\"x\"}]}", true, 1, "stop", "" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		json_t *json =
		    answer_to("/v1/chat/completions", rows[i].echoes ? &echo_rules : &rules, rows[i].body);
		assert_number(json, "usage.completion_tokens", rows[i].n_tokens);
		assert_text(json, "choices.0.finish_reason", rows[i].finish);
		if (rows[i].text)
			assert_text(json, "choices.0.message.content", rows[i].text);
		json_decref(json);
	}
}

static void the_stop_string_is_named(void **state) {
	json_t *json = answer_to("/v1/chat/completions", &echo_rules, "{" CHAT ",\"stop\":[\"x\",\"two\"]}");
	assert_text(json, "choices.0.stop_reason", "two");
	json_decref(json);
}

static void a_chat_streams_what_the_plain_answer_says(void **state) {
	struct event e[16];
	size_t n = stream_of("/v1/chat/completions", &echo_rules,
	    "{" CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", e, n_elems(e));
	static const char *const contents[] = { "", "one", " two", " three" };
	assert_int_equal(n, 6); /* role, three tokens, usage, [DONE] */
	assert_text(e[0].data, "choices.0.delta.role", "assistant");
	for (size_t i = 0; i < 4; i++) {
		assert_text(e[i].data, "id", "chatcmpl-id-1");
		assert_text(e[i].data, "object", "chat.completion.chunk");
		assert_text(e[i].data, "model", "m");
		assert_text(e[i].data, "choices.0.delta.content", contents[i]);
		assert_null(at(e[i].data, "usage"));
		if (i < 3)
			assert_null_at(e[i].data, "choices.0.finish_reason");
	}
	assert_text(e[3].data, "choices.0.finish_reason", "stop");
	assert_int_equal(json_array_size(at(e[4].data, "choices")), 0);
	assert_number(e[4].data, "usage.completion_tokens", 3);
	assert_null(e[5].data);
	free_events(e, n);
}

static void usage_in_every_chunk_when_asked(void **state) {
	struct event e[16];
	size_t n = stream_of("/v1/chat/completions", &rules,
	    "{" CHAT ",\"stream\":true,"
	    "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
	    e, n_elems(e));
	assert_int_equal(n, 7);
	for (size_t i = 0; i < 5; i++)
		assert_number(e[i].data, "usage.completion_tokens", (json_int_t)i);
	free_events(e, n);
}

static void every_choice_streams_under_its_index(void **state) {
	struct event e[32];
	size_t n =
	    stream_of("/v1/chat/completions", &rules, "{" CHAT ",\"stream\":true,\"n\":3}", e, n_elems(e));
	assert_int_equal(n, 3 + 3 * 4 + 1);
	for (size_t i = 0; i + 1 < n; i++)
		assert_number(e[i].data, "choices.0.index", (json_int_t)(i % 3));
	free_events(e, n);
}

static void an_echo_is_escaped(void **state) {
	struct event e[16];
	size_t n = stream_of("/v1/chat/completions", &echo_rules,
	    "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"a\\\"b\\n \\u0001 \\u6c34\"}]}",
	    e, n_elems(e));
	assert_int_equal(n, 5);
	assert_text(e[1].data, "choices.0.delta.content", "a\"b\n");
	assert_text(e[2].data, "choices.0.delta.content", " \x01");
	assert_text(e[3].data, "choices.0.delta.content", " \xe6\xb0\xb4");
	free_events(e, n);
}

static void no_event_after_the_limit(void **state) {
	for (uint32_t n_max = 0; n_max < 6; n_max++) {
		struct generation g =
		    parsed("/v1/chat/completions", &rules, "{" CHAT ",\"stream\":true,\"n\":2}");
		struct bytes out;
		struct event e[16];
		bytes_init(&out, 1 << 20);
		g.n_events_max = n_max;
		for (int i = 0; i < 3; i++)
			generation_step(&g, &out);
		size_t n = read_events(&out, e, n_elems(e));
		assert_int_equal(n, n_max);
		assert_int_equal(g.n_events, n_max);
		free_events(e, n);
		bytes_deinit(&out);
		generation_deinit(&g);
	}
}

static void completions(void **state) {
	json_t *json = answer_to("/v1/completions", &echo_rules, "{\"prompt\":\"one two\"}");
	assert_text(json, "object", "text_completion");
	assert_text(json, "choices.0.text", "one two");
	assert_text(json, "choices.0.finish_reason", "stop");
	assert_number(json, "usage.prompt_tokens", 2);
	json_decref(json);

	json = answer_to("/v1/completions", &rules, "{\"prompt\":[\"a\",\"b\"],\"n\":2,\"max_tokens\":3}");
	assert_int_equal(json_array_size(at(json, "choices")), 4);
	assert_number(json, "choices.3.index", 3);
	assert_number(json, "usage.prompt_tokens", 2);
	assert_number(json, "usage.completion_tokens", 12);
	json_decref(json);

	json = answer_to("/v1/completions", &rules, "{\"prompt\":[1,2,3]}");
	assert_number(json, "usage.prompt_tokens", 3);
	json_decref(json);
	json = answer_to("/v1/completions", &rules, "{\"prompt\":[[1,2,3],[4]]}");
	assert_number(json, "usage.prompt_tokens", 4);
	json_decref(json);
}

static void a_completion_that_says_no_length_has_asked_for_the_default(void **state) {
	static const char *const bodies[] = { "{\"prompt\":\"one two three four five\"}",
		"{\"prompt\":\"one two three four five\",\"max_tokens\":null}" };
	for (size_t i = 0; i < 2 * n_elems(bodies); i++) {
		json_t *json =
		    answer_to("/v1/completions", i % 2 ? &echo_rules : &rules, bodies[i / n_elems(bodies)]);
		assert_text(json, "choices.0.finish_reason", "length");
		assert_number(json, "usage.completion_tokens", 4);
		json_decref(json);
	}
}

static void completions_stream(void **state) {
	struct event e[16];
	size_t n = stream_of("/v1/completions", &echo_rules,
	    "{\"prompt\":\"one two\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", e,
	    n_elems(e));
	assert_int_equal(n, 4);
	assert_text(e[0].data, "choices.0.text", "one");
	assert_null_at(e[0].data, "choices.0.finish_reason");
	assert_null_at(e[0].data, "usage");
	assert_text(e[1].data, "choices.0.text", " two");
	assert_text(e[1].data, "choices.0.finish_reason", "stop");
	assert_null_at(e[1].data, "usage");
	assert_number(e[2].data, "usage.total_tokens", 4);
	assert_null(e[3].data);
	free_events(e, n);

	n = stream_of("/v1/completions", &rules,
	    "{\"prompt\":\"x\",\"max_tokens\":2,\"stream\":true,"
	    "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
	    e, n_elems(e));
	assert_int_equal(n, 4);
	assert_number(e[0].data, "usage.completion_tokens", 1);
	free_events(e, n);
}

static void an_echo_of_the_prompt_comes_first(void **state) {
	json_t *json = answer_to(
	    "/v1/completions", &echo_rules, "{\"prompt\":[\"one two\",\"three\"],\"n\":2,\"echo\":true}");
	assert_text(json, "choices.1.text", "one twoone twothree");
	assert_text(json, "choices.2.text", "threeone twothree");
	assert_number(json, "usage.prompt_tokens", 4);
	assert_number(json, "usage.completion_tokens", 8); /* what is repeated of the prompt is no output */
	json_decref(json);

	/* Token ids say what the tokenizer made them of. */
	json = answer_to(
	    "/v1/completions", &rules, "{\"prompt\":[1684234849,26213],\"echo\":true,\"max_tokens\":0}");
	assert_text(json, "choices.0.text", "abcdef");
	assert_text(json, "choices.0.finish_reason", "length");
	assert_number(json, "usage.completion_tokens", 1);
	json_decref(json);
	json =
	    answer_to("/v1/completions", &rules, "{\"prompt\":[4294967295],\"echo\":true,\"max_tokens\":0}");
	assert_text(json, "choices.0.text", "????");
	json_decref(json);
}

static void an_echo_of_the_prompt_is_in_the_first_event(void **state) {
	static const char *const options[] = { "", ",\"logprobs\":1",
		",\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}" };
	for (size_t i = 0; i < n_elems(options); i++) {
		struct event e[16];
		char body[256];
		snprintf(body, sizeof(body), "{\"prompt\":\"a b c\",\"echo\":true,\"stream\":true,\"n\":2%s}",
		    options[i]);
		size_t n = stream_of("/v1/completions", &echo_rules, body, e, n_elems(e));
		assert_text(e[0].data, "choices.0.text", "a b ca");
		assert_number(e[1].data, "choices.0.index", 1);
		assert_text(e[1].data, "choices.0.text", "a b ca");
		assert_text(e[2].data, "choices.0.text", " b");
		assert_text(e[4].data, "choices.0.text", " c");
		free_events(e, n);
	}
}

/* One token with its probability, the likeliest of n_top. */
static void assert_likely(const json_t *entry, const char *token, size_t n_top) {
	const json_t *tops = at(entry, "top_logprobs"), *other;
	double p = exp(json_real_value(at(entry, "logprob"))), sum = 0;
	size_t i;

	assert_text(entry, "token", token);
	assert_int_equal(json_array_size(at(entry, "bytes")), strlen(token));
	assert_number(entry, "bytes.0", (unsigned char)token[0]);
	assert_true(p > 0 && p <= 1);
	assert_true(json_is_array(tops));
	assert_int_equal(json_array_size(tops), n_top);
	json_array_foreach(tops, i, other) {
		assert_true(json_is_array(at(other, "bytes")));
		assert_null(at(other, "top_logprobs"));
		assert_true(exp(json_real_value(at(other, "logprob"))) <= p);
		sum += exp(json_real_value(at(other, "logprob")));
	}
	assert_true(sum <= 1.000001);
	if (n_top)
		assert_text(tops, "0.token", token);
}

static void a_chat_tells_how_likely_its_tokens_are(void **state) {
	json_t *json = answer_to("/v1/chat/completions", &echo_rules,
	    "{" CHAT ",\"logprobs\":true,\"top_logprobs\":3,\"stop\":\"thr\"}");
	const json_t *content = at(json, "choices.0.logprobs.content");
	assert_int_equal(json_array_size(content), 3);
	assert_likely(at(content, "0"), "one", 3);
	assert_likely(at(content, "1"), " two", 3);
	assert_likely(at(content, "2"), " three", 3); /* whole, as it was made */
	json_decref(json);

	json = answer_to("/v1/chat/completions", &echo_rules, "{" CHAT ",\"logprobs\":true}");
	assert_likely(at(json, "choices.0.logprobs.content.0"), "one", 0);
	json_decref(json);
	json = answer_to("/v1/chat/completions", &rules, "{" CHAT ",\"logprobs\":false,\"top_logprobs\":0}");
	assert_null_at(json, "choices.0.logprobs");
	json_decref(json);
}

static void a_chat_streams_how_likely_its_tokens_are(void **state) {
	static const char *const tokens[] = { "one", " two", " three" };
	struct event e[16];
	size_t n = stream_of("/v1/chat/completions", &echo_rules,
	    "{" CHAT ",\"stream\":true,\"logprobs\":true,\"top_logprobs\":1}", e, n_elems(e));
	assert_int_equal(n, 5);
	assert_null_at(e[0].data, "choices.0.logprobs");
	for (size_t i = 0; i < n_elems(tokens); i++) {
		assert_int_equal(json_array_size(at(e[i + 1].data, "choices.0.logprobs.content")), 1);
		assert_likely(at(e[i + 1].data, "choices.0.logprobs.content.0"), tokens[i], 1);
	}
	free_events(e, n);
}

static void tokens_without_text_are_told_with_the_next(void **state) {
	struct event e[16];
	size_t n = stream_of("/v1/chat/completions", &echo_rules,
	    "{" CHAT ",\"stream\":true,\"logprobs\":true,\"stop\":\"one two t\"}", e, n_elems(e));
	assert_int_equal(n, 3); /* role, the end, [DONE] */
	assert_int_equal(json_array_size(at(e[1].data, "choices.0.logprobs.content")), 3);
	free_events(e, n);
}

static void a_completion_tells_how_likely_its_tokens_are(void **state) {
	json_t *json =
	    answer_to("/v1/completions", &echo_rules, "{\"prompt\":\"\u6c34 one two\",\"logprobs\":2}");
	const json_t *l = at(json, "choices.0.logprobs");
	assert_text(l, "tokens.0", "\xe6\xb0\xb4");
	assert_text(l, "tokens.2", " two");
	assert_number(l, "text_offset.0", 0);
	assert_number(l, "text_offset.1", 1); /* characters */
	assert_number(l, "text_offset.2", 5);
	assert_int_equal(json_array_size(at(l, "token_logprobs")), 3);
	assert_int_equal(json_object_size(at(l, "top_logprobs.2")), 2);
	assert_true(json_equal(at(l, "top_logprobs.2. two"), at(l, "token_logprobs.2")));
	json_decref(json);

	json = answer_to("/v1/completions", &rules, "{\"prompt\":\"x\",\"logprobs\":0}");
	assert_int_equal(json_object_size(at(json, "choices.0.logprobs.top_logprobs.0")), 1);
	json_decref(json);
}

static void echoed_tokens_are_told_as_well(void **state) {
	json_t *json = answer_to("/v1/completions", &echo_rules,
	    "{\"prompt\":\"abcdef\",\"logprobs\":1,\"echo\":true,\"max_tokens\":1}");
	const json_t *l = at(json, "choices.0.logprobs");
	assert_int_equal(json_array_size(at(l, "tokens")), 3); /* as usage counts them */
	assert_text(l, "tokens.0", "abcd");
	assert_null_at(l, "token_logprobs.0"); /* nothing stands before it */
	assert_null_at(l, "top_logprobs.0");
	assert_text(l, "tokens.1", "ef");
	assert_true(json_is_real(at(l, "token_logprobs.1")));
	assert_text(l, "tokens.2", "abcdef");
	assert_number(l, "text_offset.2", 6);
	json_decref(json);

	json = answer_to("/v1/completions", &rules,
	    "{\"prompt\":\"abcdef\",\"logprobs\":1,\"echo\":true,\"max_tokens\":0}");
	assert_int_equal(json_array_size(at(json, "choices.0.logprobs.tokens")), 2);
	json_decref(json);

	/* A token may end within a character. */
	json = answer_to("/v1/completions", &rules,
	    "{\"prompt\":\"abc\u6c34\",\"logprobs\":1,\"echo\":true,\"max_tokens\":0}");
	assert_text(json, "choices.0.text", "abc\xe6\xb0\xb4");
	assert_text(json, "choices.0.logprobs.tokens.0", "\xef\xbf\xbd");
	assert_text(json, "choices.0.logprobs.tokens.1", "\xef\xbf\xbd");
	json_decref(json);

	struct event e[16];
	size_t n = stream_of("/v1/completions", &echo_rules,
	    "{\"prompt\":\"a bcdef\",\"logprobs\":1,\"echo\":true,\"stream\":true}", e, n_elems(e));
	assert_int_equal(n, 3);
	assert_int_equal(json_array_size(at(e[0].data, "choices.0.logprobs.tokens")), 3);
	assert_text(e[1].data, "choices.0.logprobs.tokens.0", " bcdef");
	assert_number(e[1].data, "choices.0.logprobs.text_offset.0", 8);
	free_events(e, n);
}

static void probabilities_have_a_limit(void **state) {
	struct generation_rules r = rules;
	struct generation g;
	struct refusal refusal;
	r.n_model_tokens = 10000000;
	assert_false(parse(
	    &g, "/v1/chat/completions", &r, "{" CHAT ",\"logprobs\":true,\"max_tokens\":1000000}", &refusal));
	assert_string_equal(refusal.param, "logprobs");
	generation_deinit(&g);
}

static void embeddings(void **state) {
	json_t *json =
	    answer_to("/v1/embeddings", &rules, "{\"input\":[\"a\",\"b\",\"a\"],\"dimensions\":5}");
	double length = 0;
	for (size_t i = 0; i < 5; i++) {
		double x = json_real_value(json_array_get(at(json, "data.0.embedding"), i));
		length += x * x;
	}
	assert_true(length > 0.999 && length < 1.001);
	assert_int_equal(json_array_size(at(json, "data.0.embedding")), 5);
	assert_true(json_equal(at(json, "data.0.embedding"), at(json, "data.2.embedding")));
	assert_false(json_equal(at(json, "data.0.embedding"), at(json, "data.1.embedding")));
	assert_number(json, "data.2.index", 2);
	assert_number(json, "usage.prompt_tokens", 3);
	json_decref(json);

	json = answer_to(
	    "/v1/embeddings", &rules, "{\"input\":\"a\",\"dimensions\":3,\"encoding_format\":\"base64\"}");
	assert_int_equal(json_string_length(at(json, "data.0.embedding")), 16); /* 12 bytes */
	json_decref(json);
}

static void messages(void **state) {
	json_t *json = answer_to("/v1/messages", &echo_rules,
	    "{\"model\":\"m\",\"max_tokens\":9,\"system\":\"be brief\"," CHAT
	    ",\"stop_sequences\":[\" three\"]}");
	assert_text(json, "id", "msg_id-1");
	assert_text(json, "type", "message");
	assert_text(json, "content.0.type", "text");
	assert_text(json, "content.0.text", "one two");
	assert_text(json, "stop_reason", "stop_sequence");
	assert_text(json, "stop_sequence", " three");
	assert_number(json, "usage.output_tokens", 3);
	assert_number(json, "usage.input_tokens", 15); /* 58 bytes */
	assert_number(json, "usage.cache_read_input_tokens", 0);
	json_decref(json);

	json = answer_to("/v1/messages", &rules, "{\"max_tokens\":2," CHAT "}");
	assert_text(json, "stop_reason", "max_tokens");
	assert_null_at(json, "stop_sequence");
	json_decref(json);
}

static void cached_tokens_are_told(void **state) {
	static const struct {
		const char *path, *body, *total, *cached;
		json_int_t n_total;
	} rows[] = {
		{ "/v1/chat/completions", "{" CHAT "}", "usage.prompt_tokens",
		    "usage.prompt_tokens_details.cached_tokens", 10 },
		{ "/v1/messages", "{\"max_tokens\":1," CHAT "}", "usage.input_tokens",
		    "usage.cache_read_input_tokens", 6 }, /* beside each other, not one in the other */
		{ "/v1/responses", "{\"input\":\"one two three\"}", "usage.input_tokens",
		    "usage.input_tokens_details.cached_tokens", 10 },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct generation g = parsed(rows[i].path, &rules, rows[i].body);
		struct bytes out;
		g.n_cached_tokens = 4;
		run(&g, &out);
		json_t *json = json_loadb(out.p, out.n, 0, NULL);
		assert_number(json, rows[i].total, rows[i].n_total);
		assert_number(json, rows[i].cached, 4);
		json_decref(json);
		bytes_deinit(&out);
		generation_deinit(&g);
	}
}

static void messages_stream(void **state) {
	static const char *const names[] = { "message_start", "content_block_start", "ping",
		"content_block_delta", "content_block_delta", "content_block_delta", "content_block_stop",
		"message_delta", "message_stop" };
	struct event e[16];
	size_t n = stream_of(
	    "/v1/messages", &echo_rules, "{\"max_tokens\":9,\"stream\":true," CHAT "}", e, n_elems(e));
	assert_int_equal(n, n_elems(names));
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(e[i].name, names[i]);
		assert_text(e[i].data, "type", names[i]);
	}
	assert_text(e[0].data, "message.role", "assistant");
	assert_number(e[0].data, "message.usage.input_tokens", 10);
	assert_text(e[4].data, "delta.text", " two");
	assert_text(e[7].data, "delta.stop_reason", "end_turn");
	assert_number(e[7].data, "usage.output_tokens", 3);
	free_events(e, n);
}

static void responses(void **state) {
	json_t *json = answer_to("/v1/responses", &echo_rules, "{\"input\":\"one two\"}");
	assert_text(json, "object", "response");
	assert_text(json, "status", "completed");
	assert_text(json, "output.0.content.0.text", "one two");
	assert_number(json, "usage.output_tokens", 2);
	json_decref(json);

	json = answer_to("/v1/responses", &rules,
	    "{\"instructions\":\"x\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\","
	    "\"text\":\"a\"}]}],\"max_output_tokens\":2}");
	assert_text(json, "status", "incomplete");
	assert_text(json, "incomplete_details.reason", "max_output_tokens");
	json_decref(json);
}

static void responses_stream(void **state) {
	static const char *const names[] = { "response.created", "response.in_progress",
		"response.output_item.added", "response.content_part.added", "response.output_text.delta",
		"response.output_text.delta", "response.output_text.done", "response.content_part.done",
		"response.output_item.done", "response.completed" };
	struct event e[16];
	size_t n =
	    stream_of("/v1/responses", &echo_rules, "{\"input\":\"one two\",\"stream\":true}", e, n_elems(e));
	assert_int_equal(n, n_elems(names));
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(e[i].name, names[i]);
		assert_text(e[i].data, "type", names[i]);
		assert_number(e[i].data, "sequence_number", (json_int_t)i);
	}
	assert_text(e[5].data, "delta", " two");
	assert_text(e[9].data, "response.output.0.content.0.text", "one two");
	free_events(e, n);
}

static void one_conversation_is_one_prompt_through_every_api(void **state) {
	static const char *const asked[][2] = {
		{ "/v1/chat/completions",
		    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
		    "{\"role\":\"user\",\"content\":\"one\"}]}" },
		{ "/v1/messages",
		    "{\"max_tokens\":1,\"system\":\"s\",\"messages\":[{\"role\":\"user\","
		    "\"content\":[{\"type\":\"text\",\"text\":\"one\"}]}]}" },
		{ "/v1/responses", "{\"instructions\":\"s\",\"input\":\"one\"}" },
	};
	struct generation first = parsed(asked[0][0], &rules, asked[0][1]);
	for (size_t i = 1; i < n_elems(asked); i++) {
		struct generation g = parsed(asked[i][0], &rules, asked[i][1]);
		assert_int_equal(g.prompts[0].hash, first.prompts[0].hash);
		generation_deinit(&g);
	}
	generation_deinit(&first);
}

static void refusals(void **state) {
	static const struct {
		const char *path, *body;
		const char *type, *param;
	} rows[] = {
		{ "/v1/chat/completions", "", "Bad Request", NULL },
		{ "/v1/chat/completions", "{\"model\":", "Bad Request", NULL },
		{ "/v1/chat/completions", "[]", "Bad Request", NULL },
		{ "/v1/chat/completions", "{\"model\":\"no\"," CHAT "}", "NotFoundError", "model" },
		{ "/v1/chat/completions", "{\"model\":\"m\\u0000\"," CHAT "}", "NotFoundError", "model" },
		{ "/v1/chat/completions", "{\"model\":7," CHAT "}", "Bad Request", "model" },
		{ "/v1/chat/completions", "{}", "Bad Request", "messages" },
		{ "/v1/chat/completions", "{\"messages\":[]}", "BadRequestError", "messages" },
		{ "/v1/chat/completions", "{\"messages\":[{\"content\":\"x\"}]}", "Bad Request", "messages" },
		{ "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "Bad Request",
		    "messages" },
		{ "/v1/chat/completions", "{" CHAT ",\"max_tokens\":0}", "BadRequestError", "max_tokens" },
		{ "/v1/chat/completions", "{" CHAT ",\"max_tokens\":1.5}", "Bad Request", "max_tokens" },
		{ "/v1/chat/completions", "{" CHAT ",\"max_tokens\":991}", "BadRequestError", NULL },
		{ "/v1/chat/completions", "{" CHAT ",\"n\":0}", "BadRequestError", "n" },
		{ "/v1/chat/completions", "{" CHAT ",\"n\":129}", "BadRequestError", "n" },
		{ "/v1/chat/completions", "{" CHAT ",\"stream\":\"yes\"}", "Bad Request", "stream" },
		{ "/v1/chat/completions", "{" CHAT ",\"stop\":\"\"}", "BadRequestError", "stop" },
		{ "/v1/chat/completions", "{" CHAT ",\"stop\":[1]}", "Bad Request", "stop" },
		{ "/v1/chat/completions", "{" CHAT ",\"stream_options\":{}}", "Bad Request",
		    "stream_options" },
		{ "/v1/completions", "{}", "Bad Request", "prompt" },
		{ "/v1/completions", "{\"prompt\":[]}", "Bad Request", "prompt" },
		{ "/v1/completions", "{\"prompt\":[1,-1]}", "Bad Request", "prompt" },
		{ "/v1/completions", "{\"prompt\":[\"a\",\"b\"],\"n\":65}", "BadRequestError", "n" },
		{ "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":0}", "BadRequestError", "max_tokens" },
		{ "/v1/completions", "{\"prompt\":\"x\",\"echo\":1}", "Bad Request", "echo" },
		{ "/v1/completions", "{\"prompt\":\"x\",\"logprobs\":true}", "Bad Request", "logprobs" },
		{ "/v1/completions", "{\"prompt\":\"x\",\"logprobs\":21}", "BadRequestError", "logprobs" },
		{ "/v1/chat/completions", "{" CHAT ",\"logprobs\":3}", "Bad Request", "logprobs" },
		{ "/v1/chat/completions", "{" CHAT ",\"top_logprobs\":3}", "Bad Request", "top_logprobs" },
		{ "/v1/chat/completions", "{" CHAT ",\"logprobs\":true,\"top_logprobs\":21}",
		    "BadRequestError", "top_logprobs" },
		{ "/v1/embeddings", "{\"input\":7}", "Bad Request", "input" },
		{ "/v1/embeddings", "{\"input\":\"a\",\"encoding_format\":\"int8\"}", "Bad Request",
		    "encoding_format" },
		{ "/v1/messages", "{" CHAT "}", "Bad Request", "max_tokens" },
		{ "/v1/messages", "{\"max_tokens\":1}", "Bad Request", "messages" },
		{ "/v1/messages", "{\"max_tokens\":1,\"system\":7," CHAT "}", "Bad Request", "system" },
		{ "/v1/responses", "{\"input\":[]}", "Bad Request", "input" },
		{ "/v1/responses", "{\"input\":[7]}", "Bad Request", "input" },
		{ "/v1/responses", "{\"input\":\"a\",\"previous_response_id\":7}", "Bad Request",
		    "previous_response_id" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct generation g;
		struct refusal r = { 0 };
		if (parse(&g, rows[i].path, &rules, rows[i].body, &r))
			fail_msg("%s is taken", rows[i].body);
		bool is_found = strcmp(rows[i].type, "NotFoundError") != 0;
		assert_int_equal(r.status, is_found ? 400 : 404);
		if (rows[i].param)
			assert_string_equal(r.param, rows[i].param);
		else
			assert_null(r.param);
		json_t *error = api_error(&r, false);
		assert_text(error, "error.type", rows[i].type);
		json_decref(error);
		error = api_error(&r, true);
		assert_text(error, "error.type", is_found ? "invalid_request_error" : "not_found_error");
		json_decref(error);
		generation_deinit(&g);
	}
}

static void a_refusal_is_rendered_by_the_api(void **state) {
	struct generation g;
	struct refusal r;
	char body[400] = "{\"model\":\"";
	for (size_t i = strlen(body); i < 300; i += 3)
		memcpy(body + i, "\xe6\xb0\xb4", 3); /* longer than a message may be */
	snprintf(body + strlen(body), 100, "\"," CHAT "}");
	assert_false(parse(&g, "/v1/chat/completions", &rules, body, &r));
	generation_deinit(&g);

	json_t *json = api_error(&r, false);
	assert_text(json, "error.type", "NotFoundError");
	assert_text(json, "error.param", "model");
	assert_number(json, "error.code", 404);
	assert_non_null(strstr(json_string_value(at(json, "error.message")), "does not exist"));
	json_decref(json);
	json = api_error(&r, true);
	assert_text(json, "type", "error");
	assert_text(json, "error.type", "not_found_error");
	json_decref(json);
	r.status = 418;
	json = api_error(&r, false);
	assert_text(json, "error.type", "InternalServerError");
	json_decref(json);
}

static void an_id_is_made_printable(void **state) {
	struct generation g;
	struct refusal r;
	struct generation_name name = { .id = SLICE("a b\xff\n~") };
	assert_true(generation_parse(&g, &api_chat, &rules, &name, SLICE("{" CHAT "}"), &r));
	assert_string_equal(g.id, "chatcmpl-a?b??~");
	generation_deinit(&g);
}

static void tokens_are_counted_and_listed(void **state) {
	struct refusal r;
	json_t *json = tokens_list(&rules, SLICE("{\"prompt\":\"abcdef\"}"), &r);
	assert_number(json, "count", 2);
	assert_number(json, "max_model_len", 1000);
	assert_number(json, "tokens.0", 0x64636261);
	assert_number(json, "tokens.1", 0x6665);
	json_decref(json);
	json = tokens_list(&rules, SLICE("{" CHAT "}"), &r);
	assert_number(json, "count", 10);
	assert_int_equal(json_array_size(at(json, "tokens")), 10);
	json_decref(json);
	json = tokens_count(&rules, SLICE("{\"system\":\"be brief\"," CHAT "}"), &r);
	assert_number(json, "input_tokens", 15);
	json_decref(json);

	assert_null(tokens_list(&rules, SLICE("{}"), &r));
	assert_int_equal(r.status, 400);
	assert_null(tokens_list(&rules, SLICE("nonsense"), &r));
	assert_int_equal(r.status, 400);
	assert_null(tokens_count(&rules, SLICE("{\"model\":\"no\"," CHAT "}"), &r));
	assert_int_equal(r.status, 404);
	assert_null(api_of_path(SLICE("/v1/chat")));
}

/* --- answers that go on ------------------------------------------------------------------- */

static const char *text_at(const json_t *json, const char *path) {
	const char *text = json_string_value(at(json, path));
	assert_non_null(text);
	return text;
}

/* Wherever the answer is cut, what is asked for behind it is the rest, and usage adds up. */
static void goes_on(
    const char *path, const char *text_path, const char *whole_body, const char *before, const char *behind) {
	json_t *whole = answer_to(path, &rules, whole_body);
	const char *text = text_at(whole, text_path);
	json_int_t n_prompt = json_integer_value(at(whole, "usage.prompt_tokens"));
	unsigned n_said = 0;

	for (const char *end = text; (end = strchr(end + 1, ' ')) != NULL;) {
		char body[1000];
		n_said++;
		if (n_said == 1 && at(whole, "choices.0.text"))
			continue; /* one word may be anybody's */
		snprintf(body, sizeof(body), "%s%.*s\"%s,\"max_tokens\":%u}", before, (int)(end - text), text,
		    behind, 20 - n_said);
		json_t *rest = answer_to(path, &rules, body);
		assert_text(rest, text_path, end);
		assert_text(rest, "choices.0.finish_reason", "length");
		assert_number(rest, "usage.prompt_tokens", n_prompt + n_said);
		assert_number(rest, "usage.completion_tokens", 20 - n_said);
		json_decref(rest);
	}
	assert_int_equal(n_said, 19);
	json_decref(whole);
}

static void an_answer_goes_on_where_it_stopped(void **state) {
	goes_on("/v1/chat/completions", "choices.0.message.content",
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":20}",
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"",
	    "}],\"continue_final_message\":true,\"add_generation_prompt\":false");
	goes_on("/v1/completions", "choices.0.text", "{\"prompt\":\"Of the river\",\"max_tokens\":20}",
	    "{\"prompt\":\"Of the river", "");
	goes_on("/v1/completions", "choices.0.text", "{\"prompt\":\"It is: \",\"max_tokens\":20}",
	    "{\"prompt\":\"It is: ", "");
}

#define AFTER(text)                                                                                          \
	"{\"messages\":[{\"role\":\"user\",\"content\":\"one two "                                           \
	"three\"},{\"role\":\"assistant\",\"content\":\"" text "\"}],"
#define GO_ON "\"continue_final_message\":true,\"add_generation_prompt\":false}"

static void other_words_are_gone_on_from_as_well(void **state) {
	json_t *a = answer_to("/v1/chat/completions", &rules, AFTER("Yes, ") GO_ON);
	json_t *again = answer_to("/v1/chat/completions", &rules, AFTER("Yes, ") GO_ON);
	json_t *b = answer_to("/v1/chat/completions", &rules, AFTER("No, ") GO_ON);
	assert_text(again, "choices.0.message.content", text_at(a, "choices.0.message.content"));
	assert_string_not_equal(
	    text_at(a, "choices.0.message.content"), text_at(b, "choices.0.message.content"));
	assert_number(a, "usage.completion_tokens", 4);
	json_decref(a);
	json_decref(again);
	json_decref(b);
}

static void an_echo_goes_on(void **state) {
	json_t *rest = answer_to("/v1/chat/completions", &echo_rules, AFTER("one two") GO_ON);
	assert_text(rest, "choices.0.message.content", " three");
	assert_text(rest, "choices.0.finish_reason", "stop");
	json_decref(rest);
	rest = answer_to("/v1/chat/completions", &echo_rules, AFTER("one") "\"stop\":[\"hree\"]," GO_ON);
	assert_text(rest, "choices.0.message.content", " two t");
	json_decref(rest);
	rest = answer_to("/v1/chat/completions", &echo_rules, AFTER("one two three") GO_ON);
	assert_text(rest, "choices.0.message.content", "");
	assert_text(rest, "choices.0.finish_reason", "stop");
	json_decref(rest);
}

static void it_cannot_go_on_and_begin(void **state) {
	static const char *const bodies[] = { AFTER("a") "\"continue_final_message\":true}",
		AFTER("a") "\"continue_final_message\":true,\"add_generation_prompt\":true}" };
	for (size_t i = 0; i < n_elems(bodies); i++) {
		struct generation g;
		struct refusal refusal;
		assert_false(parse(&g, "/v1/chat/completions", &rules, bodies[i], &refusal));
		assert_int_equal(refusal.status, 400);
		generation_deinit(&g);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_goes_on_where_it_stopped),
		cmocka_unit_test(other_words_are_gone_on_from_as_well),
		cmocka_unit_test(an_echo_goes_on),
		cmocka_unit_test(it_cannot_go_on_and_begin),
		cmocka_unit_test(a_chat_has_the_shape_of_vllm),
		cmocka_unit_test(the_text_depends_on_model_prompt_seed_and_index_alone),
		cmocka_unit_test(how_long_an_answer_is),
		cmocka_unit_test(the_stop_string_is_named),
		cmocka_unit_test(a_chat_streams_what_the_plain_answer_says),
		cmocka_unit_test(usage_in_every_chunk_when_asked),
		cmocka_unit_test(every_choice_streams_under_its_index),
		cmocka_unit_test(an_echo_is_escaped),
		cmocka_unit_test(no_event_after_the_limit),
		cmocka_unit_test(completions),
		cmocka_unit_test(a_completion_that_says_no_length_has_asked_for_the_default),
		cmocka_unit_test(completions_stream),
		cmocka_unit_test(an_echo_of_the_prompt_comes_first),
		cmocka_unit_test(an_echo_of_the_prompt_is_in_the_first_event),
		cmocka_unit_test(a_chat_tells_how_likely_its_tokens_are),
		cmocka_unit_test(a_chat_streams_how_likely_its_tokens_are),
		cmocka_unit_test(tokens_without_text_are_told_with_the_next),
		cmocka_unit_test(a_completion_tells_how_likely_its_tokens_are),
		cmocka_unit_test(echoed_tokens_are_told_as_well),
		cmocka_unit_test(probabilities_have_a_limit),
		cmocka_unit_test(embeddings),
		cmocka_unit_test(messages),
		cmocka_unit_test(cached_tokens_are_told),
		cmocka_unit_test(messages_stream),
		cmocka_unit_test(responses),
		cmocka_unit_test(responses_stream),
		cmocka_unit_test(one_conversation_is_one_prompt_through_every_api),
		cmocka_unit_test(refusals),
		cmocka_unit_test(a_refusal_is_rendered_by_the_api),
		cmocka_unit_test(an_id_is_made_printable),
		cmocka_unit_test(tokens_are_counted_and_listed),
	};
	return cmocka_run_group_tests(tests, set_up, NULL);
}
