/*
 * One loop ties the parts together and none of them knows another:
 *
 *     keeper     the engine's process        -> on_change: who looks, what is registered
 *     readiness  whether it serves           -> keeper: READY, ALIVE, UNREADY
 *     idleness   whether a drain has ended   -> keeper: STOP
 *     registrar  the two records             <- what is true, whenever something changed
 *     routes     what is answered
 *
 * The end: told to leave -> both names are deregistered, and the engine finishes what it
 * has and is stopped -> it is gone, and the registry knows (or is away, or has had its
 * second) -> the loop ends.
 */
#include "babysitter/babysitter.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "babysitter/advertise.h"
#include "babysitter/babysitter_routes.h"
#include "babysitter/backend.h"
#include "babysitter/idleness.h"
#include "base/clock.h"
#include "base/descriptors.h"
#include "base/notify.h"
#include "base/text.h"
#include "net/certificates.h"
#include "net/route.h"
#include "net/signals.h"
#include "net/watchdog.h"

#define BUDGET_BYTES       (64u << 20)
#define DEREGISTER_MS      1000  /* while the engine drains and stops: no more than this on top */
#define PORT_LINE_MS       30000 /* infinilm-rust: then its port is taken to be the configured one */
#define ADVERTISE_RETRY_MS 1000
#define STATE_DIR_BYTES    1024
#define N_LEASE_HEARTBEATS 3 /* of which two may be lost */
#define LEASE_MIN_S        5 /* a busy machine is not a dead one */

enum life { LIFE_RUNNING = 1, LIFE_LEAVING, LIFE_ENDED };

struct babysitter {
	struct loop loop;
	struct buf_budget budget;
	struct babysitter_config config;
	struct backend backend;
	struct keeper_config keeper_config;
	struct spawn_limit *limits; /* the engine's: ours as they were at the start, then the configured */
	struct keeper keeper;
	struct readiness_rules readiness_rules;
	struct readiness readiness;
	struct idleness idleness;
	struct origin *origin; /* the registry; NULL: none */
	struct registrar registrar;
	struct resolver *resolver; /* of the registry's name, to find the way to it */
	struct babysitter_routes routes;
	struct endpoint_server server;
	struct signals signals;
	struct log_writer *log;
	struct timer patience; /* for the registry, while leaving */
	struct timer retry;    /* of finding the way */
	struct timer port_line;
	struct job step;
	enum life life;
	int exit_code;
	struct certificates certificates;
	struct watchdog watchdog;
	bool is_registering;   /* the place is ours: so are the names */
	uint64_t seen_spawned; /* the process that is, or was last, looked at */
	char prefix[OUTPUT_PREFIX_MAX];
	char state_dir[STATE_DIR_BYTES];
	char host[ADVERTISE_BYTES]; /* that is registered; "" while it is not known */
};

/* --- records ---------------------------------------------------------------------------- */

static json_t *make_record(const struct babysitter *b, const char *name, uint16_t port, json_t *metadata) {
	char url[TEXT_URL_BYTES];

	(b->config.tls.files.n ? text_print_tls_url : text_print_url)(url, sizeof(url), b->host, port);
	uint64_t ttl_s = (N_LEASE_HEARTBEATS * b->config.heartbeat_ms + 999) / 1000;
	return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:I, s:o}", "name", name, "host", b->host,
	    "hostname", b->host, "port", port, "url", url, "status", "running", "ttl",
	    (json_int_t)u64_max(ttl_s, LEASE_MIN_S), "metadata", metadata);
}

/* An engine that lists its models is of use when it has listed one. */
static bool has_models(const struct readiness *r) {
	return !r->has_list || json_array_size(r->models) > 0;
}

static void babysitter_register(struct babysitter *b) {
	const struct keeper *k = &b->keeper;
	bool is_leaving = b->life != LIFE_RUNNING;

	/* A second babysitter of the same name must not touch what is the first one's. */
	b->is_registering |= k->child.n_spawned > 0 || k->child.state == CHILD_BACKOFF;
	if (!b->origin || !b->host[0] || !b->is_registering || b->life == LIFE_ENDED)
		return;
	json_t *own = NULL, *server = NULL;
	if (!is_leaving)
		own = make_record(b, b->config.name, (uint16_t)(b->config.port + 1),
		    backend_own_metadata(&b->config, babysitter_routes_state(&b->routes)));
	if (babysitter_routes_is_serving(&b->routes) && has_models(&b->readiness))
		server = make_record(b, registrar_name(&b->registrar, REGISTRAR_SERVER), b->readiness.port,
		    backend_server_metadata(&b->config, b->readiness.models));
	registrar_want(&b->registrar, REGISTRAR_SERVER, server);
	registrar_want(&b->registrar, REGISTRAR_OWN, own);
}

/* --- the address that others reach us by ----------------------------------------------- */

/* An engine that listens at 0.0.0.0 does not answer by IPv6; one at :: mostly does by both. */
static bool is_listening_at(const struct babysitter *b, const struct sockaddr_storage *address) {
	return address->ss_family == AF_INET || strchr(b->config.host, ':');
}

static void find_host(struct babysitter *b) {
	struct text_url url;
	char name[ORIGIN_URL_MAX];

	if (!text_url(slice_of(b->config.registry_url), &url))
		return; /* it was checked */
	snprintf(name, sizeof(name), "%.*s", (int)url.host.n, url.host.p);
	resolver_start(b->resolver, &b->loop, name, url.port);
}

static void on_retry(struct timer *t) {
	find_host(container_of(t, struct babysitter, retry));
}

static void on_addresses(struct resolver *r, const struct sockaddr_storage *addresses, size_t n) {
	struct babysitter *b = resolver_context(r);
	struct log_event e;

	if (n == 0) {
		loop_timer(&b->loop, &b->retry, ADVERTISE_RETRY_MS);
		return;
	}
	bool is_found = false;
	for (size_t i = 0; i < n && !is_found; i++)
		is_found = is_listening_at(b, &addresses[i]) && route_source(&addresses[i], b->host);
	if (!is_found)
		advertise_by_name(b->host);
	log_begin(&e, LOG_INFO, "address to register found");
	line_text(&e.line, SLICE("host"), slice_of(b->host));
	log_end(&e);
	babysitter_register(b);
}

static void babysitter_find_host(struct babysitter *b) {
	if (b->config.advertise[0])
		snprintf(b->host, sizeof(b->host), "%s", b->config.advertise);
	else if (!text_is_wildcard(slice_of(b->config.host)))
		snprintf(b->host, sizeof(b->host), "%s", b->config.host);
	else if (b->origin)
		find_host(b);
}

/* --- the end ------------------------------------------------------------------------------ */

static void on_idle(struct idleness *i, bool is_idle) {
	struct babysitter *b = container_of(i, struct babysitter, idleness);
	struct log_event e;

	log_begin(&e, is_idle ? LOG_INFO : LOG_WARN, is_idle ? "drained" : "drain has taken too long");
	line_text(&e.line, SLICE("service"), slice_of(b->config.name));
	log_end(&e);
	keeper_tell(&b->keeper, CHILD_E_STOP);
}

/* What does not answer any more would never be done: neither now nor later (on_look). */
static void babysitter_drain(struct babysitter *b) {
	bool is_ready = b->keeper.child.state == CHILD_READY;
	bool is_hung = is_ready && !readiness_is_good(&b->readiness);

	keeper_tell(&b->keeper, is_hung ? CHILD_E_STOP : CHILD_E_DRAIN);
	if (is_ready && !is_hung)
		idleness_start(&b->idleness, &b->loop, readiness_origin(&b->readiness), b->readiness.port,
		    b->config.drain_timeout_ms, on_idle);
}

/* The rest happens in a job: this is called from anywhere. */
static void babysitter_leave(struct babysitter *b, int exit_code) {
	if (b->life != LIFE_RUNNING)
		return;
	b->life = LIFE_LEAVING;
	b->exit_code = exit_code;
	b->routes.is_leaving = true;
	notify_manager("STOPPING=1");
	babysitter_register(b);
	babysitter_drain(b);
	loop_timer(&b->loop, &b->patience, DEREGISTER_MS);
	loop_wake(&b->loop, &b->step);
}

static void on_patience(struct timer *t) {
	struct babysitter *b = container_of(t, struct babysitter, patience);
	loop_wake(&b->loop, &b->step);
}

static bool is_deregistered(const struct babysitter *b) {
	return !b->origin || registrar_is_settled(&b->registrar) || registrar_is_in_vain(&b->registrar) ||
	    !timer_is_running(&b->patience);
}

static void babysitter_end(struct babysitter *b) {
	b->life = LIFE_ENDED;
	watchdog_stop(&b->watchdog);
	timer_stop(&b->patience);
	timer_stop(&b->retry);
	timer_stop(&b->port_line);
	babysitter_routes_forget(&b->routes);
	idleness_stop(&b->idleness);
	readiness_deinit(&b->readiness);
	if (b->origin) {
		registrar_deinit(&b->registrar);
		origin_free(&b->origin);
	}
	resolver_free(&b->resolver);
	endpoint_server_close(&b->server);
	keeper_close(&b->keeper);
	signals_close(&b->signals);
	certificates_close(&b->certificates);
	loop_stop(&b->loop);
}

static void on_step(struct job *j) {
	struct babysitter *b = container_of(j, struct babysitter, step);
	const struct child *child = &b->keeper.child;
	bool is_over = child->state == CHILD_STOPPED || child->state == CHILD_FAILED;

	if (b->life == LIFE_LEAVING && is_over && is_deregistered(b))
		babysitter_end(b);
}

static void on_registered(struct registrar *r) {
	struct babysitter *b = container_of(r, struct babysitter, registrar);
	loop_wake(&b->loop, &b->step);
}

/* --- certificates ------------------------------------------------------------------------- */

static void babysitter_take_certificates(struct certificates *now) {
	struct babysitter *b = container_of(now, struct babysitter, certificates);

	tls_server_unref(&b->server.server.tls);
	b->server.server.tls = tls_server_ref(now->server);
}

/* False: a message was printed. */
static bool babysitter_open_tls(struct babysitter *b) {
	char why[TLS_WHY_BYTES];

	b->certificates = (struct certificates){
		.server_files = &b->config.tls.files,
		.client_files = &b->config.peer,
		.on_change = babysitter_take_certificates,
	};
	if (certificates_open(&b->certificates, &b->loop, why))
		return true;
	fprintf(stderr, "headrace babysitter: tls: %s\n", why);
	return false;
}

static void on_signal(struct signals *signals, int number) {
	struct babysitter *b = container_of(signals, struct babysitter, signals);

	if (number == SIGHUP) {
		certificates_reload(&b->certificates);
		return;
	}
	if (b->life == LIFE_LEAVING) { /* a second one: nobody is waited for */
		timer_stop(&b->patience);
		keeper_tell(&b->keeper, CHILD_E_STOP);
		loop_wake(&b->loop, &b->step);
	}
	babysitter_leave(b, 0);
}

/* --- looking ------------------------------------------------------------------------------ */

static void on_line(struct output *output, struct slice line) {
	struct babysitter *b = container_of(output, struct babysitter, keeper.output);
	uint16_t port = backend_port_of_line(line);

	if (b->readiness.state == READINESS_SERVING)
		output->on_line = NULL;
	else if (port == 0 || (b->readiness.state == READINESS_TRYING && b->readiness.port == port))
		port = 0; /* nothing new */
	if (!output->on_line || port == 0)
		return;
	timer_stop(&b->port_line);
	readiness_start(&b->readiness, port);
}

static void on_port_line(struct timer *t) {
	struct babysitter *b = container_of(t, struct babysitter, port_line);
	readiness_start(&b->readiness, b->config.port); /* it may still say another */
}

static void babysitter_look(struct babysitter *b) {
	if (b->config.backend.type == BACKEND_INFINILM_RUST) {
		b->keeper.output.on_line = on_line;
		loop_timer(&b->loop, &b->port_line, PORT_LINE_MS);
	} else {
		readiness_start(&b->readiness, b->config.port);
	}
}

static void babysitter_look_away(struct babysitter *b) {
	timer_stop(&b->port_line);
	b->keeper.output.on_line = NULL;
	idleness_stop(&b->idleness);
	babysitter_routes_forget(&b->routes);
	readiness_stop(&b->readiness);
}

static void on_ready(struct readiness *r) {
	struct babysitter *b = container_of(r, struct babysitter, readiness);
	keeper_tell(&b->keeper, CHILD_E_READY);
}

static void on_look(struct readiness *r, bool is_good) {
	struct babysitter *b = container_of(r, struct babysitter, readiness);
	bool is_hung = b->keeper.child.state == CHILD_DRAINING && !readiness_is_good(r);
	enum child_event seen = is_good ? CHILD_E_ALIVE : CHILD_E_UNREADY;

	keeper_tell(&b->keeper, is_hung ? CHILD_E_STOP : seen);
	babysitter_register(b); /* its own record says "unresponsive" */
}

static void on_models(struct readiness *r) {
	babysitter_register(container_of(r, struct babysitter, readiness));
}

static const struct readiness_ops readiness_ops = {
	.on_ready = on_ready,
	.on_look = on_look,
	.on_models = on_models,
};

/* --- the engine --------------------------------------------------------------------------- */

static bool is_of_use(enum child_state state) {
	return state == CHILD_STARTING || state == CHILD_READY || state == CHILD_DRAINING;
}

static void on_change(struct keeper *k) {
	struct babysitter *b = container_of(k, struct babysitter, keeper);
	bool is_another = k->child.n_spawned != b->seen_spawned;

	if (!is_of_use(k->child.state) || is_another)
		babysitter_look_away(b);
	if (k->child.state == CHILD_STARTING && is_another)
		babysitter_look(b);
	b->seen_spawned = k->child.n_spawned;
	babysitter_register(b);
	if (k->child.state == CHILD_FAILED && (k->child.cause == CHILD_C_REFUSED || b->config.exit_on_failed))
		babysitter_leave(b, 1);
	loop_wake(&b->loop, &b->step);
}

static void on_drain(struct babysitter_routes *routes) {
	struct babysitter *b = container_of(routes, struct babysitter, routes);

	if (b->life == LIFE_RUNNING)
		babysitter_drain(b);
}

/* --- the start ------------------------------------------------------------------------------ */

static bool fail(const char *what, int error) {
	fprintf(stderr, "headrace babysitter: %s: %s\n", what, strerror(error < 0 ? -error : error));
	return false;
}

/* $STATE_DIRECTORY may name several. */
static void choose_state_dir(struct babysitter *b) {
	const char *dir = getenv("STATE_DIRECTORY"), *run = getenv("XDG_RUNTIME_DIR");

	if (b->config.state_dir[0])
		snprintf(b->state_dir, sizeof(b->state_dir), "%s", b->config.state_dir);
	else if (dir && dir[0])
		snprintf(b->state_dir, sizeof(b->state_dir), "%.*s", (int)strcspn(dir, ":"), dir);
	else if (run && run[0])
		snprintf(b->state_dir, sizeof(b->state_dir), "%s/headrace", run);
	else
		snprintf(b->state_dir, sizeof(b->state_dir), "/tmp/headrace-%u", (unsigned)getuid());
}

/* In a folder that somebody else could write to, our lock would be theirs. */
static bool make_state_dir(struct babysitter *b) {
	struct stat st;

	choose_state_dir(b);
	if (mkdir(b->state_dir, 0700) < 0 && errno != EEXIST)
		return fail(b->state_dir, errno);
	if (stat(b->state_dir, &st) < 0)
		return fail(b->state_dir, errno);
	if (!S_ISDIR(st.st_mode))
		return fail(b->state_dir, ENOTDIR);
	if (!b->config.state_dir[0] && (st.st_uid != getuid() || (st.st_mode & (S_IWGRP | S_IWOTH))))
		return fail(b->state_dir, EPERM);
	return true;
}

static bool open_log(struct babysitter *b) {
	b->log = log_writer_new(b->config.log.file, 1);
	if (!b->log)
		return fail(b->config.log.file, errno);
	if (b->config.log.bytes_max && strcmp(b->config.log.file, "-") != 0)
		log_writer_rotate(b->log, b->config.log.bytes_max, b->config.log.n_files);
	return true;
}

/* Clients of ours cost a descriptor each; the engine is given what we were given. */
static void make_limits(struct babysitter *b) {
	const struct babysitter_config *c = &b->config;
	struct rlimit limit = descriptors_raise();

	b->limits = calloc(c->backend.n_limits + 1, sizeof(*b->limits));
	b->limits[0] = (struct spawn_limit){ RLIMIT_NOFILE, limit.rlim_cur, limit.rlim_max };
	for (size_t i = 0; i < c->backend.n_limits; i++)
		b->limits[i + 1] = c->backend.limit_items[i];
}

/* What each part is to do, in its own words. */
static void make_rules(struct babysitter *b) {
	const struct babysitter_config *c = &b->config;
	struct keeper_config *k = &b->keeper_config;

	backend_init(&b->backend, c, environ, "/proc/self/exe");
	snprintf(b->prefix, sizeof(b->prefix), "[%.*s] ", (int)sizeof(b->prefix) - 4, c->name);
	*k = (struct keeper_config){
		.name = c->name,
		.state_dir = b->state_dir,
		.use_cgroup = c->use_cgroup,
		.plan = {
			.argv = (const char *const *)b->backend.argv,
			.env = (const char *const *)b->backend.env,
			.work_dir = c->backend.work_dir,
			.limits = b->limits,
			.n_limits = c->backend.n_limits + 1,
			.cpus = c->backend.cpu_set,
			.death_signal = SIGKILL,
			.cgroup_fd = -1,
			.kept_fd = -1,
		},
		.rules = {
			.start_ms = c->start_timeout_ms,
			.stop_ms = c->stop_timeout_ms,
			.healthy_ms = c->healthy_ms,
			.restart_delay_ms = c->restart_delay_ms,
			.max_restarts = c->n_restarts_max,
			.max_unready = c->probe.n_failures,
		},
		.output = {
			.prefix = b->prefix,
			.max_lines_s = c->log.n_lines_per_s,
			.max_bytes_s = c->log.n_lines_per_s ? OUTPUT_BYTES_S : 0,
		},
	};
	b->readiness_rules = (struct readiness_rules){
		.host = c->host,
		.interval_ms = c->probe.interval_ms,
		.timeout_ms = c->probe.timeout_ms,
		.completion = c->probe.completion,
		.bearer = slice_of(c->probe.api_key),
		.tls_name = c->tls.files.n ? c->advertise : NULL,
	};
}

static void babysitter_init_parts(struct babysitter *b) {
	timer_init(&b->patience, on_patience);
	timer_init(&b->retry, on_retry);
	timer_init(&b->port_line, on_port_line);
	job_init(&b->step, on_step);
	readiness_init(&b->readiness, &b->loop, &b->readiness_rules, &readiness_ops);
	b->resolver = resolver_new(on_addresses, b);
	b->routes = (struct babysitter_routes){
		.config = &b->config,
		.keeper = &b->keeper,
		.readiness = &b->readiness,
		.registrar = b->origin ? &b->registrar : NULL,
		.host = b->host,
		.started_ns = clock_now_ns(),
		.on_drain = on_drain,
	};
	list_init(&b->routes.lists);
	if (b->origin)
		registrar_init(&b->registrar, &b->loop, b->origin, b->config.name, slice_of(b->config.token),
		    b->config.heartbeat_ms, on_registered);
}

static bool babysitter_open(struct babysitter *b) {
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	const struct babysitter_config *c = &b->config;
	struct log_ring *ring = log_writer_ring(b->log, 0);

	int fd = listener_bind_host(c->listen, (uint16_t)(c->port + 1), false);
	if (fd < 0) {
		char where[300];
		snprintf(where, sizeof(where), "cannot listen at %.200s:%u", c->listen, c->port + 1u);
		return fail(where, fd);
	}
	int r = endpoint_server_open(
	    &b->server, &b->loop, fd, babysitter_routes_rows, babysitter_routes_n_rows, &b->routes, c->token);
	if (r < 0)
		return fail("endpoints", r);
	babysitter_take_certificates(&b->certificates);
	r = keeper_open(&b->keeper, &b->loop, &b->keeper_config, ring, on_change);
	if (r < 0)
		return fail(b->keeper.refused[0] ? b->keeper.refused : "keeper", r);
	signals_init(&b->signals, &b->loop, signals, n_elems(signals), on_signal);
	return true;
}

static void say_ready(const struct babysitter *b) {
	char *command = backend_describe(&b->backend);
	struct log_event e;

	log_begin(&e, LOG_INFO, "babysitter is listening");
	line_text(&e.line, SLICE("name"), slice_of(b->config.name));
	line_text(&e.line, SLICE("listen"), slice_of(b->config.listen));
	line_uint(&e.line, SLICE("port"), b->config.port + 1u);
	line_text(&e.line, SLICE("command"), slice_of(command));
	line_text(&e.line, SLICE("registry"), b->origin ? slice_of(origin_url(b->origin)) : SLICE("none"));
	log_end(&e);
	free(command);
}

static bool babysitter_start(struct babysitter *b) {
	const struct babysitter_config *c = &b->config;

	log_set_level(c->log.level);
	b->life = LIFE_RUNNING;
	b->budget.max_bytes = BUDGET_BYTES;
	if (!make_state_dir(b) || !open_log(b))
		return false;
	make_limits(b);
	make_rules(b);
	loop_setup_process();
	int r = loop_init(&b->loop, &b->budget);
	if (r < 0)
		return fail("loop", r);
	if (!babysitter_open_tls(b))
		return false;
	b->origin = c->registry_url[0] ? origin_new(&b->loop, slice_of(c->registry_url)) : NULL;
	if (c->registry_url[0] && !b->origin)
		return fail(c->registry_url, EINVAL);
	babysitter_init_parts(b);
	if (!babysitter_open(b))
		return false;
	say_ready(b);
	babysitter_find_host(b);
	keeper_tell(&b->keeper, CHILD_E_START);
	watchdog_start(&b->watchdog, &b->loop, NULL, 0);
	notify_ready();
	return true;
}

static void babysitter_free(struct babysitter *b) {
	log_writer_free(&b->log);
	/* A name server that is silent holds loop_deinit() and exit() up; all that matters is done. */
	if (resolver_n_running())
		_exit(b->exit_code);
	tls_server_unref(&b->server.server.tls);
	certificates_deinit(&b->certificates);
	watchdog_free(&b->watchdog);
	loop_deinit(&b->loop);
	endpoint_server_deinit(&b->server);
	backend_deinit(&b->backend);
	free(b->limits);
	babysitter_config_deinit(&b->config);
}

int babysitter_main(int argc, char **argv) {
	static struct babysitter babysitter; /* large, and one a process */
	struct babysitter *b = &babysitter;
	int code = babysitter_config_load(&b->config, argc, argv);

	if (code >= 0) {
		babysitter_config_deinit(&b->config);
		return code;
	}
	if (!babysitter_start(b))
		return 1; /* the system takes back what was opened */
	loop_run(&b->loop);
	code = b->exit_code;
	babysitter_free(b);
	return code;
}
