#include "router/split_wire.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define MOONCAKE_PORT 8998u /* of its bootstrap server, when nobody says another */
#define HEX_BYTES     33u
#define PORT_BYTES    6u
#define ROOM_BYTES    20u

/* The next text of the room. What does not fit makes it all useless. */
__attribute__((format(printf, 2, 3))) static struct slice print(
    struct split_wire *w, const char *format, ...) {
	size_t left = sizeof(w->room) - w->used;
	char *at = w->room + w->used;
	va_list args;

	va_start(args, format);
	int n = vsnprintf(at, left, format, args);
	va_end(args);
	w->used = n >= 0 && (size_t)n < left ? w->used + (size_t)n : sizeof(w->room);
	return (struct slice){ at, n > 0 ? (size_t)n : 0 };
}

#define TEXT(s) (int)(s).n, (s).p

static struct slice zmq_address(const struct split_end *end) {
	return end->kv.zmq_address.n ? end->kv.zmq_address : end->authority;
}

static uint32_t size_of(uint32_t said) {
	return said ? said : 1;
}

/* --- MoRIIO ------------------------------------------------------------------------------------- */

/* Members about the other side, behind those that all have. */
static void print_remote(struct split_wire *w, const struct split_end *remote, const char *hex, bool has_tp) {
	uint32_t dp_size = size_of(remote->kv.dp_size);

	(void)print(w,
	    "\"remote_engine_id\":null,\"remote_block_ids\":null,\"transfer_id\":\"tx-%s\",\"remote_dp_"
	    "size\":%" PRIu32,
	    hex, dp_size);
	if (has_tp)
		(void)print(w, ",\"remote_tp_size\":%" PRIu32, size_of(remote->kv.tp_size));
	if (dp_size > 1)
		(void)print(w, ",\"remote_dp_rank\":%u", remote->rank);
	(void)print(w, "}");
}

static void make_moriio(
    struct split_wire *w, const struct split_end *prefill, const struct split_end *decode, const char *hex) {
	bool writes = prefill->kv.mode == KV_MODE_WRITE;
	char *from = w->room + w->used;

	(void)print(w, "{\"do_remote_decode\":true,\"do_remote_prefill\":false,");
	print_remote(w, decode, hex, writes);
	w->prefill_params = (struct slice){ from, (size_t)(w->room + w->used - from) };
	w->is_concurrent = writes;
	w->takes_answer = !writes;
	if (!writes) {
		w->decode_lead = print(w, "{\"remote_dp_size\":%" PRIu32 ",", size_of(prefill->kv.dp_size));
		return;
	}
	from = w->room + w->used;
	(void)print(w, "{\"do_remote_prefill\":true,\"do_remote_decode\":false,");
	print_remote(w, prefill, hex, true);
	w->decode_params = (struct slice){ from, (size_t)(w->room + w->used - from) };
}

/* --- the others ----------------------------------------------------------------------------------- */

static void make_nixl(struct split_wire *w, const struct split_push *push) {
	w->prefill_params = SLICE("{\"do_remote_decode\":true,\"do_remote_prefill\":false,"
				  "\"remote_engine_id\":null,\"remote_block_ids\":null,"
				  "\"remote_host\":null,\"remote_port\":null}");
	w->takes_answer = !push;
	w->is_concurrent = push != NULL;
	if (push)
		w->decode_params = print(w,
		    "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_engine_id\":%.*s,"
		    "\"remote_host\":%.*s,\"remote_port\":%.*s,\"tp_size\":%.*s,\"remote_request_id\":\"%.*"
		    "s\"}",
		    TEXT(push->engine), TEXT(push->host), TEXT(push->port), TEXT(push->tp_size), TEXT(w->id));
}

/* As "host:port", with the brackets of IPv6. */
static struct slice print_address(struct split_wire *w, const struct split_end *end, unsigned port) {
	bool is_v6 = memchr(end->host.p, ':', end->host.n);

	return print(w, "%s%.*s%s:%u", is_v6 ? "[" : "", TEXT(end->host), is_v6 ? "]" : "", port);
}

static bool make_mooncake(struct split_wire *w, const struct split_end *prefill, const char *hex) {
	unsigned port = prefill->kv.bootstrap_port ? prefill->kv.bootstrap_port : MOONCAKE_PORT;
	char uuid[37];

	if (!prefill->engine.n)
		return false;
	snprintf(uuid, sizeof(uuid), "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
	w->prefill_params = print(
	    w, "{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"transfer_id\":\"xfer-%s\"}", uuid);
	struct slice address = print_address(w, prefill, port);
	w->decode_params = print(w,
	    "{\"do_remote_decode\":false,\"do_remote_prefill\":true,\"transfer_id\":\"xfer-%s\","
	    "\"remote_bootstrap_addr\":\"http://%.*s\",\"remote_engine_id\":\"%.*s\"}",
	    uuid, TEXT(address), TEXT(prefill->engine));
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

	w->is_concurrent = true;
	b->host = print(w, "\"%.*s\"", TEXT(prefill->host));
	b->port = prefill->kv.bootstrap_port ? print(w, "%u", prefill->kv.bootstrap_port) : SLICE("null");
	b->room = print(w, "%" PRIu64, meeting_room(secret, 0));
	if (!n_batch)
		return;
	b->host = repeat(&room, b->host, n_batch);
	b->port = repeat(&room, b->port, n_batch);
	b->room = list_rooms(room, secret, n_batch);
}

bool split_wire_make(struct split_wire *w, enum connector connector, const struct split_end *prefill,
    const struct split_end *decode, const struct split_secret *secret, const struct split_push *push,
    uint32_t n_batch, char *room) {
	char hex[HEX_BYTES];

	memset(w, 0, offsetof(struct split_wire, room));
	snprintf(hex, sizeof(hex), "%016" PRIx64 "%016" PRIx64, secret->words[0], secret->words[1]);
	if (connector != CONNECTOR_SGLANG)
		w->id = print(w, "___prefill_addr_%.*s___decode_addr_%.*s_%s", TEXT(zmq_address(prefill)),
		    TEXT(zmq_address(decode)), hex);
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
