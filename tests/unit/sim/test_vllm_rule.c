#include "unit/unit.h"

#include "sim/vllm_rule.h"

static void the_maker_of_the_longest_prefix_gets_it(void **state) {
	struct vllm_rule *rule = vllm_rule_new(3);
	const uint64_t a[] = { 1, 2, 3, 4, 5, 6 }, b[] = { 1, 2, 3, 14, 15, 16 },
		       c[] = { 1, 22, 23, 24, 25, 26 };

	assert_int_equal(vllm_rule_pick(rule, a, 6, (uint32_t[]){ 9, 9, 8 }), 2);
	assert_int_equal(vllm_rule_pick(rule, b, 6, (uint32_t[]){ 0, 9, 9 }), 2); /* 3 of 6 */
	assert_int_equal(vllm_rule_pick(rule, c, 6, (uint32_t[]){ 9, 0, 9 }), 1); /* 1 of 6 is too little */
	assert_int_equal(vllm_rule_pick(rule, c, 6, (uint32_t[]){ 0, 9, 9 }), 1);
	assert_int_equal(vllm_rule_pick(rule, a, 1, (uint32_t[]){ 0, 9, 9 }), 2); /* 1 is still the maker's */
	vllm_rule_free(&rule);
	assert_null(rule);
}

static void the_threshold_itself_is_too_little(void **state) {
	struct vllm_rule *rule = vllm_rule_new(3);
	const uint64_t a[] = { 1, 2, 3 }, b[] = { 1, 2, 3, 14, 15, 16, 17, 18, 19, 20 };

	assert_int_equal(vllm_rule_pick(rule, a, 3, (uint32_t[]){ 9, 9, 0 }), 2);
	assert_int_equal(vllm_rule_pick(rule, b, 10, (uint32_t[]){ 9, 0, 9 }), 1); /* 0.3 */
	assert_int_equal(vllm_rule_pick(rule, b, 9, (uint32_t[]){ 0, 9, 9 }), 1);
	assert_int_equal(vllm_rule_pick(rule, NULL, 0, (uint32_t[]){ 9, 9, 0 }), 2); /* nothing to match */
	vllm_rule_free(&rule);
}

static void imbalance_needs_both_thresholds(void **state) {
	struct vllm_rule *rule = vllm_rule_new(3);
	const uint64_t a[] = { 1, 2, 3 };

	assert_int_equal(vllm_rule_pick(rule, a, 3, (uint32_t[]){ 1, 1, 0 }), 2);
	assert_int_equal(vllm_rule_pick(rule, a, 3, (uint32_t[]){ 1, 0, 64 }), 2);
	assert_int_equal(vllm_rule_pick(rule, a, 3, (uint32_t[]){ 1, 0, 65 }), 1);
	assert_int_equal(vllm_rule_pick(rule, a, 3, (uint32_t[]){ 200, 300, 300 }), 2);
	assert_int_equal(vllm_rule_pick(rule, a, 3, (uint32_t[]){ 200, 200, 301 }), 0);
	vllm_rule_free(&rule);
}

/* Enough prompts that the table grows, with ids that share their low bits. */
static void it_remembers_all(void **state) {
	struct vllm_rule *rule = vllm_rule_new(4);

	for (uint64_t i = 1; i <= 20000; i++) {
		uint32_t in_flight[] = { 1, 1, 1, 1 };

		in_flight[i % 4] = 0;
		assert_int_equal(vllm_rule_pick(rule, &(uint64_t){ i << 20 }, 1, in_flight), i % 4);
	}
	for (uint64_t i = 1; i <= 20000; i++)
		assert_int_equal(
		    vllm_rule_pick(rule, &(uint64_t){ i << 20 }, 1, (uint32_t[]){ 0, 0, 0, 0 }), i % 4);
	vllm_rule_free(&rule);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_maker_of_the_longest_prefix_gets_it),
		cmocka_unit_test(the_threshold_itself_is_too_little),
		cmocka_unit_test(imbalance_needs_both_thresholds),
		cmocka_unit_test(it_remembers_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
