#include "engine/prompt.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t prompt_hash_of(struct slice text) {
	return XXH3_64bits(text.p, text.n);
}

void prompt_init(struct prompt *p, uint32_t n_block_tokens, struct slice salt) {
	assert(n_block_tokens > 0 && n_block_tokens <= PROMPT_BLOCK_TOKENS_MAX);
	*p = (struct prompt){
		.n_block_bytes = n_block_tokens * PROMPT_TOKEN_BYTES,
		.hash = XXH3_64bits(salt.p, salt.n),
	};
	p->block = malloc(p->n_block_bytes);
}

void prompt_deinit(struct prompt *p) {
	free(p->keys);
	free(p->tokens);
	free(p->block);
	*p = (struct prompt){ 0 };
}

void prompt_keep_tokens(struct prompt *p) {
	assert(p->n_bytes == 0);
	p->keeps_tokens = true;
}

static void keep_tokens(struct prompt *p, const char *block, size_t n_bytes) {
	size_t n = (n_bytes + PROMPT_TOKEN_BYTES - 1) / PROMPT_TOKEN_BYTES;
	if (p->n_kept + n > p->n_kept_room) {
		p->n_kept_room = size_max(2 * p->n_kept_room, p->n_kept + n);
		p->tokens = realloc(p->tokens, p->n_kept_room * sizeof(p->tokens[0]));
	}
	uint32_t *tokens = p->tokens + p->n_kept;
	memset(tokens, 0, n * sizeof(tokens[0]));
	for (size_t i = 0; i < n_bytes; i++)
		tokens[i / 4] |= (uint32_t)(unsigned char)block[i] << (8 * (i % 4));
	p->n_kept += n;
}

static void end_block(struct prompt *p, const char *block, size_t n_bytes) {
	p->hash = XXH3_64bits_withSeed(block, n_bytes, p->hash);
	if (p->keeps_tokens)
		keep_tokens(p, block, n_bytes);
}

static void end_full_block(struct prompt *p, const char *block) {
	end_block(p, block, p->n_block_bytes);
	if (p->n_keys == p->n_keys_room) {
		p->n_keys_room = size_max(2 * p->n_keys_room, 16);
		p->keys = realloc(p->keys, p->n_keys_room * sizeof(p->keys[0]));
	}
	p->keys[p->n_keys++] = p->hash;
}

void prompt_add(struct prompt *p, struct slice text) {
	while (text.n > 0) {
		size_t at = p->n_bytes % p->n_block_bytes;
		size_t n = size_min(text.n, p->n_block_bytes - at);
		if (n == p->n_block_bytes) {
			end_full_block(p, text.p);
		} else {
			memcpy(p->block + at, text.p, n);
			if (at + n == p->n_block_bytes)
				end_full_block(p, p->block);
		}
		p->n_bytes += n;
		text = slice_skip(text, n);
	}
}

void prompt_add_token(struct prompt *p, uint32_t token) {
	char bytes[PROMPT_TOKEN_BYTES];
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(token >> (8 * i));
	prompt_add(p, (struct slice){ bytes, sizeof(bytes) });
}

void prompt_add_image(struct prompt *p, struct slice source) {
	uint64_t hash = XXH3_64bits(source.p, source.n);
	for (uint32_t i = 0; i < PROMPT_IMAGE_TOKENS; i++)
		prompt_add_token(p, (uint32_t)(i % 2 ? hash >> 32 : hash));
}

void prompt_finish(struct prompt *p) {
	size_t n_partial = p->n_bytes % p->n_block_bytes;
	if (n_partial > 0)
		end_block(p, p->block, n_partial);
	size_t n_tokens = (p->n_bytes + PROMPT_TOKEN_BYTES - 1) / PROMPT_TOKEN_BYTES;
	p->n_tokens = (uint32_t)size_max(n_tokens, 1);
	free(p->block);
	p->block = NULL;
}

uint32_t prompt_cached_tokens(const struct prompt *p, size_t n_blocks) {
	assert(n_blocks <= p->n_keys);
	size_t n_block_tokens = p->n_block_bytes / PROMPT_TOKEN_BYTES;
	size_t n = n_blocks * n_block_tokens;
	if (n > 0 && n >= p->n_tokens)
		n -= n_block_tokens;
	return (uint32_t)n;
}
