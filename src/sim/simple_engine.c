/* simple_engine: all is known at the arrival (sim/engine_model.h); the rest is to wait for it. */
#include <stdlib.h>

#include "engine/prefix_cache.h"
#include "sim/agenda.h"
#include "sim/engine_class.h"

#define NS_PER_S 1000000000ull

struct simple_engine {
	struct prefix_cache *cache;
	uint64_t free_at_ns; /* when the FIFO has done what it has */
};

struct simple {
	struct engine_model model;
	struct agenda agenda;   /* 2 x request + enum engine_event_kind */
	uint32_t *n_hit_blocks; /* by request */
	struct simple_engine engines[];
};

static struct simple *simple_of(struct engine_model *model) {
	return container_of(model, struct simple, model);
}

static struct engine_model *simple_new(const struct engine_options *options, const struct trace *trace) {
	struct simple *s = calloc(1, sizeof(*s) + options->n_engines * sizeof(s->engines[0]));

	agenda_init(&s->agenda);
	s->n_hit_blocks = calloc(trace->n, sizeof(*s->n_hit_blocks));
	for (uint32_t e = 0; e < options->n_engines; e++)
		s->engines[e].cache = prefix_cache_new(options->n_cache_blocks);
	return &s->model;
}

static void simple_free(struct engine_model *model) {
	struct simple *s = simple_of(model);

	for (uint32_t e = 0; e < model->options.n_engines; e++)
		prefix_cache_free(&s->engines[e].cache);
	agenda_deinit(&s->agenda);
	free(s->n_hit_blocks);
	free(s);
}

static uint32_t cached_tokens(const struct simple *s, uint32_t request) {
	uint64_t n = (uint64_t)s->n_hit_blocks[request] * s->model.options.n_block_tokens;

	return (uint32_t)u64_min(n, s->model.trace->requests[request].n_input_tokens);
}

static void simple_submit(struct engine_model *model, uint32_t engine, uint32_t request, uint64_t now_ns) {
	struct simple *s = simple_of(model);
	struct simple_engine *e = &s->engines[engine];
	const struct trace_request *r = &model->trace->requests[request];
	const uint64_t *blocks = trace_blocks(model->trace, r);

	s->n_hit_blocks[request] = (uint32_t)prefix_cache_match(e->cache, blocks, r->n_blocks);
	prefix_cache_touch(e->cache, blocks, r->n_blocks);

	uint64_t n_tokens = u64_max(1, r->n_input_tokens - cached_tokens(s, request));
	e->free_at_ns =
	    u64_max(e->free_at_ns, now_ns) + n_tokens * NS_PER_S / model->options.prefill_tokens_per_s;
	uint64_t done_ns = e->free_at_ns + r->n_output_tokens * model->options.inter_token_ns;
	agenda_add(&s->agenda, e->free_at_ns, 2ull * request + ENGINE_FIRST_TOKEN);
	agenda_add(&s->agenda, done_ns, 2ull * request + ENGINE_DONE);
}

static bool simple_next(struct engine_model *model, uint64_t until_ns, struct engine_event *event_out) {
	struct simple *s = simple_of(model);
	uint64_t at_ns = agenda_at_ns(&s->agenda);

	if (at_ns == AGENDA_NEVER || at_ns > until_ns)
		return false;
	uint64_t what = agenda_take(&s->agenda);
	*event_out = (struct engine_event){
		.kind = (enum engine_event_kind)(what % 2),
		.at_ns = at_ns,
		.request = (uint32_t)(what / 2),
		.n_hit_blocks = s->n_hit_blocks[what / 2],
		.n_cached_tokens = cached_tokens(s, (uint32_t)(what / 2)),
	};
	return true;
}

const struct engine_class simple_engine_class = {
	.new = simple_new,
	.free = simple_free,
	.submit = simple_submit,
	.next = simple_next,
};
