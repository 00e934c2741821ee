/*
 * prompt: text on its way to being counted and hashed, never kept.
 *
 * A token is four bytes, whatever they say: 4 bytes a token is what English text comes
 * to with real tokenizers, and a test can count. An empty prompt has one, as where a
 * model is given a mark of beginning. From the first byte on, full blocks
 * of tokens are hashed into a chain of keys for the prefix cache; the salt (model and
 * tenant) stands before the first block, so that nothing is shared across salts. The
 * hash of the whole seeds the answer.
 *
 *     prompt_init()  prompt_add...()  prompt_finish()  prompt_deinit()
 *
 * Memory: 8 bytes a block of text, and 4 a token if the tokens are to be kept; what
 * is added is bounded by the request's body. One thread.
 */
#pragma once

#include "base/slice.h"

#define PROMPT_TOKEN_BYTES      4u
#define PROMPT_IMAGE_TOKENS     256u
#define PROMPT_BLOCK_TOKENS_MAX 4096u

struct prompt {
	uint32_t n_tokens; /* after prompt_finish() */
	uint64_t hash;     /* likewise */
	uint64_t *keys;    /* one for each full block */
	size_t n_keys, n_keys_room;
	uint32_t *tokens; /* with prompt_keep_tokens(): each is its four bytes, little endian */
	size_t n_kept, n_kept_room;
	bool keeps_tokens;
	char *block; /* the one that is being filled */
	size_t n_block_bytes;
	size_t n_bytes;
};

/* Of a text that is no prompt. */
uint64_t prompt_hash_of(struct slice text);

void prompt_init(struct prompt *p, uint32_t n_block_tokens, struct slice salt);
void prompt_deinit(struct prompt *p);

/* Before anything is added. */
void prompt_keep_tokens(struct prompt *p);

void prompt_add(struct prompt *p, struct slice text);
void prompt_add_token(struct prompt *p, uint32_t token);

/* Stands for PROMPT_IMAGE_TOKENS tokens that no other image shares. `source`: its URL or data. */
void prompt_add_image(struct prompt *p, struct slice source);

void prompt_finish(struct prompt *p);

/*
 * How many of the prompt's tokens `n_blocks` cached leading blocks save: never all
 * of them, an engine must compute at least one to have something to go on from.
 */
uint32_t prompt_cached_tokens(const struct prompt *p, size_t n_blocks);
