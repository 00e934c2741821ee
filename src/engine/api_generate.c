/* POST /generate: SGLang's own API. The events of a stream have all of the text so far. */
#include "engine/api.h"
#include "engine/logprobs.h"

static bool read_sampling(struct generation *g, const json_t *body, struct refusal *refusal) {
	const json_t *sampling = json_object_get(body, "sampling_params");

	if (sampling && !json_is_null(sampling) && !json_is_object(sampling))
		return api_invalid(refusal, "sampling_params", "sampling_params must be an object.");
	return api_read_count(sampling, "max_new_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal) &&
	    api_read_count(sampling, "max_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal) &&
	    api_read_count(sampling, "n", 1, GENERATION_CHOICES_MAX, &g->n_per_prompt, refusal) &&
	    api_read_stops(sampling, "stop", g, refusal);
}

static bool read_logprobs(struct generation *g, const json_t *body, struct refusal *refusal) {
	const json_t *start = json_object_get(body, "logprob_start_len");

	if (!api_read_bool(body, "return_logprob", &g->with_logprobs, refusal))
		return false;
	g->with_prompt_logprobs =
	    g->with_logprobs && json_is_integer(start) && json_integer_value(start) >= 0;
	return true;
}

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	static const char *const inputs[] = { "text", "input_ids", "prompt" };
	size_t i = 0;

	if (!api_read_bool(body, "stream", &g->is_stream, refusal) || !read_sampling(g, body, refusal) ||
	    !read_logprobs(g, body, refusal))
		return false;
	while (i + 1 < n_elems(inputs) && !json_object_get(body, inputs[i]))
		i++;
	if (!api_add_inputs(g, rules, body, inputs[i], refusal))
		return false;
	if (rules->echoes)
		api_keep_echo(g, json_object_get(body, inputs[i]));
	return true;
}

static json_t *finish_json(const struct generation *g, const struct generation_choice *c) {
	if (!api_is_finished(c))
		return json_null();
	if (c->finish == FINISH_LENGTH)
		return json_pack("{s:s, s:I}", "type", "length", "length", (json_int_t)c->n_tokens);
	return json_pack("{s:s, s:o}", "type", "stop", "matched", api_stop_reason(g, c));
}

static json_t *meta_json(const struct generation *g, struct generation_choice *c) {
	json_t *meta = json_pack("{s:s, s:o, s:I, s:s, s:I, s:I}", "id", g->id, "finish_reason",
	    finish_json(g, c), "prompt_tokens", (json_int_t)g->n_prompt_tokens, "weight_version", "default",
	    "completion_tokens", (json_int_t)c->n_made, "cached_tokens", (json_int_t)g->n_cached_tokens);
	if (!g->with_logprobs)
		return meta;
	json_t *prompt = api_prompt_logprobs(g, c);
	json_object_set_new(meta, "input_token_logprobs", json_is_null(prompt) ? json_array() : prompt);
	json_object_set_new(meta, "output_token_logprobs", logprobs_ids(c));
	return meta;
}

static json_t *choice_json(const struct generation *g, struct generation_choice *c) {
	return json_pack("{s:o, s:o, s:o}", "text", api_text(c), "output_ids", api_output_ids(c, 0),
	    "meta_info", meta_json(g, c));
}

static void open_stream(struct generation *g, struct bytes *out) {
	(void)g; /* it begins with its first token */
	(void)out;
}

static void delta(struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out) {
	(void)text;
	json_t *event = choice_json(g, c);
	if (g->n_choices > 1)
		json_object_set_new(event, "index", json_integer(c - g->choices));
	api_add_event(out, NULL, event);
}

static void close_stream(struct generation *g, struct bytes *out) {
	(void)g;
	bytes_add(out, SLICE("data: [DONE]\n\n"));
}

static json_t *whole(const struct generation *g) {
	if (g->n_choices > 1) {
		json_t *choices = json_array();
		for (uint32_t i = 0; i < g->n_choices; i++)
			json_array_append_new(choices, choice_json(g, &g->choices[i]));
		return choices;
	}
	json_t *answer = choice_json(g, &g->choices[0]);
	if (g->leg.told)
		json_object_set_new(answer, "kv_transfer_params", api_transfer(g));
	return answer;
}

const struct api api_generate = {
	.path = "/generate",
	.name = "generate",
	.id_prefix = "",
	.limit = "max_new_tokens",
	.limits_in = "sampling_params",
	.parse = parse,
	.open = open_stream,
	.delta = delta,
	.close = close_stream,
	.tell_prompt = logprobs_input,
	.whole = whole,
};
