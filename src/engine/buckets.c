#include "engine/buckets.h"

#include <math.h>

void buckets_add(struct buckets *h, uint64_t value, uint64_t n) {
	double in_units = (double)value / h->scale->unit;
	uint32_t i = 0;
	while (i < h->scale->n_bounds && in_units > h->scale->bounds[i])
		i++;
	h->n_in[i] += n;
	h->sum += n * value;
}

/* What the lines of one histogram share. */
struct series {
	const char *name, *model;
	unsigned engine;
	struct bytes *out;
};

static void print_bucket(const struct series *s, const char *bound, uint64_t n) {
	bytes_printf(s->out, "vllm:%s_bucket{engine=\"%u\",le=\"%s\",model_name=\"%s\"} %lu\n", s->name,
	    s->engine, bound, s->model, n);
}

void buckets_print(
    const struct buckets *h, const char *name, unsigned engine, const char *model, struct bytes *out) {
	const struct series series = { name, model, engine, out };
	const struct buckets_scale *scale = h->scale;
	uint64_t n = 0;
	char bound[32];

	for (uint32_t i = 0; i < scale->n_bounds; i++) {
		/* Python's way to write them, which vLLM is: 1.0, 0.25 */
		bool is_whole = floor(scale->bounds[i]) == scale->bounds[i];
		snprintf(bound, sizeof(bound), is_whole ? "%.1f" : "%.15g", scale->bounds[i]);
		n += h->n_in[i];
		print_bucket(&series, bound, n);
	}
	n += h->n_in[scale->n_bounds];
	print_bucket(&series, "+Inf", n);
	bytes_printf(out,
	    "vllm:%s_count{engine=\"%u\",model_name=\"%s\"} %lu\n"
	    "vllm:%s_sum{engine=\"%u\",model_name=\"%s\"} %.15g\n",
	    name, engine, model, n, name, engine, model, (double)h->sum / scale->unit);
}
