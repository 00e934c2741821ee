#include "unit/unit.h"

#include <sys/wait.h>
#include <unistd.h>

#include "babysitter/babysitter_config.c"
#include "base/option_doc.h"
#include "base/option_name.h"

struct reading {
	struct babysitter_config config;
	char *mistakes;
};

/* argv: NULL-terminated, without the program's name. */
static struct reading read_words(char *const *argv, const char *toml) {
	struct reading r = { .config.options = option_set_new(&babysitter_config_schema) };
	struct option_set *set = r.config.options;
	char *words[32] = { "babysitter" };
	int argc = 1;
	size_t n;

	while (*argv)
		words[argc++] = *argv++;
	char **translated = translate(set, &argc, words);
	option_read_flags(set, argc, translated);
	if (toml)
		option_read_text(set, "FILE", OPTION_TOML, slice_of(toml));
	option_store(set, &r.config);
	verify(set, &r.config);
	FILE *out = open_memstream(&r.mistakes, &n);
	option_print_mistakes(set, out);
	fclose(out);
	return r;
}

static struct reading read_config(const char *flags, const char *toml) {
	char text[512], *argv[32] = { NULL }, *save = NULL;
	int argc = 0;

	snprintf(text, sizeof(text), "%s", flags);
	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	return read_words(argv, toml);
}

static void release(struct reading *r) {
	option_set_free(&r->config.options);
	free(r->mistakes);
}

static void defaults(void **state) {
	struct reading r = read_config("--port 8000 --command engine", NULL);
	const struct babysitter_config *c = &r.config;

	assert_string_equal(r.mistakes, "");
	assert_string_equal(c->name, "command-8000");
	assert_string_equal(c->host, "localhost");
	assert_int_equal(c->port, 8000);
	assert_string_equal(c->listen, "0.0.0.0");
	assert_string_equal(c->advertise, "");
	assert_string_equal(c->registry_url, "");
	assert_int_equal(c->n_restarts_max, 10000);
	assert_int_equal(c->restart_delay_ms, 0);
	assert_int_equal(c->heartbeat_ms, 30000);
	assert_int_equal(c->healthy_ms, 60000);
	assert_int_equal(c->start_timeout_ms, 1800000);
	assert_int_equal(c->stop_timeout_ms, 10000);
	assert_int_equal(c->drain_timeout_ms, 300000);
	assert_int_equal(c->probe.interval_ms, 5000);
	assert_int_equal(c->probe.n_failures, 6);
	assert_false(c->probe.completion || c->exit_on_failed);
	assert_true(c->use_cgroup);
	assert_string_equal(c->log.file, "-");
	assert_int_equal(c->log.bytes_max, 64 << 20);
	assert_int_equal(json_object_size(c->metadata), 0);
	assert_null(c->backend.cpu_set);
	release(&r);
}

/* As InfiniLM-SVC's own deployments write it: inline tables, sub-tables, lists with comments. */
static const char full[] = "name = \"master-9g\"\n"
			   "host = \"0.0.0.0\"\n"
			   "port = 8100\n"
			   "registry_url = \"http://127.0.0.1:18000/\"\n"
			   "router_url = \"http://127.0.0.1:8000\"\n"
			   "[babysitter]\nmax_restarts = 10\nrestart_delay = 2\nheartbeat_interval = 10\n"
			   "[backend]\ntype = \"command\"\ncommand = \"python3 -m x\"\n"
			   "args = [\n  \"--a b\", # a comment\n  \"c,d\",\n]\nwork_dir = \"/tmp\"\n"
			   "[backend.env]\nA = \"1\"\nB = \"two words\"\n"
			   "[metadata]\ntype = \"other\"\nstatic = true\nsince = 1979-05-27T07:32:00Z\n"
			   "nested = { a = [1, 2.5] }\n[metadata.deep]\nx = 1\n";

static void a_file_of_the_other_system(void **state) {
	struct reading r = read_config("", full);
	const struct babysitter_config *c = &r.config;

	assert_string_equal(r.mistakes, "FILE:5: babysitter.router_url: warning: has no effect\n");
	assert_string_equal(c->name, "master-9g");
	assert_string_equal(c->host, "0.0.0.0");
	assert_int_equal(c->port, 8100);
	assert_string_equal(c->registry_url, "http://127.0.0.1:18000/");
	assert_int_equal(c->n_restarts_max, 10);
	assert_int_equal(c->restart_delay_ms, 2000);
	assert_int_equal(c->heartbeat_ms, 10000);
	assert_int_equal(c->backend.type, BACKEND_COMMAND);
	assert_int_equal(c->backend.args.n, 2);
	assert_string_equal(c->backend.args.items[0], "--a b");
	assert_string_equal(c->backend.args.items[1], "c,d");
	assert_string_equal(c->backend.work_dir, "/tmp");
	assert_int_equal(c->backend.env.n, 2);
	assert_string_equal(c->backend.env.items[1].value, "two words");
	char *metadata = json_dumps(c->metadata, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(metadata,
	    "{\"deep\":{\"x\":1},\"nested\":{\"a\":[1,2.5]},"
	    "\"since\":\"1979-05-27T07:32:00Z\",\"static\":true,\"type\":\"other\"}");
	free(metadata);
	release(&r);
}

static void flags_go_before_the_file(void **state) {
	struct reading r =
	    read_config("-n other -p 8200 --registry http://r:1 --host 10.0.0.7 --router http://x", full);

	assert_string_equal(r.config.name, "other");
	assert_int_equal(r.config.port, 8200);
	assert_string_equal(r.config.registry_url, "http://r:1");
	assert_string_equal(r.config.host, "10.0.0.7");
	assert_int_equal(r.config.restart_delay_ms, 2000);
	release(&r);
}

static void flags_of_other_systems_are_taken(void **state) {
	char *const argv[] = { "--name=x", "-p=81", "--service-type", "InfiniLM", "--path", "/m", "--dev",
		"nvidia", "--ndev", "4", "--max-batch", "3", "--max-tokens", "100", "--awq", "--env", "prod",
		"--request-timeout", "300", "--max-concurrency=7", "--restart-delay", "5", "--launch-script",
		"l.py", NULL };
	struct reading r = read_words(argv, NULL);
	const struct babysitter_backend *b = &r.config.backend;

	assert_string_equal(r.mistakes, "");
	assert_string_equal(r.config.name, "x");
	assert_int_equal(r.config.port, 81);
	assert_int_equal(b->type, BACKEND_INFINILM);
	assert_string_equal(b->model_path, "/m");
	assert_string_equal(b->dev, "nvidia");
	assert_int_equal(b->n_dev, 4);
	assert_int_equal(b->n_batch_max, 3);
	assert_int_equal(b->n_tokens_max, 100);
	assert_true(b->awq);
	assert_string_equal(b->launch_script, "l.py");
	assert_int_equal(r.config.restart_delay_ms, 5000);
	release(&r);
}

/* The value of --args begins with dashes, mostly. */
static void args_are_split_at_spaces_alone(void **state) {
	char *const argv[] = { "--port", "1", "--command", "--odd name", "--args", "--a b,c  --d", "--args=e",
		NULL };
	struct reading r = read_words(argv, NULL);
	static const char *const want[] = { "--a", "b,c", "--d", "e" };

	assert_string_equal(r.mistakes, "");
	assert_string_equal(r.config.backend.command, "--odd name");
	assert_int_equal(r.config.backend.args.n, n_elems(want));
	for (size_t i = 0; i < n_elems(want); i++)
		assert_string_equal(r.config.backend.args.items[i], want[i]);
	release(&r);
}

static void names_come_from_type_and_port(void **state) {
	static const struct {
		const char *flags, *name, *type;
		uint64_t start_ms;
	} rows_of[] = {
		{ "--service-type vllm --model m", "vllm-9", "vLLM", 1800000 },
		{ "--service-type vLLM --path m", "vllm-9", "vLLM", 1800000 },
		{ "--service-type mock", "mock-9", "mock", 30000 },
		{ "--service-type infinilm --model-path m", "infinilm-9", "InfiniLM", 1800000 },
		{ "--service-type InfiniLM-Rust --path c", "infinilm-rust-9", "InfiniLM-Rust", 1800000 },
		{ "--service-type sglang --model m", "sglang-9", "sglang", 1800000 },
		{ "--service-type llama.cpp --model m", "llama.cpp-9", "llama.cpp", 1800000 },
		{ "--service-type llama-cpp --model m", "llama.cpp-9", "llama.cpp", 1800000 },
	};
	for (size_t i = 0; i < n_elems(rows_of); i++) {
		char flags[128];
		snprintf(flags, sizeof(flags), "--port 9 %s", rows_of[i].flags);
		struct reading r = read_config(flags, NULL);
		assert_string_equal(r.mistakes, "");
		assert_string_equal(r.config.name, rows_of[i].name);
		assert_string_equal(babysitter_config_type_name(r.config.backend.type), rows_of[i].type);
		assert_int_equal(r.config.start_timeout_ms, rows_of[i].start_ms);
		release(&r);
	}
}

static void the_engine_listens_where_others_look_for_it(void **state) {
	static const struct {
		const char *flags, *host;
	} rows_of[] = {
		{ "", "localhost" },
		{ "--registry-url http://127.0.0.1:8081", "localhost" },
		{ "--registry-url http://localhost:8081", "localhost" },
		{ "--registry-url http://[::1]:8081", "localhost" },
		{ "--registry-url http://10.0.0.1:8081", "0.0.0.0" },
		{ "--registry-url http://registry:8081/", "0.0.0.0" },
		{ "--registry-url http://[fd00::1]:8081", "::" },
		{ "--registry-url http://127.0.0.1:8081 --advertise 10.0.0.7", "0.0.0.0" },
		{ "--registry-url http://10.0.0.1:8081 --advertise fd00::7", "::" },
		{ "--registry-url http://10.0.0.1:8081 --advertise localhost", "localhost" },
		{ "--registry-url http://10.0.0.1:8081 --host 10.0.0.7", "10.0.0.7" },
		{ "--registry-url http://10.0.0.1:8081 --advertise 10.0.0.7 --host 127.0.0.1", "127.0.0.1" },
		{ "--registry-url http://10.0.0.1:8081 --advertise localhost --host ::1", "::1" },
		{ "--registry-url http://127.0.0.1:8081 --host 127.0.0.1", "127.0.0.1" },
	};
	for (size_t i = 0; i < n_elems(rows_of); i++) {
		char flags[160];
		snprintf(flags, sizeof(flags), "--port 9 --service-type mock %s", rows_of[i].flags);
		struct reading r = read_config(flags, NULL);
		assert_string_equal(r.mistakes, "");
		assert_string_equal(r.config.host, rows_of[i].host);
		release(&r);
	}
}

static void times_without_a_unit_are_seconds(void **state) {
	struct reading r = read_config("--heartbeat-interval 10 --stop-timeout 250ms",
	    "port=1\n[babysitter]\nrestart_delay = \"2m\"\n"
	    "start_timeout = \"45\"\ndrain_timeout = 7\n"
	    "[backend]\ntype=\"mock\"\n");
	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.heartbeat_ms, 10000);
	assert_int_equal(r.config.stop_timeout_ms, 250);
	assert_int_equal(r.config.restart_delay_ms, 120000);
	assert_int_equal(r.config.drain_timeout_ms, 7000);
	release(&r);
}

static void limits_and_cpus_are_made(void **state) {
	struct reading r = read_config("--cpus 0-2,5",
	    "port=1\n[backend]\ntype=\"mock\"\nlimits = { nofile = \"1k:64k\", core = \"0\", "
	    "memlock = \"unlimited\" }\n");
	const struct babysitter_backend *b = &r.config.backend;

	assert_string_equal(r.mistakes, "");
	assert_int_equal(CPU_COUNT(b->cpu_set), 4);
	assert_true(CPU_ISSET(2, b->cpu_set) && CPU_ISSET(5, b->cpu_set) && !CPU_ISSET(3, b->cpu_set));
	assert_int_equal(b->n_limits, 3);
	for (size_t i = 0; i < b->n_limits; i++) { /* in any order */
		const struct spawn_limit *limit = &b->limit_items[i];
		uint64_t soft = limit->resource == RLIMIT_NOFILE ? 1024
		    : limit->resource == RLIMIT_CORE             ? 0
								 : RLIM_INFINITY;
		assert_true(limit->soft == soft);
		assert_true(limit->hard == (soft == 1024 ? 65536 : soft));
	}
	release(&r);
}

static void mistakes_say_where_they_are(void **state) {
	static const struct {
		const char *toml, *mistake;
	} wrong[] = {
		{ "[backend]\ntype=\"mock\"\n", "babysitter.port: is missing" },
		{ "port = 65535\n", "FILE:1: babysitter.port: 65535 is out of range" },
		{ "port = \"x\"\n", "FILE:1: babysitter.port: expected a whole number" },
		{ "port=1\n[backend]\ntype=\"vlm\"\n", "FILE:3: backend.type: expected one of command" },
		{ "port=1\n[backend]\ntype=\"command\"\n", "backend.command: is missing" },
		{ "port=1\n[backend]\ntype=\"command\"\ncommand=\"  \"\n",
		    "FILE:4: backend.command: has no word" },
		{ "port=1\n[backend]\ntype=\"vllm\"\n", "backend.model: is missing" },
		{ "port=1\n[backend]\ntype=\"infinilm\"\n", "backend.model_path: is missing" },
		{ "port=1\n[backend]\ntype=\"infinilm-rust\"\n", "backend.config_file: is missing" },
		{ "port=1\nadvertise=\"0.0.0.0\"\n", "FILE:2: babysitter.advertise: nobody can reach that" },
		{ "port=1\nadvertise=\"::\"\n", "FILE:2: babysitter.advertise: nobody can reach that" },
		{ "port=1\nhost=\"localhost\"\nregistry_url=\"http://r:1\"\n",
		    "FILE:2: babysitter.host: nobody but this machine reaches that" },
		{ "port=1\nhost=\"127.0.0.1\"\nregistry_url=\"http://[fd00::1]:1\"\n",
		    "FILE:2: babysitter.host: nobody but this machine reaches that" },
		{ "port=1\nname=\"a/b\"\n", "FILE:2: babysitter.name: expected printable ASCII" },
		{ "port=1\ntoken=\"a b\"\n", "FILE:2: babysitter.token: expected printable ASCII" },
		{ "port=1\n[probe]\napi_key=\"a b\"\n", "FILE:3: probe.api_key: expected printable ASCII" },
		{ "port=1\nregistry_url=\"r:1\"\n", "FILE:2: babysitter.registry_url: expected http" },
		{ "port=1\n[backend]\ncommand=\"x\"\ncpus=[\"3-1\"]\n", "FILE:4: backend.cpus[0]: expected" },
		{ "port=1\n[backend]\ncommand=\"x\"\nlimits={ files=\"1\" }\n",
		    "FILE:4: backend.limits: files is no limit" },
		{ "port=1\n[backend]\ncommand=\"x\"\nlimits={ core=\"2:1\" }\n", "limits.core: expected" },
		{ "port=1\n[backend]\ncommand=\"x\"\nenv={ \"a=b\"=\"1\" }\n", "is no name of a variable" },
		{ "port=1\nmetadata=1\n", "FILE:2: metadata: expected a table" },
		{ "port=1\nport=2\n", "FILE:2" },
	};
	for (size_t i = 0; i < n_elems(wrong); i++) {
		struct reading r = read_config("", wrong[i].toml);
		if (!strstr(r.mistakes, wrong[i].mistake) || !option_mistakes(r.config.options))
			fail_msg("\"%s\" gave \"%s\"", wrong[i].toml, r.mistakes);
		release(&r);
	}
}

static void unknown_keys_are_ignored_aloud(void **state) {
	struct reading r = read_config(
	    "", "port=1\nfuture=1\n[backend]\ntype=\"mock\"\nmodles=[\"a\"]\n[babysitter]\nnew={a=1}\n");
	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_non_null(strstr(r.mistakes, "FILE:2: future: warning: unknown key"));
	assert_non_null(
	    strstr(r.mistakes, "FILE:5: backend.modles: warning: unknown key; did you mean backend.model"));
	assert_non_null(strstr(r.mistakes, "FILE:7: babysitter.new: warning: unknown key"));
	assert_int_equal(r.config.backend.models.n, 1);
	assert_string_equal(r.config.backend.models.items[0], "test-model");
	release(&r);
}

/* The keys at the top are those of [babysitter], and may stand there too. */
static void the_top_is_the_main_table(void **state) {
	struct reading r =
	    read_config("", "max_restarts=3\n[babysitter]\nport=7\nname=\"n\"\n[backend]\ntype=\"mock\"\n");
	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.port, 7);
	assert_int_equal(r.config.n_restarts_max, 3);
	release(&r);
}

static void the_token_is_a_secret(void **state) {
	struct reading r = read_config("--port 1 --service-type mock --token t0k3n --api-key k3y", NULL);
	json_t *dump = option_dump(r.config.options);
	char *text = json_dumps(dump, 0);
	assert_null(strstr(text, "t0k3n"));
	assert_null(strstr(text, "k3y\""));
	free(text);
	json_decref(dump);
	release(&r);
}

static void each_flag_means_one_option(void **state) {
	char a[OPTION_NAME_BYTES], b[OPTION_NAME_BYTES];
	for (size_t i = 0; i < n_elems(rows); i++)
		for (size_t j = 0; j < i; j++)
			if (option_name_is_flag(&rows[i]) && option_name_is_flag(&rows[j]))
				assert_string_not_equal(
				    option_name_flag(&babysitter_config_schema, &rows[i], a),
				    option_name_flag(&babysitter_config_schema, &rows[j], b));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(a_file_of_the_other_system),
		cmocka_unit_test(flags_go_before_the_file),
		cmocka_unit_test(flags_of_other_systems_are_taken),
		cmocka_unit_test(args_are_split_at_spaces_alone),
		cmocka_unit_test(names_come_from_type_and_port),
		cmocka_unit_test(the_engine_listens_where_others_look_for_it),
		cmocka_unit_test(times_without_a_unit_are_seconds),
		cmocka_unit_test(limits_and_cpus_are_made),
		cmocka_unit_test(mistakes_say_where_they_are),
		cmocka_unit_test(unknown_keys_are_ignored_aloud),
		cmocka_unit_test(the_top_is_the_main_table),
		cmocka_unit_test(the_token_is_a_secret),
		cmocka_unit_test(each_flag_means_one_option),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
