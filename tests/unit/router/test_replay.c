#include "unit/unit.h"

#include <jansson.h>

#include "router/replay.h"

static struct buf_budget budget;
static struct buf_pool pool;

static int setup(void **state) {
	budget = (struct buf_budget){ .max_bytes = 1u << 20 };
	buf_pool_init(&pool, &budget);
	return 0;
}

static int teardown(void **state) {
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

static json_t *line_of(const struct demand *demand, const struct replay_counts *counts) {
	char room[REPLAY_LINE_BYTES];
	struct buf *kept = replay_keep(&pool, demand);

	assert_non_null(kept);
	struct slice line = replay_line(kept, counts, room);
	assert_int_equal(line.p[line.n - 1], '\n');
	assert_ptr_equal(memchr(line.p, '\n', line.n), line.p + line.n - 1);
	json_t *json = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(json);
	buf_unref(&pool, &kept);
	return json;
}

static json_int_t number(const json_t *json, const char *key) {
	return json_integer_value(json_object_get(json, key));
}

static void the_longest_line_fits(void **state) {
	uint64_t keys[PROMPT_BLOCKS_MAX];
	struct demand demand = { .keys = keys, .prompt_tokens = UINT32_MAX, .session = UINT64_MAX };

	for (uint32_t i = 0; i < PROMPT_BLOCKS_MAX; i++)
		keys[i] = UINT64_MAX - i;
	for (demand.n_keys = 0; demand.n_keys <= PROMPT_BLOCKS_MAX; demand.n_keys += 64) {
		struct replay_counts counts = { INT64_MAX, 0, INT64_MAX };
		json_t *json = line_of(&demand, &counts), *blocks = json_object_get(json, "blocks");

		assert_int_equal(json_array_size(blocks), size_min(demand.n_keys, REPLAY_BLOCKS_MAX));
		for (size_t i = 0; i < json_array_size(blocks); i++)
			assert_int_equal(
			    strtoull(json_string_value(json_array_get(blocks, i)), NULL, 16), keys[i]);
		assert_int_equal(number(json, "ts_ns"), INT64_MAX);
		assert_int_equal(number(json, "prompt_tokens"), UINT32_MAX);
		assert_int_equal(number(json, "output_tokens"), INT64_MAX);
		json_decref(json);
	}
}

static void what_was_counted_goes_before_what_was_estimated(void **state) {
	struct demand demand = { .prompt_tokens = 100 };
	struct replay_counts counts = { 5, 90, 7 };
	json_t *json = line_of(&demand, &counts);

	assert_int_equal(number(json, "prompt_tokens"), 90);
	assert_null(json_object_get(json, "session"));
	json_decref(json);
}

static void nothing_is_kept_of_what_has_no_prompt(void **state) {
	struct demand demand = { .session = 1 };

	assert_null(replay_keep(&pool, &demand));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_longest_line_fits),
		cmocka_unit_test(what_was_counted_goes_before_what_was_estimated),
		cmocka_unit_test(nothing_is_kept_of_what_has_no_prompt),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
