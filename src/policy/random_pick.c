/* random_pick: each as likely as the others, whatever it weighs; looks at nothing, keeps nothing. */
#include "policy/choice.h"

static uint32_t random_pick_pick(struct choice *choice) {
	return (uint32_t)rng_below(choice->rng, choice->n);
}

const struct policy random_pick_policy = {
	.name = "random",
	.reason = PICK_RANDOM,
	.pick = random_pick_pick,
};
