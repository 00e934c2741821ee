/* POST /v1/messages: Anthropic's API. */
#include "engine/api.h"
#include "engine/message.h"

bool api_add_anthropic(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const json_t *messages = json_object_get(body, "messages"), *message;
	const json_t *system = json_object_get(body, "system");
	struct prompt *p = api_add_prompt(g, rules, body);
	size_t i;

	if (!json_is_array(messages) || json_array_size(messages) == 0)
		return api_invalid(refusal, "messages", "messages: at least one message is required");
	message_add_json(p, json_object_get(body, "tools"));
	if (system && !message_add(p, "system", system))
		return api_invalid(refusal, "system", "system: must be text or text blocks");
	json_array_foreach(messages, i, message) {
		const char *role = json_string_value(json_object_get(message, "role"));
		if (!role || !message_add(p, role, json_object_get(message, "content")))
			return api_invalid(refusal, "messages",
			    "messages.%zu: a role and a content of text or blocks are required", i);
	}
	message_end(p);
	return true;
}

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	if (!api_read_bool(body, "stream", &g->is_stream, refusal) ||
	    !api_read_count(body, "max_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal) ||
	    !api_read_stops(body, "stop_sequences", g, refusal))
		return false;
	if (g->n_tokens_asked == 0)
		return api_invalid(refusal, "max_tokens", "max_tokens: Field required");
	if (!api_add_anthropic(g, rules, body, refusal))
		return false;
	if (rules->echoes)
		api_keep_echo(g, message_last_of_user(json_object_get(body, "messages")));
	return true;
}

static const char *stop_reason(const struct generation_choice *c) {
	if (c->stop >= 0)
		return "stop_sequence";
	return c->finish == FINISH_STOP ? "end_turn" : "max_tokens";
}

/* What was cached does not count as input here, it stands beside it. */
static json_t *usage(const struct generation *g) {
	return json_pack("{s:I, s:I, s:I, s:I}", "input_tokens",
	    (json_int_t)g->n_prompt_tokens - g->n_cached_tokens, "cache_creation_input_tokens", (json_int_t)0,
	    "cache_read_input_tokens", (json_int_t)g->n_cached_tokens, "output_tokens",
	    (json_int_t)generation_made_tokens(g));
}

/* Takes `content`. */
static json_t *message_json(const struct generation *g, json_t *content, bool is_whole) {
	const struct generation_choice *c = &g->choices[0];
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s?, s:o, s:o}", "id", g->id, "type", "message", "role",
	    "assistant", "model", g->model, "content", content, "stop_reason",
	    is_whole ? stop_reason(c) : NULL, "stop_sequence", is_whole ? api_stop_reason(g, c) : json_null(),
	    "usage", usage(g));
}

static json_t *whole(const struct generation *g) {
	json_t *block = json_pack("{s:s, s:o}", "type", "text", "text", api_text(&g->choices[0]));
	json_t *answer = message_json(g, json_pack("[o]", block), true);
	if (g->leg.told)
		json_object_set_new(answer, "kv_transfer_params", api_transfer(g));
	return answer;
}

static void open_stream(struct generation *g, struct bytes *out) {
	json_t *message = message_json(g, json_array(), false);
	api_add_event(
	    out, "message_start", json_pack("{s:s, s:o}", "type", "message_start", "message", message));
	api_add_event(out, "content_block_start",
	    json_pack("{s:s, s:i, s:{s:s, s:s}}", "type", "content_block_start", "index", 0, "content_block",
		"type", "text", "text", ""));
	api_add_event(out, "ping", json_pack("{s:s}", "type", "ping"));
}

static void frame(struct generation *g, struct generation_choice *c) {
	(void)g;
	api_set_frame(c, "content_block_delta",
	    json_pack("{s:s, s:i, s:{s:s, s:s}}", "type", "content_block_delta", "index", 0, "delta", "type",
		"text_delta", "text", API_HOLE));
}

static void delta(struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out) {
	(void)g;
	if (text.n > 0)
		api_add_frame(out, c, text);
}

static void close_stream(struct generation *g, struct bytes *out) {
	const struct generation_choice *c = &g->choices[0];
	api_add_event(
	    out, "content_block_stop", json_pack("{s:s, s:i}", "type", "content_block_stop", "index", 0));
	api_add_event(out, "message_delta",
	    json_pack("{s:s, s:{s:s, s:o}, s:{s:I}}", "type", "message_delta", "delta", "stop_reason",
		stop_reason(c), "stop_sequence", api_stop_reason(g, c), "usage", "output_tokens",
		(json_int_t)generation_made_tokens(g)));
	api_add_event(out, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

const struct api api_messages = {
	.path = "/v1/messages",
	.name = "messages",
	.id_prefix = "msg_",
	.limit = "max_tokens",
	.parse = parse,
	.open = open_stream,
	.frame = frame,
	.delta = delta,
	.close = close_stream,
	.whole = whole,
	.is_anthropic = true,
};
