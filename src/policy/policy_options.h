/*
 * policy_options: what the operator says about picking. Immutable, shared by all threads;
 * what it points to is the configuration's and outlives every policy set.
 */
#pragma once

#include "base/slice.h"

struct policy;

/* A policy of its own for one model. */
struct policy_of_model {
	struct slice model;
	const struct policy *policy;
};

struct policy_options {
	const struct policy *policy; /* of all models that have none of their own */
	const struct policy_of_model *models;
	size_t n_models;

	/* vLLM's router: rules before the cost of cache_aware; 0: not in force. */
	double cache_threshold;       /* of a prompt: no more than this part of it cached counts as nothing */
	double balance_rel_threshold; /* the most requests in flight against the fewest, */
	uint64_t balance_abs_threshold; /* and by how many: beyond both the least loaded is taken */
};
