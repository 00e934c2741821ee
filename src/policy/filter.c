#include "policy/filter.h"

#include <math.h>

#include "fleet/guard.h"
#include "policy/choice.h"
#include "policy/locality.h"
#include "policy/precedence.h"
#include "policy/session_table.h"

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
	[FILTER_ACCELERATOR_MISSING] = "accelerator_missing",
	[FILTER_ROLE_MISMATCH] = "role_mismatch",
	[FILTER_RANK_ABSENT] = "rank_absent",
	[FILTER_PRIORITY_LOW] = "priority_low",
	[FILTER_BREAKER_OPEN] = "breaker_open",
	[FILTER_UNHEALTHY] = "unhealthy",
	[FILTER_AVOIDED] = "avoided",
	[FILTER_AT_CAPACITY] = "at_capacity",
	[FILTER_SLO_UNATTAINABLE] = "slo_unattainable",
	[FILTER_OVER_COST] = "over_cost",
	[FILTER_ALREADY_TRIED] = "already_tried",
	[FILTER_BELOW_MIN_SCORE] = "below_min_score",
	[FILTER_RESPONSE_ELSEWHERE] = "response_elsewhere",
};

const char *filter_text(enum filter_code code) {
	assert(code < FILTER_CODES);
	return words[code];
}

/* --- one by one ----------------------------------------------------------------------------- */

/* A candidate, or what would be one. */
struct subject {
	struct instance *instance;
	const struct traits *traits;
};

/* What we do not know is nothing to ask of somebody else's server with a key of ours. */
static bool lacks_capability(const struct filter_ask *ask, const struct subject *s) {
	if (ask->input->demand->capability == CAPABILITY_OTHER)
		return traits_has(s->traits, TRAIT_PROVIDER);
	return s->traits->capabilities && !(s->traits->capabilities >> ask->input->demand->capability & 1);
}

static uint32_t missing_features(const struct filter_ask *ask, const struct subject *s) {
	return s->traits->features ? ask->input->demand->features & ~s->traits->features : 0;
}

static bool lacks_feature(const struct filter_ask *ask, const struct subject *s) {
	return missing_features(ask, s) != 0;
}

static uint64_t needed_tokens(const struct filter_ask *ask) {
	return (ask->is_relaxed ? ask->n_context / 2 : ask->n_context) + ask->n_output;
}

static bool is_too_small(const struct filter_ask *ask, const struct subject *s) {
	return s->traits->context_tokens && needed_tokens(ask) > s->traits->context_tokens;
}

static bool is_not_cleared(const struct filter_ask *ask, const struct subject *s) {
	return s->traits->clearance < ask->privacy;
}

static bool lacks_residency(const struct filter_ask *ask, const struct subject *s) {
	return !traits_has_tags(s->traits->residency, ask->set->options->residency) ||
	    !traits_has_tags(s->traits->residency, ask->input->demand->residency);
}

/* A border is the operator's: where a request comes from does not move it. */
static bool is_elsewhere(const struct filter_ask *ask, const struct subject *s) {
	const struct locality_options *own = &ask->set->options->locality;

	return own->region ? s->traits->region != own->region : s->traits->zone != own->zone;
}

static bool lacks_accelerator(const struct filter_ask *ask, const struct subject *s) {
	return s->traits->accelerator != ask->input->demand->accelerator;
}

static bool is_no_part(const struct filter_ask *ask, const struct subject *s) {
	const struct pick_input *input = ask->input;
	const struct kv_traits *kv = &s->traits->kv;
	enum connector connector = policy_connector(ask->set->options, kv);
	bool fits = !input->connector || (connector == input->connector && kv->mode == input->kv_mode);

	switch (input->model->pool) {
	case POOL_FIRST:
		return kv->role == ROLE_DECODE || (kv->role == ROLE_PREFILL && !fits);
	case POOL_DECODE:
		return kv->role != ROLE_DECODE || !fits;
	default:
		return kv->role == ROLE_PREFILL ||
		    (kv->role == ROLE_DECODE && !input->demand->is_indivisible &&
			!connector_decodes_alone(connector));
	}
}

/* An engine without ranks may have some that only it knows of. */
static bool is_other_rank(const struct filter_ask *ask, const struct subject *s) {
	return s->instance->spec.has_rank && s->instance->spec.rank != ask->input->demand->rank.rank;
}

static bool is_low(const struct filter_ask *ask, const struct subject *s) {
	return traits_priority(s->traits) < ask->input->demand->priority_min;
}

static bool is_full(const struct filter_ask *ask, const struct subject *s) {
	return s->traits->capacity && load_requests(ask->set->load, s->instance->slot) >= s->traits->capacity;
}

static uint32_t cached_tokens(const struct filter_ask *ask, const struct instance *inst) {
	const struct policy_set *set = ask->set;
	const struct prefix_hit *hit = set->index ? prefix_scan_find(set->scan, inst->slot) : NULL;

	return hit ? choice_cached_tokens(ask->input->demand, hit, inst) : 0;
}

/* What is queued there, and what it has not cached of the prompt, at the rate at which it was seen to work.
 */
static double predicted_ms(const struct filter_ask *ask, const struct subject *s) {
	double rate = learned_read(&s->instance->learned.prefill_rate);
	uint64_t n_tokens = load_total(ask->set->load, s->instance->slot).prefill_tokens;

	if (rate <= 0)
		rate = ask->group_rate;
	n_tokens += ask->n_prompt - u64_min(ask->n_prompt, cached_tokens(ask, s->instance));
	return rate > 0 ? (double)n_tokens / rate * 1000 : 0;
}

static bool is_late(const struct filter_ask *ask, const struct subject *s) {
	return predicted_ms(ask, s) > ask->input->demand->deadline_ms;
}

/* In micro-units. */
static double price_of(const struct filter_ask *ask, const struct subject *s) {
	const struct demand *demand = ask->input->demand;
	double cost = (double)ask->n_prompt * (double)s->traits->price_in +
	    (double)demand_expected_output(demand) * (double)s->traits->price_out;

	return cost / 1e6;
}

static bool is_above_ceiling(const struct filter_ask *ask, const struct subject *s) {
	uint64_t ceiling = ask->set->options->cost_ceiling;

	return ceiling && price_of(ask, s) > (double)ceiling;
}

static bool is_expensive(const struct filter_ask *ask, const struct subject *s) {
	const struct demand *demand = ask->input->demand;

	return is_above_ceiling(ask, s) ||
	    (demand->has_cost_max && traits_cost(s->traits) > demand->cost_max);
}

/* By what is said of it, what it has and what was learned of it: for all ranges alike. */
static bool (*const refuses[FILTER_CODES])(const struct filter_ask *ask, const struct subject *s) = {
	[FILTER_CAPABILITY_MISSING] = lacks_capability,
	[FILTER_FEATURE_MISSING] = lacks_feature,
	[FILTER_CONTEXT_TOO_SMALL] = is_too_small,
	[FILTER_CLEARANCE_LOW] = is_not_cleared,
	[FILTER_RESIDENCY_MISSING] = lacks_residency,
	[FILTER_REGION_DENIED] = is_elsewhere,
	[FILTER_ACCELERATOR_MISSING] = lacks_accelerator,
	[FILTER_ROLE_MISMATCH] = is_no_part,
	[FILTER_RANK_ABSENT] = is_other_rank,
	[FILTER_PRIORITY_LOW] = is_low,
	[FILTER_AT_CAPACITY] = is_full,
	[FILTER_SLO_UNATTAINABLE] = is_late,
	[FILTER_OVER_COST] = is_expensive,
};

static bool is_tried(const struct pick_input *input, uint16_t slot) {
	for (uint32_t i = 0; i < input->n_tried; i++)
		if (input->tried[i] == slot)
			return true;
	return false;
}

/* --- what is asked ---------------------------------------------------------------------------- */

#define BIT(code) (UINT32_C(1) << (code))

/* What a request asks that somebody may not have. */
static uint32_t checks_of(const struct filter_ask *ask, const struct traits_least *least) {
	const struct demand *demand = ask->input->demand;
	const struct policy_options *options = ask->set->options;
	bool lacks = demand->capability == CAPABILITY_OTHER
	    ? least->known >> TRAIT_PROVIDER & 1
	    : !(least->capabilities >> demand->capability & 1);
	bool has_prices =
	    options->cost_ceiling && least->known & (BIT(TRAIT_PRICE_IN) | BIT(TRAIT_PRICE_OUT));
	bool has_costs = demand->has_cost_max && least->known >> TRAIT_COST & 1;
	bool is_work = demand_is_work(demand);
	bool has_roles = ask->input->model->pool != POOL_ALONE || least->known >> TRAIT_ROLE & 1;
	uint32_t checks = (uint32_t)lacks << FILTER_CAPABILITY_MISSING;

	checks |= (uint32_t)((demand->features & ~least->features) != 0) << FILTER_FEATURE_MISSING;
	checks |= (uint32_t)(ask->n_context + ask->n_output > least->context_tokens)
	    << FILTER_CONTEXT_TOO_SMALL;
	checks |= (uint32_t)(ask->privacy > least->clearance) << FILTER_CLEARANCE_LOW;
	checks |= (uint32_t)(options->residency.n || demand->residency.n) << FILTER_RESIDENCY_MISSING;
	checks |= (uint32_t)(options->locality.mode == LOCALITY_REQUIRE) << FILTER_REGION_DENIED;
	checks |= (uint32_t)(demand->accelerator != 0) << FILTER_ACCELERATOR_MISSING;
	checks |= (uint32_t)has_roles << FILTER_ROLE_MISMATCH;
	checks |= (uint32_t)demand->rank.is_given << FILTER_RANK_ABSENT;
	checks |= (uint32_t)(demand->priority_min && least->known >> TRAIT_PRIORITY & 1)
	    << FILTER_PRIORITY_LOW;
	checks |= (uint32_t)(is_work && least->known >> TRAIT_CAPACITY & 1) << FILTER_AT_CAPACITY;
	checks |= (uint32_t)(is_work && demand->deadline_ms) << FILTER_SLO_UNATTAINABLE;
	checks |= (uint32_t)(has_prices || has_costs) << FILTER_OVER_COST;
	return checks;
}

/* The bytes of an image say nothing of its tokens, nor do those that may be one: only what is text counts. */
static uint64_t prompt_tokens(const struct demand *demand) {
	uint32_t media = BIT(FEATURE_IMAGE_INPUT) | BIT(FEATURE_AUDIO_INPUT);

	return demand->features & media || demand->is_prompt_open ? demand->text_tokens
								  : demand->prompt_tokens;
}

struct filter_ask filter_ask(const struct policy_set *set, const struct pick_input *input) {
	const struct demand *demand = input->demand;
	enum privacy floor = set->options->privacy_floor;
	struct filter_ask ask = {
		.set = set,
		.input = input,
		.privacy = demand->privacy > floor ? demand->privacy : floor,
		.n_prompt = prompt_tokens(demand),
		.n_output = demand->output_max ? demand->output_max : 1,
		.minds_lessons = learned_is_any_cleared(input->now_ns / 1000000u),
	};

	ask.n_context = demand->is_batch ? 0 : ask.n_prompt;
	ask.checks = checks_of(&ask, &input->model->least);
	if (ask.checks & BIT(FILTER_SLO_UNATTAINABLE))
		ask.group_rate = choice_mean_rate(input->model->candidates, NULL, input->model->n_candidates);
	return ask;
}

/* --- a pick ------------------------------------------------------------------------------------- */

/* Part of a model's candidates, and whether those that failed lately are among those wanted. */
struct range {
	uint32_t begin, end;
	bool takes_avoided;
};

static bool has_refused(const struct filter_ask *ask, const struct instance *inst) {
	const struct pick_input *input = ask->input;

	return learned_is_cleared(
	    &inst->learned, input->demand->capability, input->model->label, input->now_ns / 1000000u);
}

/* The first that speaks against it; FILTER_NONE: nothing. */
static enum filter_code first_refusal(const struct filter_ask *ask, const struct subject *s) {
	if (ask->minds_lessons && has_refused(ask, s->instance))
		return FILTER_CAPABILITY_MISSING;
	for (uint32_t rest = ask->checks; rest; rest &= rest - 1) {
		unsigned code = (unsigned)__builtin_ctz(rest);

		if (refuses[code](ask, s))
			return (enum filter_code)code;
	}
	return is_tried(ask->input, s->instance->slot) ? FILTER_ALREADY_TRIED : FILTER_NONE;
}

#define CANDIDATES_AHEAD 12u /* fetched before their turn: instances lie anywhere */

/*
 * Something is held against this one: does it leave the range? What else speaks against one whose breaker is
 * open counts more: to wait for that would be in vain.
 */
static cold bool is_shunned(
    const struct filter_ask *ask, const struct subject *s, bool takes_avoided, struct filtered *f) {
	uint64_t now_ms = ask->input->now_ns / 1000000u;

	if (guard_is_passable(s->instance, now_ms))
		return !takes_avoided && instance_is_avoided(s->instance, now_ms);
	bool tried = is_tried(ask->input, s->instance->slot);
	enum filter_code code = tried ? FILTER_ALREADY_TRIED : first_refusal(ask, s);

	f->refused |= BIT(tried || (code && code < FILTER_BREAKER_OPEN) ? code : FILTER_BREAKER_OPEN);
	return true;
}

/* Makes those of the range the eligible ones against whom nothing speaks. */
static void filter_range(
    struct policy_set *set, const struct filter_ask *ask, struct range range, struct filtered *f) {
	const struct candidate *candidates = ask->input->model->candidates;
	const struct traits *traits = set->snapshot->traits + (candidates - set->snapshot->candidates);
	bool asks_nothing = !ask->checks && !ask->minds_lessons && !ask->input->n_tried;
	uint64_t now_ms = ask->input->now_ns / 1000000u;

	for (uint32_t i = range.begin; i < range.end; i++) {
		const struct candidate *c = &candidates[i];

		if (i + CANDIDATES_AHEAD < range.end)
			__builtin_prefetch(c[CANDIDATES_AHEAD].instance);
		if (!instance_is_clear(c->instance, now_ms) &&
		    is_shunned(ask, &(struct subject){ c->instance, &traits[i] }, range.takes_avoided, f))
			continue;
		if (!asks_nothing) {
			enum filter_code code =
			    first_refusal(ask, &(struct subject){ c->instance, &traits[i] });

			f->refused |= BIT(code);
			if (code)
				continue;
		}
		set->eligible[f->n++] = i;
		f->weight += c->weight;
	}
}

/* Each range only when those before it left nobody. */
static struct filtered filter_ranges(struct policy_set *set, const struct filter_ask *ask) {
	const struct model *model = ask->input->model;
	uint32_t end = model->n_candidates, end_reserve = end + model->n_reserve;
	struct filtered f = { .reason = PICK_REASONS };

	filter_range(set, ask, (struct range){ 0, end, false }, &f);
	if (f.n)
		return f;
	f.reason = PICK_ALL_AVOIDED;
	filter_range(set, ask, (struct range){ 0, end, true }, &f);
	/* Who is busy will have time again: that is no reason to try the ill. */
	if (f.n || f.refused & (BIT(FILTER_AT_CAPACITY) | BIT(FILTER_SLO_UNATTAINABLE)))
		return f;
	f.reason = PICK_LAST_RESORT;
	filter_range(set, ask, (struct range){ end, end_reserve, false }, &f);
	if (!f.n)
		filter_range(set, ask, (struct range){ end, end_reserve, true }, &f);
	return f;
}

/* What filters that look at requests say. Who is no candidate counts in nobody's least. */
static uint32_t request_codes(const struct filter_ask *ask, const struct subject *subject) {
	const struct pick_input *input = ask->input;
	struct traits_least least = TRAITS_LEAST;
	uint32_t codes = 0;

	traits_join(&least, subject->traits);
	if (ask->minds_lessons && has_refused(ask, subject->instance))
		codes |= BIT(FILTER_CAPABILITY_MISSING);
	for (uint32_t rest = checks_of(ask, &least); rest; rest &= rest - 1)
		if (refuses[__builtin_ctz(rest)](ask, subject))
			codes |= rest & -rest;
	if (!guard_is_passable(subject->instance, input->now_ns / 1000000u))
		codes |= BIT(FILTER_BREAKER_OPEN);
	if (instance_is_avoided(subject->instance, input->now_ns / 1000000u))
		codes |= BIT(FILTER_AVOIDED);
	if (is_tried(input, subject->instance->slot))
		codes |= BIT(FILTER_ALREADY_TRIED);
	return codes;
}

/* --- the owner of a stored response --------------------------------------------------------------- */

#define OWNER_NONE UINT32_MAX

/* The place of who made it among the model's candidates and reserve. */
static uint32_t find_owner(const struct policy_set *set, const struct pick_input *input) {
	uint64_t key = input->demand->response, now_s = input->now_ns / 1000000000u;
	const struct model *model = input->model;
	struct session_home home;

	if (!key || !set->responses || !session_table_find(set->responses, key, now_s, &home))
		return OWNER_NONE;
	for (uint32_t i = 0; i < model->n_candidates + model->n_reserve; i++) {
		const struct candidate *c = &model->candidates[i];

		/* The slot alone first: instances lie anywhere. */
		if (c->slot == home.slot && session_home_is(home, c->instance))
			return i;
	}
	return OWNER_NONE;
}

static bool is_eligible(const struct policy_set *set, const struct filtered *f, uint32_t candidate) {
	for (uint32_t i = 0; i < f->n; i++)
		if (set->eligible[i] == candidate)
			return true;
	return false;
}

/* What speaks against the owner, which has what it made whatever its part. Others may have made room since it
 * was filtered. */
static uint32_t owner_codes(const struct filter_ask *ask, uint32_t owner) {
	const struct model *model = ask->input->model;
	const struct candidate *c = &model->candidates[owner];
	struct subject s = { c->instance, snapshot_traits(ask->set->snapshot, c) };

	return owner < model->n_candidates ? request_codes(ask, &s) & ~BIT(FILTER_ROLE_MISMATCH)
					   : BIT(FILTER_UNHEALTHY);
}

/* All of it passes within moments. */
static bool is_passing(uint32_t codes) {
	const uint32_t passing = BIT(FILTER_BREAKER_OPEN) | BIT(FILTER_AVOIDED) | BIT(FILTER_AT_CAPACITY) |
	    BIT(FILTER_SLO_UNATTAINABLE);

	return codes && !(codes & ~passing);
}

static bool is_owner_waited_for(const struct filter_ask *ask) {
	uint32_t owner = find_owner(ask->set, ask->input);

	return owner != OWNER_NONE && is_passing(owner_codes(ask, owner));
}

/* Nobody else has it: neither the policy nor a distance is asked. */
static void leave_owner(
    struct policy_set *set, const struct pick_input *input, uint32_t owner, struct filtered *f) {
	set->eligible[0] = owner;
	f->n = 1;
	f->weight = input->model->candidates[owner].weight;
	f->reason = PICK_RESPONSE_OWNER;
}

/* For the owner it is worth to wait or to come again: whoever else got the request could only say that it has
 * no such response. */
static void leave_nobody(struct filtered *f, uint32_t refused) {
	*f = (struct filtered){ .reason = f->reason,
		.refused = refused & BIT(FILTER_AT_CAPACITY) ? BIT(FILTER_AT_CAPACITY)
							     : refused | BIT(FILTER_RESPONSE_ELSEWHERE) };
}

static void narrow(struct policy_set *set, const struct filter_ask *ask, struct filtered *f) {
	uint32_t owner = find_owner(set, ask->input), n = f->n;

	if (owner != OWNER_NONE && !is_eligible(set, f, owner)) {
		uint32_t codes = owner_codes(ask, owner);

		if (is_passing(codes)) {
			leave_nobody(f, codes);
			return;
		}
		if (codes)
			owner = OWNER_NONE;
	}
	precedence_narrow(set, ask->input, f);
	locality_narrow(set, ask->input, f); /* the rings move as they do for everybody */
	if (owner != OWNER_NONE)
		leave_owner(set, ask->input, owner, f);
	else if (f->n == 1 && f->reason == PICK_REASONS)
		f->reason = PICK_ONLY_CANDIDATE;
	f->n_left_out = n > f->n ? n - f->n : 0;
}

struct filtered filter_all(struct policy_set *set, const struct pick_input *input) {
	struct filter_ask ask = filter_ask(set, input);
	struct filtered f = filter_ranges(set, &ask);

	if (!f.n && f.refused & (BIT(FILTER_CAPABILITY_MISSING) | BIT(FILTER_CONTEXT_TOO_SMALL))) {
		ask.is_relaxed = true;
		ask.minds_lessons = false;
		f = filter_ranges(set, &ask);
	}
	narrow(set, &ask, &f);
	return f;
}

bool filter_leaves_well(struct policy_set *set, const struct pick_input *input) {
	struct filter_ask ask = filter_ask(set, input);
	struct filtered f = { .reason = PICK_REASONS };

	filter_range(set, &ask, (struct range){ 0, input->model->n_candidates, false }, &f);
	return f.n > 0;
}

int filter_outcome(uint32_t refused) {
	static const uint8_t outcomes[FILTER_CODES] = {
		[FILTER_CAPABILITY_MISSING] = PICK_E_CAPABILITY,
		[FILTER_FEATURE_MISSING] = PICK_E_FEATURE,
		[FILTER_CONTEXT_TOO_SMALL] = PICK_E_CONTEXT,
		[FILTER_CLEARANCE_LOW] = PICK_E_PRIVACY,
		[FILTER_RESIDENCY_MISSING] = PICK_E_PRIVACY,
		[FILTER_REGION_DENIED] = PICK_E_PRIVACY,
		[FILTER_ACCELERATOR_MISSING] = PICK_E_ACCELERATOR,
		[FILTER_ROLE_MISMATCH] = PICK_E_NONE_EXIST,
		[FILTER_RANK_ABSENT] = PICK_E_RANK,
		[FILTER_PRIORITY_LOW] = PICK_E_PRIORITY,
		[FILTER_BREAKER_OPEN] = PICK_E_OPEN,
		[FILTER_AT_CAPACITY] = PICK_E_FULL,
		[FILTER_SLO_UNATTAINABLE] = PICK_E_LATE,
		[FILTER_OVER_COST] = PICK_E_COST,
		[FILTER_ALREADY_TRIED] = PICK_E_NONE_LEFT,
		[FILTER_RESPONSE_ELSEWHERE] = PICK_E_OWNER,
	};

	assert(refused > BIT(FILTER_NONE));
	/* Those that were tried did not do: there are others, who will have room again. */
	if (refused & BIT(FILTER_AT_CAPACITY) && refused & BIT(FILTER_ALREADY_TRIED))
		return PICK_E_FULL;
	return outcomes[31 - __builtin_clz(refused)];
}

static uint64_t open_ms(const struct instance *inst, uint64_t now_ms) {
	return breaker_peek(&inst->breaker, now_ms).remaining_ms;
}

uint64_t filter_open_ms(const struct policy_set *set, const struct pick_input *input) {
	const struct model *model = input->model;
	struct filter_ask ask = filter_ask(set, input);
	uint64_t least_ms = UINT64_MAX;

	for (uint32_t i = 0; i < model->n_candidates + model->n_reserve; i++) {
		const struct candidate *c = &model->candidates[i];
		struct subject s = { c->instance, snapshot_traits(set->snapshot, c) };

		if (!guard_is_passable(c->instance, input->now_ns / 1000000u) && !first_refusal(&ask, &s))
			least_ms = u64_min(least_ms, open_ms(c->instance, input->now_ns / 1000000u));
	}
	return least_ms == UINT64_MAX ? 0 : least_ms;
}

/* --- explanations --------------------------------------------------------------------------------- */

/* Of ascending rows; n: it is not there. */
static uint32_t find_row(const struct candidate *candidates, uint32_t n, uint32_t row) {
	uint32_t low = 0;

	for (uint32_t left = n; left > 0;) {
		uint32_t half = left / 2;

		if (candidates[low + half].row < row) {
			low += half + 1;
			left -= half + 1;
		} else {
			left = half;
		}
	}
	return low < n && candidates[low].row == row ? low : n;
}

/* The place of a primary row among the candidates and, behind them, the reserve; both together: it has none.
 */
static uint32_t find_candidate(const struct model *model, uint32_t row) {
	uint32_t n = model->n_candidates, i = find_row(model->candidates, n, row);

	return i < n ? i : n + find_row(model->candidates + n, model->n_reserve, row);
}

/* By what the operator wants and what discovery found. `row` is a primary one. */
static uint32_t row_codes(const struct snapshot_row *row, bool is_candidate) {
	uint32_t codes = 0;

	if (row->state == INSTANCE_DISABLED)
		codes |= BIT(FILTER_DISABLED);
	if (row->state == INSTANCE_DRAINING)
		codes |= BIT(FILTER_DRAINING);
	if (row->state == INSTANCE_UNHEALTHY && !is_candidate)
		codes |= BIT(FILTER_UNHEALTHY);
	if (!row->are_models_known || row->n_addresses == 0)
		codes |= BIT(FILTER_LOADING);
	return codes;
}

static bool has_model(const struct snapshot *snap, const struct model *model, uint32_t r) {
	if (model == &snap->any)
		return true;
	for (; r != SNAPSHOT_NO_ROW; r = snap->rows[r].next_peer)
		for (uint32_t i = 0; i < snap->rows[r].models.n; i++)
			if (slice_eq(snap->rows[r].models.items[i].key, model->name))
				return true;
	return false;
}

/* Place `i` of find_candidate(), which row `r` has; `room` is for the traits of one that is no candidate. */
static struct subject subject_at(
    const struct snapshot *snap, const struct model *model, uint32_t i, uint32_t r, struct traits *room) {
	bool may_serve = i < model->n_candidates + model->n_reserve;

	if (!may_serve)
		snapshot_row_traits(snap, r, model->name, room);
	return (struct subject){ .instance = snap->rows[r].instance,
		.traits = may_serve ? snapshot_traits(snap, &model->candidates[i]) : room };
}

uint32_t filter_codes(const struct filter_ask *ask, uint32_t row) {
	const struct snapshot *snap = ask->set->snapshot;
	const struct model *model = ask->input->model;

	assert(row < snap->n_rows);
	uint32_t primary = snap->rows[row].primary, i = find_candidate(model, primary);
	uint32_t codes = row_codes(&snap->rows[primary], i < model->n_candidates);
	struct traits room;
	struct subject subject = subject_at(snap, model, i, primary, &room);

	if (i == model->n_candidates + model->n_reserve && !has_model(snap, model, primary))
		codes |= BIT(FILTER_MODEL_ABSENT);
	codes |= request_codes(ask, &subject);
	return codes || !is_owner_waited_for(ask) ? codes : BIT(FILTER_RESPONSE_ELSEWHERE);
}

/* --- what codes go by ----------------------------------------------------------------------------- */

static double left_ms(const struct pick_input *input, const struct instance *inst) {
	uint64_t until_ms = instance_avoided_until_ms(inst);
	uint64_t now_ms = input->now_ns / 1000000u;

	return until_ms > now_ms ? (double)(until_ms - now_ms) : 0;
}

static struct filter_detail detail_of(
    const struct filter_ask *ask, const struct subject *s, enum filter_code code) {
	const struct demand *demand = ask->input->demand;

	switch (code) {
	case FILTER_FEATURE_MISSING:
		return (struct filter_detail){ (double)missing_features(ask, s), NAN };
	case FILTER_CONTEXT_TOO_SMALL:
		return (
		    struct filter_detail){ (double)needed_tokens(ask), (double)s->traits->context_tokens };
	case FILTER_CLEARANCE_LOW:
		return (struct filter_detail){ (double)ask->privacy, (double)s->traits->clearance };
	case FILTER_PRIORITY_LOW:
		return (struct filter_detail){ traits_priority(s->traits), demand->priority_min };
	case FILTER_BREAKER_OPEN:
		return (
		    struct filter_detail){ (double)open_ms(s->instance, ask->input->now_ns / 1000000u), NAN };
	case FILTER_AVOIDED:
		return (struct filter_detail){ left_ms(ask->input, s->instance), NAN };
	case FILTER_AT_CAPACITY:
		return (struct filter_detail){ (double)load_requests(ask->set->load, s->instance->slot),
			(double)s->traits->capacity };
	case FILTER_SLO_UNATTAINABLE:
		return (struct filter_detail){ predicted_ms(ask, s), (double)demand->deadline_ms };
	case FILTER_OVER_COST:
		if (!is_above_ceiling(ask, s))
			return (struct filter_detail){ traits_cost(s->traits), demand->cost_max };
		return (struct filter_detail){ price_of(ask, s), (double)ask->set->options->cost_ceiling };
	default:
		return (struct filter_detail){ NAN, NAN };
	}
}

void filter_details(const struct filter_ask *ask, uint32_t row, uint32_t codes,
    struct filter_detail details[static FILTER_CODES]) {
	const struct snapshot *snap = ask->set->snapshot;
	const struct model *model = ask->input->model;

	assert(row < snap->n_rows);
	uint32_t primary = snap->rows[row].primary;
	struct traits room;
	struct subject s = subject_at(snap, model, find_candidate(model, primary), primary, &room);

	for (uint32_t rest = codes; rest; rest &= rest - 1) {
		unsigned code = (unsigned)__builtin_ctz(rest);

		details[code] = detail_of(ask, &s, (enum filter_code)code);
	}
}
