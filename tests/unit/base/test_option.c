#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "base/option.h"
#include "base/option_doc.h"

/* ---- a program of our own, with a row of every kind ---- */

enum colour { RED, GREEN, BLUE };

struct item {
	const char *url, *name;
	struct option_map labels;
	uint8_t weight;
};

struct config {
	const char *host, *mode, *key;
	uint16_t port, log_port;
	unsigned threads;
	uint64_t limit_bytes, wait_ms, idle_ms;
	bool verbose;
	double part;
	enum colour colour;
	struct option_list names;
	struct {
		const struct item *items;
		size_t n;
	} items;
};

static const char *check_host(const char *text) {
	return strchr(text, '!') ? "has an exclamation mark" : NULL;
}

static const char *const modes[] = { "slow", "fast", NULL };
static const char *const colours[] = { "red", "green", "blue", NULL };

#define AT(type, member) .offset = offsetof(type, member), .bytes = sizeof(((type *)0)->member)

static const struct option fields[] = {
	{ "", "url", .help = "u", .type = OPTION_STRING, .required = true, AT(struct item, url) },
	{ "", "name", .help = "n", .type = OPTION_STRING, .def = "nobody", AT(struct item, name) },
	{ "", "weight", .help = "w", .type = OPTION_UINT, .def = "1", .min = 1, AT(struct item, weight) },
	{ "", "labels", .help = "l", .type = OPTION_MAP, AT(struct item, labels) },
};

static const struct option rows[] = {
	{ "main", "host", .help = "h", .type = OPTION_STRING, .def = "localhost", .check = check_host,
	    AT(struct config, host) },
	{ "main", "port", .help = "p", .type = OPTION_UINT, .def = "80", .min = 1, .max = 65535,
	    AT(struct config, port) },
	{ "main", "threads", .help = "t", .type = OPTION_UINT, AT(struct config, threads) },
	{ "main", "limit", .help = "l", .type = OPTION_SIZE, .def = "1MiB", .min = 1024, .max = 1 << 30,
	    AT(struct config, limit_bytes) },
	{ "main", "part", .help = "p", .type = OPTION_NUMBER, .def = "0.25", .min = OPTION_ONE / 8,
	    .max = 4 * OPTION_ONE, AT(struct config, part) },
	{ "main", "verbose", .help = "v", .type = OPTION_BOOL, AT(struct config, verbose) },
	{ "main", "colour", .help = "c", .type = OPTION_ENUM, .choices = colours, .def = "green",
	    AT(struct config, colour) },
	{ "main", "names", .help = "n", .type = OPTION_LIST, .def = "x,y", .check = check_host,
	    AT(struct config, names) },
	{ "main", "key", .help = "k", .type = OPTION_STRING, .secret = true, AT(struct config, key) },
	{ "timeout", "wait_long", .help = "w", .type = OPTION_DURATION, .def = "3s", .min = 1, .max = 60000,
	    .can_be_off = true, AT(struct config, wait_ms) },
	{ "timeout", "idle", .help = "i", .type = OPTION_DURATION, .def = "5s", .max = 60000,
	    AT(struct config, idle_ms) },
	{ "log", "port", .help = "p", .type = OPTION_UINT, AT(struct config, log_port) },
	{ "log", "default", .flag = "mode", .help = "m", .type = OPTION_STRING, .choices = modes,
	    .def = "fast", AT(struct config, mode) },
	{ "later", "thing", .help = "t", .type = OPTION_BOOL, .reserved = true },
	{ "", "item", .help = "one item each", .type = OPTION_ARRAY, .fields = fields,
	    .n_fields = n_elems(fields), .item_bytes = sizeof(struct item), AT(struct config, items) },
};

static const struct option_table tables[] = { { "main", "the program" }, { "timeout", "times" },
	{ "log", "logs" }, { "later", "later" } };

static const struct option_schema schema = {
	.program = "some program",
	.summary = "does something",
	.main_table = "main",
	.env_prefix = "PROGRAM",
	.tables = tables,
	.n_tables = n_elems(tables),
	.rows = rows,
	.n_rows = n_elems(rows),
	.page = { .description = "First.\n  verbatim-line\n.Second.\n", .examples = "  \\x\n" },
};

/* ---- one reading ---- */

struct reading {
	struct option_set *set;
	struct config config;
	char *mistakes;
};

static enum option_command read_flags(struct reading *r, const char *line) {
	char words[512], *argv[32] = { words }, *save = NULL;
	int argc = 1;

	snprintf(words, sizeof(words), "%s", line);
	for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	return option_read_flags(r->set, argc, argv);
}

static void finish(struct reading *r) {
	size_t n;
	FILE *out = open_memstream(&r->mistakes, &n);

	option_store(r->set, &r->config);
	option_print_mistakes(r->set, out);
	fclose(out);
}

/* Any source may be NULL. The file is TOML unless it begins with a brace. */
static struct reading read_all(const char *flags, const char *variable, const char *file) {
	struct reading r = { .set = option_set_new(&schema) };
	char *environment[] = { (char *)variable, NULL };

	if (flags)
		read_flags(&r, flags);
	option_read_environment(r.set, environment);
	if (file)
		option_read_text(r.set, "FILE", file[0] == '{' ? OPTION_JSON : OPTION_TOML, slice_of(file));
	finish(&r);
	return r;
}

static void release(struct reading *r) {
	option_set_free(&r->set);
	assert_null(r->set);
	free(r->mistakes);
}

/* ---- tests ---- */

static void defaults(void **state) {
	struct reading r = read_all(NULL, NULL, NULL);

	assert_string_equal(r.mistakes, "");
	assert_string_equal(r.config.host, "localhost");
	assert_string_equal(r.config.mode, "fast");
	assert_string_equal(r.config.key, "");
	assert_int_equal(r.config.port, 80);
	assert_int_equal(r.config.log_port, 0);
	assert_int_equal(r.config.threads, 0);
	assert_int_equal(r.config.limit_bytes, 1 << 20);
	assert_int_equal(r.config.wait_ms, 3000);
	assert_true(r.config.part == 0.25);
	assert_int_equal(r.config.colour, GREEN);
	assert_false(r.config.verbose);
	assert_int_equal(r.config.names.n, 2);
	assert_string_equal(r.config.names.items[1], "y");
	assert_int_equal(r.config.items.n, 0);
	assert_false(option_is_given(r.set, "main.port"));
	release(&r);
}

static void every_type_from_every_source(void **state) {
	static const char *const sources[][2] = {
		{ "--host h --port 1 --threads 4294967295 --limit 2k --verbose --colour blue --names a b "
		  "--wait-long 1m "
		  "--log-port 65535 --mode slow",
		    NULL },
		{ "--main-host=h --main-port=1 --main-threads=4294967295 --main-limit=2048 "
		  "--main-verbose=true "
		  "--main-colour=Blue --main-names=a,b --timeout-wait-long=60000ms --log-port=65535 "
		  "--log-default=slow",
		    NULL },
		{ NULL,
		    "[main]\nhost = 'h'\nport = 1\nthreads = 4294967295\nlimit = 2048\nverbose = true\n"
		    "colour = 'BLUE'\nnames = ['a', 'b']\n[timeout]\nwait_long = '1m'\n"
		    "[log]\nport = 65535\ndefault = 'slow'\n" },
		{ NULL,
		    "{\"main\":{\"host\":\"h\",\"port\":1,\"threads\":4294967295,\"limit\":\"2k\","
		    "\"verbose\":true,"
		    "\"colour\":\"blue\",\"names\":[\"a\",\"b\"]},\"timeout\":{\"wait_long\":\"60s\"},"
		    "\"log\":{\"port\":65535,\"default\":\"slow\"}}" },
	};

	for (size_t i = 0; i < n_elems(sources); i++) {
		struct reading r = read_all(sources[i][0], NULL, sources[i][1]);

		assert_string_equal(r.mistakes, "");
		assert_string_equal(r.config.host, "h");
		assert_int_equal(r.config.port, 1);
		assert_int_equal(r.config.threads, UINT32_MAX);
		assert_int_equal(r.config.limit_bytes, 2048);
		assert_true(r.config.verbose);
		assert_int_equal(r.config.colour, BLUE);
		assert_int_equal(r.config.names.n, 2);
		assert_string_equal(r.config.names.items[0], "a");
		assert_string_equal(r.config.names.items[1], "b");
		assert_int_equal(r.config.wait_ms, 60000);
		assert_int_equal(r.config.log_port, 65535);
		assert_string_equal(r.config.mode, "slow");
		release(&r);
	}
}

/* The order of reading does not count, the rank of the source does. */
static void file_then_environment_then_flags(void **state) {
	static char *const environment[] = { "PROGRAM_MAIN_PORT=2", "PROGRAM_MAIN_THREADS=2", NULL };
	static const char file[] = "[main]\nport = 3\nthreads = 3\nlimit = 3000\n";

	for (int turn = 0; turn < 3; turn++) {
		struct reading r = { .set = option_set_new(&schema) };

		for (int step = 0; step < 3; step++)
			switch ((turn + step) % 3) {
			case 0:
				read_flags(&r, "--port 1");
				break;
			case 1:
				option_read_environment(r.set, environment);
				break;
			case 2:
				option_read_text(r.set, "FILE", OPTION_TOML, slice_of(file));
				break;
			}
		finish(&r);
		assert_string_equal(r.mistakes, "");
		assert_int_equal(r.config.port, 1);
		assert_int_equal(r.config.threads, 2);
		assert_int_equal(r.config.limit_bytes, 3000);
		assert_true(option_is_given(r.set, "main.limit"));
		release(&r);
	}
}

static void flags_of_lists_and_switches(void **state) {
	static const struct {
		const char *flags, *names;
		bool verbose;
	} cases[] = {
		{ "--names a b --names=c,d --names e", "abcde", false },
		{ "--names a,,b, --verbose", "ab", true },
		{ "--names=", "", false },
		{ "--verbose --names a", "a", true },
		{ "--verbose=false --names a", "a", false },
		{ "--verbose true --verbose false --names a", "a", false },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_all(cases[i].flags, "PROGRAM_MAIN_NAMES=not,these", NULL);
		char names[16] = "";

		assert_string_equal(r.mistakes, "");
		assert_int_equal(r.config.names.n, strlen(cases[i].names));
		for (size_t j = 0; j < r.config.names.n; j++)
			names[j] = r.config.names.items[j][0];
		assert_string_equal(names, cases[i].names);
		assert_int_equal(r.config.verbose, cases[i].verbose);
		release(&r);
	}
}

/* With a fraction or without, and never as a text where a file can say it as a number. */
static void numbers_with_a_fraction(void **state) {
	static const struct {
		const char *flags, *variable, *file;
		double part;
		const char *dumped;
	} cases[] = {
		{ "--part 2.5", NULL, NULL, 2.5, "2.5" },
		{ "--main-part=3", NULL, NULL, 3, "3" },
		{ NULL, "PROGRAM_MAIN_PART=0.125", NULL, 0.125, "0.125" },
		{ NULL, NULL, "[main]\npart = 2.5\n", 2.5, "2.5" },
		{ NULL, NULL, "[main]\npart = 4\n", 4, "4" },
		{ NULL, NULL, "[main]\npart = 5e-1\n", 0.5, "0.5" },
		{ NULL, NULL, "{\"main\":{\"part\":1.1}}", 1.1, "1.1" },
		{ NULL, NULL, "{\"main\":{\"part\":1}}", 1, "1" },
		{ NULL, NULL, NULL, 0.25, "0.25" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_all(cases[i].flags, cases[i].variable, cases[i].file);
		json_t *dump = option_dump(r.set);
		const json_t *part = json_object_get(json_object_get(dump, "main"), "part");
		char *text = json_dumps(part, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

		assert_string_equal(r.mistakes, "");
		assert_true(r.config.part == cases[i].part);
		assert_string_equal(text, cases[i].dumped);
		free(text);
		json_decref(dump);
		release(&r);
	}
}

static void off_and_zero(void **state) {
	struct reading r = read_all("--wait-long off --idle 0", NULL, NULL);

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.wait_ms, 0);
	assert_int_equal(r.config.idle_ms, 0);
	release(&r);

	r = read_all(NULL, NULL, "[timeout]\nwait_long = 0\nidle = 0\n");
	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.wait_ms, 0);
	assert_int_equal(r.config.idle_ms, 0);
	release(&r);
}

static void one_line_for_each_mistake(void **state) {
	static const struct {
		const char *flags, *variable, *file, *line;
	} cases[] = {
		{ "--prot 1", NULL, NULL, "--prot: unknown flag; did you mean --port?\n" },
		{ "--zzzzzzzz 1 2 3", NULL, NULL, "--zzzzzzzz: unknown flag\n" },
		{ "--timeout-wait_long 1s", NULL, NULL,
		    "--timeout-wait_long: unknown flag; did you mean --timeout-wait-long?\n" },
		{ "--default slow", NULL, NULL, "--default: unknown flag; did you mean --log-default?\n" },
		{ "port", NULL, NULL, "port: a flag was expected\n" },
		{ "--port", NULL, NULL, "--port: a value is missing\n" },
		{ "--port --verbose", NULL, NULL, "--port: a value is missing\n" },
		{ "--port=", NULL, NULL, "--port: expected a whole number, got \"\"\n" },
		{ "--port 65536", NULL, NULL, "--port: 65536 is out of range: 1 to 65535\n" },
		{ "--port 99999999999999999999", NULL, NULL,
		    "--port: expected a whole number, got \"99999999999999999999\"\n" },
		{ "--log-port 65536", NULL, NULL, "--log-port: 65536 is too large\n" },
		{ "--part 4.001", NULL, NULL, "--part: 4.001 is out of range: 0.125 to 4\n" },
		{ "--part 0.124", NULL, NULL, "--part: 0.124 is out of range: 0.125 to 4\n" },
		{ "--part much", NULL, NULL, "--part: expected a number, got \"much\"\n" },
		{ NULL, "PROGRAM_MAIN_PART=1.5.1", NULL,
		    "PROGRAM_MAIN_PART: expected a number, got \"1.5.1\"\n" },
		{ NULL, NULL, "[main]\npart = '2.5'\n",
		    "FILE:2: main.part: expected a number, got \"2.5\"\n" },
		{ NULL, NULL, "[main]\npart = -0.5\n",
		    "FILE:2: main.part: -0.5 is out of range: 0.125 to 4\n" },
		{ NULL, NULL, "{\"main\":{\"part\":true}}",
		    "FILE: main.part: expected a number, got true\n" },
		{ "--limit 1023", NULL, NULL, "--limit: \"1023\" is out of range: 1KiB to 1GiB\n" },
		{ "--limit 1MB", NULL, NULL,
		    "--limit: expected a size such as \"64MiB\" or \"256k\", or a number of bytes, got "
		    "\"1MB\"\n" },
		{ "--wait-long 61s", NULL, NULL,
		    "--wait-long: \"61s\" is out of range: 1ms to 1m, or off\n" },
		{ "--idle off", NULL, NULL,
		    "--idle: expected a duration such as \"500ms\", \"3s\" or \"2m\", got \"off\"\n" },
		{ "--verbose=1", NULL, NULL, "--verbose: expected true or false, got \"1\"\n" },
		{ "--colour pink", NULL, NULL, "--colour: expected one of red, green, blue, got \"pink\"\n" },
		{ "--host a!", NULL, NULL, "--host: has an exclamation mark\n" },
		{ "--names a b! c", NULL, NULL, "--names: has an exclamation mark\n" },
		{ "--host \xff", NULL, NULL, "--host: is not UTF-8\n" },
		{ "--names a,\xff", NULL, NULL, "--names: is not UTF-8\n" },
		{ "--host a\tb", NULL, NULL, "--host: must not hold control characters\n" },
		{ "--config", NULL, NULL, "--config: a file is missing\n" },
		{ "--config a --config b", NULL, NULL, "--config: only one file is read\n" },
		{ NULL, "PROGRAM_MAIN_PROT=1", NULL,
		    "PROGRAM_MAIN_PROT: unknown variable; did you mean PROGRAM_MAIN_PORT?\n" },
		{ NULL, "PROGRAM_MAIN_PORT=x", NULL,
		    "PROGRAM_MAIN_PORT: expected a whole number, got \"x\"\n" },
		{ NULL, NULL, "\n[main]\nprot = 1\n",
		    "FILE:3: main.prot: unknown key; did you mean main.port?\n" },
		{ NULL, NULL, "[main]\nidle = '1s'\n",
		    "FILE:2: main.idle: unknown key; did you mean timeout.idle?\n" },
		{ NULL, NULL, "[mian]\nport = 1\n", "FILE:1: mian: unknown key; did you mean main?\n" },
		{ NULL, NULL, "port = 1\n", "FILE:1: port: unknown key; did you mean main.port?\n" },
		{ NULL, NULL, "main.'port\\nx' = 1\n",
		    "FILE:1: main.port\\nx: unknown key; did you mean main.port?\n" },
		{ NULL, NULL, "main.\"po\\nrt\" = 1\n",
		    "FILE:1: main.po?rt: unknown key; did you mean main.port?\n" },
		{ NULL, NULL, "'main.port' = 1\n", "FILE:1: main.port: unknown key\n" },
		{ NULL, NULL, "main = 1\n", "FILE:1: main: expected a table\n" },
		{ NULL, NULL, "[main]\nport = '1'\n",
		    "FILE:2: main.port: expected a whole number, got \"1\"\n" },
		{ NULL, NULL, "[main]\nport = -1\n", "FILE:2: main.port: expected a whole number, got -1\n" },
		{ NULL, NULL, "[main]\nport = 1.5\n",
		    "FILE:2: main.port: expected a whole number, got 1.5\n" },
		{ NULL, NULL, "[main]\nnames = 'a'\n",
		    "FILE:2: main.names: expected a list of texts, got \"a\"\n" },
		{ NULL, NULL, "[main]\nnames = ['a',\n1]\n",
		    "FILE:3: main.names[1]: expected a text that is not empty\n" },
		{ NULL, NULL, "[main]\nhost = \"a\\u0000b\"\n",
		    "FILE:2: main.host: must not hold control characters\n" },
		{ NULL, NULL, "[main]\nkey = 12345\n",
		    "FILE:2: main.key: expected a text, got something else\n" },
		{ NULL, NULL, "[timeout]\nidle = 10\n",
		    "FILE:2: timeout.idle: expected a duration such as \"500ms\", \"3s\" or \"2m\", got "
		    "10\n" },
		{ NULL, NULL, "[[item]]\nname = 'x'\n", "FILE:1: item[0]: url is missing\n" },
		{ NULL, NULL, "[[item]]\nurl = 'x'\nwieght = 1\n",
		    "FILE:3: item[0].wieght: unknown key; did you mean weight?\n" },
		{ NULL, NULL, "[[item]]\nurl = 'x'\n[[item]]\nurl = 'x'\nweight = 256\n",
		    "FILE:5: item[1].weight: 256 is out of range: 1 to 255\n" },
		{ NULL, NULL, "[[item]]\nurl = 'x'\nlabels = {a = 1}\n",
		    "FILE:3: item[0].labels.a: expected a text, got 1\n" },
		{ NULL, NULL, "item = [1]\n", "FILE:1: item[0]: expected a table\n" },
		{ NULL, NULL, "[item]\n", "FILE:1: item: expected an array of tables, got a table\n" },
		{ NULL, NULL, "[later]\nthing = 'whatever'\n",
		    "FILE:2: later.thing: warning: has no effect yet\n" },
		{ NULL, NULL, "{\"main\":{\"port\":70000}}",
		    "FILE: main.port: 70000 is out of range: 1 to 65535\n" },
		{ NULL, NULL, "{\"main\":\n{\"port\":1,\n\"port\":2}}",
		    "FILE:3: duplicate object key near '\"port\"'\n" },
		{ NULL, NULL, "{\"item\":[{\"url\":\"x\"},{\"url\":null}]}",
		    "FILE: item[1].url: expected a text, got null\n" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_all(cases[i].flags, cases[i].variable, cases[i].file);

		assert_string_equal(r.mistakes, cases[i].line);
		assert_int_equal(option_mistakes(r.set), strstr(r.mistakes, "warning") ? 0 : 1);
		release(&r);
	}
}

static void mistakes_come_in_the_order_of_their_causes(void **state) {
	static char *const environment[] = { "PROGRAM_LOG_PORT=x", NULL };
	struct reading r = { .set = option_set_new(&schema) };

	read_flags(&r, "--host ok --port 0 --nonsense");
	option_read_environment(r.set, environment);
	option_read_text(r.set, "FILE", OPTION_TOML,
	    SLICE("[timeout]\nidle = 1\nwait_long = 'x'\n[main]\nlimit = 0\nport = 'hidden by the flag'\n"));
	option_mistake(r.set, "main.host", "is %s", "far");
	option_mistake(r.set, "item[3].url", "is %s", "farther");
	finish(&r);
	assert_string_equal(r.mistakes,
	    "item[3].url: is farther\n"
	    "FILE:2: timeout.idle: expected a duration such as \"500ms\", \"3s\" or \"2m\", got 1\n"
	    "FILE:3: timeout.wait_long: expected a duration such as \"500ms\", \"3s\" or \"2m\", or \"off\", "
	    "got \"x\"\n"
	    "FILE:5: main.limit: 0 is out of range: 1KiB to 1GiB\n"
	    "FILE:6: main.port: expected a whole number, got \"hidden by the flag\"\n"
	    "PROGRAM_LOG_PORT: expected a whole number, got \"x\"\n"
	    "--port: 0 is out of range: 1 to 65535\n"
	    "--nonsense: unknown flag\n"
	    "--host: is far\n");
	assert_int_equal(option_mistakes(r.set), 9);
	assert_int_equal(r.config.port, 80); /* what is wrong is not taken */
	release(&r);
}

static void verdicts_stand_where_the_value_came_from(void **state) {
	static char *const environment[] = { "PROGRAM_LOG_PORT=1", NULL };
	struct reading r = { .set = option_set_new(&schema) };

	option_read_environment(r.set, environment);
	option_read_text(r.set, "FILE", OPTION_TOML, SLICE("\n[[item]]\nurl = 'a'\n[[item]]\nurl = 'b'\n"));
	option_mistake(r.set, "item[1].url", "is bad");
	option_mistake(r.set, "item[1].name", "is missing");
	option_warning(r.set, "log.port", "is odd");
	option_warning(r.set, "main.port", "is the default");
	finish(&r);
	assert_string_equal(r.mistakes,
	    "main.port: warning: is the default\n"
	    "FILE:4: item[1].name: is missing\n"
	    "FILE:5: item[1].url: is bad\n"
	    "PROGRAM_LOG_PORT: warning: is odd\n");
	assert_int_equal(option_mistakes(r.set), 2);
	release(&r);
}

static void the_environment_belongs_to_others_too(void **state) {
	static const char *const others[] = { "PROGRAM_BUILD=x", "PROGRAMMAIN_PORT=x", "program_main_port=x",
		"PROGRAM_main_port=x", "MAIN_PORT=x", "PROGRAM_MAIN_PORT=", "PROGRAM_ITEM=x", "PROGRAM=x",
		"x" };

	for (size_t i = 0; i < n_elems(others); i++) {
		struct reading r = read_all(NULL, others[i], NULL);

		assert_string_equal(r.mistakes, "");
		assert_int_equal(r.config.port, 80);
		release(&r);
	}
}

static void arrays_of_tables(void **state) {
	struct reading r = read_all(NULL, NULL,
	    "[[item]]\nurl = 'a'\nweight = 255\nlabels = { zone = 'z', rack = '7' }\n[[item]]\nurl = 'b'\n");

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.items.n, 2);
	const struct item *items = r.config.items.items;
	assert_string_equal(items[0].url, "a");
	assert_int_equal(items[0].weight, 255);
	assert_int_equal(items[0].labels.n, 2);
	assert_string_equal(items[0].labels.items[0].name, "rack");
	assert_string_equal(items[0].labels.items[0].value, "7");
	assert_string_equal(items[1].url, "b");
	assert_string_equal(items[1].name, "nobody");
	assert_int_equal(items[1].weight, 1);
	assert_int_equal(items[1].labels.n, 0);
	release(&r);
}

static void the_dump_shows_what_is_in_effect(void **state) {
	static const char expected[] =
	    "{\"item\":[{\"labels\":{},\"name\":\"nobody\",\"url\":\"a\",\"weight\":1}],"
	    "\"log\":{\"default\":\"fast\",\"port\":0},"
	    "\"main\":{\"colour\":\"green\",\"host\":\"localhost\",\"key\":\"(secret)\",\"limit\":\"2k\","
	    "\"names\":[\"x\",\"y\"],\"part\":0.25,\"port\":7,\"threads\":0,\"verbose\":false},"
	    "\"timeout\":{\"idle\":\"5s\",\"wait_long\":\"3s\"}}";
	struct reading r =
	    read_all("--port 7 --limit 2k --key xyzzy", NULL, "[[item]]\nurl = 'a'\n[later]\nthing = true\n");
	json_t *dump = option_dump(r.set);
	char *text = json_dumps(dump, JSON_COMPACT | JSON_SORT_KEYS);

	assert_string_equal(text, expected);
	free(text);
	json_decref(dump);
	release(&r);
}

static void commands(void **state) {
	static const struct {
		const char *flags;
		enum option_command command;
	} cases[] = {
		{ "", OPTION_RUN },
		{ "--port 1", OPTION_RUN },
		{ "--check", OPTION_CHECK },
		{ "--check --help", OPTION_HELP },
		{ "--help --check --man", OPTION_HELP },
		{ "-h", OPTION_HELP },
		{ "--man", OPTION_MAN },
		{ "--nonsense --version", OPTION_VERSION },
		{ "-V", OPTION_VERSION },
		{ "--host=--help", OPTION_RUN },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = { .set = option_set_new(&schema) };

		assert_int_equal(read_flags(&r, cases[i].flags), cases[i].command);
		finish(&r);
		release(&r);
	}
}

/* ---- files ---- */

static char *write_file(const char *suffix, const char *text, size_t n) {
	static char path[64];

	snprintf(path, sizeof(path), P_tmpdir "/test_option-XXXXXX%s", suffix);
	int fd = mkstemps(path, (int)strlen(suffix));
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
	return path;
}

static void the_form_of_a_file(void **state) {
	static const struct {
		const char *suffix, *text;
	} cases[] = {
		{ ".toml", "main.port = 7" },
		{ ".json", " {\"main\":{\"port\":7}}" },
		{ "", "main.port = 7" },
		{ ".conf", "\n\t {\"main\":{\"port\":7}}" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = { .set = option_set_new(&schema) };
		char *path = write_file(cases[i].suffix, cases[i].text, strlen(cases[i].text)), flags[128];

		snprintf(flags, sizeof(flags), "--config %s", path);
		read_flags(&r, flags);
		assert_string_equal(option_file(r.set), path);
		option_read_file(r.set, option_file(r.set));
		finish(&r);
		assert_string_equal(r.mistakes, "");
		assert_int_equal(r.config.port, 7);
		release(&r);
		unlink(path);
	}
}

static void files_that_cannot_be_read(void **state) {
	struct reading r = { .set = option_set_new(&schema) };

	option_read_file(r.set, "/no/such/file");
	finish(&r);
	assert_string_equal(r.mistakes, "/no/such/file: No such file or directory\n");
	release(&r);
	r = (struct reading){ .set = option_set_new(&schema) };
	option_read_file(r.set, "/");
	finish(&r);
	assert_string_equal(r.mistakes, "/: Is a directory\n");
	assert_true(option_has_said(r.set, "/: Is a directory"));
	assert_false(option_has_said(r.set, "/"));
	release(&r);
}

/* A file of 1 MiB is read, one byte more is not. */
static void files_have_a_ceiling(void **state) {
	static char text[(1 << 20) + 1] = "main.port = 7 #";

	memset(text + strlen(text), 'x', sizeof(text) - strlen(text));
	for (size_t n = sizeof(text) - 1; n <= sizeof(text); n++) {
		struct reading r = { .set = option_set_new(&schema) };
		char *path = write_file(".toml", text, n);

		option_read_file(r.set, path);
		finish(&r);
		assert_int_equal(r.config.port, n < sizeof(text) ? 7 : 80);
		assert_int_equal(option_mistakes(r.set), n < sizeof(text) ? 0 : 1);
		release(&r);
		unlink(path);
	}
}

/* ---- help and manual page ---- */

static char *print_of(const struct option_schema *of, void (*doc)(const struct option_schema *, FILE *)) {
	char *text;
	size_t n;
	FILE *out = open_memstream(&text, &n);

	doc(of, out);
	fclose(out);
	return text;
}

static char *print(void (*doc)(const struct option_schema *, FILE *)) {
	return print_of(&schema, doc);
}

static void own_help(const struct option_schema *of, FILE *out) {
	option_doc_help(of, NULL, out);
}

static void the_help_names_every_flag_and_fits(void **state) {
	static const char *const wanted[] = { "some program: does something", "--config FILE", "--check",
		"--help", "[main] the program", "--host TEXT", "(default localhost)",
		"(1 to 65535; default 80)", "--wait-long TIME", "(1ms to 1m, or off; default 3s)",
		"--log-port N", "--mode NAME", "one of slow, fast", "--names TEXT...", "--thing true|false",
		"reserved", "[[item]] in the file", "url TEXT", "required", "PROGRAM_TABLE_KEY" };
	char *text = print(own_help);

	for (size_t i = 0; i < n_elems(wanted); i++)
		assert_non_null(strstr(text, wanted[i]));
	for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
		assert_true(strcspn(line, "\n") <= 100);
	free(text);
}

static void other_help(const struct option_schema *of, FILE *out) {
	static const struct option_alias aliases[] = { { "main.host", "listen" } };
	static const struct option_dialect dialect = { .name = "other", .aliases = aliases, .n_aliases = 1 };

	option_doc_help(of, &dialect, out);
}

static void the_help_has_a_dialects_names(void **state) {
	char *text = print(other_help);

	assert_non_null(strstr(text, "  --listen TEXT "));
	assert_null(strstr(text, "  --host TEXT "));
	assert_non_null(strstr(text, "  --port N "));
	free(text);
}

static void the_page_is_troff(void **state) {
	static const char *const wanted[] = { ".TH some\\-program 1 ",
		".SH NAME\nsome\\-program \\- does something\n",
		".SH DESCRIPTION\n.PP\nFirst.\n.PP\n.nf\n  verbatim\\-line\n.fi\n.PP\n\\&.Second.\n",
		"\\fB\\-\\-wait\\-long\\fR \\fITIME\\fR\n", "\\fB\\-\\-mode\\fR", ".SS [[item]]\n",
		"\\fBPROGRAM_\\fITABLE", ".SH EXAMPLES\n.PP\n.nf\n  \\ex\n.fi\n", ".SH EXIT STATUS" };
	char *text = print(option_doc_man);

	for (size_t i = 0; i < n_elems(wanted); i++)
		assert_non_null(strstr(text, wanted[i]));
	assert_null(strstr(text, ".SH SIGNALS")); /* no prose, no section */
	free(text);
}

/* ---- what only some programs ask for ---- */

struct lenient {
	uint64_t wait_ms, strict_ms, short_ms;
	struct option_list words, names, lines, bare;
	const json_t *tree;
};

static const struct option lenient_rows[] = {
	{ "main", "wait", .help = "w", .type = OPTION_DURATION, .def = "5", .min = 500, .max = 60000,
	    .unit_ms = 1000, AT(struct lenient, wait_ms) },
	{ "main", "strict", .help = "s", .type = OPTION_DURATION, AT(struct lenient, strict_ms) },
	{ "main", "short", .flag = "brief-ms", .also = "blink", .help = "s", .type = OPTION_DURATION,
	    .unit_ms = 1, AT(struct lenient, short_ms) },
	{ "sub", "words", .help = "w", .type = OPTION_LIST, .at_spaces = true, AT(struct lenient, words) },
	{ "sub", "lines", .help = "l", .type = OPTION_LIST, .is_whole = true, AT(struct lenient, lines) },
	{ "sub", "names", .help = "n", .type = OPTION_LIST, AT(struct lenient, names) },
	{ "sub", "bare", .help = "b", .type = OPTION_LIST, .def = "x", .can_be_bare = true,
	    AT(struct lenient, bare) },
	{ "", "tree", .help = "t", .type = OPTION_TREE, AT(struct lenient, tree) },
};

static const struct option_table lenient_tables[] = { { "main", "m" }, { "sub", "s" } };

static const struct option_group lenient_groups[] = { { "lists", "sub" } };

static const struct option_schema lenient_schema = {
	.program = "lenient",
	.summary = "l",
	.main_table = "main",
	.env_prefix = "LENIENT",
	.tables = lenient_tables,
	.n_tables = n_elems(lenient_tables),
	.groups = lenient_groups,
	.n_groups = n_elems(lenient_groups),
	.rows = lenient_rows,
	.n_rows = n_elems(lenient_rows),
	.main_at_top = true,
	.ignores_unknown = true,
};

static char *read_lenient(struct option_set *set, struct lenient *config, const char *toml) {
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);
	option_read_text(set, "F", OPTION_TOML, slice_of(toml));
	option_store(set, config);
	option_print_mistakes(set, out);
	fclose(out);
	return text;
}

static void numbers_may_be_seconds(void **state) {
	static const struct {
		const char *toml, *mistakes;
		uint64_t wait_ms;
	} cases[] = {
		{ "", "", 5000 },
		{ "[main]\nwait = 7\n", "", 7000 },
		{ "[main]\nwait = \"8\"\n", "", 8000 },
		{ "[main]\nwait = \"900ms\"\n", "", 900 },
		{ "wait = 60\n", "", 60000 },
		{ "wait = 61\n", "F:1: main.wait: 61 is out of range: 500ms to 1m\n", 5000 },
		{ "[main]\nwait = 0\n", "F:2: main.wait: 0 is out of range: 500ms to 1m\n", 5000 },
		{ "wait = 9223372036854775807\n",
		    "F:1: main.wait: expected a duration such as \"500ms\", \"3s\" or \"2m\", got "
		    "9223372036854775807\n",
		    5000 },
		{ "wait = 1.5\n",
		    "F:1: main.wait: expected a duration such as \"500ms\", \"3s\" or \"2m\", got 1.5\n",
		    5000 },
		{ "strict = 1\n",
		    "F:1: main.strict: expected a duration such as \"500ms\", \"3s\" or \"2m\", got 1\n",
		    5000 },
	};
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct option_set *set = option_set_new(&lenient_schema);
		struct lenient config;
		char *text = read_lenient(set, &config, cases[i].toml);
		assert_string_equal(text, cases[i].mistakes);
		assert_int_equal(config.wait_ms, cases[i].wait_ms);
		free(text);
		option_set_free(&set);
	}
}

static void words_are_split_at_spaces_alone(void **state) {
	char *const argv[] = { "x", "--words=a,b  c", "--names", "a,b", "--wait", "6", "--lines", "a: b, c",
		"--lines=d e" };
	struct option_set *set = option_set_new(&lenient_schema);
	struct lenient config;
	option_read_flags(set, n_elems(argv), argv);
	char *text = read_lenient(set, &config, "[sub]\nwords = [\"\", \"x y\"]\n");
	assert_string_equal(text, "");
	assert_int_equal(config.words.n, 2);
	assert_string_equal(config.words.items[0], "a,b");
	assert_int_equal(config.names.n, 2);
	assert_int_equal(config.lines.n, 2);
	assert_string_equal(config.lines.items[0], "a: b, c");
	assert_string_equal(config.lines.items[1], "d e");
	assert_int_equal(config.wait_ms, 6000);
	free(text);
	option_set_free(&set);

	set = option_set_new(&lenient_schema);
	text = read_lenient(set, &config, "[sub]\nwords = [\"\", \"x y\"]\nnames = [\"\"]\n");
	assert_string_equal(text, "F:3: sub.names[0]: expected a text that is not empty\n");
	assert_int_equal(config.words.n, 2);
	assert_string_equal(config.words.items[1], "x y");
	free(text);
	option_set_free(&set);
}

static void names_of_flags_may_have_the_unit(void **state) {
	static const struct {
		char *flag;
		uint64_t wait_ms, short_ms;
	} cases[] = {
		{ "--wait", 9000, 0 },
		{ "--wait-secs", 9000, 0 },
		{ "--main-wait-secs", 9000, 0 },
		{ "--brief-ms", 5000, 9 },
		{ "--brief", 5000, 9 },
		{ "--main-short-ms", 5000, 9 },
		{ "--blink", 5000, 9 },
		{ "--blink-ms", 5000, 9 },
	};
	static char *const unknown[] = { "--wait-ms", "--brief-secs", "--strict-secs", "--names-secs",
		"--secs", "--wait-secs-secs" };

	for (size_t i = 0; i < n_elems(cases); i++) {
		char *const argv[] = { "x", cases[i].flag, "9" };
		struct option_set *set = option_set_new(&lenient_schema);
		struct lenient config;
		option_read_flags(set, n_elems(argv), argv);
		option_store(set, &config);
		assert_int_equal(option_mistakes(set), 0);
		assert_int_equal(config.wait_ms, cases[i].wait_ms);
		assert_int_equal(config.short_ms, cases[i].short_ms);
		option_set_free(&set);
	}
	for (size_t i = 0; i < n_elems(unknown); i++) {
		char *const argv[] = { "x", unknown[i], "9" };
		struct option_set *set = option_set_new(&lenient_schema);
		option_read_flags(set, n_elems(argv), argv);
		assert_int_equal(option_mistakes(set), 1);
		option_set_free(&set);
	}
}

static void some_lists_need_no_value(void **state) {
	char *const argv[] = { "x", "--bare", "--names" };
	struct option_set *set = option_set_new(&lenient_schema);
	struct lenient config;

	option_read_flags(set, n_elems(argv), argv);
	char *text = read_lenient(set, &config, "");
	assert_string_equal(text, "--names: a value is missing\n");
	assert_int_equal(config.bare.n, 0);
	free(text);
	option_set_free(&set);
}

static void lists_end_where_a_dash_begins_something_else(void **state) {
	static char *const behind[] = { "-V", "-h", "--version", "-x", "--brief-ms=5" };
	static const enum option_command commands[] = { OPTION_VERSION, OPTION_HELP, OPTION_VERSION,
		OPTION_RUN, OPTION_RUN };

	for (size_t i = 0; i < n_elems(behind); i++) {
		char *const argv[] = { "x", "--names", "a-", "b", behind[i] };
		struct option_set *set = option_set_new(&lenient_schema);
		struct lenient config;

		assert_int_equal(option_read_flags(set, n_elems(argv), argv), commands[i]);
		char *text = read_lenient(set, &config, "");
		assert_string_equal(text, i == 3 ? "-x: a flag was expected\n" : "");
		assert_int_equal(config.names.n, 2);
		free(text);
		option_set_free(&set);
	}
}

static void a_tree_is_anything(void **state) {
	struct option_set *set = option_set_new(&lenient_schema);
	struct lenient config;
	char *text = read_lenient(set, &config, "[tree]\na = [1, { b = true }]\n[tree.c]\nd = 1.5\n");
	assert_string_equal(text, "");
	char *tree = json_dumps(config.tree, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(tree, "{\"a\":[1,{\"b\":true}],\"c\":{\"d\":1.5}}");
	json_t *dump = option_dump(set);
	assert_true(json_equal(json_object_get(dump, "tree"), config.tree));
	json_decref(dump);
	free(tree);
	free(text);
	option_set_free(&set);

	set = option_set_new(&lenient_schema);
	text = read_lenient(set, &config, "tree = 1\n");
	assert_string_equal(text, "F:1: tree: expected a table, got 1\n");
	assert_int_equal(json_object_size(config.tree), 0);
	free(text);
	option_set_free(&set);
}

static void unknown_keys_may_be_warnings(void **state) {
	struct option_set *set = option_set_new(&lenient_schema);
	struct lenient config;
	char *text =
	    read_lenient(set, &config, "other = 1\n[sub]\nwodrs = []\n[main]\nx = 2\n[more]\ny = 1\n");
	assert_string_equal(text,
	    "F:1: other: warning: unknown key\n"
	    "F:3: sub.wodrs: warning: unknown key; did you mean sub.words?\n"
	    "F:5: main.x: warning: unknown key\n"
	    "F:6: more: warning: unknown key\n");
	assert_int_equal(option_mistakes(set), 0);
	free(text);
	option_set_free(&set);
}

static void tables_stand_below_headings(void **state) {
	char *text = print_of(&lenient_schema, own_help);

	assert_non_null(strstr(text, "\n---- lists ----\n\n[sub] s\n"));
	assert_null(strstr(strstr(text, "----") + strlen("---- lists ----"), "----"));
	free(text);
}

static void a_default_may_be_another(void **state) {
	char *argv[] = { "/opt/bin/other-name", "--threads", "3", NULL };
	struct option_set *set = option_set_new(&schema);
	struct config config;

	option_read_flags(set, 3, argv);
	assert_true(option_is_called(set, "other-name"));
	assert_false(option_is_called(set, "name"));
	option_store(set, &config);
	option_default(set, &config, "main.host", "there");
	option_default(set, &config, "main.port", "81");
	option_default(set, &config, "main.threads", "9");
	assert_string_equal(config.host, "there");
	assert_int_equal(config.port, 81);
	assert_int_equal(config.threads, 3); /* somebody said so */
	assert_false(option_is_given(set, "main.port"));
	json_t *dump = option_dump(set);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(dump, "main"), "port")), 81);
	json_decref(dump);
	option_set_free(&set);
	set = option_set_new(&schema);
	assert_false(option_is_called(set, "other-name"));
	option_set_free(&set);
}

static void a_value_may_go_before_all_sources(void **state) {
	char *argv[] = { "x", "--threads", "3", "--verbose=false" };
	struct option_set *set = option_set_new(&schema);
	struct config config;

	option_read_flags(set, n_elems(argv), argv);
	option_store(set, &config);
	assert_true(option_is_on(set, "main.threads"));
	assert_false(option_is_on(set, "main.verbose"));
	assert_false(option_is_on(set, "main.host"));
	option_replace(set, &config, "main.threads", "9");
	option_replace(set, &config, "main.host", "there");
	assert_int_equal(config.threads, 9);
	assert_string_equal(config.host, "there");
	assert_true(option_is_given(set, "main.threads")); /* as before */
	assert_false(option_is_given(set, "main.host"));
	option_set_free(&set);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_may_be_seconds),
		cmocka_unit_test(words_are_split_at_spaces_alone),
		cmocka_unit_test(a_tree_is_anything),
		cmocka_unit_test(unknown_keys_may_be_warnings),
		cmocka_unit_test(a_default_may_be_another),
		cmocka_unit_test(a_value_may_go_before_all_sources),
		cmocka_unit_test(names_of_flags_may_have_the_unit),
		cmocka_unit_test(some_lists_need_no_value),
		cmocka_unit_test(lists_end_where_a_dash_begins_something_else),
		cmocka_unit_test(tables_stand_below_headings),
		cmocka_unit_test(defaults),
		cmocka_unit_test(every_type_from_every_source),
		cmocka_unit_test(file_then_environment_then_flags),
		cmocka_unit_test(flags_of_lists_and_switches),
		cmocka_unit_test(numbers_with_a_fraction),
		cmocka_unit_test(off_and_zero),
		cmocka_unit_test(one_line_for_each_mistake),
		cmocka_unit_test(mistakes_come_in_the_order_of_their_causes),
		cmocka_unit_test(verdicts_stand_where_the_value_came_from),
		cmocka_unit_test(the_environment_belongs_to_others_too),
		cmocka_unit_test(arrays_of_tables),
		cmocka_unit_test(the_dump_shows_what_is_in_effect),
		cmocka_unit_test(commands),
		cmocka_unit_test(the_form_of_a_file),
		cmocka_unit_test(files_that_cannot_be_read),
		cmocka_unit_test(files_have_a_ceiling),
		cmocka_unit_test(the_help_names_every_flag_and_fits),
		cmocka_unit_test(the_help_has_a_dialects_names),
		cmocka_unit_test(the_page_is_troff),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
