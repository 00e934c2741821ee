#include "router/leavers.h"

#include <stdlib.h>

struct leaver {
	struct instance *instance;
	json_t *worker;
	uint64_t until_ms;
};

struct leavers {
	const struct load *load;
	unsigned n;
	struct leaver all[LEAVERS_MAX]; /* the oldest first */
};

static void let_go(struct leaver *leaver) {
	instance_unref(&leaver->instance);
	json_decref(leaver->worker);
}

struct leavers *leavers_new(const struct load *load) {
	struct leavers *l = calloc(1, sizeof(*l));

	l->load = load;
	return l;
}

void leavers_free(struct leavers **leavers) {
	struct leavers *l = *leavers;

	*leavers = NULL;
	for (unsigned i = 0; l && i < l->n; i++)
		let_go(&l->all[i]);
	free(l);
}

static uint64_t requests_of(const struct leavers *l, const struct leaver *leaver) {
	return load_requests(l->load, leaver->instance->slot);
}

static void sweep(struct leavers *l, uint64_t now_ms) {
	unsigned n = 0;

	for (unsigned i = 0; i < l->n; i++) {
		if (now_ms < l->all[i].until_ms && requests_of(l, &l->all[i]))
			l->all[n++] = l->all[i];
		else
			let_go(&l->all[i]);
	}
	l->n = n;
}

static void forget_oldest(struct leavers *l) {
	let_go(&l->all[0]);
	l->n--;
	memmove(&l->all[0], &l->all[1], l->n * sizeof(*l->all));
}

void leavers_add(
    struct leavers *l, struct instance *inst, json_t *worker, uint64_t until_ms, uint64_t now_ms) {
	if (!load_requests(l->load, inst->slot)) {
		json_decref(worker);
		return;
	}
	sweep(l, now_ms);
	if (l->n == LEAVERS_MAX)
		forget_oldest(l);
	l->all[l->n++] = (struct leaver){ instance_ref(inst), worker, until_ms };
}

void leavers_each(struct leavers *l, uint64_t now_ms,
    void (*see)(void *context, const json_t *worker, uint64_t n_requests), void *context) {
	sweep(l, now_ms);
	for (unsigned i = 0; i < l->n; i++) {
		uint64_t n_requests = requests_of(l, &l->all[i]);

		if (n_requests)
			see(context, l->all[i].worker, n_requests);
	}
}
