/*
 * worker: one thread of the data plane and all that it owns: loop, sessions, upstream
 * connections, policy state, counters, exchanges.
 *
 * Nothing in it is touched by another thread but by mail to its loop. What is shared
 * is immutable and counted (settings, snapshots), or written by one worker and
 * read by all (load, metrics).
 */
#pragma once

#include <pthread.h>

#include "base/metric.h"
#include "fleet/load.h"
#include "http/server.h"
#include "http/upstream.h"
#include "net/log_writer.h"
#include "policy/policy.h"
#include "router/decision.h"
#include "router/lateness.h"
#include "router/petition.h"
#include "router/settings.h"
#include "router/tap.h"
#include "router/turn.h"

struct vllm_counts;

/* What this worker counts for one instance; read by all. */
struct worker_tally {
	metric_cell n_requests, n_errors;
	metric_cell n_good, n_faults;             /* of them, those that say something of the instance */
	metric_cell n_outcomes[BREAKER_OUTCOMES]; /* of attempts, as its breaker has them */
	_Atomic uint64_t answered_ms;             /* when an answer's content began last */
	/* Event streams at it now, those that are silent for long, and requests that wait as long for a first
	 * byte. */
	_Atomic uint32_t n_streams, n_stalled, n_waiting;
};

/* What it counts for one tenant; read by all. */
struct worker_tenant {
	metric_cell n_requests, n_denied, n_limited, tokens_in, tokens_out;
};

/* Shared by all workers; filled before the first is started. */
struct router {
	struct settings *settings; /* the newest: the control thread's, who else wants any asks a worker */
	struct load *load;
	struct prefix_index *prefixes;   /* NULL: none is kept */
	struct session_table *sessions;  /* likewise */
	struct session_table *responses; /* likewise: who keeps which stored response */
	struct admission *admission;
	struct gatekeeper *gate;    /* on the control thread */
	struct verdicts *verdicts;  /* likewise; NULL: nobody is asked about keys */
	struct petitions petitions; /* likewise: whose control end they are */
	struct split_breaker *split_breaker;
	struct buf_budget budget;
	struct client_budget clients;
	struct worker *workers;
	unsigned n_workers;
	struct log_writer *log, *replay; /* NULL: off */
	_Atomic bool is_draining;        /* readiness says no */
	_Atomic bool is_leaving;         /* each answer is the last on its connection */
	_Atomic bool is_ending;          /* requests are refused */
	uint64_t started_ns;
};

/* A snapshot as one worker uses it: counted here, so that an exchange costs no atomic. */
struct view {
	struct snapshot *snapshot;
	uint32_t n_users;
};

struct worker {
	struct loop loop;
	struct router *router;
	unsigned index;
	pthread_t thread;
	struct server server;
	struct upstream_pool pool;
	struct rng rng;
	struct policy_set policies;
	uint64_t *keys; /* of the prompt that is picked for; room for PROMPT_BLOCKS_MAX */
	struct decision_ring decisions;
	struct retry_budget *budgets;    /* by label of the model */
	struct lateness_model *lateness; /* likewise */
	struct view *view;
	struct settings *settings; /* of requests that begin now */
	struct slab exchanges, hedges, resumes, splits;
	struct split_pushers *pushers; /* NULL: nobody pushes, as far as is known */
	struct turn_desk desk;
	struct slab inquiries; /* about keys */
	struct list active;    /* exchanges at work */
	struct tap_scratch tap;
	struct metric_shard *metrics;
	struct vllm_counts *vllm_counts; /* stand still where its metrics are not shown */
	struct worker_tally *tallies;    /* by instance slot */
	struct worker_tenant *tenants;   /* by label of the tenant */
	struct digester *digester;       /* NULL: no key was needed yet */
	struct log_ring *log;            /* NULL: access log off */
	struct log_ring *replay;         /* NULL: off */
	char id_prefix[17];
	char refused_id[32]; /* of the refusal that is being sent */
	uint64_t n_ids;
	_Atomic uint32_t n_active, n_upstreams; /* gauges for other threads */
	_Atomic uint64_t loop_lag_ns;
	uint64_t heap_allocations_before;
	struct timer gauges;
	struct worker_streams *streams; /* scratch of the count, by instance slot */
	uint64_t counted_ms;            /* when the gauges were, last */
	uint64_t resumed_ms;            /* the end of the last standstill */
};

/* Builds it on the control thread; the loop is not running. Takes the listening socket; -1: it comes later,
 * by server_listen(). */
must_use int worker_init(struct worker *w, struct router *router, unsigned index, int listen_fd);

void worker_start(struct worker *w);

/* Before worker_start(): the first snapshot. Takes over the reference. */
void worker_adopt(struct worker *w, struct snapshot *snapshot);

/* By mail: the fleet as it is now. Takes over the reference. */
void worker_publish(struct worker *w, struct snapshot *snapshot);

/* What sessions that begin from now on speak TLS with. Takes over the references. On the worker's thread, or
 * before it is started; worker_give_tls() is the same by mail. */
void worker_take_tls(struct worker *w, struct tls_server *server, struct tls_client *client);
void worker_give_tls(struct worker *w, struct tls_server *server, struct tls_client *client);

/* Of requests that begin from now on, of connections and of picks. Takes over the reference. On the worker's
 * thread; worker_give_settings() is the same by mail. worker_init() takes the first from the router. */
void worker_take_settings(struct worker *w, struct settings *settings);
void worker_give_settings(struct worker *w, struct settings *settings);

/* By mail: stop accepting (the queue is taken first); clients stay. */
void worker_leave(struct worker *w);

/* By mail: the same, and idle clients are closed. */
void worker_drain(struct worker *w);

/* By mail: all clients are told, by a refusal, a cut or a close; router->is_ending is set. What is written
 * for them leaves as they take it, until worker_stop(). */
void worker_end(struct worker *w);

/* By mail: cut what is still at work and end the thread. Then join and free. */
void worker_stop(struct worker *w);
void worker_join(struct worker *w);

/* On the worker's thread. The view in hand, held until worker_view_release(). */
struct view *worker_view(struct worker *w);
void worker_view_release(struct worker *w, struct view **view);

/* On the worker's thread. The settings in hand, held until settings_release(). */
static inline struct settings *worker_settings(struct worker *w) {
	return settings_use(w->settings, w->index);
}

/* One exchange more, or one less, is at work. */
static inline void worker_count_active(struct worker *w, int by) {
	uint32_t n = atomic_load_explicit(&w->n_active, memory_order_relaxed);
	assert(by > 0 || n > 0);
	atomic_store_explicit(&w->n_active, n + (uint32_t)by, memory_order_relaxed);
}

/* On the worker's thread: what filters and policies may know of a tenant's request for this model. As
 * inspect_demand(), with the output that is expected; its seed is 0. Its keys are the worker's scratch. */
void worker_demand(struct worker *w, const struct inspect *in, const struct model *model,
    const struct tenant *tenant, struct demand *out);

/* What a session's text, and the hash of a response's id, are in demands; 0: it is no such text. */
uint64_t worker_session_key(const struct tenant *tenant, struct slice text, struct slice model);
uint64_t worker_response_key(const struct tenant *tenant, uint64_t id_hash);

/* Of a body of `length` bytes of which not all was read: the prompt is taken to be as long. */
void worker_expect(const struct worker *w, const struct inspect *in, const struct model *model,
    uint64_t length, struct demand *out);

/* For ties: the same in every router that has the request's id. */
uint64_t worker_seed(struct slice id);

/* The request's id as the client gave it (a view into the head), or a new one of 32 hexadecimal digits in
 * `room`. */
struct slice worker_id_of(struct worker *w, const struct head *request, char room[32]);
