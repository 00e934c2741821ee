#include "engine/api.h"

#include <stdarg.h>
#include <stdio.h>

#include "engine/logprobs.h"
#include "engine/message.h"

#define HOLE_IN_JSON "\"\\u0001\""

static const struct api *const apis[] = {
	&api_chat,
	&api_completions,
	&api_embeddings,
	&api_generate,
	&api_inference,
	&api_messages,
	&api_rerank,
	&api_responses,
};

const struct api *api_of_path(struct slice path) {
	for (size_t i = 0; i < n_elems(apis); i++)
		if (slice_eq(path, slice_of(apis[i]->path)) ||
		    (apis[i]->other_path && slice_eq(path, slice_of(apis[i]->other_path))))
			return apis[i];
	return NULL;
}

static const struct {
	uint32_t status;
	const char *openai, *anthropic;
} error_types[] = {
	{ 400, "BadRequestError", "invalid_request_error" },
	{ 401, "AuthenticationError", "authentication_error" },
	{ 404, "NotFoundError", "not_found_error" },
	{ 413, "RequestEntityTooLargeError", "request_too_large" },
	{ 429, "RateLimitError", "rate_limit_error" },
	{ 503, "ServiceUnavailableError", "overloaded_error" },
	{ 0, "InternalServerError", "api_error" },
};

json_t *api_error(const struct refusal *r, bool is_anthropic) {
	size_t i = 0;
	while (error_types[i].status && error_types[i].status != r->status)
		i++;
	if (is_anthropic)
		return json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type",
		    error_types[i].anthropic, "message", r->message);
	return json_pack("{s:{s:s, s:s, s:s?, s:i}}", "error", "message", r->message, "type",
	    r->type             ? r->type
		: r->is_invalid ? "Bad Request"
				: error_types[i].openai,
	    "param", r->param, "code", (int)r->status);
}

bool api_refuse(struct refusal *r, uint32_t status, const char *param, const char *format, ...) {
	va_list args;
	*r = (struct refusal){ .status = status, .param = param };
	va_start(args, format);
	vsnprintf(r->message, sizeof(r->message), format, args);
	va_end(args);
	return false;
}

bool api_invalid(struct refusal *r, const char *param, const char *format, ...) {
	va_list args;
	*r = (struct refusal){ .status = 400, .is_invalid = true, .param = param };
	va_start(args, format);
	vsnprintf(r->message, sizeof(r->message), format, args);
	va_end(args);
	return false;
}

bool api_find_model(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal) {
	const json_t *model = json_object_get(body, "model");
	if (!model || json_is_null(model)) {
		g->model = rules->models[0];
		return true;
	}
	if (!json_is_string(model))
		return api_invalid(refusal, "model", "model must be a string.");
	struct slice name = { json_string_value(model), json_string_length(model) };
	for (size_t i = 0; i < rules->n_models; i++)
		if (slice_eq(name, slice_of(rules->models[i])))
			g->model = rules->models[i];
	if (g->model)
		return true;
	size_t n_shown = size_min(name.n, 96);
	while (n_shown > 0 && n_shown < name.n && ((unsigned char)name.p[n_shown] & 0xc0) == 0x80)
		n_shown--; /* not inside a character: the message must be UTF-8 */
	return api_refuse(refusal, 404, "model", "The model `%.*s` does not exist.", (int)n_shown, name.p);
}

bool api_read_count(const json_t *body, const char *key, uint32_t min, uint32_t max, uint32_t *value,
    struct refusal *refusal) {
	const json_t *member = json_object_get(body, key);
	if (!member || json_is_null(member))
		return true;
	json_int_t n = json_integer_value(member);
	if (!json_is_integer(member))
		return api_invalid(refusal, key, "%s must be an integer.", key);
	if (n < (json_int_t)min || n > (json_int_t)max)
		return api_refuse(refusal, 400, key, "%s must be an integer from %u to %u.", key, min, max);
	*value = (uint32_t)n;
	return true;
}

bool api_read_bool(const json_t *body, const char *key, bool *value, struct refusal *refusal) {
	const json_t *member = json_object_get(body, key);
	if (!member || json_is_null(member))
		return true;
	if (!json_is_boolean(member))
		return api_invalid(refusal, key, "%s must be a boolean.", key);
	*value = json_is_true(member);
	return true;
}

bool api_read_stops(const json_t *body, const char *key, struct generation *g, struct refusal *refusal) {
	json_t *member = json_object_get(body, key);
	const json_t *stop;
	size_t i;

	if (!member || json_is_null(member))
		return true;
	g->stops = json_is_array(member) ? json_incref(member) : json_pack("[O]", member);
	if (json_array_size(g->stops) > GENERATION_STOPS_MAX)
		return api_refuse(
		    refusal, 400, key, "%s can hold at most %u strings.", key, GENERATION_STOPS_MAX);
	json_array_foreach(g->stops, i, stop) {
		if (!json_is_string(stop))
			return api_invalid(refusal, key, "%s must be a string or an array of strings.", key);
		if (json_string_length(stop) == 0)
			return api_refuse(refusal, 400, key, "%s cannot contain an empty string.", key);
	}
	return true;
}

bool api_read_prompt_logprobs(const json_t *body, struct generation *g, struct refusal *refusal) {
	const json_t *member = json_object_get(body, "prompt_logprobs");

	g->with_prompt_logprobs = json_is_integer(member);
	if (g->with_prompt_logprobs && g->is_stream)
		return api_refuse(refusal, 400, "prompt_logprobs",
		    "`prompt_logprobs` are not available when `stream=True`.");
	return api_read_count(
	    body, "prompt_logprobs", 0, LOGPROBS_TOP_MAX, &g->n_top_prompt_logprobs, refusal);
}

bool api_read_openai(const json_t *body, struct generation *g, struct refusal *refusal) {
	const json_t *options = json_object_get(body, "stream_options");
	const json_t *seed = json_object_get(body, "seed");

	if (!api_read_bool(body, "stream", &g->is_stream, refusal) ||
	    !api_read_bool(options, "include_usage", &g->with_usage, refusal) ||
	    !api_read_bool(options, "continuous_usage_stats", &g->with_usage_always, refusal) ||
	    !api_read_bool(body, "include_stop_str_in_output", &g->with_stop, refusal) ||
	    !api_read_count(body, "n", 1, GENERATION_CHOICES_MAX, &g->n_per_prompt, refusal) ||
	    !api_read_stops(body, "stop", g, refusal) || !api_read_prompt_logprobs(body, g, refusal))
		return false;
	if (options && !json_is_null(options) && !g->is_stream)
		return api_invalid(
		    refusal, "stream_options", "Stream options can only be defined when `stream=True`.");
	g->with_usage_always = g->with_usage && g->with_usage_always;
	g->seed = (uint64_t)json_integer_value(seed);
	return true;
}

struct prompt *api_add_prompt(
    struct generation *g, const struct generation_rules *rules, const json_t *body) {
	const json_t *salt = json_object_get(body, "cache_salt");
	struct bytes all = { .n_max = SIZE_MAX / 2 }; /* the salt is within the body's limit */
	struct prompt *p;

	bytes_add(&all, slice_of(g->model));
	bytes_add(&all, (struct slice){ "", 1 });
	if (json_is_string(salt))
		bytes_add(&all, (struct slice){ json_string_value(salt), json_string_length(salt) });
	g->prompts = realloc(g->prompts, (g->n_prompts + 1) * sizeof(*p));
	p = &g->prompts[g->n_prompts++];
	prompt_init(p, rules->n_block_tokens, bytes_slice(&all));
	if (g->with_prompt_logprobs)
		prompt_keep_tokens(p);
	bytes_deinit(&all);
	return p;
}

static bool add_tokens(struct prompt *p, const json_t *tokens) {
	const json_t *token;
	size_t i;
	json_array_foreach(tokens, i, token) {
		json_int_t id = json_integer_value(token);
		if (!json_is_integer(token) || id < 0 || id > UINT32_MAX)
			return false;
		prompt_add_token(p, (uint32_t)id);
	}
	return true;
}

json_t *api_text_of_tokens(const json_t *tokens) {
	struct bytes text = { .n_max = SIZE_MAX / 2 }; /* it is a part of the body */
	const json_t *token;
	size_t i;

	json_array_foreach(tokens, i, token) {
		char bytes[PROMPT_TOKEN_BYTES];
		for (unsigned k = 0; k < sizeof(bytes); k++)
			bytes[k] = (char)(json_integer_value(token) >> 8 * k);
		bytes_add(&text, (struct slice){ bytes, sizeof(bytes) });
	}
	for (unsigned k = 1; k < PROMPT_TOKEN_BYTES && text.n > 0 && text.p[text.n - 1] == '\0'; k++)
		text.n--; /* the last token of a text need not be full */
	json_t *string = json_stringn(text.n ? text.p : "", text.n);
	if (!string) {
		for (i = 0; i < text.n; i++)
			text.p[i] = (unsigned char)text.p[i] < 0x80 ? text.p[i] : '?';
		string = json_stringn(text.p, text.n);
	}
	bytes_deinit(&text);
	return string;
}

static bool add_one(
    struct generation *g, const struct generation_rules *rules, const json_t *body, const json_t *prompt) {
	if (g->n_prompts == GENERATION_CHOICES_MAX)
		return false;
	struct prompt *p = api_add_prompt(g, rules, body);
	if (json_is_array(prompt) && !add_tokens(p, prompt))
		return false;
	prompt_add(p, (struct slice){ json_string_value(prompt), json_string_length(prompt) });
	if (g->prompt_texts)
		json_array_append_new(g->prompt_texts,
		    json_is_array(prompt) ? api_text_of_tokens(prompt) : json_deep_copy(prompt));
	return json_is_array(prompt) || json_is_string(prompt);
}

bool api_add_inputs(struct generation *g, const struct generation_rules *rules, const json_t *body,
    const char *key, struct refusal *refusal) {
	const json_t *inputs = json_object_get(body, key), *input;
	bool is_list = json_is_array(inputs) && !json_is_integer(json_array_get(inputs, 0));
	bool good = true;
	size_t i;

	if (is_list)
		json_array_foreach(inputs, i, input) good = good && add_one(g, rules, body, input);
	else
		good = add_one(g, rules, body, inputs);
	if (good && g->n_prompts > 0)
		return true;
	return api_invalid(refusal, key,
	    "%s must be a string, an array of token ids, or an array of at most %u of these.", key,
	    GENERATION_CHOICES_MAX);
}

void api_keep_echo(struct generation *g, const json_t *content) {
	struct bytes text = { .n_max = SIZE_MAX / 2 }; /* it is a part of the body */
	message_text(content, &text);
	bytes_add(&text, (struct slice){ "", 1 }); /* an empty one has memory as well */
	g->echo = text.p;
	g->n_echo_bytes = text.n - 1;
}

void api_keep_said(struct generation *g, struct slice text) {
	g->said = malloc(text.n + 1); /* an empty one has memory as well */
	memcpy(g->said, text.p, text.n);
	g->n_said_bytes = text.n;
}

bool api_is_finished(const struct generation_choice *c) {
	return c->n_made == c->n_tokens;
}

bool api_is_framed(const struct generation *g, const struct generation_choice *c) {
	return !g->with_usage_always && !g->with_logprobs && !api_is_finished(c) &&
	    (!g->prompt_texts || c->has_prompt);
}

const char *api_finish_name(const struct generation_choice *c) {
	return c->finish == FINISH_STOP ? "stop" : "length";
}

json_t *api_stop_reason(const struct generation *g, const struct generation_choice *c) {
	return c->stop < 0 ? json_null() : json_incref(json_array_get(g->stops, (size_t)c->stop));
}

json_t *api_output_ids(const struct generation_choice *c, uint32_t from) {
	struct speech_cursor cursor = c->begin;
	json_t *ids = json_array();
	struct slice token;

	for (uint32_t i = 0; i < c->n_made && speech_next(&c->speech, &cursor, &token); i++)
		if (i >= from)
			json_array_append_new(ids, json_integer((json_int_t)speech_id(token)));
	return ids;
}

json_t *api_prompt_logprobs(const struct generation *g, const struct generation_choice *c) {
	json_t *told = json_array_get(g->prompt_logprobs, (size_t)(c - g->choices) / g->n_per_prompt);
	return told ? json_incref(told) : json_null();
}

json_t *api_transfer(const struct generation *g) {
	return g->leg.told ? json_incref(g->leg.told) : json_null();
}

json_t *api_usage(const struct generation *g) {
	uint32_t n_made = generation_made_tokens(g);
	return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)g->n_prompt_tokens,
	    "total_tokens", (json_int_t)g->n_prompt_tokens + n_made, "completion_tokens", (json_int_t)n_made,
	    "prompt_tokens_details", "cached_tokens", (json_int_t)g->n_cached_tokens);
}

json_t *api_text(const struct generation_choice *c) {
	struct speech_cursor cursor = c->begin;
	struct bytes text = { .n_max = SIZE_MAX / 2 }; /* as much as the tokens come to */
	struct slice token;

	while (cursor.n_tokens - c->begin.n_tokens < c->n_made && speech_next(&c->speech, &cursor, &token))
		bytes_add(&text, slice_head(token, c->n_text_bytes - c->begin.n_bytes - text.n));
	json_t *string = json_stringn(text.n ? text.p : "", text.n);
	bytes_deinit(&text);
	return string;
}

void api_add_event(struct bytes *out, const char *name, json_t *data) {
	assert(data);
	if (name)
		bytes_printf(out, "event: %s\n", name);
	bytes_add(out, SLICE("data: "));
	bytes_add_json(out, data);
	bytes_add(out, SLICE("\n\n"));
	json_decref(data);
}

void api_set_frame(struct generation_choice *c, const char *name, json_t *data) {
	struct bytes event = { .n_max = SIZE_MAX / 2 };
	struct slice hole = SLICE(HOLE_IN_JSON);
	size_t at;

	api_add_event(&event, name, data);
	for (at = event.n - hole.n; memcmp(event.p + at, hole.p, hole.n) != 0; at--)
		assert(at > 0);
	at++; /* the quotes stay */
	bytes_init(&c->frame, event.n);
	bytes_add(&c->frame, (struct slice){ event.p, at });
	bytes_add(&c->frame, slice_skip(bytes_slice(&event), at + hole.n - 2));
	c->frame_hole = at;
	bytes_deinit(&event);
}

void api_add_frame(struct bytes *out, const struct generation_choice *c, struct slice text) {
	struct slice frame = bytes_slice(&c->frame);
	bytes_add(out, slice_head(frame, c->frame_hole));
	bytes_add_escaped(out, text);
	bytes_add(out, slice_skip(frame, c->frame_hole));
}
