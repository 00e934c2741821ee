#include "unit/unit.h"

#include "babysitter/backend.c"

static struct babysitter_config config_of(enum backend_type type) {
	return (struct babysitter_config){
		.name = "eng",
		.host = "10.0.0.1",
		.port = 8100,
		.backend = { .type = type,
		    .command = "",
		    .model = "",
		    .model_path = "",
		    .config_file = "",
		    .path = "",
		    .launch_script = "launch_server.py",
		    .served_model = "",
		    .dev = "" },
	};
}

static void assert_words(const struct babysitter_config *config, const char *const *want) {
	char *const environment[] = { NULL };
	struct backend b;
	size_t n = 0;

	backend_init(&b, config, environment, "/self");
	for (; want[n]; n++) {
		if (!b.argv[n])
			fail_msg("\"%s\" is missing", want[n]);
		assert_string_equal(b.argv[n], want[n]);
	}
	assert_null(b.argv[n]);
	backend_deinit(&b);
}

#define assert_argv(config, ...) assert_words(&(config), (const char *const[]){ __VA_ARGS__, NULL })

static const char *const args[] = { "--x", "a b", "" };

static void each_type_has_its_command(void **state) {
	static const char *const models[] = { "m1", "m2" };
	struct babysitter_config c = config_of(BACKEND_COMMAND);
	c.backend.args = (struct option_list){ args, n_elems(args) };
	c.backend.command = "  python3  -m\tx ";
	assert_argv(c, "python3", "-m", "x", "--x", "a b", "");

	c.backend.type = BACKEND_VLLM;
	c.backend.model = "/models/Qwen 3/";
	assert_argv(c, "python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "/models/Qwen 3/",
	    "--port", "8100", "--host", "10.0.0.1", "--served-model-name", "Qwen 3", "--x", "a b", "");

	c.backend.type = BACKEND_SGLANG;
	assert_argv(c, "python3", "-m", "sglang.launch_server", "--model-path", "/models/Qwen 3/", "--port",
	    "8100", "--host", "10.0.0.1", "--x", "a b", "");

	c.backend.type = BACKEND_LLAMA_CPP;
	assert_argv(c, "llama-server", "-m", "/models/Qwen 3/", "--port", "8100", "--host", "10.0.0.1", "--x",
	    "a b", "");

	c.backend.type = BACKEND_MOCK;
	c.backend.models = (struct option_list){ models, n_elems(models) };
	assert_argv(c, "/self", "mock-engine", "--host", "10.0.0.1", "--port", "8100", "--models", "m1",
	    "--models", "m2", "--x", "a b", "");
	c.host = "localhost";
	c.backend.args.n = 0;
	assert_argv(c, "/self", "mock-engine", "--host", "127.0.0.1", "--port", "8100", "--models", "m1",
	    "--models", "m2");
}

static void infinilm_gets_all_it_was_given(void **state) {
	struct babysitter_config c = config_of(BACKEND_INFINILM);
	c.backend.model_path = "/m";
	assert_argv(
	    c, "python3", "launch_server.py", "--model-path", "/m", "--port", "8100", "--host", "10.0.0.1");
	c.backend.dev = "nvidia";
	c.backend.n_dev = 2;
	c.backend.n_batch_max = 3;
	c.backend.n_tokens_max = 4;
	c.backend.awq = true;
	c.backend.args = (struct option_list){ args, n_elems(args) };
	assert_argv(c, "python3", "launch_server.py", "--model-path", "/m", "--port", "8100", "--host",
	    "10.0.0.1", "--dev", "nvidia", "--ndev", "2", "--max-batch", "3", "--max-tokens", "4", "--awq",
	    "--x", "a b", "");

	c = config_of(BACKEND_INFINILM_RUST);
	c.backend.config_file = "a b.toml";
	assert_argv(c, "xtask", "service", "a b.toml", "-p", "8100");
}

static void the_served_name_may_be_said(void **state) {
	static const struct {
		const char *model, *served, *want;
	} rows[] = {
		{ "Qwen/Qwen3-8B", "", "Qwen3-8B" },
		{ "m", "", "m" },
		{ "/a/b//", "", "b" },
		{ "/a/b", "mine", "mine" },
		{ "/a/b", "-", NULL },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct babysitter_config c = config_of(BACKEND_VLLM);
		c.backend.model = rows[i].model;
		c.backend.served_model = rows[i].served;
		assert_argv(c, "python3", "-m", "vllm.entrypoints.openai.api_server", "--model",
		    rows[i].model, "--port", "8100", "--host", "10.0.0.1",
		    rows[i].want ? "--served-model-name" : NULL, rows[i].want);
	}
}

static void the_environment_is_ours_with_theirs_over_it(void **state) {
	static const struct option_pair pairs[] = { { "A", "new value" }, { "C", "" } };
	char *const environment[] = { "A=old", "AB=stays", "B=stays", "NOTIFY_SOCKET=/x",
		"HEADRACE_BABYSITTER_TOKEN=secret", "HEADRACE_ENGINE_ITL=5ms", "WATCHDOG_USEC=1", NULL };
	static const char *const want[] = { "AB=stays", "B=stays", "HEADRACE_ENGINE_ITL=5ms", "A=new value",
		"C=" };
	struct babysitter_config c = config_of(BACKEND_COMMAND);
	struct backend b;

	c.backend.command = "x";
	c.backend.env = (struct option_map){ pairs, n_elems(pairs) };
	backend_init(&b, &c, environment, "/self");
	for (size_t i = 0; i < n_elems(want); i++)
		assert_string_equal(b.env[i], want[i]);
	assert_null(b.env[n_elems(want)]);
	backend_deinit(&b);
}

static void a_command_is_described_on_one_line(void **state) {
	struct babysitter_config c = config_of(BACKEND_COMMAND);
	char *const environment[] = { NULL };
	struct backend b;

	c.backend.command = "run";
	c.backend.args = (struct option_list){ args, n_elems(args) };
	backend_init(&b, &c, environment, "/self");
	char *text = backend_describe(&b);
	assert_string_equal(text, "run --x 'a b' ''");
	free(text);
	backend_deinit(&b);
}

static void a_port_is_found_in_lines_about_listening(void **state) {
	static const struct {
		const char *line;
		uint16_t port;
	} rows[] = {
		{ "listening on 0.0.0.0:8123", 8123 },
		{ "2026-01-01T10:20:30Z  INFO service: Listening on http://127.0.0.1:8123/", 8123 },
		{ "Server running at [::]:65535.", 65535 },
		{ "\033[32mserving\033[0m on localhost:9\033[0m", 9 },
		{ "bind address: 10.0.0.1:80, workers: 4", 80 },
		{ "started at 10:20:30", 0 },
		{ "connected to 10.0.0.1:5432", 0 },
		{ "listening on 0.0.0.0:99999", 0 },
		{ "listening on 0.0.0.0:80a", 0 },
		{ "listening on 0.0.0.0:", 0 },
		{ "listening", 0 },
		{ "", 0 },
		{ "listening at 12:34 on 1.2.3.4:56", 56 },
	};
	for (size_t i = 0; i < n_elems(rows); i++)
		if (backend_port_of_line(slice_of(rows[i].line)) != rows[i].port)
			fail_msg(
			    "\"%s\" gives %u", rows[i].line, backend_port_of_line(slice_of(rows[i].line)));
}

static void records_say_what_is_specified(void **state) {
	struct babysitter_config c = config_of(BACKEND_VLLM);
	json_t *extra = json_loads("{\"zone\":\"a\",\"models\":[\"over\"]}", 0, NULL);
	json_t *list = json_loads("[{\"id\":\"m\",\"x\":1},{\"no\":1},{\"id\":\"n\"}]", 0, NULL);
	json_t *metadata = backend_own_metadata(&c, "ready");
	char *text = json_dumps(metadata, JSON_COMPACT);
	assert_string_equal(text, "{\"type\":\"vLLM\",\"babysitter\":\"enhanced\",\"state\":\"ready\"}");
	free(text);
	json_decref(metadata);

	metadata = backend_server_metadata(&c, list);
	text = json_dumps(metadata, JSON_COMPACT);
	assert_string_equal(text,
	    "{\"type\":\"openai-api\",\"parent_service\":\"eng\",\"babysitter\":\"enhanced\","
	    "\"models\":[\"m\",\"n\"],\"models_list\":[{\"id\":\"m\",\"x\":1},{\"id\":\"n\"}]}");
	free(text);
	json_decref(metadata);

	c.metadata = extra;
	metadata = backend_server_metadata(&c, list);
	assert_string_equal(json_string_value(json_object_get(metadata, "zone")), "a");
	assert_string_equal(
	    json_string_value(json_array_get(json_object_get(metadata, "models"), 0)), "over");
	json_decref(metadata);
	json_decref(extra);
	json_decref(list);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_type_has_its_command),
		cmocka_unit_test(infinilm_gets_all_it_was_given),
		cmocka_unit_test(the_served_name_may_be_said),
		cmocka_unit_test(the_environment_is_ours_with_theirs_over_it),
		cmocka_unit_test(a_command_is_described_on_one_line),
		cmocka_unit_test(a_port_is_found_in_lines_about_listening),
		cmocka_unit_test(records_say_what_is_specified),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
