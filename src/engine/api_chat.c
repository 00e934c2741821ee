/* POST /v1/chat/completions */
#include "engine/api.h"
#include "engine/logprobs.h"
#include "engine/message.h"

bool api_add_messages(struct generation *g, const struct generation_rules *rules, const json_t *body,
    bool keeps_tokens, struct refusal *refusal) {
	const json_t *messages = json_object_get(body, "messages"), *message;
	struct prompt *p = api_add_prompt(g, rules, body);
	size_t i;

	if (!json_is_array(messages))
		return api_invalid(refusal, "messages", "messages must be an array.");
	if (json_array_size(messages) == 0)
		return api_refuse(refusal, 400, "messages", "messages must not be empty.");
	if (keeps_tokens)
		prompt_keep_tokens(p);
	message_add_json(p, json_object_get(body, "tools"));
	json_array_foreach(messages, i, message) {
		if (g->said && i + 1 == json_array_size(messages))
			break;
		const char *role = json_string_value(json_object_get(message, "role"));
		if (!role || !message_add(p, role, json_object_get(message, "content")))
			return api_invalid(refusal, "messages",
			    "messages[%zu] must have a role and a content of text or parts.", i);
		message_add_json(p, json_object_get(message, "tool_calls"));
	}
	message_end(p);
	return true;
}

static bool read_logprobs(struct generation *g, const json_t *body, struct refusal *refusal) {
	return api_read_bool(body, "logprobs", &g->with_logprobs, refusal) &&
	    api_read_count(body, "top_logprobs", 0, LOGPROBS_TOP_MAX, &g->n_top_logprobs, refusal) &&
	    (g->with_logprobs || g->n_top_logprobs == 0 ||
		api_invalid(
		    refusal, "top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true."));
}

/* As vLLM has it: the last message, if it is the model's own, is the beginning of the answer. */
static bool read_said(struct generation *g, const json_t *body, struct refusal *refusal) {
	const json_t *messages = json_object_get(body, "messages");
	const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
	const char *role = json_string_value(json_object_get(last, "role"));
	bool continues = false, begins = true;
	struct bytes text = { .n_max = SIZE_MAX / 2 }; /* it is a part of the body */

	if (!api_read_bool(body, "continue_final_message", &continues, refusal) ||
	    !api_read_bool(body, "add_generation_prompt", &begins, refusal))
		return false;
	if (continues && begins)
		return api_refuse(refusal, 400, "continue_final_message",
		    "Cannot set both `continue_final_message` and `add_generation_prompt` to True.");
	if (!continues || !role || strcmp(role, "assistant") != 0)
		return true;
	message_text(json_object_get(last, "content"), &text);
	api_keep_said(g, text.n ? bytes_slice(&text) : SLICE(""));
	bytes_deinit(&text);
	return true;
}

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	/* The newer name wins, as in vLLM. */
	if (!api_read_openai(body, g, refusal) || !read_logprobs(g, body, refusal) ||
	    !read_said(g, body, refusal) ||
	    !api_read_count(body, "max_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal) ||
	    !api_read_count(body, "max_completion_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal) ||
	    !api_add_messages(g, rules, body, false, refusal))
		return false;
	if (rules->echoes)
		api_keep_echo(g, message_last_of_user(json_object_get(body, "messages")));
	return true;
}

static uint32_t index_of(const struct generation *g, const struct generation_choice *c) {
	return (uint32_t)(c - g->choices);
}

static json_t *logprobs(const struct generation *g, struct generation_choice *c) {
	return g->with_logprobs ? logprobs_chat(g, c) : json_null();
}

/* Takes `delta` and `logprobs`. Without a choice it is the chunk that has only usage. */
static json_t *chunk(
    const struct generation *g, const struct generation_choice *c, json_t *delta, json_t *logprobs) {
	bool is_last = c && api_is_finished(c);
	json_t *choices = json_array();
	if (c)
		json_array_append_new(choices,
		    json_pack("{s:i, s:o, s:o, s:s?}", "index", (int)index_of(g, c), "delta", delta,
			"logprobs", logprobs, "finish_reason", is_last ? api_finish_name(c) : NULL));
	if (is_last)
		json_object_set_new(json_array_get(choices, 0), "stop_reason", api_stop_reason(g, c));
	json_t *event = json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", g->id, "object", "chat.completion.chunk",
	    "created", (json_int_t)g->created_s, "model", g->model, "choices", choices);
	if (!c || g->with_usage_always)
		json_object_set_new(event, "usage", api_usage(g));
	return event;
}

static void open_stream(struct generation *g, struct bytes *out) {
	for (uint32_t i = 0; i < g->n_choices; i++)
		api_add_event(out, NULL,
		    chunk(g, &g->choices[i], json_pack("{s:s, s:s}", "role", "assistant", "content", ""),
			json_null()));
}

static void frame(struct generation *g, struct generation_choice *c) {
	api_set_frame(c, NULL, chunk(g, c, json_pack("{s:s}", "content", API_HOLE), json_null()));
}

static void delta(struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out) {
	if (api_is_framed(g, c))
		api_add_frame(out, c, text);
	else
		api_add_event(out, NULL,
		    chunk(
			g, c, json_pack("{s:s%}", "content", text.n ? text.p : "", text.n), logprobs(g, c)));
}

static void close_stream(struct generation *g, struct bytes *out) {
	if (g->with_usage)
		api_add_event(out, NULL, chunk(g, NULL, NULL, NULL));
	bytes_add(out, SLICE("data: [DONE]\n\n"));
}

static json_t *whole(const struct generation *g) {
	json_t *choices = json_array();
	for (uint32_t i = 0; i < g->n_choices; i++) {
		struct generation_choice *c = &g->choices[i];
		json_t *message = json_pack("{s:s, s:o, s:n, s:n, s:n, s:n, s:[], s:n}", "role", "assistant",
		    "content", api_text(c), "refusal", "annotations", "audio", "function_call", "tool_calls",
		    "reasoning_content");
		json_array_append_new(choices,
		    json_pack("{s:i, s:o, s:o, s:s, s:o}", "index", (int)i, "message", message, "logprobs",
			logprobs(g, c), "finish_reason", api_finish_name(c), "stop_reason",
			api_stop_reason(g, c)));
	}
	return json_pack("{s:s, s:s, s:I, s:s, s:o, s:n, s:n, s:o, s:o, s:o}", "id", g->id, "object",
	    "chat.completion", "created", (json_int_t)g->created_s, "model", g->model, "choices", choices,
	    "service_tier", "system_fingerprint", "usage", api_usage(g), "prompt_logprobs",
	    api_prompt_logprobs(g, &g->choices[0]), "kv_transfer_params", api_transfer(g));
}

const struct api api_chat = {
	.path = "/v1/chat/completions",
	.name = "chat",
	.id_prefix = "chatcmpl-",
	.limit = "max_tokens",
	.parse = parse,
	.open = open_stream,
	.frame = frame,
	.delta = delta,
	.close = close_stream,
	.tell_prompt = logprobs_prompt,
	.whole = whole,
};
