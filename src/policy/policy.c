#include "policy/policy.h"

#include <stdlib.h>

#include "policy/choice.h"

const struct policy *const policy_table[] = {
	&round_robin_policy,
	&least_load_policy,
	&power_of_two_policy,
	&random_pick_policy,
	&rendezvous_hash_policy,
	NULL,
};

const struct policy *policy_find(struct slice name) {
	for (const struct policy *const *p = policy_table; *p; p++)
		if (slice_eq(slice_of((*p)->name), name))
			return *p;
	return NULL;
}

bool policy_wants_session(const struct policy *policy) {
	return policy->wants_session;
}

const char *pick_reason_text(enum pick_reason reason) {
	static const char *const text[PICK_REASONS] = {
		[PICK_ONLY_CANDIDATE] = "only_candidate",
		[PICK_ROUND_ROBIN] = "round_robin",
		[PICK_LEAST_LOAD] = "least_load",
		[PICK_POWER_OF_TWO] = "power_of_two",
		[PICK_RANDOM] = "random",
		[PICK_RENDEZVOUS_HASH] = "rendezvous_hash",
		[PICK_ALL_AVOIDED] = "all_avoided",
		[PICK_LAST_RESORT] = "last_resort",
	};
	assert(reason < PICK_REASONS);
	return text[reason];
}

void policy_set_init(
    struct policy_set *set, const struct policy *policy, const struct load *load, struct rng *rng) {
	*set = (struct policy_set){ .policy = policy, .load = load, .rng = rng };
}

void policy_set_deinit(struct policy_set *set) {
	snapshot_unref(&set->snapshot);
	free(set->cells);
	free(set->eligible);
	*set = (struct policy_set){ .policy = NULL };
}

/* The cells of a model's candidates; `cells` are those of all candidates of `snap`. */
static void *cells_of(
    const struct policy *policy, const struct snapshot *snap, void *cells, const struct model *model) {
	size_t at = (size_t)(model->candidates - snap->candidates);

	assert(at + model->n_candidates <= snap->n_candidates);
	return (char *)cells + at * policy->cell_bytes;
}

static bool are_candidates_eq(const struct model *a, const struct model *b) {
	if (a->n_candidates != b->n_candidates)
		return false;
	for (uint32_t i = 0; i < a->n_candidates; i++)
		if (a->candidates[i].instance != b->candidates[i].instance ||
		    a->candidates[i].weight != b->candidates[i].weight)
			return false;
	return true;
}

/* The next snapshot on its way into a set. */
struct adoption {
	const struct policy_set *set;
	const struct snapshot *snap;
	void *cells;
	uint16_t at[INSTANCE_SLOTS_MAX]; /* for struct past; what earlier models left in it does no harm */
};

_Static_assert(INSTANCE_SLOTS_MAX <= UINT16_MAX, "positions of candidates fit");

/* `old` is the same model in the snapshot of the set, or NULL. */
static void adopt_model(struct adoption *a, const struct model *model, const struct model *old) {
	const struct policy *policy = a->set->policy;
	void *own = cells_of(policy, a->snap, a->cells, model);
	struct past past = { .model = old, .at = a->at };

	if (model->n_candidates == 0 || policy->cell_bytes == 0)
		return;
	if (!old || old->n_candidates == 0) {
		policy->init(own, model, a->set->rng);
		return;
	}
	past.cells = cells_of(policy, a->set->snapshot, a->set->cells, old);
	if (are_candidates_eq(model, old)) {
		memcpy(own, past.cells, model->n_candidates * policy->cell_bytes);
		return;
	}
	for (uint32_t i = 0; i < old->n_candidates; i++)
		a->at[old->candidates[i].slot] = (uint16_t)i;
	policy->carry(own, model, &past, a->set->rng);
}

void policy_set_adopt(struct policy_set *set, struct snapshot *snap) {
	const struct snapshot *old = set->snapshot;
	void *cells = calloc(1, snap->n_candidates * set->policy->cell_bytes + 1);
	struct adoption a = { .set = set, .snap = snap, .cells = cells };

	adopt_model(&a, &snap->any, old ? &old->any : NULL);
	for (uint32_t i = 0; i < snap->n_models; i++) {
		const struct model *model = &snap->models[i];

		adopt_model(&a, model, old ? snapshot_model(old, model->name) : NULL);
	}
	free(set->cells);
	set->cells = cells;
	/* No model has more candidates than there are rows. */
	free(set->eligible);
	set->eligible = malloc((snap->n_rows + 1) * sizeof(*set->eligible));

	snapshot_ref(snap);
	snapshot_unref(&set->snapshot);
	set->snapshot = snap;
}

static bool is_tried(const struct pick_input *input, uint16_t slot) {
	for (uint32_t i = 0; i < input->n_tried; i++)
		if (input->tried[i] == slot)
			return true;
	return false;
}

/* Makes the untried ones from `begin` to `end` that are, or are not, avoided the eligible ones. */
static void filter(struct choice *choice, uint32_t *eligible, const struct pick_input *input, uint32_t begin,
    uint32_t end, bool are_avoided) {
	uint64_t weight = 0;
	uint32_t n = 0;

	for (uint32_t i = begin; i < end; i++) {
		const struct candidate *c = &input->model->candidates[i];

		if (instance_is_avoided(c->instance, input->now_ms) != are_avoided ||
		    is_tried(input, c->slot))
			continue;
		eligible[n++] = i;
		weight += c->weight;
	}
	choice->n = n;
	choice->weight = weight;
}

/* Each step only when those before it left nobody. Says for what reason the choice is among who is left. */
static void filter_all(struct choice *choice, uint32_t *eligible, const struct pick_input *input) {
	const struct model *model = input->model;
	uint32_t end = model->n_candidates;

	filter(choice, eligible, input, 0, end, false);
	if (choice->n) {
		if (choice->n == 1)
			choice->reason = PICK_ONLY_CANDIDATE;
		return;
	}
	choice->reason = PICK_ALL_AVOIDED;
	filter(choice, eligible, input, 0, end, true);
	if (choice->n)
		return;
	choice->reason = PICK_LAST_RESORT;
	filter(choice, eligible, input, end, end + model->n_reserve, false);
	if (choice->n == 0)
		filter(choice, eligible, input, end, end + model->n_reserve, true);
}

static uint32_t choose(const struct policy *policy, struct choice *choice) {
	enum pick_reason reason = choice->reason;
	uint32_t i;

	if (choice->n == 1)
		return 0;
	if (reason == PICK_LAST_RESORT)
		return choice_draw(choice, UINT32_MAX);
	i = policy->pick(choice);
	if (reason == PICK_ALL_AVOIDED)
		choice->reason = reason;
	return i;
}

int policy_pick(struct policy_set *set, const struct pick_input *input, struct pick_result *result_out) {
	const struct policy *policy = set->policy;
	const struct model *model = input->model;
	struct choice choice = {
		.candidates = model->candidates,
		.eligible = set->eligible,
		.load = set->load,
		.rng = set->rng,
		.session = input->session,
		.reason = policy->reason,
	};

	assert(set->snapshot && model->n_candidates + model->n_reserve <= set->snapshot->n_rows);
	if (model->n_candidates + model->n_reserve == 0)
		return PICK_E_NONE_EXIST;
	choice.cells = cells_of(policy, set->snapshot, set->cells, model);
	filter_all(&choice, set->eligible, input);
	if (choice.n == 0)
		return PICK_E_NONE_LEFT;

	uint32_t i = choose(policy, &choice);
	assert(i < choice.n);
	const struct candidate *picked = choice_candidate(&choice, i);
	*result_out = (struct pick_result){
		.instance = picked->instance,
		.row = picked->row,
		.reason = choice.reason,
		.n_candidates = model->n_candidates,
		.n_eligible = choice.n,
	};
	return 0;
}
