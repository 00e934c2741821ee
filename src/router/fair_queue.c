#include "router/fair_queue.h"

#include <math.h>
#include <stdlib.h>

/* One tenant's waiters of one class, in the order in which they came. */
struct flow {
	struct list waiters;
	struct list link; /* in the class's flows while there are any */
};

struct tenant {
	_Atomic uint64_t n_spent;
	double lift;     /* what it could have had while it was away */
	uint32_t weight; /* 0: it never was one, and its lists are none yet */
	uint32_t n_waiting;
	bool is_there;
	struct flow flows[FAIR_CLASSES];
};

struct class {
	struct list flows;
	struct list by_age;
	uint32_t n;
};

struct fair_queue {
	struct class classes[FAIR_CLASSES];
	uint32_t n, n_max;
	struct tenant tenants[FAIR_TENANTS_MAX]; /* memory is used for those that there ever were */
};

static void open_flows(struct tenant *t) {
	for (unsigned c = 0; c < FAIR_CLASSES; c++) {
		list_init(&t->flows[c].waiters);
		list_init(&t->flows[c].link);
	}
}

static double spent_by(const struct tenant *t) {
	return t->weight ? (double)atomic_load_explicit(&t->n_spent, memory_order_relaxed) / t->weight : 0;
}

/* Its counter stays where it is, but for somebody new: what was spent on the number is not its. */
static void set_weight(struct tenant *t, uint32_t weight) {
	double kept = t->is_there ? spent_by(t) + t->lift : 0;

	assert(weight > 0);
	if (!t->weight)
		open_flows(t);
	t->weight = weight;
	t->is_there = true;
	t->lift = kept - spent_by(t);
}

void fair_queue_limit(struct fair_queue *q, const uint32_t *weights, uint32_t n_tenants, uint32_t n_max) {
	assert(n_tenants > 0 && n_tenants <= FAIR_TENANTS_MAX);
	q->n_max = n_max;
	for (uint32_t t = 0; t < FAIR_TENANTS_MAX; t++) {
		uint32_t weight = t < n_tenants ? weights[t] : 0;

		if (weight && (!q->tenants[t].is_there || weight != q->tenants[t].weight))
			set_weight(&q->tenants[t], weight);
		else if (!weight && q->tenants[t].is_there)
			q->tenants[t].is_there = false;
	}
}

struct fair_queue *fair_queue_new(const uint32_t *weights, uint32_t n_tenants, uint32_t n_max) {
	struct fair_queue *q = calloc(1, sizeof(*q));

	for (unsigned c = 0; c < FAIR_CLASSES; c++) {
		list_init(&q->classes[c].flows);
		list_init(&q->classes[c].by_age);
	}
	fair_queue_limit(q, weights, n_tenants, n_max);
	return q;
}

void fair_queue_free(struct fair_queue **queue) {
	assert(!*queue || !(*queue)->n);
	free(*queue);
	*queue = NULL;
}

void fair_queue_spend(struct fair_queue *q, uint32_t tenant, uint64_t n_tokens) {
	assert(tenant < FAIR_TENANTS_MAX);
	atomic_fetch_add_explicit(&q->tenants[tenant].n_spent, n_tokens, memory_order_relaxed);
}

static double counter_of(const struct tenant *t) {
	return spent_by(t) + t->lift;
}

static struct tenant *tenant_of(const struct flow *flow, unsigned class) {
	return container_of(flow - class, struct tenant, flows[0]);
}

/* Of those that wait, in any class; INFINITY: nobody does. */
static double least_counter(const struct fair_queue *q) {
	double least = INFINITY;

	for (unsigned c = 0; c < FAIR_CLASSES; c++)
		list_each (l, &q->classes[c].flows)
			least = fmin(least, counter_of(tenant_of(container_of(l, struct flow, link), c)));
	return least;
}

/* It begins to wait where the others are by now. */
static void catch_up(struct fair_queue *q, struct tenant *t) {
	double least = least_counter(q);

	if (!isinf(least))
		t->lift += fmax(0, least - counter_of(t));
}

static struct fair_waiter *youngest_above(const struct fair_queue *q, unsigned class) {
	for (unsigned c = FAIR_CLASSES; --c > class;)
		if (q->classes[c].n)
			return container_of(q->classes[c].by_age.prev, struct fair_waiter, by_age);
	return NULL;
}

/* Who of its class has the most in line for its weight: the last of those, if the newcomer's would have less.
 */
static struct fair_waiter *youngest_of_greediest(const struct fair_queue *q, const struct fair_waiter *w) {
	double most = (q->tenants[w->tenant].n_waiting + 1.0) / q->tenants[w->tenant].weight;
	struct fair_waiter *out = NULL;

	list_each (it, &q->classes[w->class].flows) {
		const struct flow *flow = container_of(it, const struct flow, link);
		struct fair_waiter *last = container_of(flow->waiters.prev, struct fair_waiter, link);
		const struct tenant *t = &q->tenants[last->tenant];

		if ((double)t->n_waiting / t->weight > most) {
			most = (double)t->n_waiting / t->weight;
			out = last;
		}
	}
	return out;
}

/* One more; its links are the caller's to make. */
static struct flow *enter(struct fair_queue *q, struct fair_waiter *w) {
	struct tenant *t = &q->tenants[w->tenant];
	struct flow *flow = &t->flows[w->class];

	if (!t->n_waiting++)
		catch_up(q, t);
	if (list_is_empty(&flow->waiters))
		list_push(&q->classes[w->class].flows, &flow->link);
	list_init(&w->link);
	list_init(&w->by_age);
	q->classes[w->class].n++;
	q->n++;
	return flow;
}

struct fair_waiter *fair_queue_put(struct fair_queue *q, struct fair_waiter *w) {
	struct fair_waiter *out = NULL;

	assert(w->tenant < FAIR_TENANTS_MAX && q->tenants[w->tenant].weight && w->class < FAIR_CLASSES);
	if (q->n >= q->n_max) {
		out = youngest_above(q, w->class);
		if (!out)
			out = youngest_of_greediest(q, w);
		if (!out)
			return w;
		fair_queue_remove(q, out);
	}
	struct flow *flow = enter(q, w);

	list_push(&flow->waiters, &w->link);
	list_push(&q->classes[w->class].by_age, &w->by_age);
	return out;
}

void fair_queue_return(struct fair_queue *q, struct fair_waiter *w) {
	assert(w->tenant < FAIR_TENANTS_MAX && q->tenants[w->tenant].weight && w->class < FAIR_CLASSES);
	struct flow *flow = enter(q, w);

	list_push_front(&flow->waiters, &w->link);
	list_push_front(&q->classes[w->class].by_age, &w->by_age);
}

void fair_queue_remove(struct fair_queue *q, struct fair_waiter *w) {
	struct tenant *t = &q->tenants[w->tenant];
	struct flow *flow = &t->flows[w->class];

	assert(list_is_linked(&w->link) && q->n > 0);
	list_remove(&w->link);
	list_remove(&w->by_age);
	if (list_is_empty(&flow->waiters))
		list_remove(&flow->link);
	t->n_waiting--;
	q->classes[w->class].n--;
	q->n--;
}

static struct fair_waiter *first_with_room(const struct flow *flow, fair_room_fn has_room, void *context) {
	list_each (l, &flow->waiters) {
		struct fair_waiter *w = container_of(l, struct fair_waiter, link);

		if (has_room(context, w))
			return w;
	}
	return NULL;
}

static struct fair_waiter *next_of_class(
    const struct fair_queue *q, unsigned class, fair_room_fn has_room, void *context) {
	struct fair_waiter *next = NULL;
	double least = INFINITY;

	list_each (l, &q->classes[class].flows) {
		const struct flow *flow = container_of(l, struct flow, link);
		double counter = counter_of(tenant_of(flow, class));
		struct fair_waiter *w = counter < least ? first_with_room(flow, has_room, context) : NULL;

		if (w) {
			least = counter;
			next = w;
		}
	}
	return next;
}

struct fair_waiter *fair_queue_take(struct fair_queue *q, fair_room_fn has_room, void *context) {
	for (unsigned c = 0; c < FAIR_CLASSES && q->n; c++) {
		struct fair_waiter *w = next_of_class(q, c, has_room, context);

		if (w) {
			fair_queue_remove(q, w);
			return w;
		}
	}
	return NULL;
}

struct fair_waiter *fair_queue_expire(struct fair_queue *q, uint64_t now_ms) {
	for (unsigned c = 0; c < FAIR_CLASSES && q->n; c++) {
		list_each (l, &q->classes[c].by_age) {
			struct fair_waiter *w = container_of(l, struct fair_waiter, by_age);

			if (w->ends_ms > now_ms)
				continue;
			fair_queue_remove(q, w);
			return w;
		}
	}
	return NULL;
}

uint32_t fair_queue_n(const struct fair_queue *q) {
	return q->n;
}

uint32_t fair_queue_n_class(const struct fair_queue *q, unsigned class) {
	assert(class < FAIR_CLASSES);
	return q->classes[class].n;
}

uint32_t fair_queue_position(const struct fair_queue *q, const struct fair_waiter *waiter) {
	uint32_t n = 0;

	for (unsigned c = 0; c < waiter->class; c++)
		n += q->classes[c].n;
	return n + q->classes[waiter->class].n - 1;
}
