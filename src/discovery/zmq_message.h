/*
 * zmq_message: what an engine says of itself on the discovery socket: that it is there, once in a while, in
 * a map of MessagePack, as vLLM's P2P NCCL and MoRIIO connectors send it.
 *
 * Pure; the slices point into the message. Unknown members are left alone, of one that is there twice the
 * last counts.
 */
#pragma once

#include "base/slice.h"

#define ZMQ_MESSAGE_BYTES_MAX 4096
#define ZMQ_SIZE_MAX          65535 /* of tp_size and dp_size */

/* MoRIIO's transfer_mode. */
enum zmq_mode { ZMQ_MODE_NONE, ZMQ_MODE_READ, ZMQ_MODE_WRITE };

struct zmq_message {
	bool is_prefill; /* type "P"; else it is "D" */
	enum zmq_mode mode;
	uint32_t tp_size, dp_size; /* 0: not said */
	struct slice http_host;    /* of http_address, without brackets */
	uint16_t http_port;
	struct slice zmq_address; /* host:port, as given */
};

/* NULL, or what is wrong with it, a sentence. */
const char *zmq_message_read(struct slice bytes, struct zmq_message *message_out);
