/*
 * figures: what an inference engine says of its load at /metrics: vLLM, SGLang, TensorRT-LLM
 * and llama.cpp, each by its own names. Pure; a hostile text costs one pass over it.
 */
#pragma once

#include "base/slice.h"

enum figure {
	FIGURE_RUNNING,         /* requests */
	FIGURE_WAITING,         /* requests */
	FIGURE_KV_USAGE,        /* 0 to 1 */
	FIGURE_GENERATION_RATE, /* tokens a second, where the engine itself says it; scrape adds what shows */
	FIGURE_GENERATED,       /* tokens since it started */
	FIGURE_CACHE_TOKENS,    /* its KV cache holds so many */
	FIGURE_STARTED,         /* seconds; of several processes the sum: good for comparing only */
	FIGURES,
};

struct figures {
	double values[FIGURES]; /* 0 where it is not said */
	bool is_said[FIGURES];
	uint32_t n_engines; /* data-parallel ranks that vLLM speaks of, by the label engine; 0: of none */
};

/*
 * Several series of one name (data-parallel ranks, models) are summed, usages averaged; of
 * several names for one figure the one that is preferred counts. A value that is no number,
 * negative, or too large to be true is not said. False, and nothing else is meant by
 * *figures_out, when neither what runs nor what waits is said.
 */
must_use bool figures_read(struct slice text, struct figures *figures_out);

/*
 * The same of each of the ranks 0 to n - 1: of the series whose label engine is its number. When processes
 * began is said of all. A rank of which neither what runs nor what waits is said has nothing said.
 */
void figures_read_ranks(struct slice text, struct figures *ranks_out, size_t n);
