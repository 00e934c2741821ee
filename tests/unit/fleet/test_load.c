#include "unit/fleet/scene.h"

#include <pthread.h>

#include "fleet/load.h"

static void sums_go_over_workers(void **state) {
	struct load *load = load_new(3);

	for (unsigned worker = 0; worker < 3; worker++)
		for (unsigned i = 0; i <= worker; i++)
			load_charge(load, worker, 7, 0);
	load_charge(load, 1, INSTANCE_SLOTS_MAX - 1, 0);
	assert_int_equal(load_requests(load, 7), 6);
	assert_int_equal(load_requests(load, 6), 0);
	assert_int_equal(load_requests(load, INSTANCE_SLOTS_MAX - 1), 1);
	load_release_prefill(load, 2, 7, 0);
	assert_int_equal(load_requests(load, 7), 5);
	load_free(&load);
	assert_null(load);
	load_free(&load);
}

static void tokens_move_and_go(void **state) {
	struct load *load = load_new(2);
	struct load_sum sum;

	load_charge(load, 0, 7, 100);
	load_charge(load, 1, 7, 20);
	load_move(load, 0, 7, 100, 300);
	sum = load_sum(load, 7);
	assert_int_equal(sum.n_requests, 2);
	assert_int_equal(sum.n_prefills, 1);
	assert_int_equal(sum.prefill_tokens, 20);
	assert_int_equal(sum.decode_tokens, 300);
	load_release_prefill(load, 1, 7, 20);
	load_release_decode(load, 0, 7, 300);
	sum = load_sum(load, 7);
	assert_int_equal(sum.n_requests + sum.n_prefills + sum.prefill_tokens + sum.decode_tokens, 0);
	load_free(&load);
}

static void the_head_is_the_oldest_of_all_workers(void **state) {
	struct load *load = load_new(3);

	load_set_head(load, 0, 7, 50, 500);
	assert_int_equal(load_sum(load, 7).head_ns, 0); /* nobody waits there */
	load_charge(load, 0, 7, 500);
	load_charge(load, 2, 7, 400);
	load_set_head(load, 2, 7, 40, 400);
	assert_int_equal(load_sum(load, 7).head_ns, 40);
	assert_int_equal(load_sum(load, 7).head_tokens, 400);
	load_set_head(load, 2, 7, 0, 0);
	assert_int_equal(load_sum(load, 7).head_ns, 50);
	assert_int_equal(load_sum(load, 7).head_tokens, 500);
	load_free(&load);
}

static void workers_share_no_cache_line(void **state) {
	struct load *load = load_new(2);

	for (unsigned worker = 0; worker < 2; worker++)
		assert_int_equal((uintptr_t)&load->shards[worker] % 64, 0);
	load_free(&load);
}

static void release_worker_0(void *object) {
	load_release_prefill(object, 0, 7, 0);
}

static void a_release_without_a_charge_aborts(void **state) {
	struct load *load = load_new(2);

	/* Another worker's charge does not count. */
	load_charge(load, 1, 7, 0);
	assert_true(scene_aborts(release_worker_0, load));
	load_charge(load, 0, 7, 0);
	assert_false(scene_aborts(release_worker_0, load));
	load_free(&load);
}

#define WORKERS 3
#define ROUNDS  400000

struct shift {
	struct load *load;
	unsigned worker;
	pthread_barrier_t *begin;
};

/* Never more than two requests at a time, of worker + 1 tokens each; one of either kind stays behind. */
static void *work(void *object) {
	const struct shift *shift = object;
	struct load *load = shift->load;
	unsigned worker = shift->worker;
	uint64_t n_tokens = worker + 1;

	pthread_barrier_wait(shift->begin);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned slot = i % 2 ? 5 : 6;

		load_charge(load, worker, 5, n_tokens);
		load_charge(load, worker, slot, n_tokens);
		load_move(load, worker, slot, n_tokens, 10 * n_tokens);
		load_release_decode(load, worker, slot, 10 * n_tokens);
		load_release_prefill(load, worker, 5, n_tokens);
	}
	load_charge(load, worker, 5, n_tokens);
	load_charge(load, worker, 5, n_tokens);
	load_move(load, worker, 5, n_tokens, 10 * n_tokens);
	return NULL;
}

/* What each worker has in its own account. */
static void assert_total_is_of_cells(const struct load *load, unsigned slot) {
	struct load_sum total = load_total(load, slot), sum = { .n_requests = 0 };

	for (unsigned w = 0; w < load->n_workers; w++) {
		const struct load_cell *cell = &load->shards[w].cells[slot];

		sum.n_requests += cell->n_requests;
		sum.n_prefills += cell->n_prefills;
		sum.prefill_tokens += cell->prefill_tokens;
		sum.decode_tokens += cell->decode_tokens;
	}
	assert_int_equal(total.n_requests, sum.n_requests);
	assert_int_equal(total.n_prefills, sum.n_prefills);
	assert_int_equal(total.prefill_tokens, sum.prefill_tokens);
	assert_int_equal(total.decode_tokens, sum.decode_tokens);
}

static void sums_beside_running_workers(void **state) {
	const unsigned n_tokens = WORKERS * (WORKERS + 1) / 2; /* one request of each worker */
	struct load *load = load_new(WORKERS);
	struct shift shifts[WORKERS];
	pthread_t threads[WORKERS];
	pthread_barrier_t begin;

	assert_int_equal(pthread_barrier_init(&begin, NULL, WORKERS), 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		shifts[i] = (struct shift){ load, i, &begin };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &shifts[i]), 0);
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_in_range(load_requests(load, 5), 0, 2 * WORKERS);
		assert_in_range(load_total(load, 5).prefill_tokens, 0, 2 * n_tokens);
		assert_in_range(load_total(load, 5).decode_tokens, 0, 10 * n_tokens);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_total_is_of_cells(load, 5);
	assert_total_is_of_cells(load, 6);
	assert_int_equal(load_total(load, 5).n_requests, 2 * WORKERS);
	assert_int_equal(load_total(load, 5).n_prefills, WORKERS);
	assert_int_equal(load_total(load, 5).prefill_tokens, n_tokens);
	assert_int_equal(load_total(load, 5).decode_tokens, 10 * n_tokens);
	assert_int_equal(load_requests(load, 6), 0);
	pthread_barrier_destroy(&begin);
	load_free(&load);
}

#define MOST 2

/* Counted by itself there are never more in than may be. */
static void *compete(void *object) {
	static _Atomic uint32_t n_in;
	const struct shift *shift = object;

	pthread_barrier_wait(shift->begin);
	for (unsigned i = 0; i < ROUNDS / 4; i++) {
		if (!load_try_charge(shift->load, shift->worker, 5, 3, MOST))
			continue;
		uint32_t n_before = atomic_fetch_add(&n_in, 1);
		assert(n_before < MOST);
		atomic_fetch_sub(&n_in, 1);
		load_release_prefill(shift->load, shift->worker, 5, 3);
	}
	return NULL;
}

static void of_two_that_would_be_the_last_one_is(void **state) {
	struct load *load = load_new(WORKERS);
	struct shift shifts[WORKERS];
	pthread_t threads[WORKERS];
	pthread_barrier_t begin;

	assert_true(load_is_below(load, 5, 1) && load_try_charge(load, 0, 5, 7, 1));
	assert_false(load_is_below(load, 5, 1) || load_try_charge(load, 1, 5, 7, 1));
	assert_int_equal(load_total(load, 5).prefill_tokens, 7);
	assert_int_equal(load_total(load, 5).n_prefills, 1);
	load_release_prefill(load, 0, 5, 7);
	assert_int_equal(pthread_barrier_init(&begin, NULL, WORKERS), 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		shifts[i] = (struct shift){ load, i, &begin };
		assert_int_equal(pthread_create(&threads[i], NULL, compete, &shifts[i]), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(load_requests(load, 5), 0);
	pthread_barrier_destroy(&begin);
	load_free(&load);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_go_over_workers),
		cmocka_unit_test(tokens_move_and_go),
		cmocka_unit_test(the_head_is_the_oldest_of_all_workers),
		cmocka_unit_test(workers_share_no_cache_line),
		cmocka_unit_test(a_release_without_a_charge_aborts),
		cmocka_unit_test(sums_beside_running_workers),
		cmocka_unit_test(of_two_that_would_be_the_last_one_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
