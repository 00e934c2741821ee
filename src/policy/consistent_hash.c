/*
 * consistent_hash: requests of one session go to one instance, in every router alike, found on a
 * ring (Karger et al., 1997).
 *
 * Each instance of weight 1 has 160 points on the ring, by hashes of its address, others as
 * many times as they weigh, by the operator's will and not by how they are: a key must not move
 * because somebody answers. A key belongs to the next point. When its instance cannot take
 * the request (left, tried, or 1.25 times its share in flight), the next point of another one
 * has it. Who comes or goes takes or leaves only what lies before its own points. Against
 * rendezvous_hash: a pick does not look at every hash, and is a little less even.
 *
 * The key is the session, else the second block of the prompt, since the first is often a
 * system prompt that all share, else its only one; requests with none of these go round.
 */
#include "policy/choice.h"

#include <stdlib.h>

#include "base/mix.h"

#define POINTS          160u       /* of weight 1 */
#define RING_POINTS_MAX (1u << 18) /* with more of them all have half as many, or a quarter.. */

/* A point is the upper 48 bits of a hash, and the position of a candidate. */
#define POSITION_BITS 16u
#define POSITION_MASK UINT64_C(0xffff)

struct ring {
	uint32_t n;
	uint64_t points[]; /* ascending */
};

/* --- building ------------------------------------------------------------------------------- */

/* Of its own, not against the others': points must not depend on who else is there. */
static uint64_t points_of(const struct snapshot_row *row, unsigned halvings) {
	uint64_t weight = snapshot_row_weight(row);

	return u64_max(((weight * POINTS + INSTANCE_WEIGHT_ONE / 2) / INSTANCE_WEIGHT_ONE) >> halvings, 1);
}

static uint64_t count_points(const struct snapshot *snap, const struct model *model, unsigned halvings) {
	uint64_t n = 0;

	for (uint32_t i = 0; i < model->n_candidates; i++)
		n += points_of(&snap->rows[model->candidates[i].row], halvings);
	return n;
}

static void put_points(
    struct ring *ring, const struct snapshot *snap, const struct model *model, unsigned halvings) {
	for (uint32_t i = 0; i < model->n_candidates; i++) {
		const struct candidate *c = &model->candidates[i];
		uint64_t n = points_of(&snap->rows[c->row], halvings);

		for (uint64_t k = 1; k <= n; k++)
			ring->points[ring->n++] = (mix64(c->instance->seed ^ mix64(k)) & ~POSITION_MASK) | i;
	}
}

/* By digits of 12 bits, lowest first; what lies below the hash need not be in order. */
#define DIGIT_BITS 12u
#define DIGITS     (1u << DIGIT_BITS)

static void sort_points(struct ring *ring) {
	uint64_t *from = ring->points, *to = malloc(ring->n * sizeof(*to)), *scratch = to;

	for (unsigned shift = POSITION_BITS; shift < 64; shift += DIGIT_BITS) {
		uint32_t at[DIGITS] = { 0 }, sum = 0;
		uint64_t *swapped = from;

		for (uint32_t i = 0; i < ring->n; i++)
			at[from[i] >> shift & (DIGITS - 1)]++;
		for (unsigned digit = 0; digit < DIGITS; digit++) {
			uint32_t n = at[digit];

			at[digit] = sum;
			sum += n;
		}
		for (uint32_t i = 0; i < ring->n; i++)
			to[at[from[i] >> shift & (DIGITS - 1)]++] = from[i];
		from = to;
		to = swapped;
	}
	assert(from == ring->points); /* four digits: an even number of moves */
	free(scratch);
}

static void *consistent_hash_build(
    const struct snapshot *snap, const struct model *model, const struct policy_options *options) {
	unsigned halvings = 0;

	while (count_points(snap, model, halvings) > RING_POINTS_MAX)
		halvings++;
	uint64_t n = count_points(snap, model, halvings);
	struct ring *ring = malloc(sizeof(*ring) + n * sizeof(ring->points[0]));

	ring->n = 0;
	put_points(ring, snap, model, halvings);
	assert(ring->n == n);
	sort_points(ring);
	return ring;
}

/* --- a pick --------------------------------------------------------------------------------- */

static uint64_t key_of(const struct demand *demand) {
	if (demand->session)
		return demand->session;
	return demand->n_keys ? demand->keys[demand->n_keys > 1] : 0;
}

/* The first point behind the key; n: none, it is the first of all. */
static uint32_t find_point(const struct ring *ring, uint64_t key) {
	uint32_t low = 0, n = ring->n;

	while (n > 0) {
		uint32_t half = n / 2;

		if (ring->points[low + half] < key) {
			low += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return low;
}

/* Where a position is among the eligible; UINT32_MAX: it is not. */
static uint32_t find_eligible(const struct choice *choice, uint32_t position) {
	uint32_t low = 0, n = choice->n;

	if (choice->n == choice->n_candidates)
		return position;
	while (n > 0) {
		uint32_t half = n / 2;

		if (choice->eligible[low + half] < position) {
			low += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return low < choice->n && choice->eligible[low] == position ? low : UINT32_MAX;
}

/* The first that is within its bound; there always is one: not all can have more than their share. */
static uint32_t walk(const struct choice *choice, const struct ring *ring, uint32_t at) {
	uint64_t n_in_flight = choice_in_flight(choice);
	uint32_t first = UINT32_MAX;

	for (uint32_t n_left = ring->n; n_left > 0; n_left--, at++) {
		if (at >= ring->n)
			at = 0;
		uint32_t i = find_eligible(choice, (uint32_t)(ring->points[at] & POSITION_MASK));

		if (i == UINT32_MAX)
			continue;
		const struct candidate *c = choice_candidate(choice, i);

		if (load_requests(choice->load, c->slot) < choice_bound(choice, c, n_in_flight))
			return i;
		if (first == UINT32_MAX)
			first = i;
	}
	assert(first != UINT32_MAX); /* loads that other threads changed meanwhile */
	return first;
}

static uint32_t consistent_hash_pick(struct choice *choice) {
	const struct ring *ring = choice->table;
	uint64_t key = key_of(choice->demand);

	if (!key) {
		choice->reason = PICK_ROUND_ROBIN;
		return round_robin_pick(choice);
	}
	return walk(choice, ring, find_point(ring, mix64(key)));
}

const struct policy consistent_hash_policy = {
	.name = "consistent_hash",
	.reason = PICK_CONSISTENT_HASH,
	.wants_session = true,
	.wants_prompt = true,
	.cell_bytes = ROUND_ROBIN_CELL_BYTES,
	.init = round_robin_init,
	.carry = round_robin_carry,
	.build = consistent_hash_build,
	.pick = consistent_hash_pick,
};
