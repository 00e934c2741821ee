#include "discovery/figures.h"

#include <math.h>
#include <stdlib.h>

#include "base/samples.h"
#include "fleet/rank.h"

/* What is more than this is not believed. A usage may be above 1 by a rounding. */
static const double figure_max[FIGURES] = {
	[FIGURE_RUNNING] = 1e6,
	[FIGURE_WAITING] = 1e6,
	[FIGURE_KV_USAGE] = 1.001,
	[FIGURE_GENERATION_RATE] = 1e9,
	[FIGURE_GENERATED] = 9e15, /* beyond, doubles do not count one by one */
	[FIGURE_CACHE_TOKENS] = 1e12,
	[FIGURE_STARTED] = 9e15,
};

/* Of one figure, the preferred name first. */
static const struct figure_row {
	const char *name;
	enum figure figure;
	const char *labels[2]; /* the value is their product, not the sample's */
} rows[] = {
	{ "vllm:num_requests_running", FIGURE_RUNNING, { NULL } },
	{ "vllm:num_requests_waiting", FIGURE_WAITING, { NULL } },
	{ "vllm:kv_cache_usage_perc", FIGURE_KV_USAGE, { NULL } },
	{ "vllm:gpu_cache_usage_perc", FIGURE_KV_USAGE, { NULL } }, /* until 0.10 */
	{ "vllm:generation_tokens_total", FIGURE_GENERATED, { NULL } },
	{ "vllm:cache_config_info", FIGURE_CACHE_TOKENS, { "block_size", "num_gpu_blocks" } },
	{ "sglang:num_running_reqs", FIGURE_RUNNING, { NULL } },
	{ "sglang:num_queue_reqs", FIGURE_WAITING, { NULL } },
	{ "sglang:token_usage", FIGURE_KV_USAGE, { NULL } },
	{ "sglang:gen_throughput", FIGURE_GENERATION_RATE, { NULL } },
	{ "sglang:generation_tokens_total", FIGURE_GENERATED, { NULL } },
	{ "sglang:cache_config_info", FIGURE_CACHE_TOKENS, { "page_size", "num_pages" } },
	{ "sglang:max_total_num_tokens", FIGURE_CACHE_TOKENS, { NULL } },
	{ "trtllm_num_requests_running", FIGURE_RUNNING, { NULL } },
	{ "trtllm_num_requests_waiting", FIGURE_WAITING, { NULL } },
	{ "trtllm_kv_cache_utilization", FIGURE_KV_USAGE, { NULL } },
	{ "llamacpp:requests_processing", FIGURE_RUNNING, { NULL } },
	{ "llamacpp:requests_deferred", FIGURE_WAITING, { NULL } },
	{ "llamacpp:kv_cache_usage_ratio", FIGURE_KV_USAGE, { NULL } },
	{ "llamacpp:predicted_tokens_seconds", FIGURE_GENERATION_RATE, { NULL } },
	{ "llamacpp:tokens_predicted_total", FIGURE_GENERATED, { NULL } },
	{ "process_start_time_seconds", FIGURE_STARTED, { NULL } },
};

struct series {
	double sum;
	unsigned n;
};

static const struct figure_row *row_of(struct slice name) {
	for (size_t i = 0; i < n_elems(rows); i++)
		if (slice_eq(name, slice_of(rows[i].name)))
			return &rows[i];
	return NULL;
}

static bool read_product(const struct figure_row *row, const struct sample *sample, double *value_out) {
	double product = 1;

	for (size_t i = 0; i < n_elems(row->labels); i++) {
		struct slice text;
		uint64_t n;

		if (!sample_label(sample, slice_of(row->labels[i]), &text) ||
		    !text_uint(text, UINT32_MAX, &n))
			return false;
		product *= (double)n;
	}
	*value_out = product;
	return true;
}

static bool read_value(const struct figure_row *row, const struct sample *sample, double *value_out) {
	if (!(row->labels[0] ? read_product(row, sample, value_out) : sample_value(sample, value_out)))
		return false;
	return *value_out <= figure_max[row->figure];
}

static void fold(const struct series *series, struct figures *out) {
	*out = (struct figures){ .values = { 0 } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		enum figure figure = rows[i].figure;
		double value = series[i].sum;

		if (!series[i].n || out->is_said[figure])
			continue;
		if (figure == FIGURE_KV_USAGE)
			value = fmin(value / series[i].n, 1);
		if (value > figure_max[figure])
			continue;
		out->values[figure] = value;
		out->is_said[figure] = true;
	}
}

static bool is_busy_said(const struct figures *f) {
	return f->is_said[FIGURE_RUNNING] || f->is_said[FIGURE_WAITING];
}

static void add(struct series *series, const struct figure_row *row, double value) {
	series[row - rows].sum += value;
	series[row - rows].n++;
}

/* The rank that a sample is of. */
static bool read_engine(const struct sample *sample, size_t n, uint64_t *rank_out) {
	struct slice text;

	return n && sample_label(sample, SLICE("engine"), &text) && text_uint(text, n - 1, rank_out);
}

/* Counts it when it is new. */
static void count_engine(const struct sample *sample, uint64_t seen[RANKS_MAX / 64], uint32_t *n) {
	uint64_t rank;

	if (!slice_has_prefix(sample->name, SLICE("vllm:")) || !read_engine(sample, RANKS_MAX, &rank))
		return;
	*n += !(seen[rank / 64] >> rank % 64 & 1);
	seen[rank / 64] |= UINT64_C(1) << rank % 64;
}

bool figures_read(struct slice text, struct figures *figures_out) {
	struct series series[n_elems(rows)] = { { .n = 0 } };
	uint64_t seen[RANKS_MAX / 64] = { 0 };
	uint32_t n_engines = 0;
	struct sample sample;
	double value;

	while (samples_next(&text, &sample)) {
		const struct figure_row *row = row_of(sample.name);

		if (!row || !read_value(row, &sample, &value))
			continue;
		add(series, row, value);
		count_engine(&sample, seen, &n_engines);
	}
	fold(series, figures_out);
	figures_out->n_engines = n_engines;
	return is_busy_said(figures_out);
}

void figures_read_ranks(struct slice text, struct figures *ranks_out, size_t n) {
	struct series(*series)[n_elems(rows)] = calloc(n + 1, sizeof(*series)); /* the last is of all */
	struct figures all;
	struct sample sample;
	double value;
	uint64_t rank;

	while (samples_next(&text, &sample)) {
		const struct figure_row *row = row_of(sample.name);

		if (!row || !read_value(row, &sample, &value))
			continue;
		if (row->figure == FIGURE_STARTED)
			add(series[n], row, value);
		else if (read_engine(&sample, n, &rank))
			add(series[rank], row, value);
	}
	fold(series[n], &all);
	for (size_t i = 0; i < n; i++) {
		fold(series[i], &ranks_out[i]);
		if (!is_busy_said(&ranks_out[i])) {
			ranks_out[i] = (struct figures){ .values = { 0 } };
			continue;
		}
		ranks_out[i].values[FIGURE_STARTED] = all.values[FIGURE_STARTED];
		ranks_out[i].is_said[FIGURE_STARTED] = all.is_said[FIGURE_STARTED];
	}
	free(series);
}
