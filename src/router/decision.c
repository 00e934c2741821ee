#include "router/decision.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "fleet/label.h"
#include "policy/explain.h"

void decision_ring_init(struct decision_ring *ring, unsigned worker, uint32_t n) {
	*ring = (struct decision_ring){ .n = n, .worker = (uint16_t)worker };
	if (n)
		ring->items = calloc(n, sizeof(*ring->items));
}

void decision_ring_deinit(struct decision_ring *ring) {
	free(ring->items);
	*ring = (struct decision_ring){ .n = 0 };
}

/* A handle is the low part of the number: two requests of one ring that are so far apart never meet in it. */
static uint32_t handle_of(uint64_t number) {
	return (uint32_t)number;
}

uint32_t decision_begin(struct decision_ring *ring, struct slice id, struct slice asked) {
	struct decision *d;

	assert(decision_ring_is_on(ring));
	if (handle_of(++ring->n_begun) == DECISION_NONE)
		ring->n_begun++;
	d = &ring->items[handle_of(ring->n_begun) % ring->n];
	id = slice_head(id, DECISION_ID_MAX);
	asked = utf8_head(asked, DECISION_MODEL_MAX);
	*d = (struct decision){ .number = ring->n_begun,
		.worker = ring->worker,
		.id_n = (uint8_t)id.n,
		.asked_n = (uint8_t)asked.n };
	memcpy(d->id, id.p, id.n);
	if (asked.n)
		memcpy(d->asked, asked.p, asked.n);
	return handle_of(d->number);
}

struct decision *decision_find(struct decision_ring *ring, uint32_t handle) {
	if (!decision_ring_is_on(ring) || handle == DECISION_NONE)
		return NULL;
	struct decision *d = &ring->items[handle % ring->n];

	return d->number && handle_of(d->number) == handle ? d : NULL;
}

const struct decision *decision_at(const struct decision_ring *ring, uint32_t age) {
	if (age >= ring->n || age >= ring->n_begun)
		return NULL;
	uint64_t number = ring->n_begun - age;
	const struct decision *d = &ring->items[handle_of(number) % ring->n];

	return d->number == number ? d : NULL;
}

static struct decision_choice choice_of(const struct policy_set *set, const struct model *model, uint32_t i) {
	const struct instance *inst = model->candidates[set->eligible[i]].instance;

	return (struct decision_choice){ inst->serial, (uint16_t)inst->label, set->scores[i] };
}

/* Is the score of this one of the eligible too low beside that of the chosen one? */
static bool is_below(
    const struct decision *d, const struct policy_set *set, const struct model *model, uint32_t i) {
	return d->has_scores && explain_is_below(set, model, &d->chosen.score, &set->scores[i]);
}

/* The best of the others that were compared, in order: a walk for each of the few. */
static void list_alternatives(struct decision *d, const struct policy_set *set, const struct model *model,
    const struct pick_result *pick) {
	uint32_t best[DECISION_ALTERNATIVES];
	uint8_t n = 0;

	for (uint32_t i = 0; d->has_scores && i < pick->n_eligible; i++) {
		uint8_t at = n;

		if (i == pick->at || isnan(set->scores[i].total) || is_below(d, set, model, i))
			continue;
		while (at > 0 && explain_is_better(d->scorer, &set->scores[i], &set->scores[best[at - 1]]))
			at--;
		if (at == DECISION_ALTERNATIVES)
			continue;
		n += n < DECISION_ALTERNATIVES;
		memmove(&best[at + 1], &best[at], (size_t)(n - 1 - at) * sizeof(best[0]));
		best[at] = i;
	}
	n = (uint8_t)size_min(n, d->n_eligible - 1);
	for (uint8_t i = 0; i < n; i++)
		d->alternatives[i] = choice_of(set, model, best[i]);
	d->n_alternatives = n;
}

/* Of those that the filters left, how many the scores left. */
static uint32_t count_eligible(
    const struct decision *d, const struct policy_set *set, const struct model *model, uint32_t n_filtered) {
	uint32_t n = 0;

	if (!d->has_scores)
		return n_filtered;
	for (uint32_t i = 0; i < n_filtered; i++)
		n += !is_below(d, set, model, i);
	return (uint32_t)size_min(n, explain_candidates_max(set, model));
}

/* One of the model's by its first code; `score` is of one that the filters left, else NULL. */
static void list_one(struct decision *d, const struct filter_ask *ask, const struct candidate *c,
    const struct policy_score *score) {
	enum filter_code code = score ? FILTER_BELOW_MIN_SCORE : explain_first(filter_codes(ask, c->row));
	struct filter_detail details[FILTER_CODES];

	if (!code) /* others come before it: they are nearer, say */
		return;
	if (score)
		details[code] = explain_below(ask->set, score);
	else
		filter_details(ask, c->row, 1u << code, details);
	d->rejected[d->n_listed++] =
	    (struct decision_rejected){ (uint16_t)c->instance->label, (uint8_t)code, details[code] };
}

/* The first of those that filters or scores took out, whatever others came before; set->eligible is
 * ascending.
 */
static void list_rejected(
    struct decision *d, const struct policy_set *set, const struct pick_input *input, uint32_t n_left_out) {
	const struct model *model = input->model;
	uint32_t n = model->n_candidates + model->n_reserve, n_eligible = set->n_eligible;

	d->n_rejected = n - d->n_eligible;
	d->n_listed = 0;
	assert(n_left_out <= d->n_rejected);
	size_t n_listed = size_min(d->n_rejected - n_left_out, DECISION_REJECTED);
	if (n_listed == 0)
		return;
	struct filter_ask ask = filter_ask(set, input);
	for (uint32_t i = 0, at = 0; i < n && d->n_listed < n_listed; i++) {
		bool is_left = at < n_eligible && set->eligible[at] == i;

		if (is_left && !is_below(d, set, model, at++))
			continue;
		list_one(d, &ask, &model->candidates[i], is_left ? &set->scores[at - 1] : NULL);
	}
}

static void keep_question(struct decision *d, const struct policy_set *set, const struct pick_input *input) {
	const struct demand *demand = input->demand;

	d->at_ns = input->now_ns;
	d->snapshot = set->snapshot->version;
	d->seed = demand->seed;
	d->policy = input->model ? policy_of(set, input->model) : NULL;
	d->scorer = input->model ? policy_scorer(set, input->model) : NULL;
	d->model = (uint16_t)(input->model ? input->model->label : LABEL_OTHER);
	d->is_panic = input->model && input->model->is_panic;
	d->capability = (uint8_t)demand->capability;
	d->features = (uint16_t)demand->features;
	d->prompt_bytes = demand->prompt_bytes;
	d->prompt_tokens = demand->prompt_tokens;
	d->has_session = demand->session != 0;
}

void decision_pick(struct decision *d, const struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick, uint64_t pick_ns) {
	keep_question(d, set, input);
	d->reason = (uint8_t)pick->reason;
	d->ring = (uint8_t)pick->ring;
	d->pick_ns = (uint32_t)u64_min(pick_ns, UINT32_MAX);
	d->n_candidates = pick->n_candidates;
	d->has_scores = explain_has_scores(set, pick);
	d->chosen = choice_of(set, input->model, pick->at);
	d->n_eligible = count_eligible(d, set, input->model, pick->n_eligible);
	list_alternatives(d, set, input->model, pick);
	list_rejected(d, set, input, pick->n_left_out);
	if (d->n_attempts < DECISION_ATTEMPTS)
		d->attempts[d->n_attempts] = (struct decision_attempt){ d->chosen.label, CAUSE_NONE };
	d->n_attempts += d->n_attempts < UINT8_MAX;
}

void decision_refuse(struct decision *d, const struct policy_set *set, const struct pick_input *input,
    enum cause cause, uint64_t pick_ns) {
	assert(cause && !d->n_attempts);
	keep_question(d, set, input);
	d->refusal = (uint8_t)cause;
	d->ring = PICK_RING_NONE;
	d->pick_ns = (uint32_t)u64_min(pick_ns, UINT32_MAX);
	if (!input->model)
		return;
	assert(set->n_eligible == 0);
	d->n_candidates = input->model->n_candidates;
	list_rejected(d, set, input, 0);
}

void decision_failed(struct decision *d, uint32_t label, enum cause cause) {
	assert(d->n_attempts > 0);
	for (size_t i = size_min(d->n_attempts, DECISION_ATTEMPTS); i-- > 0;)
		if (d->attempts[i].label == label && !d->attempts[i].cause) {
			d->attempts[i].cause = (uint8_t)cause;
			return;
		}
}

void decision_return(
    struct decision *d, const struct instance *inst, enum pick_reason reason, uint32_t predicted_tokens) {
	d->chosen = (struct decision_choice){ inst->serial, (uint16_t)inst->label, { .total = NAN } };
	d->reason = (uint8_t)reason;
	d->predicted_tokens = predicted_tokens;
}

struct slice decision_text(const struct decision *d, char room[static DECISION_TEXT_BYTES]) {
	int n = snprintf(room, DECISION_TEXT_BYTES, "%u-%llu", d->worker, (unsigned long long)d->number);

	return (struct slice){ room, (size_t)n };
}
