#include "router/worker.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <signal.h>
#include <xxhash.h>

#include "base/heap.h"
#include "base/log.h"
#include "fleet/label.h"
#include "router/exchange.h"
#include "router/forward.h"
#include "router/hedge.h"
#include "router/journal.h"
#include "router/resume.h"
#include "router/split.h"
#include "router/split_pushers.h"
#include "router/verdicts.h"
#include "router/vllm_counts.h"

#define GAUGES_MS 500

static const struct server_handler handler = { .begin = exchange_begin, .refused = journal_refused };

static void worker_log_slow(const struct worker *w, uint64_t lag_ns) {
	struct log_event e;
	log_begin(&e, LOG_DEBUG, "turn of the event loop took long");
	line_uint(&e.line, SLICE("worker"), w->index);
	line_ms(&e.line, SLICE("worst_ms"), lag_ns);
	log_end(&e);
}

struct worker_streams {
	uint32_t n, n_stalled, n_waiting;
};

static void worker_count(struct worker *w, const struct exchange *x, uint64_t now_ms) {
	uint64_t stall_ms = w->settings->config->health.stall_timeout_ms, silent_ms;
	bool is_streaming = exchange_is_streaming(x, &silent_ms);
	uint16_t slot;
	uint64_t aside_ms;
	if (hedge_is_waiting(x, &slot, &aside_ms))
		w->streams[slot].n_waiting += u64_min(aside_ms, now_ms - w->resumed_ms) >= stall_ms;
	if (!is_streaming && !exchange_is_waiting(x, &silent_ms))
		return;
	struct worker_streams *s = &w->streams[x->ticket.instance->slot];
	bool is_long = u64_min(silent_ms, now_ms - w->resumed_ms) >= stall_ms;
	s->n += is_streaming;
	s->n_stalled += is_streaming && is_long;
	s->n_waiting += !is_streaming && is_long;
}

/* Who was to come now and then and did not: this process stood still. */
static void worker_notice_standstill(struct worker *w) {
	uint64_t now_ms = loop_now_ms(&w->loop);
	if (now_ms - w->counted_ms > 4 * GAUGES_MS)
		w->resumed_ms = now_ms;
	w->counted_ms = now_ms;
}

/*
 * Streams that an engine has begun, how many are silent, and what waits for its first byte: a
 * walk over what is at work, so that a relayed byte costs nothing. After a standstill of ours all look
 * silent: nobody is for longer than we have been back.
 */
static void worker_count_streams(struct worker *w) {
	uint64_t now_ms = loop_now_ms(&w->loop);
	if (!w->settings->config->health.stall_timeout_ms)
		return;
	memset(w->streams, 0, INSTANCE_SLOTS_MAX * sizeof(*w->streams));
	list_each (it, &w->active)
		worker_count(w, container_of(it, struct exchange, link), now_ms);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++) {
		struct worker_tally *t = &w->tallies[slot];
		const struct worker_streams *s = &w->streams[slot];
		if (!s->n && !s->n_waiting && !atomic_load_explicit(&t->n_streams, memory_order_relaxed) &&
		    !atomic_load_explicit(&t->n_waiting, memory_order_relaxed))
			continue;
		atomic_store_explicit(&t->n_streams, s->n, memory_order_relaxed);
		atomic_store_explicit(&t->n_stalled, s->n_stalled, memory_order_relaxed);
		atomic_store_explicit(&t->n_waiting, s->n_waiting, memory_order_relaxed);
	}
}

/* Gauges that other threads read, what they may wait for, and the trimming that belongs to this one. */
static void worker_on_gauges(struct timer *t) {
	struct worker *w = container_of(t, struct worker, gauges);
	struct metric_shard *m = w->metrics;
	atomic_store_explicit(&w->n_upstreams, w->pool.n_idle + w->pool.n_lent, memory_order_relaxed);
	uint64_t lag_ns = loop_take_lag(&w->loop);
	if (w->loop.n_slow_turns != metric_read(&m->slow_turns))
		worker_log_slow(w, lag_ns);
	atomic_store_explicit(&w->loop_lag_ns, lag_ns, memory_order_relaxed);
	atomic_store_explicit(
	    &m->heap_allocations, heap_allocations() - w->heap_allocations_before, memory_order_relaxed);
	atomic_store_explicit(&m->slow_turns, w->loop.n_slow_turns, memory_order_relaxed);
	worker_notice_standstill(w);
	worker_count_streams(w);
	server_yield(&w->server);
	buf_pool_report(&w->loop.bufs);
	slab_trim(&w->exchanges);
	slab_trim(&w->hedges);
	slab_trim(&w->splits);
	slab_trim(&w->resumes);
	slab_trim(&w->desk.waiters);
	slab_trim(&w->inquiries);
	loop_timer(&w->loop, &w->gauges, GAUGES_MS);
}

static struct server_limits limits_of(const struct router_config *config) {
	return (struct server_limits){ .head_ms = config->timeout.head_ms,
		.keepalive_ms = config->timeout.keepalive_ms };
}

int worker_init(struct worker *w, struct router *router, unsigned index, int listen_fd) {
	const struct router_config *config = router->settings->config;
	struct server_limits limits = limits_of(config);

	w->router = router;
	w->index = index;
	w->settings = settings_use(settings_ref(router->settings), index);
	int r = loop_init(&w->loop, &router->budget);
	if (r < 0)
		return r;
	list_init(&w->active);
	slab_init(&w->exchanges, sizeof(struct exchange));
	slab_init(&w->hedges, sizeof(struct hedge));
	slab_init(&w->splits, sizeof(struct split));
	slab_init(&w->resumes, sizeof(struct resume));
	turn_desk_init(&w->desk);
	slab_init(&w->inquiries, sizeof(struct inquiry));
	rng_init_random(&w->rng);
	upstream_pool_init(&w->pool, &w->loop, config->timeout.pool_idle_ms);
	w->policies = (struct policy_set){ .options = &config->policies,
		.load = router->load,
		.worker = index,
		.rng = &w->rng,
		.index = router->prefixes,
		.sessions = router->sessions,
		.responses = router->responses };
	policy_set_init(&w->policies);
	w->keys = calloc(PROMPT_BLOCKS_MAX, sizeof(*w->keys));
	decision_ring_init(&w->decisions, index, config->explain.n_records);
	tap_scratch_init(&w->tap, &w->loop.bufs);
	w->metrics = calloc(1, sizeof(*w->metrics));
	w->vllm_counts = vllm_counts_new();
	w->tallies = calloc(INSTANCE_SLOTS_MAX, sizeof(*w->tallies));
	w->budgets = calloc(LABELS, sizeof(*w->budgets));
	w->lateness = calloc(LABELS, sizeof(*w->lateness));
	w->tenants = calloc(LABELS, sizeof(*w->tenants));
	w->digester = config->tenants || router->verdicts ? digester_new() : NULL;
	w->streams = calloc(INSTANCE_SLOTS_MAX, sizeof(*w->streams));
	w->log = router->log ? log_writer_ring(router->log, index) : NULL;
	w->replay = router->replay ? log_writer_ring(router->replay, index) : NULL;
	snprintf(w->id_prefix, sizeof(w->id_prefix), "%016llx", (unsigned long long)rng_next(&w->rng));
	timer_init(&w->gauges, worker_on_gauges);
	w->counted_ms = loop_now_ms(&w->loop);
	loop_timer(&w->loop, &w->gauges, GAUGES_MS);
	r = server_open(&w->server, &w->loop, listen_fd, &router->clients, &limits, &handler, w);
	w->server.dialect = (uint8_t)config->errors;
	return r;
}

static void *worker_main(void *arg) {
	struct worker *w = arg;
	w->heap_allocations_before = heap_allocations();
	loop_run(&w->loop);
	return NULL;
}

void worker_start(struct worker *w) {
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the control thread's */
	int r = pthread_create(&w->thread, NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert(r == 0);
}

/* --- views --------------------------------------------------------------------- */

struct view *worker_view(struct worker *w) {
	w->view->n_users++;
	return w->view;
}

void worker_view_release(struct worker *w, struct view **vp) {
	struct view *v = *vp;
	*vp = NULL;
	assert(v->n_users > 0);
	if (--v->n_users == 0) {
		snapshot_unref(&v->snapshot);
		free(v);
	}
}

/* The worker itself is one user of the view in hand. */
void worker_adopt(struct worker *w, struct snapshot *snapshot) {
	struct view *old = w->view;
	w->view = malloc(sizeof(*w->view));
	*w->view = (struct view){ .snapshot = snapshot, .n_users = 1 };
	policy_set_adopt(&w->policies, snapshot);
	if (old)
		worker_view_release(w, &old);
}

/* The worker itself is one user of the settings in hand. Timers that run already run on. */
void worker_take_settings(struct worker *w, struct settings *settings) {
	const struct router_config *config = settings->config;
	struct settings *old = w->settings;

	w->settings = settings_use(settings, w->index);
	w->server.limits = limits_of(config);
	w->server.dialect = (uint8_t)config->errors;
	w->pool.idle_ms = config->timeout.pool_idle_ms;
	if (config->tenants && !w->digester)
		w->digester = digester_new();
	policy_set_retune(&w->policies, &config->policies); /* before the old ones may go */
	settings_release(&old, w->index);
}

void worker_take_tls(struct worker *w, struct tls_server *server, struct tls_client *client) {
	tls_server_unref(&w->server.tls);
	tls_client_unref(&w->loop.tls);
	w->server.tls = server;
	w->loop.tls = client;
}

/* --- mail ------------------------------------------------------------------------ */

struct worker_mail {
	struct mail mail;
	struct worker *worker;
	struct snapshot *snapshot;
};

static void worker_post(struct worker *w, mail_fn deliver, struct snapshot *snapshot) {
	struct worker_mail *m = calloc(1, sizeof(*m));
	m->worker = w;
	m->snapshot = snapshot;
	loop_post(&w->loop, &m->mail, deliver);
}

static void deliver_snapshot(struct mail *mail) {
	struct worker_mail *m = container_of(mail, struct worker_mail, mail);
	worker_adopt(m->worker, m->snapshot);
	free(m);
}

struct tls_mail {
	struct mail mail;
	struct worker *worker;
	struct tls_server *server;
	struct tls_client *client;
};

static void deliver_tls(struct mail *mail) {
	struct tls_mail *m = container_of(mail, struct tls_mail, mail);
	worker_take_tls(m->worker, m->server, m->client);
	free(m);
}

void worker_give_tls(struct worker *w, struct tls_server *server, struct tls_client *client) {
	struct tls_mail *m = calloc(1, sizeof(*m));
	*m = (struct tls_mail){ .worker = w, .server = server, .client = client };
	loop_post(&w->loop, &m->mail, deliver_tls);
}

static void deliver_leave(struct mail *mail) {
	struct worker_mail *m = container_of(mail, struct worker_mail, mail);
	server_leave(&m->worker->server);
	free(m);
}

struct settings_mail {
	struct mail mail;
	struct worker *worker;
	struct settings *settings;
};

static void deliver_settings(struct mail *mail) {
	struct settings_mail *m = container_of(mail, struct settings_mail, mail);
	worker_take_settings(m->worker, m->settings);
	free(m);
}

void worker_give_settings(struct worker *w, struct settings *settings) {
	struct settings_mail *m = calloc(1, sizeof(*m));
	*m = (struct settings_mail){ .worker = w, .settings = settings };
	loop_post(&w->loop, &m->mail, deliver_settings);
}

static void deliver_drain(struct mail *mail) {
	struct worker_mail *m = container_of(mail, struct worker_mail, mail);
	server_drain(&m->worker->server);
	free(m);
}

static void worker_tell_all(struct worker *w) {
	server_end(&w->server);
	list_each_safe (it, &w->active)
		exchange_kill(container_of(it, struct exchange, link), CAUSE_STOPPING);
	upstream_pool_close_idle(&w->pool);
}

static void deliver_end(struct mail *mail) {
	struct worker_mail *m = container_of(mail, struct worker_mail, mail);
	worker_tell_all(m->worker);
	free(m);
}

static void deliver_stop(struct mail *mail) {
	struct worker_mail *m = container_of(mail, struct worker_mail, mail);
	struct worker *w = m->worker;
	free(m);
	worker_tell_all(w);
	server_close(&w->server);
	loop_stop(&w->loop);
}

void worker_publish(struct worker *w, struct snapshot *snapshot) {
	worker_post(w, deliver_snapshot, snapshot);
}

void worker_leave(struct worker *w) {
	worker_post(w, deliver_leave, NULL);
}

void worker_drain(struct worker *w) {
	worker_post(w, deliver_drain, NULL);
}

void worker_end(struct worker *w) {
	worker_post(w, deliver_end, NULL);
}

void worker_stop(struct worker *w) {
	worker_post(w, deliver_stop, NULL);
}

void worker_join(struct worker *w) {
	pthread_join(w->thread, NULL);
	gatekeeper_deliver(w->router->gate); /* requests that waited have left: it gives their waiters back */
	loop_deliver(&w->loop);              /* questions, which are answered to the control thread's loop */
	timer_stop(&w->gauges);
	tap_scratch_deinit(&w->tap, &w->loop.bufs);
	policy_set_deinit(&w->policies);
	free(w->keys);
	decision_ring_deinit(&w->decisions);
	worker_view_release(w, &w->view);
	worker_take_tls(w, NULL, NULL);
	loop_deinit(&w->loop);
	upstream_pool_deinit(&w->pool);
	server_deinit(&w->server);
	slab_deinit(&w->exchanges);
	slab_deinit(&w->hedges);
	slab_deinit(&w->splits);
	split_pushers_free(&w->pushers);
	slab_deinit(&w->resumes);
	turn_desk_deinit(&w->desk);
	slab_deinit(&w->inquiries);
	free(w->metrics);
	vllm_counts_free(&w->vllm_counts);
	free(w->tallies);
	free(w->budgets);
	free(w->lateness);
	free(w->tenants);
	digester_free(&w->digester);
	free(w->streams);
	settings_release(&w->settings, w->index);
}

void worker_demand(struct worker *w, const struct inspect *in, const struct model *model,
    const struct tenant *tenant, struct demand *out) {
	const struct inspect_salt salt = { .tenant = tenant->salt,
		.model = model->name,
		.tokens_per_byte = policy_tokens_per_byte(&w->policies, model) };
	inspect_demand(in, &salt, w->keys, out);
	if (out->privacy < tenant->privacy_floor)
		out->privacy = tenant->privacy_floor;
	out->output_tokens = policy_output_tokens(&w->policies, model);
	if (out->output_max && out->output_max < out->output_tokens)
		out->output_tokens = out->output_max;
}

uint64_t worker_session_key(const struct tenant *tenant, struct slice text, struct slice model) {
	return inspect_session_of(text, &(struct inspect_salt){ .tenant = tenant->salt, .model = model });
}

uint64_t worker_response_key(const struct tenant *tenant, uint64_t id_hash) {
	return inspect_response_key(id_hash, tenant->salt);
}

void worker_expect(const struct worker *w, const struct inspect *in, const struct model *model,
    uint64_t length, struct demand *out) {
	double n = (double)length * policy_tokens_per_byte(&w->policies, model);
	if (!out->is_prompt_open || length <= out->prompt_bytes)
		return;
	out->prompt_bytes = length;
	out->prompt_tokens = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

uint64_t worker_seed(struct slice id) {
	return XXH3_64bits(id.p, id.n);
}

struct slice worker_id_of(struct worker *w, const struct head *request, char room[32]) {
	const struct option_list *names = &w->settings->config->request_id_headers;
	struct slice given = forward_find_id(request, names->items, names->n);
	if (given.p)
		return given;
	uint64_t n = ++w->n_ids;
	memcpy(room, w->id_prefix, 16);
	for (unsigned i = 32; i-- > 16; n >>= 4)
		room[i] = "0123456789abcdef"[n & 15];
	return (struct slice){ room, 32 };
}
