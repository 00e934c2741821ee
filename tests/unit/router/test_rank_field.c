#include "router/rank_field.h"

#include "unit/fleet/scene.h"

static enum cause read_lines(const char *lines, struct rank_wish *wish_out) {
	struct head_room room;
	enum cause cause;
	char text[256];

	snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", lines);
	assert_int_equal(head_parse_request(&room, slice_of(text), &cause), 0);
	return rank_field_read(&room.head, wish_out);
}

static void a_rank_is_a_number(void **state) {
	struct rank_wish wish;

	assert_int_equal(read_lines("", &wish), CAUSE_NONE);
	assert_false(wish.is_given);
	assert_int_equal(read_lines("X-Data-Parallel-Rank:  7 \r\n", &wish), CAUSE_NONE);
	assert_true(wish.is_given);
	assert_int_equal(wish.rank, 7);
	assert_int_equal(read_lines("x-data-parallel-ranks: 7\r\n", &wish), CAUSE_NONE);
	assert_false(wish.is_given);
}

static void what_is_none_is_refused(void **state) {
	static const char *const wrong[] = { "", "x", "-1", "65536", "1 2", "1,2", "0x1" };
	struct rank_wish wish;
	char line[64];

	for (size_t i = 0; i < n_elems(wrong); i++) {
		snprintf(line, sizeof(line), "x-data-parallel-rank: %s\r\n", wrong[i]);
		assert_int_equal(read_lines(line, &wish), CAUSE_BAD_RANK);
	}
	assert_int_equal(
	    read_lines("x-data-parallel-rank: 1\r\nX-Data-Parallel-Rank: 1\r\n", &wish), CAUSE_BAD_RANK);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rank_is_a_number),
		cmocka_unit_test(what_is_none_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
