/*
 * announcer: tells a router's discovery socket once a second that this engine is there, as vLLM's P2P NCCL
 * and MoRIIO connectors do: a map of MessagePack over ZeroMQ, that nobody answers
 * (docs/prefill-decode.md).
 *
 * Zeroed memory is an announcer that was never opened. The loop outlives it. One thread, the loop's.
 */
#pragma once

#include "net/loop.h"
#include "net/zmq_outbox.h"

#define ANNOUNCER_BYTES_MAX 1024u

struct announcer {
	struct loop *loop; /* NULL: not open */
	struct zmq_outbox outbox;
	struct timer timer;
	size_t n;
	char message[ANNOUNCER_BYTES_MAX];
};

/* What is said. Texts are needed during announcer_open() alone. */
struct announcement {
	bool is_prefill; /* else it decodes */
	const char *http_address, *zmq_address;
	const char *transfer_mode; /* MoRIIO's, which tells its sizes as well; else NULL */
	uint32_t tp_size, dp_size; /* 1 to 65535 */
};

/* To `address`, host:port; begins at once. 0 or -errno. */
must_use int announcer_open(
    struct announcer *a, struct loop *loop, const char *address, const struct announcement *said);

/* May be called twice. */
void announcer_close(struct announcer *a);
