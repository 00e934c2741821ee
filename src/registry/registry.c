/*
 * The program: opens the store, fills the roster, listens, and ends in order:
 *
 *     RUNNING -> DRAINING -> end
 *
 * Draining takes no new connections, tells the watchers good-bye and waits until what was
 * asked is answered, for DRAIN_MS at most; then the store writes what it still has.
 */
#include "registry/registry.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/folder.h"
#include "base/notify.h"
#include "base/text.h"
#include "net/certificates.h"
#include "net/signals.h"
#include "net/watchdog.h"
#include "registry/registry_change.h"
#include "registry/registry_routes.h"

#define MEMORY_BYTES     (512u << 20) /* lent to bodies, heads and output that wait */
#define DRAIN_MS         10000u
#define DRAIN_CHECK_MS   10u
#define STORE_PATIENCE_S 1u /* after a second signal */

struct registry {
	struct loop loop;
	struct buf_budget budget;
	struct registry_config config;
	struct roster *roster;
	struct store *store;
	struct registry_core core;
	struct registry_routes routes;
	struct watchers watchers;
	struct prober prober;
	struct signals signals;
	struct certificates certificates;
	struct watchdog watchdog;
	struct timer tick, sweep, drain;
	uint64_t drain_until_ms;
	bool is_draining;
};

/* --- while it runs -------------------------------------------------------------------- */

static void registry_on_tick(struct timer *t) {
	struct registry *r = container_of(t, struct registry, tick);

	registry_core_tick(&r->core);
	loop_timer(&r->loop, &r->tick, ROSTER_TICK_MS);
}

static void registry_on_sweep(struct timer *t) {
	struct registry *r = container_of(t, struct registry, sweep);

	registry_change_sweep(&r->core);
	loop_timer(&r->loop, &r->sweep, r->config.cleanup_interval_ms);
}

static void registry_on_probed(struct prober *p, struct slice name, bool is_healthy) {
	struct registry *r = container_of(p, struct registry, prober);

	registry_core_set_health(&r->core, name, is_healthy);
}

static bool registry_may_ask(struct prober *p, const struct sockaddr_storage *address) {
	return registry_config_allows_address(&container_of(p, struct registry, prober)->config, address);
}

/* --- the end ---------------------------------------------------------------------------- */

static void registry_stop(struct registry *r) {
	watchdog_stop(&r->watchdog);
	timer_stop(&r->drain);
	timer_stop(&r->tick);
	store_close(r->store);
	prober_deinit(&r->prober);
	registry_routes_close(&r->routes);
	signals_close(&r->signals);
	certificates_close(&r->certificates);
	loop_stop(&r->loop);
}

static void registry_on_drain(struct timer *t) {
	struct registry *r = container_of(t, struct registry, drain);
	bool has_clients =
	    atomic_load_explicit(&r->routes.server.server.n_sessions, memory_order_relaxed) > 0;

	if (has_clients && loop_now_ms(&r->loop) < r->drain_until_ms)
		loop_timer(&r->loop, &r->drain, DRAIN_CHECK_MS);
	else
		registry_stop(r);
}

/* What was acknowledged is on disk. */
static void registry_on_alarm(int number) {
	_exit(1);
}

static void registry_take_certificates(struct certificates *now) {
	struct registry *r = container_of(now, struct registry, certificates);

	tls_server_unref(&r->routes.server.server.tls);
	r->routes.server.server.tls = tls_server_ref(now->server);
}

/* False: a message was printed. */
static bool registry_open_tls(struct registry *r) {
	char why[TLS_WHY_BYTES];

	r->certificates = (struct certificates){
		.server_files = &r->config.tls.files,
		.client_files = &r->config.peer,
		.on_change = registry_take_certificates,
	};
	if (!certificates_open(&r->certificates, &r->loop, why)) {
		fprintf(stderr, "headrace registry: tls: %s\n", why);
		return false;
	}
	registry_take_certificates(&r->certificates);
	return true;
}

static void registry_on_signal(struct signals *signals, int number) {
	struct registry *r = container_of(signals, struct registry, signals);
	struct log_event e;

	if (number == SIGHUP) {
		certificates_reload(&r->certificates);
		return;
	}

	if (r->is_draining) { /* a second one: now, also where the disk does not answer */
		signal(SIGALRM, registry_on_alarm);
		alarm(STORE_PATIENCE_S);
		registry_stop(r);
		return;
	}
	log_begin(&e, LOG_INFO, "stopping");
	log_end(&e);
	notify_manager("STOPPING=1");
	r->is_draining = true;
	timer_stop(&r->sweep);
	endpoint_server_drain(&r->routes.server);
	watchers_close(&r->watchers);
	r->drain_until_ms = clock_now_ns() / 1000000u + DRAIN_MS;
	loop_timer(&r->loop, &r->drain, 0);
}

/* --- the start ---------------------------------------------------------------------------- */

/* A listening socket; negative: a message was printed. */
static int registry_bind(const struct registry_config *config) {
	int fd = listener_bind_host(config->host, config->port, false);
	if (fd < 0)
		fprintf(stderr, "headrace registry: cannot listen at %s:%u: %s\n", config->host, config->port,
		    strerror(-fd));
	return fd;
}

static bool registry_open_store(struct registry *r) {
	const char *folder = r->config.store == REGISTRY_SQLITE ? r->config.state_dir : NULL;
	struct store_fault fault;
	int error = folder ? folder_make(folder) : 0;

	if (error < 0) {
		fprintf(stderr, "headrace registry: %s: %s\n", folder, strerror(-error));
		return false;
	}
	r->store = store_open(folder, &fault);
	if (!r->store)
		fprintf(stderr, "headrace registry: %s\n", fault.text);
	return r->store;
}

static bool registry_on_stored(void *context, struct slice name, struct slice json) {
	struct registry *r = context;
	struct record *record = record_new_stored(json, clock_wall_ms());

	if (!record)
		return false;
	roster_restore(r->roster, record, clock_now_ns() / 1000000u);
	return true;
}

static bool registry_fill_roster(struct registry *r) {
	struct store_fault fault;
	struct rng rng;

	rng_init_random(&rng);
	const struct roster_options options = { .records_max = r->config.n_records_max,
		.epoch = store_epoch(r->store),
		.version = store_version(r->store),
		.ttl_ms = r->config.ttl_ms,
		.seed = rng_next(&rng) };
	r->roster = roster_new(&options, clock_now_ns() / 1000000u);
	if (store_load(r->store, registry_on_stored, r, &fault))
		return true;
	fprintf(stderr, "headrace registry: %s\n", fault.text);
	return false;
}

static void registry_begin(struct registry *r) {
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	const struct roster_filter all = { .healthy = ROSTER_ANY };
	const struct roster_entry *e = NULL;

	store_start(r->store, &r->loop);
	watchers_init(&r->watchers, &r->loop, r->roster);
	prober_init(&r->prober, &r->loop, r->config.health_interval_ms, r->config.health_timeout_ms,
	    registry_on_probed, registry_may_ask);
	while ((e = roster_next(r->roster, e, &all)))
		registry_core_probe(&r->core, e->record);
	timer_init(&r->tick, registry_on_tick);
	timer_init(&r->sweep, registry_on_sweep);
	timer_init(&r->drain, registry_on_drain);
	loop_timer(&r->loop, &r->tick, ROSTER_TICK_MS);
	loop_timer(&r->loop, &r->sweep, r->config.cleanup_interval_ms);
	signals_init(&r->signals, &r->loop, signals, n_elems(signals), registry_on_signal);
}

static void registry_say_ready(const struct registry *r, uint16_t port) {
	struct roster_counts n;
	struct log_event e;
	char url[TEXT_URL_BYTES];

	roster_counts(r->roster, &n);
	(r->routes.server.server.tls ? text_print_tls_url : text_print_url)(
	    url, sizeof(url), r->config.host, port);
	log_begin(&e, LOG_INFO, "registry is listening");
	line_text(&e.line, SLICE("url"), slice_of(url));
	if (r->config.store == REGISTRY_SQLITE)
		line_text(&e.line, SLICE("state_dir"), slice_of(r->config.state_dir));
	line_uint(&e.line, SLICE("services"), n.n_records);
	log_end(&e);
	notify_ready();
}

static bool registry_start(struct registry *r) {
	log_set_level(r->config.log_level);
	(void)descriptors_raise();
	loop_setup_process();
	r->budget.max_bytes = MEMORY_BYTES;
	int fd = registry_bind(&r->config);
	if (fd < 0 || loop_init(&r->loop, &r->budget) < 0 || !registry_open_store(r) ||
	    !registry_fill_roster(r))
		return false;
	r->core = (struct registry_core){ .loop = &r->loop,
		.config = &r->config,
		.roster = r->roster,
		.store = r->store,
		.prober = &r->prober,
		.watchers = &r->watchers };
	r->routes.core = &r->core;
	registry_begin(r);
	if (registry_routes_open(&r->routes, fd) < 0)
		return false;
	if (!registry_open_tls(r))
		return false;
	watchdog_start(&r->watchdog, &r->loop, NULL, 0);
	registry_say_ready(r, listener_port(fd));
	return true;
}

static void registry_free(struct registry *r) {
	/* A name server that is silent holds loop_deinit() and exit() up; all that matters is stored. */
	if (resolver_n_running())
		_exit(0);
	watchdog_free(&r->watchdog);
	loop_deinit(&r->loop);
	tls_server_unref(&r->routes.server.server.tls);
	certificates_deinit(&r->certificates);
	registry_routes_deinit(&r->routes);
	watchers_deinit(&r->watchers);
	store_free(&r->store);
	roster_free(&r->roster);
}

int registry_main(int argc, char **argv) {
	static struct registry registry; /* large, and one a process */
	struct registry *r = &registry;
	int code = registry_config_load(&r->config, argc, argv);

	if (code < 0) {
		code = 1;
		if (registry_start(r)) {
			loop_run(&r->loop);
			registry_free(r);
			code = 0;
		}
	}
	registry_config_deinit(&r->config);
	return code;
}
