/*
 * least_load: the least work in flight per weight, this request counted (choice_measure()).
 *
 * Looks at all, however many there are: a look is a few loads of memory, and two drawn
 * ones would leave the best out most of the time. Where many routers decide on the same slightly
 * old figures, power_of_two is the better choice.
 *
 * The search starts at a random one and keeps the first of equals, so that an idle
 * fleet is not always entered by the same door.
 */
#include "policy/choice.h"

enum part { PART_WORK, PART_WEIGHT };

struct choice_measure choice_show(struct choice *choice, uint32_t i) {
	struct choice_measure m = choice_measure(choice, i);
	struct policy_score *score = &choice->scores[i];

	score->parts[PART_WORK] = (float)m.work;
	score->parts[PART_WEIGHT] = (float)m.weight;
	score->total = score->parts[PART_WORK] / score->parts[PART_WEIGHT];
	return m;
}

uint32_t choice_find_least(const struct choice *choice) {
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

uint32_t choice_least_loaded(struct choice *choice) {
	for (uint32_t i = 0; i < choice->n; i++)
		(void)choice_show(choice, i);
	return choice_find_least(choice);
}

const struct policy least_load_policy = {
	.name = "least_load",
	.alias = "least_connections",
	.reason = PICK_LEAST_LOAD,
	.is_cost = true,
	.parts = MEASURE_PARTS,
	.pick = choice_least_loaded,
};
