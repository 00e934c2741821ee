/*
 * logprobs: made-up probabilities of the tokens of an answer, in vLLM's two forms.
 *
 * The token that was made is the likeliest, other words share the rest. Like the text
 * they depend on the choice's seed alone. Each call tells of the tokens that were made
 * since the call before; the caller owns what is returned. Pure.
 */
#pragma once

#include "engine/generation.h"

#define LOGPROBS_TOP_MAX    20u
#define LOGPROBS_TOKENS_MAX (1u << 17) /* of a generation, each with all its rivals: it is a lot of JSON */

/* {"content":[{"token","logprob","bytes","top_logprobs"},...]} */
json_t *logprobs_chat(const struct generation *g, struct generation_choice *c);

/* {"text_offset","token_logprobs","tokens","top_logprobs"}, with the prompt's tokens before the first echo.
 */
json_t *logprobs_completion(const struct generation *g, struct generation_choice *c);

/* Of a prompt that keeps its tokens: [null, {"ID":{"logprob","rank","decoded_token"},...},...] */
json_t *logprobs_prompt(const struct prompt *p, uint32_t n_top);

/* SGLang's: [[logprob or null, ID, null],...], of a prompt and of a choice, of all its tokens so far. */
json_t *logprobs_input(const struct prompt *p, uint32_t n_top);
json_t *logprobs_ids(const struct generation_choice *c);
