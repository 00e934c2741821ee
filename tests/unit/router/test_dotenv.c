#include "unit/unit.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "router/config.h"
#include "router/dotenv.h"

static char *write_file(const char *text, size_t n) {
	static char path[] = "/tmp/headrace-dotenv-XXXXXX";

	memcpy(path + sizeof(path) - sizeof("XXXXXX"), "XXXXXX", sizeof("XXXXXX"));
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
	return path;
}

static int read_text(struct option_set *set, const char *text, size_t n, struct option_map *variables_out) {
	const char *path = write_file(text, n);
	int r = dotenv_read(set, path, variables_out);

	unlink(path);
	return r;
}

static void lines_of_a_file(void **state) {
	static const char text[] =
	    "# ours\n\nA=1\n  B = two words  \r\nexport C=\"quoted # text\"\nD='it''s'\nE=\n"
	    "_F9=x=y\nG=\"\nno line\n9H=1\nI-J=1\n=1\nK=last";
	static const char *const expected[][2] = { { "A", "1" }, { "B", "two words" },
		{ "C", "quoted # text" }, { "D", "it''s" }, { "E", "" }, { "_F9", "x=y" }, { "G", "\"" },
		{ "K", "last" } };
	struct option_set *set = option_set_new(&router_config_schema);
	struct option_map variables;

	assert_int_equal(read_text(set, text, sizeof(text) - 1, &variables), 0);
	assert_int_equal(variables.n, n_elems(expected));
	for (size_t i = 0; i < n_elems(expected); i++) {
		assert_string_equal(variables.items[i].name, expected[i][0]);
		assert_string_equal(variables.items[i].value, expected[i][1]);
	}
	option_set_free(&set);
}

static void the_environment_goes_before_the_file(void **state) {
	static const char text[] =
	    "HEADRACE_T_A=file\nHEADRACE_T_B=file\nHEADRACE_T_C=file\nHEADRACE_T_C=second\n"
	    "HEADRACE_T_D=\n";
	struct option_set *set = option_set_new(&router_config_schema);
	struct option_map variables;

	setenv("HEADRACE_T_A", "environment", 1);
	setenv("HEADRACE_T_B", "", 1);
	assert_int_equal(read_text(set, text, sizeof(text) - 1, &variables), 0);
	assert_string_equal(dotenv_variable(&variables, "HEADRACE_T_A"), "environment");
	assert_null(dotenv_variable(&variables, "HEADRACE_T_B"));
	assert_string_equal(dotenv_variable(&variables, "HEADRACE_T_C"), "file");
	assert_null(dotenv_variable(&variables, "HEADRACE_T_D"));
	assert_null(dotenv_variable(&variables, "HEADRACE_T_E"));
	unsetenv("HEADRACE_T_A");
	unsetenv("HEADRACE_T_B");
	option_set_free(&set);
}

static void files_that_are_none(void **state) {
	struct option_set *set = option_set_new(&router_config_schema);
	struct option_map variables;

	assert_int_equal(dotenv_read(set, "/no/such/file", &variables), 0);
	assert_int_equal(variables.n, 0);
	assert_int_equal(
	    dotenv_read(set, "/tmp", &variables), 0); /* where Python environments are called so */
	assert_int_equal(variables.n, 0);
	assert_int_equal(dotenv_read(set, "/dev/null/file", &variables), -ENOTDIR);
	option_set_free(&set);
}

/* 64 KiB are read, one byte more is not. */
static void a_file_has_a_ceiling(void **state) {
	static char text[(64 << 10) + 1] = "A=1\n#";

	memset(text + strlen(text), 'x', sizeof(text) - strlen(text));
	for (size_t n = sizeof(text) - 1; n <= sizeof(text); n++) {
		struct option_set *set = option_set_new(&router_config_schema);
		struct option_map variables;

		assert_int_equal(read_text(set, text, n, &variables), n < sizeof(text) ? 0 : -EFBIG);
		assert_int_equal(variables.n, n < sizeof(text));
		option_set_free(&set);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_of_a_file),
		cmocka_unit_test(the_environment_goes_before_the_file),
		cmocka_unit_test(files_that_are_none),
		cmocka_unit_test(a_file_has_a_ceiling),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
