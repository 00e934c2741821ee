/*
 * The control thread: starts the workers, keeps the fleet true, answers on the admin
 * listeners, and ends the process in order.
 */
#include "router/router.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/folder.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/text.h"
#include "discovery/health.h"
#include "discovery/kv_engine.h"
#include "discovery/registry_source.h"
#include "discovery/scrape.h"
#include "discovery/watch.h"
#include "discovery/zmq_source.h"
#include "net/certificates.h"
#include "net/resolver.h"
#include "net/signals.h"
#include "net/watchdog.h"
#include "policy/session_table.h"
#include "router/engine_info.h"
#include "router/fleet_routes.h"
#include "router/flush.h"
#include "router/instances.h"
#include "router/label_check.h"
#include "router/recruits.h"
#include "router/reload.h"
#include "router/report.h"
#include "router/split_breaker.h"
#include "router/static_fleet.h"
#include "router/succession.h"
#include "router/upgrade.h"
#include "router/verdicts.h"
#include "router/worker.h"

#define FD_RESERVE     32u /* log, admin clients, probes, what libraries open */
#define DRAIN_CHECK_MS 20
#define END_MS         1000 /* for what was written to leave */
#define PUBLISH_MS     20   /* between two snapshots: news that come one by one share one */
#define WARM_MS        5000 /* of what a successor waits for: an instance that is silent is not */

enum control_state {
	CONTROL_STARTING = 1, /* not accepting: the process before us still does */
	CONTROL_RUNNING,
	CONTROL_ANNOUNCING, /* not ready, still accepting */
	CONTROL_DRAINING,   /* not accepting, streams finish */
	CONTROL_ENDING,     /* everybody has been told, and takes what was written for him */
};

/* That we listen on, open while we are running; -1: none. */
struct control_sockets {
	int *data;
	size_t n_data;
	int admin, metrics;
	/* For a successor alone: the source listens on a copy; what it knew when one was last asked for. */
	int zmq, zmq_records;
};

struct control {
	struct loop loop;
	struct router router;
	const struct router_config *config; /* of the newest settings */
	struct fleet *fleet;
	struct snapshot *snapshot; /* the newest, as published */
	struct watcher watcher;
	struct health health;
	struct scraper scraper;
	struct registry_source registry;
	struct zmq_source zmq;
	struct kv_engines kv_engines;
	bool has_registry, has_zmq, is_started; /* the workers are there */
	struct control_sockets sockets;
	struct succession succession;
	struct upgrade upgrade;
	struct endpoint_server admin, metrics;
	struct report report;
	struct label_check labels;
	struct reload reload;
	struct signals signals;
	struct timer drain, publish, warm;
	uint64_t warm_until_ms;
	struct certificates certificates;
	struct watchdog watchdog;
	uint64_t published_ms;
	uint64_t drain_until_ms;
	enum control_state state;
	bool is_told;       /* to stop */
	bool is_reload_due; /* asked for before there was anything to reload */
};

/* --- fleet -------------------------------------------------------------------- */

/* A model begins, or ceases, to be served by instances that seem unhealthy. */
static void control_say_panics(const struct snapshot *old, const struct snapshot *new) {
	for (uint32_t i = 0; i < new->n_models; i++) {
		const struct model *model = &new->models[i], *before = snapshot_model(old, model->name);
		struct log_event e;
		if (model->is_panic == (before && before->is_panic))
			continue;
		log_begin(&e, model->is_panic ? LOG_ERROR : LOG_INFO,
		    model->is_panic
			? "more than half of a model's instances are unhealthy: they get requests "
			  "all the same"
			: "enough of a model's instances are healthy again");
		line_text(&e.line, SLICE("model"), model->name);
		line_uint(&e.line, SLICE("healthy"), model->n_healthy);
		line_uint(&e.line, SLICE("candidates"), model->n_candidates);
		log_end(&e);
	}
}

static void control_publish_now(struct control *c) {
	struct snapshot *next = c->is_started ? fleet_build(c->fleet) : NULL;
	if (!next)
		return;
	c->published_ms = loop_now_ms(&c->loop);
	health_sync(&c->health, next);
	if (c->router.prefixes)
		prefix_index_widen(c->router.prefixes, next->n_rows);
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_publish(&c->router.workers[i], snapshot_ref(next));
	gatekeeper_publish(c->router.gate, next);
	control_say_panics(c->snapshot, next);
	label_check_see(&c->labels, next);
	if (c->config->metrics_compat == ROUTER_METRICS_VLLM)
		vllm_turnover_note(&c->report.turnover, c->snapshot, next);
	snapshot_unref(&c->snapshot);
	c->snapshot = next;
	c->report.snapshot = next;
	watcher_sync(&c->watcher, next);
	scraper_sync(&c->scraper, next);
	kv_engines_sync(&c->kv_engines, next);
	recruits_sync(c->report.recruits, next);
}

static void control_on_publish(struct timer *t) {
	control_publish_now(container_of(t, struct control, publish));
}

/* The first news go out at once. */
static void control_publish(struct control *c) {
	uint64_t passed_ms = loop_now_ms(&c->loop) - c->published_ms;
	if (passed_ms >= PUBLISH_MS)
		control_publish_now(c);
	else if (!timer_is_running(&c->publish))
		loop_timer(&c->loop, &c->publish, PUBLISH_MS - passed_ms);
}

static void control_on_watch(struct watcher *watcher) {
	control_publish(container_of(watcher, struct control, watcher));
}

static void control_on_health(struct health *health) {
	control_publish(container_of(health, struct control, health));
}

/* What an operator wishes is known to all workers in the order in which they get their mail. */
static void control_on_wish(struct report *report) {
	struct control *c = container_of(report, struct control, report);
	health_heed(&c->health);
	control_publish_now(c);
}

static void control_on_scraper(struct scraper *scraper) {
	control_publish(container_of(scraper, struct control, scraper));
}

static void control_on_registry(struct registry_source *registry) {
	control_publish(container_of(registry, struct control, registry));
}

static void control_on_zmq(struct zmq_source *zmq) {
	control_publish(container_of(zmq, struct control, zmq));
}

static void control_on_kv_engines(struct kv_engines *kv_engines) {
	control_publish(container_of(kv_engines, struct control, kv_engines));
}

/* What all workers have counted for a slot. */
static void control_evidence(void *context, unsigned slot, struct health_evidence *out) {
	const struct router *router = context;
	*out = (struct health_evidence){ .n_good = 0 };
	for (unsigned i = 0; i < router->n_workers; i++) {
		const struct worker_tally *t = &router->workers[i].tallies[slot];
		uint32_t n_streams = atomic_load_explicit(&t->n_streams, memory_order_relaxed);
		uint32_t n_stalled = atomic_load_explicit(&t->n_stalled, memory_order_relaxed);
		out->n_requests += metric_read(&t->n_requests);
		out->n_errors += metric_read(&t->n_errors);
		out->n_good += metric_read(&t->n_good);
		out->n_faults += metric_read(&t->n_faults);
		for (unsigned k = 0; k < BREAKER_OUTCOMES; k++)
			out->n_outcomes[k] += metric_read(&t->n_outcomes[k]);
		out->answered_ms =
		    u64_max(out->answered_ms, atomic_load_explicit(&t->answered_ms, memory_order_relaxed));
		out->n_waiting += atomic_load_explicit(&t->n_waiting, memory_order_relaxed);
		out->n_streams += n_streams;
		out->n_stalled +=
		    n_stalled < n_streams ? n_stalled : n_streams; /* read one after the other */
	}
}

/* Before the first snapshot, which then has what was kept of the registry. */
static bool control_open_registry(struct control *c) {
	const struct router_config *config = c->config;
	const struct registry_options options = reload_registry_options(config);
	if (!config->registry_url[0])
		return true;
	c->has_registry =
	    registry_source_init(&c->registry, &c->loop, c->fleet, &options, control_on_registry);
	if (!c->has_registry)
		fprintf(stderr, "headrace router: registry: cannot ask %s\n", config->registry_url);
	c->report.registry = c->has_registry ? &c->registry : NULL;
	c->report.watcher = &c->watcher;
	return c->has_registry;
}

/* Before the first snapshot, which then has whom the process before us knew. */
static void control_open_zmq(struct control *c) {
	const struct router_pd *pd = &c->config->pd;
	/* nixl says nothing: its engines do not announce themselves. */
	const char *connector = strcmp(pd->connector, "nixl") == 0 ? "p2p_nccl" : pd->connector;
	c->has_zmq = pd->discovery_address[0];
	if (!c->has_zmq)
		return;
	zmq_source_init(&c->zmq, &c->loop, c->fleet, connector, control_on_zmq);
	int kept = handed_take(&c->succession.handed, "zmq_records");
	if (kept >= 0)
		zmq_source_restore(&c->zmq, kept);
	c->report.zmq = &c->zmq;
}

static void control_open_health(struct control *c) {
	const struct health_options options = reload_health_options(c->config);
	health_init(
	    &c->health, &c->loop, c->fleet, &options, control_evidence, &c->router, control_on_health);
	c->report.health = &c->health;
	c->report.fleet = c->fleet;
	c->report.on_wish = control_on_wish;
}

static void control_open_scraper(struct control *c) {
	const struct scrape_options options = reload_scrape_options(c->config, c->router.load);
	scraper_init(&c->scraper, &c->loop, c->fleet, &options, control_on_scraper);
	c->report.scraper = &c->scraper;
}

static void control_open_gate(struct control *c) {
	struct router *router = &c->router;
	const struct admission_limits limits = settings_limits(router->settings);
	router->admission = admission_new(&limits);
	const struct gatekeeper_options options = { .loop = &c->loop,
		.admission = router->admission,
		.load = router->load,
		.tenants = limits.tenants,
		.n_tenants = limits.n_tenants,
		.n_max = c->config->admission.queue_size };
	router->gate = gatekeeper_new(&options);
	router->split_breaker = calloc(1, sizeof(*router->split_breaker));
	gatekeeper_publish(router->gate, c->snapshot);
}

static void control_close_gate(struct control *c) {
	gatekeeper_free(&c->router.gate);
	free(c->router.split_breaker);
	admission_free(&c->router.admission);
}

static bool control_open_verdicts(struct control *c) {
	const struct router_validation *config = &c->router.settings->config->validation;
	const struct verdict_options options = { config->urls, config->times, config->timeout_ms };
	const char *url;
	if (!config->urls.n)
		return true;
	c->router.verdicts = verdicts_new(&c->loop, &options, &url);
	if (!c->router.verdicts)
		fprintf(stderr, "headrace router: keys: cannot ask %s\n", url);
	return c->router.verdicts;
}

static int control_say_refused(const char *name, int r) {
	if (r)
		fprintf(stderr, "headrace router: worker %s: %s\n", name,
		    r == FLEET_E_FULL ? "too many instances" : "beyond a limit of the fleet table");
	return r;
}

static bool control_fill_fleet(struct control *c) {
	struct static_fleet fleet;
	int r = 0;
	fleet_set_rank_defaults(c->fleet, &c->config->ranks);
	static_fleet_init(&fleet, c->config);
	for (size_t i = 0; i < fleet.n && !r; i++)
		r = control_say_refused(
		    fleet.specs[i].instance.name.p, fleet_upsert(c->fleet, SOURCE_STATIC, &fleet.specs[i]));
	static_fleet_deinit(&fleet);
	return !r;
}

/* --- workers that are registered while we run ------------------------------------------ */

static struct recruits_terms control_recruit_terms(void *context) {
	const struct router_config *config = ((const struct control *)context)->config;
	return (struct recruits_terms){ .health_path = config->health.endpoint,
		.api_key = config->engine_key,
		.startup_timeout_ms = config->worker_startup_timeout_ms,
		.answer_ms = config->health.timeout_ms };
}

static void control_on_recruits(void *context) {
	control_publish_now(context);
}

/* Before the first snapshot, which then has those of before. */
static void control_open_recruits(struct control *c) {
	struct router *router = &c->router;
	const struct recruits_options options = { .loop = &c->loop,
		.fleet = c->fleet,
		.file = c->config->workers_file,
		.terms = control_recruit_terms,
		.on_change = control_on_recruits,
		.on_end = fleet_routes_added,
		.context = c };
	petitions_init(&router->petitions, &c->loop, fleet_routes_run, &c->report);
	list_init(&c->report.flushes);
	list_init(&c->report.infos);
	c->report.recruits = recruits_new(&options);
}

static void control_close_recruits(struct control *c) {
	flush_close(&c->report);
	engine_info_close(&c->report);
	petitions_close(&c->router.petitions);
	recruits_free(&c->report.recruits);
}

/* --- certificates ------------------------------------------------------------------- */

static void control_give_tls(struct certificates *now) {
	struct control *c = container_of(now, struct control, certificates);
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_give_tls(
		    &c->router.workers[i], tls_server_ref(now->server), tls_client_ref(now->client));
}

static bool control_open_tls(struct control *c) {
	char why[TLS_WHY_BYTES];
	const struct certificates_fresh files = reload_tls_files(c->config);
	c->certificates = (struct certificates){ .server_files = files.server_files,
		.client_files = files.client_files,
		.on_change = control_give_tls };
	if (certificates_open(&c->certificates, &c->loop, why))
		return true;
	fprintf(stderr, "headrace router: tls: %s\n", why);
	return false;
}

/* --- descriptors and sockets ------------------------------------------------------ */

/* The soft limit is raised to the hard one; what is left for clients is half, since each may need an engine.
 */
static unsigned control_client_limit(const struct control *c) {
	rlim_t soft = descriptors_raise().rlim_cur;
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);

	int probe = dup(STDERR_FILENO); /* the lowest free number: about as many are open */
	uint64_t used = (uint64_t)(probe < 0 ? 16 : probe) + FD_RESERVE;
	used += c->router.verdicts ? verdicts_n_connections(c->router.verdicts) : 0;
	close(probe);
	uint64_t clients = limit.rlim_cur > used + 2 ? u64_min((limit.rlim_cur - used) / 2, 1u << 30) : 1;
	struct log_event e;
	log_begin(&e, LOG_INFO, "descriptors counted");
	line_uint(&e.line, SLICE("soft_limit"), soft);
	line_uint(&e.line, SLICE("limit"), limit.rlim_cur);
	line_uint(&e.line, SLICE("clients"), clients);
	log_end(&e);
	return (unsigned)clients;
}

static int control_bind(const char *what, const char *host, uint16_t port, bool shared) {
	int fd = listener_bind_host(host, port, shared);
	if (fd < 0)
		fprintf(stderr, "headrace router: %s: cannot listen at %s:%u: %s\n", what, host, port,
		    strerror(-fd));
	return fd;
}

/* The one that the process before us gave us, where that is the same address; else one of our own. */
static int control_socket(struct control *c, const char *what, const char *host, uint16_t port) {
	int fd = handed_take(&c->succession.handed, what);
	if (fd >= 0 && listener_is_at_host(fd, host, port))
		return fd;
	if (fd >= 0)
		close(fd);
	return control_bind(what, host, port, false);
}

/* All that we were given of our address: who waits in their queues is ours. */
static void control_take_data(struct control *c) {
	struct control_sockets *s = &c->sockets;
	const struct router_config *config = c->config;
	int fd;
	s->data = calloc(size_max(c->succession.handed.n, c->router.n_workers), sizeof(*s->data));
	while ((fd = handed_take(&c->succession.handed, "data")) >= 0)
		if (listener_is_at_host(fd, config->host, config->port))
			s->data[s->n_data++] = fd;
		else
			close(fd);
}

static bool control_bind_data(struct control *c) {
	int fd = control_bind("data", c->config->host, c->config->port, true);
	if (fd >= 0)
		c->sockets.data[c->sockets.n_data++] = fd;
	return fd >= 0;
}

/*
 * One socket a worker on one port; first bound alone, since a taken port is an error and not half the
 * traffic. What a successor lacks it binds when it accepts: on a socket of ours new clients wait at once.
 */
static bool control_open_data(struct control *c) {
	control_take_data(c);
	if (c->sockets.n_data)
		return true;
	int probe = control_bind("data", c->config->host, c->config->port, false);
	if (probe < 0)
		return false;
	close(probe);
	while (c->sockets.n_data < c->router.n_workers)
		if (!control_bind_data(c))
			return false;
	return true;
}

static bool control_open_zmq_socket(struct control *c) {
	char name[TEXT_URL_BYTES];
	struct slice host;
	uint16_t port;
	if (!c->has_zmq)
		return true;
	if (!text_authority(slice_of(c->config->pd.discovery_address), 0, &host, &port))
		assert(!"an address that was checked");
	snprintf(name, sizeof(name), "%.*s", (int)host.n, host.p);
	c->sockets.zmq = control_socket(c, "zmq", name, port);
	return c->sockets.zmq >= 0;
}

static bool control_open_sockets(struct control *c) {
	const struct router_config *config = c->config;
	bool has_metrics = config->metrics_port != config->admin_port ||
	    strcmp(config->metrics_host, config->admin_host) != 0;
	c->sockets = (struct control_sockets){ .admin = -1, .metrics = -1, .zmq = -1, .zmq_records = -1 };
	if (!control_open_zmq_socket(c))
		return false;
	c->sockets.admin = control_socket(c, "admin", config->admin_host, config->admin_port);
	if (c->sockets.admin >= 0 && has_metrics)
		c->sockets.metrics = control_socket(c, "metrics", config->metrics_host, config->metrics_port);
	return c->sockets.admin >= 0 && (!has_metrics || c->sockets.metrics >= 0) && control_open_data(c);
}

static bool control_has_metrics(const struct control *c) {
	return c->sockets.metrics >= 0;
}

static bool control_open_endpoints(struct control *c, struct endpoint_server *server, int fd,
    const struct endpoint *endpoints, size_t n_endpoints, const char *key) {
	int r = endpoint_server_open(server, &c->loop, fd, endpoints, n_endpoints, &c->report, key);
	if (r < 0)
		fprintf(stderr, "headrace router: admin or metrics: %s\n", strerror(-r));
	server->server.dialect = (uint8_t)c->config->errors; /* of one shape on all of the router's ports */
	return r >= 0;
}

static bool control_open_admin(struct control *c) {
	if (!control_open_endpoints(c, &c->admin, c->sockets.admin, report_admin_endpoints,
		report_n_admin_endpoints, c->config->admin_key))
		return false;
	c->admin.is_guarded = true;
	return !control_has_metrics(c) ||
	    control_open_endpoints(c, &c->metrics, c->sockets.metrics, report_metrics_endpoints,
		report_n_metrics_endpoints, NULL);
}

/* --- another configuration ------------------------------------------------------------ */

static void control_on_reload(struct reload *reload) {
	struct control *c = container_of(reload, struct control, reload);
	c->config = c->router.settings->config;
	control_publish_now(c);
}

static void control_open_reload(struct control *c, int argc, char *const *argv) {
	c->reload = (struct reload){ .argc = argc,
		.argv = argv,
		.loop = &c->loop,
		.router = &c->router,
		.fleet = c->fleet,
		.snapshot = &c->snapshot,
		.watcher = &c->watcher,
		.health = &c->health,
		.scraper = &c->scraper,
		.registry = c->has_registry ? &c->registry : NULL,
		.certificates = &c->certificates,
		.upgrade = &c->upgrade,
		.admin = &c->admin,
		.metrics = c->sockets.metrics >= 0 ? &c->metrics : NULL,
		.on_change = control_on_reload };
	reload_init(&c->reload);
	c->report.reload = &c->reload;
}

/* --- the end ------------------------------------------------------------------------ */

static void control_stop(struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_stop(&c->router.workers[i]);
	watchdog_stop(&c->watchdog);
	timer_stop(&c->drain);
	timer_stop(&c->publish);
	upgrade_deinit(&c->upgrade);
	succession_end(&c->succession);
	reload_deinit(&c->reload);
	certificates_close(&c->certificates);
	watcher_deinit(&c->watcher);
	health_deinit(&c->health);
	scraper_deinit(&c->scraper);
	kv_engines_deinit(&c->kv_engines);
	if (c->has_registry)
		registry_source_deinit(&c->registry);
	if (c->has_zmq)
		zmq_source_deinit(&c->zmq);
	endpoint_server_close(&c->admin);
	if (control_has_metrics(c))
		endpoint_server_close(&c->metrics);
	control_close_recruits(c);
	verdicts_close(c->router.verdicts);
	signals_close(&c->signals);
	loop_stop(&c->loop);
}

/* Their sockets are closed by workers from now on. */
static void control_forget_data(struct control *c) {
	for (size_t i = 0; i < c->sockets.n_data; i++)
		c->sockets.data[i] = -1;
}

static bool control_has_clients(const struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++) {
		const struct server *s = &c->router.workers[i].server;
		if (!atomic_load(&s->is_closing) ||
		    atomic_load_explicit(&s->n_sessions, memory_order_relaxed))
			return true;
	}
	return false;
}

/* Those of the process before us are ours as well: who stops us stops all of the service. */
static bool control_is_empty(const struct control *c) {
	return !control_has_clients(c) && !succession_has_predecessor(&c->succession);
}

/* Nobody is waited for any longer, but what they are told must reach them. */
static void control_end(struct control *c) {
	struct log_event e;
	log_begin(&e, LOG_INFO, "stopping: requests at work are refused or cut");
	log_end(&e);
	c->state = CONTROL_ENDING;
	succession_hurry(&c->succession);
	c->drain_until_ms = loop_now_ms(&c->loop) + END_MS;
	atomic_store_explicit(&c->router.is_ending, true, memory_order_relaxed);
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_end(&c->router.workers[i]);
	loop_timer(&c->loop, &c->drain, DRAIN_CHECK_MS);
}

static void control_drain(struct control *c) {
	struct log_event e;
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_drain(&c->router.workers[i]);
	control_forget_data(c);
	c->state = CONTROL_DRAINING;
	log_begin(&e, LOG_INFO, "stopping: not accepting, requests at work finish");
	line_uint(&e.line, SLICE("drain_ms"), c->config->timeout.drain_ms);
	log_end(&e);
	c->drain_until_ms = loop_now_ms(&c->loop) + c->config->timeout.drain_ms;
}

static void control_on_drain(struct timer *t) {
	struct control *c = container_of(t, struct control, drain);
	bool is_late = c->state != CONTROL_ANNOUNCING && loop_now_ms(&c->loop) >= c->drain_until_ms;
	if (c->state == CONTROL_ANNOUNCING)
		control_drain(c);
	else if (control_is_empty(c) || (c->state == CONTROL_ENDING && is_late)) {
		control_stop(c);
		return;
	} else if (is_late) {
		control_end(c);
		return;
	}
	loop_timer(&c->loop, &c->drain, DRAIN_CHECK_MS);
}

/* Clients come no more, those who are here stay for [timeout] announce and get no more than that answer. */
static void control_begin_drain(struct control *c) {
	c->state = CONTROL_ANNOUNCING;
	atomic_store_explicit(&c->router.is_leaving, true, memory_order_relaxed);
	loop_timer(&c->loop, &c->drain, c->config->timeout.announce_ms);
}

static void control_on_stop(struct control *c) {
	struct log_event e;
	if (c->state == CONTROL_STARTING) {
		if (!succession_is_offered(&c->succession)) /* the process before us goes on */
			_exit(1);
		c->is_told = true; /* it may have gone already: then we serve, and stop in order */
		return;
	}
	if (c->is_told) { /* a second time: now; a third one waits for nothing */
		(c->state == CONTROL_ENDING ? control_stop : control_end)(c);
		return;
	}
	c->is_told = true;
	if (c->state != CONTROL_RUNNING) { /* another process has taken over */
		log_begin(&e, LOG_INFO, "stopping: this process does so already");
		log_end(&e);
		return;
	}
	upgrade_cancel(&c->upgrade, "the router is being stopped");
	log_begin(&e, LOG_INFO, "stopping: not ready, still accepting");
	line_uint(&e.line, SLICE("announce_ms"), c->config->timeout.announce_ms);
	log_end(&e);
	if (!upgrade_is_going(&c->upgrade)) /* else the manager watches another one already */
		notify_manager("STOPPING=1");
	atomic_store_explicit(&c->router.is_draining, true, memory_order_relaxed);
	control_begin_drain(c);
}

/* What comes of it is in the log. */
static void control_reload(struct control *c) {
	json_t *report;
	(void)reload_run(&c->reload, &report);
	json_decref(report);
}

static void control_on_signal(struct signals *signals, int number) {
	struct control *c = container_of(signals, struct control, signals);
	if (number == SIGHUP && c->state == CONTROL_STARTING)
		c->is_reload_due = true;
	else if (number == SIGHUP) /* one that stops says no, in the log */
		control_reload(c);
	else if (number == SIGUSR2 && c->state == CONTROL_RUNNING)
		upgrade_start(&c->upgrade);
	else if (number != SIGUSR2)
		control_on_stop(c);
}

/* --- another process takes our place ------------------------------------------------------ */

static bool control_may_upgrade(const struct upgrade *u) {
	return container_of(u, const struct control, upgrade)->state == CONTROL_RUNNING;
}

static void control_close_zmq_records(struct control_sockets *s) {
	if (s->zmq_records >= 0)
		close(s->zmq_records);
	s->zmq_records = -1;
}

/* The socket, and who is known by it, so that the new process need not wait until they all have come again.
 */
static size_t control_collect_zmq(struct control *c, struct handed items[static 2]) {
	struct control_sockets *s = &c->sockets;
	if (!c->has_zmq)
		return 0;
	control_close_zmq_records(s);
	s->zmq_records = zmq_source_keep(&c->zmq);
	items[0] = (struct handed){ "zmq", s->zmq };
	items[1] = (struct handed){ "zmq_records", s->zmq_records };
	return s->zmq_records >= 0 ? 2 : 1;
}

static size_t control_collect(struct upgrade *u, struct handed **items_out) {
	struct control *c = container_of(u, struct control, upgrade);
	const struct control_sockets *s = &c->sockets;
	assert(c->state == CONTROL_RUNNING); /* else workers have closed them */
	u->timeout_ms = c->config->timeout.upgrade_ms;
	struct handed *items = calloc(s->n_data + 5, sizeof(*items));
	size_t n = 0;
	for (size_t i = 0; i < s->n_data; i++)
		items[n++] = (struct handed){ "data", s->data[i] };
	items[n++] = (struct handed){ "admin", s->admin };
	if (s->metrics >= 0)
		items[n++] = (struct handed){ "metrics", s->metrics };
	n += control_collect_zmq(c, items + n);
	if (fcntl(STDERR_FILENO, F_GETFD) >= 0)
		items[n++] = (struct handed){ "stderr", STDERR_FILENO };
	*items_out = items;
	return n;
}

/* We are as ready as before for whom we have, who are told by each answer to come again by another
 * connection. */
static void control_leave(struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_leave(&c->router.workers[i]);
	control_forget_data(c);
	control_begin_drain(c);
}

/* Engines whose connections end come again, to the process that listens now. */
static void control_leave_zmq(struct control *c) {
	if (!c->has_zmq)
		return;
	zmq_source_leave(&c->zmq);
	control_close_zmq_records(&c->sockets);
	close(c->sockets.zmq);
}

/* It serves. We may have been told to stop since it was told to go: then we are about it. */
static void control_on_successor(struct upgrade *u) {
	struct control *c = container_of(u, struct control, upgrade);
	endpoint_server_drain(&c->admin);
	if (control_has_metrics(c))
		endpoint_server_drain(&c->metrics);
	if (c->has_registry)
		registry_source_leave_file(&c->registry);
	control_leave_zmq(c);
	recruits_leave_file(c->report.recruits);
	instances_log_lost(c->fleet);
	watchdog_stop(&c->watchdog); /* or we would vouch for the one that the manager watches now */
	if (c->state == CONTROL_RUNNING)
		control_leave(c);
}

static void control_on_hurry(struct upgrade *u) {
	struct control *c = container_of(u, struct control, upgrade);
	if (c->state != CONTROL_ENDING)
		control_end(c);
}

static const struct upgrade_owner upgrade_owner = { control_may_upgrade, control_collect,
	control_on_successor, control_on_hurry };

/* --- the start ------------------------------------------------------------------------ */

static unsigned count_cpus(void) {
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	return (unsigned)CPU_COUNT(&set);
}

/* `path` may be "off"; *log_out is NULL then. */
static bool control_open_log(
    const struct control *c, const char *what, const char *path, bool is_daily, struct log_writer **log_out) {
	if (strcmp(path, "off") == 0)
		return true;
	*log_out = (is_daily ? log_writer_new_daily : log_writer_new)(path, c->router.n_workers);
	if (!*log_out)
		fprintf(stderr, "headrace router: %s %s: %s\n", what, path, strerror(errno));
	return *log_out;
}

static bool control_open_logs(struct control *c) {
	const struct router_config *config = c->config;
	bool is_file = strcmp(config->log_access, "-") != 0;
	bool is_daily = is_file && config->log_rotation == ROUTER_LOG_DAILY;
	if (!control_open_log(c, "access log", config->log_access, is_daily, &c->router.log) ||
	    !control_open_log(c, "log of choices", config->explain.log, false, &c->router.replay))
		return false;
	if (c->router.log && is_file && config->log_events == ROUTER_EVENTS_BOTH)
		log_copy_to(log_writer_fd(c->router.log));
	return true;
}

static bool control_listen(struct control *c, size_t worker, int fd) {
	int r = server_listen(&c->router.workers[worker].server, fd);
	if (r < 0)
		fprintf(stderr, "headrace router: worker %zu: %s\n", worker, strerror(-r));
	return r >= 0;
}

/* Before they run: what they publish, count and accept waits. */
static bool control_make_workers(struct control *c) {
	struct router *router = &c->router;
	const struct control_sockets *s = &c->sockets;
	if (router->prefixes)
		prefix_index_widen(router->prefixes, c->snapshot->n_rows);
	router->workers = calloc(router->n_workers, sizeof(*router->workers));
	router->petitions.workers = router->workers;
	router->petitions.n_workers = router->n_workers;
	for (unsigned i = 0; i < router->n_workers; i++) {
		int r = worker_init(&router->workers[i], router, i, i < s->n_data ? s->data[i] : -1);
		if (r < 0) {
			fprintf(stderr, "headrace router: worker %u: %s\n", i, strerror(-r));
			return false;
		}
		worker_adopt(&router->workers[i], snapshot_ref(c->snapshot));
		worker_take_tls(&router->workers[i], tls_server_ref(c->certificates.server),
		    tls_client_ref(c->certificates.client));
	}
	for (size_t i = router->n_workers; i < s->n_data; i++) /* the process before us had more */
		if (!control_listen(c, i % router->n_workers, s->data[i]))
			return false;
	router->clients.n_max = control_client_limit(c);
	return true;
}

static void control_say_ready(const struct control *c) {
	char url[TEXT_URL_BYTES];
	struct log_event e;
	log_begin(&e, LOG_INFO, "router is listening");
	(c->certificates.server ? text_print_tls_url : text_print_url)(
	    url, sizeof(url), c->config->host, c->config->port);
	line_text(&e.line, SLICE("data"), slice_of(url));
	text_print_url(url, sizeof(url), c->config->admin_host, c->config->admin_port);
	line_text(&e.line, SLICE("admin"), slice_of(url));
	line_uint(&e.line, SLICE("instances"), c->snapshot->n_rows);
	line_uint(&e.line, SLICE("threads"), c->router.n_workers);
	log_end(&e);
	notify_ready();
}

static bool control_listen_zmq(struct control *c) {
	int fd = c->has_zmq ? fcntl(c->sockets.zmq, F_DUPFD_CLOEXEC, 0) : -1;
	int r = !c->has_zmq ? 0 : fd < 0 ? -errno : zmq_source_listen(&c->zmq, fd);
	if (r < 0)
		fprintf(stderr, "headrace router: discovery socket: %s\n", strerror(-r));
	return r >= 0;
}

/* Clients may come. Workers for which there is no socket, beyond the first, do without. */
static bool control_accept(struct control *c) {
	struct router *router = &c->router;
	for (size_t i = c->sockets.n_data; i < router->n_workers && control_bind_data(c); i++)
		if (!control_listen(c, i, c->sockets.data[i]))
			return false;
	if (!control_open_admin(c) || !control_listen_zmq(c))
		return false;
	succession_say_serving(&c->succession);
	c->state = CONTROL_RUNNING;
	struct loop *loops[LOAD_WORKERS_MAX];
	for (unsigned i = 0; i < router->n_workers; i++) {
		loops[i] = &router->workers[i].loop;
		worker_start(&router->workers[i]);
	}
	watchdog_start(&c->watchdog, &c->loop, loops, router->n_workers);
	control_say_ready(c);
	return true;
}

/* --- in another process's place ------------------------------------------------------------ */

static void control_on_go(struct succession *s) {
	struct control *c = container_of(s, struct control, succession);
	timer_stop(&c->warm);
	if (!control_accept(c))
		_exit(1);
	handed_list_free(&s->handed);
	if (c->is_reload_due)
		control_reload(c);
	if (!c->is_told)
		return;
	c->is_told = false;
	control_on_stop(c);
}

/* Somebody would be told that a model does not exist, or that nobody serves it. */
static bool control_is_warm(const struct control *c) {
	for (uint32_t i = 0; i < c->snapshot->n_rows; i++) {
		const struct snapshot_row *row = &c->snapshot->rows[i];
		bool may_serve = row->state == INSTANCE_READY || row->state == INSTANCE_DEGRADED;
		if (row->state == INSTANCE_UNKNOWN || (may_serve && !row->are_models_known))
			return false;
	}
	return !c->has_registry || c->registry.is_heard || c->registry.counts.n_failures;
}

static void control_on_warm(struct timer *t) {
	struct control *c = container_of(t, struct control, warm);
	if (control_is_warm(c) || loop_now_ms(&c->loop) >= c->warm_until_ms)
		succession_offer(&c->succession);
	else
		loop_timer(&c->loop, &c->warm, PUBLISH_MS);
}

static void control_begin_warming(struct control *c) {
	timer_init(&c->warm, control_on_warm);
	loop_timer(&c->loop, &c->warm, PUBLISH_MS);
	c->warm_until_ms = loop_now_ms(&c->loop) + WARM_MS;
	succession_watch(&c->succession, &c->loop, control_on_go);
}

static void control_make_tables(struct control *c) {
	struct router *router = &c->router;
	const struct router_config *config = c->config;
	router->n_workers =
	    config->n_threads ? config->n_threads : (unsigned)size_min(count_cpus(), LOAD_WORKERS_MAX);
	router->settings = settings_new(config, router->n_workers, NULL);
	router->budget.max_bytes = config->hold_memory_bytes;
	router->load = load_new(router->n_workers);
	if (config->prefix_index_mib)
		router->prefixes = prefix_index_new(config->prefix_index_mib << 20);
	router->sessions =
	    session_table_new(config->policies.session_capacity, config->policies.session_idle_ms / 1000);
	router->responses =
	    session_table_new(config->policies.session_capacity, config->policies.session_idle_ms / 1000);
}

static void control_begin_watching(struct control *c) {
	const struct watch_intervals every = reload_watch_intervals(c->config);
	watcher_init(&c->watcher, &c->loop, c->fleet, &every, control_on_watch);
	kv_engines_init(&c->kv_engines, &c->loop, c->fleet, c->config->pd.connector, control_on_kv_engines);
	watcher_sync(&c->watcher, c->snapshot);
	health_sync(&c->health, c->snapshot);
	scraper_sync(&c->scraper, c->snapshot);
	kv_engines_sync(&c->kv_engines, c->snapshot);
	c->is_started = true;
}

static bool control_start(struct control *c) {
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR2 };
	struct router *router = &c->router;

	log_set_level(c->config->log_level);
	c->state = CONTROL_STARTING;
	control_make_tables(c);
	router->started_ns = clock_now_ns();
	c->report.router = router;
	explain_init(&c->report.explain, &c->loop, router);
	loop_setup_process();
	c->fleet = fleet_new();
	timer_init(&c->publish, control_on_publish);
	if (!succession_begin(&c->succession) || loop_init(&c->loop, &router->budget) < 0 ||
	    !control_open_tls(c) || !control_fill_fleet(c) || !control_open_registry(c))
		return false;
	control_open_zmq(c);
	if (!control_open_verdicts(c) || !control_open_logs(c) || !control_open_sockets(c))
		return false;
	upgrade_init(&c->upgrade, &c->loop, &upgrade_owner);
	c->report.upgrade = &c->upgrade;
	control_open_recruits(c);
	c->snapshot = fleet_build(c->fleet);
	c->report.snapshot = c->snapshot;
	control_open_gate(c);
	control_open_health(c);
	control_open_scraper(c);
	timer_init(&c->drain, control_on_drain);
	signals_init(&c->signals, &c->loop, signals, n_elems(signals), control_on_signal);
	if (!control_make_workers(c))
		return false;
	control_begin_watching(c);
	if (!succession_has_predecessor(&c->succession))
		return control_accept(c);
	control_begin_warming(c);
	return true;
}

static void control_free(struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_join(&c->router.workers[i]);
	watchdog_free(&c->watchdog);
	log_copy_to(-1);
	log_writer_free(&c->router.log);
	log_writer_free(&c->router.replay);
	/* A name server that is silent holds loop_deinit() and exit() up; all that matters is written. */
	if (resolver_n_running())
		_exit(0);
	certificates_deinit(&c->certificates);
	petitions_forget_workers(&c->router.petitions);
	loop_deliver(&c->loop); /* what the workers answered last: it is lent from this loop's pool */
	control_close_gate(c);
	verdicts_free(&c->router.verdicts);
	loop_deinit(&c->loop);
	endpoint_server_deinit(&c->admin);
	if (control_has_metrics(c))
		endpoint_server_deinit(&c->metrics);
	snapshot_unref(&c->snapshot);
	fleet_free(&c->fleet);
	load_free(&c->router.load);
	prefix_index_free(&c->router.prefixes);
	session_table_free(&c->router.sessions);
	session_table_free(&c->router.responses);
	free(c->router.workers);
	free(c->sockets.data);
	settings_unref(&c->router.settings);
}

/* What is to be kept there would be lost without a word to who starts it. */
static bool make_state_dir(const struct router_config *config) {
	int r = config->state_dir[0] ? folder_make(config->state_dir) : 0;
	if (r)
		fprintf(stderr, "headrace router: router.state_dir: nothing can be kept in %s: %s\n",
		    config->state_dir, strerror(-r));
	return !r;
}

int router_main(int argc, char **argv) {
	static struct control control; /* large, and one a process */
	struct control *c = &control;
	struct router_config *config;
	int r = router_config_load(argc, argv, &config);
	if (r >= 0)
		return r;
	c->config = config;
	if (!make_state_dir(config))
		return 2;
	if (!control_start(c))
		return 1; /* the system takes back what was opened */
	settings_own(c->router.settings, config);
	control_open_reload(c, argc, argv);
	loop_run(&c->loop);
	control_free(c);
	return 0;
}
