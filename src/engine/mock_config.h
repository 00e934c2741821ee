/*
 * mock_config: the options of the mock engine, read once at the start, then immutable.
 */
#pragma once

#include "base/option.h"
#include "engine/fault.h"
#include "engine/kv_leg.h"

enum mock_reply { MOCK_WORDS, MOCK_ECHO };
enum mock_flavor { MOCK_VLLM, MOCK_SGLANG };
/* In the order of the option's choices. */
enum mock_connector {
	MOCK_KV_NONE,
	MOCK_KV_NIXL,
	MOCK_KV_NIXL_PUSH,
	MOCK_KV_MOONCAKE,
	MOCK_KV_MORIIO,
	MOCK_KV_P2P,
	MOCK_KV_SGLANG,
};
enum mock_kv_mode { MOCK_KV_READ, MOCK_KV_WRITE };

struct mock_config {
	struct option_set *options; /* owns the texts */
	const char *host;
	uint16_t port;             /* 0: any */
	struct option_list models; /* at least one */
	const char *api_key;       /* "": none is asked for */
	uint32_t prefill_tokens_per_s;
	uint64_t inter_token_ms;
	uint32_t n_running_max;
	uint32_t n_cache_blocks, n_block_tokens;
	uint32_t n_tokens_default, n_model_tokens;
	const char *chain, *key; /* PEM files; "": no TLS */
	const char *fault_text;
	struct fault_plan fault;
	const char *ledger; /* file of the ids of begun generations; "": none */
	enum mock_reply reply;
	enum mock_flavor flavor; /* whose routes it has besides the APIs */
	enum kv_role role;
	enum mock_connector connector;
	enum mock_kv_mode kv_mode;
	uint16_t bootstrap_port;  /* of the side channel; 0: any */
	const char *zmq_address;  /* host:port of the side channel in place of that; "": none */
	const char *zmq_register; /* host:port of the discovery socket that is told of it; "": none */
	uint32_t n_ranks, tp_size;
	uint64_t kv_ttl_ms;
	uint64_t seed;
};

/* Returns -1 when the engine is to run, otherwise the exit code. To be deinitialised either way. */
must_use int mock_config_load(struct mock_config *config, int argc, char *const *argv);
void mock_config_deinit(struct mock_config *config);
