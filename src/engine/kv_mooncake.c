/*
 * Mooncake: both legs are told the same transfer id; the decode also the prefill's bootstrap
 * server, and who answers there (GET /query).
 */
#include <stdio.h>

#include "engine/api.h"

#define ID_PREFIX SLICE("xfer-")

/* "xfer-" and a UUID. */
static bool read_id(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	if (!kv_expect_text(q, "transfer_id", leg->key, sizeof(leg->key), refusal))
		return false;
	struct slice id = slice_of(leg->key);
	bool good = slice_has_prefix(id, ID_PREFIX) && id.n == ID_PREFIX.n + 36;
	for (size_t i = 0; good && i < 36; i++) {
		char c = ascii_lower(id.p[ID_PREFIX.n + i]);
		bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
		good = is_dash ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
	}
	return good ||
	    api_refuse(
		refusal, 400, "transfer_id", "kv_transfer_params.transfer_id must be \"xfer-\" and a UUID.");
}

static bool read_prefill(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	return kv_expect_bool(q, "do_remote_prefill", false, refusal) && read_id(q, leg, refusal);
}

static bool read_decode(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	char address[KV_PEER_BYTES - 8];

	if (!kv_expect_bool(q, "do_remote_decode", false, refusal) || !read_id(q, leg, refusal) ||
	    !kv_expect_text(q, "remote_engine_id", leg->engine_id, sizeof(leg->engine_id), refusal) ||
	    !kv_expect_text(q, "remote_bootstrap_addr", address, sizeof(address), refusal))
		return false;
	struct slice authority = slice_of(address);
	if (slice_has_prefix(authority, SLICE("http://")))
		authority = slice_skip(authority, 7);
	snprintf(leg->peer, sizeof(leg->peer), "http://%.*s", (int)authority.n, authority.p);
	leg->awaits_prefill = true;
	return true;
}

const struct kv_connector kv_mooncake = {
	.name = "mooncake",
	.has_params = true,
	.read_prefill = read_prefill,
	.read_decode = read_decode,
};
