#include <unistd.h>

#include "unit/unit.h"

#include "engine/ledger.h"

#define MS 1000000ull

static json_int_t count_in(const json_t *json, const char *name) {
	return json_integer_value(json_object_get(json_object_get(json, "counts"), name));
}

static const json_t *row_in(const json_t *json, size_t i) {
	return json_array_get(json_object_get(json, "generations"), i);
}

static void assert_text(const json_t *row, const char *key, const char *value) {
	assert_string_equal(json_string_value(json_object_get(row, key)), value);
}

static void a_generation_is_told_from_start_to_end(void **state) {
	struct ledger *l = ledger_new(4, 1000 * MS);
	uint64_t a = ledger_start(l, SLICE("req-1"), "chat", "m", true, 1500 * MS);
	uint64_t b = ledger_start(l, SLICE("req-2"), "messages", "n", false, 1600 * MS);
	ledger_prompt(l, a, 40, 32);
	ledger_first_token(l, a, 1700 * MS + MS / 2);
	ledger_end(l, a, LEDGER_FAILED, "reset", 7, 1800 * MS);

	json_t *json = ledger_json(l);
	const json_t *row = row_in(json, 0);
	assert_text(row, "id", "req-1");
	assert_text(row, "api", "chat");
	assert_text(row, "model", "m");
	assert_text(row, "state", "failed");
	assert_text(row, "cause", "reset");
	assert_true(json_is_true(json_object_get(row, "stream")));
	assert_true(json_number_value(json_object_get(row, "started_ms")) == 500);
	assert_true(json_number_value(json_object_get(row, "first_token_ms")) == 700.5);
	assert_true(json_number_value(json_object_get(row, "ended_ms")) == 800);
	assert_int_equal(json_integer_value(json_object_get(row, "prompt_tokens")), 40);
	assert_int_equal(json_integer_value(json_object_get(row, "cached_tokens")), 32);
	assert_int_equal(json_integer_value(json_object_get(row, "emitted_tokens")), 7);
	row = row_in(json, 1);
	assert_text(row, "state", "running");
	assert_true(json_is_null(json_object_get(row, "ended_ms")));
	assert_true(json_is_null(json_object_get(row, "cause")));
	assert_int_equal(count_in(json, "started"), 2);
	assert_int_equal(count_in(json, "running"), 1);
	assert_int_equal(count_in(json, "failed"), 1);
	json_decref(json);
	ledger_end(l, b, LEDGER_FINISHED, NULL, 1, 1900 * MS);
	assert_int_equal(ledger_count(l, LEDGER_RUNNING), 0);
	ledger_free(&l);
	assert_null(l);
}

static void begun_generations_are_lines_of_a_file(void **state) {
	char path[] = "/tmp/test_ledger_XXXXXX", text[64] = "";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	struct ledger *l = ledger_new(2, 1);
	uint64_t a = ledger_start(l, SLICE("one"), "chat", "m", false, 1);
	ledger_begin(l, a); /* nobody is told */
	ledger_keep(l, dup(fd));
	uint64_t b = ledger_start(l, SLICE("two"), "chat", "m", false, 1);
	ledger_start(l, SLICE("three"), "chat", "m", false, 1);
	ledger_begin(l, b);
	ledger_begin(l, b);
	ledger_free(&l);
	assert_int_equal(pread(fd, text, sizeof(text) - 1, 0), 8);
	assert_string_equal(text, "two\ntwo\n");
	close(fd);
	unlink(path);
}

static void old_rows_are_overwritten_but_counted(void **state) {
	struct ledger *l = ledger_new(3, 1);
	uint64_t first = ledger_start(l, SLICE("0"), "chat", "m", false, 1);
	for (int i = 1; i < 5; i++) {
		char id[2] = { (char)('0' + i), 0 };
		uint64_t ticket = ledger_start(l, slice_of(id), "chat", "m", false, 1);
		ledger_end(l, ticket, LEDGER_FINISHED, NULL, 1, 2);
	}
	ledger_first_token(l, first, 3);
	ledger_end(l, first, LEDGER_CANCELLED, NULL, 1, 4); /* its row is gone */

	json_t *json = ledger_json(l);
	assert_int_equal(json_array_size(json_object_get(json, "generations")), 3);
	for (size_t i = 0; i < 3; i++) {
		char id[2] = { (char)('2' + i), 0 };
		assert_text(row_in(json, i), "id", id);
		assert_text(row_in(json, i), "state", "finished");
	}
	assert_int_equal(count_in(json, "started"), 5);
	assert_int_equal(count_in(json, "finished"), 4);
	assert_int_equal(count_in(json, "cancelled"), 1);
	assert_int_equal(count_in(json, "running"), 0);
	json_decref(json);
	ledger_free(&l);
}

static void a_reset_forgets_also_what_still_runs(void **state) {
	struct ledger *l = ledger_new(3, 1);
	uint64_t before = ledger_start(l, SLICE("before"), "chat", "m", false, 1);
	ledger_reset(l);
	uint64_t after = ledger_start(l, SLICE("after"), "chat", "m", false, 1);
	ledger_end(l, before, LEDGER_FINISHED, NULL, 1, 2);
	assert_int_equal(ledger_count(l, LEDGER_FINISHED), 0);
	assert_int_equal(ledger_count(l, LEDGER_RUNNING), 1);
	ledger_end(l, after, LEDGER_FINISHED, NULL, 1, 2);

	json_t *json = ledger_json(l);
	assert_int_equal(count_in(json, "started"), 1);
	assert_int_equal(json_array_size(json_object_get(json, "generations")), 1);
	assert_text(row_in(json, 0), "id", "after");
	json_decref(json);
	ledger_free(&l);
}

static void a_long_id_is_cut(void **state) {
	struct ledger *l = ledger_new(1, 1);
	char id[300];
	memset(id, 'x', sizeof(id));
	uint64_t ticket = ledger_start(l, (struct slice){ id, sizeof(id) }, "chat", "m", false, 1);
	json_t *json = ledger_json(l);
	assert_int_equal(json_string_length(json_object_get(row_in(json, 0), "id")), LEDGER_ID_BYTES - 1);
	json_decref(json);
	ledger_end(l, ticket, LEDGER_FINISHED, NULL, 1, 2);
	ledger_free(&l);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_generation_is_told_from_start_to_end),
		cmocka_unit_test(begun_generations_are_lines_of_a_file),
		cmocka_unit_test(old_rows_are_overwritten_but_counted),
		cmocka_unit_test(a_reset_forgets_also_what_still_runs),
		cmocka_unit_test(a_long_id_is_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
