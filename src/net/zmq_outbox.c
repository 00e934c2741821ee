#include "net/zmq_outbox.h"

#include <errno.h>
#include <stdio.h>

#include <zmq.h>

#define ENDPOINT_BYTES 512
#define HEARD_BYTES    512 /* more than a handshake; nothing else is to come */

static bool outbox_set(struct zmq_outbox *b, int option, int value) {
	return zmq_setsockopt(b->socket, option, &value, sizeof(value)) == 0;
}

/* With ZMQ_IPV6 names would be looked up for IPv6 alone. */
static bool outbox_configure(struct zmq_outbox *b, const char *address, const char *identity) {
	int64_t bytes = HEARD_BYTES;

	return zmq_setsockopt(b->socket, ZMQ_ROUTING_ID, identity, strlen(identity)) == 0 &&
	    zmq_setsockopt(b->socket, ZMQ_MAXMSGSIZE, &bytes, sizeof(bytes)) == 0 &&
	    outbox_set(b, ZMQ_SNDHWM, 1) && outbox_set(b, ZMQ_RCVHWM, 1) && outbox_set(b, ZMQ_LINGER, 0) &&
	    outbox_set(b, ZMQ_IPV6, address[0] == '[');
}

static bool outbox_connect(struct zmq_outbox *b, const char *address) {
	char endpoint[ENDPOINT_BYTES];
	int n = snprintf(endpoint, sizeof(endpoint), "tcp://%s", address);

	if (n >= 0 && (size_t)n < sizeof(endpoint))
		return zmq_connect(b->socket, endpoint) == 0;
	errno = ENAMETOOLONG;
	return false;
}

int zmq_outbox_open(struct zmq_outbox *b, const char *address, const char *identity) {
	b->context = zmq_ctx_new();
	b->socket = b->context ? zmq_socket(b->context, ZMQ_DEALER) : NULL;
	if (b->socket && outbox_configure(b, address, identity) && outbox_connect(b, address))
		return 0;
	int r = -zmq_errno();
	zmq_outbox_close(b);
	return r;
}

bool zmq_outbox_send(struct zmq_outbox *b, struct slice message) {
	return zmq_send(b->socket, message.p, message.n, ZMQ_DONTWAIT) >= 0;
}

void zmq_outbox_close(struct zmq_outbox *b) {
	if (b->socket)
		zmq_close(b->socket);
	b->socket = NULL;
	while (b->context && zmq_ctx_term(b->context) != 0 && zmq_errno() == EINTR)
		;
	b->context = NULL;
}
