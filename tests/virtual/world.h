/*
 * world: one worker of the router with a fleet of engines, in virtual time on a fake
 * network, and the law that nothing is left of a request that has ended.
 *
 * Nothing happens by itself: a test lets peers act (fake_net.h) and turns the loop with
 * world_settle() or world_pass().
 *
 * `config` may be changed at any time, but for what a worker reads when it starts:
 * head_ms, keepalive_ms, pool_idle_ms. The worker's access log is kept as text.
 */
#pragma once

#include "base/clock.h"
#include "fleet/fleet.h"
#include "router/exchange.h"
#include "router/hedge.h"
#include "router/split_breaker.h"
#include "router/verdicts.h"
#include "virtual/fake_net.h"
#include "virtual/parsed.h"

#define WORLD_IDLE_TURNS_MAX 16
#define WORLD_SLOTS_MAX      80

/* What a worker without requests and idle connections holds. */
struct world_rest {
	uint64_t budget_bytes;
	size_t n_bufs, n_timers;
};

struct world {
	struct router_config config;
	struct router router;
	struct split_breaker split_breaker;
	struct worker worker;
	struct loop control; /* where the gatekeeper lives */
	struct fleet *fleet;
	struct bytes log;
	unsigned n_lines;
	struct world_rest rest;
	size_t variant;   /* of the fleet, for scripts */
	bool is_spinning; /* woken again and again without doing anything */
};

/* The access log: the worker's ring is the world itself. */
struct log_ring *log_writer_ring(struct log_writer *writer, unsigned i) {
	return (void *)writer;
}

bool log_ring_put(struct log_ring *ring, struct slice line) {
	struct world *w = (void *)ring;
	w->n_lines++;
	return bytes_add(&w->log, line);
}

/* --- time ------------------------------------------------------------------------- */

/* False: nobody had anything to tell. */
static inline bool world_turn(struct world *w) {
	uint64_t n_moves = net.n_moves;
	bool any = net_poll();
	loop_turn(&w->worker.loop);
	w->worker.loop.is_in_turn = false;
	loop_deliver(&w->control);
	loop_turn(&w->control);
	w->control.is_in_turn = false;
	loop_deliver(&w->worker.loop);
	any |= !list_is_empty(&w->worker.loop.ready) || !list_is_empty(&w->control.ready);
	any |= n_moves != net.n_moves; /* by who was woken by mail */
	any |= atomic_load(&w->control.inbox) || atomic_load(&w->worker.loop.inbox);
	net_end_turn();
	return any;
}

/* Until nothing happens any more at this moment. */
static inline void world_settle(struct world *w) {
	uint64_t n_moves = net.n_moves;
	for (unsigned n_idle = 0; world_turn(w); n_idle++) {
		if (n_moves != net.n_moves)
			n_idle = 0;
		n_moves = net.n_moves;
		if (n_idle == WORLD_IDLE_TURNS_MAX) {
			w->is_spinning = true;
			return;
		}
	}
}

static inline uint64_t world_next_ns(struct loop *loop) {
	uint64_t delay_ms = wheel_next_ms(&loop->wheel);
	return (loop->wheel.now_ms + u64_min(delay_ms, 1u << 30)) * 1000000u;
}

static inline void world_pass(struct world *w, uint64_t ms) {
	uint64_t until_ns = net.now_ns + ms * 1000000u;
	world_settle(w);
	while (net.now_ns < until_ns) {
		uint64_t next_ns = u64_min(world_next_ns(&w->worker.loop), world_next_ns(&w->control));
		net.now_ns = u64_min(next_ns, until_ns);
		world_settle(w);
	}
}

/* The process is stopped for so long: the next turn finds deadlines passed, and what has come meanwhile. */
static inline void world_pause(uint64_t ms) {
	net.now_ns += ms * 1000000u;
}

/* --- the fleet --------------------------------------------------------------------- */

/* The fleet as it is now becomes the worker's view. */
static inline void world_publish(struct world *w) {
	struct snapshot *next = fleet_build(w->fleet);
	if (!next)
		return;
	gatekeeper_publish(w->router.gate, next);
	worker_adopt(&w->worker, next);
}

static inline void world_address(unsigned k, unsigned i, struct sockaddr_storage *out) {
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(8000) };
	in.sin_addr.s_addr = htonl(10u << 24 | k << 8 | (i + 1));
	memcpy(out, &in, sizeof(in));
}

/* Engine number i, which serves these models (joined by commas) and has this many addresses. */
static inline void world_set_labelled(
    struct world *w, unsigned i, const char *models, unsigned n_addresses, struct pairs labels) {
	struct slice rest = slice_of(models), member;
	struct pair pairs[8];
	struct pairs list = { pairs, 0 };
	char name[16], url[32];
	while (slice_next_member(&rest, &member) && list.n < n_elems(pairs))
		pairs[list.n++] = (struct pair){ .key = member };
	snprintf(name, sizeof(name), "e%u", i);
	snprintf(url, sizeof(url), "http://e%u:8000", i);
	struct fleet_spec spec = { .weight = 1, .models = list };
	spec.instance = (struct instance_spec){ .name = slice_of(name), .url = slice_of(url), .port = 8000 };
	spec.instance.host = slice_of(name);
	spec.instance.authority = slice_skip(slice_of(url), 7);
	spec.labels = labels;
	int r = fleet_upsert(w->fleet, SOURCE_STATIC, &spec);
	assert(r == 0);
	world_publish(w);

	struct sockaddr_storage addresses[NET_ADDRESSES_MAX];
	for (unsigned k = 0; k < n_addresses; k++)
		world_address(k, i, &addresses[k]);
	const struct snapshot *snap = w->worker.view->snapshot;
	for (uint32_t row = 0; row < snap->n_rows; row++)
		if (slice_eq(snap->rows[row].instance->spec.name, slice_of(name))) {
			assert(snap->rows[row].instance->slot < WORLD_SLOTS_MAX);
			fleet_set_addresses(w->fleet, snap->rows[row].instance, addresses, n_addresses);
		}
	world_publish(w);
}

static inline void world_set_engine(struct world *w, unsigned i, const char *models, unsigned n_addresses) {
	world_set_labelled(w, i, models, n_addresses, (struct pairs){ NULL, 0 });
}

static inline void world_remove_engine(struct world *w, unsigned i) {
	char name[16];
	snprintf(name, sizeof(name), "e%u", i);
	int r = fleet_remove(w->fleet, SOURCE_STATIC, slice_of(name));
	assert(r == 0);
	world_publish(w);
}

/* --- the law -------------------------------------------------------------------------- */

static inline size_t world_n_timers(const struct world *w) {
	const struct wheel *wheel = &w->worker.loop.wheel;
	size_t n = 0;
	for (unsigned i = 0; i < WHEEL_LEVELS * WHEEL_SLOTS; i++)
		if (wheel->used[i / WHEEL_SLOTS][i % WHEEL_SLOTS / 64] >> i % 64 & 1)
			list_each (it, &wheel->slots[i / WHEEL_SLOTS][i % WHEEL_SLOTS])
				n++;
	return n;
}

/* Charges at all instances; the few of a world have the lowest slots. */
static inline uint64_t world_load(const struct world *w) {
	uint64_t n = 0;
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		n += w->router.load->shards[0].cells[slot].n_requests;
	return n;
}

/* Nothing of any kind is charged any more. */
static inline bool world_is_unloaded(const struct world *w) {
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++) {
		struct load_sum sum = load_sum(w->router.load, slot);
		if (sum.n_requests || sum.n_prefills || sum.prefill_tokens || sum.decode_tokens)
			return false;
	}
	return true;
}

static inline size_t world_n_bufs(const struct world *w) {
	size_t n = 0;
	for (unsigned i = 0; i < n_elems(w->worker.loop.bufs.slabs); i++)
		n += w->worker.loop.bufs.slabs[i].n_lent;
	return n;
}

static inline uint64_t world_held(struct world *w) {
	buf_pool_report(&w->worker.loop.bufs);
	return w->router.budget.used_bytes;
}

/* Each attempt was settled with its instance's breaker once, and no probe is under way. */
static inline bool world_are_breakers_settled(const struct world *w) {
	const struct snapshot *snap = w->worker.view->snapshot;
	uint64_t n = 0;
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		for (unsigned i = 0; i < BREAKER_OUTCOMES; i++)
			n += metric_read(&w->worker.tallies[slot].n_outcomes[i]);
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (breaker_peek(&snap->rows[i].instance->breaker, 0).is_probed)
			return false;
	return n == metric_read(&w->worker.metrics->picks);
}

/* All clients are gone: what is left of their requests? NULL: nothing. Idle connections to engines are
 * closed. */
static inline const char *world_is_wrong(struct world *w) {
	struct worker *worker = &w->worker;
	upstream_pool_close_idle(&worker->pool);
	net_end_turn();
	if (w->is_spinning)
		return "the loop spins";
	if (!world_is_unloaded(w))
		return "load is charged for a request that has ended";
	if (!list_is_empty(&worker->active) || worker->exchanges.n_lent || worker->hedges.n_lent ||
	    worker->splits.n_lent)
		return "an exchange is left";
	if (!world_are_breakers_settled(w))
		return "attempts are not settled with their breakers";
	if (worker->desk.waiters.n_lent || admission_is_awaited(w->router.admission))
		return "a waiter is left";
	if (worker->inquiries.n_lent)
		return "an inquiry is left";
	if (atomic_load(&w->router.admission->all.n))
		return "a place is held";
	if (worker->server.slab.n_lent || worker->server.n_sessions)
		return "a session is left";
	if (worker->pool.n_lent || worker->pool.n_idle || worker->pool.slab.n_lent)
		return "an upstream is lent";
	if (w->router.clients.n_open)
		return "the place of a client is taken";
	if (worker->loop.outs.n_lent || world_n_bufs(w) != w->rest.n_bufs)
		return "a buf is lent";
	buf_pool_report(&w->worker.loop.bufs);
	if (world_held(w) != w->rest.budget_bytes)
		return "the budget is charged";
	if (world_n_timers(w) > w->rest.n_timers)
		return "a timer is left";
	if (worker->view->n_users != 1)
		return "a view is in use";
	if (worker->settings->users[0].n != 1 || settings_n_alive() != 1)
		return "old settings are in use";
	for (unsigned i = 1; i < net.n_peers; i++)
		if (net.peers[i].link == PEER_UP && !net.peers[i].was_closed)
			return "a connection is open";
	return NULL;
}

/* --- begin and end ---------------------------------------------------------------------- */

static inline void world_configure(struct router_config *config) {
	static const char *const id_headers[] = { "x-request-id" };
	*config = (struct router_config){
		.body_limit_bytes = 1u << 20,
		.inspect_limit_bytes = 0, /* bodies flow as soon as the model is known */
		.hold_limit_bytes = 32u << 10,
		.request_id_headers = { id_headers, 1 },
		.policy = "round_robin",
		.policies.policy = policy_find(SLICE("round_robin")),
		.registry_url = "",
		.pd.discovery_address = "",
		.retry = { .attempts = 1, /* tests and scripts say more */
		    .refusals = 1u << RETRY_429 | 1u << RETRY_503,
		    .backoff_ms = 50,
		    .backoff_max_ms = 1000,
		    .multiplier = 2,
		    .budget = 1 },
		.breaker.limits = { .failures = 0, /* likewise */
		    .successes = 2,
		    .window_ms = 10000,
		    .open_ms = 1000,
		    .open_max_ms = 4000 },
		.explain.n_records = 7, /* fewer than requests at work, now and then */
	};
	inspect_rules_init(&config->inspect, NULL, 0);
	assert(inspect_rules_add(&config->inspect, SLICE("prompt_cache_key")));
	config->timeout = (struct router_timeouts){ .head_ms = 1000,
		.body_idle_ms = 2000,
		.write_idle_ms = 3000,
		.keepalive_ms = 8000,
		.pool_idle_ms = 20000,
		.connect_ms = 500,
		.first_byte_ms = 6000,
		.stream_idle_ms = 7000 };
}

/* Who may be in flight, and who waits, by the configuration. */
static inline void world_open_gate(struct world *w) {
	const struct router_admission *config = &w->config.admission;
	const struct admission_limits limits = settings_limits(w->router.settings);
	w->router.admission = admission_new(&limits);
	w->router.gate = gatekeeper_new(&(struct gatekeeper_options){ .loop = &w->control,
	    .admission = w->router.admission,
	    .load = w->router.load,
	    .tenants = limits.tenants,
	    .n_tenants = limits.n_tenants,
	    .n_max = config->queue_size });
}

static inline void world_close_gate(struct world *w) {
	gatekeeper_free(&w->router.gate);
	admission_free(&w->router.admission);
}

/* What the configuration says of tenants and limits is in force from now on: new settings of it. */
static inline void world_reload(struct world *w) {
	struct settings *old = w->router.settings;
	w->router.settings = settings_new(&w->config, 1, old);
	const struct admission_limits limits = settings_limits(w->router.settings);
	admission_limit(w->router.admission, &limits);
	gatekeeper_limit(w->router.gate, limits.tenants, limits.n_tenants, w->config.admission.queue_size);
	worker_take_settings(&w->worker, settings_ref(w->router.settings));
	settings_unref(&old);
}

/* With this configuration; nobody is at work. */
static inline void world_admit(struct world *w, struct router_admission admission) {
	world_close_gate(w);
	w->config.admission = admission;
	world_open_gate(w);
	gatekeeper_publish(w->router.gate, w->worker.view->snapshot);
}

/* `models` names those of each engine, joined by commas, and ends with NULL. */
static inline struct world *world_new(const char *const *models) {
	struct world *w = calloc(1, sizeof(*w));
	bytes_init(&w->log, SIZE_MAX);
	world_configure(&w->config);
	w->router = (struct router){ .n_workers = 1, .workers = &w->worker };
	w->router.settings = settings_new(&w->config, 1, NULL);
	w->router.budget.max_bytes = 16u << 20;
	w->router.clients.n_max = NET_PEERS_MAX;
	w->router.load = load_new(1);
	w->router.log = (void *)w;
	w->router.split_breaker = &w->split_breaker;
	w->fleet = fleet_new();

	if (net.n_peers) /* of a test that failed and left them */
		net_free();
	net.now_ns += 1000000000u;
	clock_set_source(net_clock);
	struct peer *listener = net_peer_new(-1);
	assert(listener == &net.peers[0]);
	listener->link = PEER_UP;
	int r = worker_init(&w->worker, &w->router, 0, listener->fd);
	assert(r == 0);
	r = loop_init(&w->control, &w->router.budget);
	assert(r == 0);
	world_open_gate(w);
	world_publish(w);
	for (unsigned i = 0; models[i]; i++)
		world_set_engine(w, i, models[i], 1);
	buf_pool_report(&w->worker.loop.bufs);
	w->rest = (struct world_rest){ world_held(w), world_n_bufs(w), world_n_timers(w) };
	return w;
}

#define WORLD(...) world_new((const char *const[]){ __VA_ARGS__, NULL })

/* Those who are still there close. */
static inline void world_say_goodbye(struct world *w) {
	for (unsigned i = 1; i < net.n_peers; i++)
		if (net.peers[i].engine < 0)
			peer_close(&net.peers[i]);
	world_settle(w);
}

/* The stop that is posted is all that its thread does. */
static inline void world_stop(struct world *w) {
	worker_stop(&w->worker);
	worker_start(&w->worker);
	worker_join(&w->worker);
}

/* What is left without the worker. */
static inline void world_take_down(struct world **wp) {
	struct world *w = *wp;
	*wp = NULL;
	world_close_gate(w);
	verdicts_close(w->router.verdicts);
	verdicts_free(&w->router.verdicts);
	loop_deinit(&w->control);
	net_end_turn();
	net_free();
	clock_set_source(NULL);
	fleet_free(&w->fleet);
	load_free(&w->router.load);
	settings_unref(&w->router.settings);
	bytes_deinit(&w->log);
	free(w);
}

/* What was wrong at the end; NULL: nothing. */
static inline const char *world_free(struct world **wp) {
	struct world *w = *wp;
	*wp = NULL;
	world_say_goodbye(w);
	const char *wrong = world_is_wrong(w);
	if (wrong)
		return wrong; /* to take it down would only end in an assertion */
	world_stop(w);
	world_take_down(&w);
	return NULL;
}
