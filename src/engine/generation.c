#include "engine/generation.h"

#include "engine/api.h"
#include "engine/logprobs.h"
#include "engine/message.h"
#include "engine/random.h"

static char *printable_id(const char *prefix, struct slice id) {
	size_t n_prefix = strlen(prefix);
	char *out = malloc(n_prefix + id.n + 1);
	memcpy(out, prefix, n_prefix);
	for (size_t i = 0; i < id.n; i++)
		out[n_prefix + i] = id.p[i] > ' ' && id.p[i] < 0x7f ? id.p[i] : '?';
	out[n_prefix + id.n] = '\0';
	return out;
}

/* How many output tokens a choice may have at most; 0: the prompt leaves no room. */
static uint32_t room_for_output(
    const struct generation *g, const struct generation_rules *rules, struct refusal *refusal) {
	uint64_t n_longest = 0;
	for (size_t i = 0; i < g->n_prompts; i++)
		n_longest = u64_max(n_longest, g->prompts[i].n_tokens);
	if (n_longest < rules->n_model_tokens && n_longest + g->n_tokens_asked <= rules->n_model_tokens)
		return rules->n_model_tokens - (uint32_t)n_longest;
	api_refuse(refusal, 400, NULL,
	    "This model's maximum context length is %u tokens. However, you requested %u tokens in the "
	    "output and "
	    "your prompt contains %u. Please reduce the length of the input or the number of requested "
	    "tokens.",
	    rules->n_model_tokens, g->n_tokens_asked, (uint32_t)n_longest);
	return 0;
}

/* `n_max`: of all its tokens, with those that were said before. */
static void init_choice(
    struct generation *g, struct generation_choice *c, const struct speech *speech, uint32_t n_max) {
	struct speech_cursor begin = c->begin;
	struct slice stops[GENERATION_STOPS_MAX];
	size_t n_stops = json_array_size(g->stops), n_bytes;

	for (size_t i = 0; i < n_stops; i++) {
		const json_t *stop = json_array_get(g->stops, i);
		stops[i] = (struct slice){ json_string_value(stop), json_string_length(stop) };
	}
	*c = (struct generation_choice){ .speech = *speech, .begin = begin, .cursor = begin, .told = begin };
	c->stop = speech_measure(speech, n_max, stops, n_stops, &c->n_tokens, &n_bytes);
	if (c->stop >= 0 && g->with_stop)
		n_bytes += stops[c->stop].n;
	c->n_text_bytes = size_max(n_bytes, begin.n_bytes);
	c->n_sent_bytes = begin.n_bytes;
	/* An end of our own choosing is a stop: the answer is as long as it is. */
	bool is_whole_echo = speech->echo.p && c->stop < 0 && c->n_tokens < n_max;
	c->finish = c->stop >= 0 || is_whole_echo || g->n_tokens_asked == 0 ? FINISH_STOP : FINISH_LENGTH;
	c->n_tokens -= (uint32_t)u64_min(c->n_tokens, begin.n_tokens);
	if (c->n_tokens == 0)
		c->n_tokens = 1; /* the end alone takes a step as well */
}

/* Probabilities are many times the text. */
static bool can_tell_logprobs(const struct generation *g, struct refusal *refusal) {
	uint64_t n_tokens = 0;
	for (uint32_t i = 0; i < g->n_choices; i++)
		n_tokens += g->choices[i].n_tokens;
	if (g->prompt_texts)
		n_tokens += (uint64_t)g->n_prompt_tokens * g->n_per_prompt;
	return !g->with_logprobs || n_tokens * (1 + g->n_top_logprobs) <= LOGPROBS_TOKENS_MAX ||
	    api_refuse(refusal, 400, "logprobs", "There can be at most %u logprobs in an answer.",
		LOGPROBS_TOKENS_MAX);
}

struct speech generation_speech(
    const struct generation *g, const struct generation_rules *rules, uint64_t hash, uint32_t nth) {
	return (struct speech){ .seed = random_nth(hash ^ random_nth(rules->seed, g->seed), nth),
		.echo = { g->echo, g->n_echo_bytes } };
}

/* Somebody else's words are a part of the prompt. Returns how many tokens what was said comes to. */
static uint32_t begin_behind(struct generation *g, struct generation_choice *c, struct speech *speech) {
	struct slice said = { g->said, g->n_said_bytes };

	if (speech_seek(speech, said, &c->begin))
		return c->begin.n_tokens;
	speech->seed ^= prompt_hash_of(said);
	return (uint32_t)((said.n + PROMPT_TOKEN_BYTES - 1) / PROMPT_TOKEN_BYTES);
}

static void plan_choice(
    struct generation *g, const struct generation_rules *rules, uint32_t i, uint32_t n_max) {
	struct generation_choice *c = &g->choices[i];
	struct speech speech =
	    generation_speech(g, rules, g->prompts[i / g->n_per_prompt].hash, i % g->n_per_prompt);
	uint32_t n_said = g->said ? begin_behind(g, c, &speech) : 0;

	if (i == 0)
		g->n_prompt_tokens += n_said;
	if (g->n_tokens_asked)
		n_max += c->begin.n_tokens;
	if (g->api->delta)
		init_choice(g, c, &speech, n_max);
	else
		c->speech = speech; /* nothing to say, but a seed */
	if (g->is_stream && g->api->frame)
		g->api->frame(g, c);
}

static bool plan_choices(
    struct generation *g, const struct generation_rules *rules, struct refusal *refusal) {
	uint32_t n_room = room_for_output(g, rules, refusal);
	if (n_room == 0)
		return false;
	if (g->n_prompts * g->n_per_prompt > GENERATION_CHOICES_MAX)
		return api_refuse(refusal, 400, "n", "n times the number of prompts must be at most %u.",
		    GENERATION_CHOICES_MAX);
	uint32_t n_max = g->n_tokens_asked;
	if (n_max == 0)
		n_max = g->echo ? n_room : (uint32_t)u64_min(rules->n_tokens_default, n_room);

	g->n_choices = (uint32_t)g->n_prompts * g->n_per_prompt;
	if ((uint64_t)g->n_choices * n_max > GENERATION_TOKENS_MAX) {
		g->n_choices = 0;
		return api_refuse(refusal, 400, "n", "All choices together can have at most %u tokens.",
		    GENERATION_TOKENS_MAX);
	}
	g->choices = calloc(g->n_choices, sizeof(g->choices[0]));
	for (uint32_t i = 0; i < g->n_choices; i++)
		plan_choice(g, rules, i, n_max);
	return can_tell_logprobs(g, refusal);
}

/* Not of a decode's, which it has not computed. */
static bool tell_prompts(struct generation *g, struct refusal *refusal) {
	if (!g->with_prompt_logprobs || !g->api->tell_prompt || g->leg.part == KV_DECODE)
		return true;
	if ((uint64_t)g->n_prompt_tokens * (1 + g->n_top_prompt_logprobs) > LOGPROBS_TOKENS_MAX)
		return api_refuse(refusal, 400, "prompt_logprobs",
		    "There can be at most %u logprobs of prompts in an answer.", LOGPROBS_TOKENS_MAX);
	g->prompt_logprobs = json_array();
	for (size_t i = 0; i < g->n_prompts; i++)
		json_array_append_new(
		    g->prompt_logprobs, g->api->tell_prompt(&g->prompts[i], g->n_top_prompt_logprobs));
	return true;
}

static bool read_leg(struct generation *g, const struct generation_rules *rules,
    const struct generation_name *name, const json_t *body, struct refusal *refusal) {
	const struct kv_request request = {
		.rules = &rules->kv,
		.body = body,
		.params = json_object_get(body, "kv_transfer_params"),
		.id = name->id,
		.nonce = name->nonce,
		.n_prompts = g->n_prompts,
		.n_prompt_tokens = g->n_prompt_tokens,
		.rank = name->rank,
	};
	return kv_leg_read(g, &request, refusal);
}

static bool read_body(struct generation *g, const struct generation_rules *rules,
    const struct generation_name *name, const json_t *body, struct refusal *refusal) {
	if (!json_is_object(body))
		return api_invalid(refusal, NULL, "The body must be a JSON object.");
	if (!api_find_model(g, rules, body, refusal) || !g->api->parse(g, rules, body, refusal))
		return false;
	for (size_t i = 0; i < g->n_prompts; i++) {
		prompt_finish(&g->prompts[i]);
		g->n_prompt_tokens += g->prompts[i].n_tokens;
	}
	return read_leg(g, rules, name, body, refusal) && tell_prompts(g, refusal) &&
	    plan_choices(g, rules, refusal);
}

bool generation_parse(struct generation *g, const struct api *api, const struct generation_rules *rules,
    const struct generation_name *name, struct slice body, struct refusal *refusal) {
	json_error_t error;

	*g = (struct generation){
		.api = api,
		.n_per_prompt = 1,
		.n_events_max = UINT32_MAX,
		.n_steps_max = UINT32_MAX,
		.created_s = name->created_s,
		.rank = name->rank,
	};
	g->id = printable_id(api->id_prefix, name->id);
	json_t *json = json_loadb(body.p ? body.p : "", body.n, JSON_ALLOW_NUL, &error);
	if (!json)
		return api_invalid(refusal, NULL, "JSON decode error at byte %d.", error.position);
	bool good = read_body(g, rules, name, json, refusal);
	json_decref(json);
	return good;
}

void generation_drop_prompts(struct generation *g) {
	for (size_t i = 0; i < g->n_prompts; i++)
		prompt_deinit(&g->prompts[i]);
	free(g->prompts);
	g->prompts = NULL;
	g->n_prompts = 0;
}

void generation_deinit(struct generation *g) {
	assert(g->sequence.state == LATENCY_DONE);
	generation_drop_prompts(g);
	for (uint32_t i = 0; i < g->n_choices; i++)
		bytes_deinit(&g->choices[i].frame);
	free(g->choices);
	free(g->echo);
	free(g->said);
	free(g->id);
	free(g->previous_id);
	json_decref(g->stops);
	json_decref(g->prompt_texts);
	json_decref(g->prompt_logprobs);
	kv_leg_deinit(&g->leg);
	*g = (struct generation){ 0 };
}

uint32_t generation_output_tokens(const struct generation *g) {
	uint32_t n = 0;
	for (uint32_t i = 0; i < g->n_choices; i++)
		n = (uint32_t)u64_max(n, g->choices[i].n_tokens);
	return n;
}

uint32_t generation_tokens_in_step(const struct generation *g, uint32_t step) {
	uint32_t n = 0;
	for (uint32_t i = 0; i < g->n_choices; i++)
		n += step < g->choices[i].n_tokens;
	return n;
}

const json_t *generation_prompt_text(const struct generation *g, const struct generation_choice *c) {
	return json_array_get(g->prompt_texts, (size_t)(c - g->choices) / g->n_per_prompt);
}

uint32_t generation_made_tokens(const struct generation *g) {
	uint32_t n = 0;
	for (uint32_t i = 0; i < g->n_choices; i++)
		n += g->choices[i].n_made;
	return n;
}

void generation_open(struct generation *g, struct bytes *out) {
	assert(g->is_stream);
	g->api->open(g, out);
}

/* The text of the next token, cut where a stop string begins. */
static struct slice make_token(struct generation_choice *c) {
	struct slice text = { NULL, 0 };
	assert(!api_is_finished(c));
	if (speech_next(&c->speech, &c->cursor, &text))
		text = slice_head(text, c->n_text_bytes - c->n_sent_bytes);
	c->n_sent_bytes += text.n;
	c->n_made++;
	return text;
}

void generation_step(struct generation *g, struct bytes *out) {
	g->n_steps++;
	for (uint32_t i = 0; i < g->n_choices && g->n_events < g->n_events_max; i++) {
		struct generation_choice *c = &g->choices[i];
		if (api_is_finished(c))
			continue;
		struct slice text = make_token(c);
		if (!g->is_stream || (text.n == 0 && !api_is_finished(c)))
			continue;
		g->api->delta(g, c, text, out);
		g->n_events++;
	}
}

void generation_close(struct generation *g, struct bytes *out) {
	assert(g->is_stream);
	g->api->close(g, out);
}

bool generation_whole(const struct generation *g, struct bytes *out) {
	json_t *answer = g->api->whole(g);
	assert(answer);
	bool fits = bytes_add_json(out, answer);
	json_decref(answer);
	return fits;
}
