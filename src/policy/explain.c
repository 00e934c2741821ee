#include "policy/explain.h"

#include <math.h>
#include <stdlib.h>

#include "policy/choice.h"

/* Picks for the order of the others: some may be of nobody who is looked for. */
#define PICKS_MAX (2u * EXPLAIN_RANKED_MAX)

/* --- codes -------------------------------------------------------------------------------- */

enum filter_code explain_first(uint32_t codes) {
	return codes ? (enum filter_code)__builtin_ctz(codes) : FILTER_NONE;
}

/* --- scores ------------------------------------------------------------------------------- */

bool explain_is_better(
    const struct policy *scorer, const struct policy_score *score, const struct policy_score *than) {
	if (isnan(score->total) || isnan(than->total))
		return isnan(than->total) && !isnan(score->total);
	return scorer->is_cost ? score->total < than->total : score->total > than->total;
}

bool explain_has_scores(const struct policy_set *set, const struct pick_result *pick) {
	return !isnan(set->scores[pick->at].total);
}

bool explain_is_below(const struct policy_set *set, const struct model *model,
    const struct policy_score *picked, const struct policy_score *score) {
	double min = set->options->composite_min_score;

	/* NAN, of whom size_class left out, is not below. */
	return policy_scorer(set, model) == &composite_policy && (double)picked->total >= min &&
	    (double)score->total < min;
}

struct filter_detail explain_below(const struct policy_set *set, const struct policy_score *score) {
	return (struct filter_detail){ (double)score->total, set->options->composite_min_score };
}

uint32_t explain_candidates_max(const struct policy_set *set, const struct model *model) {
	return policy_scorer(set, model) == &composite_policy ? set->options->composite_candidates_max
							      : UINT32_MAX;
}

/* --- what a pick moves, and putting it back --------------------------------------------------- */

struct moved {
	struct rng rng;
	void *cells; /* of the model, in the set */
	void *copy;
	size_t bytes;
};

static struct moved moved_save(const struct policy_set *set, const struct model *model) {
	size_t at = (size_t)(model->candidates - set->snapshot->candidates);
	struct moved m = { .rng = *set->rng };

	m.bytes = (model->n_candidates + model->n_reserve) * set->cell_bytes;
	m.cells = (char *)set->cells + at * set->cell_bytes;
	m.copy = malloc(m.bytes + 1);
	if (m.bytes)
		memcpy(m.copy, m.cells, m.bytes);
	return m;
}

static void moved_restore(const struct moved *m, struct policy_set *set) {
	*set->rng = m->rng;
	if (m->bytes)
		memcpy(m->cells, m->copy, m->bytes);
}

/* --- the rows ----------------------------------------------------------------------------- */

/* `has_scan`: that of the set is of this pick. */
static struct explain_row row_of(
    const struct policy_set *set, const struct pick_input *input, uint32_t r, bool has_scan) {
	const struct snapshot_row *row = &set->snapshot->rows[r];
	const struct prefix_hit *hit =
	    set->index && has_scan ? prefix_scan_find(set->scan, row->instance->slot) : NULL;

	return (struct explain_row){
		.row = r,
		.instance = row->instance,
		.score = { .total = NAN },
		.probability = -1,
		.weight = row->weight,
		.load = load_sum(set->load, row->instance->slot),
		.cached_tokens = hit ? choice_cached_tokens(input->demand, hit, row->instance) : 0,
	};
}

/* Equal ones stay in the order of the snapshot. */
static int row_cmp(const void *one, const void *other, void *scorer) {
	const struct explain_row *a = one, *b = other;

	if (explain_is_better(scorer, &a->score, &b->score))
		return -1;
	if (explain_is_better(scorer, &b->score, &a->score))
		return 1;
	return a->row < b->row ? -1 : 1;
}

/* Those between stay in order. */
static void bring_forward(struct explain_row *rows, uint32_t to, uint32_t from) {
	struct explain_row row = rows[from];

	assert(to <= from);
	memmove(&rows[to + 1], &rows[to], (from - to) * sizeof(row));
	rows[to] = row;
}

static uint32_t find_row(const struct explain_row *rows, uint32_t from, uint32_t n, uint32_t row) {
	while (from < n && rows[from].row != row)
		from++;
	return from;
}

/*
 * Brings the row of each further pick to where it belongs; rows[0] is picked. Leaving one out can open
 * the next place, and others' load and judgements of health move meanwhile, so that such a pick may be
 * somebody who is not among the rows: then without that one, too.
 */
static void order_by_picks(struct policy_set *set, const struct pick_input *input, struct explain_row *rows,
    uint32_t n, const struct moved *moved) {
	uint32_t n_ranked = (uint32_t)size_min(n, EXPLAIN_RANKED_MAX);
	uint16_t *tried = malloc((input->n_tried + PICKS_MAX + 1) * sizeof(*tried));
	struct pick_input next = *input;
	struct pick_result pick;

	if (input->n_tried)
		memcpy(tried, input->tried, input->n_tried * sizeof(*tried));
	next.tried = tried;
	tried[next.n_tried++] = rows[0].instance->slot;
	for (uint32_t k = 1, n_picks = 0; k < n_ranked && n_picks < PICKS_MAX; n_picks++) {
		moved_restore(moved, set);
		if (policy_pick(set, &next, &pick))
			break;
		tried[next.n_tried++] = pick.instance->slot;
		uint32_t at = find_row(rows, k, n, pick.row);

		if (at < n)
			bring_forward(rows, k++, at);
	}
	free(tried);
}

/* How likely it is drawn, against the others' alike; negative: this pick does not leave it to chance. */
static double likelihood_of(
    const struct explanation *e, const struct candidate *c, const struct policy_score *score) {
	if (e->reason == PICK_LAST_RESORT)
		return c->weight;
	if (e->policy == &random_pick_policy)
		return 1;
	if (e->scorer != &weighted_random_policy)
		return -1;
	if (isnan(score->total))
		return e->n_eligible == 1; /* not drawn: there is nobody else, or it is not of the class */
	return (double)score->total;
}

static void list_eligible(struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick, struct explanation *e) {
	double sum = 0;

	for (uint32_t i = 0; i < e->n_eligible; i++) {
		const struct candidate *c = &input->model->candidates[set->eligible[i]];

		e->rows[i] = row_of(set, input, c->row, true);
		e->rows[i].score = set->scores[i];
		e->rows[i].probability = likelihood_of(e, c, &set->scores[i]);
		sum += e->rows[i].probability;
	}
	for (uint32_t i = 0; i < e->n_eligible; i++)
		e->rows[i].probability = sum > 0 ? e->rows[i].probability / sum : -1;
	assert(pick->at < e->n_eligible);
	bring_forward(e->rows, 0, pick->at);
	if (e->has_scores)
		qsort_r(e->rows + 1, e->n_eligible - 1, sizeof(*e->rows), row_cmp, (void *)e->scorer);
}

/* Those whose scores are too low, and those beyond so many: they stand behind the others, best first. */
static void leave_out(const struct policy_set *set, const struct model *model, struct explanation *e) {
	e->n_scored = e->n_eligible;
	for (uint32_t i = e->n_scored; e->has_scores && i-- > 1;) {
		if (!explain_is_below(set, model, &e->rows[0].score, &e->rows[i].score))
			continue;
		e->rows[i].codes = 1u << FILTER_BELOW_MIN_SCORE;
		e->rows[i].details[FILTER_BELOW_MIN_SCORE] = explain_below(set, &e->rows[i].score);
		e->n_eligible = i;
	}
	if (e->has_scores)
		e->n_eligible = (uint32_t)size_min(e->n_eligible, explain_candidates_max(set, model));
}

static void list_rejected(struct policy_set *set, const struct pick_input *input, struct explanation *e) {
	const struct snapshot *snap = set->snapshot;
	bool *is_listed = calloc(snap->n_rows + 1, sizeof(*is_listed));
	struct filter_ask ask = filter_ask(set, input);

	for (uint32_t i = 0; !e->outcome && i < e->n_scored; i++)
		is_listed[e->rows[i].row] = true;
	for (uint32_t r = 0; r < snap->n_rows; r++) {
		if (is_listed[r] || snap->rows[r].primary != r)
			continue;
		struct explain_row *row = &e->rows[e->n_rows++];

		*row = row_of(set, input, r, !e->outcome);
		row->codes = filter_codes(&ask, r);
		filter_details(&ask, r, row->codes, row->details);
	}
	free(is_listed);
}

void policy_explain(struct policy_set *set, const struct pick_input *input, struct explanation *e) {
	struct moved moved = moved_save(set, input->model);
	struct pick_result pick;

	*e = (struct explanation){ .policy = policy_of(set, input->model),
		.scorer = policy_scorer(set, input->model),
		.ring = PICK_RING_NONE,
		.is_panic = input->model->is_panic };
	e->rows = malloc((set->snapshot->n_rows + 1) * sizeof(*e->rows));
	e->outcome = policy_pick(set, input, &pick);
	if (!e->outcome) {
		e->reason = pick.reason;
		e->ring = pick.ring;
		e->n_rows = e->n_eligible = pick.n_eligible;
		e->has_scores = explain_has_scores(set, &pick);
		list_eligible(set, input, &pick, e);
		leave_out(set, input->model, e);
	}
	list_rejected(set, input, e);
	if (!e->outcome && !e->has_scores)
		order_by_picks(set, input, e->rows, e->n_eligible, &moved);
	moved_restore(&moved, set);
	free(moved.copy);
}

void policy_explanation_free(struct explanation *e) {
	free(e->rows);
	e->rows = NULL;
}
