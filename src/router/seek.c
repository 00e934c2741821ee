#include "router/seek.h"

#include "router/steps.h"
#include "router/tenancy.h"

/* A hash of the id that it asks for; 0: none. OPTIONS is about the path, and may be anybody's to answer. */
static uint64_t response_of(const struct exchange *x) {
	return exchange_head(x)->method == METHOD_OPTIONS ? 0 : inspect_response(&x->inspect);
}

/* It does not know of the response, and another one may be asked: nobody said who made it. */
static bool is_denied(const struct exchange *x, unsigned status) {
	return status == 404 && response_of(x) && x->reason != PICK_RESPONSE_OWNER && x->keeps_replay &&
	    x->n_attempts < EXCHANGE_TRIES_MAX;
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

/* What else it says is for nobody: where all of that is here already, the connection is of use. */
static void keep_connection(struct exchange *x, const struct head *answer) {
	struct call_in in;

	if (call_recv(&x->up, LOOP_READ_BYTES, &in) || !in.is_end)
		return;
	x->is_engine_kept = answer->keep_alive;
	answer_finish_upstream(x);
}

bool seek_goes_on(struct exchange *x, const struct head *answer) {
	if (!is_denied(x, answer->status))
		return false;
	exclude(x);
	if (!choice_has_others(x)) {
		include_last(x);
		return false;
	}
	keep_connection(x, answer);
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	attempt_leave(x, CAUSE_RESPONSE_ABSENT, answer->status);
	return true;
}

bool seek_returns(struct exchange *x) {
	if (!x->n_denied)
		return false;
	include_last(x);
	return true;
}

void seek_learn(const struct exchange *x, unsigned status) {
	uint64_t hash = response_of(x);

	if (hash && status < 300)
		ticket_keep_response(&x->ticket, &x->worker->policies,
		    worker_response_key(tenancy_of(x), hash), exchange_now_ns(x));
}
