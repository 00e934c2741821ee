#include "engine/scheduler.h"

#include "engine/api.h"

static const uint32_t iteration_buckets[ITERATION_N_BUCKETS] = { 1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048,
	4096, 8192, 16384 };

void scheduler_init(struct scheduler *s, const struct scheduler_options *options, uint64_t now_ns) {
	*s = (struct scheduler){
		.cache = prefix_cache_new(options->n_cache_blocks),
		.ledger = ledger_new(options->n_ledger_rows, now_ns),
		.n_block_tokens = options->n_block_tokens,
		.n_cache_blocks = options->n_cache_blocks,
	};
	latency_init(&s->latency, &options->latency);
}

void scheduler_deinit(struct scheduler *s) {
	assert(s->latency.n_running == 0 && s->latency.n_waiting == 0);
	prefix_cache_free(&s->cache);
	ledger_free(&s->ledger);
}

void scheduler_start(struct scheduler *s, struct generation *g, struct slice id, uint64_t now_ns) {
	g->ticket = ledger_start(s->ledger, id, g->api->name, g->model, g->is_stream, now_ns);
}

static uint32_t pass_cache(struct scheduler *s, const struct prompt *p) {
	size_t n_blocks = prefix_cache_match(s->cache, p->keys, p->n_keys);
	prefix_cache_touch(s->cache, p->keys, p->n_keys);
	return prompt_cached_tokens(p, n_blocks);
}

void scheduler_submit(struct scheduler *s, struct generation *g, uint64_t now_ns) {
	for (size_t i = 0; i < g->n_prompts; i++)
		g->n_cached_tokens += pass_cache(s, &g->prompts[i]);
	generation_drop_prompts(g);
	s->counts.n_query_tokens += g->n_prompt_tokens;
	s->counts.n_hit_tokens += g->n_cached_tokens;
	ledger_prompt(s->ledger, g->ticket, g->n_prompt_tokens, g->n_cached_tokens);
	latency_submit(&s->latency, &g->sequence, g->n_prompt_tokens, g->n_cached_tokens,
	    generation_output_tokens(g), now_ns);
}

static void end_step(struct scheduler *s) {
	size_t bucket = 0;
	if (s->n_step_tokens == 0)
		return;
	while (bucket < ITERATION_N_BUCKETS && s->n_step_tokens > iteration_buckets[bucket])
		bucket++;
	s->counts.n_in_iteration[bucket]++;
	s->counts.n_iteration_tokens += s->n_step_tokens;
	s->n_step_tokens = 0;
}

static void count_prompt(struct scheduler *s, const struct generation *g, uint64_t at_ns) {
	s->counts.n_prompt_tokens += g->n_prompt_tokens;
	s->n_step_tokens += g->n_prompt_tokens - g->n_cached_tokens;
	if (g->sequence.n_made_tokens > 0)
		ledger_first_token(s->ledger, g->ticket, at_ns);
}

struct generation *scheduler_next(struct scheduler *s, uint64_t now_ns) {
	uint64_t at_ns;
	struct latency_sequence *sequence = latency_pop(&s->latency, now_ns, &at_ns);
	if (!sequence) {
		end_step(s);
		return NULL;
	}
	struct generation *g = container_of(sequence, struct generation, sequence);
	if (sequence->n_made_tokens <= 1)
		count_prompt(s, g, at_ns);
	if (sequence->n_made_tokens > 0) {
		uint32_t n_made = generation_tokens_in_step(g, sequence->n_made_tokens - 1);
		s->counts.n_made_tokens += n_made;
		s->n_step_tokens += n_made;
	}
	if (sequence->state != LATENCY_DONE && sequence->n_made_tokens >= g->n_steps_max)
		latency_hold(&s->latency, sequence, now_ns);
	return g;
}

uint64_t scheduler_due_ns(const struct scheduler *s) {
	return latency_due_ns(&s->latency);
}

void scheduler_hold(struct scheduler *s, struct generation *g, uint64_t now_ns) {
	latency_hold(&s->latency, &g->sequence, now_ns);
}

void scheduler_end(
    struct scheduler *s, struct generation *g, enum ledger_state state, const char *cause, uint64_t now_ns) {
	enum end_reason reason = END_STOP;
	if (state != LEDGER_FINISHED)
		reason = state == LEDGER_CANCELLED ? END_ABORT : END_ERROR;
	else if (g->n_choices > 0 && g->choices[0].finish == FINISH_LENGTH)
		reason = END_LENGTH;
	s->counts.n_ended[reason]++;
	latency_abort(&s->latency, &g->sequence, now_ns);
	ledger_end(s->ledger, g->ticket, state, cause, generation_made_tokens(g), now_ns);
}

double scheduler_cache_usage(const struct scheduler *s) {
	double n_blocks = (double)s->latency.n_context_tokens / s->n_block_tokens;
	return n_blocks < s->n_cache_blocks ? n_blocks / s->n_cache_blocks : 1;
}

void scheduler_reset(struct scheduler *s) {
	prefix_cache_clear(s->cache);
	ledger_reset(s->ledger);
}

/* HELP and TYPE; every series of the engine carries its number and the model. */
static void add_head(struct bytes *out, const char *name, const char *type, const char *help) {
	bytes_printf(out, "# HELP vllm:%s %s\n# TYPE vllm:%s %s\n", name, help, name, type);
}

static void add_value(struct bytes *out, const char *name, const char *type, const char *help,
    const char *model, double value) {
	add_head(out, name, type, help);
	bytes_printf(out, "vllm:%s{engine=\"0\",model_name=\"%s\"} %.17g\n", name, model, value);
}

static void add_iterations(const struct scheduler *s, const char *model, struct bytes *out) {
	static const char name[] = "iteration_tokens_total";
	uint64_t n = 0;

	add_head(out, name, "histogram", "Histogram of number of tokens per engine_step.");
	for (size_t i = 0; i <= ITERATION_N_BUCKETS; i++) {
		n += s->counts.n_in_iteration[i];
		bytes_printf(out, "vllm:%s_bucket{engine=\"0\",le=\"", name);
		if (i < ITERATION_N_BUCKETS)
			bytes_printf(out, "%u.0", iteration_buckets[i]);
		else
			bytes_add(out, SLICE("+Inf"));
		bytes_printf(out, "\",model_name=\"%s\"} %lu\n", model, n);
	}
	bytes_printf(out,
	    "vllm:%s_count{engine=\"0\",model_name=\"%s\"} %lu\nvllm:%s_sum{engine=\"0\",model_name=\"%s\"} "
	    "%lu\n",
	    name, model, n, name, model, s->counts.n_iteration_tokens);
}

static void add_ended(const struct scheduler *s, const char *model, struct bytes *out) {
	static const char *const reasons[END_N_REASONS] = { "stop", "length", "abort", "error" };
	add_head(out, "request_success_total", "counter", "Count of successfully processed requests.");
	for (size_t i = 0; i < END_N_REASONS; i++)
		bytes_printf(out,
		    "vllm:request_success_total{engine=\"0\",finished_reason=\"%s\",model_name=\"%s\"} %lu\n",
		    reasons[i], model, s->counts.n_ended[i]);
}

void scheduler_metrics(const struct scheduler *s, const char *model, struct bytes *out) {
	const struct scheduler_counts *c = &s->counts;
	const struct {
		const char *name, *type, *help;
		double value;
	} rows[] = {
		{ "num_requests_running", "gauge", "Number of requests in model execution batches.",
		    s->latency.n_running },
		{ "num_requests_waiting", "gauge", "Number of requests waiting to be processed.",
		    s->latency.n_waiting },
		{ "kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.",
		    scheduler_cache_usage(s) },
		{ "prefix_cache_queries_total", "counter",
		    "Prefix cache queries, in terms of number of queried tokens.",
		    (double)c->n_query_tokens },
		{ "prefix_cache_hits_total", "counter",
		    "Prefix cache hits, in terms of number of cached tokens.", (double)c->n_hit_tokens },
		{ "prompt_tokens_total", "counter", "Number of prefill tokens processed.",
		    (double)c->n_prompt_tokens },
		{ "generation_tokens_total", "counter", "Number of generation tokens processed.",
		    (double)c->n_made_tokens },
	};
	for (size_t i = 0; i < n_elems(rows); i++)
		add_value(out, rows[i].name, rows[i].type, rows[i].help, model, rows[i].value);
	add_ended(s, model, out);
	add_iterations(s, model, out);
	add_head(out, "cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
	bytes_printf(out,
	    "vllm:cache_config_info{block_size=\"%u\",enable_prefix_caching=\"True\",engine=\"0\",num_gpu_"
	    "blocks=\"%u\"} 1.0\n",
	    s->n_block_tokens, s->n_cache_blocks);
}
