/*
 * MoRIIO: a transfer id, and each leg is told the other one's sizes. In read mode the prefill's
 * answer says where its blocks are; in write mode both legs start at once, and the request id says
 * who they are.
 */
#include <stdio.h>

#include "engine/api.h"
#include "engine/kv_addresses.h"

#define ID_PREFIX SLICE("tx-")
#define N_HEX     32

static bool read_id(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	if (!kv_expect_text(q, "transfer_id", leg->key, sizeof(leg->key), refusal))
		return false;
	struct slice id = slice_of(leg->key);
	if (slice_has_prefix(id, ID_PREFIX) && id.n == ID_PREFIX.n + N_HEX &&
	    strspn(id.p + ID_PREFIX.n, "0123456789abcdef") == N_HEX)
		return true;
	return api_refuse(
	    refusal, 400, "transfer_id", "kv_transfer_params.transfer_id must be \"tx-\" and 32 hex digits.");
}

/* remote_dp_size, and which rank of them the other leg is where there are several. */
static bool read_ranks(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	json_int_t n_ranks, rank = 0;

	if (!kv_expect_count(q, "remote_dp_size", UINT16_MAX, &n_ranks, refusal))
		return false;
	if (n_ranks < 1)
		return api_refuse(
		    refusal, 400, "remote_dp_size", "kv_transfer_params.remote_dp_size must be at least 1.");
	if (n_ranks > 1 && !kv_expect_count(q, "remote_dp_rank", n_ranks - 1, &rank, refusal))
		return false;
	leg->has_peer_rank = true;
	leg->peer_rank = (uint32_t)rank;
	return true;
}

static bool expect_nulls(const struct kv_request *q, struct refusal *refusal) {
	static const char *const nulls[] = { "remote_engine_id", "remote_block_ids", NULL };
	return kv_expect_nulls(q, nulls, refusal);
}

static bool read_sizes(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	json_int_t tp_size;

	return read_id(q, leg, refusal) && read_ranks(q, leg, refusal) &&
	    (!q->rules->writes || kv_expect_count(q, "remote_tp_size", UINT16_MAX, &tp_size, refusal)) &&
	    kv_addresses_read(q, leg, refusal);
}

static bool read_prefill(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	char engine_id[KV_ENGINE_BYTES];

	if (!kv_expect_bool(q, "do_remote_prefill", false, refusal) || !expect_nulls(q, refusal) ||
	    !read_sizes(q, leg, refusal))
		return false;
	if (q->rules->writes)
		return true;
	kv_engine_id(q->rules, q->rank, engine_id);
	leg->told = json_pack("{s:b, s:b, s:s, s:o, s:s, s:i, s:i, s:s, s:i}", "do_remote_prefill", true,
	    "do_remote_decode", false, "remote_engine_id", engine_id, "remote_block_ids", kv_block_ids(q),
	    "remote_host", q->rules->host, "remote_port", (int)q->rules->port, "tp_size",
	    (int)q->rules->tp_size, "transfer_id", leg->key, "remote_dp_rank", (int)q->rank);
	return true;
}

static bool read_decode(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	if (!kv_expect_bool(q, "do_remote_decode", false, refusal) || !read_sizes(q, leg, refusal))
		return false;
	leg->awaits_prefill = q->rules->writes;
	if (q->rules->writes)
		return expect_nulls(q, refusal);
	return kv_expect_text(q, "remote_engine_id", leg->engine_id, sizeof(leg->engine_id), refusal) &&
	    kv_expect_peer(q, leg, refusal);
}

const struct kv_connector kv_moriio = {
	.name = "moriio",
	.has_address = true,
	.has_params = true,
	.read_prefill = read_prefill,
	.read_decode = read_decode,
};
