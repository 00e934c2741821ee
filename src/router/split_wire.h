/*
 * split_wire: what a prefill and a decode instance are told of each other, by the rules of their connector:
 * the request id that both get, and the parameters in their bodies. docs/prefill-decode.md has the table.
 *
 *     nixl       the prefill answers with the parameters of the decode; once it has said that it pushes,
 *                both are asked at once
 *     mooncake   both know a transfer id, the decode the prefill's bootstrap server and engine
 *     moriio     likewise, with sizes and ranks of the other side; write: both are asked at once
 *     p2p_nccl   both addresses are in the request id, and nothing in the bodies
 *     sglang     both get the same place to meet, and are asked at once
 *
 * Pure. Texts are ASCII and good as JSON; slices point into the struct and live as long as it stays.
 */
#pragma once

#include "fleet/traits.h"
#include "router/split_body.h"

#define SPLIT_WIRE_BYTES 3072u
#define SPLIT_PUSH_BYTES 480u
#define SPLIT_BATCH_MAX  512u /* prompts of one request that can meet */

/* One of the two. */
struct split_end {
	struct slice authority; /* as the Host field has it */
	struct slice host;
	struct slice engine; /* its id, as its bootstrap server says; empty: not known */
	struct kv_traits kv;
	uint16_t rank;
};

/* What nobody can guess, and the same for both. */
struct split_secret {
	uint64_t words[2];
};

/* How a prefill that pushes is reached, as it said: JSON values. */
struct split_push {
	struct slice engine, host, port, tp_size;
};

struct split_wire {
	struct slice id;                            /* for X-Request-Id; empty: the request's own */
	struct slice prefill_params, decode_params; /* empty: none, or to be taken from an answer */
	struct slice decode_lead; /* instead of the first brace of those that an answer has; empty: nothing */
	struct split_bootstrap bootstrap; /* SGLang's; else empty */
	bool is_concurrent;               /* both are asked at once */
	bool takes_answer;                /* the decode's parameters are in the prefill's answer */

	/* private */
	size_t used;
	char room[SPLIT_WIRE_BYTES];
};

/* In `room` of split_wire_make(), for so many prompts. */
size_t split_wire_batch_bytes(const struct split_end *prefill, uint32_t n_batch);

/*
 * `push`: of this prefill, when it is known; else NULL. `n_batch` prompts, at most SPLIT_BATCH_MAX (0: one
 * that is no list), whose meeting places go to `room`, of split_wire_batch_bytes(). False: they cannot be
 * told of each other (too long a name, no engine id).
 */
must_use bool split_wire_make(struct split_wire *w, enum connector connector, const struct split_end *prefill,
    const struct split_end *decode, const struct split_secret *secret, const struct split_push *push,
    uint32_t n_batch, char *room);
