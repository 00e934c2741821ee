/*
 * composite: the best of a score that weighs load, latency, locality and cost.
 *
 *     score = sum(weight x part) / sum(weight)
 *
 * Each part is 0 to 1, and 1 is the best there is: the least load, the shortest first-token time,
 * the lowest price among the eligible, each divided by the candidate's own; for locality, nearness.
 * A request that says how much it would pay for speed, t of 0 to 1, has its cost part and the others
 * weighed by that: (1 - t) x cost + t x the others. Nothing is switched anywhere between.
 *
 * Tiers come first: ready before degraded before unknown instances, as far as somebody there
 * reaches [composite] min_score. Equal scores are decided by hashes of request and instance, so that equal
 * instances share, and a replay is exact.
 */
#include "policy/choice.h"

enum part { PART_LOAD, PART_LATENCY, PART_LOCALITY, PART_COST };

/* --- what operators say of instances -------------------------------------------------------- */

/* Micro-units for this request; 0: not known, which is as good as the cheapest. */
static double price_of(const struct choice *choice, uint32_t i) {
	return 0;
}

/* 0 to 1; 1: in the zone of the request, or no zones are known. */
static double nearness_of(const struct choice *choice, uint32_t i) {
	return 1;
}

/* --- parts ---------------------------------------------------------------------------------- */

/* The best of each kind among the eligible; 0: not known. */
struct best {
	double load, first_token_s, median_s, price;
};

static double load_of(const struct choice *choice, uint32_t i) {
	struct choice_measure m = choice_measure(choice, i);

	return (double)m.work / (double)m.weight;
}

static double lower_of(double a, double b) {
	return a > 0 && (b <= 0 || a < b) ? a : b;
}

static struct best find_best(struct choice *choice) {
	struct best best = { .median_s = choice_median_first_token(choice) };

	for (uint32_t i = 0; i < choice->n; i++) {
		best.load = lower_of(load_of(choice, i), best.load);
		best.first_token_s =
		    lower_of(choice_first_token(choice, i, best.median_s), best.first_token_s);
		best.price = lower_of(price_of(choice, i), best.price);
	}
	return best;
}

/* Who has nothing to compare is as good as the best. */
static float against(double best, double own) {
	return own > best ? (float)(best / own) : 1;
}

static void fill_parts(const struct choice *choice, uint32_t i, const struct best *best) {
	float *parts = choice->scores[i].parts;

	parts[PART_LOAD] = against(best->load, load_of(choice, i));
	parts[PART_LATENCY] = against(best->first_token_s, choice_first_token(choice, i, best->median_s));
	parts[PART_LOCALITY] = (float)nearness_of(choice, i);
	parts[PART_COST] = against(best->price, price_of(choice, i));
}

static double weigh(const float *parts, const double *weights, unsigned n) {
	double sum = 0, weight = 0;

	for (unsigned part = 0; part < n; part++) {
		sum += weights[part] * (double)parts[part];
		weight += weights[part];
	}
	return weight > 0 ? sum / weight : 1;
}

static double total_of(const float *parts, const double *weights, const struct demand *demand) {
	double t = demand->cost_tolerance / 100.0;

	_Static_assert(PART_COST == POLICY_PARTS - 1, "all but the cost is in front");
	if (!demand->has_cost_tolerance)
		return weigh(parts, weights, POLICY_PARTS);
	return (1 - t) * (double)parts[PART_COST] + t * weigh(parts, weights, PART_COST);
}

/* --- a pick --------------------------------------------------------------------------------- */

/* The lower the sooner. */
static unsigned tier_of(const struct choice *choice, uint32_t i) {
	static const uint8_t tiers[INSTANCE_STATES] = {
		[INSTANCE_READY] = 0,
		[INSTANCE_DEGRADED] = 1,
		[INSTANCE_UNKNOWN] = 2,
		[INSTANCE_UNHEALTHY] = 3,
		[INSTANCE_DRAINING] = 3,
		[INSTANCE_DISABLED] = 3,
	};
	const struct snapshot_row *row = &choice->snapshot->rows[choice_candidate(choice, i)->row];

	return tiers[row->state];
}

static bool is_better(const struct choice *choice, uint64_t tie_key, uint32_t i, uint32_t than) {
	double min = choice->options->composite_min_score;
	double a = (double)choice->scores[i].total, b = (double)choice->scores[than].total;

	if ((a >= min) != (b >= min))
		return a >= min;
	if (tier_of(choice, i) != tier_of(choice, than))
		return tier_of(choice, i) < tier_of(choice, than);
	if (a != b)
		return a > b;
	return choice_hash(choice_candidate(choice, i), tie_key) >
	    choice_hash(choice_candidate(choice, than), tie_key);
}

static uint32_t composite_pick(struct choice *choice) {
	uint64_t tie_key = choice->demand->seed ? choice->demand->seed : rng_next(choice->rng);
	struct best found = find_best(choice);
	uint32_t best = 0;

	for (uint32_t i = 0; i < choice->n; i++) {
		fill_parts(choice, i, &found);
		choice->scores[i].total = (float)total_of(
		    choice->scores[i].parts, choice->options->composite_weights, choice->demand);
		if (i > 0 && is_better(choice, tie_key, i, best))
			best = i;
	}
	return best;
}

const struct policy composite_policy = {
	.name = "composite",
	.reason = PICK_BEST_SCORE,
	.parts = { "load", "latency", "locality", "cost" },
	.pick = composite_pick,
};
