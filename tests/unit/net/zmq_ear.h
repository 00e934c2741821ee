/*
 * zmq_ear: an inbox that remembers the last message it was given, on a rig.
 *
 * Peers may connect from zmq_ear_open() on; they are heard from zmq_ear_listen() on.
 */
#pragma once

#include "unit/net/rig.h"

#include "net/zmq_inbox.h"

struct zmq_ear {
	struct rig rig;
	struct zmq_inbox inbox;
	char address[32]; /* host:port */
	char heard[4096];
	size_t n_heard;
	unsigned n; /* messages */
};

static inline void zmq_ear_on_message(struct zmq_inbox *b, struct slice message) {
	struct zmq_ear *e = container_of(b, struct zmq_ear, inbox);

	assert_true(message.n <= sizeof(e->heard));
	memcpy(e->heard, message.p, message.n);
	e->n_heard = message.n;
	e->n++;
}

/* Returns the listening socket, for zmq_ear_listen(). */
static inline int zmq_ear_open(struct zmq_ear *e) {
	uint16_t port;

	*e = (struct zmq_ear){ .n = 0 };
	rig_open(&e->rig);
	e->inbox.on_message = zmq_ear_on_message;
	int fd = rig_listen(&port);
	snprintf(e->address, sizeof(e->address), "127.0.0.1:%u", port);
	return fd;
}

static inline void zmq_ear_listen(struct zmq_ear *e, int fd) {
	assert_int_equal(zmq_inbox_open(&e->inbox, &e->rig.loop, fd, sizeof(e->heard)), 0);
}

static inline struct slice zmq_ear_heard(const struct zmq_ear *e) {
	return (struct slice){ e->heard, e->n_heard };
}

static inline void zmq_ear_close(struct zmq_ear *e) {
	zmq_inbox_close(&e->inbox);
	rig_close(&e->rig);
}
