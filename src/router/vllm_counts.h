/*
 * vllm_counts: what one worker counts for those metrics of vLLM's router that ours have no numbers for.
 *
 * A shard is written by its worker alone, with relaxed stores, and may be read by any thread; it stands
 * still while such metrics are not shown. Requests are counted by the route that their path belongs to, which
 * is one of that router's own or "other", so that no text from the wire makes a series. What is counted of an
 * instance is kept by its slot, and is nothing again once the slot is another's.
 */
#pragma once

#include "base/cause.h"
#include "base/metric.h"
#include "fleet/instance.h"
#include "policy/policy.h"

#define VLLM_ROUTES   23u
#define VLLM_EDGES    20u
#define VLLM_BACKOFFS 8u  /* attempts that are told apart; later ones are "other", the first of the array */
#define VLLM_POLICIES 16u /* at least as many as there are */

/* Ways to fail: one for each cause, and answers of an engine, or of the router itself, that say no. */
#define VLLM_ERROR_4XX ((unsigned)N_CAUSES)
#define VLLM_ERROR_5XX (VLLM_ERROR_4XX + 1)
#define VLLM_ERRORS    (VLLM_ERROR_5XX + 1)

struct vllm_histogram {
	metric_cell buckets[VLLM_EDGES + 1]; /* the last is +Inf */
	metric_cell sum_ns;
};

struct vllm_route_counts {
	metric_cell n_requests, n_retries, n_exhausted, n_split;
	metric_cell n_errors[VLLM_ERRORS];
	struct vllm_histogram duration, split_duration;
};

enum vllm_leg { VLLM_PREFILL, VLLM_DECODE };

#define VLLM_LEGS 2

struct vllm_instance_counts {
	metric_cell serial; /* whose they are; 0: nobody's */
	metric_cell n_picks[VLLM_POLICIES];
	metric_cell n_legs[VLLM_LEGS], n_leg_errors[VLLM_LEGS], n_stream_errors;
};

struct vllm_counts {
	struct vllm_route_counts routes[VLLM_ROUTES];
	struct vllm_histogram backoffs[VLLM_BACKOFFS];
	metric_cell n_split_errors[VLLM_ERRORS];
	metric_cell n_hits, n_misses, n_balanced;
	struct vllm_instance_counts instances[INSTANCE_SLOTS_MAX];
};

/* Zeroed; what is not counted yet takes no memory. */
struct vllm_counts *vllm_counts_new(void);
void vllm_counts_free(struct vllm_counts **counts); /* accepts NULL, clears */

/* The upper bounds of all buckets but the last, in milliseconds, and one observation. */
extern const uint32_t vllm_edges_ms[VLLM_EDGES];
void vllm_histogram_observe(struct vllm_histogram *h, uint64_t ns);

/* By a path without its query, with a slash in front; 0 is "other". VLLM_ROUTES: a probe of the router, which
 * is no request to dashboards. */
unsigned vllm_route_of(struct slice path);
const char *vllm_route_text(unsigned route);

/* VLLM_ERRORS: it did well. */
unsigned vllm_error_of(enum cause cause, unsigned status);
const char *vllm_error_text(unsigned error);

/* One request is over. */
struct vllm_request {
	struct slice path;
	enum cause cause;
	unsigned status; /* that the client got */
	uint64_t total_ns;
	bool is_exhausted; /* it would have been sent again, but for the limits of retries */
	bool was_split;    /* one instance computed the prompt for another one */
};
void vllm_counts_request(struct vllm_counts *c, const struct vllm_request *request);

/* A request was sent `attempt` times and will be sent once more after a wait. */
void vllm_counts_retry(struct vllm_counts *c, struct slice path, unsigned attempt, uint64_t wait_ms);

/* A policy decided for this instance. */
struct vllm_pick {
	const struct instance *instance;
	const struct policy *policy;
	enum pick_reason reason;
	bool is_looked_up, is_cached; /* what it has cached was asked for, and it has some of it */
};
void vllm_counts_pick(struct vllm_counts *c, const struct vllm_pick *pick);

/* A leg of a shared request is over at this instance. */
void vllm_counts_leg(struct vllm_counts *c, const struct instance *inst, enum vllm_leg leg, bool is_error);

/* Likewise, by an answer that broke off or stood still. */
void vllm_counts_broken_stream(struct vllm_counts *c, const struct instance *inst);

/* NULL: nothing was counted of this instance. Any thread, while it lives. */
const struct vllm_instance_counts *vllm_counts_of(const struct vllm_counts *c, const struct instance *inst);
