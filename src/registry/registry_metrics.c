#include "registry/registry_metrics.h"

#include "base/clock.h"
#include "base/metric.h"

static void write_roster_metrics(struct registry_core *core, FILE *out) {
	struct roster_counts n;

	roster_counts(core->roster, &n);
	metric_write_one(out, "headrace_registry_records", "gauge", "Registered services.", n.n_records);
	metric_write_one(
	    out, "headrace_registry_healthy", "gauge", "Registered services that are alive.", n.n_alive);
	metric_write_one(
	    out, "headrace_registry_bytes", "gauge", "Memory that the records take.", (double)n.bytes);
	metric_write_one(out, "headrace_registry_heartbeats_total", "counter",
	    "Heartbeats of known services.", (double)n.n_heartbeats);
	metric_write_one(out, "headrace_registry_expired_total", "counter",
	    "Leases that ended without a heartbeat.", (double)n.n_expired);
	metric_write_one(out, "headrace_registry_swept_total", "counter",
	    "Records taken out after a long silence.", (double)n.n_swept);
	metric_write_one(out, "headrace_registry_graces_total", "counter",
	    "Times that all leases were granted afresh because the process had stood still.",
	    (double)n.n_graces);
	metric_write_one(out, "headrace_registry_version", "gauge", "Changes so far, as watchers count them.",
	    (double)roster_version(core->roster));
}

static void write_store_metrics(struct registry_core *core, FILE *out) {
	static const char name[] = "headrace_registry_writes_total",
			  seconds[] = "headrace_registry_write_seconds";
	struct store_counts n;

	store_counts(core->store, &n);
	metric_write_family(out, name, "counter", "Requests that change something.");
	metric_write_row(out, name, "outcome", "done", (double)core->n_done);
	metric_write_row(out, name, "outcome", "failed", (double)core->n_failed);
	metric_write_row(out, name, "outcome", "refused", (double)core->n_refused);
	metric_write_family(
	    out, seconds, "summary", "From a change's request to its acknowledgement by the store.");
	metric_write_row(
	    out, "headrace_registry_write_seconds_sum", NULL, NULL, (double)core->write_ns / 1e9);
	metric_write_row(out, "headrace_registry_write_seconds_count", NULL, NULL, (double)core->n_done);
	metric_write_one(out, "headrace_registry_store_commits_total", "counter",
	    "Transactions of the store.", (double)n.n_commits);
	metric_write_one(
	    out, "headrace_registry_store_waiting", "gauge", "Changes that wait for the store.", n.n_waiting);
	metric_write_one(out, "headrace_registry_store_failing", "gauge",
	    "1 when the last change could not be stored.", n.is_failing);
}

static void write_other_metrics(struct registry_core *core, uint64_t started_ns, FILE *out) {
	static const char probes[] = "headrace_registry_probes_total",
			  events[] = "headrace_registry_watch_events_total";

	metric_write_one(
	    out, "headrace_registry_watchers", "gauge", "Watchers that wait for changes.", core->watchers->n);
	metric_write_family(out, events, "counter", "Events for watchers.");
	metric_write_row(out, events, "kind", "changes", (double)core->watchers->n_events);
	metric_write_row(out, events, "kind", "reset", (double)core->watchers->n_resets);
	metric_write_one(out, "headrace_registry_watchers_cut_total", "counter",
	    "Watchers cut off because they did not read.", (double)core->watchers->n_cut);
	metric_write_family(out, probes, "counter", "Probes of registered services.");
	metric_write_row(out, probes, "result", "healthy", (double)core->prober->n_healthy);
	metric_write_row(out, probes, "result", "unhealthy", (double)core->prober->n_unhealthy);
	metric_write_one(out, "headrace_loop_lag_seconds", "gauge",
	    "Longest turn of the event loop since the last look.", (double)loop_take_lag(core->loop) / 1e9);
	metric_write_one(out, "headrace_uptime_seconds", "gauge", "Since the start.",
	    (double)(clock_now_ns() - started_ns) / 1e9);
}

void registry_metrics_write(void *context, FILE *out) {
	const struct registry_routes *r = context;

	write_roster_metrics(r->core, out);
	write_store_metrics(r->core, out);
	write_other_metrics(r->core, r->started_ns, out);
}
