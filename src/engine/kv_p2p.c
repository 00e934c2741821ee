/* P2P NCCL: the request id, which both legs have, says who they are and which blocks they mean. */
#include <stdio.h>

#include "engine/kv_addresses.h"

static bool read_leg(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	if (!kv_addresses_read(q, leg, refusal))
		return false;
	leg->awaits_prefill = leg->part == KV_DECODE;
	snprintf(leg->key, sizeof(leg->key), "%.*s", (int)q->id.n, q->id.p);
	return true;
}

const struct kv_connector kv_p2p = {
	.name = "p2p_nccl",
	.has_address = true,
	.read_prefill = read_leg,
	.read_decode = read_leg,
};
