#include "unit/fleet/scene.h"

static void a_copy_owns_its_texts(void **state) {
	char zone[] = "eu";
	struct pair items[] = { { SLICE("zone"), slice_of(zone) }, { SLICE("tier"), { NULL, 0 } } };
	struct pairs src = { items, 2 }, copy = pairs_copy(src);

	assert_true(pairs_eq(copy, src));
	zone[0] = 'E';
	assert_false(pairs_eq(copy, src));
	assert_true(pairs_keys_eq(copy, src));
	assert_string_equal(copy.items[0].value.p, "eu");
	assert_string_equal(copy.items[1].value.p, "");
	pairs_free(&copy);
	assert_int_equal(copy.n, 0);
	pairs_free(&copy);
}

static void equality_wants_the_same_order_and_length(void **state) {
	struct pair ab[] = { { SLICE("a"), SLICE("1") }, { SLICE("b"), SLICE("2") } };
	struct pair ba[] = { ab[1], ab[0] };

	assert_false(pairs_eq((struct pairs){ ab, 2 }, (struct pairs){ ba, 2 }));
	assert_false(pairs_keys_eq((struct pairs){ ab, 2 }, (struct pairs){ ba, 2 }));
	assert_false(pairs_eq((struct pairs){ ab, 2 }, (struct pairs){ ab, 1 }));
	assert_true(pairs_eq((struct pairs){ ab, 0 }, (struct pairs){ NULL, 0 }));
}

/* Writes what it measured, to the byte. */
static void writing_fills_the_measure(void **state) {
	struct pair items[] = { { SLICE("a"), SLICE("123") }, { SLICE("bc"), { NULL, 0 } } }, out[2];
	struct pairs src = { items, 2 };
	char text[32], *at = text;
	struct pair *next = out;

	assert_int_equal(pairs_text_bytes(src), 10);
	assert_true(pairs_eq(pairs_write(src, &next, &at), src));
	assert_ptr_equal(at, text + 10);
	assert_ptr_equal(next, out + 2);
}

static void order_is_bytewise(void **state) {
	assert_true(pair_text_cmp(SLICE("a"), SLICE("b")) < 0);
	assert_true(pair_text_cmp(SLICE("ab"), SLICE("a")) > 0);
	assert_true(pair_text_cmp(SLICE("Z"), SLICE("a")) < 0);
	assert_true(pair_text_cmp(SLICE("\xff"), SLICE("a")) > 0);
	assert_int_equal(pair_text_cmp(SLICE("a"), SLICE("a")), 0);
}

static void the_first_of_a_key_counts(void **state) {
	struct pair items[] = { { SLICE("a"), SLICE("1") }, { SLICE("b"), SLICE("") },
		{ SLICE("a"), SLICE("2") } };
	struct pairs pairs = { items, 3 };

	assert_true(slice_eq(pairs_value(pairs, SLICE("a")), SLICE("1")));
	assert_non_null(pairs_value(pairs, SLICE("b")).p);
	assert_null(pairs_value(pairs, SLICE("c")).p);
	assert_null(pairs_value((struct pairs){ NULL, 0 }, SLICE("a")).p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_copy_owns_its_texts),
		cmocka_unit_test(equality_wants_the_same_order_and_length),
		cmocka_unit_test(writing_fills_the_measure),
		cmocka_unit_test(order_is_bytewise),
		cmocka_unit_test(the_first_of_a_key_counts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
