/*
 * kv_leg: one request as a leg of a pair: a prefill, which computes a prompt's blocks and
 * keeps them, or a decode, which fetches them and goes on from there.
 *
 * A connector is one constant table, in kv_nixl.c and its neighbours: it reads what a leg
 * brings in the wire form of the real one and refuses what that one would not take. What is
 * left is the same for all: a key by which both legs mean the same blocks, and, for a decode,
 * the side channel where the prefill is to be asked (mock_leg.c, POST /mock/kv/fetch).
 *
 * Pure: no socket, no clock. A leg owns `told`. One thread.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

#define KV_KEY_BYTES    256
#define KV_ENGINE_BYTES 64
#define KV_PEER_BYTES   288

struct kv_connector;
struct generation;
struct refusal;

enum kv_role { KV_UNIFIED, KV_PREFILL, KV_DECODE };

/* What the engine is to others, for all its legs. */
struct kv_rules {
	const struct kv_connector *connector; /* NULL: none is spoken, and what comes of it is not read */
	enum kv_role role;
	char engine_id[KV_ENGINE_BYTES / 2]; /* of this process; of its ranks: kv_engine_id() */
	bool writes;                         /* MoRIIO: both legs at once */
	const char *zmq_address;             /* our place in request ids, "host:port"; "": we have none */
	const char *host;                    /* of the side channel */
	uint16_t port;                       /* likewise */
	uint32_t n_ranks, tp_size, n_block_tokens;
};

struct kv_leg {
	enum kv_role part;   /* KV_UNIFIED: it does both by itself */
	bool awaits_decode;  /* a prefill that begins when its decode has asked for it */
	bool awaits_prefill; /* a decode that may come before its prefill is done */
	char key[KV_KEY_BYTES];
	uint64_t prompt;                 /* hash of what is to be answered */
	char peer[KV_PEER_BYTES];        /* decode: url of the prefill's side channel */
	char engine_id[KV_ENGINE_BYTES]; /* decode: who is to be there; "": whoever is */
	bool has_peer_rank;
	uint32_t peer_rank; /* decode: which of its ranks */
	json_t *told;       /* prefill: kv_transfer_params of its answer, or NULL */
};

/* What a connector is asked about. */
struct kv_request {
	const struct kv_rules *rules;
	const json_t *body;
	const json_t *params; /* kv_transfer_params; NULL: there are none */
	struct slice id;      /* X-Request-Id */
	uint64_t nonce;       /* no other request has it */
	size_t n_prompts;
	uint32_t n_prompt_tokens, rank;
};

struct kv_connector {
	const char *name;
	bool has_params;   /* kv_transfer_params say which leg it is; otherwise the engine's role does */
	bool has_address;  /* the request id tells where the side channel is */
	bool cuts_prefill; /* both legs get the same body, and a prefill stops after one token by itself */
	/* They fill in the leg; false with a refusal. */
	bool (*read_prefill)(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal);
	bool (*read_decode)(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal);
};

extern const struct kv_connector kv_mooncake, kv_moriio, kv_nixl, kv_nixl_push, kv_p2p, kv_sglang;

/* Reads g->leg from the body. Between parsing the prompts and planning the choices; may limit these. */
must_use bool kv_leg_read(struct generation *g, const struct kv_request *request, struct refusal *refusal);
void kv_leg_deinit(struct kv_leg *leg);

/* "prefill", "decode"; NULL: it is no leg. */
const char *kv_part_name(enum kv_role part);

/* Each rank is an engine of its own to others. */
void kv_engine_id(const struct kv_rules *rules, uint32_t rank, char id[static KV_ENGINE_BYTES]);

/* Where a decode finds its prefill's side channel. */
void kv_set_peer(struct kv_leg *leg, const char *host, uint16_t port);

/* As many ids as the prompt has blocks, that nobody else has. The caller owns them. */
json_t *kv_block_ids(const struct kv_request *q);

/* --- for connectors: of the members of kv_transfer_params; false with a refusal ----------- */

must_use bool kv_expect_bool(
    const struct kv_request *q, const char *key, bool value, struct refusal *refusal);
/* All of the list, which ends with NULL, are absent or null. */
must_use bool kv_expect_nulls(const struct kv_request *q, const char *const *keys, struct refusal *refusal);
/* A string that fits into `room`. */
must_use bool kv_expect_text(
    const struct kv_request *q, const char *key, char *room, size_t n_room, struct refusal *refusal);
/* remote_host and remote_port, into leg->peer. */
must_use bool kv_expect_peer(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal);
must_use bool kv_expect_count(const struct kv_request *q, const char *key, json_int_t max,
    json_int_t *value_out, struct refusal *refusal);
