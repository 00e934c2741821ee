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

static void print_bucket(
    const char *name, const char *bound, const char *model, uint64_t n, struct bytes *out) {
	bytes_printf(
	    out, "vllm:%s_bucket{engine=\"0\",le=\"%s\",model_name=\"%s\"} %lu\n", name, bound, model, n);
}

void buckets_print(
    const struct buckets *h, const char *name, const char *help, const char *model, struct bytes *out) {
	const struct buckets_scale *scale = h->scale;
	uint64_t n = 0;
	char bound[32];

	bytes_printf(out, "# HELP vllm:%s %s\n# TYPE vllm:%s histogram\n", name, help, name);
	for (uint32_t i = 0; i < scale->n_bounds; i++) {
		/* Python's way to write them, which vLLM is: 1.0, 0.25 */
		bool is_whole = floor(scale->bounds[i]) == scale->bounds[i];
		snprintf(bound, sizeof(bound), is_whole ? "%.1f" : "%.15g", scale->bounds[i]);
		n += h->n_in[i];
		print_bucket(name, bound, model, n, out);
	}
	n += h->n_in[scale->n_bounds];
	print_bucket(name, "+Inf", model, n, out);
	bytes_printf(out,
	    "vllm:%s_count{engine=\"0\",model_name=\"%s\"} %lu\n"
	    "vllm:%s_sum{engine=\"0\",model_name=\"%s\"} %.15g\n",
	    name, model, n, name, model, (double)h->sum / scale->unit);
}
