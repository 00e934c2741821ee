#include "router/turn.h"

#include "router/exchange.h"

static struct gatekeeper *gate_of(const struct exchange *x) {
	return x->worker->router->gate;
}

static struct admission *admission_of(const struct worker *worker) {
	return worker->router->admission;
}

static uint64_t now_ms(const struct exchange *x) {
	return loop_now_ms(&x->worker->loop);
}

/* --- waiters --------------------------------------------------------------------------- */

void turn_desk_init(struct turn_desk *desk) {
	slab_init(&desk->waiters, sizeof(struct waiter));
}

void turn_desk_deinit(struct turn_desk *desk) {
	slab_deinit(&desk->waiters);
}

static struct worker *worker_of(const struct waiter *w) {
	return container_of(w->home, struct worker, loop);
}

static void tell(struct worker *worker) {
	if (admission_is_awaited(admission_of(worker)))
		gatekeeper_tell(worker->router->gate, &worker->desk.bell);
}

static void put_waiter(struct waiter *w) {
	struct worker *worker = worker_of(w);

	assert(!w->place.held);
	admission_unwait(admission_of(worker), &w->place);
	slab_put(&worker->desk.waiters, w);
}

static void end_promise(struct worker *worker, uint16_t label) {
	uint32_t before = atomic_fetch_sub(&admission_of(worker)->n_promised[label], 1);

	assert(before > 0);
}

/* It was called, but goes nowhere. */
static void decline(struct waiter *w) {
	struct worker *worker = worker_of(w);

	end_promise(worker, w->place.label);
	gatekeeper_spend(w->gate, w->place.tenant, -(int64_t)w->cost_tokens);
	admission_release(admission_of(worker), &w->place);
	tell(worker);
}

static void on_verdict(struct mail *mail) {
	struct waiter *w = container_of(mail, struct waiter, mail);

	w->is_back = true;
	if (w->job)
		loop_wake(w->home, w->job);
	else if (w->verdict == GATE_CALLED) /* the answer to the cancel is behind this */
		decline(w);
}

static void on_cancelled(struct mail *mail) {
	put_waiter(container_of(mail, struct waiter, cancel));
}

/* --- to wait ---------------------------------------------------------------------------- */

static uint16_t label_of(const struct exchange *x) {
	const struct model *model =
	    x->model ? x->model : exchange_model(exchange_config(x), x->worker->view->snapshot, &x->inspect);

	return (uint16_t)(model ? model->label : LABEL_OTHER);
}

static enum cause full_cause(const struct exchange *x) {
	return exchange_config(x)->admission.is_vllm ? CAUSE_TOO_MANY : CAUSE_QUEUE_FULL;
}

static enum cause expired_cause(const struct exchange *x) {
	return exchange_config(x)->admission.is_vllm ? CAUSE_WAIT_TIMEOUT : CAUSE_QUEUE_EXPIRED;
}

/* How long it may wait, by the operator's word, its own and its deadline. */
static void set_end(struct exchange *x, const struct inspect_wishes *wishes) {
	struct turn *t = &x->turn;
	uint64_t wait_ms = exchange_config(x)->admission.queue_timeout_ms;
	uint64_t deadline_ms =
	    wishes->deadline_ms ? x->at.begin / 1000000u + wishes->deadline_ms : UINT64_MAX;

	if (wishes->wait_ms)
		wait_ms = u64_min(wait_ms, wishes->wait_ms);
	t->ends_ms = u64_min(now_ms(x) + wait_ms, deadline_ms);
	t->late_cause = (uint8_t)(t->ends_ms == deadline_ms ? CAUSE_SLO_UNATTAINABLE : expired_cause(x));
}

/* In tokens: of what has come of it, or is announced, and of an answer as this model gives them. */
static uint32_t estimate(const struct exchange *x) {
	const struct policy_set *set = &x->worker->policies;
	const struct model *model =
	    x->model ? x->model : exchange_model(exchange_config(x), set->snapshot, &x->inspect);
	const struct head *head = (const struct head *)x->head->data;
	uint64_t n_bytes = u64_max(x->hold.bytes, head->framing == FRAMING_LENGTH ? head->content_length : 0);

	if (!model)
		model = &set->snapshot->any;
	double n = (double)n_bytes * policy_tokens_per_byte(set, model) + policy_output_tokens(set, model);
	return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static struct waiter *new_waiter(struct exchange *x) {
	struct inspect_wishes wishes = inspect_wishes(&x->inspect);
	struct waiter *w = slab_get_zeroed(&x->worker->desk.waiters);
	const struct admission_tenant *tenant = &x->settings->shares[x->turn.place.tenant];
	struct slice id = slice_head(exchange_id(x), sizeof(w->id) - 1);

	if (!x->turn.ends_ms)
		set_end(x, &wishes);
	if (!x->turn.began_ms)
		x->turn.began_ms = now_ms(x);
	w->gate = gate_of(x);
	w->home = &x->worker->loop;
	w->on_verdict = on_verdict;
	w->on_cancelled = on_cancelled;
	w->place = x->turn.place;
	w->has_deadline = x->turn.late_cause == CAUSE_SLO_UNATTAINABLE;
	w->cost_tokens = estimate(x);
	w->fair.tenant = w->place.tenant;
	w->fair.class = wishes.class > tenant->class ? wishes.class : tenant->class;
	w->fair.ends_ms = x->turn.ends_ms;
	memcpy(w->id, id.p, id.n);
	admission_wait(admission_of(x->worker), &w->place);
	return w;
}

/* False: there is no queue, or it has waited for long enough. */
static bool may_wait(const struct exchange *x) {
	return gatekeeper_n_max(gate_of(x)) > 0 && (!x->turn.ends_ms || now_ms(x) < x->turn.ends_ms);
}

static void ask(struct exchange *x, enum gate_lack lack) {
	struct waiter *w = x->turn.waiter;

	assert(!x->turn.place.held && w);
	w->lack = (uint8_t)lack;
	w->is_back = false;
	w->job = &x->job;
	gatekeeper_ask(w);
}

static void ask_first(struct exchange *x, enum gate_lack lack) {
	x->turn.place.label = label_of(x);
	struct waiter *w = x->turn.waiter = new_waiter(x);

	w->n_news = atomic_load(&admission_of(x->worker)->n_news);
	ask(x, lack);
}

/* Its model has become another, or known, while it waited. */
static void move_waiter(struct exchange *x, uint16_t label) {
	struct waiter *w = x->turn.waiter;
	struct place old = w->place;

	w->place.label = x->turn.place.label = label;
	admission_wait(admission_of(x->worker), &w->place);
	admission_unwait(admission_of(x->worker), &old);
}

/* Its pick found nobody, or it has to wait for another model's place. */
static void ask_again(struct exchange *x, enum gate_lack lack) {
	struct turn *t = &x->turn;

	end_promise(x->worker, t->place.label);
	gatekeeper_spend(gate_of(x), t->place.tenant, -(int64_t)t->charged_tokens);
	t->charged_tokens = 0;
	t->is_called = false;
	t->waiter->is_again = true;
	if (label_of(x) != t->place.label)
		move_waiter(x, label_of(x));
	ask(x, lack);
}

/* --- what becomes of it --------------------------------------------------------------------- */

static void count_refusal(const struct exchange *x, enum cause cause) {
	struct metric_shard *m = x->worker->metrics;

	switch (cause) {
	case CAUSE_TOO_MANY:
	case CAUSE_QUEUE_FULL:
	case CAUSE_INSTANCES_FULL:
		metric_add(&m->queue_full, 1);
		break;
	case CAUSE_QUEUE_DISPLACED:
		metric_add(&m->queue_displaced, 1);
		break;
	case CAUSE_WAIT_TIMEOUT:
	case CAUSE_QUEUE_EXPIRED:
	case CAUSE_NO_INSTANCE:
	case CAUSE_BREAKERS_OPEN:
	case CAUSE_CONNECT_FAILED:
	case CAUSE_CONNECT_TIMEOUT:
	case CAUSE_TLS_FAILED:
		metric_add(&m->queue_expired, 1);
		break;
	case CAUSE_SLO_UNATTAINABLE:
		metric_add(&m->queue_late, 1);
		break;
	default: /* the client left, or all ends */
		break;
	}
}

static enum cause refusal_of(const struct exchange *x, enum gate_verdict verdict) {
	switch (verdict) {
	case GATE_FULL:
		return full_cause(x);
	case GATE_DISPLACED:
		return exchange_config(x)->admission.is_vllm ? CAUSE_TOO_MANY : CAUSE_QUEUE_DISPLACED;
	case GATE_LATE:
		return CAUSE_SLO_UNATTAINABLE;
	default:
		return (enum cause)x->turn.late_cause;
	}
}

/* What it has waited for has come, or something that ends the wait, or only bytes of its client. */
static int hear(struct exchange *x, enum cause *cause_out) {
	struct turn *t = &x->turn;
	struct waiter *w = t->waiter;
	const struct admission *a = admission_of(x->worker);

	if (!w->is_back)
		return TURN_E_WAIT;
	if (w->verdict != GATE_CALLED) {
		*cause_out = refusal_of(x, (enum gate_verdict)w->verdict);
		return TURN_E_REFUSED;
	}
	t->place = w->place;
	t->charged_tokens += w->cost_tokens; /* it may have been called before, picked and refused */
	t->is_called = true;
	w->place.held = 0;
	w->n_vacancies = atomic_load(&a->n_vacancies);
	w->n_news = atomic_load(&a->n_news);
	if (label_of(x) == t->place.label)
		return 0;
	admission_release(admission_of(x->worker), &t->place);
	ask_again(x, GATE_LACKS_NOTHING);
	return TURN_E_WAIT;
}

int turn_take(struct exchange *x, enum cause *cause_out) {
	struct turn *t = &x->turn;
	struct admission *a = admission_of(x->worker);

	if (t->waiter)
		return hear(x, cause_out);
	if (admission_is_open(a) || inspect_response(&x->inspect)) /* no work, and a cancel makes room */
		return 0;
	t->place.label = label_of(x);
	if (!admission_is_contended(a, &t->place) && admission_take(a, &t->place))
		return 0;
	if (may_wait(x)) {
		ask_first(x, GATE_LACKS_NOTHING);
		return TURN_E_WAIT;
	}
	tell(x->worker); /* who looked while we tried may have found what we did not take */
	*cause_out = full_cause(x);
	count_refusal(x, *cause_out);
	return TURN_E_REFUSED;
}

static void end_wait(struct exchange *x) {
	if (x->turn.began_ms)
		metric_observe(&x->worker->metrics->queue_wait, (now_ms(x) - x->turn.began_ms) * 1000000u);
	x->turn.began_ms = 0;
	x->turn.n_words = 0;
}

void turn_sent(struct exchange *x) {
	assert(!x->turn.waiter);
	end_wait(x);
}

void turn_picked(struct exchange *x) {
	struct waiter *w = x->turn.waiter;

	if (!w)
		return;
	assert(x->turn.is_called);
	x->turn.is_called = false;
	end_promise(x->worker, w->place.label);
	x->turn.waiter = NULL;
	put_waiter(w);
}

/* A fleet that is not there is waited for by those alone who ask for it. */
static enum gate_lack lack_of(const struct exchange *x, enum cause cause) {
	switch (cause) {
	case CAUSE_INSTANCES_FULL:
		return GATE_LACKS_VACANCY;
	case CAUSE_NO_INSTANCE:
	case CAUSE_BREAKERS_OPEN:
	case CAUSE_CONNECT_FAILED:
	case CAUSE_CONNECT_TIMEOUT:
	case CAUSE_TLS_FAILED:
		return !x->n_sends && inspect_wishes(&x->inspect).wait_ms ? GATE_LACKS_INSTANCE
									  : GATE_LACKS_NOTHING;
	default:
		return GATE_LACKS_NOTHING;
	}
}

bool turn_again(struct exchange *x, enum cause cause) {
	enum gate_lack lack = lack_of(x, cause);

	if (!lack || !may_wait(x)) {
		if (cause == CAUSE_INSTANCES_FULL && !x->turn.waiter)
			count_refusal(x, cause);
		return false;
	}
	admission_release(admission_of(x->worker), &x->turn.place);
	x->at.routed = 0; /* the choice that ends the wait counts */
	if (x->turn.waiter)
		ask_again(x, lack);
	else
		ask_first(x, lack);
	if (lack == GATE_LACKS_INSTANCE) {
		x->n_tried = x->n_denied = 0;
		if (x->turn.late_cause != CAUSE_SLO_UNATTAINABLE)
			x->turn.late_cause = (uint8_t)cause;
	}
	return true;
}

enum cause turn_cause_as(const struct router_config *config, enum cause cause, bool has_waited) {
	if (cause != CAUSE_INSTANCES_FULL || !config->admission.is_vllm)
		return cause;
	return has_waited ? CAUSE_WAIT_TIMEOUT : CAUSE_TOO_MANY;
}

enum cause turn_cause(const struct exchange *x, enum cause cause) {
	return turn_cause_as(exchange_config(x), cause, x->turn.ends_ms);
}

void turn_leave(struct exchange *x, enum cause cause) {
	struct waiter *w = x->turn.waiter;

	end_wait(x);
	if (!w)
		return;
	x->turn.waiter = NULL;
	if (!x->at.routed) /* until then it was in the queue */
		x->at.routed = x->worker->loop.now_ns;
	count_refusal(x, cause);
	w->job = NULL;
	if (!w->is_back) {
		gatekeeper_cancel(w);
		return;
	}
	if (x->turn.is_called) {
		end_promise(x->worker, w->place.label);
		tell(x->worker);
	} else if (w->verdict == GATE_CALLED) {
		decline(w);
	}
	x->turn.is_called = false;
	put_waiter(w);
}

/* --- the end ------------------------------------------------------------------------------ */

void turn_vacate(struct worker *worker) {
	if (!admission_is_awaited(admission_of(worker)))
		return;
	atomic_fetch_add(&admission_of(worker)->n_vacancies, 1);
	gatekeeper_tell(worker->router->gate, &worker->desk.bell);
}

void turn_settle(struct exchange *x, uint64_t n_tokens) {
	struct turn *t = &x->turn;

	turn_leave(x, CAUSE_NONE);
	if (x->settings->n_tenants > 1)
		gatekeeper_spend(gate_of(x), t->place.tenant, (int64_t)n_tokens - (int64_t)t->charged_tokens);
	if (!t->place.held)
		return;
	admission_release(admission_of(x->worker), &t->place);
	tell(x->worker);
}

uint16_t turn_retry_after_s(const struct exchange *x, enum cause cause) {
	switch (cause) {
	case CAUSE_TOO_MANY:
	case CAUSE_WAIT_TIMEOUT:
	case CAUSE_QUEUE_FULL:
	case CAUSE_QUEUE_EXPIRED:
	case CAUSE_QUEUE_DISPLACED:
	case CAUSE_INSTANCES_FULL:
		return gatekeeper_retry_after_s(gate_of(x));
	default:
		return 0;
	}
}
