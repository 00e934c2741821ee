#include "router/report.h"

#include <jansson.h>

#include "base/clock.h"
#include "fleet/label.h"

static void write_gauges(const struct router *router, FILE *out) {
	uint64_t n_clients = 0, n_engines = 0, lag_ns = 0;
	for (unsigned i = 0; i < router->n_workers; i++) {
		const struct worker *w = &router->workers[i];
		n_clients += atomic_load_explicit(&w->server.n_sessions, memory_order_relaxed);
		n_engines += atomic_load_explicit(&w->n_upstreams, memory_order_relaxed);
		lag_ns = u64_max(lag_ns, atomic_load_explicit(&w->loop_lag_ns, memory_order_relaxed));
	}
	metric_write_family(out, "headrace_connections", "gauge", "Open connections.");
	metric_write_row(out, "headrace_connections", "side", "client", (double)n_clients);
	metric_write_row(out, "headrace_connections", "side", "engine", (double)n_engines);
	metric_write_family(
	    out, "headrace_held_bytes", "gauge", "Bytes lent to request bodies, heads and output that wait.");
	int64_t held = (int64_t)atomic_load_explicit(&router->budget.used_bytes, memory_order_relaxed);
	metric_write_row(out, "headrace_held_bytes", NULL, NULL, held > 0 ? (double)held : 0);
	metric_write_family(out, "headrace_held_bytes_limit", "gauge", "What headrace_held_bytes may reach.");
	metric_write_row(out, "headrace_held_bytes_limit", NULL, NULL, (double)router->budget.max_bytes);
	metric_write_family(out, "headrace_loop_lag_seconds", "gauge",
	    "Longest turn of a worker's event loop in the last half second.");
	metric_write_row(out, "headrace_loop_lag_seconds", NULL, NULL, (double)lag_ns / 1e9);
	metric_write_family(out, "headrace_uptime_seconds", "gauge", "Since the start.");
	metric_write_row(
	    out, "headrace_uptime_seconds", NULL, NULL, (double)(clock_now_ns() - router->started_ns) / 1e9);
}

static void write_instances(const struct report *r, FILE *out) {
	const struct snapshot *snap = r->snapshot;
	metric_write_family(out, "headrace_in_flight", "gauge", "Requests at an instance.");
	for (uint32_t i = 0; i < snap->n_rows; i++)
		metric_write_row(out, "headrace_in_flight", "instance", snap->rows[i].instance->spec.name.p,
		    (double)load_sum(r->router->load, snap->rows[i].instance->slot));
	metric_write_family(
	    out, "headrace_instance_routable", "gauge", "1 when the instance may take requests.");
	for (uint32_t i = 0; i < snap->n_rows; i++)
		metric_write_row(out, "headrace_instance_routable", "instance",
		    snap->rows[i].instance->spec.name.p, snapshot_is_routable(snap, i));
}

static const char *model_text(uint32_t label) {
	return label_text(LABEL_MODEL, label);
}

static const char *instance_text(uint32_t label) {
	return label_text(LABEL_INSTANCE, label);
}

static unsigned write_metrics(void *context, FILE *out) {
	const struct report *r = context;
	struct metric_shard *shards[LOAD_WORKERS_MAX];
	for (unsigned i = 0; i < r->router->n_workers; i++)
		shards[i] = r->router->workers[i].metrics;
	metric_write_requests(out, shards, r->router->n_workers, model_text, instance_text);
	metric_write(out, shards, r->router->n_workers);
	write_gauges(r->router, out);
	write_instances(r, out);
	return 200;
}

static unsigned write_config(void *context, FILE *out) {
	const struct report *r = context;
	const struct router_config *c = r->router->config;
	json_t *config = option_dump(c->options);
	/* Unset, metrics are where admin is. */
	json_object_set_new(config, "metrics",
	    json_pack("{s:s, s:i}", "host", c->metrics_host, "port", (int)c->metrics_port));
	json_dumpf(config, out, JSON_INDENT(2));
	json_decref(config);
	return 200;
}

static unsigned write_liveness(void *context, FILE *out) {
	json_t *alive = json_pack("{s:s}", "status", "alive");
	json_dumpf(alive, out, JSON_COMPACT);
	json_decref(alive);
	return 200;
}

#define METRICS_ENDPOINT                                                                                     \
	{ "/metrics", "text/plain; version=0.0.4; charset=utf-8", write_metrics }

const struct admin_endpoint report_metrics_endpoints[] = { METRICS_ENDPOINT };
const size_t report_n_metrics_endpoints = n_elems(report_metrics_endpoints);

const struct admin_endpoint report_admin_endpoints[] = {
	METRICS_ENDPOINT,
	{ "/config", "application/json", write_config },
	{ "/liveness", "application/json", write_liveness },
};
const size_t report_n_admin_endpoints = n_elems(report_admin_endpoints);
#undef METRICS_ENDPOINT
