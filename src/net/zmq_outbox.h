/*
 * zmq_outbox: messages to one ZeroMQ peer (ROUTER) at host:port, that need not arrive.
 *
 * A DEALER socket of libzmq, whose own thread resolves the name, connects, and connects again for as long as
 * it takes. One message waits for the connection, a further one is dropped; so is whatever the peer sends.
 * No call blocks. One thread; owns its context.
 */
#pragma once

#include "base/slice.h"

struct zmq_outbox {
	void *context, *socket; /* libzmq's; NULL: not open */
};

/* `identity`, 1 to 255 bytes, is what the peer knows us by. 0 or -errno. */
must_use int zmq_outbox_open(struct zmq_outbox *b, const char *address, const char *identity);

/* As one part. False: it was dropped. */
bool zmq_outbox_send(struct zmq_outbox *b, struct slice message);

/* What waits is dropped. May be called twice, and for a zeroed one. */
void zmq_outbox_close(struct zmq_outbox *b);
