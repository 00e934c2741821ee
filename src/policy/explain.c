#include "policy/explain.h"

#include <stdlib.h>

#include "policy/choice.h"

/* --- codes -------------------------------------------------------------------------------- */

enum filter_code explain_first(uint32_t codes) {
	return codes ? (enum filter_code)__builtin_ctz(codes) : FILTER_NONE;
}

/* --- scores ------------------------------------------------------------------------------- */

bool explain_is_better(
    const struct policy *policy, const struct policy_score *score, const struct policy_score *than) {
	return policy->is_cost ? score->total < than->total : score->total > than->total;
}

/* One that scores may have had nothing to go by, and gone round. */
bool explain_has_scores(
    const struct policy_set *set, const struct policy *policy, const struct pick_result *pick) {
	for (uint32_t i = 0; i < pick->n_eligible; i++)
		if (set->scores[i].total != 0)
			return true;
	return policy->parts[0] && pick->n_eligible > 1 && pick->reason != PICK_ROUND_ROBIN &&
	    pick->reason != PICK_LAST_RESORT;
}

bool explain_is_below(const struct policy_set *set, const struct model *model,
    const struct policy_score *picked, const struct policy_score *score) {
	double min = set->options->composite_min_score;

	/* Below 0: size_class has left it out, and nobody has scored it. */
	return policy_scorer(set, model) == &composite_policy && (double)picked->total >= min &&
	    score->total >= 0 && (double)score->total < min;
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
		.probability = -1,
		.weight = row->weight,
		.load = load_sum(set->load, row->instance->slot),
		.cached_tokens = hit ? choice_cached_tokens(input->demand, hit, row->instance) : 0,
	};
}

/* Equal ones stay in the order of the snapshot. */
static int row_cmp(const void *one, const void *other, void *policy) {
	const struct explain_row *a = one, *b = other;

	if (explain_is_better(policy, &a->score, &b->score))
		return -1;
	if (explain_is_better(policy, &b->score, &a->score))
		return 1;
	return a->row < b->row ? -1 : 1;
}

static void swap_rows(struct explain_row *a, struct explain_row *b) {
	struct explain_row row = *a;

	*a = *b;
	*b = row;
}

/* Brings the row of each further pick to where it belongs; rows[0] is picked. */
static void order_by_picks(struct policy_set *set, const struct pick_input *input, struct explain_row *rows,
    uint32_t n, const struct moved *moved) {
	uint32_t n_ranked = (uint32_t)size_min(n, EXPLAIN_RANKED_MAX);
	uint16_t *tried = malloc((input->n_tried + n_ranked) * sizeof(*tried));
	struct pick_input next = *input;
	struct pick_result pick;

	if (input->n_tried)
		memcpy(tried, input->tried, input->n_tried * sizeof(*tried));
	next.tried = tried;
	for (uint32_t k = 1; k < n_ranked; k++) {
		uint32_t at = k;

		tried[next.n_tried++] = rows[k - 1].instance->slot;
		moved_restore(moved, set);
		if (policy_pick(set, &next, &pick))
			break;
		while (at < n && rows[at].row != pick.row)
			at++;
		assert(at < n);
		swap_rows(&rows[k], &rows[at]);
	}
	free(tried);
}

/* Drawn by weight, without regard to anything else. */
static bool is_drawn(const struct explanation *e) {
	return e->policy == &random_pick_policy || e->reason == PICK_LAST_RESORT;
}

static void list_eligible(struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick, struct explanation *e) {
	double weight = 0;

	for (uint32_t i = 0; i < e->n_eligible; i++)
		weight += input->model->candidates[set->eligible[i]].weight;
	for (uint32_t i = 0; i < e->n_eligible; i++) {
		const struct candidate *c = &input->model->candidates[set->eligible[i]];

		e->rows[i] = row_of(set, input, c->row, true);
		e->rows[i].score = set->scores[i];
		if (is_drawn(e))
			e->rows[i].probability = c->weight / weight;
	}
	assert(pick->at < e->n_eligible);
	swap_rows(&e->rows[0], &e->rows[pick->at]);
	if (e->has_scores)
		qsort_r(e->rows + 1, e->n_eligible - 1, sizeof(*e->rows), row_cmp, (void *)e->policy);
}

/* Those whose scores are too low, and those beyond so many: they stand behind the others, best first. */
static void leave_out(const struct policy_set *set, const struct model *model, struct explanation *e) {
	e->n_scored = e->n_eligible;
	for (uint32_t i = e->n_scored; e->has_scores && i-- > 1;) {
		if (!explain_is_below(set, model, &e->rows[0].score, &e->rows[i].score))
			continue;
		e->rows[i].codes = 1u << FILTER_BELOW_MIN_SCORE;
		e->n_eligible = i;
	}
	if (e->has_scores)
		e->n_eligible = (uint32_t)size_min(e->n_eligible, explain_candidates_max(set, model));
}

static void list_rejected(struct policy_set *set, const struct pick_input *input, struct explanation *e) {
	const struct snapshot *snap = set->snapshot;
	bool *is_listed = calloc(snap->n_rows + 1, sizeof(*is_listed));

	for (uint32_t i = 0; i < e->n_scored; i++)
		is_listed[e->rows[i].row] = true;
	for (uint32_t r = 0; r < snap->n_rows; r++) {
		if (is_listed[r] || snap->rows[r].primary != r)
			continue;
		e->rows[e->n_rows] = row_of(set, input, r, !e->outcome);
		e->rows[e->n_rows++].codes = filter_codes(set, input, r);
	}
	free(is_listed);
}

void policy_explain(struct policy_set *set, const struct pick_input *input, struct explanation *e) {
	struct moved moved = moved_save(set, input->model);
	struct pick_result pick;

	*e = (struct explanation){ .policy = policy_of(set, input->model), .ring = PICK_RING_NONE };
	e->rows = malloc((set->snapshot->n_rows + 1) * sizeof(*e->rows));
	e->outcome = policy_pick(set, input, &pick);
	if (!e->outcome) {
		e->reason = pick.reason;
		e->ring = pick.ring;
		e->n_rows = e->n_eligible = pick.n_eligible;
		e->has_scores = explain_has_scores(set, e->policy, &pick);
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
