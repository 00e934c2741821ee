#include "unit/unit.h"

#include <pthread.h>
#include <sched.h>

#include "base/rng.h"
#include "router/admission.h"

static const struct admission_tenant tenants[] = { { .weight = 1 }, { .max_requests = 2, .weight = 1 } };
static const struct option_pair models[] = { { "one-at-a-time", "1" }, { "free", "0" } };

static struct admission *open_with(uint32_t max_requests, uint32_t model_requests) {
	const struct admission_limits limits = { .max_requests = max_requests,
		.model_requests = model_requests,
		.models = { models, n_elems(models) },
		.tenants = tenants,
		.n_tenants = n_elems(tenants) };

	return admission_new(&limits);
}

static void without_caps_nothing_is_counted(void **state) {
	struct admission *a = open_with(0, 0);
	struct place p = { .label = LABEL_OTHER };

	for (unsigned i = 0; i < 1000; i++) {
		assert_true(admission_take(a, &p));
		assert_false(p.held);
	}
	assert_int_equal(a->all.n, 0);
	admission_release(a, &p);
	admission_free(&a);
}

static void each_cap_counts(void **state) {
	struct admission *a = open_with(5, 3);
	struct place places[8] = { { .tenant = 0 } };
	uint16_t m = (uint16_t)label_intern(LABEL_MODEL, SLICE("m"));
	uint16_t one = (uint16_t)label_intern(LABEL_MODEL, SLICE("one-at-a-time"));
	uint16_t free_one = (uint16_t)label_intern(LABEL_MODEL, SLICE("free"));

	for (unsigned i = 0; i < 4; i++) { /* three of a model */
		places[i].label = m;
		assert_int_equal(admission_has_room(a, &places[i]), i < 3);
		assert_int_equal(admission_take(a, &places[i]), i < 3);
	}
	assert_int_equal(a->all.n, 3); /* what was taken in vain came back */
	places[3].label = one;
	assert_true(admission_take(a, &places[3]));
	places[4].label = one;
	assert_false(admission_take(a, &places[4]));
	places[4].label = free_one;
	assert_true(admission_take(a, &places[4]));
	places[5].label = free_one;
	assert_false(admission_take(a, &places[5])); /* five in all */
	for (unsigned i = 0; i < 5; i++) {
		admission_release(a, &places[i]);
		admission_release(a, &places[i]); /* once */
	}
	assert_int_equal(a->all.n, 0);
	for (unsigned i = 0; i < 3; i++) { /* two of the tenant */
		places[i] = (struct place){ .tenant = 1, .label = free_one };
		assert_int_equal(admission_take(a, &places[i]), i < 2);
	}
	for (unsigned i = 0; i < 3; i++)
		admission_release(a, &places[i]);
	admission_free(&a);
}

/* Who comes may pass those that wait for something else. */
static void newcomers_pass_nobody_who_waits_for_the_same(void **state) {
	struct admission *a = open_with(3, 0);
	uint16_t one = (uint16_t)label_intern(LABEL_MODEL, SLICE("one-at-a-time"));
	struct place held = { .label = one }, waiting = held, other = { .label = LABEL_OTHER };

	assert_true(admission_take(a, &held));
	assert_false(admission_is_contended(a, &waiting) || admission_is_awaited(a));
	admission_wait(a, &waiting);
	assert_true(admission_is_awaited(a));
	assert_true(admission_is_contended(a, &waiting));
	assert_false(admission_is_contended(a, &other)); /* one is held, one waits, one is free */
	struct place last = other;
	assert_true(admission_take(a, &last));
	assert_true(admission_is_contended(a, &other));
	admission_unwait(a, &waiting);
	assert_false(admission_is_contended(a, &other));
	admission_release(a, &last);
	admission_release(a, &held);
	admission_free(&a);
}

#define THREADS 3
#define ROUNDS  100000
#define MOST    2

struct shift {
	struct admission *admission;
	_Atomic uint32_t *n_in;
	uint64_t seed;
};

static void *work(void *object) {
	const struct shift *shift = object;
	struct rng rng;

	rng_init(&rng, shift->seed);
	for (unsigned n_taken = 0; n_taken < ROUNDS;) {
		struct place p = { .tenant = (uint16_t)rng_below(&rng, 2), .label = LABEL_OTHER };

		if (!admission_take(shift->admission, &p)) {
			sched_yield(); /* who has it may not be running */
			continue;
		}
		uint32_t n_before = atomic_fetch_add(shift->n_in, 1);
		assert(n_before < MOST);
		atomic_fetch_sub(shift->n_in, 1);
		admission_release(shift->admission, &p);
		n_taken++;
	}
	return NULL;
}

static void caps_are_exact_beside_each_other(void **state) {
	struct admission *a = open_with(MOST, 0);
	struct shift shifts[THREADS];
	pthread_t threads[THREADS];
	_Atomic uint32_t n_in = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		shifts[i] = (struct shift){ a, &n_in, i + 1 };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &shifts[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	admission_free(&a); /* asserts that nothing is held */
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_caps_nothing_is_counted),
		cmocka_unit_test(each_cap_counts),
		cmocka_unit_test(newcomers_pass_nobody_who_waits_for_the_same),
		cmocka_unit_test(caps_are_exact_beside_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
