#include "router/split_wire.h"

#include <inttypes.h>
#include <stdio.h>

#define MOONCAKE_PORT 8998u /* of its bootstrap server, when nobody says another */
#define HEX_BYTES     33u
#define PORT_BYTES    6u
#define ROOM_BYTES    20u

/* Behind what the room has. What does not fit makes it all useless. */
static void put(struct split_wire *w, struct slice text) {
	size_t left = sizeof(w->room) - w->used;

	if (text.n >= left) {
		w->used = sizeof(w->room);
		return;
	}
	memcpy(w->room + w->used, text.n ? text.p : "", text.n);
	w->used += text.n;
}

static void put_uint(struct split_wire *w, uint64_t n) {
	char digits[21];
	int n_digits = snprintf(digits, sizeof(digits), "%" PRIu64, n);

	put(w, (struct slice){ digits, (size_t)n_digits });
}

/* What was put since there were `from` bytes. */
static struct slice put_since(const struct split_wire *w, size_t from) {
	return (struct slice){ w->room + from, w->used - from };
}

static struct slice zmq_address(const struct split_end *end) {
	return end->kv.zmq_address.n ? end->kv.zmq_address : end->authority;
}

static uint32_t size_of(uint32_t said) {
	return said ? said : 1;
}

/* --- MoRIIO ------------------------------------------------------------------------------------- */

/* Members about the other side, behind those that all have. */
static void put_remote(struct split_wire *w, const struct split_end *remote, const char *hex, bool has_tp) {
	uint32_t dp_size = size_of(remote->kv.dp_size);

	put(w, SLICE("\"remote_engine_id\":null,\"remote_block_ids\":null,\"transfer_id\":\"tx-"));
	put(w, slice_of(hex));
	put(w, SLICE("\",\"remote_dp_size\":"));
	put_uint(w, dp_size);
	if (has_tp) {
		put(w, SLICE(",\"remote_tp_size\":"));
		put_uint(w, size_of(remote->kv.tp_size));
	}
	if (dp_size > 1) {
		put(w, SLICE(",\"remote_dp_rank\":"));
		put_uint(w, remote->rank);
	}
	put(w, SLICE("}"));
}

static void make_moriio(
    struct split_wire *w, const struct split_end *prefill, const struct split_end *decode, const char *hex) {
	bool writes = prefill->kv.mode == KV_MODE_WRITE;
	size_t from = w->used;

	put(w, SLICE("{\"do_remote_decode\":true,\"do_remote_prefill\":false,"));
	put_remote(w, decode, hex, writes);
	w->prefill_params = put_since(w, from);
	w->is_concurrent = writes;
	w->takes_answer = !writes;
	from = w->used;
	if (!writes) {
		put(w, SLICE("{\"remote_dp_size\":"));
		put_uint(w, size_of(prefill->kv.dp_size));
		put(w, SLICE(","));
		w->decode_lead = put_since(w, from);
		return;
	}
	put(w, SLICE("{\"do_remote_prefill\":true,\"do_remote_decode\":false,"));
	put_remote(w, prefill, hex, true);
	w->decode_params = put_since(w, from);
}

/* --- the others ----------------------------------------------------------------------------------- */

/* What the decode of a prefill that pushes is told: values are JSON as the prefill wrote them. */
static void make_push(struct split_wire *w, const struct split_push *push) {
	size_t from = w->used;

	put(w, SLICE("{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_engine_id\":"));
	put(w, push->engine);
	put(w, SLICE(",\"remote_host\":"));
	put(w, push->host);
	put(w, SLICE(",\"remote_port\":"));
	put(w, push->port);
	put(w, SLICE(",\"tp_size\":"));
	put(w, push->tp_size);
	put(w, SLICE(",\"remote_request_id\":\""));
	put(w, w->id);
	put(w, SLICE("\"}"));
	w->decode_params = put_since(w, from);
	w->is_concurrent = true;
}

static void make_nixl(struct split_wire *w, const struct split_push *push) {
	w->prefill_params = SLICE("{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
				  "\"remote_engine_id\":null,\"remote_block_ids\":null,"
				  "\"remote_host\":null,\"remote_port\":null}");
	w->takes_answer = !push;
	if (push)
		make_push(w, push);
}

/* As "host:port", with the brackets of IPv6. */
static void put_address(struct split_wire *w, const struct split_end *end, unsigned port) {
	bool is_v6 = memchr(end->host.p, ':', end->host.n);

	put(w, is_v6 ? SLICE("[") : SLICE(""));
	put(w, end->host);
	put(w, is_v6 ? SLICE("]:") : SLICE(":"));
	put_uint(w, port);
}

static bool make_mooncake(struct split_wire *w, const struct split_end *prefill, const char *hex) {
	unsigned port = prefill->kv.bootstrap_port ? prefill->kv.bootstrap_port : MOONCAKE_PORT;
	char uuid[37];
	size_t from = w->used;

	if (!prefill->engine.n)
		return false;
	snprintf(uuid, sizeof(uuid), "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
	put(w, SLICE("{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"transfer_id\":\"xfer-"));
	put(w, slice_of(uuid));
	put(w, SLICE("\"}"));
	w->prefill_params = put_since(w, from);
	from = w->used;
	put(w, SLICE("{\"do_remote_decode\":false,\"do_remote_prefill\":true,\"transfer_id\":\"xfer-"));
	put(w, slice_of(uuid));
	put(w, SLICE("\",\"remote_bootstrap_addr\":\"http://"));
	put_address(w, prefill, port);
	put(w, SLICE("\",\"remote_engine_id\":\""));
	put(w, prefill->engine);
	put(w, SLICE("\"}"));
	w->decode_params = put_since(w, from);
	return true;
}

size_t split_wire_batch_bytes(const struct split_end *prefill, uint32_t n_batch) {
	return 6 + n_batch * (prefill->host.n + 3 + PORT_BYTES + ROOM_BYTES + 1);
}

static uint64_t meeting_room(const struct split_secret *secret, uint32_t i) {
	return (secret->words[0] + i) & INT64_MAX;
}

/* The same text for each prompt of a list. */
static struct slice repeat(char **at, struct slice text, uint32_t n) {
	char *from = *at;

	for (uint32_t i = 0; i < n; i++) {
		*(*at)++ = i ? ',' : '[';
		memcpy(*at, text.p, text.n);
		*at += text.n;
	}
	*(*at)++ = ']';
	return (struct slice){ from, (size_t)(*at - from) };
}

static struct slice list_rooms(char *at, const struct split_secret *secret, uint32_t n) {
	char *from = at;

	for (uint32_t i = 0; i < n; i++)
		at += snprintf(at, ROOM_BYTES + 1, "%c%" PRIu64, i ? ',' : '[', meeting_room(secret, i));
	*at++ = ']';
	return (struct slice){ from, (size_t)(at - from) };
}

static void make_sglang(struct split_wire *w, const struct split_end *prefill,
    const struct split_secret *secret, uint32_t n_batch, char *room) {
	struct split_bootstrap *b = &w->bootstrap;
	size_t from = w->used;

	w->is_concurrent = true;
	put(w, SLICE("\""));
	put(w, prefill->host);
	put(w, SLICE("\""));
	b->host = put_since(w, from);
	from = w->used;
	if (prefill->kv.bootstrap_port)
		put_uint(w, prefill->kv.bootstrap_port);
	else
		put(w, SLICE("null"));
	b->port = put_since(w, from);
	from = w->used;
	put_uint(w, meeting_room(secret, 0));
	b->room = put_since(w, from);
	if (!n_batch)
		return;
	b->host = repeat(&room, b->host, n_batch);
	b->port = repeat(&room, b->port, n_batch);
	b->room = list_rooms(room, secret, n_batch);
}

/* The id of the request, which says to both where the other one is. */
static void make_id(
    struct split_wire *w, const struct split_end *prefill, const struct split_end *decode, const char *hex) {
	put(w, SLICE("___prefill_addr_"));
	put(w, zmq_address(prefill));
	put(w, SLICE("___decode_addr_"));
	put(w, zmq_address(decode));
	put(w, SLICE("_"));
	put(w, slice_of(hex));
	w->id = put_since(w, 0);
}

bool split_wire_make(struct split_wire *w, enum connector connector, const struct split_end *prefill,
    const struct split_end *decode, const struct split_secret *secret, const struct split_push *push,
    uint32_t n_batch, char *room) {
	char hex[HEX_BYTES];

	memset(w, 0, offsetof(struct split_wire, room));
	snprintf(hex, sizeof(hex), "%016" PRIx64 "%016" PRIx64, secret->words[0], secret->words[1]);
	if (connector != CONNECTOR_SGLANG)
		make_id(w, prefill, decode, hex);
	switch (connector) {
	case CONNECTOR_MOONCAKE:
		if (!make_mooncake(w, prefill, hex))
			return false;
		break;
	case CONNECTOR_MORIIO:
		make_moriio(w, prefill, decode, hex);
		break;
	case CONNECTOR_P2P_NCCL:
		break;
	case CONNECTOR_SGLANG:
		if (n_batch > SPLIT_BATCH_MAX)
			return false;
		make_sglang(w, prefill, secret, n_batch, room);
		break;
	default:
		make_nixl(w, push);
	}
	return w->used < sizeof(w->room);
}
