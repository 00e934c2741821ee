/*
 * weighted_random: each as likely as its weight to a power, [weighted_random] sharpness: 1 is by
 * weight, 0 whatever it weighs, 2 twice the weight four times the requests.
 */
#include <math.h>

#include "policy/choice.h"

static uint32_t weighted_random_pick(struct choice *choice) {
	double sharpness = choice->options->random_sharpness, sum = 0, drawn;
	uint32_t i = 0;

	for (uint32_t k = 0; k < choice->n; k++) {
		double weight = choice_candidate(choice, k)->weight;

		choice->scores[k].total = (float)(sharpness == 1 ? weight : pow(weight, sharpness));
		sum += (double)choice->scores[k].total;
	}
	/* What rounding leaves over is the last one's. */
	drawn = (double)(rng_next(choice->rng) >> 11) * 0x1p-53 * sum;
	while (i + 1 < choice->n && drawn >= (double)choice->scores[i].total)
		drawn -= (double)choice->scores[i++].total;
	return i;
}

const struct policy weighted_random_policy = {
	.name = "weighted_random",
	.reason = PICK_WEIGHTED_RANDOM,
	.pick = weighted_random_pick,
};
