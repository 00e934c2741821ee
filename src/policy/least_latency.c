/*
 * least_latency: the instance whose first token is expected soonest, from what it took lately.
 *
 *     latency = first-token time x (requests in flight + 1) / weight
 *
 * The time is a decaying mean that follows peaks at once (learned.first_token_s), and it fades:
 * the longer ago an instance answered, the nearer it is taken to be to the median of the others, or one
 * bad moment would keep it without work, and without a chance to show better, for ever. Who has shown
 * nothing yet is taken for the median, and pays for what it has in flight twice, so that a new one is
 * not flooded. That alone would never try it where the best is always idle: each pick begins somewhere by
 * chance, and takes an idle one that has shown nothing there and then. Weights are against the mean of the
 * eligible.
 */
#include "policy/choice.h"

#define FADE_NS        10000000000u /* so long after its last first token an instance counts half */
#define MEDIAN_UNKNOWN 1.0 /* while nobody has shown anything: then only requests and weights count */

enum part { PART_FIRST_TOKEN, PART_REQUESTS };

static void swap_totals(struct policy_score *a, struct policy_score *b) {
	float total = a->total;

	a->total = b->total;
	b->total = total;
}

/* Of the first n totals, the lower one of two; they are left in another order: Hoare's FIND (1961). */
static float median_total(struct policy_score *scores, int32_t n) {
	int32_t low = 0, high = n - 1, k = (n - 1) / 2;

	while (low < high) {
		float pivot = scores[k].total;
		int32_t i = low, j = high;

		while (i <= j) {
			while (scores[i].total < pivot)
				i++;
			while (scores[j].total > pivot)
				j--;
			if (i <= j)
				swap_totals(&scores[i++], &scores[j--]);
		}
		if (j < k)
			low = i;
		if (k < i)
			high = j;
	}
	return scores[k].total;
}

static double first_token_of(const struct choice *choice, uint32_t i) {
	return learned_read(&choice_candidate(choice, i)->instance->learned.first_token_s);
}

double choice_median_first_token(struct choice *choice) {
	int32_t n = 0;

	for (uint32_t i = 0; i < choice->n; i++)
		if (first_token_of(choice, i) > 0)
			choice->scores[n++].total = (float)first_token_of(choice, i);
	return n ? (double)median_total(choice->scores, n) : MEDIAN_UNKNOWN;
}

double choice_first_token(const struct choice *choice, uint32_t i, double median) {
	const struct learned *learned = &choice_candidate(choice, i)->instance->learned;
	uint64_t first_ns = atomic_load_explicit(&learned->first_ns, memory_order_relaxed);
	double own = first_token_of(choice, i), age;

	if (own <= 0)
		return median;
	age = (double)(choice->now_ns - u64_min(first_ns, choice->now_ns)) / FADE_NS;
	return (own + median * age) / (1 + age);
}

double choice_latency(const struct choice *choice, uint32_t i, double median) {
	const struct candidate *c = choice_candidate(choice, i);
	double n = (double)load_requests(choice->load, c->slot) + 1;
	double share = (double)c->weight * choice->n / (double)choice->weight;

	if (first_token_of(choice, i) <= 0)
		n *= n;
	return choice_first_token(choice, i, median) * n / share;
}

/* It is to show what it can do, and has nothing in flight that will. */
static bool is_untried(const struct choice *choice, uint32_t i) {
	return first_token_of(choice, i) <= 0 &&
	    !load_requests(choice->load, choice_candidate(choice, i)->slot);
}

static uint32_t least_latency_pick(struct choice *choice) {
	double median = choice_median_first_token(choice);
	uint32_t start = choice_draw(choice, UINT32_MAX), best = start;
	bool is_trial = is_untried(choice, start);

	for (uint32_t k = 0; k < choice->n; k++) {
		uint32_t i = start + k < choice->n ? start + k : start + k - choice->n;
		struct policy_score *score = &choice->scores[i];

		score->parts[PART_FIRST_TOKEN] = (float)choice_first_token(choice, i, median);
		score->parts[PART_REQUESTS] =
		    (float)load_requests(choice->load, choice_candidate(choice, i)->slot);
		score->total = is_trial && i == start ? 0 : (float)choice_latency(choice, i, median);
		if (score->total < choice->scores[best].total)
			best = i;
	}
	return best;
}

const struct policy least_latency_policy = {
	.name = "least_latency",
	.reason = PICK_LOWEST_TTFT,
	.is_cost = true,
	.parts = { "first_token_s", "requests" },
	.pick = least_latency_pick,
};
