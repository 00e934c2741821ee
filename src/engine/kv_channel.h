/*
 * kv_channel: a prefill's side channel: a port of its own where decodes come for the blocks
 * that they were told of. Stands for RDMA, NCCL and the bootstrap servers of the real ones.
 *
 *     POST /mock/kv/fetch {"key","prompt","engine_id"?,"rank"?,"wait"?}   200: given away, once
 *     GET /query                                                  Mooncake: {"0":{"engine_id"}}
 *
 * With "wait" a decode is answered when the prefill has come to an end, or after the time
 * for which blocks are kept; otherwise at once. Who waits has a connection, which bounds them.
 * The rules and the loop outlive it. One thread, the loop's.
 */
#pragma once

#include "engine/kv_table.h"
#include "http/endpoint.h"

struct kv_channel {
	const struct kv_rules *rules;
	struct loop *loop;
	struct kv_table *table;
	uint64_t ttl_ms;
	struct endpoint_server server;
	struct list askers;
	void (*on_asked)(struct kv_channel *c); /* somebody has come; may be NULL */
};

/* The table alone, which needs no socket. */
void kv_channel_init(struct kv_channel *c, const struct kv_rules *rules, uint64_t ttl_ms);

/* Takes the listening socket. */
must_use int kv_channel_open(struct kv_channel *c, struct loop *loop, int fd);
void kv_channel_close(struct kv_channel *c);
/* After the loop has ended, if it was opened. */
void kv_channel_deinit(struct kv_channel *c);

/* As in kv_table.h, and who waits is told. */
void kv_channel_hold(struct kv_channel *c, const char *key);
void kv_channel_fail(struct kv_channel *c, const char *key);
