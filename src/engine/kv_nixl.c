/*
 * NIXL. Pull: the prefill's answer says where its blocks are, the decode brings that with it and
 * reads them from there. Push: the answer says only who the prefill is; whoever knows that may send a
 * decode at once, with the prefill's request id, and gets the blocks when they are complete.
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

static bool check_prefill(const struct kv_request *q, struct refusal *refusal) {
	static const char *const nulls[] = { "remote_engine_id", "remote_block_ids", "remote_host",
		"remote_port", NULL };
	return kv_expect_bool(q, "do_remote_prefill", false, refusal) && kv_expect_nulls(q, nulls, refusal);
}

/* Who this prefill is, for its answer. */
static json_t *identity(const struct kv_request *q) {
	char engine_id[KV_ENGINE_BYTES];

	kv_engine_id(q->rules, q->rank, engine_id);
	return json_pack("{s:b, s:b, s:s, s:s, s:i, s:i}", "do_remote_prefill", true, "do_remote_decode",
	    false, "remote_engine_id", engine_id, "remote_host", q->rules->host, "remote_port",
	    (int)q->rules->port, "tp_size", (int)q->rules->tp_size);
}

static bool check_decode(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	json_int_t tp_size;

	return kv_expect_bool(q, "do_remote_decode", false, refusal) &&
	    kv_expect_text(q, "remote_engine_id", leg->engine_id, sizeof(leg->engine_id), refusal) &&
	    kv_expect_count(q, "tp_size", INT32_MAX, &tp_size, refusal) && kv_expect_peer(q, leg, refusal);
}

/* --- pull ------------------------------------------------------------------------- */

static bool read_prefill(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	if (!check_prefill(q, refusal))
		return false;
	json_t *ids = kv_block_ids(q);
	key_of_blocks(ids, leg->key);
	leg->told = identity(q);
	json_object_set_new(leg->told, "remote_block_ids", ids);
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
	return check_decode(q, leg, refusal) && read_blocks(q, leg, refusal);
}

/* --- push ------------------------------------------------------------------------- */

static bool read_prefill_of_push(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	if (!check_prefill(q, refusal))
		return false;
	snprintf(leg->key, sizeof(leg->key), "%.*s", (int)q->id.n, q->id.p);
	leg->told = identity(q);
	json_object_set_new(leg->told, "transfer_mode", json_string("push"));
	json_object_set_new(leg->told, "remote_request_id", json_string(leg->key));
	return true;
}

static bool read_decode_of_push(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	leg->awaits_prefill = true;
	return check_decode(q, leg, refusal) &&
	    kv_expect_text(q, "remote_request_id", leg->key, sizeof(leg->key), refusal);
}

const struct kv_connector kv_nixl = {
	.name = "nixl",
	.has_params = true,
	.read_prefill = read_prefill,
	.read_decode = read_decode,
};

const struct kv_connector kv_nixl_push = {
	.name = "nixl_push",
	.has_params = true,
	.read_prefill = read_prefill_of_push,
	.read_decode = read_decode_of_push,
};
