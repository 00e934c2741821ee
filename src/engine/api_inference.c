/* POST /inference/v1/generate: vLLM's API of token ids in and token ids out. */
#include "engine/api.h"
#include "engine/logprobs.h"

static bool parse(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const json_t *sampling = json_object_get(body, "sampling_params");

	if (!json_is_object(sampling))
		return api_invalid(refusal, "sampling_params", "sampling_params must be an object.");
	if (!json_is_array(json_object_get(body, "token_ids")))
		return api_invalid(refusal, "token_ids", "token_ids must be an array of integers.");
	return api_read_bool(body, "stream", &g->is_stream, refusal) &&
	    api_read_count(sampling, "max_tokens", 1, INT32_MAX, &g->n_tokens_asked, refusal) &&
	    api_read_count(sampling, "n", 1, GENERATION_CHOICES_MAX, &g->n_per_prompt, refusal) &&
	    api_read_prompt_logprobs(sampling, g, refusal) &&
	    api_add_inputs(g, rules, body, "token_ids", refusal);
}

/* Of `n` choices; with all of their tokens, or with the newest one. */
static json_t *answer(
    const struct generation *g, const struct generation_choice *first, uint32_t n, bool is_whole) {
	json_t *choices = json_array();

	for (uint32_t i = 0; i < n; i++) {
		const struct generation_choice *c = &first[i];
		json_array_append_new(choices,
		    json_pack("{s:i, s:n, s:s?, s:o}", "index", (int)(c - g->choices), "logprobs",
			"finish_reason", api_is_finished(c) ? api_finish_name(c) : NULL, "token_ids",
			api_output_ids(c, is_whole ? 0 : c->n_made - 1)));
	}
	return json_pack("{s:s, s:o}", "request_id", g->id, "choices", choices);
}

static void open_stream(struct generation *g, struct bytes *out) {
	(void)g; /* it begins with its first token */
	(void)out;
}

static void delta(struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out) {
	(void)text;
	api_add_event(out, NULL, answer(g, c, 1, false));
}

static void close_stream(struct generation *g, struct bytes *out) {
	(void)g;
	bytes_add(out, SLICE("data: [DONE]\n\n"));
}

static json_t *whole(const struct generation *g) {
	json_t *json = answer(g, g->choices, g->n_choices, true);
	json_object_set_new(json, "prompt_logprobs", api_prompt_logprobs(g, &g->choices[0]));
	json_object_set_new(json, "kv_transfer_params", api_transfer(g));
	return json;
}

const struct api api_inference = {
	.path = "/inference/v1/generate",
	.name = "inference",
	.id_prefix = "",
	.limit = "max_tokens",
	.limits_in = "sampling_params",
	.parse = parse,
	.open = open_stream,
	.delta = delta,
	.close = close_stream,
	.tell_prompt = logprobs_prompt,
	.whole = whole,
};
