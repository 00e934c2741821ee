/*
 * Families are written from tables, one for each set of labels. Those of instances have a row for each url:
 * instances of one url, with other keys say, share the row of the one that is sorted first.
 */
#include "router/vllm_report.h"

#include <stdlib.h>

#include "base/clock.h"
#include "router/breakers.h"
#include "router/vllm_counts.h"

#define PREFIX "vllm_router_"

struct board {
	const struct router *router;
	const struct snapshot *snap;
	uint64_t now_ms;
	FILE *out;
	uint32_t n_rows;
	uint32_t *rows; /* of the snapshot, by url */
};

/* --- the fleet ------------------------------------------------------------------------------ */

static uint32_t count_missing(const struct snapshot *from, const struct snapshot *in) {
	uint32_t serials[INSTANCE_SLOTS_MAX] = { 0 };
	uint32_t n = 0;

	for (uint32_t i = 0; i < in->n_rows; i++)
		serials[in->rows[i].instance->slot] = in->rows[i].instance->serial;
	for (uint32_t i = 0; i < from->n_rows; i++) {
		const struct snapshot_row *row = &from->rows[i];

		n += row->primary == i && serials[row->instance->slot] != row->instance->serial;
	}
	return n;
}

void vllm_turnover_note(struct vllm_turnover *t, const struct snapshot *old, const struct snapshot *next) {
	uint32_t n_added = count_missing(next, old), n_removed = count_missing(old, next);

	if (!n_added && !n_removed)
		return;
	t->n_updates++;
	t->n_added = n_added;
	t->n_removed = n_removed;
}

/* --- sums ----------------------------------------------------------------------------------- */

/* Over all workers, of the cell at this offset of their counts. */
static uint64_t sum_at(const struct board *b, size_t offset) {
	uint64_t n = 0;

	for (unsigned i = 0; i < b->router->n_workers; i++)
		n += metric_read(
		    (const metric_cell *)((const char *)b->router->workers[i].vllm_counts + offset));
	return n;
}

static size_t route_offset(unsigned route, size_t member) {
	return offsetof(struct vllm_counts, routes) + route * sizeof(struct vllm_route_counts) + member;
}

static const struct instance *instance_at(const struct board *b, uint32_t row) {
	return b->snap->rows[row].instance;
}

/* Likewise, of the counts of one instance. */
static uint64_t sum_of(const struct board *b, const struct instance *inst, size_t member) {
	uint64_t n = 0;

	for (unsigned i = 0; i < b->router->n_workers; i++) {
		const struct vllm_instance_counts *c =
		    vllm_counts_of(b->router->workers[i].vllm_counts, inst);

		n += c ? metric_read((const metric_cell *)((const char *)c + member)) : 0;
	}
	return n;
}

/* --- histograms ------------------------------------------------------------------------------- */

struct distribution {
	uint64_t n[VLLM_EDGES + 1];
	uint64_t sum_ns;
};

static void add_up(const struct board *b, size_t offset, struct distribution *d) {
	for (unsigned i = 0; i <= VLLM_EDGES; i++)
		d->n[i] +=
		    sum_at(b, offset + offsetof(struct vllm_histogram, buckets) + i * sizeof(metric_cell));
	d->sum_ns += sum_at(b, offset + offsetof(struct vllm_histogram, sum_ns));
}

/* `label` NULL: it has none. One with a label has no rows before something happened. */
static void write_distribution(const struct board *b, const char *name, const char *label, const char *value,
    const struct distribution *d) {
	char room[96], le[16];
	struct metric_label labels[2] = { { "le", le }, { label, value } };
	size_t n_labels = label ? 2 : 1;
	uint64_t n = 0;

	for (unsigned i = 0; i <= VLLM_EDGES; i++)
		n += d->n[i];
	if (label && !n)
		return;
	n = 0;
	snprintf(room, sizeof(room), "%s_bucket", name);
	for (unsigned i = 0; i <= VLLM_EDGES; i++) {
		n += d->n[i];
		if (i < VLLM_EDGES)
			snprintf(le, sizeof(le), "%g", vllm_edges_ms[i] / 1e3);
		else
			snprintf(le, sizeof(le), "+Inf");
		metric_write_labelled(b->out, room, labels, n_labels, (double)n);
	}
	snprintf(room, sizeof(room), "%s_sum", name);
	metric_write_row(b->out, room, label, value, (double)d->sum_ns / 1e9);
	snprintf(room, sizeof(room), "%s_count", name);
	metric_write_row(b->out, room, label, value, (double)n);
}

static void write_durations(const struct board *b, const char *name, const char *help, size_t member) {
	metric_write_family(b->out, name, "histogram", help);
	for (unsigned i = 0; i < VLLM_ROUTES; i++) {
		struct distribution d = { .sum_ns = 0 };

		add_up(b, route_offset(i, member), &d);
		write_distribution(b, name, "route", vllm_route_text(i), &d);
	}
}

/* Of some routes together. */
static void write_duration(
    const struct board *b, const char *name, const char *help, const char *const *paths, size_t n_paths) {
	struct distribution d = { .sum_ns = 0 };

	for (size_t i = 0; i < n_paths; i++)
		add_up(b,
		    route_offset(
			vllm_route_of(slice_of(paths[i])), offsetof(struct vllm_route_counts, duration)),
		    &d);
	metric_write_family(b->out, name, "histogram", help);
	write_distribution(b, name, NULL, NULL, &d);
}

/* --- routes --------------------------------------------------------------------------------- */

static const struct {
	const char *name, *help;
	size_t member;
} route_counters[] = {
	{ PREFIX "requests_total", "Requests that have ended, by route.",
	    offsetof(struct vllm_route_counts, n_requests) },
	{ PREFIX "retries_total", "Times that a request was sent again after an engine refused or lost it.",
	    offsetof(struct vllm_route_counts, n_retries) },
	{ PREFIX "retries_exhausted_total", "Requests that were to be sent again once too often.",
	    offsetof(struct vllm_route_counts, n_exhausted) },
	{ PREFIX "pd_requests_total", "Requests whose prompt one instance computed for another one.",
	    offsetof(struct vllm_route_counts, n_split) },
};

static void write_route_counters(const struct board *b) {
	for (size_t k = 0; k < n_elems(route_counters); k++) {
		metric_write_family(b->out, route_counters[k].name, "counter", route_counters[k].help);
		for (unsigned i = 0; i < VLLM_ROUTES; i++) {
			uint64_t n = sum_at(b, route_offset(i, route_counters[k].member));

			if (n)
				metric_write_row(
				    b->out, route_counters[k].name, "route", vllm_route_text(i), (double)n);
		}
	}
}

static uint64_t errors_of(const struct board *b, unsigned route, unsigned error) {
	return sum_at(b,
	    route_offset(route, offsetof(struct vllm_route_counts, n_errors) + error * sizeof(metric_cell)));
}

static void write_errors(const struct board *b) {
	const char *name = PREFIX "request_errors_total";

	metric_write_family(b->out, name, "counter", "Requests that did not end well, by route and why.");
	for (unsigned i = 0; i < VLLM_ROUTES; i++)
		for (unsigned k = 0; k < VLLM_ERRORS; k++) {
			uint64_t n = errors_of(b, i, k);
			const struct metric_label labels[] = { { "route", vllm_route_text(i) },
				{ "error_type", vllm_error_text(k) } };

			if (n)
				metric_write_labelled(b->out, name, labels, n_elems(labels), (double)n);
		}
}

static void write_retries(const struct board *b) {
	const char *name = PREFIX "retry_backoff_duration_seconds";

	metric_write_family(b->out, name, "histogram", "Waits before requests were sent again.");
	for (unsigned i = 1; i <= VLLM_BACKOFFS; i++) {
		struct distribution d = { .sum_ns = 0 };
		char attempt[8] = "other";

		add_up(b,
		    offsetof(struct vllm_counts, backoffs) +
			i % VLLM_BACKOFFS * sizeof(struct vllm_histogram),
		    &d);
		if (i < VLLM_BACKOFFS)
			snprintf(attempt, sizeof(attempt), "%u", i);
		write_distribution(b, name, "attempt", attempt, &d);
	}
}

static void write_requests(const struct board *b) {
	static const char *const generating[] = { "/generate", "/inference/v1/generate",
		"/v1/chat/completions", "/v1/completions", "/v1/responses" };

	write_route_counters(b);
	write_errors(b);
	write_retries(b);
	write_durations(b, PREFIX "request_duration_seconds",
	    "From a request's head to the end of its answer.", offsetof(struct vllm_route_counts, duration));
	write_durations(b, PREFIX "pd_request_duration_seconds",
	    "The same of requests that two instances shared.",
	    offsetof(struct vllm_route_counts, split_duration));
	write_duration(b, PREFIX "generate_duration_seconds", "The same of routes that generate.", generating,
	    n_elems(generating));
}

static void write_embeddings(const struct board *b) {
	static const char *const path = "/v1/embeddings", *const name = PREFIX "embeddings_errors_total";
	unsigned route = vllm_route_of(slice_of(path));

	metric_write_one(b->out, PREFIX "embeddings_total", "counter", "Requests for embeddings.",
	    (double)sum_at(b, route_offset(route, offsetof(struct vllm_route_counts, n_requests))));
	write_duration(b, PREFIX "embeddings_duration_seconds", "What they took.", &path, 1);
	metric_write_family(b->out, name, "counter", "Those that did not end well, by why.");
	for (unsigned k = 0; k < VLLM_ERRORS; k++) {
		uint64_t n = errors_of(b, route, k);

		if (n)
			metric_write_row(b->out, name, "error_type", vllm_error_text(k), (double)n);
	}
}

/* --- instances ---------------------------------------------------------------------------------- */

static double health_of(const struct board *b, uint32_t row) {
	return snapshot_is_routable(b->snap, row);
}

static double load_of(const struct board *b, uint32_t row) {
	return (double)load_requests(b->router->load, instance_at(b, row)->slot);
}

static double breaker_of(const struct board *b, uint32_t row) {
	return breaker_peek(&instance_at(b, row)->breaker, b->now_ms).state;
}

static double processed_of(const struct board *b, uint32_t row) {
	const struct instance *inst = instance_at(b, row);
	uint64_t n = 0;

	for (unsigned i = 0; i < b->router->n_workers; i++)
		n += metric_read(&b->router->workers[i].tallies[inst->slot].n_requests);
	return (double)(n - metric_read(&inst->n_requests_before));
}

static const char *url_at(const struct board *b, uint32_t i) {
	return instance_at(b, b->rows[i])->spec.url.p;
}

static const struct {
	const char *name, *type, *help;
	double (*value)(const struct board *b, uint32_t row);
} instance_values[] = {
	{ PREFIX "worker_health", "gauge", "1 when the engine may get requests.", health_of },
	{ PREFIX "worker_load", "gauge", "Requests at the engine.", load_of },
	{ PREFIX "running_requests", "gauge", "Requests at the engine.", load_of },
	{ PREFIX "processed_requests_total", "counter", "Requests that have ended at the engine.",
	    processed_of },
	{ PREFIX "cb_state", "gauge", "The engine's breaker: 0 closed, 1 open, 2 half-open.", breaker_of },
};

static void write_instance_values(const struct board *b) {
	for (size_t k = 0; k < n_elems(instance_values); k++) {
		metric_write_family(
		    b->out, instance_values[k].name, instance_values[k].type, instance_values[k].help);
		for (uint32_t i = 0; i < b->n_rows; i++)
			metric_write_row(b->out, instance_values[k].name, "worker", url_at(b, i),
			    instance_values[k].value(b, b->rows[i]));
	}
}

/* Most instances have none of them: no rows for these. */
static const struct {
	const char *name, *help;
	size_t member;
} leg_counters[] = {
	{ PREFIX "pd_prefill_requests_total", "Prompts that the engine was to compute for others.",
	    offsetof(struct vllm_instance_counts, n_legs[VLLM_PREFILL]) },
	{ PREFIX "pd_decode_requests_total", "Requests that it was to decode for others.",
	    offsetof(struct vllm_instance_counts, n_legs[VLLM_DECODE]) },
	{ PREFIX "pd_prefill_errors_total", "Of its prompts, those that failed.",
	    offsetof(struct vllm_instance_counts, n_leg_errors[VLLM_PREFILL]) },
	{ PREFIX "pd_decode_errors_total", "Of its decodes, those that failed.",
	    offsetof(struct vllm_instance_counts, n_leg_errors[VLLM_DECODE]) },
	{ PREFIX "pd_stream_errors_total", "Of both, those whose answer broke off or stood still.",
	    offsetof(struct vllm_instance_counts, n_stream_errors) },
};

static void write_legs(const struct board *b) {
	for (size_t k = 0; k < n_elems(leg_counters); k++) {
		metric_write_family(b->out, leg_counters[k].name, "counter", leg_counters[k].help);
		for (uint32_t i = 0; i < b->n_rows; i++) {
			uint64_t n = sum_of(b, instance_at(b, b->rows[i]), leg_counters[k].member);

			if (n)
				metric_write_row(
				    b->out, leg_counters[k].name, "worker", url_at(b, i), (double)n);
		}
	}
}

static void write_moves(const struct board *b, const char *name, uint32_t at) {
	const struct instance *inst = instance_at(b, b->rows[at]);

	for (enum breaker_state from = 0; from < BREAKER_STATES; from++)
		for (enum breaker_state to = 0; to < BREAKER_STATES; to++) {
			uint32_t n = atomic_load_explicit(&inst->n_moves[from][to], memory_order_relaxed);
			const struct metric_label labels[] = { { "worker", url_at(b, at) },
				{ "from", breaker_state_text(from) }, { "to", breaker_state_text(to) } };

			if (n)
				metric_write_labelled(b->out, name, labels, n_elems(labels), n);
		}
}

static void write_breakers(const struct board *b) {
	static const char *const moves = PREFIX "cb_state_transitions_total",
				 *const outcomes = PREFIX "cb_outcomes_total",
				 *const words[] = { [BREAKER_GOOD] = "success", [BREAKER_BAD] = "failure" };

	metric_write_family(b->out, moves, "counter", "Moves of breakers, those that happened.");
	for (uint32_t i = 0; i < b->n_rows; i++)
		write_moves(b, moves, i);
	metric_write_family(b->out, outcomes, "counter", "Attempts at the engine that say something of it.");
	for (uint32_t i = 0; i < b->n_rows; i++)
		for (enum breaker_outcome k = 0; k < n_elems(words); k++) {
			const struct metric_label labels[] = { { "worker", url_at(b, i) },
				{ "outcome", words[k] } };

			metric_write_labelled(b->out, outcomes, labels, n_elems(labels),
			    (double)breakers_count(b->router, instance_at(b, b->rows[i]), k));
		}
}

static void write_split_errors(const struct board *b) {
	const char *name = PREFIX "pd_errors_total";

	metric_write_family(
	    b->out, name, "counter", "Requests shared by two instances that did not end well, by why.");
	for (unsigned k = 0; k < VLLM_ERRORS; k++) {
		uint64_t n =
		    sum_at(b, offsetof(struct vllm_counts, n_split_errors) + k * sizeof(metric_cell));

		if (n)
			metric_write_row(b->out, name, "error_type", vllm_error_text(k), (double)n);
	}
}

/* --- policies ----------------------------------------------------------------------------------- */

static void write_picks(const struct board *b) {
	const char *name = PREFIX "policy_decisions_total";

	metric_write_family(b->out, name, "counter", "Choices, by policy and the engine that it was.");
	for (uint32_t i = 0; i < b->n_rows; i++)
		for (unsigned k = 0; policy_table[k]; k++) {
			uint64_t n = sum_of(b, instance_at(b, b->rows[i]),
			    offsetof(struct vllm_instance_counts, n_picks) + k * sizeof(metric_cell));
			const struct metric_label labels[] = { { "policy", policy_name(policy_table[k]) },
				{ "worker", url_at(b, i) } };

			if (n)
				metric_write_labelled(b->out, name, labels, n_elems(labels), (double)n);
		}
}

static void write_policies(const struct board *b) {
	double most = 0, least = b->n_rows ? load_of(b, b->rows[0]) : 0;

	for (uint32_t i = 0; i < b->n_rows; i++) {
		double load = load_of(b, b->rows[i]);

		most = load > most ? load : most;
		least = load < least ? load : least;
	}
	write_picks(b);
	metric_write_one(b->out, PREFIX "cache_hits_total", "counter",
	    "Choices of an engine that was thought to have a part of the prompt cached.",
	    (double)sum_at(b, offsetof(struct vllm_counts, n_hits)));
	metric_write_one(b->out, PREFIX "cache_misses_total", "counter",
	    "Choices of one that was thought to have none of it.",
	    (double)sum_at(b, offsetof(struct vllm_counts, n_misses)));
	metric_write_one(b->out, PREFIX "load_balancing_events_total", "counter",
	    "Choices that went by load alone.", (double)sum_at(b, offsetof(struct vllm_counts, n_balanced)));
	metric_write_one(b->out, PREFIX "max_load", "gauge", "Requests at the engine with the most.", most);
	metric_write_one(
	    b->out, PREFIX "min_load", "gauge", "Requests at the engine with the fewest.", least);
}

/* --- all ------------------------------------------------------------------------------------------ */

static int compare_urls(const void *a, const void *b, void *snap) {
	const struct snapshot_row *rows = ((const struct snapshot *)snap)->rows;
	uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
	int order = strcmp(rows[i].instance->spec.url.p, rows[k].instance->spec.url.p);

	return order ? order : i < k ? -1 : i > k;
}

static void collect_rows(struct board *b) {
	uint32_t n = 0;

	b->rows = calloc(b->snap->n_rows + 1, sizeof(*b->rows));
	for (uint32_t i = 0; i < b->snap->n_rows; i++)
		if (b->snap->rows[i].primary == i)
			b->rows[n++] = i;
	qsort_r(b->rows, n, sizeof(*b->rows), compare_urls, (void *)b->snap);
	for (uint32_t i = 0; i < n; i++)
		if (!b->n_rows || strcmp(url_at(b, b->n_rows - 1), url_at(b, i)) != 0)
			b->rows[b->n_rows++] = b->rows[i];
}

static void write_fleet(const struct board *b, const struct vllm_turnover *turnover) {
	uint32_t n_active = 0;

	for (uint32_t i = 0; i < b->n_rows; i++)
		n_active += snapshot_is_routable(b->snap, b->rows[i]);
	metric_write_one(
	    b->out, PREFIX "active_workers", "gauge", "Engines that may get requests.", n_active);
	metric_write_one(b->out, PREFIX "discovery_updates_total", "counter",
	    "Times that engines came or went.", (double)turnover->n_updates);
	metric_write_one(b->out, PREFIX "discovery_workers_added", "gauge",
	    "Engines that came the last time.", turnover->n_added);
	metric_write_one(b->out, PREFIX "discovery_workers_removed", "gauge",
	    "Engines that went the last time.", turnover->n_removed);
}

void vllm_report_write(const struct router *router, const struct snapshot *snap,
    const struct vllm_turnover *turnover, FILE *out) {
	struct board b = { .router = router, .snap = snap, .now_ms = clock_now_ns() / 1000000u, .out = out };

	collect_rows(&b);
	write_requests(&b);
	write_embeddings(&b);
	write_fleet(&b, turnover);
	write_instance_values(&b);
	write_legs(&b);
	write_breakers(&b);
	write_split_errors(&b);
	write_policies(&b);
	free(b.rows);
}
