#include "base/metric.h"

#include <inttypes.h>
#include <string.h>

#define BUCKET_FIRST_NS 250000u

void metric_observe(struct metric_histogram *h, uint64_t ns) {
	uint64_t quarters = (ns ? ns - 1 : 0) / BUCKET_FIRST_NS; /* a bound belongs to its bucket */
	unsigned i = quarters ? 64u - (unsigned)__builtin_clzll(quarters) : 0;
	metric_add(&h->buckets[i < METRIC_BUCKETS ? i : METRIC_BUCKETS - 1], 1);
	metric_add(&h->sum_ns, ns);
}

/* Never 0, which marks a free place. */
static uint64_t tally_key(uint32_t model, uint32_t instance, unsigned status) {
	return (uint64_t)model << 40 | (uint64_t)instance << 16 | status | 1ull << 63;
}

static struct metric_tally *tally_find(struct metric_shard *s, uint64_t key) {
	uint64_t at = key * 0x9e3779b97f4a7c15u >> 32;
	for (;; at++) {
		struct metric_tally *t = &s->tallies[at % METRIC_TALLY_SIZE];
		uint64_t k = metric_read(&t->key);
		if (k == key || k == 0)
			return t;
	}
}

void metric_count_request(
    struct metric_shard *s, uint32_t model_label, uint32_t instance_label, unsigned status) {
	uint64_t key = tally_key(model_label, instance_label, status);
	struct metric_tally *t = tally_find(s, key);
	if (!metric_read(&t->key)) {
		if (s->n_tallies >= METRIC_TALLY_SIZE / 4 * 3) {
			key = tally_key(0, 0, status);
			t = tally_find(s, key);
		}
		if (!metric_read(&t->key)) {
			s->n_tallies++;
			atomic_store_explicit(&t->key, key, memory_order_release);
		}
	}
	metric_add(&t->n, 1);
}

/* --- exposition ------------------------------------------------------------ */

void metric_write_family(FILE *out, const char *name, const char *type, const char *help) {
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_label(FILE *out, const char *label, const char *value) {
	fprintf(out, "%s=\"", label);
	for (const char *p = value; *p; p++) {
		if (*p == '\n')
			fputs("\\n", out);
		else if (*p == '"' || *p == '\\')
			fprintf(out, "\\%c", *p);
		else
			fputc(*p, out);
	}
	fputc('"', out);
}

void metric_write_labelled(
    FILE *out, const char *name, const struct metric_label *labels, size_t n_labels, double n) {
	fputs(name, out);
	for (size_t i = 0; i < n_labels; i++) {
		fputc(i ? ',' : '{', out);
		write_label(out, labels[i].name, labels[i].value);
	}
	fprintf(out, n_labels ? "} %.15g\n" : " %.15g\n", n);
}

void metric_write_row(FILE *out, const char *name, const char *label, const char *value, double n) {
	metric_write_labelled(out, name, &(struct metric_label){ label, value }, label != NULL, n);
}

void metric_write_one(FILE *out, const char *name, const char *type, const char *help, double n) {
	metric_write_family(out, name, type, help);
	metric_write_row(out, name, NULL, NULL, n);
}

static uint64_t sum_at(struct metric_shard *const *shards, size_t n, size_t offset) {
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += metric_read((const metric_cell *)((const char *)shards[i] + offset));
	return sum;
}

static void write_histogram(FILE *out, const char *name, const char *help, struct metric_shard *const *shards,
    size_t n, size_t offset) {
	uint64_t total = 0;
	double le = BUCKET_FIRST_NS / 1e9;
	metric_write_family(out, name, "histogram", help);
	for (unsigned i = 0; i < METRIC_BUCKETS; i++, le *= 2) {
		total += sum_at(shards, n, offset + i * sizeof(metric_cell));
		if (i < METRIC_BUCKETS - 1)
			fprintf(out, "%s_bucket{le=\"%.9g\"} %" PRIu64 "\n", name, le, total);
		else
			fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, total);
	}
	uint64_t sum_ns = sum_at(shards, n, offset + offsetof(struct metric_histogram, sum_ns));
	fprintf(out, "%s_sum %.9g\n%s_count %" PRIu64 "\n", name, (double)sum_ns / 1e9, name, total);
}

void metric_write(FILE *out, struct metric_shard *const *shards, size_t n) {
#define COUNTER(member, name, help)                                                                          \
	metric_write_family(out, name, "counter", help);                                                     \
	metric_write_row(                                                                                    \
	    out, name, NULL, NULL, (double)sum_at(shards, n, offsetof(struct metric_shard, member)));
#define COUNTER_LABEL(member, name, label, value, help)                                                      \
	if (help[0])                                                                                         \
		metric_write_family(out, name, "counter", help);                                             \
	metric_write_row(                                                                                    \
	    out, name, label, value, (double)sum_at(shards, n, offsetof(struct metric_shard, member)));
#define HISTOGRAM(member, name, help)                                                                        \
	write_histogram(out, name, help, shards, n, offsetof(struct metric_shard, member));
#include "base/metric.tbl"
#undef COUNTER
#undef COUNTER_LABEL
#undef HISTOGRAM
}

/* Sum over the shards of a key that shard `from` is the first to hold; 0 when an earlier one has it. */
static uint64_t tally_sum(struct metric_shard *const *shards, size_t n, size_t from, uint64_t key) {
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++) {
		const struct metric_tally *t = tally_find(shards[i], key);
		if (!metric_read(&t->key))
			continue;
		if (i < from)
			return 0;
		sum += metric_read(&t->n);
	}
	return sum;
}

void metric_write_requests(FILE *out, struct metric_shard *const *shards, size_t n, metric_label_fn model,
    metric_label_fn instance) {
	const char *name = "headrace_requests_total";
	metric_write_family(
	    out, name, "counter", "Requests answered, by status code sent (499: the client left).");
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < METRIC_TALLY_SIZE; k++) {
			uint64_t key = metric_read(&shards[i]->tallies[k].key);
			uint64_t sum = key ? tally_sum(shards, n, i, key) : 0;
			if (!sum)
				continue;
			fprintf(out, "%s{", name);
			write_label(out, "model", model((uint32_t)(key >> 40 & 0x7fffff)));
			fputc(',', out);
			write_label(out, "instance", instance((uint32_t)(key >> 16 & 0xffffff)));
			fprintf(out, ",code=\"%u\"} %" PRIu64 "\n", (unsigned)(key & 0xffff), sum);
		}
	}
}
