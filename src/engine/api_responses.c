/* POST /v1/responses: text in, text out; no tools. What went before a stored response is not part of the
 * prompt. */
#include <stdlib.h>

#include "engine/api.h"
#include "engine/message.h"

static bool add_input(struct prompt *p, const json_t *input) {
	const json_t *item;
	size_t i;

	if (json_is_string(input))
		return message_add(p, "user", input);
	if (!json_is_array(input) || json_array_size(input) == 0)
		return false;
	json_array_foreach(input, i, item) {
		const char *role = json_string_value(json_object_get(item, "role"));
		if (!json_is_object(item) ||
		    (role && !message_add(p, role, json_object_get(item, "content"))))
			return false;
		if (!role) /* a tool call or its result */
			message_add_json(p, item);
	}
	return true;
}

static bool read_store(struct generation *g, const json_t *body, struct refusal *refusal) {
	const json_t *previous = json_object_get(body, "previous_response_id");

	g->is_stored = true;
	if (previous && !json_is_null(previous) && !json_is_string(previous))
		return api_invalid(refusal, "previous_response_id", "previous_response_id must be a string.");
	if (json_is_string(previous))
		g->previous_id = strdup(json_string_value(previous));
	return api_read_bool(body, "store", &g->is_stored, refusal);
}

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const json_t *input = json_object_get(body, "input");
	const json_t *instructions = json_object_get(body, "instructions");

	if (!read_store(g, body, refusal) || !api_read_bool(body, "stream", &g->is_stream, refusal) ||
	    !api_read_count(body, "max_output_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal))
		return false;
	struct prompt *p = api_add_prompt(g, rules, body);
	message_add_json(p, json_object_get(body, "tools"));
	if ((json_is_string(instructions) && !message_add(p, "system", instructions)) || !add_input(p, input))
		return api_invalid(refusal, "input", "input must be a string or an array of items.");
	message_end(p);
	if (rules->echoes)
		api_keep_echo(g, json_is_string(input) ? input : message_last_of_user(input));
	return true;
}

static json_t *part(json_t *text) {
	return json_pack(
	    "{s:s, s:o, s:[], s:n}", "type", "output_text", "text", text, "annotations", "logprobs");
}

/* Takes `content`. The id of the item is that of the response with another prefix. */
static json_t *item(const struct generation *g, const char *status, json_t *content) {
	json_t *id = json_sprintf("msg_%s", g->id + strlen(g->api->id_prefix));
	return json_pack("{s:o, s:s, s:s, s:s, s:o}", "id", id, "type", "message", "status", status, "role",
	    "assistant", "content", content);
}

static const char *end_status(const struct generation *g) {
	return g->choices[0].finish == FINISH_STOP ? "completed" : "incomplete";
}

static json_t *usage(const struct generation *g) {
	json_int_t n_made = generation_made_tokens(g);
	return json_pack("{s:I, s:{s:I}, s:I, s:{s:i}, s:I}", "input_tokens", (json_int_t)g->n_prompt_tokens,
	    "input_tokens_details", "cached_tokens", (json_int_t)g->n_cached_tokens, "output_tokens", n_made,
	    "output_tokens_details", "reasoning_tokens", 0, "total_tokens", g->n_prompt_tokens + n_made);
}

/* What it is made of; the references are taken. */
struct contents {
	const char *status;
	json_t *output, *details, *usage;
};

static json_t *envelope(const char *id, int64_t created_s, const char *model, const struct contents *c) {
	return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o, s:n, s:o, s:b, s:s, s:[], s:f, s:f, s:{}, s:o}",
	    "id", id, "object", "response", "created_at", (json_int_t)created_s, "status", c->status, "model",
	    model, "output", c->output, "error", "incomplete_details", c->details, "parallel_tool_calls",
	    true, "tool_choice", "auto", "tools", "temperature", 1.0, "top_p", 1.0, "metadata", "usage",
	    c->usage);
}

static json_t *response(const struct generation *g, bool is_whole) {
	struct contents c = { is_whole ? end_status(g) : "in_progress", json_array(), json_null(),
		is_whole ? usage(g) : json_null() };
	if (is_whole)
		json_array_append_new(
		    c.output, item(g, end_status(g), json_pack("[o]", part(api_text(&g->choices[0])))));
	if (is_whole && g->choices[0].finish == FINISH_LENGTH)
		c.details = json_pack("{s:s}", "reason", "max_output_tokens");
	return envelope(g->id, g->created_s, g->model, &c);
}

json_t *api_stored_response(const struct stored_response *s) {
	struct contents c = { s->is_complete ? "completed" : "incomplete", json_array(), json_null(),
		json_null() };

	if (!s->is_complete)
		c.details = json_pack("{s:s}", "reason", "max_output_tokens");
	return envelope(s->id, s->created_s, s->model, &c);
}

void api_miss_response(struct refusal *r, struct slice id) {
	size_t n = 0;

	while (n < id.n && n < 128 && id.p[n] >= ' ' && id.p[n] <= '~') /* the message must be UTF-8 */
		n++;
	api_refuse(r, 404, NULL, "Response with id '%.*s' not found.", (int)n, id.p);
	r->type = "invalid_request_error";
}

static json_t *whole(const struct generation *g) {
	json_t *answer = response(g, true);
	if (g->leg.told)
		json_object_set_new(answer, "kv_transfer_params", api_transfer(g));
	return answer;
}

/* Takes `data`: every event carries its type and its number. */
static void add(struct generation *g, struct bytes *out, const char *type, json_t *data) {
	json_object_set_new(data, "type", json_string(type));
	json_object_set_new(data, "sequence_number", json_integer(g->n_rendered++));
	api_add_event(out, type, data);
}

/* Takes `value`: what the event is about, with its place in the output. */
static json_t *placed(const struct generation *g, const char *key, json_t *value) {
	json_t *id = json_sprintf("msg_%s", g->id + strlen(g->api->id_prefix));
	return json_pack(
	    "{s:o, s:i, s:i, s:o}", "item_id", id, "output_index", 0, "content_index", 0, key, value);
}

static void open_stream(struct generation *g, struct bytes *out) {
	add(g, out, "response.created", json_pack("{s:o}", "response", response(g, false)));
	add(g, out, "response.in_progress", json_pack("{s:o}", "response", response(g, false)));
	add(g, out, "response.output_item.added",
	    json_pack("{s:i, s:o}", "output_index", 0, "item", item(g, "in_progress", json_array())));
	add(g, out, "response.content_part.added", placed(g, "part", part(json_string(""))));
}

static void delta(struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out) {
	if (text.n > 0)
		add(g, out, "response.output_text.delta", placed(g, "delta", json_stringn(text.p, text.n)));
}

static void close_stream(struct generation *g, struct bytes *out) {
	const struct generation_choice *c = &g->choices[0];
	json_t *content = json_pack("[o]", part(api_text(c)));
	bool is_complete = c->finish == FINISH_STOP;

	add(g, out, "response.output_text.done", placed(g, "text", api_text(c)));
	add(g, out, "response.content_part.done", placed(g, "part", part(api_text(c))));
	add(g, out, "response.output_item.done",
	    json_pack("{s:i, s:o}", "output_index", 0, "item", item(g, end_status(g), content)));
	add(g, out, is_complete ? "response.completed" : "response.incomplete",
	    json_pack("{s:o}", "response", response(g, true)));
}

const struct api api_responses = {
	.path = "/v1/responses",
	.name = "responses",
	.id_prefix = "resp_",
	.limit = "max_output_tokens",
	.parse = parse,
	.open = open_stream,
	.delta = delta,
	.close = close_stream,
	.whole = whole,
};
