/*
 * rendezvous_hash: requests of one session go to one instance, in every router alike.
 *
 * Each instance scores by a hash of the session and its own address, and the highest
 * score wins (Thaler and Ravishankar, 1998): who comes or goes moves only the sessions
 * that it wins or had. Scores are weighted as -weight / ln(hash) (Schindelhauer and
 * Schomaker, 2005), by what the operator wants and not by how somebody is: sessions must not
 * move because it answers. One that has more than its share in flight is passed over for the
 * next by score (bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2018), so that a
 * popular session does not drown its instance. Requests without a session go round.
 */
#include <math.h>

#include "base/mix.h"
#include "policy/choice.h"

enum part { PART_HASH };

double choice_hash(const struct choice *choice, uint32_t i, uint64_t key) {
	const struct candidate *c = choice_candidate(choice, i);
	double drawn = ((double)(mix64(key ^ c->instance->seed) >> 12) + 0.5) * 0x1p-52; /* in (0, 1) */

	return choice_own_weight(choice, i) / -log(drawn);
}

static uint32_t rendezvous_hash_pick(struct choice *choice) {
	double highest = -1, highest_within = -1;
	uint32_t best = 0, best_within = UINT32_MAX;
	uint64_t n_in_flight;

	if (!choice->demand->session) {
		choice->reason = PICK_ROUND_ROBIN;
		return round_robin_pick(choice);
	}
	n_in_flight = choice_in_flight(choice);
	for (uint32_t i = 0; i < choice->n; i++) {
		const struct candidate *c = choice_candidate(choice, i);
		double score = choice_hash(choice, i, choice->demand->session);

		choice->scores[i].total = choice->scores[i].parts[PART_HASH] = (float)score;
		if (score > highest) {
			highest = score;
			best = i;
		}
		if (score > highest_within &&
		    load_requests(choice->load, c->slot) < choice_bound(choice, c, n_in_flight)) {
			highest_within = score;
			best_within = i;
		}
	}
	return best_within != UINT32_MAX ? best_within : best;
}

const struct policy rendezvous_hash_policy = {
	.name = "rendezvous_hash",
	.reason = PICK_RENDEZVOUS_HASH,
	.wants_session = true,
	.parts = { "hash" },
	.cell_bytes = ROUND_ROBIN_CELL_BYTES,
	.init = round_robin_init,
	.carry = round_robin_carry,
	.pick = rendezvous_hash_pick,
};
