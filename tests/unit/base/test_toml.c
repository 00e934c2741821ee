#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/defs.h"
#include "base/toml.h"

/* A document, as the JSON text that it stands for, keys sorted. */
static void every_kind_of_value(void **state) {
	static const char text[] = "a.b = 1\n"
				   "s = \"x\\u00e4\"\n"
				   "[t]\n"
				   "yes = true\n"
				   "real = 1.5\n"
				   "inf = -inf\n"
				   "day = 2024-02-29\n"
				   "at = 2024-02-29T12:00:00Z\n"
				   "list = [1, [2], {x = 3}, ] # a comment\n"
				   "[[w]]\n"
				   "u = 'one'\n"
				   "[[w]]\n"
				   "[w.sub]\n"
				   "n = 0x10\n";
	static const char expected[] =
	    "{\"a\":{\"b\":1},\"s\":\"x\xc3\xa4\",\"t\":{\"at\":\"2024-02-29T12:00:00Z\","
	    "\"day\":\"2024-02-29\",\"inf\":\"-inf\",\"list\":[1,[2],{\"x\":3}],"
	    "\"real\":1.5,\"yes\":true},\"w\":[{\"u\":\"one\"},{\"sub\":{\"n\":16}}]}";
	struct toml_error error;
	json_t *lines = json_object(), *root = toml_read(text, sizeof(text) - 1, lines, &error);

	assert_non_null(root);
	char *found = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(found, expected);
	free(found);
	json_decref(root);
	json_decref(lines);
}

static void every_value_has_its_line(void **state) {
	static const char text[] = "a.b = 1\n"
				   "\n"
				   "[router]\n"
				   "port = 1\n"
				   "list = [\n"
				   "  1,\n"
				   "  2 ]\n"
				   "[[w]]\n"
				   "[[w]]\n"
				   "u = \"\"\"x\n"
				   "y\"\"\"\n"
				   "v = 1\n";
	static const struct {
		const char *path;
		int line;
	} cases[] = {
		{ "a.b", 1 },
		{ "router", 3 },
		{ "router.port", 4 },
		{ "router.list", 5 },
		{ "router.list[1]", 7 },
		{ "w[0]", 8 },
		{ "w[1]", 9 },
		{ "w[1].u", 10 },
		{ "w[1].v", 12 },
	};
	struct toml_error error;
	json_t *lines = json_object(), *root = toml_read(text, sizeof(text) - 1, lines, &error);

	for (size_t i = 0; i < n_elems(cases); i++)
		assert_int_equal(json_integer_value(json_object_get(lines, cases[i].path)), cases[i].line);
	json_decref(root);
	json_decref(lines);
}

static void mistakes_have_their_line(void **state) {
	static const struct {
		const char *text;
		int line;
	} cases[] = {
		{ "a = 1\nb\n", 2 },
		{ "a = 1\n\na = 2\n", 3 },
		{ "[x]\n[x]\n", 2 },
		{ "a = 99999999999999999999\n", 1 },
		{ "a = \"\xff\"\n", 1 },
		{ "\n\"a\\u0000\" = 1\n", 2 },
		{ "a = \"x", 1 },
		{ "[=\n", 1 },
		{ "a = 1\nb = 1 \xc3\xa4\n", 2 },
		{ "\xc3\xa4 = 1\n", 1 },
		{ "[\xc3\xa4]\n", 1 },
		{ "a = '''\n[=\n'''\n[ #x]\n\n", 4 },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct toml_error error;
		json_t *lines = json_object();

		assert_null(toml_read(cases[i].text, strlen(cases[i].text), lines, &error));
		assert_int_equal(error.line, cases[i].line);
		assert_true(strlen(error.text) > 0);
		json_decref(lines);
	}
}

/* The 64th level is taken, the next is not, and nothing leaks (the sanitizers look). */
static void depth_has_a_ceiling(void **state) {
	for (size_t n_levels = 64; n_levels <= 65; n_levels++) {
		char text[256] = "a=";
		size_t n = 2;
		struct toml_error error;
		json_t *lines = json_object();

		memset(text + n, '[', n_levels);
		memset(text + n + n_levels, ']', n_levels);
		json_t *root = toml_read(text, n + 2 * n_levels, lines, &error);
		assert_int_equal(root != NULL, n_levels == 64);
		json_decref(root);
		json_decref(lines);
	}
}

static void nothing_is_an_empty_table(void **state) {
	struct toml_error error;
	json_t *lines = json_object(), *root = toml_read("", 0, lines, &error);

	assert_int_equal(json_object_size(root), 0);
	assert_true(json_is_object(root));
	json_decref(root);
	json_decref(lines);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_value),
		cmocka_unit_test(every_value_has_its_line),
		cmocka_unit_test(mistakes_have_their_line),
		cmocka_unit_test(depth_has_a_ceiling),
		cmocka_unit_test(nothing_is_an_empty_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
