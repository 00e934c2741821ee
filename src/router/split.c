#include "router/split.h"

#include <sys/random.h>

#include "router/split_breaker.h"
#include "router/split_pushers.h"
#include "router/steps.h"

static enum split_phase phase_of(const struct exchange *x) {
	return x->split ? (enum split_phase)x->split->phase : SPLIT_ALONE;
}

void split_set_phase(struct exchange *x, enum split_phase phase) {
	struct split *p = x->split;
	bool is_other_leg = (p->phase >= SPLIT_DECODE) != (phase >= SPLIT_DECODE);

	if (is_other_leg)
		p->n_other_sends = (uint8_t)(x->n_sends - p->n_other_sends);
	p->phase = (uint8_t)phase;
}

unsigned split_sends(const struct exchange *x) {
	return x->n_sends - x->n_denied - (x->split ? x->split->n_other_sends : 0u);
}

/* --- what is aside ------------------------------------------------------------------------------ */

/* What is in hand ends without a word on how it did. */
void split_let_go(struct exchange *x) {
	attempt_drop(x);
	attempt_release(x, CAUSE_HEDGE_LOST, 0);
	x->moved_ms = 0;
	worker_view_release(x->worker, &x->view);
}

void split_take(struct exchange *x, struct aside *a) {
	aside_take(x, a);
	x->last_cause = CAUSE_NONE;
	x->wait_cause = CAUSE_NONE;
}

static void drop(struct exchange *x, struct aside *a) {
	if (!aside_is_there(a))
		return;
	aside_swap(x, a);
	split_let_go(x);
	if (aside_is_there(a))
		aside_take(x, a);
}

/* Nobody is told of the other one any more. */
static void let_go_of_wire(struct exchange *x) {
	if (x->split->prefill_view)
		worker_view_release(x->worker, &x->split->prefill_view);
	buf_unref(exchange_bufs(x), &x->split->places);
}

/* Neither the prefill leg nor what came of it is of use any more. */
static void forget_prefill(struct exchange *x) {
	struct split *p = x->split;

	drop(x, &p->prefill);
	let_go_of_wire(x);
	split_relay_forget(x);
	hold_free(&p->answer, exchange_bufs(x));
	p->has_answer = p->has_head = p->is_unheard = false;
	p->params.n = 0;
}

static void go_alone(struct exchange *x) {
	drop(x, &x->split->decode);
	forget_prefill(x);
	split_set_phase(x, SPLIT_ALONE);
	x->prefill_label = 0;
}

/* --- before a pick -------------------------------------------------------------------------------- */

/* Is it a prompt that two can share? Much of an engine's API is none, and who made a response has it alone.
 */
static bool is_divisible(const struct exchange *x, struct split_body *body) {
	enum split_api api = split_api_of(head_path(exchange_head(x)));

	return api && exchange_head(x)->method == METHOD_POST && call_is_received(&x->down) &&
	    x->keeps_replay && x->inspect.body == INSPECT_JSON && !inspect_names_response(&x->inspect) &&
	    split_body_read(body, api, &x->hold);
}

/* What would be left to compute where it would go alone; UINT32_MAX: nobody is there, or it is not known. */
static uint32_t uncached_tokens(struct exchange *x, const struct pick_input *input) {
	struct policy_set *set = &x->worker->policies;
	struct pick_result pick;

	if (policy_pick(set, input, &pick) || !input->demand->prompt_tokens ||
	    pick.reason >= PICK_ALL_AVOIDED)
		return UINT32_MAX;
	return input->demand->prompt_tokens - policy_cached_tokens(set, input->demand, &pick);
}

/* When it is picked for the first time. */
static void begin(struct exchange *x, const struct pick_input *input) {
	struct split_body body;
	bool is_first = !x->resume && !x->hedge && !x->n_attempts;

	if (is_first)
		x->is_whole = !is_divisible(x, &body);
	if (!is_first || x->is_whole)
		return;
	uint32_t least = exchange_config(x)->pd.min_uncached_tokens;
	if (least && uncached_tokens(x, input) < least)
		return;
	x->split = slab_get_zeroed(&x->worker->splits);
	x->split->body = body;
}

/* A leg failed. Can who prefilled give it to another one? What was fetched is gone there. */
static bool is_prefill_kept(const struct exchange *x, unsigned status) {
	const struct split *p = x->split;
	bool is_untouched = x->last_cause == CAUSE_CONNECT_FAILED || x->last_cause == CAUSE_CONNECT_TIMEOUT ||
	    x->last_cause == CAUSE_TLS_FAILED || status == 429 || status == 503;

	return p->has_answer && is_untouched && !p->wire.is_concurrent && p->connector != CONNECTOR_P2P_NCCL;
}

void split_drop_aside(struct exchange *x) {
	drop(x, &x->split->decode);
	drop(x, &x->split->prefill);
}

bool split_answered(struct exchange *x, const struct head *answer) {
	struct split *p = x->split;
	bool is_merged = p && p->phase == SPLIT_DECODE && split_relay_begin(x, answer);

	if (!p || aside_is_there(&p->prefill))
		return is_merged;
	if (is_merged) {
		let_go_of_wire(x);
		return true;
	}
	x->n_sends = (uint8_t)split_sends(x); /* a stream that is gone on with is one leg */
	split_end(x);
	return false;
}

/* Others may do. */
static void exclude_prefill(struct exchange *x) {
	if (x->n_tried < EXCHANGE_TRIES_MAX)
		x->tried[x->n_tried++] = x->split->prefill_instance->slot;
}

void split_step_back(struct exchange *x, unsigned status) {
	const struct split *p = x->split;

	if (p->phase == SPLIT_PREFILL) {
		split_close_tap(x);
		x->n_interim = 0; /* the client had none of them */
	} else if (p->phase != SPLIT_DECODE || is_prefill_kept(x, status)) {
		return;
	} else if (status >= 500 && status != 503) {
		exclude_prefill(x);
	}
	forget_prefill(x); /* also the part of its answer that came */
	split_set_phase(x, SPLIT_FIRST);
}

static const struct model *pool_of(const struct exchange *x) {
	switch (phase_of(x)) {
	case SPLIT_FIRST:
		return x->model->first;
	case SPLIT_SECOND:
	case SPLIT_DECODE:
		return x->model->decode;
	default:
		return x->model;
	}
}

static void aim(struct exchange *x, struct pick_input *input, struct demand *demand) {
	const struct split *p = x->split;

	x->model = pool_of(x);
	input->model = x->model;
	if (p->phase == SPLIT_ALONE || (p->phase == SPLIT_FIRST && !aside_is_there(&p->decode)))
		return;
	input->connector = (enum connector)p->connector;
	input->kv_mode = p->phase == SPLIT_FIRST ? p->decode_kv.mode : p->prefill_kv.mode;
	demand->is_prefilled = p->phase != SPLIT_FIRST;
}

/* Those whose last requests with this prefill all failed. */
static void exclude_enemies(struct exchange *x) {
	const struct split *p = x->split;
	uint64_t now_s = loop_now_ms(&x->worker->loop) / 1000;

	x->n_tried = p->n_tried; /* it may come again */
	for (uint32_t i = 0; i < x->model->n_candidates && x->n_tried < EXCHANGE_TRIES_MAX; i++) {
		const struct candidate *c = &x->model->candidates[i];

		if (split_breaker_is_open(x->worker->router->split_breaker,
			instance_life(p->prefill_instance), instance_life(c->instance), now_s))
			x->tried[x->n_tried++] = c->slot;
	}
}

void split_enter(struct exchange *x, struct demand *demand, struct pick_input *input) {
	if (!x->split)
		begin(x, input);
	if (!x->split)
		return;
	if (x->split->phase != SPLIT_ALONE && (x->resume || !x->model->first)) /* or roles are others since */
		go_alone(x);
	aim(x, input, demand);
	if (x->split->phase == SPLIT_SECOND && !x->split->takes_avoided)
		exclude_enemies(x);
	input->n_tried = x->n_tried;
}

bool split_yields(const struct exchange *x, struct demand *demand) {
	bool is_whole = x->is_whole || inspect_names_response(&x->inspect);

	if (!is_whole || demand->is_indivisible || x->model->pool != POOL_ALONE)
		return false;
	demand->is_indivisible = true;
	return true;
}

/* --- after a pick --------------------------------------------------------------------------------- */

/* They may do with another prefill. */
static void forgive_enemies(struct exchange *x) {
	if (x->split->phase == SPLIT_SECOND)
		x->n_tried = x->split->n_tried;
}

/* It is not to be decoded by its enemies alone: another prefill may have friends. */
static bool passes_over(struct exchange *x) {
	struct split *p = x->split;

	if (p->phase != SPLIT_SECOND || x->n_tried == p->n_tried)
		return false;
	forgive_enemies(x);
	exclude_prefill(x);
	forget_prefill(x);
	split_set_phase(x, SPLIT_FIRST);
	p->was_avoiding = true;
	return true;
}

/* Nobody is left. Do those who refused it, and are avoided since, get it again? */
static bool returns(struct exchange *x) {
	if (!x->may_return || !x->n_tried)
		return false;
	x->may_return = false;
	x->n_tried = 0;
	x->split->takes_avoided = true;
	return true;
}

/* Nobody does all of it. */
static bool goes_back(struct exchange *x) {
	struct split *p = x->split;

	if (p->was_avoiding && !p->takes_avoided) {
		p->takes_avoided = true;
		x->n_tried = 0;
	} else if (!returns(x)) {
		return false;
	}
	split_set_phase(x, SPLIT_FIRST);
	return true;
}

bool split_declines(struct exchange *x, int outcome, const struct pick_result *pick) {
	struct split *p = x->split;
	bool is_avoided = !outcome && pick->reason >= PICK_ALL_AVOIDED;

	if (!p)
		return false;
	if (p->phase == SPLIT_ALONE)
		return outcome && goes_back(x);
	if (!outcome && (!is_avoided || p->takes_avoided))
		return false;
	if (p->phase == SPLIT_DECODE && outcome && returns(x)) /* what was prefilled for them is kept */
		return true;
	p->was_avoiding |= is_avoided;
	if (passes_over(x))
		return true;
	forgive_enemies(x);
	go_alone(x);
	return true;
}

bool split_is_first(const struct exchange *x, const struct pick_result *pick) {
	return phase_of(x) == SPLIT_FIRST && pick->traits->kv.role == ROLE_PREFILL;
}

void split_wait(struct exchange *x) {
	if (!x->split)
		return;
	go_alone(x);
	split_set_phase(x, SPLIT_FIRST);
	x->split->was_avoiding = x->split->takes_avoided = false;
}

static struct instance *instance_of(const struct exchange *x) {
	return x->ticket.instance;
}

static struct split_end end_of(const struct instance *inst, const struct kv_traits *kv, struct slice engine) {
	return (struct split_end){ .authority = inst->spec.authority,
		.host = inst->spec.host,
		.engine = engine,
		.kv = *kv,
		.rank = inst->spec.rank };
}

/* What they are told of each other. False: it cannot be said. */
static bool introduce(struct exchange *x) {
	struct split *p = x->split;
	struct split_end prefill = end_of(p->prefill_instance, &p->prefill_kv, p->prefill_engine);
	struct split_end decode = end_of(p->decode_instance, &p->decode_kv, (struct slice){ NULL, 0 });
	size_t n = split_wire_batch_bytes(&prefill, p->body.n_batch);
	struct split_push push;
	bool is_known = split_pushers_find(x->worker->pushers, p->prefill_instance, &push);

	buf_unref(exchange_bufs(x), &p->places);
	if (p->connector == CONNECTOR_SGLANG && p->body.n_batch) {
		p->places = n <= LOOP_READ_BYTES ? buf_new(exchange_bufs(x), n) : NULL;
		if (!p->places)
			return false;
	}
	return split_wire_make(&p->wire, (enum connector)p->connector, &prefill, &decode, &p->secret,
	    is_known && !p->has_answer ? &push : NULL, p->body.n_batch, p->places ? p->places->data : NULL);
}

/* Where the two meet must not be found out from ids that clients see. */
static void keep_secret(struct exchange *x) {
	struct split_secret *secret = &x->split->secret;
	ssize_t n = getrandom(secret, sizeof(*secret), 0);

	assert(n == (ssize_t)sizeof(*secret));
}

/* It cannot be told of the other one: it goes on alone, with another pick. */
static enum next give_up(struct exchange *x) {
	split_let_go(x);
	x->view = worker_view(x->worker);
	go_alone(x);
	return exchange_go(x, STEP_PICK);
}

/* Both are there: the prefill leg, which is in hand, may be sent. */
static enum next begin_prefill(struct exchange *x) {
	keep_secret(x);
	if (!introduce(x))
		return give_up(x);
	split_set_phase(x, SPLIT_PREFILL);
	x->split->prefill_begun_ns = exchange_now_ns(x);
	x->prefill_label = x->split->prefill_instance->label;
	return exchange_go(x, STEP_CONNECT);
}

/* Who was picked, with the number of its ranks also where no label says it. */
static struct kv_traits kv_of(const struct exchange *x, const struct pick_result *pick) {
	struct kv_traits kv = pick->traits->kv;

	if (!kv.dp_size)
		kv.dp_size = (uint32_t)snapshot_n_ranks(x->view->snapshot, x->row);
	return kv;
}

static bool has_instance(const struct model *model, const struct instance *inst) {
	for (uint32_t i = 0; i < model->n_candidates + model->n_reserve; i++)
		if (model->candidates[i].instance == inst)
			return true;
	return false;
}

/* Both are of one model, also where none was asked for: one that somebody decodes, if there is one. */
static void name_model(struct exchange *x) {
	const struct snapshot *snap = x->view->snapshot;
	const struct model *any = NULL;

	for (uint32_t i = 0; i < snap->n_models; i++) {
		const struct model *model = &snap->models[i];

		if (!model->first || !has_instance(model->first, instance_of(x)))
			continue;
		if (!any || model->decode->n_candidates)
			any = model->first;
		if (model->decode->n_candidates)
			break;
	}
	if (any)
		x->model = any;
}

static enum next picked_first(struct exchange *x, const struct pick_result *pick) {
	struct split *p = x->split;

	if (pick->traits->kv.role != ROLE_PREFILL) {
		go_alone(x);
		return exchange_go(x, STEP_CONNECT);
	}
	p->connector = (uint8_t)policy_connector(x->worker->policies.options, &pick->traits->kv);
	x->is_whole = p->body.api == SPLIT_API_GENERATE && p->connector != CONNECTOR_SGLANG;
	if (x->is_whole) /* it is SGLang's own API */
		return give_up(x);
	if (!x->model->name.n)
		name_model(x);
	p->prefill_kv = kv_of(x, pick);
	p->prefill_instance = instance_of(x);
	p->prefill_engine = x->view->snapshot->rows[x->row].kv_engine;
	if (aside_is_there(&p->decode))
		return begin_prefill(x);
	aside_put(x, &p->prefill);
	x->view = worker_view(x->worker);
	p->n_tried = x->n_tried;
	split_set_phase(x, SPLIT_SECOND);
	return exchange_go(x, STEP_PICK);
}

static void keep_decode(struct exchange *x, const struct pick_result *pick) {
	x->split->decode_kv = kv_of(x, pick);
	x->split->decode_instance = instance_of(x);
	forgive_enemies(x);
}

enum next split_picked(struct exchange *x, const struct pick_result *pick) {
	struct split *p = x->split;

	switch ((enum split_phase)p->phase) {
	case SPLIT_FIRST:
		return picked_first(x, pick);
	case SPLIT_SECOND:
		keep_decode(x, pick);
		aside_put(x, &p->decode);
		split_take(x, &p->prefill);
		return begin_prefill(x);
	case SPLIT_DECODE:
		p->decode_kv = kv_of(x, pick);
		p->decode_instance = instance_of(x);
		return introduce(x) ? exchange_go(x, STEP_CONNECT) : give_up(x);
	default:
		return exchange_go(x, STEP_CONNECT);
	}
}

/* --- the end ---------------------------------------------------------------------------------------- */

bool split_may_repeat(const struct exchange *x) {
	return phase_of(x) == SPLIT_PREFILL || (phase_of(x) == SPLIT_DECODE && !x->at.first_byte);
}

bool split_is_prefilling(const struct exchange *x) {
	return phase_of(x) == SPLIT_PREFILL;
}

bool split_is_doubted(const struct exchange *x, unsigned status) {
	return phase_of(x) == SPLIT_DECODE && aside_is_there(&x->split->prefill) && status >= 500 &&
	    status != 501;
}

void split_end(struct exchange *x) {
	struct split *p = x->split;

	if (!p)
		return;
	drop(x, &p->decode);
	forget_prefill(x);
	split_relay_end(x);
	slab_put(&x->worker->splits, p);
	x->split = NULL;
}
