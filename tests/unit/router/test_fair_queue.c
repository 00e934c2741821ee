#include "unit/unit.h"

#include <stdlib.h>

#include "base/rng.h"
#include "router/fair_queue.h"

#define N_MAX 256

/* Waiters, and how many tokens each costs when it goes. */
struct hall {
	struct fair_queue *queue;
	struct fair_waiter waiters[N_MAX];
	uint32_t n_waiters;
	uint32_t closed; /* bits of the targets that have no room */
	uint64_t n_tokens[8];
};

static void hall_open(struct hall *h, const uint32_t *weights, uint32_t n_tenants, uint32_t n_max) {
	*h = (struct hall){ .queue = fair_queue_new(weights, n_tenants, n_max) };
}

static bool has_room(void *context, const struct fair_waiter *w) {
	const struct hall *h = context;

	return !(h->closed >> w->target & 1);
}

static struct fair_waiter *take(struct hall *h) {
	return fair_queue_take(h->queue, has_room, h);
}

static void hall_close(struct hall *h) {
	h->closed = 0;
	while (take(h))
		;
	fair_queue_free(&h->queue);
}

static struct fair_waiter *new_waiter(struct hall *h, uint16_t tenant, uint8_t class, uint32_t target) {
	struct fair_waiter *w = &h->waiters[h->n_waiters++];

	assert_true(h->n_waiters <= N_MAX);
	*w =
	    (struct fair_waiter){ .tenant = tenant, .class = class, .target = target, .ends_ms = UINT64_MAX };
	return w;
}

static struct fair_waiter *come(struct hall *h, uint16_t tenant, uint8_t class, uint32_t target) {
	struct fair_waiter *w = new_waiter(h, tenant, class, target);

	assert_null(fair_queue_put(h->queue, w));
	return w;
}

static const uint32_t equal[] = { 1, 1, 1, 1 };

static void of_one_tenant_the_first_goes_first(void **state) {
	struct fair_waiter *w[5];
	struct hall h;

	hall_open(&h, equal, 1, 10);
	for (unsigned i = 0; i < 5; i++)
		w[i] = come(&h, 0, 1, 0);
	for (unsigned i = 0; i < 5; i++)
		assert_ptr_equal(take(&h), w[i]);
	assert_null(take(&h));
	hall_close(&h);
}

static void lower_classes_go_first(void **state) {
	struct fair_waiter *low, *middle, *high;
	struct hall h;

	hall_open(&h, equal, 2, 10);
	low = come(&h, 0, 7, 0);
	middle = come(&h, 1, 3, 0);
	high = come(&h, 0, 0, 0);
	fair_queue_spend(h.queue, 0, 1000000);
	assert_ptr_equal(take(&h), high);
	assert_ptr_equal(take(&h), middle);
	assert_ptr_equal(take(&h), low);
	hall_close(&h);
}

/* All always wait; each turn costs its tenant other tokens than those of the others. */
static void tenants_share_tokens_by_weight(void **state) {
	static const uint32_t weights[] = { 1, 1, 3 };
	static const uint64_t costs[] = { 100, 1000, 500 };
	struct hall h;

	hall_open(&h, weights, 3, N_MAX);
	for (uint16_t t = 0; t < 3; t++)
		for (unsigned i = 0; i < 4; i++)
			come(&h, t, 1, 0);
	for (unsigned i = 0; i < 20000; i++) {
		struct fair_waiter *w = take(&h);

		h.n_tokens[w->tenant] += costs[w->tenant];
		fair_queue_spend(h.queue, w->tenant, costs[w->tenant]);
		assert_null(fair_queue_put(h.queue, w));
	}
	assert_in_range(h.n_tokens[1] * 100 / h.n_tokens[0], 98, 102);
	assert_in_range(h.n_tokens[2] * 100 / h.n_tokens[0], 298, 302);
	hall_close(&h);
}

/* A tenant with nothing to do for long is not owed that time; nor does it pay for having been alone. */
static void nobody_saves_up(void **state) {
	unsigned n_back = 0;
	struct hall h;

	hall_open(&h, equal, 2, N_MAX);
	fair_queue_spend(h.queue, 0, 1000000); /* while 1 was away */
	for (unsigned i = 0; i < 10; i++) {
		come(&h, 0, 1, 0);
		come(&h, 1, 1, 0);
	}
	for (unsigned i = 0; i < 10; i++) {
		struct fair_waiter *w = take(&h);

		n_back += w->tenant == 1;
		fair_queue_spend(h.queue, w->tenant, 100);
	}
	assert_in_range(n_back, 4, 6);
	hall_close(&h);
}

static void who_has_no_room_holds_nobody_up(void **state) {
	struct fair_waiter *blocked, *free_one, *second;
	struct hall h;

	hall_open(&h, equal, 2, 10);
	blocked = come(&h, 0, 1, 3);
	free_one = come(&h, 0, 1, 2);
	second = come(&h, 0, 1, 3);
	h.closed = 1u << 3;
	assert_ptr_equal(take(&h), free_one);
	assert_null(take(&h));
	h.closed = 0;
	assert_ptr_equal(take(&h), blocked);
	assert_ptr_equal(take(&h), second);
	hall_close(&h);
}

static void when_it_is_full_the_youngest_of_the_last_class_yields(void **state) {
	struct fair_waiter *batch[2], *w;
	struct hall h;

	hall_open(&h, equal, 1, 3);
	come(&h, 0, 1, 0);
	batch[0] = come(&h, 0, 5, 0);
	batch[1] = come(&h, 0, 5, 0);
	w = new_waiter(&h, 0, 5, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), w); /* its equals do not yield */
	w = new_waiter(&h, 0, 2, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), batch[1]);
	assert_int_equal(fair_queue_n(h.queue), 3);
	assert_ptr_equal(fair_queue_put(h.queue, batch[1]), batch[1]);
	assert_int_equal(fair_queue_n_class(h.queue, 5), 1);
	assert_int_equal(fair_queue_position(h.queue, batch[0]), 2);
	hall_close(&h);
}

/* In one class who has the most in line, for its weight, yields to who would still have less. */
static void when_it_is_full_nobody_keeps_all_of_it(void **state) {
	static const uint32_t weights[] = { 1, 1, 2 };
	struct fair_waiter *flood[4], *w;
	struct hall h;

	hall_open(&h, weights, 3, 4);
	for (unsigned i = 0; i < 4; i++)
		flood[i] = come(&h, 0, 4, 0);
	w = new_waiter(&h, 1, 5, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), w); /* of a later class */
	w = new_waiter(&h, 1, 4, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), flood[3]);
	w = new_waiter(&h, 0, 4, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), w); /* the flood itself gains nothing */
	w = new_waiter(&h, 2, 4, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), flood[2]);
	w = new_waiter(&h, 2, 4, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), flood[1]); /* two of twice the weight are as one */
	w = new_waiter(&h, 2, 4, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), w);
	w = new_waiter(&h, 1, 4, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), w);
	assert_int_equal(fair_queue_n(h.queue), 4);
	hall_close(&h);
}

static void a_queue_of_none_takes_nobody(void **state) {
	struct fair_waiter *w;
	struct hall h;

	hall_open(&h, equal, 1, 0);
	w = new_waiter(&h, 0, 0, 0);
	assert_ptr_equal(fair_queue_put(h.queue, w), w);
	hall_close(&h);
}

static void who_waits_too_long_is_out(void **state) {
	struct fair_waiter *w[3];
	struct hall h;

	hall_open(&h, equal, 2, 10);
	for (unsigned i = 0; i < 3; i++) {
		w[i] = come(&h, (uint16_t)(i % 2), (uint8_t)i, 0);
		w[i]->ends_ms = 100 * (3 - i);
	}
	assert_null(fair_queue_expire(h.queue, 99));
	assert_ptr_equal(fair_queue_expire(h.queue, 200), w[1]);
	assert_ptr_equal(fair_queue_expire(h.queue, 200), w[2]);
	assert_null(fair_queue_expire(h.queue, 200));
	assert_ptr_equal(take(&h), w[0]);
	hall_close(&h);
}

/* Whatever happens, the counts are those of a list, and nobody is lost or there twice. */
static void who_returns_is_the_first_again(void **state) {
	struct fair_waiter *w[3];
	struct hall h;

	hall_open(&h, equal, 1, 3);
	for (unsigned i = 0; i < 3; i++)
		w[i] = come(&h, 0, 1, 0);
	assert_ptr_equal(take(&h), w[0]);
	come(&h, 0, 1, 0);
	fair_queue_return(h.queue, w[0]); /* one more than may be */
	assert_int_equal(fair_queue_n(h.queue), 4);
	struct fair_waiter *late = new_waiter(&h, 0, 1, 0);
	assert_ptr_equal(fair_queue_put(h.queue, late), late);
	assert_ptr_equal(take(&h), w[0]);
	assert_ptr_equal(take(&h), w[1]);
	hall_close(&h);
}

static void it_agrees_with_a_list(void **state) {
	bool waits[N_MAX] = { false };
	uint32_t n = 0;
	struct rng rng;
	struct hall h;

	rng_init(&rng, 7);
	hall_open(&h, equal, 4, 40);
	for (unsigned i = 0; i < N_MAX; i++)
		new_waiter(&h, (uint16_t)rng_below(&rng, 4), (uint8_t)rng_below(&rng, FAIR_CLASSES),
		    (uint32_t)rng_below(&rng, 4));
	for (unsigned i = 0; i < 50000; i++) {
		uint32_t at = (uint32_t)rng_below(&rng, N_MAX);
		struct fair_waiter *w = &h.waiters[at], *out;

		h.closed = (uint32_t)rng_below(&rng, 16);
		if (rng_below(&rng, 3) == 0) {
			out = take(&h);
			n -= out != NULL;
			assert_true(!out || (waits[out - h.waiters] && has_room(&h, out)));
			if (out)
				waits[out - h.waiters] = false;
		} else if (waits[at]) {
			fair_queue_remove(h.queue, w);
			waits[at] = false;
			n--;
		} else {
			out = fair_queue_put(h.queue, w);
			assert_true(!out || n == 40);
			n += !out;
			waits[at] = true;
			if (out)
				waits[out - h.waiters] = false;
		}
		assert_int_equal(fair_queue_n(h.queue), n);
	}
	hall_close(&h);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_one_tenant_the_first_goes_first),
		cmocka_unit_test(lower_classes_go_first),
		cmocka_unit_test(tenants_share_tokens_by_weight),
		cmocka_unit_test(nobody_saves_up),
		cmocka_unit_test(who_has_no_room_holds_nobody_up),
		cmocka_unit_test(when_it_is_full_the_youngest_of_the_last_class_yields),
		cmocka_unit_test(when_it_is_full_nobody_keeps_all_of_it),
		cmocka_unit_test(a_queue_of_none_takes_nobody),
		cmocka_unit_test(who_waits_too_long_is_out),
		cmocka_unit_test(who_returns_is_the_first_again),
		cmocka_unit_test(it_agrees_with_a_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
