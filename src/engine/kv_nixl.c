/*
 * NIXL, pull: the prefill's answer says where its blocks are, the decode brings that with it
 * and reads them from there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/api.h"

/* Both legs mean the same blocks when they name the same ids in the same order. */
static void key_of_blocks(const json_t *ids, char key[static KV_KEY_BYTES]) {
	char *text = json_dumps(ids, JSON_COMPACT);
	snprintf(key, KV_KEY_BYTES, "blocks-%016lx", prompt_hash_of(slice_of(text)));
	free(text);
}

/* As many ids as the prompt has blocks, that nobody else has. */
static json_t *block_ids(const struct kv_request *q) {
	uint32_t n_block_tokens = q->rules->n_block_tokens;
	uint32_t n = (q->n_prompt_tokens + n_block_tokens - 1) / n_block_tokens;
	json_t *ids = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(ids, json_integer((json_int_t)(q->nonce >> 16) + i));
	return ids;
}

static bool read_prefill(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	static const char *const nulls[] = { "remote_engine_id", "remote_block_ids", "remote_host",
		"remote_port", NULL };
	char engine_id[KV_ENGINE_BYTES];

	if (!kv_expect_bool(q, "do_remote_prefill", false, refusal) || !kv_expect_nulls(q, nulls, refusal))
		return false;
	json_t *ids = block_ids(q);
	key_of_blocks(ids, leg->key);
	kv_engine_id(q->rules, q->rank, engine_id);
	leg->told = json_pack("{s:b, s:b, s:s, s:o, s:s, s:i, s:i}", "do_remote_prefill", true,
	    "do_remote_decode", false, "remote_engine_id", engine_id, "remote_block_ids", ids, "remote_host",
	    q->rules->host, "remote_port", (int)q->rules->port, "tp_size", (int)q->rules->tp_size);
	return true;
}

static bool read_blocks(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	const json_t *ids = json_object_get(q->params, "remote_block_ids"), *id;
	bool good = json_array_size(ids) > 0;
	size_t i;

	json_array_foreach(ids, i, id) good = good && json_is_integer(id);
	if (!good)
		return api_refuse(refusal, 400, "remote_block_ids",
		    "kv_transfer_params.remote_block_ids must be an array of block ids.");
	key_of_blocks(ids, leg->key);
	return true;
}

static bool read_decode(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	json_int_t tp_size;

	return kv_expect_bool(q, "do_remote_decode", false, refusal) &&
	    kv_expect_text(q, "remote_engine_id", leg->engine_id, sizeof(leg->engine_id), refusal) &&
	    kv_expect_count(q, "tp_size", INT32_MAX, &tp_size, refusal) && kv_expect_peer(q, leg, refusal) &&
	    read_blocks(q, leg, refusal);
}

const struct kv_connector kv_nixl = {
	.name = "nixl",
	.has_params = true,
	.read_prefill = read_prefill,
	.read_decode = read_decode,
};
