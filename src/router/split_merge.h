/*
 * split_merge: the answer of a decode engine with what only the prefill engine knows spliced in, where the
 * two work on one request (prefill/decode disaggregation). The client gets the decode engine's answer; that
 * engine pulled the prompt's blocks and did not compute them, so that it cannot say how much of the prompt
 * was cached, nor how likely the prompt was.
 *
 * What is merged, where the prefill engine's answer has it:
 * - The count of cached tokens (usage of OpenAI's APIs, meta_info of SGLang's): what was pulled is cached to
 * a decode engine. A usage that is not there is not made up: all other counts are the decode engine's.
 * - prompt_logprobs, of the whole and of each choice, whatever the other has there.
 * - The prompt's part of the logprobs of completions with echo: it takes the place of the other's, or goes
 *   before what that has, whose text_offset moves on by the prompt. Usage tells which.
 * - meta_info.input_token_logprobs, before the other's.
 *
 * In events the same is merged, each choice by its index, where the decode engine says it: prompt_logprobs
 * where the event has that member (null or empty: once), and the prompt of an echo in the first words of its
 * choice, if the logprobs there begin with a null, which no token has but the first one of a prompt.
 *
 * Bytes that are not edited stay as they are, and JSON stays JSON. An answer that does not fit the prefill
 * engine's (another number of choices, or more of them than there is room for) gets what is of the whole
 * only.
 *
 * The prefill engine's answer, the split_merge and the decode engine's bytes are the caller's, and live until
 * the last piece of what was spliced is taken.
 */
#pragma once

#include "router/splice.h"

#define MERGE_PARTS_MAX 8u

/* A range of the prefill engine's answer; n 0: nothing. */
struct merge_range {
	uint32_t at, n;
};

/* Of a choice, or of the meta_info of SGLang's answer or of one in its batch. */
struct merge_part {
	struct merge_range cached;          /* of meta_info */
	struct merge_range input_logprobs;  /* likewise: the items */
	struct merge_range prompt_logprobs; /* of a choice: the array */
	struct merge_range prompts[4];      /* likewise: the prompt's items of tokens, token_logprobs,
					     * top_logprobs,      text_offset */
	uint32_t n_prompt;                  /* of these; 0: none */
	uint32_t text_end;                  /* the text_offset of what follows the prompt */
};

/* What no event has had yet: bits, by the number of the part. */
struct merge_due {
	uint8_t echo, prompt_logprobs;
	bool top; /* prompt_logprobs of the whole */
};

_Static_assert(MERGE_PARTS_MAX <= 8, "each part has a bit");

/* What is of use in the answer of a prefill engine. Nothing to free. */
struct split_merge {
	const struct hold *prefill;
	struct merge_range cached, prompt_logprobs; /* of the whole */
	bool is_input;                              /* cached: of input_tokens_details */
	bool has_prompt_logprobs;                   /* the whole, or a part */
	uint8_t n_parts;                            /* 0: none of them has anything */
	struct merge_part parts[MERGE_PARTS_MAX];
	struct merge_due due;
};

/* The answer, whole. False: nothing in it is of use; the decode engine's goes to the client as it comes. */
must_use bool split_merge_read(struct split_merge *m, const struct hold *prefill);

struct split_answer {
	struct splice splice;
	struct hold offsets; /* what `splice` puts that stands in neither answer; it is not moved */
};

/*
 * The edits of the decode engine's whole answer. False: it goes as it is, since there is nothing to do, it is
 * not JSON, or there is no memory; *out is empty then.
 */
must_use bool split_merge_answer(
    const struct split_merge *m, const struct hold *decode, struct buf_pool *pool, struct split_answer *out);

void split_answer_free(struct split_answer *a, struct buf_pool *pool);

/* Whether an event of a prefill engine says something that could be merged. */
must_use bool split_merge_is_told(struct slice event);

/* False: nothing in this text, of events, is merged. It costs a search for words. */
must_use bool split_merge_concerns(const struct split_merge *m, struct slice text);

/*
 * The edits of one whole event, line ends included, at places from its start. False: it goes as it is, as
 * nearly all do, which costs them a search for a word. What splice_length() says of it may be more than there
 * is room for: it grows by what the prefill engine's answer has.
 */
must_use bool split_merge_event(struct split_merge *m, struct slice event, struct splice *out);

/* Events have gone on without what was read now: what would have stood in the first ones is not said late. */
void split_merge_miss(struct split_merge *m);
