#include "policy/filter.h"

static const char *const words[FILTER_CODES] = {
	[FILTER_NONE] = "eligible",
	[FILTER_DISABLED] = "disabled",
	[FILTER_DRAINING] = "draining",
	[FILTER_LOADING] = "loading",
	[FILTER_MODEL_ABSENT] = "model_absent",
	[FILTER_CAPABILITY_MISSING] = "capability_missing",
	[FILTER_FEATURE_MISSING] = "feature_missing",
	[FILTER_CONTEXT_TOO_SMALL] = "context_too_small",
	[FILTER_TENANT_DENIED] = "tenant_denied",
	[FILTER_CLEARANCE_LOW] = "clearance_low",
	[FILTER_RESIDENCY_MISSING] = "residency_missing",
	[FILTER_REGION_DENIED] = "region_denied",
	[FILTER_BREAKER_OPEN] = "breaker_open",
	[FILTER_UNHEALTHY] = "unhealthy",
	[FILTER_AVOIDED] = "avoided",
	[FILTER_AT_CAPACITY] = "at_capacity",
	[FILTER_SLO_UNATTAINABLE] = "slo_unattainable",
	[FILTER_OVER_COST] = "over_cost",
	[FILTER_ALREADY_TRIED] = "already_tried",
	[FILTER_BELOW_MIN_SCORE] = "below_min_score",
};

const char *filter_text(enum filter_code code) {
	assert(code < FILTER_CODES);
	return words[code];
}

static bool is_tried(const struct pick_input *input, uint16_t slot) {
	for (uint32_t i = 0; i < input->n_tried; i++)
		if (input->tried[i] == slot)
			return true;
	return false;
}

/* Part of a model's candidates, and whether those that failed lately are wanted, or the others. */
struct range {
	uint32_t begin, end;
	bool are_avoided;
};

/* Makes the untried ones of the range the eligible ones. */
static void filter_range(
    struct policy_set *set, const struct pick_input *input, struct range range, struct filtered *f) {
	uint64_t now_ms = input->now_ns / 1000000u;

	for (uint32_t i = range.begin; i < range.end; i++) {
		const struct candidate *c = &input->model->candidates[i];

		if (instance_is_avoided(c->instance, now_ms) != range.are_avoided || is_tried(input, c->slot))
			continue;
		set->eligible[f->n++] = i;
		f->weight += c->weight;
	}
}

/* Each range only when those before it left nobody. */
struct filtered filter_all(struct policy_set *set, const struct pick_input *input) {
	const struct model *model = input->model;
	uint32_t end = model->n_candidates, end_reserve = end + model->n_reserve;
	struct filtered f = { .reason = PICK_REASONS };

	filter_range(set, input, (struct range){ 0, end, false }, &f);
	if (f.n == 1)
		f.reason = PICK_ONLY_CANDIDATE;
	if (f.n)
		return f;
	f.reason = PICK_ALL_AVOIDED;
	filter_range(set, input, (struct range){ 0, end, true }, &f);
	if (f.n)
		return f;
	f.reason = PICK_LAST_RESORT;
	filter_range(set, input, (struct range){ end, end_reserve, false }, &f);
	if (!f.n)
		filter_range(set, input, (struct range){ end, end_reserve, true }, &f);
	return f;
}
