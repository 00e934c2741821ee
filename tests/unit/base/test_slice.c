#include "unit/unit.h"

#include "base/slice.h"

static void assert_slice(struct slice s, const char *text) {
	if (!slice_eq(s, slice_of(text)))
		fail_msg("\"%.*s\" is not \"%s\"", (int)s.n, s.p, text);
}

static void equal_is_byte_by_byte(void **state) {
	assert_true(slice_eq(SLICE("abc"), slice_of("abc")));
	assert_false(slice_eq(SLICE("abc"), SLICE("abd")));
	assert_false(slice_eq(SLICE("abc"), SLICE("ab")));
	assert_false(slice_eq(SLICE("abc"), SLICE("ABC")));
	assert_true(slice_eq(SLICE("a\0b"), SLICE("a\0b")));
	assert_false(slice_eq(SLICE("a\0b"), SLICE("a\0c")));
	assert_true(slice_eq((struct slice){ NULL, 0 }, SLICE("")));
	assert_true(slice_eq(slice_of(NULL), slice_of("")));
}

static void names_are_compared_without_case(void **state) {
	assert_true(slice_is(SLICE("Content-LENGTH"), SLICE("content-length")));
	assert_false(slice_is(SLICE("content-lengt"), SLICE("content-length")));
	assert_false(slice_is(SLICE("content_length"), SLICE("content-length")));
	assert_true(slice_is(SLICE(""), SLICE("")));
	/* Letters alone: '@' and '[' frame them and differ from '`' and '{' in the same bit. */
	for (int c = 0; c < 256; c++) {
		char lower = ascii_lower((char)c);
		assert_int_equal(lower, c >= 'A' && c <= 'Z' ? (char)(c + 32) : (char)c);
	}
}

static void parts(void **state) {
	struct slice s = SLICE("abcdef");
	assert_true(slice_has_prefix(s, SLICE("abc")));
	assert_true(slice_has_prefix(s, SLICE("")));
	assert_true(slice_has_prefix(s, s));
	assert_false(slice_has_prefix(s, SLICE("abd")));
	assert_false(slice_has_prefix(SLICE("ab"), SLICE("abc")));
	assert_slice(slice_skip(s, 2), "cdef");
	assert_slice(slice_skip(s, 6), "");
	assert_slice(slice_head(s, 2), "ab");
	assert_slice(slice_head(s, 99), "abcdef");
	assert_slice(slice_head(s, 0), "");
}

static void white_space_is_trimmed(void **state) {
	static const char *const rows[][2] = { { "", "" }, { " ", "" }, { "\t \t", "" }, { "a", "a" },
		{ " a b\t", "a b" }, { "a ", "a" }, { "\na\r", "\na\r" } };
	for (size_t i = 0; i < n_elems(rows); i++)
		assert_slice(slice_trim(slice_of(rows[i][0])), rows[i][1]);
}

static void lists_have_members(void **state) {
	static const struct {
		const char *list, *members[5];
	} rows[] = {
		{ "", { "" } },
		{ "a", { "a" } },
		{ "a,b", { "a", "b" } },
		{ " a ,\tb c , ", { "a", "b c", "" } },
		{ ",,a", { "", "", "a" } },
		{ ",", { "", "" } },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct slice rest = slice_of(rows[i].list), member;
		size_t n = 0;
		while (slice_next_member(&rest, &member)) {
			assert_non_null(rows[i].members[n]);
			assert_slice(member, rows[i].members[n++]);
		}
		assert_null(rows[i].members[n]);
	}
	struct slice none = { NULL, 0 }, member;
	assert_false(slice_next_member(&none, &member));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_is_byte_by_byte),
		cmocka_unit_test(names_are_compared_without_case),
		cmocka_unit_test(parts),
		cmocka_unit_test(white_space_is_trimmed),
		cmocka_unit_test(lists_have_members),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
