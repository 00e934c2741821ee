/*
 * composite: the best of a score that weighs load, latency, locality and cost.
 *
 *     score = sum(weight x part) / sum(weight)
 *
 * Each part is 0 to 1, and 1 is the best there is. Of load, first-token time and price it is the
 * lowest among the eligible divided by the candidate's own; the price is an estimate for this
 * request, its cached, uncached and expected tokens each at what they cost there, or the label cost where
 * nobody has a price. Locality is 1 in
 * the zone of the request, 0.5 in its region, else 0.
 * A request that says how much it would pay for speed, t of 0 to 1, has its cost part and the others
 * weighed by that: (1 - t) x cost + t x the others. Nothing is switched anywhere between.
 *
 * Tiers come first: ready before degraded before unknown instances, as far as somebody there
 * reaches [composite] min_score. Equal scores are decided by hashes of request and instance, so that equal
 * instances share, and a replay is exact.
 *
 * [composite] max_candidates moves no choice: it says how many of the best count as candidates when one is
 * explained (policy/explain.c).
 */
#include "policy/choice.h"
#include "policy/locality.h"

enum part { PART_LOAD, PART_LATENCY, PART_LOCALITY, PART_COST };

#define UNKNOWN (-1)

/* --- what operators say of instances -------------------------------------------------------- */

static bool has_prices(const struct choice *choice) {
	uint32_t prices = UINT32_C(1) << TRAIT_PRICE_IN | UINT32_C(1) << TRAIT_PRICE_OUT;

	return choice->model->least.known & prices;
}

/* Micro-units for a million requests like this one, as far as tokens are known; UNKNOWN: it has no price. */
static double price_of(const struct choice *choice, uint32_t i) {
	const struct demand *demand = choice->demand;
	const struct candidate *c = choice_candidate(choice, i);
	const struct traits *t = snapshot_traits(choice->snapshot, c);
	const struct prefix_hit *hit = prefix_scan_find(choice->scan, c->slot);
	uint64_t n_prompt = u64_max(demand->prompt_tokens, 1);
	uint64_t n_cached = hit ? u64_min(choice_cached_tokens(demand, hit, c->instance), n_prompt) : 0;
	uint64_t price_cached = traits_has(t, TRAIT_PRICE_CACHED) ? t->price_cached : t->price_in;

	if (!has_prices(choice))
		return choice->model->least.known >> TRAIT_COST & 1 ? traits_cost(t) : UNKNOWN;
	if (!traits_has(t, TRAIT_PRICE_IN) && !traits_has(t, TRAIT_PRICE_OUT))
		return UNKNOWN;
	return (double)(n_prompt - n_cached) * (double)t->price_in + (double)n_cached * (double)price_cached +
	    (double)demand_expected_output(demand) * (double)t->price_out;
}

/* Where the request comes from; nothing where no candidate has a place, so that none is farther than another.
 */
static struct place place_of(const struct choice *choice) {
	uint32_t places = UINT32_C(1) << TRAIT_ZONE | UINT32_C(1) << TRAIT_REGION;

	if (!(choice->model->least.known & places))
		return (struct place){ 0, 0 };
	return locality_origin(choice->options, choice->snapshot, choice->model, choice->demand);
}

static float nearness_of(const struct choice *choice, const struct place *place, uint32_t i) {
	static const float by_ring[] = {
		[PICK_RING_ZONE] = 1,
		[PICK_RING_REGION] = 0.5f,
		[PICK_RING_FAR] = 0,
	};

	if (!place->zone && !place->region)
		return 1;
	return by_ring[locality_ring_of(
	    place, snapshot_traits(choice->snapshot, choice_candidate(choice, i)))];
}

/* --- parts ---------------------------------------------------------------------------------- */

static float load_of(const struct choice *choice, uint32_t i) {
	struct choice_measure m = choice_measure(choice, i);

	return (float)((double)m.work / (double)m.weight);
}

/* Each part of all the eligible: what it is compared by, the lower the better; but nearness, which is done.
 */
static void fill_figures(struct choice *choice) {
	double median_s = choice_median_first_token(choice);
	struct place place = place_of(choice);

	for (uint32_t i = 0; i < choice->n; i++) {
		float *parts = choice->scores[i].parts;

		parts[PART_LOAD] = load_of(choice, i);
		parts[PART_LATENCY] = (float)choice_first_token(choice, i, median_s);
		parts[PART_LOCALITY] = nearness_of(choice, &place, i);
		parts[PART_COST] = (float)price_of(choice, i);
	}
}

/* Makes of the figures of one part what they are beside the lowest: 1 the best there is. Who has none is as
 * good as that. */
static void compare_figures(struct choice *choice, enum part part) {
	float lowest = UNKNOWN;

	for (uint32_t i = 0; i < choice->n; i++) {
		float own = choice->scores[i].parts[part];

		if (own >= 0 && (lowest < 0 || own < lowest))
			lowest = own;
	}
	for (uint32_t i = 0; i < choice->n; i++) {
		float *own = &choice->scores[i].parts[part];

		*own = *own > lowest ? lowest / *own : 1;
	}
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
	return choice_hash(choice, i, tie_key) > choice_hash(choice, than, tie_key);
}

static uint32_t composite_pick(struct choice *choice) {
	uint64_t tie_key = choice->demand->seed ? choice->demand->seed : rng_next(choice->rng);
	uint32_t best = 0;

	fill_figures(choice);
	compare_figures(choice, PART_LOAD);
	compare_figures(choice, PART_LATENCY);
	compare_figures(choice, PART_COST);
	for (uint32_t i = 0; i < choice->n; i++) {
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
	.wants_prompt = true,
	.wants_index = true,
	.is_index_for_prices = true,
	.parts = { "load", "latency", "locality", "cost" },
	.pick = composite_pick,
};
