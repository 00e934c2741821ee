/*
 * zmq_inbox: what ZeroMQ peers (DEALER, REQ) send to a listening socket, message by message.
 *
 * A ROUTER socket of libzmq, whose own thread talks to the peers; what it has received is taken on the
 * loop's thread, a bounded number of messages at a time with a pause before more, so that a flood costs
 * little and nobody else waits for it. Of each peer ZMQ_INBOX_PEER_MESSAGES may wait; whoever sends a longer
 * part than allowed loses the connection. Nothing is ever answered.
 *
 * libzmq holds a message until its last part has come and knows no limit for the number of parts, nor for
 * that of peers: the socket is for a network that is trusted not to starve us (docs/threat-model.md).
 */
#pragma once

#include "net/fd_event.h"

#define ZMQ_INBOX_PEER_MESSAGES 16

struct zmq_inbox {
	struct loop *loop;
	void *context, *socket; /* libzmq's; NULL: not open */
	struct fd_event event;
	struct job job;
	struct timer pause;
	/* Of one part, or two of which the first is empty; else empty. Valid during the call, which may close
	 * the inbox. */
	void (*on_message)(struct zmq_inbox *b, struct slice message);
};

/* Takes the listening socket, also when it fails; on_message is the owner's, set before. 0 or -errno. */
must_use int zmq_inbox_open(struct zmq_inbox *b, struct loop *loop, int fd, size_t part_bytes_max);

/* Ends all connections. May be called twice, and for a zeroed one. */
void zmq_inbox_close(struct zmq_inbox *b);
