/*
 * power_of_two: draws two different ones by weight and takes the less loaded (choice_measure()).
 *
 * Nearly as even as looking at all of them, but routers and workers that decide on
 * slightly old figures do not all run to the same one.
 */
#include "policy/choice.h"

static uint32_t power_of_two_pick(struct choice *choice) {
	uint32_t first = choice_draw(choice, UINT32_MAX), second = choice_draw(choice, first);
	int cmp = choice_measure_cmp(choice_show(choice, first), choice_show(choice, second));

	return cmp <= 0 ? first : second;
}

const struct policy power_of_two_policy = {
	.name = "power_of_two",
	.reason = PICK_POWER_OF_TWO,
	.is_cost = true,
	.parts = MEASURE_PARTS,
	.pick = power_of_two_pick,
};
