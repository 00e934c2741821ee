/*
 * tokens: the requests that only count, answered at once.
 *
 * Pure. NULL with a refusal when the body is no good; otherwise the caller owns the
 * answer. Neither the prefix cache nor the ledger hears of them.
 */
#pragma once

#include "engine/generation.h"

/* POST /tokenize with a prompt or with messages. */
json_t *tokens_list(const struct generation_rules *rules, struct slice body, struct refusal *refusal);

/* POST /detokenize. */
json_t *tokens_text(const struct generation_rules *rules, struct slice body, struct refusal *refusal);

/* POST /v1/messages/count_tokens; errors have Anthropic's shape. */
json_t *tokens_count(const struct generation_rules *rules, struct slice body, struct refusal *refusal);
