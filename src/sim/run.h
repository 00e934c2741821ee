/*
 * run: one trace under one policy, from the first arrival to the last token.
 *
 * Requests go to the routers in turn; routers share the engines and nothing else.
 */
#pragma once

#include "sim/engine_model.h"

struct run_options {
	const struct trace *trace; /* finished */
	const char *policy;
	struct engine_options engine;
	uint32_t n_routers; /* 1 or more */
	size_t index_bytes; /* of each one's prefix index; 0: none */
	uint64_t seed;
};

/* What became of it; owns its arrays. */
struct run {
	uint64_t *first_token_ns; /* by request: from its arrival */
	uint64_t *work_tokens; /* by engine: the prompt tokens that it had to compute, 1 a request at least */
	size_t n_requests;
	uint32_t n_engines;
	uint64_t n_hit_blocks, n_blocks;
	uint64_t n_output_tokens;
	uint64_t ended_ns;    /* the last token */
	uint64_t decision_ns; /* real time in the routers' decisions, all together: never the same twice */
};

/* False: the system has not the memory for that; the run is to be deinitialised either way. */
must_use bool run_init(struct run *run, const struct run_options *options);
void run_deinit(struct run *run);
