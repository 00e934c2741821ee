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
#include "net/resolver.h"
#include "policy/session_table.h"
#include "router/control.h"
#include "router/verdicts.h"

#define FD_RESERVE 32u  /* log, admin clients, probes, what libraries open */
#define WARM_MS    5000 /* of what a successor waits for: an instance that is silent is not */

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

bool control_has_metrics(const struct control *c) {
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
		loop_timer(&c->loop, &c->warm, CONTROL_PUBLISH_MS);
}

static void control_begin_warming(struct control *c) {
	timer_init(&c->warm, control_on_warm);
	loop_timer(&c->loop, &c->warm, CONTROL_PUBLISH_MS);
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
	upgrade_init(&c->upgrade, &c->loop, &control_upgrade_owner);
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
