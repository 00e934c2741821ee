/*
 * replay: what is needed to play a request again under another policy: a line of JSON for
 * each that was answered, written where [explain] log says (headrace sim reads it).
 *
 *     {"ts_ns":1795367788965000000,"prompt_tokens":2053,"output_tokens":16,
 *      "session":"9f1c0a…","blocks":["00ab…",…]}
 *
 * ts_ns is when the request came, since 1970. Session and blocks are salted hashes, blocks
 * of PROMPT_BLOCK_BYTES each and all before them; no text can be got from them. What the
 * pick knew of the prompt is kept until the end in a lent buf, so that an exchange without
 * this log holds a pointer only.
 */
#pragma once

#include "base/buf.h"
#include "policy/demand.h"

#define REPLAY_BLOCKS_MAX 256u /* the leading ones */
#define REPLAY_LINE_BYTES (160u + REPLAY_BLOCKS_MAX * 19u)

/* NULL: there is nothing to play again, or no memory for it. */
must_use struct buf *replay_keep(struct buf_pool *pool, const struct demand *demand);

struct replay_counts {
	uint64_t at_ns;         /* wall clock */
	uint64_t prompt_tokens; /* as counted; 0: as estimated by the pick */
	uint64_t output_tokens;
};

/* The line with its end; `kept` is of replay_keep(). */
struct slice replay_line(
    const struct buf *kept, const struct replay_counts *r, char room[static REPLAY_LINE_BYTES]);
