/*
 * sim_config: the options of headrace sim, read once at the start, then immutable.
 */
#pragma once

#include "base/option.h"
#include "sim/run.h"

struct sim_config {
	struct option_set *options;  /* owns the texts */
	const char *trace;           /* a path, or "gen:..." */
	struct option_list policies; /* at least one */
	enum engine_kind model;
	uint32_t n_engines, n_routers;
	uint32_t prefill_tokens_per_s;
	uint32_t n_cache_blocks, n_block_tokens;
	uint32_t inter_token_ms, n_running_max;
	double speed;
	uint64_t prefix_index_mib; /* 0: none is kept */
	uint64_t seed;
	const char *json, *svg; /* a path, "-" for standard output, "": none */
	bool shows_cpu;
};

/* Returns -1 when there is a run to be made, otherwise the exit code. To be deinitialised either way. */
must_use int sim_config_load(struct sim_config *config, int argc, char *const *argv);
void sim_config_deinit(struct sim_config *config);
