#include "unit/unit.h"

#include "base/msgpack.h"

static void numbers_and_constants(void **state) {
	static const struct {
		struct slice bytes;
		enum msgpack_type type;
		uint64_t n;
	} rows[] = {
		{ SLICE("\x00"), MSGPACK_UINT, 0 },
		{ SLICE("\x7f"), MSGPACK_UINT, 127 },
		{ SLICE("\xcc\xff"), MSGPACK_UINT, 255 },
		{ SLICE("\xcd\x01\x02"), MSGPACK_UINT, 0x102 },
		{ SLICE("\xce\x01\x02\x03\x04"), MSGPACK_UINT, 0x1020304 },
		{ SLICE("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), MSGPACK_UINT, UINT64_MAX },
		{ SLICE("\xc0"), MSGPACK_NIL, 0 },
		{ SLICE("\xc2"), MSGPACK_BOOL, 0 },
		{ SLICE("\xc3"), MSGPACK_BOOL, 1 },
		{ SLICE("\x83"), MSGPACK_MAP, 6 },
		{ SLICE("\x9f"), MSGPACK_ARRAY, 15 },
		{ SLICE("\xdc\x00\x10"), MSGPACK_ARRAY, 16 },
		{ SLICE("\xdd\xff\xff\xff\xff"), MSGPACK_ARRAY, UINT32_MAX },
		{ SLICE("\xde\x00\x10"), MSGPACK_MAP, 32 },
		{ SLICE("\xdf\xff\xff\xff\xff"), MSGPACK_MAP, 2ull * UINT32_MAX },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct slice rest = rows[i].bytes;
		struct msgpack v;

		assert_true(msgpack_next(&rest, &v));
		assert_int_equal(rest.n, 0);
		assert_int_equal(v.type, rows[i].type);
		assert_true(v.n == rows[i].n);
	}
}

static void texts_point_into_the_input(void **state) {
	static const struct slice rows[] = { SLICE("\xa3one."), SLICE("\xd9\x03one."),
		SLICE("\xda\x00\x03one."), SLICE("\xdb\x00\x00\x00\x03one."), SLICE("\xc4\x03one."),
		SLICE("\xc5\x00\x03one."), SLICE("\xc6\x00\x00\x00\x03one.") };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct slice rest = rows[i];
		struct msgpack v;

		assert_true(msgpack_next(&rest, &v));
		assert_int_equal(v.type, MSGPACK_TEXT);
		assert_ptr_equal(v.text.p, rows[i].p + rows[i].n - 4);
		assert_true(slice_eq(v.text, SLICE("one")));
		assert_true(slice_eq(rest, SLICE(".")));
	}
}

/* A value with all of its bytes, and not one with fewer. */
static void every_type_has_its_length(void **state) {
	static const struct slice rows[] = { SLICE("\xe0"), SLICE("\xff"), SLICE("\xca____"),
		SLICE("\xcb________"), SLICE("\xd0_"), SLICE("\xd1__"), SLICE("\xd2____"),
		SLICE("\xd3________"), SLICE("\xd4t_"), SLICE("\xd5t__"), SLICE("\xd6t____"),
		SLICE("\xd7t________"), SLICE("\xd8t________________"), SLICE("\xc7\x01t_"),
		SLICE("\xc8\x00\x01t_"), SLICE("\xc9\x00\x00\x00\x01t_"), SLICE("\xcd\x01\x02"),
		SLICE("\xa2__"), SLICE("\xdb\x00\x00\x00\x01_"), SLICE("\xdd\x00\x00\x00\x00") };

	for (size_t i = 0; i < n_elems(rows); i++)
		for (size_t n = 0; n <= rows[i].n; n++) {
			struct slice rest = slice_head(rows[i], n);
			struct msgpack v;

			assert_int_equal(msgpack_next(&rest, &v), n == rows[i].n);
		}
}

static void what_is_no_value_fails(void **state) {
	struct slice rest = SLICE("\xc1");
	struct msgpack v;

	assert_false(msgpack_next(&rest, &v));
}

static void whole_values_are_skipped_however_deep(void **state) {
	char deep[2001];
	struct slice rest = SLICE("\x82\xa1k\x93\x01\xc0\xa1v\xa1l\x81\xa1m\x90."), whole;

	assert_true(msgpack_skip(&rest, &whole));
	assert_true(slice_eq(rest, SLICE(".")));
	assert_int_equal(whole.n, 14);
	memset(deep, '\x91', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	rest = (struct slice){ deep, sizeof(deep) };
	assert_true(msgpack_skip(&rest, &whole));
	assert_int_equal(whole.n, sizeof(deep));
	rest = (struct slice){ deep, sizeof(deep) - 1 };
	assert_false(msgpack_skip(&rest, &whole));
}

/* More members than there can be. */
static void claims_cost_nothing(void **state) {
	static const struct slice rows[] = { SLICE("\xdd\xff\xff\xff\xff"),
		SLICE("\xdf\xff\xff\xff\xff\x01\x02"), SLICE("\xdb\xff\xff\xff\xff"),
		SLICE("\xc9\xff\xff\xff\xff"), SLICE("\x91\xdd\xff\xff\xff\xff") };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct slice rest = rows[i], whole;

		assert_false(msgpack_skip(&rest, &whole));
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_and_constants),
		cmocka_unit_test(texts_point_into_the_input),
		cmocka_unit_test(every_type_has_its_length),
		cmocka_unit_test(what_is_no_value_fails),
		cmocka_unit_test(whole_values_are_skipped_however_deep),
		cmocka_unit_test(claims_cost_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
