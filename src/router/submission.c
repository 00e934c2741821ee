#include "router/submission.h"

#include "http/caller.h"
#include "router/fleet_routes.h"
#include "router/steps.h"

bool submission_is_asked(
    const struct router_config *config, const struct head *request, enum petition_kind *kind_out) {
	if (!fleet_routes_find(request, kind_out))
		return false;
	return *kind_out == PETITION_OF_CLIENT ? config->dialect == ROUTER_VLLM
					       : config->worker_api != ROUTER_WORKER_API_OFF;
}

enum cause submission_permit(struct exchange *x) {
	const struct router_config *config = exchange_config(x);
	struct slice key = slice_of(config->admin_key);

	if (config->worker_api == ROUTER_WORKER_API_OPEN ||
	    (key.n && caller_has_token(exchange_head(x), key)))
		return CAUSE_NONE;
	if (config->worker_api == ROUTER_WORKER_API_LOOPBACK &&
	    caller_is_of_here(session_of(&x->down), exchange_head(x)))
		return CAUSE_NONE;
	return CAUSE_ADMIN_KEY;
}

/* The whole body, as it comes. False: it is still coming, or there is a cause. */
static bool receive(struct exchange *x, enum cause *cause) {
	struct call_in in = { .is_end = false };
	int r;

	*cause = CAUSE_NONE;
	while (!in.is_end && (r = call_recv(&x->down, LOOP_READ_BYTES, &in)) != CALL_E_AGAIN) {
		if (r)
			*cause = r == CALL_E_BAD ? CAUSE_BODY_MALFORMED : CAUSE_CLIENT_GONE;
		else if (!petition_add_body(x->petition, in.pieces, in.n))
			*cause = CAUSE_BODY_TOO_LARGE;
		if (*cause)
			return false;
	}
	return in.is_end;
}

static enum cause begin(struct exchange *x) {
	enum petition_kind kind;
	bool is_asked = submission_is_asked(exchange_config(x), exchange_head(x), &kind);
	const struct head *head = exchange_head(x);

	assert(is_asked);
	if (head->framing == FRAMING_LENGTH && head->content_length > PETITION_BODY_BYTES_MAX)
		return CAUSE_BODY_TOO_LARGE;
	x->petition = petition_new(&x->worker->router->petitions, kind, head, &x->worker->loop);
	return x->petition ? CAUSE_NONE : CAUSE_OVERLOADED;
}

static enum next answer(struct exchange *x) {
	char room[CORS_FIELDS_BYTES];
	struct reply reply = arrival_reply(x, room);

	reply.status = x->petition->status;
	reply.content_type = slice_of(x->petition->type);
	reply.body = slice_of(x->petition->text);
	int r = reply_send(&x->down, &reply);
	petition_leave(&x->petition);
	return arrival_replied(x, &reply, r);
}

enum next step_submit(struct exchange *x) {
	enum cause cause = x->petition ? CAUSE_NONE : begin(x);

	if (cause)
		return exchange_fail(x, cause);
	if (petition_is_back(x->petition))
		return answer(x);
	if (petition_is_sent(x->petition))
		return WAIT;
	if (receive(x, &cause)) {
		call_want(&x->down, false);
		petition_send(x->petition, &x->job);
	} else if (!cause && arrival_invite(x)) {
		cause = CAUSE_CLIENT_GONE;
	}
	return cause ? exchange_fail(x, cause) : WAIT;
}

void submission_leave(struct exchange *x) {
	petition_leave(&x->petition);
}
