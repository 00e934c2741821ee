/* POST /v1/completions */
#include "engine/api.h"

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	if (!api_read_openai(body, g, refusal) ||
	    !api_read_count(body, "max_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal) ||
	    !api_add_inputs(g, rules, body, "prompt", refusal))
		return false;
	if (rules->echoes) /* of several prompts all choices repeat all */
		api_keep_echo(g, json_object_get(body, "prompt"));
	return true;
}

/* Takes `text`. */
static json_t *choice_json(const struct generation *g, const struct generation_choice *c, json_t *text) {
	bool is_finished = api_is_finished(c);
	return json_pack("{s:i, s:o, s:n, s:s?, s:o}", "index", (int)(c - g->choices), "text", text,
	    "logprobs", "finish_reason", is_finished ? api_finish_name(c) : NULL, "stop_reason",
	    is_finished ? api_stop_reason(g, c) : json_null());
}

/* Takes `choices`. */
static json_t *completion(const struct generation *g, json_t *choices) {
	return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", g->id, "object", "text_completion", "created",
	    (json_int_t)g->created_s, "model", g->model, "choices", choices);
}

static json_t *chunk(const struct generation *g, const struct generation_choice *c, json_t *text) {
	json_t *event = completion(g, json_pack("[o]", choice_json(g, c, text)));
	if (g->with_usage_always)
		json_object_set_new(event, "usage", api_usage(g));
	return event;
}

static void open_stream(struct generation *g, struct bytes *out) {
	(void)g; /* a plain completion begins with its first token */
	(void)out;
}

static void frame(struct generation *g, struct generation_choice *c) {
	api_set_frame(c, NULL, chunk(g, c, json_string(API_HOLE)));
}

static void delta(struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out) {
	if (!g->with_usage_always && !api_is_finished(c))
		api_add_frame(out, c, text);
	else
		api_add_event(out, NULL, chunk(g, c, json_stringn(text.n ? text.p : "", text.n)));
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
	for (uint32_t i = 0; i < g->n_choices; i++)
		json_array_append_new(choices, choice_json(g, &g->choices[i], api_text(&g->choices[i])));
	json_t *answer = completion(g, choices);
	json_object_set_new(answer, "service_tier", json_null());
	json_object_set_new(answer, "system_fingerprint", json_null());
	json_object_set_new(answer, "usage", api_usage(g));
	json_object_set_new(answer, "kv_transfer_params", json_null());
	return answer;
}

const struct api api_completions = {
	.path = "/v1/completions",
	.name = "completions",
	.id_prefix = "cmpl-",
	.parse = parse,
	.open = open_stream,
	.frame = frame,
	.delta = delta,
	.close = close_stream,
	.whole = whole,
};
