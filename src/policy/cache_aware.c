/*
 * cache_aware: the instance whose first token is expected soonest, where what a miss costs
 * everybody grows with load.
 *
 *     cost = queue + (1 + BUSY * shortest queue) * uncached work + decode + KV pressure
 *
 * All in seconds: the queue is the prompt tokens that the instance has yet to prefill, the
 * uncached work those of this request that its cache does not hold, both divided by the
 * rate at which it was seen to prefill. In an idle fleet the shortest queue is 0 and the
 * cost is the expected time to the first token, so that a hit is worth what it saves this
 * request and no instance drowns for the sake of its cache. In a busy fleet every token
 * that is computed twice delays all who wait behind it: the longer even the shortest queue
 * is, the more a hit is worth. Nothing is switched: the weight follows the load.
 *
 * Costs that are nearly equal are ties, broken by rendezvous hashing of the first blocks:
 * routers that saw nothing of each other send equal prompts to the same instance, their home. Where
 * engines say that they have requests of others the index is blind to what those left in the caches; in a
 * busy fleet a miss at the home is then forgiven the more the more they are: what it computes is found there
 * by all.
 *
 * The rules of vLLM's router stand before the cost where the operator asks for them: a small part of a prompt
 * that is cached counts as nothing, and a fleet that is out of balance gets the least loaded. In one that is
 * in balance a prompt without a full block, of which the index knows nothing, is taken to be cached at its
 * home.
 */
#include "policy/choice.h"

#include <math.h>

#define BUSY 6.0 /* for each second of the shortest queue */

/* What an instance is thought to do while nobody in its group has shown anything. */
#define RATE_UNKNOWN 4000.0 /* tokens a second */

/* Each token in decode makes an instance's steps, and so the prefill among them, a little longer. */
#define DECODE_S_PER_TOKEN 2e-7

/* Of KV use k the pressure is that of a queue, k / (1 - k): evictions and preemptions are near. */
#define KV_S       0.15
#define KV_USE_MAX 0.98

/* To fetch a token's keys and values from the instance that computed it, against computing it. */
#define FETCH_PART (1.0 / 64)

/* Costs this near to the lowest are equal to it: in seconds, and as part of the request's own work. */
#define TIE_S    0.002
#define TIE_PART 0.02

/* Others' part of the requests from which on a miss at the home is free. */
#define STRANGERS_FULL 0.5

/* How many leading blocks decide the home: a system prompt alone must not gather everybody. */
#define HOME_BLOCKS 2u

enum part { PART_QUEUE, PART_UNCACHED, PART_DECODE, PART_KV };

uint32_t choice_cached_tokens(
    const struct demand *demand, const struct prefix_hit *hit, const struct instance *inst) {
	double bytes = (double)hit->n_blocks * PROMPT_BLOCK_BYTES;
	double part = demand->prompt_bytes ? bytes / (double)demand->prompt_bytes : 0;
	double predicted = learned_read(&inst->learned.recent_predicted);
	double actual = learned_read(&inst->learned.recent_actual);
	double trust = (actual + TRUST_TOKENS) / (predicted + TRUST_TOKENS);

	return (uint32_t)(demand->prompt_tokens * (part < 1 ? part : 1) * (trust < 1 ? trust : 1));
}

/* Is enough of the prompt cached there to count? *cached_out is what need not be computed. */
static bool is_hit(const struct choice *choice, const struct candidate *c, uint32_t *cached_out) {
	const struct prefix_hit *hit = prefix_scan_find(choice->scan, c->slot);
	double threshold = choice->options->cache_threshold;
	uint32_t cached = hit ? choice_cached_tokens(choice->demand, hit, c->instance) : 0;
	bool counts = cached > 0 && (threshold <= 0 || cached > threshold * choice->demand->prompt_tokens);

	*cached_out = counts ? cached : 0;
	return counts;
}

/* Balance has a limit, as in vLLM's router. */
static bool has_limit(const struct choice *choice) {
	return choice->options->balance_abs_threshold || choice->options->balance_rel_threshold > 0;
}

/* In requests in flight, by both thresholds. */
static bool is_unbalanced(const struct choice *choice) {
	const struct policy_options *options = choice->options;
	uint64_t least = UINT64_MAX, most = 0;

	if (!has_limit(choice))
		return false;
	for (uint32_t i = 0; i < choice->n; i++) {
		uint64_t n = load_requests(choice->load, choice_candidate(choice, i)->slot);

		least = u64_min(least, n);
		most = u64_max(most, n);
	}
	return most - least > options->balance_abs_threshold &&
	    (double)most > (double)least * options->balance_rel_threshold;
}

static double rate_of(const struct candidate *c) {
	return learned_read(&c->instance->learned.prefill_rate);
}

/* Seconds by what the engine says of itself: others' requests that wait there, and KV pressure. */
static void add_figures(
    struct policy_score *score, const struct choice *choice, const struct learned *learned) {
	double use = learned_read(&learned->kv_usage);

	if (!choice_is_fresh(choice, learned))
		return;
	score->parts[PART_QUEUE] += (float)((double)choice_waiting(choice, learned) * choice->prompt_tokens);
	if (use > KV_USE_MAX)
		use = KV_USE_MAX;
	score->parts[PART_KV] = (float)(KV_S * use / (1 - use));
}

/* Tokens of the prompt at the head of the queue that are likely to be computed by now. */
static double progress_of(
    const struct choice *choice, const struct candidate *c, const struct load_sum *load, double rate) {
	uint64_t first_ns = atomic_load_explicit(&c->instance->learned.first_ns, memory_order_relaxed);
	uint64_t begun_ns = u64_max(load->head_ns, first_ns);
	double done;

	if (!load->head_ns || begun_ns >= choice->now_ns)
		return 0;
	done = (double)(choice->now_ns - begun_ns) / 1e9 * rate;
	return done < (double)load->head_tokens ? done : (double)load->head_tokens;
}

/* The parts but for the weight of the uncached work, in seconds. */
static void price(struct choice *choice, uint32_t i, double group_rate) {
	const struct candidate *c = choice_candidate(choice, i);
	const struct demand *demand = choice->demand;
	struct load_sum load = load_sum(choice->load, c->slot);
	struct policy_score *score = &choice->scores[i];
	double rate = rate_of(c) > 0 ? rate_of(c) : group_rate;
	double share = (double)c->weight * choice->n / (double)choice->weight;
	uint32_t cached;

	(void)is_hit(choice, c, &cached);
	score->parts[PART_QUEUE] = (float)((double)load.prefill_tokens - progress_of(choice, c, &load, rate));
	add_figures(score, choice, &c->instance->learned);
	score->parts[PART_QUEUE] /= (float)(rate * share);
	score->parts[PART_UNCACHED] = (float)((demand->prompt_tokens - cached) / rate);
	if (demand->is_prefilled)
		score->parts[PART_UNCACHED] *= (float)FETCH_PART;
	score->parts[PART_DECODE] = (float)((double)load.decode_tokens * DECODE_S_PER_TOKEN / share);
}

static float shortest_queue(const struct choice *choice) {
	float shortest = choice->scores[0].parts[PART_QUEUE];

	for (uint32_t i = 1; i < choice->n; i++)
		if (choice->scores[i].parts[PART_QUEUE] < shortest)
			shortest = choice->scores[i].parts[PART_QUEUE];
	return shortest;
}

/* What equal requests have in common, without their being told; 0: nothing. */
static uint64_t home_key(const struct choice *choice) {
	const struct demand *demand = choice->demand;

	if (demand->n_keys)
		return demand->keys[(demand->n_keys < HOME_BLOCKS ? demand->n_keys : HOME_BLOCKS) - 1];
	return demand->session || !has_limit(choice) ? demand->session : demand->whole;
}

/* Of the usual one's requests: what a single engine says moves it by no more than its place. */
static double strangers(const struct choice *choice) {
	double sum = 0;

	for (uint32_t i = 0; i < choice->n; i++) {
		const struct learned *learned = &choice_candidate(choice, i)->instance->learned;

		sum += choice_is_fresh(choice, learned) ? learned_strangers(learned) : 0;
	}
	return sum / choice->n;
}

/* Of those that cost no more than the limit; what has no total yet costs nothing. */
static uint32_t find_home(const struct choice *choice, uint64_t key, float limit) {
	uint32_t home = 0;
	double highest = -1;

	for (uint32_t i = 0; i < choice->n; i++) {
		if (choice->scores[i].total > limit)
			continue;
		double hash = choice_hash(choice, i, key);

		if (hash > highest) {
			highest = hash;
			home = i;
		}
	}
	return home;
}

static void forgive_home(struct choice *choice, float busy) {
	bool is_cached = has_limit(choice) && !choice->demand->n_keys;
	double part = busy > 0 ? strangers(choice) : 0;
	uint64_t key = home_key(choice);

	if ((part <= 0 && !is_cached) || !key)
		return;
	part = part < STRANGERS_FULL ? part / STRANGERS_FULL : 1;
	choice->scores[find_home(choice, key, INFINITY)].parts[PART_UNCACHED] *=
	    is_cached ? 0 : 1 - (float)part * (busy < 1 ? busy : 1);
}

/* Weighs and adds up; returns the lowest. */
static uint32_t add_up(struct choice *choice) {
	float busy = (float)BUSY * shortest_queue(choice);
	uint32_t best = 0;

	forgive_home(choice, busy);
	for (uint32_t i = 0; i < choice->n; i++) {
		struct policy_score *score = &choice->scores[i];

		score->parts[PART_UNCACHED] *= 1 + busy;
		score->total = 0;
		for (unsigned part = 0; part < POLICY_PARTS; part++)
			score->total += score->parts[part];
		if (score->total < choice->scores[best].total)
			best = i;
	}
	return best;
}

static uint32_t break_tie(const struct choice *choice, uint32_t best) {
	const struct policy_score *lowest = &choice->scores[best];
	uint64_t key = home_key(choice);

	if (!key)
		key = rng_next(choice->rng);
	return find_home(
	    choice, key, lowest->total + (float)TIE_S + (float)TIE_PART * lowest->parts[PART_UNCACHED]);
}

static uint32_t cache_aware_pick(struct choice *choice) {
	double group_rate = choice_mean_rate(choice->candidates, choice->eligible, choice->n);
	uint32_t best, cached;

	if (group_rate <= 0)
		group_rate = RATE_UNKNOWN;
	for (uint32_t i = 0; i < choice->n; i++)
		price(choice, i, group_rate);
	best = break_tie(choice, add_up(choice));
	if (is_unbalanced(choice)) {
		choice->reason = PICK_LEAST_LOAD;
		return choice_find_least(choice);
	}
	if (is_hit(choice, choice_candidate(choice, best), &cached))
		choice->reason = PICK_PREFIX_HIT;
	return best;
}

const struct policy cache_aware_policy = {
	.name = "cache_aware",
	.reason = PICK_LOWEST_TTFT,
	.wants_session = true,
	.wants_prompt = true,
	.wants_index = true,
	.is_cost = true,
	.parts = { "queue_s", "uncached_s", "decode_s", "kv_s" },
	.pick = cache_aware_pick,
};
