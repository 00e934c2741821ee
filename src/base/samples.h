/*
 * samples: what other programs say at /metrics (Prometheus' text format). Pure; a hostile
 * text costs one pass over it.
 */
#pragma once

#include "base/slice.h"

/* One line: what it is called, and its labels and value as they stand there. */
struct sample {
	struct slice name, rest;
};

/* Takes the next one off the front of *text; comments are passed over. False at the end. */
must_use bool samples_next(struct slice *text, struct sample *sample_out);

/* False for what is negative, or no finite number. */
must_use bool sample_value(const struct sample *sample, double *value_out);

/* The text of a label, escapes as they are; false when it has none of that name. */
must_use bool sample_label(const struct sample *sample, struct slice name, struct slice *text_out);

/*
 * The sum of all samples of these names, whatever their labels, but for those whose label engine is another
 * text than this; p NULL: of all. Those that are negative, or no finite numbers, are none. False, and nothing
 * is written, when there is no sample.
 */
must_use bool samples_sum_of(
    struct slice text, const char *const *names, size_t n_names, struct slice engine, double *sum_out);

static inline must_use bool samples_sum(
    struct slice text, const char *const *names, size_t n_names, double *sum_out) {
	return samples_sum_of(text, names, n_names, (struct slice){ NULL, 0 }, sum_out);
}
