/*
 * round_robin: smooth weighted round robin, as nginx does it.
 *
 * At each pick every eligible candidate earns its weight in credit, the richest is
 * taken and pays what all have earned. Weights 5, 1, 1 give a a b a c a a: the exact
 * share in every round of 7, and as even within it as it can be. Credit outlives the
 * pick, so one that was filtered out for a while neither gains nor loses by it. It also
 * outlives changes of the model's candidates: who stays goes on in turn.
 */
#include "policy/choice.h"

/* Credit is kept finer than weights, so that its order survives another length of the round. A round is less
 * than 2^28 long (4096 instances of 16 bits). */
#define UNIT (INT64_C(1) << 16)

static int64_t total_weight(const struct model *model) {
	int64_t total = 0;

	for (uint32_t i = 0; i < model->n_candidates; i++)
		total += model->candidates[i].weight;
	return total;
}

/*
 * Starts in the middle of a round, t picks after its beginning, or all threads would
 * fill the same instances in step. By then a candidate has had its share of t, rounded
 * down; what the rounding left over goes to the first ones that were cheated by it, so
 * that the picks add up to t. The round ends as exactly as any, and from its end on the
 * order is nginx's.
 */
void round_robin_init(void *cells, const struct model *model, struct rng *rng) {
	int64_t *credit = cells;
	int64_t total = total_weight(model), owed = 0;
	int64_t t = (int64_t)rng_below(rng, (uint64_t)total);

	for (uint32_t i = 0; i < model->n_candidates; i++) {
		credit[i] = t * model->candidates[i].weight % total;
		owed += credit[i];
	}
	for (uint32_t i = 0; i < model->n_candidates; i++) {
		if (owed > 0 && credit[i] > 0) {
			credit[i] -= total;
			owed -= total;
		}
		credit[i] *= UNIT;
	}
	assert(owed == 0);
}

/*
 * Who stays is owed, or owes, the same part of a pick as before, whatever a pick costs
 * now. Who is new starts anywhere in the round: not at the same place on all threads,
 * which would flood it.
 */
void round_robin_carry(void *cells, const struct model *model, const struct past *past, struct rng *rng) {
	const int64_t *before = past->cells;
	int64_t *credit = cells;
	int64_t total = total_weight(model), total_before = total_weight(past->model);

	for (uint32_t i = 0; i < model->n_candidates; i++) {
		uint32_t was = past_find(past, &model->candidates[i]);

		credit[i] = was == PAST_NONE
		    ? (int64_t)rng_below(rng, (uint64_t)(total * UNIT)) - total * UNIT / 2
		    : (int64_t)((__int128)before[was] * total / total_before);
	}
}

uint32_t round_robin_pick(struct choice *choice) {
	int64_t *credit = choice->cells;
	int64_t most = INT64_MIN;
	uint32_t richest = 0;

	for (uint32_t i = 0; i < choice->n; i++) {
		int64_t *own = &credit[choice->eligible[i]];

		*own += choice_candidate(choice, i)->weight * UNIT;
		if (*own > most) {
			most = *own;
			richest = i;
		}
	}
	credit[choice->eligible[richest]] -= (int64_t)choice->weight * UNIT;
	return richest;
}

const struct policy round_robin_policy = {
	.name = "round_robin",
	.reason = PICK_ROUND_ROBIN,
	.cell_bytes = ROUND_ROBIN_CELL_BYTES,
	.init = round_robin_init,
	.carry = round_robin_carry,
	.pick = round_robin_pick,
};
