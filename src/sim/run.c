#include "sim/run.h"

#include <stdlib.h>

#include "base/clock.h"
#include "sim/virtual_router.h"

#define ASK_NS 2000000000ull /* as often as routers do unless they are told otherwise */

/* Requests at an engine. */
struct crowd {
	uint32_t n_prefills, n_decodes;
};

/* What a run needs on its way. */
struct course {
	const struct trace *trace;
	struct run *run;
	struct engine_model *engines;
	struct virtual_router **routers;
	uint32_t n_routers;
	struct passage *passages; /* by request */
	struct crowd *crowds;     /* by engine */
	uint64_t asked_ns;        /* when the engines were asked last */
};

static struct virtual_router *router_of(const struct course *c, size_t request) {
	return c->routers[request % c->n_routers];
}

static void on_first_token(struct course *c, const struct engine_event *event) {
	const struct trace_request *r = &c->trace->requests[event->request];
	struct passage *passage = &c->passages[event->request];

	c->run->first_token_ns[event->request] = event->at_ns - r->at_ns;
	c->run->n_hit_blocks += event->n_hit_blocks;
	c->run->work_tokens[passage->engine] += u64_max(1, r->n_input_tokens - event->n_cached_tokens);
	c->crowds[passage->engine].n_prefills--;
	c->crowds[passage->engine].n_decodes++;
	virtual_router_first_token(router_of(c, event->request), passage, event->at_ns);
}

static void on_done(struct course *c, const struct engine_event *event) {
	const struct trace_request *r = &c->trace->requests[event->request];
	struct ticket_usage usage = { .prompt_tokens = r->n_input_tokens,
		.cached_tokens = event->n_cached_tokens,
		.output_tokens = r->n_output_tokens,
		.has_cached = true };

	c->run->ended_ns = event->at_ns;
	c->crowds[c->passages[event->request].engine].n_decodes--;
	virtual_router_done(router_of(c, event->request), &c->passages[event->request], &usage);
}

/* All that the engines do until then. */
static void advance(struct course *c, uint64_t until_ns) {
	struct engine_event event;

	while (engine_model_next(c->engines, until_ns, &event)) {
		if (event.kind == ENGINE_FIRST_TOKEN)
			on_first_token(c, &event);
		else
			on_done(c, &event);
	}
}

/* One is prefilled at a time, the others wait. */
static void ask(struct course *c, uint64_t now_ns) {
	for (uint32_t e = 0; e < c->run->n_engines; e++) {
		struct crowd crowd = c->crowds[e];
		uint32_t n_waiting = crowd.n_prefills ? crowd.n_prefills - 1 : 0;
		uint32_t n_running = crowd.n_prefills - n_waiting + crowd.n_decodes;

		for (uint32_t i = 0; i < c->n_routers; i++)
			virtual_router_hear(c->routers[i], e, n_running, n_waiting, now_ns);
	}
	c->asked_ns = now_ns;
}

static void arrive(struct course *c, size_t request) {
	const struct trace_request *r = &c->trace->requests[request];
	uint64_t begun_ns = clock_now_ns();

	virtual_router_arrive(router_of(c, request), &c->passages[request], c->trace, r, r->at_ns);
	c->run->decision_ns += clock_now_ns() - begun_ns;
	c->run->n_blocks += r->n_blocks;
	c->run->n_output_tokens += r->n_output_tokens;
	c->crowds[c->passages[request].engine].n_prefills++;
	engine_model_submit(c->engines, c->passages[request].engine, (uint32_t)request, r->at_ns);
}

static void go(struct course *c) {
	for (size_t i = 0; i < c->trace->n; i++) {
		uint64_t now_ns = c->trace->requests[i].at_ns;

		advance(c, now_ns);
		if (now_ns >= c->asked_ns + ASK_NS)
			ask(c, now_ns);
		arrive(c, i);
	}
	advance(c, UINT64_MAX);
}

static bool start_routers(struct course *c, const struct run_options *options) {
	for (uint32_t i = 0; i < c->n_routers; i++) {
		struct virtual_router_options router = {
			.policy = options->policy,
			.n_engines = options->engine.n_engines,
			.n_block_tokens = options->engine.n_block_tokens,
			.index_bytes = options->index_bytes,
			.seed = options->seed + i,
		};
		if (!(c->routers[i] = virtual_router_new(&router)))
			return false;
	}
	return true;
}

bool run_init(struct run *run, const struct run_options *options) {
	size_t n = options->trace->n;
	struct course course = {
		.trace = options->trace,
		.run = run,
		.engines = engine_model_new(&options->engine, options->trace),
		.routers = calloc(options->n_routers, sizeof(*course.routers)),
		.n_routers = options->n_routers,
		.passages = calloc(n, sizeof(*course.passages)),
		.crowds = calloc(options->engine.n_engines, sizeof(*course.crowds)),
	};
	bool is_good = start_routers(&course, options);

	*run = (struct run){
		.first_token_ns = calloc(n, sizeof(*run->first_token_ns)),
		.work_tokens = calloc(options->engine.n_engines, sizeof(*run->work_tokens)),
		.n_requests = n,
		.n_engines = options->engine.n_engines,
	};
	if (is_good)
		go(&course);
	for (uint32_t i = 0; i < options->n_routers; i++)
		virtual_router_free(&course.routers[i]);
	engine_model_free(&course.engines);
	free(course.routers);
	free(course.passages);
	free(course.crowds);
	return is_good;
}

void run_deinit(struct run *run) {
	free(run->first_token_ns);
	free(run->work_tokens);
	*run = (struct run){ .n_requests = 0 };
}
