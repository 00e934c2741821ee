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
