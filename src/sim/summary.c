#include "sim/summary.h"

#include <jansson.h>

void summary_table(const struct score *scores, size_t n, bool shows_cpu, FILE *out) {
	fprintf(out, "%-16s %7s %9s %9s %9s %9s %9s %9s%s\n", "policy", "hit %", "mean s", "p50 s", "p90 s",
	    "p99 s", "tok/s", "imbalance", shows_cpu ? "  cpu ns" : "");
	for (size_t i = 0; i < n; i++) {
		const struct score *s = &scores[i];

		fprintf(out, "%-16s %7.2f %9.3f %9.3f %9.3f %9.3f %9.0f %9.2f", s->policy, s->hit_pct,
		    s->ttft_mean_s, s->ttft_p50_s, s->ttft_p90_s, s->ttft_p99_s, s->tokens_per_s,
		    s->imbalance);
		if (shows_cpu)
			fprintf(out, " %7.0f", s->decision_ns);
		fputc('\n', out);
	}
}

void summary_json(const struct score *scores, size_t n, FILE *out) {
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		const struct score *s = &scores[i];

		json_array_append_new(list,
		    json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "policy", s->policy, "hit_pct",
			s->hit_pct, "ttft_mean_s", s->ttft_mean_s, "ttft_p50_s", s->ttft_p50_s, "ttft_p90_s",
			s->ttft_p90_s, "ttft_p99_s", s->ttft_p99_s, "imbalance", s->imbalance));
	}
	json_dumpf(list, out, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	fputc('\n', out);
	json_decref(list);
}
