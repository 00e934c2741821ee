/*
 * prompt_chain: a prompt as chained hashes of its blocks, made while its bytes arrive.
 *
 * A prompt has three parts, in the order in which engines render them: tools, system,
 * conversation. Each is a chain of its own, whatever the order of arrival: the hash of
 * every full block of PROMPT_BLOCK_BYTES raw bytes is seeded with the hash of the one
 * before, and a digest covers the whole part with its incomplete last block. Keys join
 * the three: those of a part are salted with the digests of the parts before it, so an
 * equal key means that all before it was equal, too.
 *
 * Before all of them comes what engines keep apart, whatever the prompt: the space that it lives
 * in, of up to four parts. They have no keys, are no part of the prompt's size, and salt all keys.
 *
 * A part that ends as an empty text, list or object is none: what it replaced is there again.
 *
 * One part is open at a time. A block that is whole in a piece is hashed where it stands;
 * what straddles pieces is copied to a buf, which is lent from the caller's pool when the
 * first such byte comes, holds the hashes, too, and grows with them. Without memory, or
 * beyond PROMPT_BLOCKS_MAX, a part is cut: its keys end there, and no later part has any.
 * One thread at a time; the caller deinits.
 */
#pragma once

#include "base/buf.h"
#include "policy/demand.h"

enum prompt_part_id {
	/* The space. */
	PROMPT_CACHE_SALT,
	PROMPT_EXTRA_KEY,
	PROMPT_ADAPTER,
	PROMPT_SCALES, /* of several adapters */
	/* The prompt. */
	PROMPT_TOOLS,
	PROMPT_SYSTEM,
	PROMPT_CONVERSATION,
};

#define PROMPT_PARTS 7

/* What a part is, by its first bytes. */
enum prompt_shape {
	PROMPT_AT_VALUE,    /* none of it has come but blanks */
	PROMPT_IN_LIST,     /* behind [ */
	PROMPT_IN_LISTS,    /* behind [[ */
	PROMPT_IN_TEXT,     /* behind [" */
	PROMPT_IN_ESCAPE,   /* behind a backslash there */
	PROMPT_BEHIND_TEXT, /* behind ["…" */
	PROMPT_IN_IDS,      /* behind [[1 */
	PROMPT_BEHIND_IDS,  /* behind [[1] */
	/* Those that stay. */
	PROMPT_TEXT,     /* one, also as the only one of a list, or anything else */
	PROMPT_TEXTS,    /* several */
	PROMPT_IDS,      /* token ids, also as the only list of a list */
	PROMPT_ID_LISTS, /* several lists of them */
};

struct prompt_part {
	uint64_t bytes;
	uint64_t n_ids;           /* token ids in it */
	uint64_t hash;            /* of the last full block; 0: there is none yet */
	uint64_t digest;          /* of all of it, once it has ended */
	uint32_t first, n_hashes; /* in the buf */
	uint8_t shape;            /* enum prompt_shape */
	bool has_ended;
	bool is_cut;
};

struct prompt_chain {
	struct buf_pool *pool;
	struct buf *buf; /* private: room for one block, then the hashes; NULL: not needed yet */
	struct prompt_part parts[PROMPT_PARTS];
	struct prompt_part *open;  /* NULL: none */
	struct prompt_part before; /* private: what the open one replaced */
	uint32_t n_hashes;         /* in the buf, those of parts that were begun again among them */
	uint32_t n_tail;           /* bytes in the room, of the open part */
};

void prompt_chain_init(struct prompt_chain *c, struct buf_pool *pool);
void prompt_chain_deinit(struct prompt_chain *c);

/* Opens this part, in place of what it was. Another one that is open ends nowhere: it is dropped. */
void prompt_chain_begin(struct prompt_chain *c, enum prompt_part_id part);

/* Forgets this part. */
void prompt_chain_drop(struct prompt_chain *c, enum prompt_part_id part);

/* The part that was just opened has neither ids nor several prompts: nobody needs to look for them. */
static inline void prompt_chain_is_text(struct prompt_chain *c) {
	c->open->shape = PROMPT_TEXT;
}

/* The next bytes of the open part. */
void prompt_chain_feed(struct prompt_chain *c, struct slice bytes);

/* The last ones, which may be none; no part is open then. False: it was empty. */
bool prompt_chain_end(struct prompt_chain *c, struct slice bytes);

/* Of the prompt, so far. */
struct prompt_size {
	uint64_t bytes;
	uint64_t n_ids, id_bytes; /* token ids, by the commas between them, and the bytes of such parts */
	bool is_batch;            /* a part is a list of several texts or lists: several prompts */
};

struct prompt_size prompt_chain_size(const struct prompt_chain *c);

/*
 * The keys of the full blocks so far, at most PROMPT_BLOCKS_MAX; returns how many. Those of an open
 * part are the last ones, since what follows depends on its end; of an open or a cut space there are none.
 */
uint32_t prompt_chain_keys(const struct prompt_chain *c, uint64_t salt, uint64_t *keys);

/* A key of all of a prompt that has ended and has no full block; 0: it has one, or there is none. */
uint64_t prompt_chain_whole(const struct prompt_chain *c, uint64_t salt);

/* Spreads every bit of x over all of the result; no two x give the same. */
static inline uint64_t prompt_mix(uint64_t x) {
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}
