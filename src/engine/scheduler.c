#include "engine/scheduler.h"

#include "engine/api.h"

#define NS_PER_S 1e9

/* vLLM's bounds. */
/* clang-format off */
static const struct buckets_scale step_scale = { 1, 13, { 1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096,
	8192, 16384 } };
static const struct buckets_scale first_token_scale = { NS_PER_S, 22, { 0.001, 0.005, 0.01, 0.02, 0.04, 0.06,
	0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560 } };
static const struct buckets_scale inter_token_scale = { NS_PER_S, 19, { 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
	0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80 } };
static const struct buckets_scale request_scale = { NS_PER_S, 21, { 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15,
	20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680 } };
/* clang-format on */

void scheduler_init(struct scheduler *s, const struct scheduler_options *options) {
	*s = (struct scheduler){
		.cache = prefix_cache_new(options->n_cache_blocks),
		.ledger = options->ledger,
		.n_block_tokens = options->n_block_tokens,
		.n_cache_blocks = options->n_cache_blocks,
		.counts = {
			.step_tokens.scale = &step_scale,
			.first_token.scale = &first_token_scale,
			.inter_token.scale = &inter_token_scale,
			.queue.scale = &request_scale,
			.whole.scale = &request_scale,
		},
	};
	latency_init(&s->latency, &options->latency);
}

void scheduler_deinit(struct scheduler *s) {
	assert(s->latency.n_running == 0 && s->latency.n_waiting == 0);
	prefix_cache_free(&s->cache);
}

void scheduler_start(struct scheduler *s, struct generation *g, struct slice id, uint64_t now_ns) {
	g->ticket = ledger_start(s->ledger, id, g->api->name, g->model, g->is_stream, now_ns);
	ledger_place(s->ledger, g->ticket, g->rank, kv_part_name(g->leg.part));
	g->started_ns = now_ns;
}

/* Looks up what the cache can save whoever's prefill is about to begin. */
static void begin_prefill(struct scheduler *s) {
	struct latency_sequence *sequence = latency_starting(&s->latency);
	if (!sequence)
		return;
	struct generation *g = container_of(sequence, struct generation, sequence);
	if (g->is_fetched) { /* all of it is there, and none of it was in our cache */
		latency_begin(&s->latency, sequence, g->n_prompt_tokens);
		return;
	}
	for (size_t i = 0; i < g->n_prompts; i++) {
		const struct prompt *p = &g->prompts[i];
		g->n_cached_tokens +=
		    prompt_cached_tokens(p, prefix_cache_match(s->cache, p->keys, p->n_keys));
	}
	s->counts.n_query_tokens += g->n_prompt_tokens;
	s->counts.n_hit_tokens += g->n_cached_tokens;
	ledger_prompt(s->ledger, g->ticket, g->n_prompt_tokens, g->n_cached_tokens);
	latency_begin(&s->latency, sequence, g->n_cached_tokens);
}

void scheduler_submit(struct scheduler *s, struct generation *g, uint64_t now_ns) {
	ledger_prompt(s->ledger, g->ticket, g->n_prompt_tokens, 0);
	latency_submit(&s->latency, &g->sequence, g->n_prompt_tokens, generation_output_tokens(g), now_ns);
	begin_prefill(s);
}

static void end_step(struct scheduler *s) {
	if (s->n_step_tokens > 0)
		buckets_add(&s->counts.step_tokens, s->n_step_tokens, 1);
	s->n_step_tokens = 0;
}

static void end_prefill(struct scheduler *s, struct generation *g) {
	for (size_t i = 0; i < g->n_prompts; i++)
		prefix_cache_touch(s->cache, g->prompts[i].keys, g->prompts[i].n_keys);
	generation_drop_prompts(g);
	s->counts.n_prompt_tokens += g->n_prompt_tokens;
	if (!g->is_fetched)
		s->n_step_tokens += g->n_prompt_tokens - g->n_cached_tokens;
}

static void count_tokens(struct scheduler *s, const struct generation *g, uint64_t at_ns) {
	uint32_t step = g->sequence.n_made_tokens - 1;
	uint32_t n_made = generation_tokens_in_step(g, step);

	s->counts.n_made_tokens += n_made;
	s->n_step_tokens += n_made;
	if (step == 0) {
		ledger_first_token(s->ledger, g->ticket, at_ns);
		buckets_add(&s->counts.first_token, at_ns - g->started_ns, 1);
	} else {
		buckets_add(&s->counts.inter_token, at_ns - g->last_token_ns, n_made);
	}
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
		end_prefill(s, g);
	if (sequence->n_made_tokens > 0)
		count_tokens(s, g, at_ns);
	g->last_token_ns = at_ns;
	begin_prefill(s); /* with what this one has left in the cache */
	if (sequence->state != LATENCY_DONE && sequence->n_made_tokens >= g->n_steps_max)
		scheduler_hold(s, g, now_ns);
	return g;
}

uint64_t scheduler_due_ns(const struct scheduler *s) {
	return latency_due_ns(&s->latency);
}

void scheduler_hold(struct scheduler *s, struct generation *g, uint64_t now_ns) {
	latency_hold(&s->latency, &g->sequence, now_ns);
	begin_prefill(s);
}

static void count_times(struct scheduler *s, const struct generation *g) {
	assert(g->last_token_ns >= g->started_ns);
	buckets_add(&s->counts.whole, g->last_token_ns - g->started_ns, 1);
	buckets_add(&s->counts.queue, g->sequence.admitted_ns - g->sequence.submitted_ns, 1);
}

void scheduler_end(
    struct scheduler *s, struct generation *g, enum ledger_state state, const char *cause, uint64_t now_ns) {
	enum end_reason reason = END_STOP;
	if (state != LEDGER_FINISHED)
		reason = state == LEDGER_CANCELLED ? END_ABORT : END_ERROR;
	else if (g->n_choices > 0 && g->choices[0].finish == FINISH_LENGTH)
		reason = END_LENGTH;
	s->counts.n_ended[reason]++;
	if (state == LEDGER_FINISHED)
		count_times(s, g);
	latency_abort(&s->latency, &g->sequence, now_ns);
	begin_prefill(s);
	ledger_end(s->ledger, g->ticket, state, cause, generation_made_tokens(g), now_ns);
}

double scheduler_cache_usage(const struct scheduler *s) {
	double n_blocks = (double)s->latency.n_context_tokens / s->n_block_tokens;
	return n_blocks < s->n_cache_blocks ? n_blocks / s->n_cache_blocks : 1;
}

void scheduler_forget(struct scheduler *s) {
	prefix_cache_clear(s->cache);
}

/* HELP and TYPE; every series of a rank carries its number and the model. */
static void add_head(struct bytes *out, const char *name, const char *type, const char *help) {
	bytes_printf(out, "# HELP vllm:%s %s\n# TYPE vllm:%s %s\n", name, help, name, type);
}

static const struct {
	const char *name, *type, *help;
} value_rows[] = {
	{ "num_requests_running", "gauge", "Number of requests in model execution batches." },
	{ "num_requests_waiting", "gauge", "Number of requests waiting to be processed." },
	{ "kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage." },
	{ "prefix_cache_queries_total", "counter",
	    "Prefix cache queries, in terms of number of queried tokens." },
	{ "prefix_cache_hits_total", "counter", "Prefix cache hits, in terms of number of cached tokens." },
	{ "num_preemptions_total", "counter", "Cumulative number of preemption from the engine." },
	{ "prompt_tokens_total", "counter", "Number of prefill tokens processed." },
	{ "generation_tokens_total", "counter", "Number of generation tokens processed." },
};

/* Of the nth row. */
static double value_of(const struct scheduler *s, size_t nth) {
	const struct scheduler_counts *c = &s->counts;
	const double values[n_elems(value_rows)] = {
		s->latency.n_running,
		s->latency.n_waiting,
		scheduler_cache_usage(s),
		(double)c->n_query_tokens,
		(double)c->n_hit_tokens,
		0, /* what runs is never pushed out */
		(double)c->n_prompt_tokens,
		(double)c->n_made_tokens,
	};
	return values[nth];
}

static void add_ended(const struct scheduler *ranks, size_t n_ranks, const char *model, struct bytes *out) {
	static const char *const reasons[END_N_REASONS] = { "stop", "length", "abort", "error" };
	add_head(out, "request_success_total", "counter", "Count of successfully processed requests.");
	for (size_t rank = 0; rank < n_ranks; rank++)
		for (size_t i = 0; i < END_N_REASONS; i++)
			bytes_printf(out,
			    "vllm:request_success_total{engine=\"%zu\",finished_reason=\"%s\",model_name="
			    "\"%s\"} %lu\n",
			    rank, reasons[i], model, ranks[rank].counts.n_ended[i]);
}

static const struct {
	const char *name, *help;
	size_t offset; /* in struct scheduler_counts */
} histogram_rows[] = {
	{ "iteration_tokens_total", "Histogram of number of tokens per engine_step.",
	    offsetof(struct scheduler_counts, step_tokens) },
	{ "time_to_first_token_seconds", "Histogram of time to first token in seconds.",
	    offsetof(struct scheduler_counts, first_token) },
	{ "time_per_output_token_seconds",
	    "Histogram of time per output token in seconds.DEPRECATED: Use "
	    "vllm:inter_token_latency_seconds instead.",
	    offsetof(struct scheduler_counts, inter_token) },
	{ "inter_token_latency_seconds", "Histogram of inter-token latency in seconds.",
	    offsetof(struct scheduler_counts, inter_token) },
	{ "e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.",
	    offsetof(struct scheduler_counts, whole) },
	{ "request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
	    offsetof(struct scheduler_counts, queue) },
};

static void add_histograms(
    const struct scheduler *ranks, size_t n_ranks, const char *model, struct bytes *out) {
	for (size_t i = 0; i < n_elems(histogram_rows); i++) {
		const char *name = histogram_rows[i].name;
		add_head(out, name, "histogram", histogram_rows[i].help);
		for (size_t rank = 0; rank < n_ranks; rank++) {
			const char *counts = (const char *)&ranks[rank].counts;
			const struct buckets *h = (const struct buckets *)(counts + histogram_rows[i].offset);
			buckets_print(h, name, (unsigned)rank, model, out);
		}
	}
}

void scheduler_metrics(const struct scheduler *ranks, size_t n_ranks, const char *model, struct bytes *out) {
	for (size_t i = 0; i < n_elems(value_rows); i++) {
		add_head(out, value_rows[i].name, value_rows[i].type, value_rows[i].help);
		for (size_t rank = 0; rank < n_ranks; rank++)
			bytes_printf(out, "vllm:%s{engine=\"%zu\",model_name=\"%s\"} %.17g\n",
			    value_rows[i].name, rank, model, value_of(&ranks[rank], i));
	}
	add_ended(ranks, n_ranks, model, out);
	add_histograms(ranks, n_ranks, model, out);
	add_head(out, "cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
	for (size_t rank = 0; rank < n_ranks; rank++)
		bytes_printf(out,
		    "vllm:cache_config_info{block_size=\"%u\",enable_prefix_caching=\"True\",engine=\"%zu\","
		    "num_gpu_blocks=\"%u\"} 1.0\n",
		    ranks[rank].n_block_tokens, rank, ranks[rank].n_cache_blocks);
}
