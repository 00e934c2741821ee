#include "unit/unit.h"

#include "router/alias_config.h"
#include "unit/router/config_reading.h"

static void assert_alias(const struct reading *r, const char *name, const char *model, const char *json) {
	const struct alias *alias = alias_find(&r->config.aliases, slice_of(name));

	assert_non_null(alias);
	assert_true(slice_eq(alias->model, slice_of(model)));
	assert_true(slice_eq(alias->json, slice_of(json)));
}

static void aliases_of_file_and_flags(void **state) {
	struct reading r = read_config("--model-alias small=phi=4 best=other",
	    "[alias]\nbest = 'llama'\n'a=b' = 'say \"hi\"'\n'gpt-4' = 'Z\u00fcri'\n");

	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_int_equal(r.config.aliases.n, 4);
	assert_alias(&r, "small", "phi=4", "\"phi=4\"");
	assert_alias(&r, "best", "other", "\"other\"");
	assert_alias(&r, "a=b", "say \"hi\"", "\"say \\\"hi\\\"\"");
	assert_alias(&r, "gpt-4", "Z\u00fcri", "\"Z\u00fcri\"");
	release(&r);
}

static void mistakes_are_told(void **state) {
	static const struct {
		const char *flags, *toml, *mistake;
	} cases[] = {
		{ "--model-alias small", "", "--model-alias: expected ALIAS=MODEL, got \"small\"\n" },
		{ "--model-alias a=b a=c", "", "--model-alias: \"a\" is there twice\n" },
		{ "--model-alias =b", "", "--model-alias: \"\" is no name of a model: " },
		{ "", "[alias]\na = ''\n", "alias: \"\" is no name of a model: " },
		{ "", "[alias]\na = 'b'\nb = 'c'\n",
		    "alias: \"a\" stands for \"b\", which is an alias itself\n" },
		{ "", "[alias]\na = 'a'\n", "alias: \"a\" stands for \"a\", which is an alias itself\n" },
		{ "", "[alias]\na = 'b'\n[[worker]]\nurl = 'http://h'\nmodels = ['b', 'a']\n",
		    "FILE:1: alias: warning: \"a\" is a model of a worker, too: requests for it are for "
		    "\"b\"\n" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, cases[i].toml);

		if (!strstr(r.mistakes, cases[i].mistake))
			fail_msg("%zu: %s", i, r.mistakes);
		release(&r);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(aliases_of_file_and_flags),
		cmocka_unit_test(mistakes_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
