/*
 * engine_class: what a kind of engine is to engine_model. Private to this folder.
 */
#pragma once

#include "sim/engine_model.h"

/* The first member of each kind's own struct. */
struct engine_model {
	const struct engine_class *class;
	struct engine_options options;
	const struct trace *trace;
};

struct engine_class {
	struct engine_model *(*new)(const struct engine_options *options, const struct trace *trace);
	void (*free)(struct engine_model *model);
	void (*submit)(struct engine_model *model, uint32_t engine, uint32_t request, uint64_t now_ns);
	bool (*next)(struct engine_model *model, uint64_t until_ns, struct engine_event *event_out);
};

extern const struct engine_class simple_engine_class, mock_engine_class;
