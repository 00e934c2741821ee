#include "policy/precedence.h"

static const struct candidate *eligible_at(
    const struct policy_set *set, const struct pick_input *input, uint32_t i) {
	return &input->model->candidates[set->eligible[i]];
}

static uint32_t priority_at(const struct policy_set *set, const struct pick_input *input, uint32_t i) {
	return traits_priority(snapshot_traits(set->snapshot, eligible_at(set, input, i)));
}

void precedence_narrow(struct policy_set *set, const struct pick_input *input, struct filtered *f) {
	uint32_t n = f->n, highest = 0;

	if (!(input->model->least.known >> TRAIT_PRIORITY & 1))
		return;
	for (uint32_t i = 0; i < n; i++)
		highest = (uint32_t)u64_max(highest, priority_at(set, input, i));
	f->n = 0;
	f->weight = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (priority_at(set, input, i) < highest)
			continue;
		f->weight += eligible_at(set, input, i)->weight;
		set->eligible[f->n++] = set->eligible[i];
	}
	assert(f->n > 0 || n == 0);
}
