#include "router/lateness.h"

#include <math.h>

#define SAVED_MAX 10.0
#define WHOLE     (1 - 1e-9) /* parts that add up to one */

/* Four steps an octave of milliseconds, counted from one so that zero has a step. */
static unsigned step_of(uint64_t ms) {
	uint64_t v = u64_min(ms, UINT32_MAX) + 1;
	unsigned octave = 63 - (unsigned)__builtin_clzll(v);
	unsigned step = octave * 4 + (unsigned)(v * 4 >> octave & 3);

	return step < LATENESS_STEPS ? step : LATENESS_STEPS - 1;
}

/* The longest time of a step. */
static uint64_t end_of(unsigned step) {
	return (((uint64_t)(step % 4 + 5) << step / 4) + 3) / 4 - 1;
}

struct lateness *lateness_of(struct lateness_model *m, uint32_t n_tokens, bool is_streamed) {
	static const uint32_t ends[LATENESS_SIZES] = { 512, 2048, 8192, UINT32_MAX };
	unsigned size = 0;

	while (n_tokens > ends[size])
		size++;
	return &m->of[is_streamed][size];
}

static void fade(struct lateness *l) {
	l->n = 0;
	for (unsigned i = 0; i < LATENESS_STEPS; i++)
		l->n = (uint16_t)(l->n + (l->n_in[i] /= 2));
}

void lateness_learn(struct lateness *l, uint64_t ms) {
	if (l->n == LATENESS_MEMORY)
		fade(l);
	l->n++;
	l->n_in[step_of(ms)]++;
}

uint64_t lateness_ms(const struct lateness *l, const struct hedge_options *options) {
	double beyond = l->n * (1 - options->percentile);
	unsigned n = 0, step = 0;

	assert(options->percentile > 0 && options->percentile < 1);
	if (l->n < LATENESS_MIN || beyond < WHOLE)
		return LATENESS_NEVER;
	for (; step < LATENESS_STEPS - 1; step++) {
		n += l->n_in[step];
		if (n >= l->n * options->percentile * WHOLE)
			break;
	}
	return u64_max(end_of(step), options->wait_min_ms);
}

void lateness_save(struct lateness_model *m, const struct hedge_options *options) {
	m->saved = fmin(m->saved + options->budget, SAVED_MAX);
}

bool lateness_spend(struct lateness_model *m) {
	if (m->saved < WHOLE)
		return false;
	m->saved = fmax(m->saved - 1, 0);
	return true;
}

void lateness_give_back(struct lateness_model *m) {
	m->saved = fmin(m->saved + 1, SAVED_MAX);
}
