/*
 * least_load: the fewest requests in flight per weight, this one counted.
 *
 * The search starts at a random one and keeps the first of equals, so that an idle
 * fleet is not always entered by the same door.
 */
#include "policy/choice.h"

static uint32_t least_load_pick(struct choice *choice) {
	uint32_t i = (uint32_t)rng_below(choice->rng, choice->n), best = i;
	struct choice_measure lowest = choice_measure(choice, best);

	for (uint32_t n_left = choice->n - 1; n_left > 0; n_left--) {
		i = i + 1 < choice->n ? i + 1 : 0;
		struct choice_measure m = choice_measure(choice, i);

		if (choice_measure_cmp(m, lowest) < 0) {
			lowest = m;
			best = i;
		}
	}
	return best;
}

const struct policy least_load_policy = {
	.name = "least_load",
	.reason = PICK_LEAST_LOAD,
	.pick = least_load_pick,
};
