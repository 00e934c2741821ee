/*
 * policy_options: what the operator says about picking. Immutable, shared by all threads;
 * what it points to is the configuration's and outlives every policy set.
 */
#pragma once

#include "fleet/traits.h"

struct policy;

/* A policy of its own for one model. */
struct policy_of_model {
	struct slice model;
	const struct policy *policy;
};

/* What the router's own place means: nothing, a preference, or a border. */
enum locality_mode { LOCALITY_OFF, LOCALITY_PREFER, LOCALITY_REQUIRE };

struct locality_options {
	enum locality_mode mode;
	uint64_t zone, region; /* traits_word() of where the router is; 0: not said */
	double threshold;      /* part of what instances take, at which the next ring is let in */
	uint32_t capacity;     /* what an instance takes that does not say: requests in flight */
};

struct policy_options {
	const struct policy *policy; /* of all models that have none of their own */
	const struct policy_of_model *models;
	size_t n_models;
	const struct policy *prefill, *decode; /* of the pools of each model; NULL: the model's own */
	enum connector connector;              /* of instances that do not say theirs; ANY: NIXL */

	/* What holds for all requests; they may ask for more. */
	enum privacy privacy_floor;
	struct slice residency; /* tags, separated by commas */
	struct locality_options locality;
	uint64_t cost_ceiling; /* of one request, in micro-units; 0: none */

	/* vLLM's router: rules before the cost of cache_aware; 0: not in force. */
	double cache_threshold;       /* of a prompt: no more than this part of it cached counts as nothing */
	double balance_rel_threshold; /* the most requests in flight against the fewest, */
	uint64_t balance_abs_threshold; /* and by how many: beyond both the least loaded is taken */

	double random_sharpness;   /* weighted_random: weights to this power, 0 to POLICY_SHARPNESS_MAX */
	uint64_t session_idle_ms;  /* session: it is over when nobody used it for so long */
	uint64_t session_capacity; /* session: so many are known at a time */
	double session_overload;   /* session: times its share, beyond which a home is left */
	uint64_t size_class_bytes; /* size_class: longer prompts are for "static" ones */
	const struct policy *size_class_then; /* the policy among those of a class; NULL: cache_aware */
	double composite_weights[4];          /* load, latency, locality, cost */
	double composite_min_score;
	unsigned
	    composite_candidates_max; /* so many of the best count as candidates when a choice is explained */
};

#define POLICY_SHARPNESS_MAX 4

/* How an instance with these traits hands on what it prefilled. */
static inline enum connector policy_connector(
    const struct policy_options *options, const struct kv_traits *kv) {
	if (kv->connector)
		return (enum connector)kv->connector;
	return options->connector ? options->connector : CONNECTOR_NIXL;
}

/* For an initialiser: what holds where nobody says anything. */
#define POLICY_OPTIONS_DEFAULTS                                                                              \
	.random_sharpness = 1, .session_idle_ms = 7200000, .session_capacity = 131072,                       \
	.session_overload = 2, .size_class_bytes = 51200, .composite_weights = { 2, 1, 1, 1 },               \
	.composite_min_score = 0.1, .composite_candidates_max = 10
