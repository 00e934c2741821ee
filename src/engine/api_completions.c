/* POST /v1/completions */
#include "engine/api.h"
#include "engine/logprobs.h"

#define ECHO_BYTES_MAX (8u << 20) /* of all choices */

static bool read_echo(struct generation *g, const json_t *body, struct refusal *refusal) {
	bool echoes = false;
	if (!api_read_bool(body, "echo", &echoes, refusal))
		return false;
	g->prompt_texts = echoes ? json_array() : NULL;
	return true;
}

static bool read_max_tokens(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	g->n_tokens_asked = rules->n_tokens_default; /* here vLLM's default is as good as asked for */
	if (!api_read_count(
		body, "max_tokens", g->prompt_texts ? 0 : 1, INT32_MAX, &g->n_tokens_asked, refusal))
		return false;
	g->prompts_only = g->n_tokens_asked == 0;
	g->n_tokens_asked += g->prompts_only;
	return true;
}

/* With those of an echoed prompt come its prompt_logprobs, too. */
static bool read_logprobs(struct generation *g, const json_t *body, struct refusal *refusal) {
	g->with_logprobs = json_is_integer(json_object_get(body, "logprobs"));
	if (!api_read_count(body, "logprobs", 0, LOGPROBS_TOP_MAX, &g->n_top_logprobs, refusal))
		return false;
	if (g->with_logprobs && g->prompt_texts && !g->with_prompt_logprobs && !g->is_stream) {
		g->with_prompt_logprobs = true;
		g->n_top_prompt_logprobs = g->n_top_logprobs;
	}
	return true;
}

static bool can_echo(const struct generation *g, struct refusal *refusal) {
	const json_t *prompt;
	size_t i, n_bytes = 0;
	json_array_foreach(g->prompt_texts, i, prompt) n_bytes += json_string_length(prompt);
	return n_bytes * g->n_per_prompt <= ECHO_BYTES_MAX ||
	    api_refuse(refusal, 400, "echo", "More than %u bytes would be echoed.", ECHO_BYTES_MAX);
}

/* --- prompts that are a prompt and the beginning of its answer -------------------------- */

#define SAID_TOKENS_MAX 4096u
#define WORD_BYTES_MAX  8u

/* Whether what stands behind `at` is the beginning of the answer to what stands before it. */
static bool is_said(const struct generation *g, const struct generation_rules *rules, struct prompt *p,
    struct slice text, size_t at) {
	struct speech_cursor behind;

	prompt_add(p, slice_head(text, at));
	prompt_finish(p);
	struct speech speech = generation_speech(g, rules, p->hash, 0);
	return speech_seek(&speech, slice_skip(text, at), &behind);
}

/* The place in front of a word at the end of the chunk, which ends at `end`, where the answer begins; -1:
 * none. */
static ssize_t find_first_word(struct generation *g, const struct generation_rules *rules, const json_t *body,
    struct slice text, struct slice chunk) {
	size_t end = (size_t)(chunk.p + chunk.n - text.p);

	for (size_t n = 1; n <= size_min(chunk.n, WORD_BYTES_MAX); n++) {
		if (!speech_has_word(slice_skip(chunk, chunk.n - n)))
			continue;
		bool is_found = is_said(g, rules, api_add_prompt(g, rules, body), text, end - n);
		generation_drop_prompts(g);
		if (is_found)
			return (ssize_t)(end - n);
	}
	return -1;
}

/*
 * A model goes on from any text in the same way, whoever wrote it. So does this one from its own: where a
 * prompt ends in two words or more that it would have said to what stands before them, it has said them.
 */
static size_t find_said(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct slice text) {
	struct slice rest = text;

	for (unsigned n = 0; n < SAID_TOKENS_MAX; n++) {
		const char *space = rest.n ? memrchr(rest.p, ' ', rest.n) : NULL;
		struct slice word = slice_skip(rest, space ? (size_t)(space + 1 - rest.p) : 0);
		ssize_t at = n ? find_first_word(g, rules, body, text, word) : -1;
		if (at >= 0)
			return (size_t)at;
		if (!space || !speech_has_word(word))
			break;
		rest = slice_head(rest, (size_t)(space - rest.p));
	}
	return text.n;
}

static bool add_prompts(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const json_t *prompt = json_object_get(body, "prompt");
	struct slice text = { json_string_value(prompt), json_string_length(prompt) };

	if (!json_is_string(prompt) || g->prompt_texts || g->with_prompt_logprobs || rules->echoes)
		return api_add_inputs(g, rules, body, "prompt", refusal);
	size_t at = find_said(g, rules, body, text);
	if (at < text.n)
		api_keep_said(g, slice_skip(text, at));
	prompt_add(api_add_prompt(g, rules, body), slice_head(text, at));
	return true;
}

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	if (!api_read_openai(body, g, refusal) || !read_echo(g, body, refusal) ||
	    !read_max_tokens(g, rules, body, refusal) || !read_logprobs(g, body, refusal) ||
	    !add_prompts(g, rules, body, refusal) || !can_echo(g, refusal))
		return false;
	if (rules->echoes) /* of several prompts all choices repeat all */
		api_keep_echo(g, json_object_get(body, "prompt"));
	return true;
}

/* Takes `text` and `logprobs`. */
static json_t *choice_json(
    const struct generation *g, const struct generation_choice *c, json_t *text, json_t *logprobs) {
	bool is_finished = api_is_finished(c);
	return json_pack("{s:i, s:o, s:o, s:s?, s:o}", "index", (int)(c - g->choices), "text", text,
	    "logprobs", logprobs, "finish_reason", is_finished ? api_finish_name(c) : NULL, "stop_reason",
	    is_finished ? api_stop_reason(g, c) : json_null());
}

static void add_string(struct bytes *out, const json_t *string) {
	bytes_add(out, (struct slice){ json_string_value(string), json_string_length(string) });
}

/* Takes `text`. The choice's first text comes behind its prompt when that is to be echoed. */
static json_t *echoed(const struct generation *g, struct generation_choice *c, json_t *text) {
	struct bytes both = { .n_max = SIZE_MAX / 2 }; /* can_echo() has bounded it */
	if (!g->prompt_texts || c->has_prompt)
		return text;
	add_string(&both, generation_prompt_text(g, c));
	if (!g->prompts_only)
		add_string(&both, text);
	json_decref(text);
	json_t *string = json_stringn(both.n ? both.p : "", both.n);
	bytes_deinit(&both);
	return string;
}

/* Takes `text`: what the choice has to say since it was asked last. */
static json_t *said(const struct generation *g, struct generation_choice *c, json_t *text) {
	json_t *logprobs = g->with_logprobs ? logprobs_completion(g, c) : json_null();
	text = echoed(g, c, text);
	c->has_prompt = true;
	return choice_json(g, c, text, logprobs);
}

/* Takes `choices`. */
static json_t *completion(const struct generation *g, json_t *choices) {
	return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", g->id, "object", "text_completion", "created",
	    (json_int_t)g->created_s, "model", g->model, "choices", choices);
}

/* Takes `choice`. Unlike in a chat, usage that is not told is null, not absent. */
static json_t *chunk(const struct generation *g, json_t *choice) {
	json_t *event = completion(g, json_pack("[o]", choice));
	json_object_set_new(event, "usage", g->with_usage_always ? api_usage(g) : json_null());
	return event;
}

static void open_stream(struct generation *g, struct bytes *out) {
	(void)g; /* a plain completion begins with its first token */
	(void)out;
}

static void frame(struct generation *g, struct generation_choice *c) {
	api_set_frame(c, NULL, chunk(g, choice_json(g, c, json_string(API_HOLE), json_null())));
}

static void delta(struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out) {
	if (api_is_framed(g, c))
		api_add_frame(out, c, text);
	else
		api_add_event(out, NULL, chunk(g, said(g, c, json_stringn(text.n ? text.p : "", text.n))));
}

static void close_stream(struct generation *g, struct bytes *out) {
	if (g->with_usage) {
		json_t *event = completion(g, json_array());
		json_object_set_new(event, "usage", api_usage(g));
		api_add_event(out, NULL, event);
	}
	bytes_add(out, SLICE("data: [DONE]\n\n"));
}

static json_t *whole(const struct generation *g) {
	json_t *choices = json_array();
	for (uint32_t i = 0; i < g->n_choices; i++) {
		struct generation_choice *c = &g->choices[i];
		json_t *choice = said(g, c, api_text(c));
		json_object_set_new(choice, "prompt_logprobs", api_prompt_logprobs(g, c));
		json_array_append_new(choices, choice);
	}
	json_t *answer = completion(g, choices);
	json_object_set_new(answer, "service_tier", json_null());
	json_object_set_new(answer, "system_fingerprint", json_null());
	json_object_set_new(answer, "usage", api_usage(g));
	json_object_set_new(answer, "kv_transfer_params", api_transfer(g));
	return answer;
}

const struct api api_completions = {
	.path = "/v1/completions",
	.name = "completions",
	.id_prefix = "cmpl-",
	.limit = "max_tokens",
	.parse = parse,
	.open = open_stream,
	.frame = frame,
	.delta = delta,
	.close = close_stream,
	.tell_prompt = logprobs_prompt,
	.whole = whole,
};
