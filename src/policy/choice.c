#include "policy/choice.h"

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
