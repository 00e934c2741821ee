/*
 * Mail only records and wakes a job; the job decides, in turns with a fresh clock. After each turn
 * nobody waits who could go: who comes is looked at once all before it were, and every release
 * that could let somebody go brings a turn.
 */
#include "router/gatekeeper.h"

#include <math.h>
#include <stdlib.h>

#define TICK_MS       1000u /* instances may have room, or be up, without anybody's word */
#define DRAIN_S       10.0  /* the drain is remembered for about so long */
#define DRAIN_MIN     3.0   /* requests that must have left before waits are foretold by it */
#define RETRY_AFTER_S 60.0  /* at most */

/* What there is of a model, by its label. */
struct target {
	const struct model *model;
	uint64_t round; /* in which n_room was counted */
	uint64_t n_room;
};

struct drain {
	double n, s; /* requests that left, while somebody waited for so long; both decay */
	uint64_t at_ms;
};

struct gatekeeper {
	struct loop *loop;
	struct admission *admission;
	const struct load *load;
	struct fair_queue *queue;
	_Atomic uint32_t n_max; /* workers look at it */
	struct snapshot *snapshot;
	struct job job;
	struct timer tick;
	struct list asked;   /* to be looked at */
	struct list waiting; /* in the queue */
	uint64_t round;
	struct drain drain;
	_Atomic uint16_t retry_after_s;
	struct target targets[LABELS];
};

static uint64_t now_ms(const struct gatekeeper *g) {
	return loop_now_ms(g->loop);
}

/* --- the drain ------------------------------------------------------------------------ */

static void drain_advance(struct gatekeeper *g) {
	struct drain *d = &g->drain;
	uint64_t now = now_ms(g);
	double s = now > d->at_ms ? (double)(now - d->at_ms) / 1000 : 0;
	double kept = exp(-s / DRAIN_S);

	d->n *= kept;
	d->s *= kept;
	if (!list_is_empty(&g->waiting))
		d->s += s < DRAIN_S ? s : DRAIN_S;
	d->at_ms = now;
}

/* How long n of them take. Before anybody left it is the next one who will. */
static double drain_s(const struct drain *d, uint32_t n) {
	return n * d->s / fmax(d->n, 1);
}

static void tell_retry_after(struct gatekeeper *g) {
	double s = ceil(drain_s(&g->drain, fair_queue_n(g->queue) + 1));

	atomic_store_explicit(
	    &g->retry_after_s, (uint16_t)fmin(fmax(s, 1), RETRY_AFTER_S), memory_order_relaxed);
}

/* --- verdicts ------------------------------------------------------------------------- */

static struct waiter *waiter_of(struct fair_waiter *fair) {
	return container_of(fair, struct waiter, fair);
}

/* Behind it the waiter is not ours, unless a cancel is on its way. */
static void answer(struct waiter *w, enum gate_verdict verdict) {
	assert(!w->verdict && verdict);
	list_remove(&w->link);
	w->verdict = (uint8_t)verdict;
	loop_post(w->home, &w->mail, w->on_verdict);
}

/* It has its place. What it will cost counts from now on, so that one tenant does not get all at once. */
static void call(struct gatekeeper *g, struct waiter *w) {
	struct target *target = &g->targets[w->place.label];

	g->drain.n++;
	assert(target->round == g->round && target->n_room);
	if (target->n_room != UINT64_MAX)
		target->n_room--;
	atomic_fetch_add(&g->admission->n_promised[w->place.label], 1);
	fair_queue_spend(g->queue, w->place.tenant, w->cost_tokens);
	answer(w, GATE_CALLED);
}

/* --- who may go ----------------------------------------------------------------------- */

/* UINT64_MAX: no end to it, or the pick is to find out. Those that were called and have not picked yet need
 * theirs. */
static uint64_t count_room(const struct gatekeeper *g, uint32_t label) {
	const struct model *model = g->targets[label].model;
	uint64_t n_promised = atomic_load(&g->admission->n_promised[label]), n = 0;

	if (!model || !model->n_candidates)
		return UINT64_MAX;
	for (uint32_t i = 0; i < model->n_candidates; i++) {
		const struct candidate *c = &model->candidates[i];
		uint32_t n_most = snapshot_traits(g->snapshot, c)->capacity;
		uint64_t n_taken;

		if (!n_most)
			return UINT64_MAX;
		if (load_is_below(g->load, c->slot, n_most)) {
			n_taken = load_requests(g->load, c->slot);
			n += n_taken < n_most ? n_most - n_taken : 1;
		}
	}
	return n - u64_min(n, n_promised);
}

static bool has_instance(struct gatekeeper *g, uint32_t label) {
	struct target *target = &g->targets[label];

	if (target->round != g->round) {
		target->n_room = count_room(g, label);
		target->round = g->round;
	}
	return target->n_room > 0;
}

/* What its pick found is the same still. */
static bool is_in_vain(const struct gatekeeper *g, const struct waiter *w) {
	const struct model *model = g->targets[w->place.label].model;

	if (w->lack == GATE_LACKS_INSTANCE)
		return w->n_news == atomic_load(&g->admission->n_news) ||
		    (model && !(model->n_candidates + model->n_reserve));
	if (w->lack == GATE_LACKS_NOTHING || w->n_news != atomic_load(&g->admission->n_news))
		return false;
	/* Until it was asked in first, a vacancy was nobody's news. */
	return w->is_again && w->n_vacancies == atomic_load(&g->admission->n_vacancies);
}

static bool may_go(void *context, const struct fair_waiter *fair) {
	struct gatekeeper *g = context;
	const struct waiter *w = container_of(fair, const struct waiter, fair);

	return w->skipped_at != g->round && fair->ends_ms >= now_ms(g) &&
	    admission_has_room(g->admission, &w->place) && !is_in_vain(g, w) &&
	    has_instance(g, w->place.label);
}

/* False: a worker was faster. That one gives it back, or asks in itself: another turn follows. */
static bool try_call(struct gatekeeper *g, struct waiter *w) {
	if (!admission_take(g->admission, &w->place)) {
		w->skipped_at = g->round;
		return false;
	}
	call(g, w);
	return true;
}

static void serve(struct gatekeeper *g) {
	struct fair_waiter *next;

	g->round++;
	while ((next = fair_queue_take(g->queue, may_go, g)))
		if (!try_call(g, waiter_of(next)))
			fair_queue_return(g->queue, next);
}

/* --- who comes ------------------------------------------------------------------------ */

static void expire(struct gatekeeper *g) {
	struct fair_waiter *out;

	while ((out = fair_queue_expire(g->queue, now_ms(g))))
		answer(waiter_of(out), GATE_EXPIRED);
}

/* Those before it will take longer than it may wait. */
static bool is_late(const struct gatekeeper *g, const struct waiter *w) {
	double s = drain_s(&g->drain, fair_queue_position(g->queue, &w->fair) + 1);

	return w->has_deadline && g->drain.n >= DRAIN_MIN &&
	    (double)w->fair.ends_ms < (double)now_ms(g) + s * 1000;
}

static void enqueue(struct gatekeeper *g, struct waiter *w) {
	struct fair_waiter *out;

	if (fair_queue_n(g->queue) >= gatekeeper_n_max(g))
		expire(g);
	out = fair_queue_put(g->queue, &w->fair);
	if (out == &w->fair) {
		answer(w, GATE_FULL);
		return;
	}
	list_remove(&w->link);
	list_push(&g->waiting, &w->link);
	if (out)
		answer(waiter_of(out), GATE_DISPLACED);
	if (is_late(g, w)) {
		fair_queue_remove(g->queue, &w->fair);
		answer(w, GATE_LATE);
	}
}

static void enqueue_again(struct gatekeeper *g, struct waiter *w) {
	fair_queue_return(g->queue, &w->fair);
	list_remove(&w->link);
	list_push(&g->waiting, &w->link);
}

/* All before it have had their chance: a full queue of those that wait for something else is none of its
 * concern. */
static void let_in(struct gatekeeper *g, struct waiter *w) {
	w->asked_ms = w->is_again ? w->asked_ms : now_ms(g);
	g->round++;
	if (may_go(g, &w->fair) && try_call(g, w))
		return;
	if (w->is_again)
		enqueue_again(g, w);
	else
		enqueue(g, w);
}

static void run(struct job *job) {
	struct gatekeeper *g = container_of(job, struct gatekeeper, job);
	struct list *first;

	drain_advance(g);
	serve(g);
	while ((first = list_first(&g->asked)))
		let_in(g, container_of(first, struct waiter, link));
	tell_retry_after(g);
	if (!list_is_empty(&g->waiting) && !timer_is_running(&g->tick))
		loop_timer(g->loop, &g->tick, TICK_MS);
}

static void on_tick(struct timer *timer) {
	struct gatekeeper *g = container_of(timer, struct gatekeeper, tick);

	atomic_fetch_add(&g->admission->n_news, 1);
	loop_wake(g->loop, &g->job);
}

/* --- mail ----------------------------------------------------------------------------- */

static void on_ask(struct mail *mail) {
	struct waiter *w = container_of(mail, struct waiter, mail);

	list_init(&w->link);
	list_push(&w->gate->asked, &w->link);
	loop_wake(w->gate->loop, &w->gate->job);
}

void gatekeeper_ask(struct waiter *w) {
	w->verdict = GATE_NONE;
	w->skipped_at = 0;
	list_init(&w->fair.link);
	loop_post(w->gate->loop, &w->mail, on_ask);
}

/* It may be among those asked in, in the queue, or have its verdict. */
static void on_cancel(struct mail *mail) {
	struct waiter *w = container_of(mail, struct waiter, cancel);

	if (list_is_linked(&w->fair.link))
		fair_queue_remove(w->gate->queue, &w->fair);
	list_remove(&w->link);
	loop_post(w->home, &w->cancel, w->on_cancelled);
}

void gatekeeper_cancel(struct waiter *w) {
	loop_post(w->gate->loop, &w->cancel, on_cancel);
}

static void on_bell(struct mail *mail) {
	struct gate_bell *bell = container_of(mail, struct gate_bell, mail);
	struct gatekeeper *g = bell->gate;

	/* Before anybody looks: what is released from now on rings again, and then the bell is its worker's.
	 */
	atomic_store(&bell->is_rung, false);
	loop_wake(g->loop, &g->job);
}

void gatekeeper_tell(struct gatekeeper *g, struct gate_bell *bell) {
	if (atomic_exchange(&bell->is_rung, true))
		return;
	bell->gate = g;
	loop_post(g->loop, &bell->mail, on_bell);
}

/* --- life ------------------------------------------------------------------------------ */

static uint32_t *weights_of(const struct admission_tenant *tenants, uint32_t n) {
	uint32_t *weights = calloc(n, sizeof(*weights));

	for (uint32_t i = 0; i < n; i++)
		weights[i] = tenants[i].weight;
	return weights;
}

struct gatekeeper *gatekeeper_new(const struct gatekeeper_options *options) {
	struct gatekeeper *g = calloc(1, sizeof(*g));
	uint32_t *weights = weights_of(options->tenants, options->n_tenants);

	g->loop = options->loop;
	g->admission = options->admission;
	g->load = options->load;
	atomic_init(&g->n_max, options->n_max);
	g->queue = fair_queue_new(weights, options->n_tenants, options->n_max);
	g->retry_after_s = 1;
	job_init(&g->job, run);
	timer_init(&g->tick, on_tick);
	list_init(&g->asked);
	list_init(&g->waiting);
	free(weights);
	return g;
}

void gatekeeper_limit(
    struct gatekeeper *g, const struct admission_tenant *tenants, uint32_t n_tenants, uint32_t n_max) {
	uint32_t *weights = weights_of(tenants, n_tenants);

	fair_queue_limit(g->queue, weights, n_tenants, n_max);
	atomic_store_explicit(&g->n_max, n_max, memory_order_relaxed);
	free(weights);
	loop_wake(g->loop, &g->job);
}

void gatekeeper_free(struct gatekeeper **gate) {
	struct gatekeeper *g = *gate;

	*gate = NULL;
	if (!g)
		return;
	assert(list_is_empty(&g->asked) && list_is_empty(&g->waiting));
	timer_stop(&g->tick);
	job_cancel(&g->job);
	fair_queue_free(&g->queue);
	snapshot_unref(&g->snapshot);
	free(g);
}

void gatekeeper_publish(struct gatekeeper *g, struct snapshot *snapshot) {
	struct snapshot *old = g->snapshot;

	g->snapshot = snapshot_ref(snapshot);
	for (uint32_t label = 0; label < LABELS; label++)
		g->targets[label].model = NULL;
	for (uint32_t i = 0; i < snapshot->n_models; i++)
		if (snapshot->models[i].label != LABEL_OTHER)
			g->targets[snapshot->models[i].label].model = &snapshot->models[i];
	g->targets[LABEL_OTHER].model = &g->snapshot->any;
	snapshot_unref(&old);
	atomic_fetch_add(&g->admission->n_news, 1);
	loop_wake(g->loop, &g->job);
}

void gatekeeper_deliver(struct gatekeeper *g) {
	loop_deliver(g->loop);
}

/* --- sights ---------------------------------------------------------------------------- */

void gatekeeper_spend(struct gatekeeper *g, uint32_t tenant, int64_t n_tokens) {
	fair_queue_spend(g->queue, tenant, (uint64_t)n_tokens);
}

uint16_t gatekeeper_retry_after_s(const struct gatekeeper *g) {
	return atomic_load_explicit(&g->retry_after_s, memory_order_relaxed);
}

uint32_t gatekeeper_n_max(const struct gatekeeper *g) {
	return atomic_load_explicit(&g->n_max, memory_order_relaxed);
}

uint32_t gatekeeper_n_waiting(const struct gatekeeper *g, unsigned class) {
	return fair_queue_n_class(g->queue, class);
}

double gatekeeper_drain_rate(const struct gatekeeper *g) {
	return g->drain.s > 0 && g->drain.n > 0 ? g->drain.n / g->drain.s : NAN;
}

void gatekeeper_each(const struct gatekeeper *g, gate_see_fn see, void *context) {
	list_each (l, &g->waiting) {
		const struct waiter *w = container_of(l, struct waiter, link);
		struct gate_sight sight = { w, fair_queue_position(g->queue, &w->fair),
			now_ms(g) - u64_min(w->asked_ms, now_ms(g)) };

		see(context, &sight);
	}
}
