/*
 * bucket: prompts of about one length go to one instance, so that short ones do not wait behind long ones.
 *
 * The candidates, in the order of the fleet, share the lengths among them: one range each, the first has
 * the shortest prompts. Every 5 s of the requests' own time the ranges are drawn anew, so that each
 * has had the share of the recent tokens that its instance's weight is of all. What is known of a range
 * is how many tokens it had; within it they are taken to be spread evenly over the logarithm of the
 * length, which is wrong, and less so each time. What is older counts half with every new drawing.
 *
 * An instance with more than twice its share of what is in flight is passed over for the least
 * loaded; one that is not eligible, for the next in order that is. A request whose length is not known
 * goes to the least loaded. Each thread draws ranges of its own.
 */
#include <math.h>

#include "policy/choice.h"

#define DRAW_NS       5000000000u
#define DRAW_REQUESTS 4u /* for each candidate, at least: else the window is longer */
#define MEMORY        0.5
#define LOG2_FIRST    15.0 /* the ranges at first: as if all prompts were shorter than 2^15 tokens */
#define OVERLOAD      2.0
#define BYTES_A_TOKEN 4u

struct cell {
	double upper;  /* log2 of the longest prompt of its range; the last range has no end */
	double recent; /* tokens */
	double next;   /* upper, while ranges are drawn */

	/* In the first cell of a model, for all of them. */
	uint64_t drawn_ns;
	uint64_t n_requests;      /* since then */
	double shortest, longest; /* of them, log2 */
};

/* --- ranges --------------------------------------------------------------------------------- */

/* The ranges that were, as one density over the logarithm of the length. */
struct density {
	const struct cell *cells;
	uint32_t n;
	double total, bottom, top;
};

static struct density density_of(const struct cell *cells, uint32_t n) {
	struct density d = { .cells = cells, .n = n, .bottom = cells->shortest, .top = cells->longest };

	for (uint32_t i = 0; i < n; i++)
		d.total += cells[i].recent;
	if (!cells->n_requests) {
		d.bottom = cells[0].upper;
		d.top = cells[n - 1].upper;
	}
	d.bottom = fmin(d.bottom, cells[0].upper);
	if (n > 1)
		d.top = fmax(d.top, cells[n - 2].upper);
	return d;
}

/* Gives each of the n candidates the part of the density that its weight is of all. */
static void draw(
    struct cell *cells, const struct candidate *candidates, uint32_t n, const struct density *d) {
	double weight = 0, lower = d->bottom, sum = 0, wanted = 0;
	uint32_t at = 0;

	for (uint32_t i = 0; i < n; i++)
		weight += candidates[i].weight;
	for (uint32_t i = 0; i < n; i++) {
		wanted += d->total * candidates[i].weight / weight;
		while (at + 1 < d->n && sum + d->cells[at].recent < wanted) {
			lower = d->cells[at].upper;
			sum += d->cells[at++].recent;
		}
		double upper = at + 1 < d->n ? d->cells[at].upper : d->top;
		double part = d->cells[at].recent > 0 ? (wanted - sum) / d->cells[at].recent : 1;

		cells[i].next = lower + (upper - lower) * (part < 1 ? part : 1);
	}
	for (uint32_t i = 0; i < n; i++) {
		cells[i].upper = cells[i].next;
		cells[i].recent = d->total * MEMORY * candidates[i].weight / weight;
	}
	cells->n_requests = 0;
}

static void bucket_init(void *cells, const struct model *model, struct rng *rng) {
	struct cell all = { .upper = LOG2_FIRST, .recent = 1, .longest = LOG2_FIRST, .n_requests = 1 };
	struct density d = density_of(&all, 1);

	draw(cells, model->candidates, model->n_candidates, &d);
}

static void bucket_carry(void *cells, const struct model *model, const struct past *past, struct rng *rng) {
	const struct cell *before = past->cells;
	struct density d = density_of(before, past->model->n_candidates);
	struct cell *first = cells;

	draw(cells, model->candidates, model->n_candidates, &d);
	first->drawn_ns = before->drawn_ns;
}

static void adapt(struct cell *cells, const struct choice *choice) {
	uint32_t n = choice->n_candidates;

	if (!cells->drawn_ns)
		cells->drawn_ns = choice->now_ns;
	if (choice->now_ns - cells->drawn_ns < DRAW_NS || cells->n_requests < DRAW_REQUESTS * n)
		return;
	struct density d = density_of(cells, n);

	draw(cells, choice->candidates, n, &d);
	cells->drawn_ns = choice->now_ns;
}

/* --- a pick --------------------------------------------------------------------------------- */

/* The range that a length is in. */
static uint32_t find_range(const struct cell *cells, uint32_t n, double length) {
	uint32_t low = 0;

	for (uint32_t left = n - 1; left > 0;) {
		uint32_t half = left / 2;

		if (cells[low + half].upper < length) {
			low += half + 1;
			left -= half + 1;
		} else {
			left = half;
		}
	}
	return low;
}

/* The first eligible one from the position on, or the last before it. */
static uint32_t next_eligible(const struct choice *choice, uint32_t position) {
	uint32_t i = 0;

	while (i + 1 < choice->n && choice->eligible[i] < position)
		i++;
	return i;
}

static uint32_t bucket_pick(struct choice *choice) {
	const struct demand *demand = choice->demand;
	uint64_t tokens =
	    demand->prompt_tokens ? demand->prompt_tokens : demand->prompt_bytes / BYTES_A_TOKEN;
	struct cell *cells = choice->cells;
	double length = log2((double)tokens + 1);
	uint32_t range, i;

	if (!tokens) {
		choice->reason = PICK_LEAST_LOAD;
		return choice_least_loaded(choice);
	}
	adapt(cells, choice);
	range = find_range(cells, choice->n_candidates, length);
	cells[range].recent += (double)tokens;
	cells->shortest = cells->n_requests ? fmin(cells->shortest, length) : length;
	cells->longest = cells->n_requests ? fmax(cells->longest, length) : length;
	cells->n_requests++;
	i = next_eligible(choice, range);
	if (!choice_is_overloaded(choice, i, OVERLOAD))
		return i;
	choice->reason = PICK_LEAST_LOAD;
	return choice_least_loaded(choice);
}

const struct policy bucket_policy = {
	.name = "bucket",
	.reason = PICK_BUCKET,
	.wants_prompt = true,
	.is_cost = true,
	.parts = MEASURE_PARTS,
	.cell_bytes = sizeof(struct cell),
	.init = bucket_init,
	.carry = bucket_carry,
	.pick = bucket_pick,
};
