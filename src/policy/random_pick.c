/* random_pick: each as likely as its weight; keeps nothing and looks at nothing. */
#include "policy/choice.h"

static uint32_t random_pick_pick(struct choice *choice) {
	return choice_draw(choice, UINT32_MAX);
}

const struct policy random_pick_policy = {
	.name = "random",
	.reason = PICK_RANDOM,
	.pick = random_pick_pick,
};
