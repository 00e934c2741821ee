#include "unit/unit.h"

#include "engine/base64.h"
#include "engine/bytes.h"

static void assert_bytes(const struct bytes *b, const char *text) {
	if (!slice_eq(bytes_slice(b), slice_of(text)))
		fail_msg("\"%.*s\" is not \"%s\"", (int)b->n, b->p, text);
}

static void the_ceiling_holds(void **state) {
	struct bytes b;
	json_t *json = json_pack("{s:s}", "key", "value");
	bytes_init(&b, 10);
	assert_true(bytes_add(&b, SLICE("12345678")));
	assert_false(bytes_add(&b, SLICE("abc")));
	assert_false(bytes_printf(&b, "%s", "abc"));
	assert_false(bytes_add_json(&b, json));
	assert_bytes(&b, "12345678");
	assert_true(bytes_add(&b, SLICE("ab")));
	assert_bytes(&b, "12345678ab");
	assert_false(bytes_add(&b, SLICE("c")));
	assert_true(bytes_add(&b, SLICE("")));
	bytes_clear(&b);
	assert_true(bytes_add(&b, SLICE("new")));
	assert_bytes(&b, "new");
	bytes_deinit(&b);
	json_decref(json);
}

static void it_grows_by_all_adders(void **state) {
	struct bytes b;
	json_t *json = json_pack("{s:[i,b], s:s}", "list", 1, 1, "text", "\xc3\xa9\n");
	bytes_init(&b, 100000);
	for (int i = 0; i < 1000; i++)
		bytes_printf(&b, "%03d,", i);
	assert_int_equal(b.n, 4000);
	assert_memory_equal(b.p + 3996, "999,", 4);
	bytes_clear(&b);
	assert_true(bytes_add_json(&b, json));
	assert_bytes(&b, "{\"list\":[1,true],\"text\":\"\xc3\xa9\\n\"}");
	bytes_deinit(&b);
	json_decref(json);
}

static void escaped_text_is_what_jansson_writes(void **state) {
	static const char *const texts[] = { "", "plain words", "\"quoted\" \\ back", "line\nbreak\ttab",
		"\x01\x1f", "\xe6\xb0\xb4 \"water\"" };
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct bytes plain = { .n_max = 1000 }, whole = { .n_max = 1000 };
		json_t *string = json_string(texts[i]);
		bytes_add(&plain, SLICE("\""));
		assert_true(bytes_add_escaped(&plain, slice_of(texts[i])));
		bytes_add(&plain, SLICE("\""));
		bytes_add_json(&whole, string);
		assert_true(slice_eq(bytes_slice(&plain), bytes_slice(&whole)));
		bytes_deinit(&plain);
		bytes_deinit(&whole);
		json_decref(string);
	}
}

/* The examples of RFC 4648 section 10. */
static void base64_examples(void **state) {
	static const char *const rows[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" },
		{ "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" },
		{ "\xff\xfe\xfb", "//77" } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct bytes b = { .n_max = 8 };
		assert_true(base64_add(&b, slice_of(rows[i][0])));
		assert_bytes(&b, rows[i][1]);
		bytes_deinit(&b);
	}
	struct bytes small = { .n_max = 7 };
	assert_false(base64_add(&small, SLICE("foobar")));
	assert_int_equal(small.n, 0);
	bytes_deinit(&small);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ceiling_holds),
		cmocka_unit_test(it_grows_by_all_adders),
		cmocka_unit_test(escaped_text_is_what_jansson_writes),
		cmocka_unit_test(base64_examples),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
