/*
 * fuzz_zmq_message: anybody says anything on the discovery socket. What is taken is fit for heads and urls,
 * and values end where they are said to end.
 */
#include "base/msgpack.h"
#include "base/text.h"
#include "discovery/zmq_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_text(struct slice text) {
	assert(text.n && text.n <= ZMQ_MESSAGE_BYTES_MAX);
	for (size_t i = 0; i < text.n; i++)
		assert(text.p[i] > ' ' && text.p[i] != 0x7f);
}

static void check_message(const struct zmq_message *m) {
	struct slice host;
	uint16_t port;

	check_text(m->http_host);
	check_text(m->zmq_address);
	assert(m->http_port && text_is_host(m->http_host) && !text_is_wildcard(m->http_host));
	assert(text_authority(m->zmq_address, 0, &host, &port) && port);
	assert(m->tp_size <= ZMQ_SIZE_MAX && m->dp_size <= ZMQ_SIZE_MAX);
}

/* One after the other until the first that is none; each alone says the same. */
static void skip_values(struct slice rest) {
	struct slice whole, alone, again;

	while (msgpack_skip(&rest, &whole)) {
		assert(whole.n && whole.p + whole.n == rest.p);
		alone = whole;
		assert(msgpack_skip(&alone, &again) && !alone.n && again.n == whole.n);
		alone = slice_head(whole, whole.n - 1);
		assert(!msgpack_skip(&alone, &again));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	struct slice bytes = { (const char *)data, n };
	struct zmq_message m;

	if (n > ZMQ_MESSAGE_BYTES_MAX)
		return 0;
	if (!zmq_message_read(bytes, &m))
		check_message(&m);
	skip_values(bytes);
	return 0;
}
