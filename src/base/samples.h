/*
 * samples: what other programs say at /metrics (Prometheus' text format). Pure; a hostile
 * text costs one pass over it.
 */
#pragma once

#include "base/slice.h"

/*
 * The sum of all samples of these names, whatever their labels. Those that are negative, or
 * no finite numbers, are none. False, and nothing is written, when there is no sample.
 */
must_use bool samples_sum(struct slice text, const char *const *names, size_t n_names, double *sum_out);
