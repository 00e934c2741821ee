#include "router/seek.h"

#include "router/steps.h"
#include "router/tenancy.h"

/* It does not know of the response, and another one may be asked: nobody said who made it. */
static bool is_denied(const struct exchange *x, unsigned status) {
	return status == 404 && inspect_response(&x->inspect) && x->reason != PICK_RESPONSE_OWNER &&
	    x->keeps_replay && x->n_attempts < EXCHANGE_TRIES_MAX;
}

/* Behind those who said so before. */
static void exclude(struct exchange *x) {
	assert(x->n_denied <= x->n_tried && x->n_tried < EXCHANGE_TRIES_MAX);
	x->tried[x->n_tried++] = x->tried[x->n_denied];
	x->tried[x->n_denied++] = x->ticket.instance->slot;
}

static void include_last(struct exchange *x) {
	x->tried[--x->n_denied] = x->tried[--x->n_tried];
}

bool seek_goes_on(struct exchange *x, unsigned status) {
	if (!is_denied(x, status))
		return false;
	exclude(x);
	if (!choice_has_others(x)) {
		include_last(x);
		return false;
	}
	x->n_sends--;
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	attempt_leave(x, CAUSE_RESPONSE_ABSENT, status);
	return true;
}

bool seek_returns(struct exchange *x) {
	if (!x->n_denied)
		return false;
	include_last(x);
	return true;
}

void seek_learn(const struct exchange *x, unsigned status) {
	uint64_t hash = inspect_response(&x->inspect);

	if (hash && status < 300)
		ticket_keep_response(&x->ticket, &x->worker->policies,
		    worker_response_key(tenancy_of(x), hash), exchange_now_ns(x));
}
