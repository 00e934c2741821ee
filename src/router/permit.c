#include "router/permit.h"

#include "fleet/guard.h"
#include "policy/filter.h"
#include "router/journal.h"

bool permit_take(struct exchange *x, struct instance *inst) {
	assert(!ticket_is_open(&x->ticket));
	return guard_admit(inst, loop_now_ms(&x->worker->loop), &x->permit);
}

void permit_return(struct exchange *x, struct instance *inst) {
	guard_settle(inst, &exchange_config(x)->breaker.limits, x->permit, BREAKER_NEUTRAL, 0,
	    loop_now_ms(&x->worker->loop));
}

static enum breaker_outcome outcome_of(const struct exchange *x, enum cause cause, unsigned status) {
	bool is_unconnected =
	    cause == CAUSE_CONNECT_FAILED || cause == CAUSE_CONNECT_TIMEOUT || cause == CAUSE_TLS_FAILED;

	if (is_unconnected || journal_blames(x, x->ticket.instance->slot, cause, status))
		return BREAKER_BAD;
	return cause == CAUSE_NONE && status < 400 ? BREAKER_GOOD : BREAKER_NEUTRAL;
}

void permit_settle(struct exchange *x, enum cause cause, unsigned status) {
	struct worker *w = x->worker;
	struct instance *inst = x->ticket.instance;

	if (!ticket_is_open(&x->ticket))
		return;
	enum breaker_outcome outcome = outcome_of(x, cause, status);
	uint64_t seed = outcome == BREAKER_BAD ? rng_next(&w->rng) : 0;

	metric_add(&w->tallies[inst->slot].n_outcomes[outcome], 1);
	journal_leg(x, cause, outcome == BREAKER_BAD || status >= 500);
	guard_settle(
	    inst, &exchange_config(x)->breaker.limits, x->permit, outcome, seed, loop_now_ms(&w->loop));
}

uint16_t permit_retry_after_s(struct exchange *x, const struct pick_input *input) {
	uint64_t ms = filter_open_ms(&x->worker->policies, input);

	ms += rng_below(&x->worker->rng, ms / 4 + 1);
	return (uint16_t)u64_min(ms / 1000 + 1, UINT16_MAX);
}
