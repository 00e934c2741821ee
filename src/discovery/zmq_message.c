#include "discovery/zmq_message.h"

#include "base/msgpack.h"
#include "base/text.h"

static bool is_text(const struct msgpack *v) {
	return v->type == MSGPACK_TEXT;
}

static bool read_type(struct zmq_message *m, const struct msgpack *v) {
	m->is_prefill = is_text(v) && slice_eq(v->text, SLICE("P"));
	return m->is_prefill || (is_text(v) && slice_eq(v->text, SLICE("D")));
}

/* An address of all of a machine leads each router to its own. */
static bool read_address(const struct msgpack *v, struct slice *host_out, uint16_t *port_out) {
	return is_text(v) && text_authority(v->text, 0, host_out, port_out) && *port_out &&
	    !text_is_wildcard(*host_out);
}

static bool read_http_address(struct zmq_message *m, const struct msgpack *v) {
	return read_address(v, &m->http_host, &m->http_port);
}

static bool read_zmq_address(struct zmq_message *m, const struct msgpack *v) {
	struct slice host;
	uint16_t port;

	m->zmq_address = v->text;
	return read_address(v, &host, &port);
}

static bool read_mode(struct zmq_message *m, const struct msgpack *v) {
	bool is_read = is_text(v) && slice_is(v->text, SLICE("read"));

	m->mode = is_read ? ZMQ_MODE_READ : ZMQ_MODE_WRITE;
	return is_read || (is_text(v) && slice_is(v->text, SLICE("write")));
}

static bool read_size(uint32_t *size, const struct msgpack *v) {
	*size = (uint32_t)v->n;
	return v->type == MSGPACK_UINT && v->n > 0 && v->n <= ZMQ_SIZE_MAX;
}

static bool read_tp_size(struct zmq_message *m, const struct msgpack *v) {
	return read_size(&m->tp_size, v);
}

static bool read_dp_size(struct zmq_message *m, const struct msgpack *v) {
	return read_size(&m->dp_size, v);
}

static const struct {
	const char *name;
	bool (*read)(struct zmq_message *m, const struct msgpack *v);
	const char *mistake; /* also when a required one is not there */
	bool is_required;
} members[] = {
	{ "type", read_type, "its type is neither P nor D", true },
	{ "http_address", read_http_address, "its http_address is not that of one host and a port", true },
	{ "zmq_address", read_zmq_address, "its zmq_address is not that of one host and a port", true },
	{ "transfer_mode", read_mode, "its transfer_mode is neither read nor write", false },
	{ "tp_size", read_tp_size, "its tp_size is no number from 1 to 65535", false },
	{ "dp_size", read_dp_size, "its dp_size is no number from 1 to 65535", false },
};

static size_t find_member(const struct msgpack *key) {
	size_t i = 0;

	while (i < n_elems(members) && !(is_text(key) && slice_eq(key->text, slice_of(members[i].name))))
		i++;
	return i;
}

/* One key and its value. */
static const char *read_member(struct zmq_message *m, struct slice *rest, unsigned *seen) {
	struct slice key_bytes, value_bytes;
	struct msgpack key, value;

	if (!msgpack_skip(rest, &key_bytes) || !msgpack_skip(rest, &value_bytes) ||
	    !msgpack_next(&key_bytes, &key) || !msgpack_next(&value_bytes, &value))
		return "it is cut or malformed";
	size_t i = find_member(&key);
	if (i == n_elems(members) || (value.type == MSGPACK_NIL && !members[i].is_required))
		return NULL;
	*seen |= 1u << i;
	return members[i].read(m, &value) ? NULL : members[i].mistake;
}

const char *zmq_message_read(struct slice bytes, struct zmq_message *message_out) {
	struct msgpack map;
	unsigned seen = 0;

	*message_out = (struct zmq_message){ .mode = ZMQ_MODE_NONE };
	if (!msgpack_next(&bytes, &map) || map.type != MSGPACK_MAP)
		return "it is no map of MessagePack";
	for (uint64_t i = 0; i < map.n / 2; i++) {
		const char *mistake = read_member(message_out, &bytes, &seen);

		if (mistake)
			return mistake;
	}
	if (bytes.n)
		return "there is more behind it";
	for (size_t i = 0; i < n_elems(members); i++)
		if (members[i].is_required && !(seen >> i & 1))
			return members[i].mistake;
	return NULL;
}
