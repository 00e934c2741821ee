/*
 * Which instance gets a request: the pick with all that filters and policies may know,
 * and what it means when nobody is there.
 */
#include "router/steps.h"

#include "base/clock.h"
#include "policy/filter.h"
#include "router/hedge.h"
#include "router/journal.h"
#include "router/permit.h"
#include "router/rank_field.h"
#include "router/seek.h"
#include "router/split.h"
#include "router/tenancy.h"

/* Instances that are avoided are tried, too, when there are no others, but each may cost a connect timeout.
 */
#define AVOIDED_TRIES_MAX 8

/* What filters and the policy may know of a request for this model; its keys are the worker's scratch. */
static void make_demand(struct exchange *x, const struct model *model, struct demand *demand) {
	const struct head *head = exchange_head(x);
	worker_demand(x->worker, &x->inspect, model, tenancy_of(x), demand);
	if (exchange_config(x)->trusts_rank && rank_field_read(head, &demand->rank))
		assert(!"a rank that was admitted");
	demand->seed = worker_seed(exchange_id(x));
	if (demand->deadline_ms && x->turn.ends_ms) /* part of it is over */
		demand->deadline_ms = (uint32_t)u64_max(1,
		    demand->deadline_ms -
			u64_min(demand->deadline_ms, (exchange_now_ns(x) - x->at.begin) / 1000000u));
	if (head->framing == FRAMING_LENGTH)
		worker_expect(x->worker, &x->inspect, model, head->content_length, demand);
}

enum cause exchange_cause(int outcome) {
	static const uint8_t causes[PICK_OUTCOMES] = {
		[PICK_E_NONE_LEFT] = CAUSE_NO_INSTANCE,
		[PICK_E_NONE_EXIST] = CAUSE_NO_INSTANCE,
		[PICK_E_CAPABILITY] = CAUSE_UNSUPPORTED_CAPABILITY,
		[PICK_E_FEATURE] = CAUSE_UNSUPPORTED_FEATURE,
		[PICK_E_CONTEXT] = CAUSE_CONTEXT_LENGTH,
		[PICK_E_PRIVACY] = CAUSE_PRIVACY_VIOLATION,
		[PICK_E_FULL] = CAUSE_INSTANCES_FULL,
		[PICK_E_ACCELERATOR] = CAUSE_ACCELERATOR,
		[PICK_E_PRIORITY] = CAUSE_PRIORITY_LOW,
		[PICK_E_LATE] = CAUSE_SLO_UNATTAINABLE,
		[PICK_E_COST] = CAUSE_OVER_BUDGET,
		[PICK_E_OWNER] = CAUSE_OWNER_BUSY,
		[PICK_E_RANK] = CAUSE_RANK_ABSENT,
		[PICK_E_OPEN] = CAUSE_BREAKERS_OPEN,
	};

	return (enum cause)causes[outcome];
}

/* Nobody is left to pick: who were tried failed, or all were refused before. */
static enum cause cause_of(const struct exchange *x, int outcome) {
	return outcome == PICK_E_NONE_LEFT && x->last_cause ? (enum cause)x->last_cause
							    : exchange_cause(outcome);
}

/* Picks are timed when they are remembered: two looks at the clock are most of what that costs. */
static int pick_instance(
    struct exchange *x, const struct pick_input *input, struct pick_result *pick_out, uint64_t *ns_out) {
	bool is_timed = decision_ring_is_on(&x->worker->decisions);
	uint64_t begin_ns = is_timed ? clock_now_ns() : 0;
	int r = policy_pick(&x->worker->policies, input, pick_out);
	*ns_out = is_timed ? clock_now_ns() - begin_ns : 0;
	return r;
}

/* With nobody there, the fleet is what is missing. */
static enum next fail_without_model(struct exchange *x) {
	const struct model *any = &x->view->snapshot->any;
	enum cause cause = any->n_candidates + any->n_reserve ? CAUSE_MODEL_NOT_FOUND : CAUSE_NO_INSTANCE;
	struct demand demand;
	struct pick_input input = { .demand = &demand, .now_ns = exchange_now_ns(x) };
	split_wait(x);
	if (!x->resume && turn_again(x, cause))
		return exchange_go(x, STEP_QUEUE);
	make_demand(x, any, &demand);
	journal_declined(x, &input, cause, 0);
	return exchange_fail(x, cause);
}

static enum next pick_failed(
    struct exchange *x, const struct pick_input *input, int outcome, uint64_t pick_ns) {
	enum cause cause = turn_cause(x, cause_of(x, outcome));
	if (outcome == PICK_E_OPEN)
		x->retry_after_s = permit_retry_after_s(x, input);
	journal_declined(x, input, cause, pick_ns);
	return exchange_fail(x, cause);
}

/* The policy works on the worker's current snapshot: a request that waited moves to it. Its model may be gone
 * then. */
static void move_to_current_view(struct exchange *x) {
	struct view *old = x->view;
	if (old != x->worker->view) {
		x->view = worker_view(x->worker);
		x->row = EXCHANGE_NO_ROW;
	}
	x->model = arrival_model(x, x->view->snapshot);
	if (x->view != old)
		worker_view_release(x->worker, &old);
}

/* It goes there: its ticket is open. */
static enum next begin_attempt(struct exchange *x, const struct pick_result *pick, bool is_counted) {
	if (is_counted && !x->n_attempts)
		retry_budget_pay(&x->worker->budgets[x->model->label], &exchange_config(x)->retry,
		    loop_now_ms(&x->worker->loop));
	metric_add(&x->worker->metrics->picks, 1);
	x->row = pick->row;
	x->reason = (uint8_t)pick->reason;
	x->first_address =
	    (uint8_t)instance_good_address(x->ticket.instance, x->view->snapshot->rows[x->row].n_addresses);
	x->n_addresses = 0;
	x->is_tls_refused = false;
	x->last_cause = CAUSE_NONE;
	x->wait_cause = CAUSE_NONE; /* what is waited for begins anew */
	x->retry_bar = RETRY_BAR_NONE;
	x->n_attempts += is_counted;
	if (!x->at.routed)
		x->at.routed = exchange_now_ns(x);
	return x->split ? split_picked(x, pick) : exchange_go(x, STEP_CONNECT);
}

enum cause choice_reserve(struct exchange *x) {
	const struct model *model = x->settings->rates ? arrival_model(x, x->view->snapshot) : NULL;
	struct demand demand;
	if (!model || rate_is_taken(&x->claim))
		return CAUSE_NONE;
	make_demand(x, model, &demand);
	return tenancy_reserve(x, model, &demand);
}

bool choice_has_others(struct exchange *x) {
	const struct model *model = arrival_model(x, x->worker->view->snapshot);
	struct demand demand;
	struct pick_input input = { .model = model,
		.demand = &demand,
		.tried = x->tried,
		.n_tried = x->may_return ? x->n_denied : x->n_tried,
		.now_ns = exchange_now_ns(x) };
	if (!model)
		return false;
	make_demand(x, model, &demand);
	demand.is_indivisible = true;
	return filter_leaves_well(&x->worker->policies, &input);
}

/* Nobody is left but those who were asked before: some of them may be asked again. */
static bool asks_again(struct exchange *x, int outcome, const struct pick_result *pick) {
	bool is_tried_out = outcome == PICK_E_NONE_LEFT || (outcome == PICK_E_FULL && x->n_tried);
	if (is_tried_out && x->may_return) { /* who refused it */
		x->may_return = false;
		x->n_tried = x->n_denied;
		return true;
	}
	return (outcome || pick->reason >= PICK_ALL_AVOIDED) && seek_returns(x);
}

/* Is there nobody who would do for a request that two cannot share? The avoided do, but for a search. */
static bool is_lacking(const struct exchange *x, int outcome, const struct pick_result *pick) {
	if (x->n_tried >= EXCHANGE_TRIES_MAX)
		return false;
	if (outcome)
		return outcome != PICK_E_FULL;
	return pick->reason >= PICK_ALL_AVOIDED && inspect_response(&x->inspect);
}

enum next step_pick(struct exchange *x) {
	move_to_current_view(x);
	if (!x->model)
		return hedge_is_out(x) ? hedge_take_back(x) : fail_without_model(x);

	struct demand demand;
	struct pick_input input = { .model = x->model,
		.demand = &demand,
		.tried = x->tried,
		.n_tried = x->n_tried,
		.now_ns = exchange_now_ns(x),
		.is_hedge = hedge_is_out(x) };
	make_demand(x, x->model, &demand);
	enum cause cause = tenancy_reserve(x, x->model, &demand);
	if (cause)
		return exchange_fail(x, cause);
	if (x->split || x->model->first)
		split_enter(x, &demand, &input);
	struct pick_result pick;
	uint64_t pick_ns = 0;
	int r =
	    x->n_tried < EXCHANGE_TRIES_MAX ? pick_instance(x, &input, &pick, &pick_ns) : PICK_E_NONE_LEFT;
	if (is_lacking(x, r, &pick) && split_yields(x, &demand))
		r = pick_instance(x, &input, &pick, &pick_ns);
	if (x->split && split_declines(x, r, &pick))
		return NEXT;
	if (input.is_hedge && (r || pick.reason >= PICK_ALL_AVOIDED))
		return hedge_take_back(x);
	if (asks_again(x, r, &pick))
		return NEXT;
	if (r == 0 && pick.reason >= PICK_ALL_AVOIDED && x->n_tried >= AVOIDED_TRIES_MAX)
		r = PICK_E_NONE_LEFT; /* the fleet is away, as others have found before */
	if (r && !x->resume && turn_again(x, cause_of(x, r))) { /* a stream that goes on keeps its place */
		split_wait(x);
		return exchange_go(x, STEP_QUEUE);
	}
	if (r)
		return pick_failed(x, &input, r, pick_ns);
	if (!permit_take(x, pick.instance))
		return NEXT;
	bool is_first = x->split && split_is_first(x, &pick);
	if (is_first) /* it computes the prompt and one token */
		demand.output_max = demand.output_tokens = 1;
	if (!ticket_try_open(&x->ticket, &x->worker->policies, &input, &pick)) {
		permit_return(x, pick.instance);
		return NEXT; /* another worker took the last place there: the next pick knows */
	}
	turn_picked(x);
	journal_picked(x, &input, &pick, pick_ns);
	return begin_attempt(x, &pick, !is_first);
}
