/*
 * metric: what the workers count, one shard each.
 *
 * A shard is written by its worker alone with plain loads and stores (relaxed atomics,
 * no locked instruction) and may be read by any thread at any time. Rows are generated
 * from metric.tbl; metric_write() prints the sums over all shards in Prometheus' text
 * format. Requests by model, instance and code are counted in a small table of the
 * shard whose keys are interned labels, so that no text from the wire makes a series.
 */
#pragma once

#include <stdatomic.h>
#include <stdio.h>

#include "base/defs.h"

#define METRIC_BUCKETS    20u   /* 2^i * 0.25 ms, i from 0; the last is +Inf */
#define METRIC_TALLY_SIZE 8192u /* keys beyond 3/4 of this are counted under label 0 */

typedef _Atomic uint64_t metric_cell;

struct metric_histogram {
	metric_cell buckets[METRIC_BUCKETS];
	metric_cell sum_ns;
};

/* Requests of one (model label, instance label, status code). */
struct metric_tally {
	metric_cell key; /* 0: free */
	metric_cell n;
};

struct metric_shard {
#define COUNTER(member, name, help)                     metric_cell member;
#define COUNTER_LABEL(member, name, label, value, help) metric_cell member;
#define HISTOGRAM(member, name, help)                   struct metric_histogram member;
#include "base/metric.tbl"
#undef COUNTER
#undef COUNTER_LABEL
#undef HISTOGRAM
	struct metric_tally tallies[METRIC_TALLY_SIZE];
	uint32_t n_tallies;
};

static inline void metric_add(metric_cell *cell, uint64_t n) {
	atomic_store_explicit(
	    cell, atomic_load_explicit(cell, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t metric_read(const metric_cell *cell) {
	return atomic_load_explicit(cell, memory_order_relaxed);
}

void metric_observe(struct metric_histogram *h, uint64_t ns);

/* One request done. Labels are interned numbers below 65536, the status below 65536. */
void metric_count_request(
    struct metric_shard *s, uint32_t model_label, uint32_t instance_label, unsigned status);

/* All rows of the table, summed over the shards. */
void metric_write(FILE *out, struct metric_shard *const *shards, size_t n_shards);

/* headrace_requests_total. The callback turns labels into text; "other" for 0. */
typedef const char *(*metric_label_fn)(uint32_t label);
void metric_write_requests(FILE *out, struct metric_shard *const *shards, size_t n_shards,
    metric_label_fn model, metric_label_fn instance);

/* One family with its HELP and TYPE lines; rows follow by metric_write_row. Values of labels are escaped. */
void metric_write_family(FILE *out, const char *name, const char *type, const char *help);
void metric_write_row(FILE *out, const char *name, const char *label, const char *value, double n);

/* The same with as many labels as there are. */
struct metric_label {
	const char *name, *value;
};
void metric_write_labelled(
    FILE *out, const char *name, const struct metric_label *labels, size_t n_labels, double n);

/* A family of one row without labels. */
void metric_write_one(FILE *out, const char *name, const char *type, const char *help, double n);
