#include "engine/kv_addresses.h"

#include <stdio.h>

#include "base/text.h"
#include "engine/api.h"

#define PREFILL_MARK SLICE("___prefill_addr_")
#define DECODE_MARK  SLICE("___decode_addr_")
#define N_HEX        32

struct addresses {
	struct slice prefill, decode;
};

static bool is_hex(struct slice s) {
	for (size_t i = 0; i < s.n; i++)
		if (!(s.p[i] >= '0' && s.p[i] <= '9') && !(s.p[i] >= 'a' && s.p[i] <= 'f'))
			return false;
	return s.n == N_HEX;
}

static bool is_address(struct slice s) {
	struct slice host;
	uint16_t port;
	return text_authority(s, 0, &host, &port) && port != 0;
}

static bool split(struct slice id, struct addresses *a) {
	if (!slice_has_prefix(id, PREFILL_MARK))
		return false;
	id = slice_skip(id, PREFILL_MARK.n);
	const char *mark = id.n ? memmem(id.p, id.n, DECODE_MARK.p, DECODE_MARK.n) : NULL;
	if (!mark)
		return false;
	a->prefill = slice_head(id, (size_t)(mark - id.p));
	a->decode = slice_skip(id, a->prefill.n + DECODE_MARK.n);
	if (a->decode.n <= N_HEX + 1 || !is_hex(slice_skip(a->decode, a->decode.n - N_HEX)))
		return false;
	a->decode.n -= N_HEX + 1;
	return a->decode.p[a->decode.n] == '_' && is_address(a->prefill) && is_address(a->decode);
}

bool kv_addresses_read(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	struct addresses a;

	if (!split(q->id, &a))
		return api_refuse(refusal, 500, NULL,
		    "The request id does not contain the addresses of its prefill and its decode.");
	struct slice own = leg->part == KV_PREFILL ? a.prefill : a.decode;
	if (!slice_eq(own, slice_of(q->rules->zmq_address)))
		return api_refuse(refusal, 500, NULL, "The request id has %.*s for this %s, which is %s.",
		    (int)size_min(own.n, 64), own.p, kv_part_name(leg->part), q->rules->zmq_address);
	if (a.prefill.n + 8 > sizeof(leg->peer) || q->id.n >= sizeof(leg->key))
		return api_refuse(refusal, 500, NULL, "The request id is too long.");
	snprintf(leg->peer, sizeof(leg->peer), "http://%.*s", (int)a.prefill.n, a.prefill.p);
	return true;
}
