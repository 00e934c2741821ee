#include "unit/fleet/scene.h"

#include <pthread.h>

static void texts_are_copied_and_terminated(void **state) {
	char name[] = "engine-1";
	struct instance_spec spec = scene_target(name);

	spec.rank = 3;
	struct instance *inst = instance_new(&spec);
	name[0] = 'X';
	assert_string_equal(inst->spec.name.p, "engine-1");
	assert_string_equal(inst->spec.url.p, "http://engine:8000");
	assert_string_equal(inst->spec.authority.p, "engine:8000");
	assert_string_equal(inst->spec.host.p, "engine");
	assert_int_equal(inst->spec.port, 8000);
	assert_int_equal(inst->spec.rank, 3);
	assert_false(instance_spec_eq(&inst->spec, &spec));
	name[0] = 'e';
	assert_true(instance_spec_eq(&inst->spec, &spec));
	instance_unref(&inst);
	assert_null(inst);
	instance_unref(&inst);
}

static void every_part_of_a_spec_counts(void **state) {
	struct instance_spec a = scene_target("a"), b;

	b = a, b.url = SLICE("http://other:8000");
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.authority = SLICE("other:8000");
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.host = SLICE("other");
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.port = 8001;
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.rank = 1;
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.is_tls = true;
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.base = SLICE("/v1");
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.is_provider = true;
	assert_false(instance_spec_eq(&a, &b));
	b = a, b.key = SLICE("secret");
	assert_false(instance_spec_eq(&a, &b));
}

static void who_has_no_key_takes_the_others(void **state) {
	struct instance_spec spec = scene_target("a");

	assert_int_equal(instance_key(&spec, NULL).n, 0);
	assert_true(slice_eq(instance_key(&spec, "all"), SLICE("all")));
	char key[] = "own";
	spec.key = slice_of(key);
	struct instance *inst = instance_new(&spec);
	key[0] = 'X';
	assert_string_equal(instance_key(&inst->spec, "all").p, "own");
	instance_unref(&inst);
}

/* What is for all is not for somebody else's server. */
static void a_provider_has_its_own_key_or_none(void **state) {
	struct instance_spec spec = scene_target("a");

	spec.is_provider = true;
	assert_int_equal(instance_key(&spec, "other").n, 0);
	spec.key = SLICE("own");
	assert_true(slice_eq(instance_key(&spec, "other"), SLICE("own")));
}

static void a_base_stands_in_place_of_v1(void **state) {
	static const struct {
		const char *target, *rest;
	} cases[] = {
		{ "/v1/models", "/models" },
		{ "/v1?x", "?x" },
		{ "/v1", "" },
		{ "/v1beta/models", "/v1beta/models" },
		{ "/", "/" },
		{ "*", "*" },
		{ "/v2/rerank", "/v2/rerank" },
	};
	struct instance_spec spec = scene_target("a");

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct slice target = slice_of(cases[i].target);

		spec.base = (struct slice){ NULL, 0 };
		assert_true(slice_eq(instance_target(&spec, target), target));
		spec.base = SLICE("/b");
		assert_true(slice_eq(instance_target(&spec, target), slice_of(cases[i].rest)));
	}
}

static void a_slot_is_reused_after_the_last_reference(void **state) {
	struct instance *a = scene_instance("a"), *b = scene_instance("b"), *other = instance_ref(a), *c;
	uint16_t slot = a->slot;

	assert_int_not_equal(a->slot, b->slot);
	instance_unref(&a);
	c = scene_instance("c");
	assert_int_not_equal(c->slot, slot);
	instance_unref(&other);
	a = scene_instance("a");
	assert_int_equal(a->slot, slot);
	instance_unref(&a);
	instance_unref(&b);
	instance_unref(&c);
}

static void slots_end_at_the_ceiling(void **state) {
	static struct instance *all[INSTANCE_SLOTS_MAX];
	static bool is_seen[INSTANCE_SLOTS_MAX];
	struct instance_spec spec = scene_target("one-too-many");

	for (size_t i = 0; i < INSTANCE_SLOTS_MAX; i++) {
		all[i] = scene_instance("one-of-many");
		assert_true(all[i]->slot < INSTANCE_SLOTS_MAX && !is_seen[all[i]->slot]);
		is_seen[all[i]->slot] = true;
	}
	assert_null(instance_new(&spec));
	uint16_t slot = all[1000]->slot;
	instance_unref(&all[1000]);
	all[1000] = scene_instance("again");
	assert_int_equal(all[1000]->slot, slot);
	for (size_t i = 0; i < INSTANCE_SLOTS_MAX; i++)
		instance_unref(&all[i]);
}

static void avoidance_doubles_to_its_ceiling(void **state) {
	static const uint64_t waits_ms[] = { 1000, 2000, 4000, 8000, 16000, 30000, 30000 };
	struct instance *inst = scene_instance("a");
	uint64_t now_ms = 500;

	assert_false(instance_is_avoided(inst, now_ms));
	for (size_t i = 0; i < n_elems(waits_ms); i++) {
		instance_avoid(inst, now_ms);
		assert_true(instance_is_avoided(inst, now_ms + waits_ms[i] - 1));
		assert_false(instance_is_avoided(inst, now_ms + waits_ms[i]));
		now_ms += waits_ms[i];
	}
	instance_succeeded(inst);
	instance_avoid(inst, now_ms);
	assert_true(instance_is_avoided(inst, now_ms + 999));
	assert_false(instance_is_avoided(inst, now_ms + 1000));
	instance_unref(&inst);
}

static void failures_of_one_outage_count_once(void **state) {
	struct instance *inst = scene_instance("a");

	for (uint64_t now_ms = 100; now_ms < 200; now_ms++)
		instance_avoid(inst, now_ms);
	assert_true(instance_is_avoided(inst, 1099));
	assert_false(instance_is_avoided(inst, 1100));
	instance_avoid(inst, 1100);
	assert_true(instance_is_avoided(inst, 3099));
	assert_false(instance_is_avoided(inst, 3100));
	instance_unref(&inst);
}

static void success_ends_the_wait(void **state) {
	struct instance *inst = scene_instance("a");

	instance_avoid(inst, 1);
	instance_succeeded(inst);
	assert_false(instance_is_avoided(inst, 1));
	instance_unref(&inst);
}

static void the_last_good_address_is_where_to_start(void **state) {
	struct instance *inst = scene_instance("a");

	assert_int_equal(instance_good_address(inst, 3), 0);
	instance_set_good_address(inst, 2);
	assert_int_equal(instance_good_address(inst, 3), 2);
	instance_avoid(inst, 1);
	instance_succeeded(inst);
	assert_int_equal(instance_good_address(inst, 3), 2);
	/* A worker with an older snapshot may speak of a longer list. */
	assert_in_range(instance_good_address(inst, 2), 0, 1);
	assert_int_equal(instance_good_address(inst, 1), 0);
	instance_unref(&inst);
}

static void what_was_drained_comes_back_through_unknown(void **state) {
	for (enum instance_state to = INSTANCE_UNKNOWN; to < INSTANCE_STATES; to++) {
		for (enum instance_state from = INSTANCE_UNKNOWN; from <= INSTANCE_UNHEALTHY; from++)
			assert_true(instance_state_may_follow(from, to));
		bool may = to == INSTANCE_UNKNOWN || to == INSTANCE_DRAINING || to == INSTANCE_DISABLED;
		assert_int_equal(instance_state_may_follow(INSTANCE_DRAINING, to), may);
		assert_int_equal(instance_state_may_follow(INSTANCE_DISABLED, to), may);
	}
	assert_string_equal(instance_state_text(INSTANCE_UNKNOWN), "unknown");
	assert_string_equal(instance_state_text(INSTANCE_UNHEALTHY), "unhealthy");
	assert_string_equal(instance_state_text(INSTANCE_DISABLED), "disabled");
}

#define ROUNDS 20000

/* Posts evidence and takes references while others do the same. */
static void *witness(void *object) {
	struct instance *inst = object;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		struct instance *own = instance_ref(inst);

		instance_avoid(own, i);
		if (i % 3 == 0)
			instance_succeeded(own);
		instance_is_avoided(own, i);
		instance_set_good_address(own, i % INSTANCE_ADDRESSES_MAX);
		if (instance_good_address(own, 3) >= 3)
			return "beyond the list";
		instance_unref(&own);
	}
	return NULL;
}

static void evidence_from_many_threads_stays_in_bounds(void **state) {
	struct instance *inst = scene_instance("a");
	pthread_t threads[3];
	void *complaint;

	for (size_t i = 0; i < n_elems(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, witness, inst), 0);
	for (size_t i = 0; i < n_elems(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &complaint), 0);
		assert_null(complaint);
	}
	assert_int_equal(inst->refs, 1);
	assert_false(instance_is_avoided(inst, ROUNDS + INSTANCE_AVOID_MAX_MS));

	instance_succeeded(inst);
	instance_avoid(inst, 10 * ROUNDS);
	assert_true(instance_is_avoided(inst, 10 * ROUNDS));
	instance_unref(&inst);
}

static void unref_too_often(void *object) {
	struct instance *inst = object;

	atomic_store(&inst->refs, 0);
	instance_unref(&inst);
}

static void a_reference_too_few_aborts(void **state) {
	struct instance *inst = scene_instance("a");

	assert_true(scene_aborts(unref_too_often, inst));
	instance_unref(&inst);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_copied_and_terminated),
		cmocka_unit_test(every_part_of_a_spec_counts),
		cmocka_unit_test(who_has_no_key_takes_the_others),
		cmocka_unit_test(a_provider_has_its_own_key_or_none),
		cmocka_unit_test(a_base_stands_in_place_of_v1),
		cmocka_unit_test(a_slot_is_reused_after_the_last_reference),
		cmocka_unit_test(slots_end_at_the_ceiling),
		cmocka_unit_test(avoidance_doubles_to_its_ceiling),
		cmocka_unit_test(failures_of_one_outage_count_once),
		cmocka_unit_test(success_ends_the_wait),
		cmocka_unit_test(the_last_good_address_is_where_to_start),
		cmocka_unit_test(what_was_drained_comes_back_through_unknown),
		cmocka_unit_test(evidence_from_many_threads_stays_in_bounds),
		cmocka_unit_test(a_reference_too_few_aborts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
