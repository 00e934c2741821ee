/*
 * upstream: connections to engines, and the pool of one thread that keeps them.
 *
 * A connection belongs to one instance, on which it holds a reference. It is either
 * lent to an exchange, whose job its events wake, or idle in the pool, most recently
 * used first. Any event on an idle one (bytes nobody asked for, a close) ends it
 * before it can be handed out again. Idle connections end after pool_idle: engines
 * close theirs after five seconds.
 */
#pragma once

#include "fleet/snapshot.h"
#include "net/conn.h"

struct upstream_pool;

struct upstream {
	struct conn conn;
	struct job idle_job;
	struct timer idle_timer;
	struct list link; /* of the instance's idle list, while idle */
	struct upstream_pool *pool;
	struct instance *instance;
	uint64_t
	    sent_before; /* bytes sent before the request at work: what is acknowledged beyond is of it */
	bool is_reused;
};

struct upstream_pool {
	struct loop *loop;
	struct slab slab;
	struct list *idle; /* by instance slot; a head that was never used is all zero */
	uint64_t idle_ms;
	uint32_t n_idle, n_lent;
	struct timer trim;
};

void upstream_pool_init(struct upstream_pool *p, struct loop *loop, uint64_t idle_ms);

void upstream_pool_close_idle(struct upstream_pool *p);

/* After the loop has ended: no connection may be open. */
void upstream_pool_deinit(struct upstream_pool *p);

/* An idle connection to the instance, or NULL. Its events wake `job` from now on. */
struct upstream *upstream_get(struct upstream_pool *p, struct instance *inst, struct job *job);

/* A new connection, connecting; with TLS where the instance's url says so. Negative: what the system said
 * (-EMFILE, -ENETUNREACH, ...). */
must_use int upstream_connect(struct upstream_pool *p, struct instance *inst,
    const struct sockaddr_storage *addr, struct job *job, struct upstream **up_out);

/* Back to the pool; the exchange on it is complete in both directions and nothing is unread. */
void upstream_put(struct upstream **up);

/* Ends it: at once, whatever the engine is doing. */
void upstream_close(struct upstream **up);

/* True when the engine's kernel acknowledged nothing of the request at work. */
bool upstream_is_unsent(const struct upstream *up);
