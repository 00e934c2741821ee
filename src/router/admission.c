#include "router/admission.h"

#include <stdlib.h>

#include "base/text.h"

enum { HOLDS_ALL = 1, HOLDS_TENANT = 2, HOLDS_MODEL = 4 };

static uint32_t max_of(const struct cap *cap) {
	return atomic_load_explicit(&cap->max, memory_order_relaxed);
}

static void set_max(struct cap *cap, uint32_t max) {
	atomic_store_explicit(&cap->max, max, memory_order_relaxed);
}

/* Each is set once: a cap is never seen as another one on its way. */
static void limit_models(struct admission *a, const struct admission_limits *limits) {
	uint32_t max[LABELS];

	for (uint32_t label = 0; label < LABELS; label++)
		max[label] = limits->model_requests;
	for (size_t i = 0; i < limits->models.n; i++) {
		const struct option_pair *pair = &limits->models.items[i];
		uint64_t n;

		if (text_uint(slice_of(pair->value), UINT32_MAX, &n))
			max[label_intern(LABEL_MODEL, slice_of(pair->name))] = (uint32_t)n;
	}
	for (uint32_t label = LABEL_OTHER + 1; label < LABELS; label++)
		set_max(&a->models[label], max[label]);
}

void admission_limit(struct admission *a, const struct admission_limits *limits) {
	bool has_caps = limits->max_requests || limits->model_requests || limits->models.n;

	assert(limits->n_tenants > 0 && limits->n_tenants <= ADMISSION_TENANTS_MAX);
	set_max(&a->all, limits->max_requests);
	limit_models(a, limits);
	for (uint32_t i = 0; i < ADMISSION_TENANTS_MAX; i++) {
		uint32_t max = i < limits->n_tenants ? limits->tenants[i].max_requests : 0;

		set_max(&a->tenants[i], max);
		has_caps |= max > 0;
	}
	atomic_store_explicit(&a->has_caps, has_caps, memory_order_relaxed);
}

struct admission *admission_new(const struct admission_limits *limits) {
	struct admission *a = aligned_alloc(alignof(struct admission), sizeof(*a));

	assert(a);
	memset(a, 0, sizeof(*a));
	admission_limit(a, limits);
	return a;
}

static bool is_unused(const struct cap *cap) {
	return !atomic_load(&cap->n) && !atomic_load(&cap->n_waiting);
}

void admission_free(struct admission **admission) {
	struct admission *a = *admission;

	*admission = NULL;
	if (!a)
		return;
	assert(is_unused(&a->all));
	for (uint32_t i = 0; i < ADMISSION_TENANTS_MAX; i++)
		assert(is_unused(&a->tenants[i]));
	for (uint32_t label = 0; label < LABELS; label++)
		assert(is_unused(&a->models[label]) && !atomic_load(&a->n_promised[label]));
	free(a);
}

/* --- caps -------------------------------------------------------------------------- */

static bool cap_take(struct cap *cap, uint32_t max) {
	uint32_t n = atomic_load_explicit(&cap->n, memory_order_relaxed);

	while (n < max)
		if (atomic_compare_exchange_weak(&cap->n, &n, n + 1))
			return true;
	return false;
}

static void cap_release(struct cap *cap) {
	uint32_t before = atomic_fetch_sub(&cap->n, 1);

	assert(before > 0);
}

static bool cap_has_room(const struct cap *cap) {
	uint32_t max = max_of(cap);

	return !max || atomic_load(&cap->n) < max;
}

/* If all that wait got one, no place would be left. */
static bool cap_is_contended(const struct cap *cap) {
	uint64_t n = atomic_load_explicit(&cap->n, memory_order_relaxed);
	uint64_t n_waiting = atomic_load_explicit(&cap->n_waiting, memory_order_relaxed);

	uint64_t max = max_of(cap);

	return max && n_waiting && n + n_waiting >= max;
}

static void cap_unwait(struct cap *cap) {
	uint32_t before = atomic_fetch_sub(&cap->n_waiting, 1);

	assert(before > 0);
}

/* --- places ------------------------------------------------------------------------ */

static struct cap *tenant_of(struct admission *a, const struct place *place) {
	assert(place->tenant < ADMISSION_TENANTS_MAX);
	return &a->tenants[place->tenant];
}

static struct cap *model_of(struct admission *a, const struct place *place) {
	assert(place->label < LABELS);
	return &a->models[place->label];
}

/* True when it is held, or there is no cap. */
static bool take_part(struct cap *cap, struct place *place, uint8_t part) {
	uint32_t max = max_of(cap); /* once: it may change between two looks */

	if (!max)
		return true;
	if (!cap_take(cap, max))
		return false;
	place->held |= part;
	return true;
}

bool admission_take(struct admission *a, struct place *place) {
	assert(!place->held);
	if (take_part(&a->all, place, HOLDS_ALL) && take_part(tenant_of(a, place), place, HOLDS_TENANT) &&
	    take_part(model_of(a, place), place, HOLDS_MODEL))
		return true;
	/* Who found a cap full because of this waits by now, and is looked at when we ask to wait. */
	admission_release(a, place);
	return false;
}

void admission_release(struct admission *a, struct place *place) {
	if (place->held & HOLDS_MODEL)
		cap_release(model_of(a, place));
	if (place->held & HOLDS_TENANT)
		cap_release(tenant_of(a, place));
	if (place->held & HOLDS_ALL)
		cap_release(&a->all);
	place->held = 0;
}

bool admission_has_room(const struct admission *a, const struct place *place) {
	assert(place->tenant < ADMISSION_TENANTS_MAX && place->label < LABELS);
	return cap_has_room(&a->all) && cap_has_room(&a->tenants[place->tenant]) &&
	    cap_has_room(&a->models[place->label]);
}

void admission_wait(struct admission *a, const struct place *place) {
	atomic_fetch_add(&a->all.n_waiting, 1);
	atomic_fetch_add(&tenant_of(a, place)->n_waiting, 1);
	atomic_fetch_add(&model_of(a, place)->n_waiting, 1);
}

void admission_unwait(struct admission *a, const struct place *place) {
	cap_unwait(model_of(a, place));
	cap_unwait(tenant_of(a, place));
	cap_unwait(&a->all);
}

/* Waiters of a model may wait for an instance, whatever the cap. */
bool admission_is_contended(const struct admission *a, const struct place *place) {
	if (!atomic_load_explicit(&a->all.n_waiting, memory_order_relaxed))
		return false;
	return atomic_load_explicit(&a->models[place->label].n_waiting, memory_order_relaxed) ||
	    cap_is_contended(&a->all) || cap_is_contended(&a->tenants[place->tenant]);
}
