/*
 * api: the wire formats in which an engine is asked for text. Private to the engine.
 *
 * One constant table each, in api_chat.c and its neighbours; generation.c drives them.
 * A `parse` reads what is its own and adds the prompts; `open`, `delta` and `close`
 * add events to a stream, `frame` renders in advance what all deltas of a choice share
 * (NULL: nothing); `whole` is the plain answer. Without `delta` there is no text to make.
 * JSON is built by jansson, and the caller owns what is returned.
 */
#pragma once

#include "engine/generation.h"
#include "engine/stored.h"

struct api {
	const char *path;
	const char *other_path; /* it is served there as well; NULL: nowhere */
	const char *name;       /* in the ledger */
	const char *id_prefix;  /* "chatcmpl-" */
	const char *limit; /* the member that bounds the output: "max_tokens"; NULL: there is none to bound */
	const char *limits_in; /* the object that it stands in; NULL: the body */
	bool (*parse)(struct generation *g, const struct generation_rules *rules, const json_t *body,
	    struct refusal *refusal);
	void (*open)(struct generation *g, struct bytes *out);
	void (*frame)(struct generation *g, struct generation_choice *c);
	void (*delta)(
	    struct generation *g, struct generation_choice *c, struct slice text, struct bytes *out);
	void (*close)(struct generation *g, struct bytes *out);
	/* Of a prompt that keeps its tokens, with so many rivals of each; NULL: its prompts are not told of.
	 */
	json_t *(*tell_prompt)(const struct prompt *p, uint32_t n_top);
	json_t *(*whole)(const struct generation *g);
	bool is_anthropic; /* the shape of its errors */
};

extern const struct api api_chat, api_completions, api_embeddings, api_generate, api_inference, api_messages,
    api_rerank, api_responses;

/* NULL: no API of ours has this path. */
const struct api *api_of_path(struct slice path);

/* The body of a refusal. */
json_t *api_error(const struct refusal *refusal, bool is_anthropic);

/*
 * They fill the refusal and return false, so that a parser can end with them. Invalid, with
 * 400, is what vLLM's validation stops: no JSON, a missing member, a wrong type; the serving
 * layer behind it refuses what makes no sense.
 */
bool api_refuse(struct refusal *r, uint32_t status, const char *param, const char *format, ...)
    printf_like(4, 5);
bool api_invalid(struct refusal *r, const char *param, const char *format, ...) printf_like(3, 4);

/* Sets g->model from the body. */
must_use bool api_find_model(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal);

/* Members that are absent or null leave *value alone; false with a refusal when the type or range is wrong.
 */
must_use bool api_read_count(const json_t *body, const char *key, uint32_t min, uint32_t max, uint32_t *value,
    struct refusal *refusal);
must_use bool api_read_bool(const json_t *body, const char *key, bool *value, struct refusal *refusal);

/* One string or an array of strings, into g->stops. */
must_use bool api_read_stops(
    const json_t *body, const char *key, struct generation *g, struct refusal *refusal);

/* stream, stream_options, seed, n, stop: what chat and plain completions share. */
must_use bool api_read_openai(const json_t *body, struct generation *g, struct refusal *refusal);

/* prompt_logprobs: what vLLM's own APIs share. Before the prompts are added. */
must_use bool api_read_prompt_logprobs(const json_t *body, struct generation *g, struct refusal *refusal);

/* A new prompt at the end of g->prompts, salted by model and cache_salt. Valid until the next one is added.
 */
struct prompt *api_add_prompt(struct generation *g, const struct generation_rules *rules, const json_t *body);

/* The member `key` as prompts: a string, an array of token ids, or an array of these. */
must_use bool api_add_inputs(struct generation *g, const struct generation_rules *rules, const json_t *body,
    const char *key, struct refusal *refusal);

/* tools and messages of a chat as one prompt, without the last one when its text was said before. */
must_use bool api_add_messages(struct generation *g, const struct generation_rules *rules, const json_t *body,
    bool keeps_tokens, struct refusal *refusal);

/* system, tools and messages of Anthropic's API as one prompt. */
must_use bool api_add_anthropic(
    struct generation *g, const struct generation_rules *rules, const json_t *body, struct refusal *refusal);

/* The text of a message's content becomes the answer. */
void api_keep_echo(struct generation *g, const json_t *content);

/* What of the answer was said before: it goes on behind that. Once. */
void api_keep_said(struct generation *g, struct slice text);

/* "stop", "length" */
const char *api_finish_name(const struct generation_choice *c);

/* The stop string that ended the choice, JSON null if none did. */
json_t *api_stop_reason(const struct generation *g, const struct generation_choice *c);

/* The frame of the choice has all that its next event needs but the text. */
bool api_is_framed(const struct generation *g, const struct generation_choice *c);

/* A stored response without what it said, which is not kept. */
json_t *api_stored_response(const struct stored_response *s);

/* The refusal of one that is not there, in vLLM's words. */
void api_miss_response(struct refusal *r, struct slice id);

/* What ids of tokens stand for: their bytes, with '?' where these are no text. */
json_t *api_text_of_tokens(const json_t *tokens);

/* The ids of the tokens that the choice has made, from the nth on. */
json_t *api_output_ids(const struct generation_choice *c, uint32_t from);

/* What is told of the choice's prompt, or JSON null. */
json_t *api_prompt_logprobs(const struct generation *g, const struct generation_choice *c);

/* What the answer says of the prompt's blocks, or JSON null. */
json_t *api_transfer(const struct generation *g);

/* OpenAI's usage object, and whether `c` has made its last token. */
json_t *api_usage(const struct generation *g);
bool api_is_finished(const struct generation_choice *c);

/* The whole text of a choice as a JSON string. */
json_t *api_text(const struct generation_choice *c);

/* One server-sent event: `name` may be NULL. Takes the reference of `data`. */
void api_add_event(struct bytes *out, const char *name, json_t *data);

/*
 * Pre-renders an event of the choice. The text's place is marked by the string API_HOLE, the
 * last one of its kind in the event. Takes the reference of `data`.
 */
#define API_HOLE "\x01"
void api_set_frame(struct generation_choice *c, const char *name, json_t *data);

/* The frame with `text` in its hole. */
void api_add_frame(struct bytes *out, const struct generation_choice *c, struct slice text);
