#include "engine/tokens.h"

#include "engine/api.h"

typedef bool (*add_prompt_fn)(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal);
typedef json_t *(*answer_fn)(const struct generation_rules *rules, const struct prompt *p);

static json_t *answer(const struct generation_rules *rules, struct slice body, add_prompt_fn add_prompt,
    answer_fn render, struct refusal *refusal) {
	struct generation g = { 0 };
	json_t *json = json_loadb(body.p ? body.p : "", body.n, JSON_ALLOW_NUL, NULL);
	json_t *result = NULL;

	if (!json_is_object(json))
		api_invalid(refusal, NULL, "The body must be a JSON object.");
	else if (api_find_model(&g, rules, json, refusal) && add_prompt(&g, rules, json, refusal)) {
		prompt_finish(g.prompts);
		result = render(rules, g.prompts);
	}
	json_decref(json);
	generation_deinit(&g);
	return result;
}

static bool add_text_or_messages(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const json_t *prompt = json_object_get(body, "prompt");
	if (json_object_get(body, "messages"))
		return api_add_messages(g, rules, body, true, refusal);
	if (!json_is_string(prompt))
		return api_invalid(refusal, "prompt", "A prompt or messages are needed.");
	struct prompt *p = api_add_prompt(g, rules, body);
	prompt_keep_tokens(p);
	prompt_add(p, (struct slice){ json_string_value(prompt), json_string_length(prompt) });
	return true;
}

static json_t *list(const struct generation_rules *rules, const struct prompt *p) {
	json_t *tokens = json_array();
	for (size_t i = 0; i < p->n_kept; i++)
		json_array_append_new(tokens, json_integer(p->tokens[i]));
	return json_pack("{s:I, s:I, s:o, s:n}", "count", (json_int_t)p->n_tokens, "max_model_len",
	    (json_int_t)rules->n_model_tokens, "tokens", tokens, "token_strs");
}

json_t *tokens_list(const struct generation_rules *rules, struct slice body, struct refusal *refusal) {
	return answer(rules, body, add_text_or_messages, list, refusal);
}

static json_t *count(const struct generation_rules *rules, const struct prompt *p) {
	(void)rules;
	return json_pack("{s:I}", "input_tokens", (json_int_t)p->n_tokens);
}

json_t *tokens_count(const struct generation_rules *rules, struct slice body, struct refusal *refusal) {
	return answer(rules, body, api_add_anthropic, count, refusal);
}

json_t *tokens_text(const struct generation_rules *rules, struct slice body, struct refusal *refusal) {
	json_t *json = json_loadb(body.p ? body.p : "", body.n, JSON_ALLOW_NUL, NULL), *result = NULL;
	const json_t *tokens = json_object_get(json, "tokens"), *token;
	struct generation g = { 0 };
	bool good = json_is_array(tokens);
	size_t i;

	json_array_foreach(tokens, i, token) good = good && json_is_integer(token);
	if (!good)
		api_invalid(refusal, "tokens", "tokens must be an array of token ids.");
	else if (api_find_model(&g, rules, json, refusal))
		result = json_pack("{s:o}", "prompt", api_text_of_tokens(tokens));
	json_decref(json);
	return result;
}
