#include "unit/unit.h"

#include "base/option_diff.h"

struct config {
	const char *host, *key;
	uint64_t wait_ms, limit_bytes;
	bool verbose;
	struct option_list names;
	struct option_array items;
};

#define AT(member) .offset = offsetof(struct config, member), .bytes = sizeof(((struct config *)0)->member)

static const struct option fields[] = {
	{ "", "url", .help = "u", .type = OPTION_STRING, .bytes = sizeof(const char *) },
};

static const struct option rows[] = {
	{ "main", "host", .help = "h", .type = OPTION_STRING, .def = "a", .fixed = true, AT(host) },
	{ "main", "key", .help = "k", .type = OPTION_STRING, .secret = true, AT(key) },
	{ "main", "wait", .help = "w", .type = OPTION_DURATION, .def = "1m", AT(wait_ms) },
	{ "main", "limit", .help = "l", .type = OPTION_SIZE, .def = "1MiB", .fixed = true, AT(limit_bytes) },
	{ "main", "verbose", .help = "v", .type = OPTION_BOOL, AT(verbose) },
	{ "main", "names", .help = "n", .type = OPTION_LIST, AT(names) },
	{ "main", "unread", .help = "u", .type = OPTION_UINT, .max = 9 },
	{ "", "item", .help = "i", .type = OPTION_ARRAY, .fields = fields, .n_fields = 1,
	    .item_bytes = sizeof(const char *), AT(items) },
};
static const struct option_table tables[] = { { "main", "m" } };
static const struct option_schema schema = { .program = "p",
	.summary = "s",
	.main_table = "main",
	.env_prefix = "P",
	.tables = tables,
	.n_tables = 1,
	.rows = rows,
	.n_rows = n_elems(rows) };

static struct option_set *read_text(const char *text) {
	struct option_set *set = option_set_new(&schema);
	struct config config;

	option_read_text(set, "f", OPTION_TOML, slice_of(text));
	option_store(set, &config);
	option_print_mistakes(set, stderr);
	assert_int_equal(option_mistakes(set), 0);
	return set;
}

/* One line an option: "main.host a b". */
static void expect(const char *before, const char *after, bool only_fixed, const char *expected) {
	struct option_set *a = read_text(before), *b = read_text(after);
	json_t *list = option_diff(a, b, only_fixed);
	char *text = json_dumps(list, JSON_COMPACT);

	assert_string_equal(text, expected);
	free(text);
	json_decref(list);
	option_set_free(&a);
	option_set_free(&b);
}

static void what_is_the_same_is_not_told(void **state) {
	expect("", "", false, "[]");
	expect("[main]\nwait = \"2m\"\nlimit = 2048\nnames = [\"a\", \"b\"]",
	    "[main]\nwait = \"120s\"\nlimit = \"2KiB\"\nnames = [\"a\", \"b\"]", false, "[]");
	expect("", "[main]\nhost = \"a\"\nwait = \"60s\"\nverbose = false", false, "[]");
}

static void each_kind_is_told(void **state) {
	expect("", "[main]\nhost = \"b\"", false, "[{\"option\":\"main.host\",\"from\":\"a\",\"to\":\"b\"}]");
	expect(
	    "[main]\nwait = \"1s\"", "", false, "[{\"option\":\"main.wait\",\"from\":\"1s\",\"to\":\"1m\"}]");
	expect("[main]\nverbose = true", "[main]\nnames = [\"x\"]\nunread = 3", false,
	    "[{\"option\":\"main.verbose\",\"from\":true,\"to\":false},"
	    "{\"option\":\"main.names\",\"from\":[],\"to\":[\"x\"]},"
	    "{\"option\":\"main.unread\",\"from\":0,\"to\":3}]");
}

static void secrets_are_masked(void **state) {
	expect("[main]\nkey = \"s3\"", "[main]\nkey = \"s4\"", false,
	    "[{\"option\":\"main.key\",\"from\":\"(secret)\",\"to\":\"(secret)\"}]");
	expect("[main]\nkey = \"s3\"", "", false,
	    "[{\"option\":\"main.key\",\"from\":\"(secret)\",\"to\":\"\"}]");
}

static void fixed_ones_can_be_asked_for_alone(void **state) {
	expect("", "[main]\nlimit = \"2MiB\"\nwait = \"2s\"", true,
	    "[{\"option\":\"main.limit\",\"from\":\"1MiB\",\"to\":\"2MiB\"}]");
	expect("", "[main]\nlimit = \"1024KiB\"\nwait = \"2s\"", true, "[]");
}

static void arrays_are_left_out(void **state) {
	expect("", "[[item]]\nurl = \"x\"", false, "[]");
}

/* A program that runs reads again: nothing is carried out, mistakes are counted. */
static void reading_again_counts_mistakes(void **state) {
	char *good[] = { "p", "--host", "c", "--help" }, *bad[] = { "p", "--wait", "soon", "--limt", "3" };
	struct config config;
	struct option_set *set = option_set_new(&schema);

	assert_int_equal(option_read_again(set, 4, good, &config, NULL), 0);
	assert_string_equal(config.host, "c");
	option_set_free(&set);
	set = option_set_new(&schema);
	assert_int_equal(option_read_again(set, 5, bad, &config, NULL), 2);
	option_set_free(&set);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_the_same_is_not_told),
		cmocka_unit_test(each_kind_is_told),
		cmocka_unit_test(secrets_are_masked),
		cmocka_unit_test(fixed_ones_can_be_asked_for_alone),
		cmocka_unit_test(arrays_are_left_out),
		cmocka_unit_test(reading_again_counts_mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
