/*
 * admission: how many requests may be in flight, and who waits to be.
 *
 * A place is a request's leave to be in flight: one of all, one of its tenant's and one of its
 * model's, each as far as there is a cap. Taken together or not at all, held from before the pick
 * until the last byte, released once. Caps are exact: of two that would be the last, one gets in.
 * Of instances the load is the count (load_try_charge()).
 *
 * Who gets no place may wait for one (router/gatekeeper.h). Here is only how many do, so that
 * who releases a place knows that somebody is to be told, and who comes knows that others were there before.
 *
 * Caps may change at any time: what is in flight stays, and what began while there was none is not counted in
 * a new one.
 *
 * Atomics, any thread, no locks. The order makes that nobody is forgotten: who waits says so first and
 * looks then; who releases does so first and then looks who waits.
 */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>

#include "base/option.h"
#include "fleet/label.h"

#define ADMISSION_TENANTS_MAX 4096u

/* What a tenant may; by its index, 0 for requests that are nobody's. */
struct admission_tenant {
	uint32_t max_requests; /* 0: no cap */
	uint32_t weight;       /* 1 or more: its share while others wait, too */
	uint8_t class;         /* the best that it may have, of FAIR_CLASSES: 0 is all */
};

struct admission_limits {
	uint32_t max_requests;                  /* 0: no cap; so below */
	uint32_t model_requests;                /* of each model */
	struct option_map models;               /* of single ones: a number each, that was checked */
	const struct admission_tenant *tenants; /* by number; of weight 0: nobody's */
	uint32_t n_tenants;                     /* 1 or more, up to ADMISSION_TENANTS_MAX */
};

struct cap {
	_Atomic uint32_t n; /* that have a place; not counted without a cap */
	_Atomic uint32_t n_waiting;
	_Atomic uint32_t max; /* 0: none */
};

struct admission {
	alignas(64) struct cap all;
	_Atomic bool has_caps;
	struct cap tenants[ADMISSION_TENANTS_MAX];
	struct cap models[LABELS];           /* by label; those that share LABEL_OTHER have no cap */
	_Atomic uint32_t n_promised[LABELS]; /* that were called, and have not picked yet */
	/* What may let those go on whose pick found nobody: times that an instance had room again while
	 * somebody waited, and that the fleet was another one or some time had passed. */
	_Atomic uint64_t n_vacancies, n_news;
};

/* Of whom, and what of it is held. */
struct place {
	uint16_t tenant, label;
	uint8_t held; /* private */
};

/* On the control thread: labels are made for the models that are named. Copies what it needs. */
must_use struct admission *admission_new(const struct admission_limits *limits);

/* On the control thread: other limits. Who waits may have room now: the gatekeeper is to look. */
void admission_limit(struct admission *admission, const struct admission_limits *limits);

/* Nobody waits and no place is held. */
void admission_free(struct admission **admission);

/* All of it, or nothing and false. `place` holds nothing. */
must_use bool admission_take(struct admission *admission, struct place *place);

/* Gives back what it holds, if anything. */
void admission_release(struct admission *admission, struct place *place);

/* As things are a place could be taken. */
bool admission_has_room(const struct admission *admission, const struct place *place);

/* One more waits, before it looks for a place; one less. */
void admission_wait(struct admission *admission, const struct place *place);
void admission_unwait(struct admission *admission, const struct place *place);

/* After a release. */
static inline bool admission_is_awaited(const struct admission *a) {
	return atomic_load(&a->all.n_waiting) > 0;
}

/* There are no caps, and nobody waits for anything else: a place is nothing. */
static inline bool admission_is_open(const struct admission *a) {
	return !atomic_load_explicit(&a->has_caps, memory_order_relaxed) &&
	    !atomic_load_explicit(&a->all.n_waiting, memory_order_relaxed);
}

/* Those who wait came first, and there may not be enough for them: a newcomer is not to pass them. */
bool admission_is_contended(const struct admission *admission, const struct place *place);
