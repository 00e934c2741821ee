/*
 * mock_engine: the mock engine's own model in virtual time (sim/engine_model.h).
 *
 * The agenda says when to look at which engine again. An engine that gets work may be
 * due earlier than its entry says; then it gets another one, and the later is stale.
 * Tokens between a request's first and last one are nobody's news: while no other
 * engine is due, they are made without the agenda.
 */
#include <stdlib.h>

#include "engine/latency.h"
#include "engine/prefix_cache.h"
#include "sim/agenda.h"
#include "sim/engine_class.h"

struct mock_sequence {
	struct latency_sequence sequence;
	uint32_t request, n_hit_blocks, n_cached_tokens;
};

struct mock_engine {
	struct latency latency;
	struct prefix_cache *cache;
	uint64_t look_at_ns; /* of its first entry in the agenda that is not stale; AGENDA_NEVER: none */
};

struct mock {
	struct engine_model model;
	struct agenda agenda;
	struct mock_sequence *sequences; /* by request */
	bool has_ended;                  /* an event that is still to be told: a sequence's end ... */
	struct engine_event end;         /* ... at the time of its first token */
	struct mock_engine engines[];
};

static struct mock *mock_of(struct engine_model *model) {
	return container_of(model, struct mock, model);
}

static struct engine_model *mock_new(const struct engine_options *options, const struct trace *trace) {
	struct mock *m = calloc(1, sizeof(*m) + options->n_engines * sizeof(m->engines[0]));
	struct latency_options latency = {
		.prefill_tokens_per_s = options->prefill_tokens_per_s,
		.inter_token_ns = options->inter_token_ns,
		.n_running_max = options->n_running_max,
	};

	agenda_init(&m->agenda);
	m->sequences = calloc(trace->n, sizeof(*m->sequences));
	for (uint32_t e = 0; e < options->n_engines; e++) {
		latency_init(&m->engines[e].latency, &latency);
		m->engines[e].cache = prefix_cache_new(options->n_cache_blocks);
		m->engines[e].look_at_ns = AGENDA_NEVER;
	}
	return &m->model;
}

static void mock_free(struct engine_model *model) {
	struct mock *m = mock_of(model);

	for (uint32_t e = 0; e < model->options.n_engines; e++)
		prefix_cache_free(&m->engines[e].cache);
	agenda_deinit(&m->agenda);
	free(m->sequences);
	free(m);
}

static uint32_t full_blocks(const struct mock *m, const struct trace_request *r) {
	return (uint32_t)u64_min(r->n_blocks, r->n_input_tokens / m->model.options.n_block_tokens);
}

/* Looks up what the cache can save whoever's prefill is about to begin. */
static void begin_prefill(struct mock *m, struct mock_engine *e) {
	struct latency_sequence *starting = latency_starting(&e->latency);

	if (!starting)
		return;
	struct mock_sequence *s = container_of(starting, struct mock_sequence, sequence);
	const struct trace_request *r = &m->model.trace->requests[s->request];
	uint32_t n =
	    (uint32_t)prefix_cache_match(e->cache, trace_blocks(m->model.trace, r), full_blocks(m, r));

	if (n > 0 && n * m->model.options.n_block_tokens == r->n_input_tokens)
		n--;
	s->n_hit_blocks = n;
	s->n_cached_tokens = n * m->model.options.n_block_tokens;
	latency_begin(&e->latency, starting, s->n_cached_tokens);
}

static void schedule(struct mock *m, uint32_t engine) {
	struct mock_engine *e = &m->engines[engine];
	uint64_t due_ns = latency_due_ns(&e->latency);

	if (due_ns < e->look_at_ns) {
		agenda_add(&m->agenda, due_ns, engine);
		e->look_at_ns = due_ns;
	}
}

static void mock_submit(struct engine_model *model, uint32_t engine, uint32_t request, uint64_t now_ns) {
	struct mock *m = mock_of(model);
	struct mock_engine *e = &m->engines[engine];
	const struct trace_request *r = &model->trace->requests[request];

	m->sequences[request].request = request;
	latency_submit(
	    &e->latency, &m->sequences[request].sequence, r->n_input_tokens, r->n_output_tokens, now_ns);
	begin_prefill(m, e);
	schedule(m, engine);
}

/* Tells of a token that is the first or the last one. */
static bool tell(struct mock *m, struct mock_engine *e, const struct mock_sequence *s, uint64_t at_ns,
    struct engine_event *event_out) {
	bool is_first = s->sequence.n_made_tokens <= 1, is_last = s->sequence.state == LATENCY_DONE;
	const struct trace_request *r = &m->model.trace->requests[s->request];
	struct engine_event event = {
		.kind = is_first ? ENGINE_FIRST_TOKEN : ENGINE_DONE,
		.at_ns = at_ns,
		.request = s->request,
		.n_hit_blocks = s->n_hit_blocks,
		.n_cached_tokens = s->n_cached_tokens,
	};

	if (is_first)
		prefix_cache_touch(e->cache, trace_blocks(m->model.trace, r), full_blocks(m, r));
	*event_out = event;
	m->has_ended = is_first && is_last;
	m->end = event;
	m->end.kind = ENGINE_DONE;
	return is_first || is_last;
}

/* Makes one token of what is due by `until_ns`; true when that is an event. */
static bool make_token(
    struct mock *m, struct mock_engine *e, uint64_t until_ns, struct engine_event *event_out) {
	uint64_t at_ns;
	struct latency_sequence *made = latency_pop(&e->latency, until_ns, &at_ns);

	if (!made)
		return false;
	bool is_event = tell(m, e, container_of(made, struct mock_sequence, sequence), at_ns, event_out);
	begin_prefill(m, e);
	return is_event;
}

static bool mock_next(struct engine_model *model, uint64_t until_ns, struct engine_event *event_out) {
	struct mock *m = mock_of(model);

	if (m->has_ended) {
		m->has_ended = false;
		*event_out = m->end;
		return true;
	}
	for (uint64_t at_ns; (at_ns = agenda_at_ns(&m->agenda)) <= until_ns && at_ns != AGENDA_NEVER;) {
		uint32_t engine = (uint32_t)agenda_take(&m->agenda);
		struct mock_engine *e = &m->engines[engine];
		bool is_event = false;

		if (at_ns != e->look_at_ns)
			continue;
		e->look_at_ns = AGENDA_NEVER;
		uint64_t alone_ns = u64_min(until_ns, agenda_at_ns(&m->agenda));
		while (!is_event && latency_due_ns(&e->latency) <= alone_ns &&
		    latency_due_ns(&e->latency) != LATENCY_NEVER)
			is_event = make_token(m, e, alone_ns, event_out);
		schedule(m, engine);
		if (is_event)
			return true;
	}
	return false;
}

const struct engine_class mock_engine_class = {
	.new = mock_new,
	.free = mock_free,
	.submit = mock_submit,
	.next = mock_next,
};
