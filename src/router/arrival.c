/*
 * From a request's head to its turn: what may be answered at once, how much of the body
 * is waited for, and the place among those in flight.
 */
#include "router/steps.h"

#include "router/hedge.h"
#include "router/local.h"
#include "router/patience.h"
#include "router/rank_field.h"
#include "router/submission.h"
#include "router/tenancy.h"

#define WHOLE_BYTES 65536u

struct reply arrival_reply(const struct exchange *x, char room[static CORS_FIELDS_BYTES]) {
	const struct option_list *origins = &exchange_config(x)->cors_origins;
	struct reply reply = { .request_id = exchange_id(x) };
	reply_follow(&reply, exchange_head(x), x->ends_connection);
	reply.closes |= !call_is_received(&x->down);
	if (origins->n)
		reply.fields = cors_fields(origins, exchange_head(x), room);
	return reply;
}

enum next arrival_replied(struct exchange *x, const struct reply *reply, int r) {
	x->status = (uint16_t)reply->status;
	x->ends_connection |= reply->closes;
	return r ? exchange_fail(x, CAUSE_CLIENT_GONE) : exchange_go(x, STEP_RELAY);
}

/* A browser asks what a page may send: no key comes with that. */
static enum next answer_preflight(struct exchange *x) {
	char room[CORS_FIELDS_BYTES];
	struct reply reply = arrival_reply(x, room);
	reply.status = 204;
	reply.fields = cors_preflight_fields(&exchange_config(x)->cors_origins, exchange_head(x), room);
	return arrival_replied(x, &reply, reply_send(&x->down, &reply));
}

/* It is known whose it is. */
static enum next go_in(struct exchange *x) {
	enum petition_kind kind;
	x->turn.place.tenant = x->tenant;
	if (submission_is_asked(exchange_config(x), exchange_head(x), &kind))
		return exchange_go(x, STEP_SUBMIT);
	return exchange_go(x, local_is_ours(exchange_head(x)) ? STEP_LOCAL : STEP_ADMIT);
}

/* Whether it may: operators are others than tenants, and whether the router lives is for all to ask. */
static enum cause judge_caller(struct exchange *x, const struct head *h) {
	enum petition_kind kind;
	if (local_is_open(h))
		return CAUSE_NONE;
	if (submission_is_asked(exchange_config(x), h, &kind) && kind == PETITION_OF_OPERATOR)
		return submission_permit(x);
	return tenancy_admit(x, h);
}

enum next step_begin(struct exchange *x) {
	const struct head *h = exchange_head(x);
	if (unlikely(atomic_load_explicit(&x->worker->router->is_ending, memory_order_relaxed)))
		return exchange_fail(x, CAUSE_STOPPING);
	if (cors_is_preflight(&exchange_config(x)->cors_origins, h))
		return answer_preflight(x);
	enum cause cause = judge_caller(x, h);
	if (cause)
		return exchange_fail(x, cause);
	return x->inquiry ? exchange_go(x, STEP_VERIFY) : go_in(x);
}

/* Somebody else is asked about its key. */
enum next step_verify(struct exchange *x) {
	enum cause cause;
	if (tenancy_hear(x, &cause)) {
		call_want(&x->down, false); /* its body waits in the socket */
		return WAIT;
	}
	return cause ? exchange_fail(x, cause) : go_in(x);
}

/* One of our own endpoints. */
enum next step_local(struct exchange *x) {
	char room[CORS_FIELDS_BYTES];
	struct reply reply = arrival_reply(x, room);
	const struct local_question q = { x->worker, x->view->snapshot, exchange_head(x), tenancy_of(x) };
	int r = local_answer(&q, &x->down, &reply);
	return arrival_replied(x, &reply, r);
}

enum next step_admit(struct exchange *x) {
	const struct head *h = exchange_head(x);
	if (buf_is_over_budget(exchange_bufs(x)))
		return exchange_fail(x, CAUSE_OVERLOADED);
	if (h->framing == FRAMING_LENGTH && h->content_length > exchange_config(x)->body_limit_bytes)
		return exchange_fail(x, CAUSE_BODY_TOO_LARGE);
	struct rank_wish wish;
	enum cause cause = exchange_config(x)->trusts_rank ? rank_field_read(h, &wish) : CAUSE_NONE;
	if (!cause)
		cause = inspect_init(&x->inspect, &exchange_config(x)->inspect, exchange_bufs(x), h);
	return cause ? exchange_fail(x, cause) : exchange_go(x, STEP_INSPECT);
}

int arrival_receive(struct exchange *x, struct call_in *in, enum cause *cause) {
	*cause = CAUSE_NONE;
	int r = call_recv(&x->down, LOOP_READ_BYTES, in);
	if (r == CALL_E_GONE)
		*cause = CAUSE_CLIENT_GONE;
	else if (r == CALL_E_BAD)
		*cause = CAUSE_BODY_MALFORMED;
	if (r)
		return r;
	if (x->down.in_bytes > exchange_config(x)->body_limit_bytes)
		*cause = CAUSE_BODY_TOO_LARGE;
	for (size_t i = 0; i < in->n && !*cause; i++)
		*cause = inspect_feed(&x->inspect, in->pieces[i].p, in->pieces[i].n);
	if (in->is_end && !*cause)
		*cause = inspect_finish(&x->inspect);
	return *cause ? CALL_E_BAD : 0;
}

int arrival_invite(struct exchange *x) {
	struct call_out o;
	if (!exchange_head(x)->expects_continue || x->has_continued || x->down.in_bytes ||
	    call_has_input(&x->down))
		return 0;
	x->has_continued = true;
	call_begin(&o, &x->down);
	call_put_status_line(&o, 100);
	call_put_interim_end(&o);
	return call_flush(&o);
}

struct slice arrival_asked(const struct exchange *x) {
	struct slice asked = inspect_model(&x->inspect);
	return asked.n || !x->model ? asked : x->model->name;
}

static bool is_served(const struct model *model) {
	return model && model->n_candidates + model->n_reserve;
}

/* The model, or any where it is relayed so: nobody has it, by the name that engines have for it, and others
 * are there. */
static const struct model *model_or_any(const struct router_config *config, const struct snapshot *snap,
    const struct inspect *in, const struct model *model) {
	struct slice asked = inspect_model(in);
	bool is_relayed =
	    config->unknown_models == ROUTER_UNKNOWN_RELAY && asked.n && !alias_find(&config->aliases, asked);
	if (!is_relayed || is_served(model))
		return model;
	return model && !is_served(&snap->any) ? model : &snap->any;
}

/* An engine has done a part of it, or is at work on it: another one may know nothing of its model. */
static bool is_begun(const struct exchange *x) {
	return x->resume || x->split || hedge_is_out(x);
}

/* Once a model is found it is the name of that which counts: what was asked for may be forgotten. */
const struct model *arrival_model(const struct exchange *x, const struct snapshot *snap) {
	if (!x->model)
		return exchange_model(exchange_config(x), snap, &x->inspect);
	if (!x->model->name.n)
		return &snap->any;
	const struct model *model = snapshot_model(snap, x->model->name);
	return is_begun(x) ? model : model_or_any(exchange_config(x), snap, &x->inspect, model);
}

/* Whose model it is decides where it goes, or whether it may, or what is sent, and it has not come yet. */
static bool must_wait(const struct worker *w, const struct settings *settings, const struct tenant *tenant,
    const struct inspect *in) {
	bool is_decisive = w->view->snapshot->n_models > 1 || tenant->models.n || settings->config->aliases.n;
	return is_decisive && !inspect_is_decided(in);
}

const struct model *exchange_model(
    const struct router_config *config, const struct snapshot *snap, const struct inspect *in) {
	const struct alias *alias = alias_find(&config->aliases, inspect_model(in));
	struct slice name = alias ? alias->model : inspect_model(in);
	return name.n ? model_or_any(config, snap, in, snapshot_model(snap, name)) : &snap->any;
}

/* The policy of its model goes by what has yet to come. */
static bool policy_waits(
    const struct router_config *config, const struct policy_set *set, const struct inspect *in) {
	const struct model *model = exchange_model(config, set->snapshot, in);
	if (!model || in->body != INSPECT_JSON)
		return false;
	return policy_wants_prompt(set, model) ||
	    (policy_wants_session(set, model) && !(inspect_has_session(in) && inspect_is_decided(in)));
}

/* Two engines may get it, each with changes of its own: that takes all of it. */
static bool is_shared(const struct worker *w, const struct settings *settings, const struct inspect *in) {
	const struct model *model = exchange_model(settings->config, w->view->snapshot, in);
	return model && model->first && in->body == INSPECT_JSON;
}

/*
 * Enough of the body is here to go on: its model is known, if models matter, and the stored response that
 * it goes on from, which one engine alone has. A small JSON
 * body is waited for whole, since no engine can begin before it has all of it: what is
 * wrong with it is then found before an engine sees it.
 */
bool exchange_has_enough(const struct worker *w, const struct settings *settings, const struct tenant *tenant,
    const struct inspect *in, uint64_t n_bytes) {
	uint64_t limit = settings->config->inspect_limit_bytes;
	if (inspect_has_all(in))
		return true;
	if (must_wait(w, settings, tenant, in))
		return false;
	if (is_shared(w, settings, in) || (w->policies.responses && inspect_may_name_response(in)))
		limit = settings->config->hold_limit_bytes; /* SDKs name a response behind the input */
	else if (!policy_waits(settings->config, &w->policies, in))
		limit = u64_min(limit, WHOLE_BYTES);
	return n_bytes >= limit || buf_is_over_budget(&w->loop.bufs);
}

static bool inspect_is_enough(const struct exchange *x) {
	return exchange_has_enough(x->worker, x->settings, tenancy_of(x), &x->inspect, x->hold.bytes);
}

int arrival_hold(struct exchange *x, enum cause *cause) {
	struct call_in in;
	int r = arrival_receive(x, &in, cause);
	if (r)
		return CALL_E_AGAIN;
	if (x->hold.bytes + in.bytes > exchange_config(x)->hold_limit_bytes &&
	    must_wait(x->worker, x->settings, tenancy_of(x), &x->inspect))
		*cause = CAUSE_MODEL_LATE;
	else if (!hold_append(&x->hold, exchange_bufs(x), in.pieces, in.n))
		*cause = CAUSE_OVERLOADED;
	return *cause ? CALL_E_AGAIN : 0;
}

/* Takes what of the body has come, one read of the socket, and holds it until there is enough. */
enum next step_inspect(struct exchange *x) {
	enum cause cause;
	int r;
	do
		r = arrival_hold(x, &cause);
	while (r == 0 && x->down.conn->unread.n && !inspect_is_enough(x));
	if (cause)
		return exchange_fail(x, cause);
	if (!call_is_received(&x->down) && arrival_invite(x))
		return exchange_fail(x, CAUSE_CLIENT_GONE);
	if (inspect_is_enough(x))
		return exchange_go(x, STEP_QUEUE);
	return WAIT;
}

/* Its place among those in flight, if its tenant may ask for the model, whether or not there is such a one.
 */
enum next step_queue(struct exchange *x) {
	enum cause cause = CAUSE_NONE;
	if (!rate_is_taken(&x->claim))
		cause = tenancy_permit(x, arrival_asked(x), exchange_head(x));
	if (!cause)
		cause = choice_reserve(x);
	if (cause)
		return exchange_fail(x, cause);
	int r = turn_take(x, &cause);
	if (!r)
		return exchange_go(x, STEP_PICK);
	call_want(&x->down, false); /* the rest of the body waits in the socket */
	if (r == TURN_E_WAIT && patience_speak(x))
		return exchange_fail(x, CAUSE_CLIENT_GONE);
	return r == TURN_E_WAIT ? WAIT : exchange_fail(x, cause);
}
