#include "policy/policy.h"

#include <math.h>
#include <stdlib.h>

#include "fleet/label.h"
#include "policy/choice.h"
#include "policy/filter.h"
#include "policy/locality.h"

/* English text, and a usual chat, until usage says more. */
#define TOKENS_PER_BYTE 0.25
#define PROMPT_TOKENS   1024
#define OUTPUT_TOKENS   256

const struct policy *const policy_table[] = {
	&cache_aware_policy,
	&round_robin_policy,
	&least_load_policy,
	&power_of_two_policy,
	&random_pick_policy,
	&weighted_random_policy,
	&least_latency_policy,
	&consistent_hash_policy,
	&rendezvous_hash_policy,
	&session_policy,
	&bucket_policy,
	&size_class_policy,
	&composite_policy,
	NULL,
};

const struct policy *policy_find(struct slice name) {
	for (const struct policy *const *p = policy_table; *p; p++)
		if (slice_eq(slice_of((*p)->name), name) ||
		    ((*p)->alias && slice_eq(slice_of((*p)->alias), name)))
			return *p;
	return NULL;
}

const char *policy_name(const struct policy *policy) {
	return policy->name;
}

const char *policy_part_text(const struct policy *policy, unsigned part) {
	assert(part < POLICY_PARTS);
	return policy->parts[part];
}

bool policy_is_cost(const struct policy *policy) {
	return policy->is_cost;
}

const char *pick_reason_text(enum pick_reason reason) {
	static const char *const text[PICK_REASONS] = {
		[PICK_ONLY_CANDIDATE] = "only_candidate",
		[PICK_ROUND_ROBIN] = "round_robin",
		[PICK_LEAST_LOAD] = "least_loaded",
		[PICK_POWER_OF_TWO] = "power_of_two",
		[PICK_RANDOM] = "random",
		[PICK_RENDEZVOUS_HASH] = "rendezvous_hash",
		[PICK_WEIGHTED_RANDOM] = "weighted_random",
		[PICK_CONSISTENT_HASH] = "consistent_hash",
		[PICK_LOWEST_TTFT] = "lowest_ttft",
		[PICK_STICKY_HIT] = "sticky_hit",
		[PICK_STICKY_NEW] = "sticky_new",
		[PICK_STICKY_SPILL] = "sticky_spill",
		[PICK_BUCKET] = "bucket",
		[PICK_SIZE_CLASS] = "size_class",
		[PICK_BEST_SCORE] = "best_score",
		[PICK_PREFIX_HIT] = "prefix_hit",
		[PICK_RESPONSE_OWNER] = "response_owner",
		[PICK_ALL_AVOIDED] = "all_avoided",
		[PICK_LAST_RESORT] = "last_resort",
	};
	assert(reason < PICK_REASONS);
	return text[reason];
}

const char *pick_ring_text(enum pick_ring ring) {
	static const char *const text[PICK_RINGS] = {
		[PICK_RING_ZONE] = "local_zone",
		[PICK_RING_REGION] = "spill_region",
		[PICK_RING_FAR] = "spill_far",
		[PICK_RING_NONE] = "",
	};
	assert(ring < PICK_RINGS);
	return text[ring];
}

/* --- the set ------------------------------------------------------------------------------ */

void policy_set_init(struct policy_set *set) {
	set->lessons = malloc(LABELS * sizeof(*set->lessons));
	for (uint32_t i = 0; i < LABELS; i++)
		set->lessons[i] = (struct policy_lesson){ TOKENS_PER_BYTE, PROMPT_TOKENS, OUTPUT_TOKENS };
	set->queues = malloc(INSTANCE_SLOTS_MAX * sizeof(*set->queues));
	for (uint32_t i = 0; i < INSTANCE_SLOTS_MAX; i++)
		list_init(&set->queues[i]);
	set->scan = calloc(1, sizeof(*set->scan));
}

/* Of the snapshot in hand, if there is one. */
static void free_tables(struct policy_set *set) {
	for (uint32_t i = 0; set->snapshot && i < snapshot_n_choices(set->snapshot); i++)
		free(set->tables[i]);
	free(set->tables);
}

void policy_set_deinit(struct policy_set *set) {
	free_tables(set);
	snapshot_unref(&set->snapshot);
	locality_deinit(set);
	free(set->policies);
	free(set->cells);
	free(set->eligible);
	free(set->scores);
	free(set->scan);
	free(set->queues);
	free(set->lessons);
	*set = (struct policy_set){ .options = NULL };
}

static size_t index_of(const struct snapshot *snap, const struct model *model) {
	size_t i = snapshot_choice_index(snap, model);

	assert(i < snapshot_n_choices(snap));
	return i;
}

const struct policy *policy_of(const struct policy_set *set, const struct model *model) {
	return set->policies[index_of(set->snapshot, model)];
}

const struct policy *policy_scorer(const struct policy_set *set, const struct model *model) {
	const struct policy *policy = policy_of(set, model);

	return policy->scorer ? policy->scorer(set->options) : policy;
}

bool policy_wants_session(const struct policy_set *set, const struct model *model) {
	return policy_of(set, model)->wants_session;
}

bool policy_wants_prompt(const struct policy_set *set, const struct model *model) {
	return policy_of(set, model)->wants_prompt;
}

double policy_tokens_per_byte(const struct policy_set *set, const struct model *model) {
	return set->lessons[model->label].tokens_per_byte;
}

uint32_t policy_output_tokens(const struct policy_set *set, const struct model *model) {
	return (uint32_t)set->lessons[model->label].output_tokens;
}

/* --- the next snapshot -------------------------------------------------------------------- */

/* What the labels of those who serve it say: the first of them that names a policy counts. */
static const struct policy *labelled_policy(const struct snapshot *snap, const struct model *model) {
	const struct policy *first = NULL;
	uint32_t row = SNAPSHOT_NO_ROW;

	if (!(model->least.known >> TRAIT_POLICY & 1) || !model->name.n)
		return NULL;
	for (uint32_t i = 0; i < model->n_candidates + model->n_reserve; i++) {
		const struct candidate *c = &model->candidates[i];
		const struct traits *t = snapshot_traits(snap, c);
		const struct policy *policy = t->policy.n && c->row < row ? policy_find(t->policy) : NULL;

		if (policy) {
			first = policy;
			row = c->row;
		}
	}
	return first;
}

static const struct policy *named_policy(
    const struct policy_options *options, const struct snapshot *snap, const struct model *model) {
	const struct policy *labelled;

	if (model->pool == POOL_FIRST && options->prefill)
		return options->prefill;
	if (model->pool == POOL_DECODE && options->decode)
		return options->decode;
	for (size_t i = 0; i < options->n_models; i++)
		if (slice_eq(options->models[i].model, model->name))
			return options->models[i].policy;
	labelled = labelled_policy(snap, model);
	return labelled ? labelled : options->policy;
}

/* Which policy picks for which model of `snap`, by index. */
static const struct policy **choose_policies(
    const struct policy_options *options, const struct snapshot *snap, size_t *cell_bytes_out) {
	uint32_t n = snapshot_n_choices(snap);
	const struct policy **policies = calloc(n, sizeof(*policies));

	*cell_bytes_out = 0;
	for (uint32_t i = 0; i < n; i++) {
		policies[i] = named_policy(options, snap, snapshot_choice(snap, i));
		if (policies[i]->cell_bytes > *cell_bytes_out)
			*cell_bytes_out = policies[i]->cell_bytes;
	}
	return policies;
}

/* The cells of a model's candidates; `cells` are those of all candidates of `snap`, `bytes` apart. */
static void *cells_of(const struct snapshot *snap, void *cells, size_t bytes, const struct model *model) {
	size_t at = (size_t)(model->candidates - snap->candidates);

	assert(at + model->n_candidates <= snap->n_candidates);
	return (char *)cells + at * bytes;
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
	void **tables;
	void *cells;
	size_t cell_bytes;
	bool is_retuned;                 /* the options are others: tables are not taken over */
	uint16_t at[INSTANCE_SLOTS_MAX]; /* for struct past; what earlier models left in it does no harm */
};

_Static_assert(INSTANCE_SLOTS_MAX <= UINT16_MAX, "positions of candidates fit");

/* The candidates are those of `old`, and weigh what they did, not only against each other. */
static bool are_rows_eq(const struct adoption *a, const struct model *model, const struct model *old) {
	if (!are_candidates_eq(model, old))
		return false;
	for (uint32_t i = 0; i < model->n_candidates; i++) {
		const struct snapshot_row *row = &a->snap->rows[model->candidates[i].row];
		const struct snapshot_row *was = &a->set->snapshot->rows[old->candidates[i].row];

		if (row->weight != was->weight || row->share != was->share)
			return false;
	}
	return true;
}

/* A table that is still good is taken over. */
static void adopt_table(
    struct adoption *a, const struct policy *policy, const struct model *model, const struct model *old) {
	void **own = &a->tables[index_of(a->snap, model)];

	if (!policy->build || model->n_candidates == 0)
		return;
	if (old && !policy->builds_always && !a->is_retuned && are_rows_eq(a, model, old)) {
		void **was = &a->set->tables[index_of(a->set->snapshot, old)];

		*own = *was;
		*was = NULL;
		return;
	}
	*own = policy->build(a->snap, model, a->set->options);
}

/* The same model in the snapshot of the set; NULL: there is none that this policy has picked for. */
static const struct model *model_before(
    const struct adoption *a, const struct policy *policy, const struct model *model) {
	const struct snapshot *snap = a->set->snapshot;
	const struct model *old = snap ? snapshot_counterpart(snap, model) : NULL;

	return old && policy_of(a->set, old) == policy ? old : NULL;
}

/* `old` is what model_before() says. */
static void adopt_model(
    struct adoption *a, const struct policy *policy, const struct model *model, const struct model *old) {
	const struct policy_set *set = a->set;
	void *own = cells_of(a->snap, a->cells, a->cell_bytes, model);
	struct past past = { .model = old, .at = a->at };

	adopt_table(a, policy, model, old);
	if (model->n_candidates == 0 || policy->cell_bytes == 0)
		return;
	if (!old || old->n_candidates == 0) {
		policy->init(own, model, set->rng);
		return;
	}
	past.cells = cells_of(set->snapshot, set->cells, set->cell_bytes, old);
	if (are_candidates_eq(model, old)) {
		memcpy(own, past.cells, model->n_candidates * policy->cell_bytes);
		return;
	}
	for (uint32_t i = 0; i < old->n_candidates; i++)
		a->at[old->candidates[i].slot] = (uint16_t)i;
	policy->carry(own, model, &past, set->rng);
}

/* Who has the slots now: what the index holds of others before them is nobody's. */
static void adopt_owners(struct prefix_index *index, const struct snapshot *snap) {
	for (uint32_t r = 0; r < snap->n_rows; r++)
		choice_own(index, snap->rows[r].instance);
}

/* Room for a pick among all the rows; no model has more candidates. */
static void adopt_scratch(struct policy_set *set, uint32_t n_rows) {
	free(set->eligible);
	free(set->scores);
	set->eligible = malloc((n_rows + 1) * sizeof(*set->eligible));
	set->scores = malloc((n_rows + 1) * sizeof(*set->scores));
	set->n_eligible = 0;
}

static void adopt_all(struct adoption *a, const struct policy *const *policies) {
	const struct snapshot *snap = a->snap;

	a->cells = calloc(1, snap->n_candidates * a->cell_bytes + 1);
	a->tables = calloc(snapshot_n_choices(snap), sizeof(*a->tables));
	for (uint32_t i = 0; i < snapshot_n_choices(snap); i++) {
		const struct model *model = snapshot_choice(snap, i);

		adopt_model(a, policies[i], model, model_before(a, policies[i], model));
	}
}

static void adopt(struct policy_set *set, struct snapshot *snap, bool is_retuned) {
	struct adoption a = { .set = set, .snap = snap, .is_retuned = is_retuned };
	const struct policy **policies = choose_policies(set->options, snap, &a.cell_bytes);

	adopt_all(&a, policies);
	free_tables(set);
	free(set->cells);
	free(set->policies);
	set->tables = a.tables;
	set->cells = a.cells;
	set->cell_bytes = a.cell_bytes;
	set->policies = policies;
	adopt_scratch(set, snap->n_rows);
	locality_adopt(set, snap);
	if (set->index)
		adopt_owners(set->index, snap);

	snapshot_ref(snap);
	snapshot_unref(&set->snapshot);
	set->snapshot = snap;
}

void policy_set_adopt(struct policy_set *set, struct snapshot *snap) {
	adopt(set, snap, false);
}

void policy_set_retune(struct policy_set *set, const struct policy_options *options) {
	set->options = options;
	if (set->snapshot)
		adopt(set, set->snapshot, true);
}

/* --- a pick ------------------------------------------------------------------------------- */

/* Who has how much of the prompt in its cache, when the policy asks for it. */
static void find_prefix(struct policy_set *set, const struct policy *policy, const struct pick_input *input) {
	const struct demand *demand = input->demand;
	bool is_wanted = choice_wants_index(policy, input->model);

	if (set->index)
		prefix_index_match(set->index, demand->keys, is_wanted ? demand->n_keys : 0, set->scan);
}

/* Nobody has been compared yet. */
static void clear_scores(struct policy_score *scores, uint32_t n) {
	memset(scores, 0, n * sizeof(*scores));
	for (uint32_t i = 0; i < n; i++)
		scores[i].total = NAN;
}

static uint32_t choose(struct policy_set *set, const struct policy *policy, struct choice *choice) {
	enum pick_reason reason = choice->reason;
	uint32_t i;

	clear_scores(set->scores, choice->n);
	if (choice->n == 1)
		return 0;
	if (reason == PICK_LAST_RESORT)
		return choice_draw(choice, UINT32_MAX);
	choice->reason = policy->reason;
	i = policy->pick(choice);
	if (reason == PICK_ALL_AVOIDED)
		choice->reason = reason;
	return i;
}

int policy_pick(struct policy_set *set, const struct pick_input *input, struct pick_result *result_out) {
	const struct model *model = input->model;
	const struct policy *policy;
	struct filtered filtered;

	assert(set->snapshot && model->n_candidates + model->n_reserve <= set->snapshot->n_rows);
	set->n_eligible = 0;
	if (model->n_candidates + model->n_reserve == 0)
		return PICK_E_NONE_EXIST;
	policy = policy_of(set, model);
	find_prefix(set, policy, input);
	filtered = filter_all(set, input);
	set->n_eligible = filtered.n;
	if (filtered.n == 0)
		return filter_outcome(filtered.refused);

	struct choice choice = {
		.snapshot = set->snapshot,
		.model = model,
		.candidates = model->candidates,
		.eligible = set->eligible,
		.n_candidates = model->n_candidates,
		.n = filtered.n,
		.weight = filtered.weight,
		.demand = input->demand,
		.options = set->options,
		.load = set->load,
		.scan = set->scan,
		.sessions = set->sessions,
		.rng = set->rng,
		.now_ns = input->now_ns,
		.prompt_tokens = set->lessons[model->label].prompt_tokens,
		.table = set->tables[index_of(set->snapshot, model)],
		.cells = cells_of(set->snapshot, set->cells, set->cell_bytes, model),
		.scores = set->scores,
		.reason = filtered.reason,
	};
	uint32_t i = choose(set, policy, &choice);
	assert(i < choice.n);
	const struct candidate *picked = choice_candidate(&choice, i);
	*result_out = (struct pick_result){
		.instance = picked->instance,
		.traits = snapshot_traits(set->snapshot, picked),
		.row = picked->row,
		.at = i,
		.reason = choice.reason,
		.ring = locality_ring(set, input, picked),
		.last_ring = filtered.last_ring,
		.n_candidates = model->n_candidates,
		.n_eligible = choice.n,
		.n_left_out = filtered.n_left_out,
	};
	return 0;
}

uint32_t policy_cached_tokens(
    const struct policy_set *set, const struct demand *demand, const struct pick_result *pick) {
	const struct prefix_hit *hit = set->index ? prefix_scan_find(set->scan, pick->instance->slot) : NULL;

	return hit ? choice_cached_tokens(demand, hit, pick->instance) : 0;
}
