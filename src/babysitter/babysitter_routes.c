#include "babysitter/babysitter_routes.h"

#include "babysitter/advertise.h"
#include "base/clock.h"
#include "base/metric.h"
#include "base/text.h"

#define LIST_MS    5000
#define LIST_BYTES (4u << 20)

/* --- what is true -------------------------------------------------------------------- */

bool babysitter_routes_is_serving(const struct babysitter_routes *routes) {
	return !routes->is_leaving && routes->keeper->child.state == CHILD_READY &&
	    readiness_is_good(routes->readiness);
}

const char *babysitter_routes_state(const struct babysitter_routes *routes) {
	enum child_state state = routes->keeper->child.state;

	if (routes->is_leaving && state != CHILD_DRAINING)
		return child_state_name(CHILD_STOPPING);
	if (state == CHILD_READY && !readiness_is_good(routes->readiness))
		return "unresponsive";
	return child_state_name(state);
}

static uint64_t restarts_of(const struct babysitter_routes *routes) {
	uint64_t n = routes->keeper->child.n_spawned;
	return n ? n - 1 : 0;
}

/* null until it is known. */
static json_t *engine_port(const struct babysitter_routes *routes) {
	bool is_known = routes->readiness->state != READINESS_IDLE;
	return is_known ? json_integer(routes->readiness->port) : json_null();
}

static json_int_t uptime_of(const struct babysitter_routes *routes) {
	return (json_int_t)((clock_now_ns() - routes->started_ns) / 1000000000u);
}

/* --- /health, /info -------------------------------------------------------------------- */

static void get_health(struct endpoint_call *c) {
	const struct babysitter_routes *routes = endpoint_context(c);
	const struct child *child = &routes->keeper->child;
	bool is_serving = babysitter_routes_is_serving(routes);
	const char *cause = child_cause_text(child->cause);

	endpoint_answer_json(c, is_serving ? 200 : 503,
	    json_pack("{s:s, s:s, s:s, s:b, s:o, s:I, s:s, s:s*, s:I}", "status",
		is_serving ? "healthy" : "unhealthy", "service", routes->config->name, "babysitter",
		"enhanced", "infinilm_server_running", child_has_process(child), "infinilm_server_port",
		engine_port(routes), "timestamp", (json_int_t)(clock_wall_ms() / 1000), "state",
		babysitter_routes_state(routes), "cause", cause[0] ? cause : NULL, "restart_count",
		(json_int_t)restarts_of(routes)));
}

static void get_info(struct endpoint_call *c) {
	const struct babysitter_routes *routes = endpoint_context(c);
	const struct babysitter_config *config = routes->config;
	const char *host = routes->host[0] ? routes->host : config->host;
	char url[TEXT_URL_BYTES];

	(config->tls.files.n ? text_print_tls_url : text_print_url)(
	    url, sizeof(url), host, (uint16_t)(config->port + 1));
	endpoint_answer_json(c, 200,
	    json_pack("{s:s, s:s, s:i, s:s, s:s, s:o, s:I, s:I, s:s}", "name", config->name, "host", host,
		"port", config->port + 1, "url", url, "service_type",
		babysitter_config_type_name(config->backend.type), "infinilm_server_port",
		engine_port(routes), "uptime", uptime_of(routes), "restart_count",
		(json_int_t)restarts_of(routes), "state", babysitter_routes_state(routes)));
}

/* --- /models ------------------------------------------------------------------------------ */

/* One client that waits for the engine's list. */
struct models_call {
	struct list link;
	struct endpoint_call *call;
	struct origin *origin;
	struct fetch fetch;
	bool is_second; /* the other path */
};

static void models_free(struct models_call *m) {
	list_remove(&m->link);
	free(m);
}

static void models_refuse(struct endpoint_call *c, const char *text) {
	endpoint_answer_error(c, 503, "no_healthy_instance", "%s", text);
}

static void models_ask(struct models_call *m) {
	const struct babysitter_routes *routes = endpoint_context(m->call);
	const struct fetch_request request = {
		.path = m->is_second ? SLICE("/v1/models") : SLICE("/models"),
		.bearer = slice_of(routes->config->probe.api_key),
	};
	origin_fetch(m->origin, &m->fetch, &request);
}

static void models_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct models_call *m = container_of(f, struct models_call, fetch);
	struct endpoint_call *c = m->call;
	bool is_good = !outcome && status >= 200 && status < 300;

	if (!is_good && !outcome && !m->is_second) {
		m->is_second = true;
		models_ask(m);
		return;
	}
	json_t *list = is_good && body.n ? json_loadb(body.p, body.n, JSON_DECODE_ANY, NULL) : NULL;
	models_free(m);
	if (list)
		endpoint_answer_json(c, 200, list);
	else if (is_good)
		endpoint_answer_error(c, 500, "upstream_failed", "Internal server error");
	else
		models_refuse(c, "Service unavailable");
}

static void models_on_gone(void *owner) {
	struct models_call *m = owner;
	origin_cancel(m->origin, &m->fetch);
	models_free(m);
}

static void get_models(struct endpoint_call *c) {
	struct babysitter_routes *routes = endpoint_context(c);
	struct origin *origin = readiness_origin(routes->readiness);

	if (!origin || routes->keeper->child.state != CHILD_READY) {
		models_refuse(c, "InfiniLM server not ready");
		return;
	}
	struct models_call *m = calloc(1, sizeof(*m));
	m->call = c;
	m->origin = origin;
	list_init(&m->link);
	list_push(&routes->lists, &m->link);
	fetch_init(&m->fetch, LIST_MS, LIST_BYTES, models_on_done);
	endpoint_keep(c, models_on_gone, m);
	models_ask(m);
}

void babysitter_routes_forget(struct babysitter_routes *routes) {
	list_each_safe (it, &routes->lists) {
		struct models_call *m = container_of(it, struct models_call, link);
		struct endpoint_call *c = m->call;
		models_on_gone(m);
		models_refuse(c, "Service unavailable");
	}
}

/* --- /drain ----------------------------------------------------------------------------------- */

static void post_drain(struct endpoint_call *c) {
	struct babysitter_routes *routes = endpoint_context(c);

	if (!routes->config->token[0] && !endpoint_is_local(c)) {
		endpoint_answer_error(
		    c, 401, "invalid_api_key", "without a token this is for clients on the same machine");
		return;
	}
	routes->on_drain(routes);
	endpoint_answer_json(
	    c, 202, json_pack("{s:s, s:s}", "status", "draining", "state", babysitter_routes_state(routes)));
}

/* --- /metrics --------------------------------------------------------------------------------- */

static void write_records(const struct registrar *r, FILE *out) {
	static const char *const names[] = { "own", "server" };

	metric_write_family(out, "headrace_babysitter_registered", "gauge", "Whether the record is there.");
	for (unsigned i = 0; i < REGISTRAR_N; i++)
		metric_write_row(
		    out, "headrace_babysitter_registered", "record", names[i], registrar_is_present(r, i));
	metric_write_family(out, "headrace_babysitter_registrations_total", "counter", "Registrations.");
	for (unsigned i = 0; i < REGISTRAR_N; i++)
		metric_write_row(out, "headrace_babysitter_registrations_total", "record", names[i],
		    (double)r->records[i].n_registered);
	metric_write_family(
	    out, "headrace_babysitter_heartbeats_total", "counter", "Heartbeats that were taken.");
	for (unsigned i = 0; i < REGISTRAR_N; i++)
		metric_write_row(out, "headrace_babysitter_heartbeats_total", "record", names[i],
		    (double)r->records[i].n_heartbeats);
	metric_write_family(out, "headrace_babysitter_registry_failures_total", "counter",
	    "Requests to the registry that were refused or not answered.");
	for (unsigned i = 0; i < REGISTRAR_N; i++)
		metric_write_row(out, "headrace_babysitter_registry_failures_total", "record", names[i],
		    (double)r->records[i].n_failures);
}

static void write_metrics(void *context, FILE *out) {
	const struct babysitter_routes *routes = context;
	const struct keeper *k = routes->keeper;

	metric_write_one(out, "headrace_babysitter_serving", "gauge", "Whether the engine serves.",
	    babysitter_routes_is_serving(routes));
	metric_write_family(
	    out, "headrace_babysitter_state", "gauge", "The engine's state is 1, all others 0.");
	for (unsigned i = 0; i < CHILD_N_STATES; i++)
		metric_write_row(out, "headrace_babysitter_state", "state", child_state_name(i),
		    (unsigned)k->child.state == i);
	metric_write_one(out, "headrace_babysitter_starts_total", "counter", "Processes that were started.",
	    (double)k->child.n_spawned);
	metric_write_one(out, "headrace_babysitter_failures_in_a_row", "gauge",
	    "Without a healthy period between.", k->child.n_failures);
	metric_write_one(out, "headrace_babysitter_failed_looks_in_a_row", "gauge",
	    "Looks at the serving engine that went wrong.", routes->readiness->n_failed);
	metric_write_one(out, "headrace_babysitter_output_lines_total", "counter",
	    "Lines that the engine wrote.", (double)k->output.n_lines);
	metric_write_one(out, "headrace_babysitter_output_dropped_total", "counter",
	    "Lines that were not kept.", (double)k->output.n_dropped_total);
	metric_write_one(
	    out, "headrace_uptime_seconds", "gauge", "Since the start.", (double)uptime_of(routes));
	if (routes->registrar)
		write_records(routes->registrar, out);
}

static void get_metrics(struct endpoint_call *c) {
	endpoint_answer_metrics(c, write_metrics);
}

const struct endpoint babysitter_routes_rows[] = {
	{ .method = METHOD_GET, .path = "/health", .run = get_health },
	{ .method = METHOD_GET, .path = "/models", .run = get_models },
	{ .method = METHOD_GET, .path = "/info", .run = get_info },
	{ .method = METHOD_GET, .path = "/metrics", .run = get_metrics },
	{ .method = METHOD_POST, .path = "/drain", .run = post_drain, .writes = true },
};
const size_t babysitter_routes_n_rows = n_elems(babysitter_routes_rows);
