#include "sim/engine_class.h"

static const struct engine_class *const classes[] = {
	[ENGINE_MOCK] = &mock_engine_class,
	[ENGINE_SIMPLE] = &simple_engine_class,
};

struct engine_model *engine_model_new(const struct engine_options *options, const struct trace *trace) {
	assert(options->kind < n_elems(classes) && options->n_engines > 0);
	assert(options->prefill_tokens_per_s > 0 && options->n_block_tokens > 0);
	assert(trace->n <= UINT32_MAX / 2);
	struct engine_model *model = classes[options->kind]->new (options, trace);

	model->class = classes[options->kind];
	model->options = *options;
	model->trace = trace;
	return model;
}

void engine_model_free(struct engine_model **model) {
	if (*model)
		(*model)->class->free(*model);
	*model = NULL;
}

void engine_model_submit(struct engine_model *model, uint32_t engine, uint32_t request, uint64_t now_ns) {
	assert(engine < model->options.n_engines && request < model->trace->n);
	model->class->submit(model, engine, request, now_ns);
}

bool engine_model_next(struct engine_model *model, uint64_t until_ns, struct engine_event *event_out) {
	return model->class->next(model, until_ns, event_out);
}
