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
#define ROUNDS  50000

struct shift {
	struct load *load;
	unsigned worker;
};

/* Never more than two requests at a time; one stays behind at the end. */
static void *work(void *object) {
	const struct shift *shift = object;

	for (unsigned i = 0; i < ROUNDS; i++) {
		load_charge(shift->load, shift->worker, 5, 0);
		load_charge(shift->load, shift->worker, i % 2 ? 5 : 6, 0);
		load_release_prefill(shift->load, shift->worker, i % 2 ? 5 : 6, 0);
		load_release_prefill(shift->load, shift->worker, 5, 0);
	}
	load_charge(shift->load, shift->worker, 5, 0);
	return NULL;
}

static void sums_beside_running_workers(void **state) {
	struct load *load = load_new(WORKERS);
	struct shift shifts[WORKERS];
	pthread_t threads[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++) {
		shifts[i] = (struct shift){ load, i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &shifts[i]), 0);
	}
	for (unsigned i = 0; i < ROUNDS; i++)
		assert_in_range(load_requests(load, 5), 0, 2 * WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(load_requests(load, 5), WORKERS);
	assert_int_equal(load_requests(load, 6), 0);
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
