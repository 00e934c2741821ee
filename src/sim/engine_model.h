/*
 * engine_model: a fleet of engines in virtual time, which tells what a router would see.
 *
 * ENGINE_SIMPLE is for comparison with others. At its arrival a request's leading blocks
 * that the engine has cached count as hits, and all its blocks become the most recent ones,
 * in their order. Then it passes one FIFO, in max(1, input - hits x block) / rate
 * seconds; its first token comes at the end of that, its last one after output x
 * inter-token time more. As many run as come.
 *
 * ENGINE_MOCK is headrace mock-engine: engine/latency and engine/prefix_cache. A prompt
 * is looked up when its prefill begins, is remembered when it ends, in full blocks, and a
 * token at least is computed; n_running_max requests run, the others wait.
 *
 * Time is given with every call and never goes back. Reads the trace, owns all else. One thread.
 */
#pragma once

#include "sim/trace.h"

enum engine_kind { ENGINE_MOCK, ENGINE_SIMPLE };

struct engine_options {
	enum engine_kind kind;
	uint32_t n_engines; /* all options but the kind are 1 or more */
	uint32_t prefill_tokens_per_s;
	uint64_t inter_token_ns;
	uint32_t n_cache_blocks, n_block_tokens;
	uint32_t n_running_max; /* of ENGINE_MOCK */
};

enum engine_event_kind { ENGINE_FIRST_TOKEN, ENGINE_DONE };

struct engine_event {
	enum engine_event_kind kind;
	uint64_t at_ns;
	uint32_t request; /* in the trace */
	uint32_t n_hit_blocks;
	uint32_t n_cached_tokens; /* at most its input */
};

struct engine_model;

struct engine_model *engine_model_new(const struct engine_options *options, const struct trace *trace);
void engine_model_free(struct engine_model **model);

/* The request arrives at an engine, now. Once for each request. */
void engine_model_submit(struct engine_model *model, uint32_t engine, uint32_t request, uint64_t now_ns);

/*
 * What happens next, at or before until_ns; false when that is nothing. Each request has two
 * events: its first token, or the end of its prefill when it makes none, and its end.
 */
must_use bool engine_model_next(
    struct engine_model *model, uint64_t until_ns, struct engine_event *event_out);
