/*
 * split_reading: what split_merge wants of one engine's answer, found by one scan: where counts and logprobs
 * stand, and how many items these have. Private to split_merge.
 *
 * An answer has parts: the choices of OpenAI's APIs; of SGLang's, its meta_info, or that of each answer of a
 * batch. Nothing is copied but the places of tokens in a text (text_offset), which are written anew where
 * they have to move.
 *
 * The caller owns all bytes; places are in the answer, or in the JSON of the event.
 */
#pragma once

#include "router/scan.h"
#include "router/split_merge.h"

/* Arrays of a choice, with an item for each token. */
enum merge_array {
	MERGE_PROMPT_LOGPROBS,
	MERGE_TOKENS, /* from here on of its logprobs: with echo the prompt's come first */
	MERGE_TOKEN_LOGPROBS,
	MERGE_TOP_LOGPROBS,
	MERGE_TEXT_OFFSET,
	MERGE_ARRAYS,
};

/* Where cached tokens are counted. */
enum merge_usage {
	MERGE_USAGE,          /* chat, completions */
	MERGE_INPUT_USAGE,    /* responses */
	MERGE_RESPONSE_USAGE, /* an event of responses */
	MERGE_USAGES,
};

/* Members. One that is not there has no bytes. */
struct merge_counts {
	struct scan_value usage, details, cached;
};

struct merge_items {
	struct scan_value value;
	uint64_t n;               /* 0 as well if it is no array */
	uint64_t end, prompt_end; /* behind the last item; behind the last one of the prompt, as far as
				   * `m` has one */
};

struct merge_found {
	struct scan_value object;                 /* the choice, or meta_info */
	struct scan_value cached, input_logprobs; /* of meta_info */
	struct merge_items arrays[MERGE_ARRAYS];
	uint32_t index;                 /* of a choice; UINT32_MAX: it has none, or none before its arrays */
	bool begins_null;               /* the first of token_logprobs */
	uint64_t text_end;              /* the last text_offset; UINT64_MAX: they are no counts */
	uint64_t offsets_at, offsets_n; /* in `offsets`: text_offset, moved */
};

struct split_reading {
	const struct hold *held; /* what was read, or NULL and: */
	struct slice json;
	struct scan_value prompt_logprobs, choices, completion_tokens;
	struct merge_counts counts[MERGE_USAGES];
	struct hold offsets; /* the caller frees it, whatever became of the reading */
	unsigned n_parts;    /* maybe more than `parts` has */
	struct merge_found parts[MERGE_PARTS_MAX];
};

/*
 * Reads the answer of a prefill engine, whose last token is the one that is not the prompt's. False: it is
 * not JSON.
 */
must_use bool merge_read_prefill(struct split_reading *r, const struct hold *answer);

/* Of a decode engine. False: also, there is no memory for `offsets`. */
must_use bool merge_read_decode(
    struct split_reading *r, const struct hold *answer, const struct split_merge *m, struct buf_pool *pool);

/* Of an event, whose choices say which they are. */
must_use bool merge_read_event(struct split_reading *r, struct slice json, const struct split_merge *m);

/* It was read, and is an array or an object without anything in it. */
bool merge_is_empty(const struct split_reading *r, const struct scan_value *v);
