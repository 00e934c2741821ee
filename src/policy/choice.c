#include "policy/choice.h"

#define FEW_REQUESTS 8       /* in flight: nobody drowns in so many */
#define FRESH_MS     10000u  /* older figures of an engine are not looked at */
#define WAITING_MAX  1000000 /* an engine that says more is not believed */

uint32_t choice_draw(const struct choice *choice, uint32_t except) {
	bool is_one_out = except < choice->n;
	uint64_t weight = choice->weight;

	/* All weigh 1, which is the default: no need to walk. */
	if (weight == choice->n) {
		uint32_t i = (uint32_t)rng_below(choice->rng, weight - is_one_out);

		return i + (i >= except);
	}
	if (is_one_out)
		weight -= choice_candidate(choice, except)->weight;
	uint64_t drawn = rng_below(choice->rng, weight);
	for (uint32_t i = 0;; i++) {
		assert(i < choice->n);
		if (i == except)
			continue;
		if (drawn < choice_candidate(choice, i)->weight)
			return i;
		drawn -= choice_candidate(choice, i)->weight;
	}
}

bool choice_is_fresh(const struct choice *choice, const struct learned *learned) {
	uint64_t ms = atomic_load_explicit(&learned->scraped_ms, memory_order_relaxed);

	return ms && choice->now_ns / 1000000u < ms + FRESH_MS;
}

uint64_t choice_waiting(const struct choice *choice, const struct learned *learned) {
	double n = learned_read(&learned->n_waiting);

	if (!(n > 0) || !choice_is_fresh(choice, learned))
		return 0;
	n *= learned_strangers(learned);
	return n < WAITING_MAX ? (uint64_t)n : WAITING_MAX;
}

struct choice_measure choice_measure(const struct choice *choice, uint32_t i) {
	const struct candidate *c = choice_candidate(choice, i);
	struct load_sum load = load_total(choice->load, c->slot);
	uint64_t n_requests = load.n_requests + 1;

	n_requests += choice_waiting(choice, &c->instance->learned);
	return (struct choice_measure){
		.work = n_requests * MEASURE_REQUEST + load.prefill_tokens + choice->demand->prompt_tokens +
		    load.decode_tokens / MEASURE_DECODES,
		.weight = c->weight,
	};
}

double choice_mean_rate(const struct candidate *candidates, const uint32_t *at, uint32_t n) {
	double sum = 0;
	uint32_t n_known = 0;

	for (uint32_t i = 0; i < n; i++) {
		double rate = learned_read(&candidates[at ? at[i] : i].instance->learned.prefill_rate);

		sum += rate;
		n_known += rate > 0;
	}
	return n_known ? sum / n_known : 0;
}

uint64_t choice_in_flight(const struct choice *choice) {
	uint64_t n = 0;

	for (uint32_t i = 0; i < choice->n; i++)
		n += load_requests(choice->load, choice_candidate(choice, i)->slot);
	return n;
}

bool choice_is_overloaded(const struct choice *choice, uint32_t i, double times) {
	const struct candidate *c = choice_candidate(choice, i);
	uint64_t n_own = load_requests(choice->load, c->slot);

	uint64_t n_others = choice_in_flight(choice) - n_own, others_weight = choice->weight - c->weight;

	/* Against the others: in a small fleet it is most of the mean itself. */
	return n_own > FEW_REQUESTS &&
	    (double)n_own * (double)others_weight > times * (double)n_others * c->weight;
}

uint64_t choice_bound(const struct choice *choice, const struct candidate *c, uint64_t n_in_flight) {
	return u64_max(FEW_REQUESTS,
	    ((n_in_flight + 1) * c->weight * 5 + 4 * choice->weight - 1) / (4 * choice->weight));
}
