#include "router/report.h"

#include <jansson.h>

#include "base/clock.h"
#include "fleet/label.h"
#include "router/breakers.h"
#include "router/fleet_routes.h"
#include "router/gate_view.h"
#include "router/instances.h"
#include "router/reload.h"
#include "router/verdicts.h"

static void write_gauges(const struct router *router, FILE *out) {
	uint64_t n_active = 0, n_clients = 0, n_engines = 0, lag_ns = 0;
	for (unsigned i = 0; i < router->n_workers; i++) {
		const struct worker *w = &router->workers[i];
		n_active += atomic_load_explicit(&w->n_active, memory_order_relaxed);
		n_clients += atomic_load_explicit(&w->server.n_sessions, memory_order_relaxed);
		n_engines += atomic_load_explicit(&w->n_upstreams, memory_order_relaxed);
		lag_ns = u64_max(lag_ns, atomic_load_explicit(&w->loop_lag_ns, memory_order_relaxed));
	}
	metric_write_one(
	    out, "headrace_active", "gauge", "Requests at work, wherever they are.", (double)n_active);
	metric_write_family(out, "headrace_connections", "gauge", "Open connections.");
	metric_write_row(out, "headrace_connections", "side", "client", (double)n_clients);
	metric_write_row(out, "headrace_connections", "side", "engine", (double)n_engines);
	int64_t held = (int64_t)atomic_load_explicit(&router->budget.used_bytes, memory_order_relaxed);
	metric_write_one(out, "headrace_held_bytes", "gauge",
	    "Bytes lent to request bodies, heads and output that wait.", held > 0 ? (double)held : 0);
	metric_write_one(out, "headrace_held_bytes_limit", "gauge", "What headrace_held_bytes may reach.",
	    (double)router->budget.max_bytes);
	metric_write_one(out, "headrace_loop_lag_seconds", "gauge",
	    "Longest turn of a worker's event loop in the last half second.", (double)lag_ns / 1e9);
	metric_write_one(out, "headrace_uptime_seconds", "gauge", "Since the start.",
	    (double)(clock_now_ns() - router->started_ns) / 1e9);
}

static void write_queue(const struct router *router, FILE *out) {
	char class[4];
	metric_write_family(out, "headrace_queue_requests", "gauge",
	    "Requests that wait for a place among those in flight, by class: 0 goes first.");
	for (unsigned i = 0; i < FAIR_CLASSES; i++) {
		snprintf(class, sizeof(class), "%u", i);
		metric_write_row(
		    out, "headrace_queue_requests", "class", class, gatekeeper_n_waiting(router->gate, i));
	}
	uint32_t n_before = 0;
	metric_write_family(out, "headrace_queue_position", "gauge",
	    "Requests that a new one of the class would find before it, those of its own class with them.");
	for (unsigned i = 0; i < FAIR_CLASSES; i++) {
		snprintf(class, sizeof(class), "%u", i);
		n_before += gatekeeper_n_waiting(router->gate, i);
		metric_write_row(out, "headrace_queue_position", "class", class, n_before);
	}
}

typedef double (*instance_value_fn)(const struct report *r, const struct instance *inst);

static double requests_at(const struct report *r, const struct instance *inst) {
	return (double)load_requests(r->router->load, inst->slot);
}

static double prefill_tokens_at(const struct report *r, const struct instance *inst) {
	return (double)load_total(r->router->load, inst->slot).prefill_tokens;
}

static double decode_tokens_at(const struct report *r, const struct instance *inst) {
	return (double)load_total(r->router->load, inst->slot).decode_tokens;
}

static double prefill_rate_of(const struct report *r, const struct instance *inst) {
	return learned_read(&inst->learned.prefill_rate);
}

static double first_token_of(const struct report *r, const struct instance *inst) {
	return learned_read(&inst->learned.first_token_s);
}

static double predicted_tokens_of(const struct report *r, const struct instance *inst) {
	return (double)atomic_load_explicit(&inst->learned.predicted_tokens, memory_order_relaxed);
}

static double actual_tokens_of(const struct report *r, const struct instance *inst) {
	return (double)atomic_load_explicit(&inst->learned.actual_tokens, memory_order_relaxed);
}

static const struct {
	const char *name, *type, *help;
	instance_value_fn value;
} instance_values[] = {
	{ "headrace_in_flight", "gauge", "Requests at an instance.", requests_at },
	{ "headrace_prefill_tokens", "gauge",
	    "Prompt tokens that an instance is thought to have yet to compute.", prefill_tokens_at },
	{ "headrace_decode_tokens", "gauge", "Tokens of requests at an instance that are in decode.",
	    decode_tokens_at },
	{ "headrace_prefill_tokens_per_second", "gauge",
	    "What an instance was seen to compute of prompts; 0: not seen yet.", prefill_rate_of },
	{ "headrace_first_token_mean_seconds", "gauge",
	    "What first tokens took lately, a mean that follows peaks at once; 0: none was seen yet.",
	    first_token_of },
	{ "headrace_cached_tokens_predicted_total", "counter",
	    "Prompt tokens that an instance was thought to have cached, of answers that say what was.",
	    predicted_tokens_of },
	{ "headrace_cached_tokens_actual_total", "counter",
	    "Prompt tokens that an instance had cached, by its own word.", actual_tokens_of },
};

static void write_instance_values(const struct report *r, FILE *out) {
	const struct snapshot *snap = r->snapshot;
	for (size_t v = 0; v < n_elems(instance_values); v++) {
		metric_write_family(
		    out, instance_values[v].name, instance_values[v].type, instance_values[v].help);
		for (uint32_t i = 0; i < snap->n_rows; i++)
			if (!snap->rows[i].is_namesake)
				metric_write_row(out, instance_values[v].name, "instance",
				    snap->rows[i].instance->spec.name.p,
				    instance_values[v].value(r, snap->rows[i].instance));
	}
}

static void write_prefixes(const struct prefix_index *index, FILE *out) {
	struct prefix_index_stats stats = prefix_index_stats(index);
	metric_write_one(out, "headrace_prefix_index_bytes", "gauge",
	    "Memory for what is known of the engines' caches.", (double)stats.bytes);
	metric_write_one(out, "headrace_prefix_index_puts_total", "counter",
	    "Blocks of prompts that were noted.", (double)stats.n_puts);
	metric_write_one(out, "headrace_prefix_index_evictions_total", "counter",
	    "Blocks that were forgotten for want of room.", (double)stats.n_evictions);
}

static void write_instances(const struct report *r, FILE *out) {
	const struct snapshot *snap = r->snapshot;
	write_instance_values(r, out);
	metric_write_family(
	    out, "headrace_instance_routable", "gauge", "1 when the instance may take requests.");
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (!snap->rows[i].is_namesake)
			metric_write_row(out, "headrace_instance_routable", "instance",
			    snap->rows[i].instance->spec.name.p, snapshot_is_routable(snap, i));
}

static void write_health(const struct report *r, FILE *out) {
	const struct snapshot *snap = r->snapshot;
	uint32_t n_panics = 0;
	metric_write_family(out, "headrace_instance_state", "gauge",
	    "0 unknown, 1 ready, 2 degraded, 3 unhealthy, 4 draining, 5 disabled.");
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (!snap->rows[i].is_namesake)
			metric_write_row(out, "headrace_instance_state", "instance",
			    snap->rows[i].instance->spec.name.p, (double)snap->rows[i].state);
	metric_write_family(
	    out, "headrace_instance_transitions_total", "counter", "Changes of instances into a state.");
	for (unsigned i = 0; i < INSTANCE_STATES; i++)
		metric_write_row(out, "headrace_instance_transitions_total", "to",
		    instance_state_text((enum instance_state)i), (double)r->health->n_transitions[i]);
	for (uint32_t i = 0; i < snap->n_models; i++)
		n_panics += snap->models[i].is_panic;
	metric_write_family(out, "headrace_panic_models", "gauge",
	    "Models of which more than half of the instances are unhealthy and get requests all the same.");
	metric_write_row(out, "headrace_panic_models", NULL, NULL, n_panics);
	metric_write_family(out, "headrace_probes_total", "counter", "Probes of engines.");
	metric_write_row(out, "headrace_probes_total", "outcome", "good",
	    (double)(r->health->n_probes - r->health->n_failed_probes));
	metric_write_row(out, "headrace_probes_total", "outcome", "bad", (double)r->health->n_failed_probes);
}

/* What engines say of themselves, while that is fresh. */
static void write_figures(const struct report *r, FILE *out) {
	static const struct {
		const char *name, *help;
		enum figure figure;
	} rows[] = {
		{ "headrace_engine_running", "Requests that the engine says it works on.", FIGURE_RUNNING },
		{ "headrace_engine_waiting", "Requests that the engine says wait in it.", FIGURE_WAITING },
		{ "headrace_engine_kv_usage", "What part of its KV cache the engine says it uses, 0 to 1.",
		    FIGURE_KV_USAGE },
		{ "headrace_engine_generation_tokens_per_second",
		    "What the engine says or shows that it generates, over all its requests.",
		    FIGURE_GENERATION_RATE },
	};
	double value;
	for (size_t k = 0; k < n_elems(rows); k++) {
		metric_write_family(out, rows[k].name, "gauge", rows[k].help);
		for (uint32_t i = 0; i < r->snapshot->n_rows; i++) {
			const struct instance *inst = r->snapshot->rows[i].instance;
			if (!r->snapshot->rows[i].is_namesake &&
			    scraper_figure(r->scraper, inst, rows[k].figure, &value))
				metric_write_row(out, rows[k].name, "instance", inst->spec.name.p, value);
		}
	}
}

static void write_scrapes(const struct report *r, FILE *out) {
	metric_write_family(out, "headrace_engine_restarts_total", "counter",
	    "Restarts of engines that showed in what they say of themselves.");
	for (uint32_t i = 0; i < r->snapshot->n_rows; i++) {
		const struct instance *inst = r->snapshot->rows[i].instance;
		if (!r->snapshot->rows[i].is_namesake &&
		    atomic_load_explicit(&inst->learned.scraped_ms, memory_order_relaxed))
			metric_write_row(out, "headrace_engine_restarts_total", "instance", inst->spec.name.p,
			    atomic_load_explicit(&inst->learned.n_restarts, memory_order_relaxed));
	}
	metric_write_family(
	    out, "headrace_scrapes_total", "counter", "Questions to engines about how busy they are.");
	for (unsigned i = 0; i < SCRAPE_OUTCOMES; i++)
		metric_write_row(out, "headrace_scrapes_total", "outcome",
		    scrape_outcome_text((enum scrape_outcome)i), (double)r->scraper->counts[i]);
}

static void write_value(FILE *out, const char *name, const char *type, const char *help, double value) {
	metric_write_family(out, name, type, help);
	metric_write_row(out, name, NULL, NULL, value);
}

static void write_registry(const struct report *r, FILE *out) {
	const struct registry_source *source = r->registry;
	struct membership_counts n;
	uint64_t age_ms = registry_source_age_ms(source);
	membership_counts(source->membership, &n);
	write_value(out, "headrace_registry_up", "gauge", "1 when the registry answers.", source->is_heard);
	if (age_ms != UINT64_MAX)
		write_value(out, "headrace_registry_age_seconds", "gauge",
		    "Since the registry was heard last.", (double)age_ms / 1000);
	write_value(out, "headrace_registry_instances", "gauge", "Instances that the registry has named.",
	    n.n_members);
	write_value(out, "headrace_registry_missing", "gauge",
	    "Of them, those that it does not list any more: they leave when the grace is over.", n.n_missing);
	write_value(out, "headrace_registry_held_back", "gauge",
	    "Instances whose grace is over, kept because too many would leave at once.", n.n_held_back);
	write_value(out, "headrace_registry_waiting", "gauge",
	    "Instances that wait because the fleet is full.", n.n_waiting);
	write_value(out, "headrace_registry_bad_records_total", "counter", "Records that were skipped.",
	    (double)n.n_bad);
	write_value(out, "headrace_registry_failures_total", "counter", "Questions to the registry in vain.",
	    (double)source->counts.n_failures);
	write_value(out, "headrace_registry_lists_total", "counter", "Whole lists received.",
	    (double)source->counts.n_lists);
	write_value(out, "headrace_registry_events_total", "counter", "Events of the watch received.",
	    (double)source->counts.n_events);
	write_value(out, "headrace_registry_save_failures_total", "counter",
	    "Times that the last good table could not be written.", (double)source->counts.n_save_failures);
	write_value(out, "headrace_registry_addresses_denied_total", "counter",
	    "Addresses of its instances that [discovery] allow left out.", (double)r->watcher->n_denied);
}

static void write_zmq(const struct zmq_source *source, FILE *out) {
	metric_write_family(out, "headrace_zmq_instances", "gauge",
	    "Instances that have announced themselves on the discovery socket.");
	metric_write_row(out, "headrace_zmq_instances", "role", "prefill", source->n_prefill);
	metric_write_row(out, "headrace_zmq_instances", "role", "decode", source->n_decode);
	metric_write_family(out, "headrace_zmq_messages_total", "counter",
	    "Messages on that socket: taken, of no sense, of one too many or in another transfer mode.");
	for (unsigned i = 0; i < ZMQ_OUTCOMES; i++)
		metric_write_row(out, "headrace_zmq_messages_total", "outcome",
		    zmq_outcome_text((enum zmq_outcome)i), (double)source->counts[i]);
}

static const char *model_text(uint32_t label) {
	return label_text(LABEL_MODEL, label);
}

static const char *instance_text(uint32_t label) {
	return label_text(LABEL_INSTANCE, label);
}

static uint64_t requests_of(const struct worker_tenant *t) {
	return metric_read(&t->n_requests);
}

static uint64_t denied_of(const struct worker_tenant *t) {
	return metric_read(&t->n_denied);
}

static uint64_t limited_of(const struct worker_tenant *t) {
	return metric_read(&t->n_limited);
}

static uint64_t prompt_tokens_of(const struct worker_tenant *t) {
	return metric_read(&t->tokens_in);
}

static uint64_t completion_tokens_of(const struct worker_tenant *t) {
	return metric_read(&t->tokens_out);
}

static const struct {
	const char *name, *help;
	uint64_t (*value)(const struct worker_tenant *t);
} tenant_values[] = {
	{ "headrace_tenant_requests_total", "Requests of a tenant that have ended.", requests_of },
	{ "headrace_tenant_denied_total", "Of them, those for models that are not for it.", denied_of },
	{ "headrace_tenant_limited_total", "Of them, those beyond a limit of requests or tokens.",
	    limited_of },
	{ "headrace_tenant_prompt_tokens_total", "Tokens of its prompts, as engines count them.",
	    prompt_tokens_of },
	{ "headrace_tenant_completion_tokens_total", "Tokens of the answers to it.", completion_tokens_of },
};

static void write_tenants(const struct router *router, FILE *out) {
	const struct tenant_table *tenants = router->settings->config->tenants;
	for (size_t v = 0; v < n_elems(tenant_values); v++) {
		metric_write_family(out, tenant_values[v].name, "counter", tenant_values[v].help);
		for (uint32_t i = 1; i < tenant_table_n(tenants); i++) {
			if (!tenant_is_there(tenants, i))
				continue;
			const struct tenant *tenant = tenant_get(tenants, i);
			uint64_t n = 0;
			for (unsigned w = 0; w < router->n_workers; w++)
				n += tenant_values[v].value(&router->workers[w].tenants[tenant->label]);
			metric_write_row(out, tenant_values[v].name, "tenant", tenant->name, (double)n);
		}
	}
}

static void write_metrics(void *context, FILE *out) {
	const struct report *r = context;
	struct metric_shard *shards[LOAD_WORKERS_MAX];
	for (unsigned i = 0; i < r->router->n_workers; i++)
		shards[i] = r->router->workers[i].metrics;
	metric_write_requests(out, shards, r->router->n_workers, model_text, instance_text);
	metric_write(out, shards, r->router->n_workers);
	write_gauges(r->router, out);
	write_queue(r->router, out);
	write_instances(r, out);
	if (r->router->settings->config->tenants)
		write_tenants(r->router, out);
	if (r->router->verdicts)
		verdicts_write_metrics(r->router->verdicts, out);
	if (r->router->prefixes)
		write_prefixes(r->router->prefixes, out);
	write_health(r, out);
	breakers_write_metrics(r->router, r->snapshot, out);
	write_figures(r, out);
	write_scrapes(r, out);
	if (r->registry)
		write_registry(r, out);
	if (r->zmq)
		write_zmq(r->zmq, out);
	reload_write_metrics(r->reload, out);
	if (r->router->settings->config->metrics_compat == ROUTER_METRICS_VLLM)
		vllm_report_write(r->router, r->snapshot, &r->turnover, out);
}

static void answer_metrics(struct endpoint_call *c) {
	endpoint_answer_metrics(c, write_metrics);
}

static void answer_config(struct endpoint_call *call) {
	const struct report *r = endpoint_context(call);
	const struct router_config *c = r->router->settings->config;
	json_t *config = option_dump(c->options);
	/* Unset, metrics are where admin is. */
	json_object_set_new(config, "metrics",
	    json_pack("{s:s, s:i}", "host", c->metrics_host, "port", (int)c->metrics_port));
	char *text = json_dumps(config, JSON_INDENT(2)); /* for people */
	endpoint_answer_text(call, 200, "application/json", slice_of(text));
	free(text);
	json_decref(config);
}

static void answer_admission(struct endpoint_call *c) {
	const struct report *r = endpoint_context(c);
	endpoint_answer_json(c, 200, gate_view(r->router));
}

static void ask_upgrade(struct endpoint_call *c) {
	const struct report *r = endpoint_context(c);
	upgrade_ask(r->upgrade, c);
}

static void answer_liveness(struct endpoint_call *c) {
	endpoint_answer_json(c, 200, json_pack("{s:s}", "status", "alive"));
}

const struct endpoint report_metrics_endpoints[] = {
	{ METHOD_GET, "/metrics", .run = answer_metrics },
};
const size_t report_n_metrics_endpoints = n_elems(report_metrics_endpoints);

const struct endpoint report_admin_endpoints[] = {
	{ METHOD_GET, "/metrics", .run = answer_metrics },
	{ METHOD_GET, "/config", .run = answer_config },
	{ METHOD_GET, "/admission", .run = answer_admission },
	{ METHOD_GET, "/decisions", .run = explain_decisions },
	{ METHOD_GET, "/decisions/{id}", .run = explain_decision },
	{ METHOD_POST, "/explain", .run = explain_request, .body_bytes_max = EXPLAIN_BODY_BYTES_MAX },
	{ METHOD_GET, "/breakers", .run = breakers_list },
	{ METHOD_POST, "/breakers/{name}/trip", .run = breakers_trip, .writes = true },
	{ METHOD_POST, "/breakers/{name}/reset", .run = breakers_reset, .writes = true },
	{ METHOD_GET, "/instances", .run = instances_list },
	{ METHOD_POST, "/instances/{name}/drain", .run = instances_drain, .writes = true },
	{ METHOD_POST, "/instances/{name}/undrain", .run = instances_enable, .writes = true },
	{ METHOD_POST, "/instances/{name}/disable", .run = instances_disable, .writes = true },
	{ METHOD_POST, "/instances/{name}/enable", .run = instances_enable, .writes = true },
	{ METHOD_POST, "/instances/{name}/weight", .run = instances_weight,
	    .body_bytes_max = INSTANCES_BODY_BYTES_MAX, .writes = true },
	{ METHOD_POST, "/workers", .run = fleet_routes_call, .body_bytes_max = PETITION_BODY_BYTES_MAX,
	    .writes = true },
	{ METHOD_GET, "/workers", .run = fleet_routes_call },
	{ METHOD_GET, "/workers/{worker*}", .run = fleet_routes_call },
	{ METHOD_PUT, "/workers/{worker*}", .run = fleet_routes_call,
	    .body_bytes_max = PETITION_BODY_BYTES_MAX, .writes = true },
	{ METHOD_DELETE, "/workers/{worker*}", .run = fleet_routes_call, .writes = true },
	{ METHOD_POST, "/add_worker", .run = fleet_routes_call, .writes = true },
	{ METHOD_POST, "/remove_worker", .run = fleet_routes_call, .writes = true },
	{ METHOD_GET, "/list_workers", .run = fleet_routes_call },
	{ METHOD_POST, "/flush_cache", .run = fleet_routes_call, .writes = true },
	{ METHOD_GET, "/get_loads", .run = fleet_routes_call },
	{ METHOD_POST, "/upgrade", .run = ask_upgrade, .writes = true },
	{ METHOD_POST, "/reload", .run = reload_answer, .writes = true },
	{ METHOD_GET, "/liveness", .run = answer_liveness },
};
const size_t report_n_admin_endpoints = n_elems(report_admin_endpoints);
