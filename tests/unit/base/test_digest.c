#include "unit/unit.h"

#include "base/digest.h"

/* Of FIPS 180-2, and of a text of a length that SHA-256 pads by a block of its own. */
static void digests_are_those_of_the_standard(void **state) {
	static const struct {
		const char *text;
		uint8_t first[4];
	} rows[] = {
		{ "", { 0xe3, 0xb0, 0xc4, 0x42 } },
		{ "abc", { 0xba, 0x78, 0x16, 0xbf } },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", { 0x24, 0x8d, 0x6a, 0x61 } },
	};
	struct digester *d = digester_new();
	uint8_t digest[DIGEST_BYTES];

	for (unsigned round = 0; round < 2; round++) /* one digester makes any number of them */
		for (size_t i = 0; i < n_elems(rows); i++) {
			digester_sha256(d, slice_of(rows[i].text), digest);
			assert_memory_equal(digest, rows[i].first, sizeof(rows[i].first));
		}
	digester_free(&d);
	assert_null(d);
	digester_free(&d);
}

static void equal_is_equal_in_every_byte(void **state) {
	uint8_t a[DIGEST_BYTES] = { 0 }, b[DIGEST_BYTES] = { 0 };

	assert_true(digest_is_equal(a, b, DIGEST_BYTES));
	for (unsigned i = 0; i < DIGEST_BYTES; i++) {
		b[i] = 1;
		assert_false(digest_is_equal(a, b, DIGEST_BYTES));
		b[i] = 0;
	}
	assert_true(digest_is_same_text(SLICE("ab"), SLICE("ab")));
	assert_true(digest_is_same_text(SLICE(""), (struct slice){ NULL, 0 }));
	assert_false(digest_is_same_text(SLICE("ab"), SLICE("abc")));
	assert_false(digest_is_same_text(SLICE("ab"), SLICE("aB")));
}

static void what_is_wiped_is_gone(void **state) {
	char text[] = "secret";

	digest_wipe(text, strlen(text));
	for (size_t i = 0; i < sizeof(text); i++)
		assert_int_equal(text[i], 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(digests_are_those_of_the_standard),
		cmocka_unit_test(equal_is_equal_in_every_byte),
		cmocka_unit_test(what_is_wiped_is_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
