#include "unit/unit.h"

#include "engine/kv_table.h"

#define TTL_NS 100u

static const struct kv_leg leg = { .part = KV_PREFILL, .key = "a", .prompt = 7 };

static void blocks_are_made_held_and_fetched_once(void **state) {
	struct kv_table *t = kv_table_new(TTL_NS);

	assert_int_equal(kv_table_state(t, "a", 1), KV_UNKNOWN);
	assert_true(kv_table_make(t, &leg, 3, 1));
	assert_int_equal(kv_table_state(t, "a", 1), KV_MAKING);
	kv_table_hold(t, "a", 1);
	assert_int_equal(kv_table_state(t, "a", 100), KV_HELD);
	assert_int_equal(kv_table_rank(t, "a"), 3);
	assert_int_equal(kv_table_prompt(t, "a"), 7);
	kv_table_fetch(t, "a");
	assert_int_equal(kv_table_state(t, "a", 1000), KV_FETCHED);
	kv_table_free(&t);
}

static void blocks_that_nobody_fetches_expire(void **state) {
	struct kv_table *t = kv_table_new(TTL_NS);

	assert_true(kv_table_make(t, &leg, 0, 1));
	kv_table_hold(t, "a", 1);
	assert_int_equal(kv_table_state(t, "a", 101), KV_EXPIRED);
	kv_table_free(&t);
}

static void only_what_is_not_complete_fails(void **state) {
	struct kv_table *t = kv_table_new(TTL_NS);

	kv_table_fail(t, "a");
	assert_int_equal(kv_table_state(t, "a", 1), KV_UNKNOWN);
	assert_true(kv_table_make(t, &leg, 0, 1));
	kv_table_fail(t, "a");
	assert_int_equal(kv_table_state(t, "a", 1), KV_FAILED);
	kv_table_hold(t, "a", 1); /* too late */
	assert_int_equal(kv_table_state(t, "a", 1), KV_FAILED);
	assert_true(kv_table_make(t, &leg, 0, 1));
	kv_table_hold(t, "a", 1);
	kv_table_fail(t, "a");
	assert_int_equal(kv_table_state(t, "a", 1), KV_HELD);
	kv_table_free(&t);
}

static void the_same_is_made_once_at_a_time(void **state) {
	struct kv_table *t = kv_table_new(TTL_NS);

	assert_true(kv_table_make(t, &leg, 0, 1));
	assert_false(kv_table_make(t, &leg, 0, 1));
	kv_table_hold(t, "a", 1);
	assert_true(kv_table_make(t, &leg, 0, 2));
	json_t *json = kv_table_json(t, 2);
	assert_int_equal(json_integer_value(json_object_get(json, "making")), 1);
	assert_int_equal(json_integer_value(json_object_get(json, "held")), 0);
	assert_int_equal(json_integer_value(json_object_get(json, "expired")), 1);
	json_decref(json);
	kv_table_free(&t);
}

static void a_decode_may_be_the_first_to_come(void **state) {
	struct kv_table *t = kv_table_new(TTL_NS);

	assert_false(kv_table_is_asked(t, "a"));
	kv_table_ask(t, "a", 1, 1);
	assert_true(kv_table_make(t, &leg, 0, 1));
	assert_true(kv_table_is_asked(t, "a"));
	kv_table_ask(t, "a", -1, 1);
	assert_false(kv_table_is_asked(t, "a"));
	kv_table_ask(t, "b", -1, 1); /* it was pushed out */
	kv_table_free(&t);
}

static void the_oldest_is_pushed_out(void **state) {
	struct kv_table *t = kv_table_new(TTL_NS);
	struct kv_leg other = { .part = KV_PREFILL };

	assert_true(kv_table_make(t, &leg, 0, 1));
	kv_table_hold(t, "a", 1);
	for (unsigned i = 0; i < KV_TABLE_ROWS; i++) {
		snprintf(other.key, sizeof(other.key), "other-%u", i);
		assert_true(kv_table_make(t, &other, 0, 1));
	}
	assert_int_equal(kv_table_state(t, "a", 1), KV_UNKNOWN);
	json_t *json = kv_table_json(t, 1);
	assert_int_equal(json_integer_value(json_object_get(json, "making")), KV_TABLE_ROWS);
	assert_int_equal(json_integer_value(json_object_get(json, "expired")), 1);
	json_decref(json);
	kv_table_free(&t);
}

static void a_reset_keeps_what_is_being_made(void **state) {
	struct kv_table *t = kv_table_new(TTL_NS);
	struct kv_leg other = { .part = KV_PREFILL, .key = "b" };

	assert_true(kv_table_make(t, &leg, 0, 1) && kv_table_make(t, &other, 0, 1));
	kv_table_hold(t, "b", 1);
	kv_table_reset(t);
	assert_int_equal(kv_table_state(t, "a", 1), KV_MAKING);
	assert_int_equal(kv_table_state(t, "b", 1), KV_UNKNOWN);
	kv_table_free(&t);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_made_held_and_fetched_once),
		cmocka_unit_test(blocks_that_nobody_fetches_expire),
		cmocka_unit_test(only_what_is_not_complete_fails),
		cmocka_unit_test(the_same_is_made_once_at_a_time),
		cmocka_unit_test(a_decode_may_be_the_first_to_come),
		cmocka_unit_test(the_oldest_is_pushed_out),
		cmocka_unit_test(a_reset_keeps_what_is_being_made),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
