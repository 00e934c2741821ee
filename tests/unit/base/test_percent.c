#include "unit/unit.h"

#include "base/percent.h"

static void assert_decodes(const char *raw, bool is_query, const char *text) {
	char room[64];
	size_t n = 0;

	assert_true(percent_decode(slice_of(raw), is_query, room, &n));
	assert_int_equal(n, strlen(text));
	assert_memory_equal(room, text, n);
}

static void texts_are_decoded(void **state) {
	assert_decodes("", false, "");
	assert_decodes("plain/+", false, "plain/+");
	assert_decodes("a+b%2B", true, "a b+");
	assert_decodes("http%3a%2F%2Fh%3A80", false, "http://h:80");
	assert_decodes("%01%fF", false, "\x01\xff");
	assert_decodes("%2525", false, "%25");
}

static void bad_ones_are_refused(void **state) {
	const char *const bad[] = { "%", "%2", "a%", "%2x", "%x2", "%%20", "%00", "% 2", "%-1" };
	char room[8];
	size_t n;

	for (size_t i = 0; i < n_elems(bad); i++)
		assert_false(percent_decode(slice_of(bad[i]), false, room, &n));
}

static void assert_value(const char *query, const char *key, const char *value) {
	char room[64];
	struct slice found = percent_query(slice_of(query), slice_of(key), room);

	assert_int_equal(found.p == NULL, value == NULL);
	assert_int_equal(found.n, value ? strlen(value) : 0);
	if (value)
		assert_memory_equal(found.p, value, found.n);
}

static void values_are_found(void **state) {
	assert_value("url=http://h:1&x=2", "url", "http://h:1");
	assert_value("x=2&url=http%3A%2F%2Fh", "url", "http://h");
	assert_value("u%72l=a", "url", "a");
	assert_value("url=a&url=b", "url", "a");
	assert_value("url", "url", "");
	assert_value("url=", "url", "");
	assert_value("a=b=c", "a", "b=c");
	assert_value("&&a=1", "a", "1");
}

static void what_is_not_there_is_not_found(void **state) {
	assert_value("", "url", NULL);
	assert_value("&", "url", NULL);
	assert_value("curl=a&urls=b", "url", NULL);
	assert_value("=url", "url", NULL);
}

static void badly_encoded_values_come_as_they_are(void **state) {
	assert_value("a=%zz&b=1", "a", "%zz");
	assert_value("%zz=1&b=2", "b", "2");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_decoded),
		cmocka_unit_test(bad_ones_are_refused),
		cmocka_unit_test(values_are_found),
		cmocka_unit_test(what_is_not_there_is_not_found),
		cmocka_unit_test(badly_encoded_values_come_as_they_are),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
