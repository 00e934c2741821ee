#include "fleet/guard.h"

#include <pthread.h>

#include "base/log.h"
#include "unit/fleet/scene.h"

static const struct breaker_limits limits = {
	.failures = 3, .successes = 2, .window_ms = 10000, .open_ms = 1000, .open_max_ms = 5000
};

#define STEADY(open_ms) ((open_ms) / 10)

static bool is_flagged(const struct instance *inst) {
	return inst->avoid_until_ms & INSTANCE_GUARDED;
}

static void once(struct instance *inst, enum breaker_outcome outcome, uint64_t now_ms) {
	struct breaker_permit permit;

	assert_true(guard_admit(inst, now_ms, &permit));
	guard_settle(inst, &limits, permit, outcome, STEADY(limits.open_ms), now_ms);
}

static void open_at(struct instance *inst, uint64_t now_ms) {
	for (unsigned i = 0; i < limits.failures; i++)
		once(inst, BREAKER_BAD, now_ms);
}

static void the_flag_is_there_while_it_is_not_closed(void **state) {
	struct instance *inst = scene_instance("a");

	once(inst, BREAKER_BAD, 0);
	assert_true(instance_is_clear(inst, 0) && guard_is_passable(inst, 0));
	once(inst, BREAKER_BAD, 0);
	once(inst, BREAKER_BAD, 0);
	assert_true(is_flagged(inst) && !instance_is_clear(inst, UINT32_MAX));
	assert_false(guard_is_passable(inst, 999));
	assert_true(guard_is_passable(inst, 1000) && guard_is_probing(inst, 1000));
	assert_false(guard_is_probing(inst, 999));
	once(inst, BREAKER_GOOD, 1000);
	assert_true(is_flagged(inst)); /* half-open */
	once(inst, BREAKER_GOOD, 1000);
	assert_true(instance_is_clear(inst, 0) && !guard_is_probing(inst, 1000));
	instance_unref(&inst);
}

/* What is held against an instance for its connects, and its rests, come and go beside it. */
static void the_flag_and_avoidance_do_not_move_each_other(void **state) {
	struct instance *inst = scene_instance("a");

	open_at(inst, 100);
	assert_false(instance_is_avoided(inst, 100));
	assert_int_equal(instance_refused_until_ms(inst), 0);
	instance_avoid(inst, 100);
	assert_true(is_flagged(inst) && instance_is_avoided(inst, 1099) && !instance_is_avoided(inst, 1100));
	assert_int_equal(instance_refused_until_ms(inst), 1100);
	instance_rest(inst, 1100, 500);
	assert_true(is_flagged(inst) && instance_avoided_until_ms(inst) == 1600);
	assert_int_equal(instance_refused_until_ms(inst), 0);
	instance_succeeded(inst);
	assert_true(is_flagged(inst) && !instance_is_avoided(inst, 1100));
	instance_avoid(inst, 2000);
	guard_reset(inst);
	assert_true(!is_flagged(inst) && instance_is_avoided(inst, 2999));
	instance_unref(&inst);
}

static void moves_are_counted_and_failures_remembered(void **state) {
	struct instance *inst = scene_instance("a");

	once(inst, BREAKER_NEUTRAL, 5);
	assert_int_equal(inst->failed_ms, 0);
	open_at(inst, 7);
	assert_int_equal(inst->failed_ms, 7);
	once(inst, BREAKER_BAD, 1007); /* as a probe */
	once(inst, BREAKER_NEUTRAL, 100000);
	once(inst, BREAKER_GOOD, 100000);
	once(inst, BREAKER_GOOD, 100000);
	guard_trip(inst, &limits, 100000);
	guard_trip(inst, &limits, 100000);
	guard_reset(inst);
	guard_reset(inst);
	assert_int_equal(inst->n_moves[BREAKER_CLOSED][BREAKER_OPEN], 2);
	assert_int_equal(inst->n_moves[BREAKER_OPEN][BREAKER_HALF_OPEN], 2);
	assert_int_equal(inst->n_moves[BREAKER_HALF_OPEN][BREAKER_OPEN], 1);
	assert_int_equal(inst->n_moves[BREAKER_HALF_OPEN][BREAKER_CLOSED], 1);
	assert_int_equal(inst->n_moves[BREAKER_OPEN][BREAKER_CLOSED], 1);
	assert_int_equal(inst->n_moves[BREAKER_OPEN][BREAKER_OPEN], 0);
	instance_unref(&inst);
}

/* Its probes are good again: a request may try, too. What an operator wants stays. */
static void health_ends_the_wait_but_not_one_by_hand(void **state) {
	struct instance *inst = scene_instance("a");

	guard_relent(inst, 0);
	assert_true(instance_is_clear(inst, 0));
	open_at(inst, 0);
	guard_relent(inst, 10);
	assert_true(guard_is_probing(inst, 10));
	once(inst, BREAKER_BAD, 10); /* it was a lie: longer */
	assert_false(guard_is_passable(inst, 10 + 1000));
	guard_relent(inst, 20);
	once(inst, BREAKER_GOOD, 20);
	once(inst, BREAKER_GOOD, 20);
	guard_trip(inst, &limits, 20);
	guard_relent(inst, 30);
	assert_false(guard_is_passable(inst, 5019));
	assert_true(guard_is_passable(inst, 5020));
	instance_unref(&inst);
}

/* A flag that is late is made good by who is refused. */
static void who_is_refused_brings_the_flag(void **state) {
	struct instance *inst = scene_instance("a");
	struct breaker_permit permit;

	open_at(inst, 0);
	inst->avoid_until_ms = 0;
	assert_true(guard_is_passable(inst, 0));
	assert_false(guard_admit(inst, 0, &permit));
	assert_false(guard_is_passable(inst, 0));
	instance_unref(&inst);
}

#define ROUNDS 20000u

static void *mover(void *object) {
	struct instance *inst = object;
	struct breaker_permit permit;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		if (i % 7 == 0)
			guard_reset(inst);
		else if (i % 5 == 0)
			guard_relent(inst, i);
		else if (i % 3 == 0)
			instance_avoid(inst, i);
		else if (guard_admit(inst, i, &permit))
			guard_settle(inst, &limits, permit, i % 2 ? BREAKER_BAD : BREAKER_GOOD, i, i);
	}
	return NULL;
}

static void after_all_moves_the_flag_is_true(void **state) {
	log_set_level(LOG_ERROR); /* thousands of moves */
	for (unsigned round = 0; round < 20; round++) {
		struct instance *inst = scene_instance("a");
		pthread_t threads[3];

		for (size_t i = 0; i < n_elems(threads); i++)
			assert_int_equal(pthread_create(&threads[i], NULL, mover, inst), 0);
		for (size_t i = 0; i < n_elems(threads); i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(is_flagged(inst), breaker_peek(&inst->breaker, 0).state != BREAKER_CLOSED);
		instance_unref(&inst);
	}
	log_set_level(LOG_INFO);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_flag_is_there_while_it_is_not_closed),
		cmocka_unit_test(the_flag_and_avoidance_do_not_move_each_other),
		cmocka_unit_test(moves_are_counted_and_failures_remembered),
		cmocka_unit_test(health_ends_the_wait_but_not_one_by_hand),
		cmocka_unit_test(who_is_refused_brings_the_flag),
		cmocka_unit_test(after_all_moves_the_flag_is_true),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
