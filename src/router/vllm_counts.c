#include "router/vllm_counts.h"

#include <stdlib.h>

const uint32_t vllm_edges_ms[VLLM_EDGES] = { 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 15000,
	30000, 45000, 60000, 90000, 120000, 180000, 240000 };

static const char *const routes[VLLM_ROUTES] = { "other", "/generate", "/inference/v1/generate",
	"/v1/chat/completions", "/v1/completions", "/rerank", "/v1/rerank", "/v1/responses", "/v1/embeddings",
	"/v1/responses/{id}", "/v1/responses/{id}/cancel", "/v1/responses/{id}/input", "/health_generate",
	"/v1/models", "/get_model_info", "/get_server_info", "/add_worker", "/remove_worker", "/list_workers",
	"/flush_cache", "/get_loads", "/workers", "/workers/{url}" };

static const char *const probes[] = { "/liveness", "/readiness", "/health" };

struct vllm_counts *vllm_counts_new(void) {
	return calloc(1, sizeof(struct vllm_counts));
}

void vllm_counts_free(struct vllm_counts **counts) {
	free(*counts);
	*counts = NULL;
}

/* --- routes and errors -------------------------------------------------------------------- */

/* `{…}` stands for one segment that is not empty. */
static bool is_match(const char *route, struct slice path) {
	size_t at = 0;

	for (const char *p = route; *p; p++) {
		size_t from = at;

		if (*p != '{') {
			if (at == path.n || path.p[at++] != *p)
				return false;
			continue;
		}
		while (at < path.n && path.p[at] != '/')
			at++;
		if (at == from)
			return false;
		p = strchr(p, '}');
	}
	return at == path.n;
}

unsigned vllm_route_of(struct slice path) {
	for (unsigned i = 1; i < VLLM_ROUTES; i++)
		if (is_match(routes[i], path))
			return i;
	for (size_t i = 0; i < n_elems(probes); i++)
		if (is_match(probes[i], path))
			return VLLM_ROUTES;
	return 0;
}

const char *vllm_route_text(unsigned route) {
	assert(route < VLLM_ROUTES);
	return routes[route];
}

unsigned vllm_error_of(enum cause cause, unsigned status) {
	if (cause)
		return (unsigned)cause;
	return status >= 500 ? VLLM_ERROR_5XX : status >= 400 ? VLLM_ERROR_4XX : VLLM_ERRORS;
}

const char *vllm_error_text(unsigned error) {
	assert(error < VLLM_ERRORS);
	if (error < N_CAUSES)
		return cause_row((enum cause)error)->label;
	return error == VLLM_ERROR_4XX ? "status_4xx" : "status_5xx";
}

/* --- counting ------------------------------------------------------------------------------- */

void vllm_histogram_observe(struct vllm_histogram *h, uint64_t ns) {
	unsigned i = 0;

	while (i < VLLM_EDGES && ns > vllm_edges_ms[i] * UINT64_C(1000000))
		i++;
	metric_add(&h->buckets[i], 1);
	metric_add(&h->sum_ns, ns);
}

void vllm_counts_request(struct vllm_counts *c, const struct vllm_request *request) {
	unsigned at = vllm_route_of(request->path), error = vllm_error_of(request->cause, request->status);
	struct vllm_route_counts *route = &c->routes[at];

	if (at == VLLM_ROUTES)
		return;
	metric_add(&route->n_requests, 1);
	metric_add(&route->n_exhausted, request->is_exhausted);
	vllm_histogram_observe(&route->duration, request->total_ns);
	if (error < VLLM_ERRORS)
		metric_add(&route->n_errors[error], 1);
	if (!request->was_split)
		return;
	metric_add(&route->n_split, 1);
	vllm_histogram_observe(&route->split_duration, request->total_ns);
	if (error < VLLM_ERRORS)
		metric_add(&c->n_split_errors[error], 1);
}

void vllm_counts_retry(struct vllm_counts *c, struct slice path, unsigned attempt, uint64_t wait_ms) {
	unsigned at = vllm_route_of(path);

	assert(attempt > 0);
	if (at == VLLM_ROUTES)
		return;
	metric_add(&c->routes[at].n_retries, 1);
	vllm_histogram_observe(&c->backoffs[attempt < VLLM_BACKOFFS ? attempt : 0], wait_ms * 1000000u);
}

/* A slot that was another's begins anew: who reads knows by the serial, which goes first and comes last. */
static struct vllm_instance_counts *counts_at(struct vllm_counts *c, const struct instance *inst) {
	struct vllm_instance_counts *i = &c->instances[inst->slot];

	if (metric_read(&i->serial) == inst->serial)
		return i;
	atomic_store_explicit(&i->serial, 0, memory_order_relaxed);
	for (unsigned k = 0; k < VLLM_POLICIES; k++)
		atomic_store_explicit(&i->n_picks[k], 0, memory_order_relaxed);
	for (unsigned k = 0; k < VLLM_LEGS; k++) {
		atomic_store_explicit(&i->n_legs[k], 0, memory_order_relaxed);
		atomic_store_explicit(&i->n_leg_errors[k], 0, memory_order_relaxed);
	}
	atomic_store_explicit(&i->n_stream_errors, 0, memory_order_relaxed);
	atomic_store_explicit(&i->serial, inst->serial, memory_order_release);
	return i;
}

static unsigned policy_at(const struct policy *policy) {
	unsigned i = 0;

	while (policy_table[i] != policy)
		i++;
	assert(i < VLLM_POLICIES);
	return i;
}

void vllm_counts_pick(struct vllm_counts *c, const struct vllm_pick *pick) {
	bool is_balanced = pick->reason == PICK_LEAST_LOAD || pick->reason == PICK_STICKY_SPILL;

	metric_add(&counts_at(c, pick->instance)->n_picks[policy_at(pick->policy)], 1);
	metric_add(&c->n_balanced, is_balanced);
	if (pick->is_looked_up)
		metric_add(pick->is_cached ? &c->n_hits : &c->n_misses, 1);
}

void vllm_counts_leg(struct vllm_counts *c, const struct instance *inst, enum vllm_leg leg, bool is_error) {
	struct vllm_instance_counts *i = counts_at(c, inst);

	metric_add(&i->n_legs[leg], 1);
	metric_add(&i->n_leg_errors[leg], is_error);
}

void vllm_counts_broken_stream(struct vllm_counts *c, const struct instance *inst) {
	metric_add(&counts_at(c, inst)->n_stream_errors, 1);
}

const struct vllm_instance_counts *vllm_counts_of(const struct vllm_counts *c, const struct instance *inst) {
	const struct vllm_instance_counts *i = &c->instances[inst->slot];

	return atomic_load_explicit(&i->serial, memory_order_acquire) == inst->serial ? i : NULL;
}
