/*
 * zmq_source: engines that announce themselves on a ZeroMQ socket, as vLLM's P2P NCCL and MoRIIO connectors
 * do with its router (discovery/zmq_message.h).
 *
 * Each message is a lease of ZMQ_LEASE_MS: who says nothing for so long leaves the fleet, and what it had
 * keeps running. While nobody listens, before zmq_source_listen() and after zmq_source_leave(), no lease
 * ends; nor does the time count in which this process stood still. What engines say becomes labels: role,
 * zmq_address, kv_connector, tp_size, dp_size, kv_mode. All MoRIIO engines transfer in one mode, that of the
 * first: others are refused until the last of them has left.
 *
 * At most ZMQ_WORKERS_MAX are known at a time. What is bad or too much is counted, and in the log once a
 * second at most. Control thread; `on_change`, once for all that a turn has brought, asks the owner for a
 * snapshot.
 */
#pragma once

#include "discovery/zmq_message.h"
#include "fleet/fleet.h"
#include "net/zmq_inbox.h"

#define ZMQ_LEASE_MS    5000u
#define ZMQ_WORKERS_MAX 1024u

enum zmq_outcome {
	ZMQ_GOOD,
	ZMQ_BAD,     /* makes no sense */
	ZMQ_REFUSED, /* no room, or of another mode than the others */
	ZMQ_OUTCOMES,
};

/* The word that metrics use. */
const char *zmq_outcome_text(enum zmq_outcome outcome);

struct zmq_worker;

struct zmq_source {
	struct loop *loop;
	struct fleet *fleet;
	char connector[16]; /* of who names no transfer_mode */
	struct zmq_inbox inbox;
	struct zmq_worker *workers; /* by url */
	uint32_t n_prefill, n_decode, n_moriio;
	enum zmq_mode mode;          /* while n_moriio */
	bool is_mode_said;           /* in the log: somebody had another one */
	uint64_t ticked_ms, said_ms; /* 0: never */
	uint64_t counts[ZMQ_OUTCOMES];
	struct timer tick;
	struct job change;
	void (*on_change)(struct zmq_source *s);
};

void zmq_source_init(struct zmq_source *s, struct loop *loop, struct fleet *fleet, const char *connector,
    void (*on_change)(struct zmq_source *s));
void zmq_source_deinit(struct zmq_source *s);

/* Takes the listening socket, also when it fails. All leases begin anew. 0 or -errno. */
must_use int zmq_source_listen(struct zmq_source *s, int fd);

/* Another process listens from now on: engines come to it by themselves. */
void zmq_source_leave(struct zmq_source *s);

/* What is known, for zmq_source_restore() in another process: a descriptor, the caller's, or -errno. */
must_use int zmq_source_keep(const struct zmq_source *s);
/* Takes the descriptor. Before zmq_source_listen(). */
void zmq_source_restore(struct zmq_source *s, int fd);
