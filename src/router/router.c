/*
 * The control thread: starts the workers, keeps the fleet true, answers on the admin
 * listeners, and ends the process in order.
 */
#include "router/router.h"

#include <errno.h>
#include <netdb.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "discovery/watch.h"
#include "net/resolver.h"
#include "net/signals.h"
#include "router/report.h"
#include "router/worker.h"

#define FD_RESERVE     32u /* log, admin clients, probes, what libraries open */
#define DRAIN_CHECK_MS 20

enum control_state {
	CONTROL_RUNNING = 1,
	CONTROL_ANNOUNCING, /* not ready, still accepting */
	CONTROL_DRAINING,   /* not accepting, streams finish */
};

struct control {
	struct loop loop;
	struct router router;
	struct router_config *config;
	struct fleet *fleet;
	struct snapshot *snapshot; /* the newest, as published */
	struct watcher watcher;
	struct admin admin, metrics;
	bool has_metrics_listener;
	struct report report;
	struct signals signals;
	struct timer drain;
	uint64_t drain_until_ms;
	enum control_state state;
};

/* --- fleet -------------------------------------------------------------------- */

static void control_publish(struct watcher *watcher) {
	struct control *c = container_of(watcher, struct control, watcher);
	struct snapshot *next = fleet_build(c->fleet);
	if (!next)
		return;
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_publish(&c->router.workers[i], snapshot_ref(next));
	snapshot_unref(&c->snapshot);
	c->snapshot = next;
	c->report.snapshot = next;
}

static struct pairs pairs_of_list(const struct option_list *list, struct pair *room) {
	for (size_t i = 0; i < list->n; i++)
		room[i] = (struct pair){ .key = slice_of(list->items[i]) };
	return (struct pairs){ room, (uint32_t)list->n };
}

static struct pairs pairs_of_map(const struct option_map *map, struct pair *room) {
	for (size_t i = 0; i < map->n; i++)
		room[i] = (struct pair){ slice_of(map->items[i].name), slice_of(map->items[i].value) };
	return (struct pairs){ room, (uint32_t)map->n };
}

/* One configured worker becomes a record of the static source. */
static int control_add_worker(struct control *c, const struct router_worker *w) {
	struct pair *models = calloc(w->models.n + 1, sizeof(*models));
	struct pair *labels = calloc(w->labels.n + 1, sizeof(*labels));
	struct fleet_spec spec = {
		.instance = { .name = slice_of(w->name),
		    .url = slice_of(w->url),
		    .host = slice_of(w->host),
		    .port = w->port },
		.weight = w->weight,
		.models = pairs_of_list(&w->models, models),
		.labels = pairs_of_map(&w->labels, labels),
	};
	spec.instance.authority = slice_skip(spec.instance.url, strlen("http://"));
	int r = fleet_upsert(c->fleet, SOURCE_STATIC, &spec);
	free(models);
	free(labels);
	return r;
}

static bool control_fill_fleet(struct control *c) {
	c->fleet = fleet_new();
	for (size_t i = 0; i < c->config->workers.n; i++) {
		const struct router_worker *w = &c->config->workers.items[i];
		int r = control_add_worker(c, w);
		if (r) {
			fprintf(stderr, "headrace router: worker %s: %s\n", w->name,
			    r == FLEET_E_FULL ? "too many instances" : "beyond a limit of the fleet table");
			return false;
		}
	}
	c->snapshot = fleet_build(c->fleet);
	c->report.snapshot = c->snapshot;
	return true;
}

/* --- descriptors and sockets ------------------------------------------------------ */

/* The soft limit is raised to the hard one; what is left for clients is half, since each may need an engine.
 */
static unsigned control_client_limit(void) {
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	rlim_t soft = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	getrlimit(RLIMIT_NOFILE, &limit);

	int probe = dup(STDERR_FILENO); /* the lowest free number: about as many are open */
	uint64_t used = (uint64_t)(probe < 0 ? 16 : probe) + FD_RESERVE;
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

/* The first address of a configured host. */
static bool control_address(const char *host, uint16_t port, struct sockaddr_storage *out) {
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *list;
	char service[8];
	snprintf(service, sizeof(service), "%u", port);
	if (getaddrinfo(host, service, &hints, &list) != 0)
		return false;
	memcpy(out, list->ai_addr, list->ai_addrlen);
	freeaddrinfo(list);
	return true;
}

static int control_bind(const char *what, const char *host, uint16_t port, bool shared) {
	struct sockaddr_storage address;
	int fd = control_address(host, port, &address) ? listener_bind((struct sockaddr *)&address, shared)
						       : -EADDRNOTAVAIL;
	if (fd < 0)
		fprintf(stderr, "headrace router: %s: cannot listen at %s:%u: %s\n", what, host, port,
		    strerror(-fd));
	return fd;
}

/* One socket a worker on one port; first bound alone, since a taken port is an error and not half the
 * traffic. */
static bool control_bind_data(struct control *c, int *fds, uint16_t *port_out) {
	const struct router_config *config = c->config;
	int probe = control_bind("data", config->host, config->port, false);
	if (probe < 0)
		return false;
	*port_out = listener_port(probe);
	close(probe);
	for (unsigned i = 0; i < c->router.n_workers; i++)
		if ((fds[i] = control_bind("data", config->host, *port_out, true)) < 0)
			return false;
	return true;
}

static bool control_open_admin(struct control *c) {
	const struct router_config *config = c->config;
	int fd = control_bind("admin", config->admin_host, config->admin_port, false);
	if (fd < 0 ||
	    admin_open(
		&c->admin, &c->loop, fd, report_admin_endpoints, report_n_admin_endpoints, &c->report) < 0)
		return false;
	c->has_metrics_listener = config->metrics_port != config->admin_port ||
	    strcmp(config->metrics_host, config->admin_host) != 0;
	if (!c->has_metrics_listener)
		return true;
	fd = control_bind("metrics", config->metrics_host, config->metrics_port, false);
	return fd >= 0 &&
	    admin_open(&c->metrics, &c->loop, fd, report_metrics_endpoints, report_n_metrics_endpoints,
		&c->report) >= 0;
}

/* --- the end ------------------------------------------------------------------------ */

static void control_stop(struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_stop(&c->router.workers[i]);
	timer_stop(&c->drain);
	watcher_deinit(&c->watcher);
	admin_close(&c->admin);
	if (c->has_metrics_listener)
		admin_close(&c->metrics);
	signals_close(&c->signals);
	loop_stop(&c->loop);
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

static void control_on_drain(struct timer *t) {
	struct control *c = container_of(t, struct control, drain);
	uint64_t now = loop_now_ms(&c->loop);
	if (c->state == CONTROL_ANNOUNCING) {
		for (unsigned i = 0; i < c->router.n_workers; i++)
			worker_drain(&c->router.workers[i]);
		c->state = CONTROL_DRAINING;
		struct log_event e;
		log_begin(&e, LOG_INFO, "stopping: not accepting, requests at work finish");
		line_uint(&e.line, SLICE("drain_ms"), c->config->timeout.drain_ms);
		log_end(&e);
		c->drain_until_ms = now + c->config->timeout.drain_ms;
	} else if (!control_has_clients(c) || now >= c->drain_until_ms) {
		control_stop(c);
		return;
	}
	loop_timer(&c->loop, &c->drain, DRAIN_CHECK_MS);
}

static void control_on_signal(struct signals *signals, int number) {
	struct control *c = container_of(signals, struct control, signals);
	if (c->state != CONTROL_RUNNING) { /* a second one: now */
		control_stop(c);
		return;
	}
	struct log_event e;
	log_begin(&e, LOG_INFO, "stopping: not ready, still accepting");
	line_uint(&e.line, SLICE("announce_ms"), c->config->timeout.announce_ms);
	log_end(&e);
	c->state = CONTROL_ANNOUNCING;
	atomic_store_explicit(&c->router.is_draining, true, memory_order_relaxed);
	loop_timer(&c->loop, &c->drain, c->config->timeout.announce_ms);
}

/* --- the start ------------------------------------------------------------------------ */

static unsigned count_cpus(void) {
	cpu_set_t set;
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	return (unsigned)CPU_COUNT(&set);
}

static bool control_open_log(struct control *c) {
	const char *path = c->config->log_access;
	char joined[4096];
	if (strcmp(path, "off") == 0)
		return true;
	if (strcmp(path, "-") != 0 && path[0] != '/' && c->config->log_dir[0]) {
		snprintf(joined, sizeof(joined), "%s/%s", c->config->log_dir, path);
		path = joined;
	}
	c->router.log = log_writer_new(path, c->router.n_workers);
	if (!c->router.log)
		fprintf(stderr, "headrace router: access log %s: %s\n", path, strerror(errno));
	return c->router.log;
}

static bool control_start_workers(struct control *c, uint16_t *port_out) {
	struct router *router = &c->router;
	int fds[LOAD_WORKERS_MAX] = { 0 };
	if (!control_bind_data(c, fds, port_out))
		return false;
	router->workers = calloc(router->n_workers, sizeof(*router->workers));
	for (unsigned i = 0; i < router->n_workers; i++) {
		int r = worker_init(&router->workers[i], router, i, fds[i]);
		if (r < 0) {
			fprintf(stderr, "headrace router: worker %u: %s\n", i, strerror(-r));
			return false;
		}
		worker_adopt(&router->workers[i], snapshot_ref(c->snapshot));
	}
	router->clients.n_max = control_client_limit();
	for (unsigned i = 0; i < router->n_workers; i++)
		worker_start(&router->workers[i]);
	return true;
}

static void print_url(char url[300], const char *host, uint16_t port) {
	bool is_ipv6 = strchr(host, ':');
	snprintf(url, 300, "http://%s%.250s%s:%u", is_ipv6 ? "[" : "", host, is_ipv6 ? "]" : "", port);
}

static void control_say_ready(const struct control *c, uint16_t port) {
	char url[300];
	struct log_event e;
	log_begin(&e, LOG_INFO, "router is listening");
	print_url(url, c->config->host, port);
	line_text(&e.line, SLICE("data"), slice_of(url));
	print_url(url, c->config->admin_host, listener_port(c->admin.server.listener.fd));
	line_text(&e.line, SLICE("admin"), slice_of(url));
	line_uint(&e.line, SLICE("instances"), c->config->workers.n);
	line_uint(&e.line, SLICE("threads"), c->router.n_workers);
	log_end(&e);
}

static bool control_start(struct control *c) {
	static const int signals[] = { SIGTERM, SIGINT };
	struct router *router = &c->router;
	const struct router_config *config = c->config;

	log_set_level(config->log_level);
	c->state = CONTROL_RUNNING;
	router->config = config;
	router->n_workers =
	    config->n_threads ? config->n_threads : (unsigned)size_min(count_cpus(), LOAD_WORKERS_MAX);
	router->budget.max_bytes = config->hold_memory_bytes;
	router->load = load_new(router->n_workers);
	router->started_ns = clock_now_ns();
	c->report.router = router;
	loop_setup_process();
	if (loop_init(&c->loop, &router->budget) < 0 || !control_fill_fleet(c) || !control_open_log(c) ||
	    !control_open_admin(c))
		return false;
	uint16_t port;
	timer_init(&c->drain, control_on_drain);
	signals_init(&c->signals, &c->loop, signals, n_elems(signals), control_on_signal);
	if (!control_start_workers(c, &port))
		return false;
	struct watch_intervals every = { config->models_interval_ms, config->models_timeout_ms,
		config->resolve_interval_ms };
	watcher_init(&c->watcher, &c->loop, c->fleet, &every, control_publish);
	watcher_sync(&c->watcher, c->snapshot);
	control_say_ready(c, port);
	return true;
}

static void control_free(struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_join(&c->router.workers[i]);
	log_writer_free(&c->router.log);
	/* A name server that is silent holds loop_deinit() and exit() up; all that matters is written. */
	if (resolver_n_running())
		_exit(0);
	loop_deinit(&c->loop);
	admin_deinit(&c->admin);
	if (c->has_metrics_listener)
		admin_deinit(&c->metrics);
	snapshot_unref(&c->snapshot);
	fleet_free(&c->fleet);
	load_free(&c->router.load);
	free(c->router.workers);
	router_config_free(&c->config);
}

int router_main(int argc, char **argv) {
	static struct control control; /* large, and one a process */
	struct control *c = &control;
	int r = router_config_load(argc, argv, &c->config);
	if (r >= 0)
		return r;
	if (!control_start(c))
		return 1; /* the system takes back what was opened */
	loop_run(&c->loop);
	control_free(c);
	return 0;
}
