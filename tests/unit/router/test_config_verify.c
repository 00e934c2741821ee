#include "unit/unit.h"

#include <unistd.h>

#include "fleet/instance.h"
#include "unit/router/config_reading.h"

static void first_byte_holds_for_all_once_it_is_set(void **state) {
	struct reading r = read_config("--first-byte 600s", NULL);

	assert_true(r.config.timeout.first_byte_all);
	assert_int_equal(r.config.timeout.first_byte_ms, 600000);
	release(&r);
	r = read_config("", "[timeout]\nfirst_byte = 'off'\n");
	assert_true(r.config.timeout.first_byte_all);
	assert_int_equal(r.config.timeout.first_byte_ms, 0);
	release(&r);
}

static void workers_of_file_and_flags(void **state) {
	struct reading r = read_config("--worker-urls http://Flag http://[::1]:9000/",
	    "[[worker]]\nurl = 'http://GPU-1:8000/'\nmodels = ['m', 'n']\nweight = 1000000\nlabels = { zone "
	    "= "
	    "'a' }\n"
	    "[[worker]]\nurl = 'HTTP://10.0.0.1'\nname = 'second'\nweight = 0\n");
	static const struct {
		const char *url, *host, *name;
		unsigned port, weight, n_models, n_labels;
	} expected[] = {
		{ "http://gpu-1:8000", "gpu-1", "http://gpu-1:8000", 8000, 1000000, 2, 1 },
		{ "http://10.0.0.1:80", "10.0.0.1", "second", 80, 0, 0, 0 },
		{ "http://flag:80", "flag", "http://flag:80", 80, 1, 0, 0 },
		{ "http://[::1]:9000", "::1", "http://[::1]:9000", 9000, 1, 0, 0 },
	};

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.workers.n, n_elems(expected));
	for (size_t i = 0; i < n_elems(expected); i++) {
		const struct router_worker *w = &r.config.workers.items[i];

		assert_string_equal(w->url, expected[i].url);
		assert_string_equal(w->host, expected[i].host);
		assert_string_equal(w->name, expected[i].name);
		assert_int_equal(w->port, expected[i].port);
		assert_int_equal(w->weight, expected[i].weight);
		assert_int_equal(w->models.n, expected[i].n_models);
		assert_int_equal(w->labels.n, expected[i].n_labels);
	}
	release(&r);
}

static void the_table_of_the_registry_has_a_place(void **state) {
	static const char *const vars[] = { "STATE_DIRECTORY", "XDG_STATE_HOME", "HOME" };
	static const struct {
		const char *flags, *values[n_elems(vars)], *file;
	} cases[] = {
		{ "--state-dir here", { "/d", "/x", "/h" }, "here/registry.json" },
		{ "", { "/d:/e", "/x", "/h" }, "/d/router-30000.json" },
		{ "--port 3", { NULL, "/x", "/h" }, "/x/headrace/router-3.json" },
		{ "", { NULL, "relative", "/h" }, "/h/.local/state/headrace/router-30000.json" },
		{ "", { "", "", "" }, "" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		char flags[100];

		for (size_t v = 0; v < n_elems(vars); v++)
			cases[i].values[v] ? setenv(vars[v], cases[i].values[v], 1) : unsetenv(vars[v]);
		snprintf(flags, sizeof(flags), "--registry-url http://r %s", cases[i].flags);
		struct reading r = read_config(flags, NULL);
		assert_string_equal(r.config.table_file, cases[i].file);
		assert_int_equal(option_mistakes(r.config.options), 0);
		assert_int_equal(strstr(r.mistakes, "is not kept") != NULL, !cases[i].file[0]);
		release(&r);
		r = read_config(cases[i].flags, NULL);
		assert_string_equal(r.config.table_file, "");
		release(&r);
	}
}

static void a_place_for_the_table_that_is_too_long_is_a_mistake(void **state) {
	struct router_config *config = NULL;
	const int room = (int)(sizeof(config->table_file) - sizeof("/registry.json"));
	char toml[2 * sizeof(config->table_file)];

	for (int more = 0; more < 2; more++) {
		snprintf(toml, sizeof(toml), "[router]\nstate_dir = '%0*d'\n", room + more, 0);
		struct reading r = read_config("--registry-url http://r", toml);
		assert_int_equal(option_mistakes(r.config.options), more);
		assert_int_equal(strstr(r.mistakes, "is too long") != NULL, more);
		release(&r);
	}
}

static void header_names_are_lowered(void **state) {
	struct reading r = read_config("--worker-urls http://a --request-id-headers X-Id,b", NULL);

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.request_id_headers.n, 2);
	assert_string_equal(r.config.request_id_headers.items[0], "x-id");
	assert_string_equal(r.config.request_id_headers.items[1], "b");
	release(&r);
}

static void sessions_are_looked_for_in_order(void **state) {
	struct reading r = read_config("--worker-urls http://a", NULL);

	assert_int_equal(r.config.inspect.n_headers, 7);
	assert_string_equal(r.config.inspect.headers[0], "x-session-id");
	assert_int_equal(r.config.inspect.n_members, INSPECT_MEMBERS);
	for (unsigned i = 0; i < INSPECT_MEMBERS; i++)
		assert_int_equal(r.config.inspect.members[i], i);
	release(&r);
	r = read_config(
	    "--worker-urls http://a --session-headers X-B,x-a --session-members user,conversation", NULL);
	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.inspect.n_headers, 2);
	assert_string_equal(r.config.inspect.headers[0], "x-b");
	assert_int_equal(r.config.inspect.n_members, 2);
	assert_int_equal(r.config.inspect.members[0], 5);
	assert_int_equal(r.config.inspect.members[1], 1);
	release(&r);
	r = read_config("--worker-urls http://a", "[router]\nsession_headers = []\nsession_members = []\n");
	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.inspect.n_headers + r.config.inspect.n_members, 0);
	release(&r);
	r = read_config("--worker-urls http://a --dialect infinilm", NULL);
	assert_int_equal(r.config.inspect.n_headers, 0);
	assert_int_equal(r.config.inspect.n_members, 1);
	assert_int_equal(r.config.inspect.members[0], 0);
	release(&r);
}

/* Whatever --request-id-headers says: with one of them each request would be a session of its own. */
static void ids_of_single_requests_are_no_sessions(void **state) {
	static const char *const names[] = { "traceparent", "TraceState", "idempotency-key",
		"x-idempotency-key", "x-b3-traceid", "X-B3-SpanId", "x-amzn-trace-id", "x-amzn-requestid",
		"x-correlation-id", "x-trace-id", "request-id", "x-request-id" };

	for (size_t i = 0; i < 2 * n_elems(names); i++) {
		char flags[120], *line;
		const char *name = names[i / 2];

		snprintf(flags, sizeof(flags), "--worker-urls http://a --session-headers x-mine,%s%s", name,
		    i % 2 ? " --request-id-headers x-ask" : "");
		struct reading r = read_config(flags, NULL);
		assert_int_equal(option_mistakes(r.config.options), 1);
		line = strstr(r.mistakes, "--session-headers: \"");
		assert_non_null(line);
		assert_int_equal(strncasecmp(strchr(line, '"') + 1, name, strlen(name)), 0);
		assert_non_null(strstr(line, "names one request, not a session\n"));
		release(&r);
	}
}

/* Each is told once, not once for each pair. */
static void many_of_one_engine(void **state) {
#define ONE "[[worker]]\nurl = 'http://a'\n"
	struct reading r = read_config("", ONE ONE ONE ONE);

	assert_int_equal(option_mistakes(r.config.options), 3);
	release(&r);
}

static void too_many_workers(void **state) {
	for (size_t n = INSTANCE_SLOTS_MAX; n <= INSTANCE_SLOTS_MAX + 1; n++) {
		struct reading r;
		char *toml;
		size_t n_bytes;
		FILE *out = open_memstream(&toml, &n_bytes);

		for (size_t i = 0; i < n; i++)
			fprintf(out, "[[worker]]\nurl = 'http://a:%zu'\n", i + 1);
		fclose(out);
		r = read_config("", toml);
		assert_int_equal(r.config.workers.n, n);
		assert_string_equal(
		    r.mistakes, n > INSTANCE_SLOTS_MAX ? "FILE:1: worker: there are more than 4096\n" : "");
		release(&r);
		free(toml);
	}
}

static void which_engines_speak_tls(void **state) {
	struct reading r = read_config("--worker-urls http://a https://B HTTPS://[::1]:8443", NULL);
	const struct router_worker *w = r.config.workers.items;

	assert_string_equal(r.mistakes, "");
	assert_string_equal(w[0].url, "http://a:80");
	assert_false(w[0].is_tls);
	assert_string_equal(w[1].url, "https://b:443");
	assert_true(w[1].is_tls);
	assert_string_equal(w[2].url, "https://[::1]:8443");
	assert_true(w[2].is_tls);
	release(&r);
}

static void labels_of_other_models_are_told(void **state) {
	struct reading r = read_config("",
	    "[[worker]]\nurl = 'http://a'\nmodels = ['llama', 'qwen']\n"
	    "labels = { 'clearance@qwen' = 'internal', 'clearance@qwem' = 'internal', 'me@home' = 'x', "
	    "cache_type = 'paged' }\n"
	    "[[worker]]\nurl = 'http://b'\nlabels = { 'clearance@any' = 'internal', cache_type = 'static' }\n"
	    "[policy.models]\n" NAME_256 " = 'random'\n");

	assert_string_equal(r.mistakes,
	    "FILE:4: worker[0].labels: warning: clearance@qwem: \"qwem\" is none of its models\n");
	assert_int_equal(option_mistakes(r.config.options), 0);
	release(&r);
}

static void mistakes_between_values(void **state) {
	static const struct {
		const char *flags, *toml, *line;
	} cases[] = {
		{ "--session-headers x-a,x-ask --request-id-headers X-Ask", NULL,
		    "--session-headers: \"x-ask\" cannot bring both a request's id and a session\n" },
		{ "--request-id-headers Session-Id", NULL,
		    "--request-id-headers: \"session-id\" cannot bring both a request's id and a session\n" },
		{ "--session-members user,session_id", NULL,
		    "--session-members: \"session_id\" is not known, or there twice: expected some "
		    "of " INSPECT_MEMBERS_NAMES "\n" },
		{ "--session-members user,user", NULL,
		    "--session-members: \"user\" is not known, or there twice: expected some "
		    "of " INSPECT_MEMBERS_NAMES "\n" },
		{ "--worker-urls http://a", "[[worker]]\nurl = 'http://a'\n",
		    "--worker-urls: http://a:80 is there twice\n" },
		{ "", "[[worker]]\nurl = 'http://a'\n[[worker]]\nurl = 'http://a:80'\n",
		    "FILE:4: worker[1].url: http://a:80 is there twice\n" },
		{ "", "[[worker]]\nurl = 'http://a'\nname = 'x'\n[[worker]]\nurl = 'http://b'\nname = 'x'\n",
		    "FILE:6: worker[1].name: \"x\" is there twice\n" },
		{ "", "[[worker]]\nurl = 'http://a'\nlabels = { team = 'x', context = '8k' }\n",
		    "FILE:3: worker[0].labels: context = \"8k\": expected a number of tokens, 1 or more\n" },
		{ "", "[[worker]]\nurl = 'http://a'\nlabels = { cache_type = 'statik' }\n",
		    "FILE:3: worker[0].labels: cache_type = \"statik\": expected static or paged\n" },
		{ "--hold-limit 257MiB", NULL, "--hold-limit: is more than router.hold_memory\n" },
		{ "", "[router]\nhold_memory = '63MiB'\n",
		    "FILE:2: router.hold_memory: is less than router.hold_limit\n" },
		{ "--inspect-limit 2m --hold-limit 1m", NULL,
		    "--inspect-limit: is more than router.hold_limit\n" },
		{ "--hold-limit 1k", NULL, "--hold-limit: is less than router.inspect_limit\n" },
		{ "--port 29000", NULL, "admin.port: is the router's own port\n" },
		{ "--admin-port 30000 --host 0.0.0.0", NULL, "--admin-port: is the router's own port\n" },
		{ "--prometheus-port 30000", NULL, "--prometheus-port: is the router's own port\n" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, cases[i].toml);

		assert_string_equal(r.mistakes, cases[i].line);
		assert_int_equal(option_mistakes(r.config.options), 1);
		release(&r);
	}
}

static void what_one_flag_names_twice_is_one(void **state) {
	static const struct {
		const char *flags, *lines;
	} cases[] = {
		{ "--worker-urls https://a https://A:443",
		    "--worker-urls: warning: https://a:443 is there twice: it counts once\n" },
		{ "--worker-urls http://a --worker-urls http://A:80/",
		    "--worker-urls: warning: http://a:80 is there twice: it counts once\n" },
		{ "--decode http://a http://a",
		    "--decode: warning: http://a:80 is there twice: it counts once\n" },
		{ "--prefill http://a 1 --prefill http://a 1",
		    "--prefill: warning: http://a:80 is there twice: it counts once\n" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, NULL);

		assert_string_equal(r.mistakes, cases[i].lines);
		assert_int_equal(option_mistakes(r.config.options), 0);
		assert_int_equal(r.config.workers.n, 1);
		release(&r);
	}
}

static void logs_go_where_a_folder_is(void **state) {
	static const struct {
		const char *flags, *mistakes;
	} cases[] = {
		{ "--explain-log /no/such/log", "--explain-log: /no/such: No such file or directory\n" },
		{ "--access x --dir /no/such", "--access: /no/such: No such file or directory\n" },
		{ "--access /dev/null/x", "--access: /dev/null: Not a directory\n" },
		{ "--access /tmp/ --explain-log /",
		    "--access: \"/tmp/\" is no file\n--explain-log: \"/\" is no file\n" },
		{ "--access=", "--access: \"\" is no file\n" },
		{ "--access off --explain-log off --dir /no/such", "" },
		{ "--access - --explain-log -", "" },
		{ "--access x --explain-log /x", "" },
	};
	struct reading r;

	for (size_t i = 0; i < n_elems(cases); i++) {
		char flags[256];

		snprintf(flags, sizeof(flags), "--worker-urls http://a %s", cases[i].flags);
		r = read_config(flags, NULL);
		assert_string_equal(r.mistakes, cases[i].mistakes);
		release(&r);
	}
	r = read_config("--explain-log /dev/null", "[log]\ndir = '/tmp'\naccess = 'a/../x'\n");
	assert_string_equal(r.mistakes, "FILE:3: log.access: /tmp/a/..: No such file or directory\n");
	assert_string_equal(r.config.log_access, "/tmp/a/../x");
	assert_string_equal(r.config.explain.log, "/dev/null");
	release(&r);
}

/* ---- in place of another router ---- */

static void assert_infinilm(const struct reading *r, uint64_t total_ms) {
	assert_int_equal(r->config.dialect, ROUTER_INFINILM);
	assert_int_equal(r->config.errors, REPLY_INFINILM);
	assert_string_equal(r->config.host, "0.0.0.0");
	assert_int_equal(r->config.port, 8080);
	assert_int_equal(r->config.timeout.total_ms, total_ms);
	assert_int_equal(option_mistakes(r->config.options), 0);
}

static void the_dialect_has_other_defaults(void **state) {
	static const char *const ways[][2] = { { "--dialect infinilm", NULL },
		{ "", "[router]\ndialect = 'infinilm'\n" },
		{ "--port 8080", "router.dialect = 'infinilm'\n" } };
	struct reading r;

	for (size_t i = 0; i < n_elems(ways); i++) {
		r = read_config(ways[i][0], ways[i][1]);
		assert_infinilm(&r, 300000);
		release(&r);
	}
	called = "/usr/local/bin/infini-router";
	r = read_config("", NULL);
	assert_infinilm(&r, 300000);
	release(&r);
	r = read_config("--dialect headrace", NULL); /* what is said goes before the name */
	assert_int_equal(r.config.errors, REPLY_BY_PATH);
	assert_int_equal(r.config.port, 30000);
	assert_int_equal(r.config.timeout.total_ms, 0);
	release(&r);
	called = "router";
	r = read_config("--dialect infinilm --router-port 8000 --host ::1 --total 7s", NULL);
	assert_int_equal(r.config.port, 8000);
	assert_string_equal(r.config.host, "::1");
	assert_int_equal(r.config.timeout.total_ms, 7000);
	release(&r);
}

static void the_environment_has_the_total(void **state) {
	static const struct {
		const char *text;
		uint64_t total_ms;
	} cases[] = { { "1800", 1800000 }, { "1", 1000 }, { "0", 0 }, { "", 300000 }, { "x", 300000 },
		{ "-1", 300000 }, { "1.5", 300000 }, { "60s", 300000 }, { "99999999999999999999", 300000 },
		{ "18446744073709551615", ROUTER_TIME_MAX_MS } };
	struct reading r;

	for (size_t i = 0; i < n_elems(cases); i++) {
		setenv("PROXY_TIMEOUT_SECONDS", cases[i].text, 1);
		r = read_config("--dialect infinilm", NULL);
		assert_infinilm(&r, cases[i].total_ms);
		release(&r);
	}
	setenv("PROXY_TIMEOUT_SECONDS", "5", 1);
	r = read_config("--dialect infinilm --total 9s", NULL);
	assert_int_equal(r.config.timeout.total_ms, 9000);
	release(&r);
	r = read_config("", NULL); /* nobody else's business */
	assert_int_equal(r.config.timeout.total_ms, 0);
	release(&r);
	unsetenv("PROXY_TIMEOUT_SECONDS");
}

/* vLLM's router reads this variable; an option of ours is worth more. */
static void the_environment_has_validation_urls(void **state) {
	static const char name[] = "API_KEY_VALIDATION_URLS";
	static const struct {
		const char *text, *flags, *first, *mistake;
		size_t n;
	} cases[] = {
		{ "http://a/x,https://b", "", "http://a/x", NULL, 2 },
		{ "http://a/x", "--api-key-validation-urls http://c http://d", "http://c", NULL, 2 },
		{ " , ", "", NULL, NULL, 0 },
		{ "", "", NULL, NULL, 0 },
		{ "http://a,b", "", NULL, "API_KEY_VALIDATION_URLS: expected http://HOST", 0 },
	};
	for (size_t i = 0; i < n_elems(cases); i++) {
		assert_int_equal(setenv(name, cases[i].text, 1), 0);
		struct reading r = read_config(cases[i].flags, NULL);
		unsetenv(name);
		assert_int_equal(option_mistakes(r.config.options), cases[i].mistake != NULL);
		if (cases[i].mistake)
			assert_non_null(strstr(r.mistakes, cases[i].mistake));
		assert_int_equal(r.config.validation.urls.n, cases[i].n);
		if (cases[i].first)
			assert_string_equal(r.config.validation.urls.items[0], cases[i].first);
		release(&r);
	}
}

/* The flags for a file of this content. */
static struct reading read_services(const char *json, const char *more) {
	char path[] = "/tmp/headrace-services-XXXXXX", flags[128];
	FILE *out = fdopen(mkstemp(path), "w");

	fputs(json, out);
	fclose(out);
	snprintf(flags, sizeof(flags), "--static-services %s %s", path, more);
	struct reading r = read_config(flags, NULL);
	unlink(path);
	return r;
}

static void static_services_are_engines(void **state) {
	struct reading r = read_services("[{\"name\":\"a\",\"host\":\"h\",\"port\":1}]", "");

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.workers.n, 0);
	assert_int_equal(r.config.static_services.n, 1);
	release(&r);
}

static void bad_static_services_are_mistakes(void **state) {
	struct reading r = read_config("--static-services /no/such/file", NULL);

	assert_string_equal(
	    r.mistakes, "--static-services: unable to open /no/such/file: No such file or directory\n");
	assert_int_equal(option_mistakes(r.config.options), 1);
	release(&r);
	r = read_services("[{\"name\":\"a\",\"host\":\"h\"}]", "");
	assert_non_null(strstr(r.mistakes, ": services[0]: no port\n"));
	assert_int_equal(option_mistakes(r.config.options), 1);
	release(&r);
	r = read_services("[{\"name\":\"http://a:80\",\"host\":\"h\",\"port\":1}]", "--worker-urls http://a");
	assert_string_equal(r.mistakes, "--static-services: \"http://a:80\" is the name of a worker, too\n");
	release(&r);
}

static void assert_ranks(const char *flags, uint16_t unified, uint16_t prefill, uint16_t decode) {
	struct reading r = read_config(flags, NULL);

	assert_null(strstr(r.mistakes, "size"));
	assert_int_equal(r.config.ranks.unified, unified);
	assert_int_equal(r.config.ranks.prefill, prefill);
	assert_int_equal(r.config.ranks.decode, decode);
	release(&r);
}

static void ranks_are_numbers_or_auto(void **state) {
	assert_ranks("", 1, 1, 1);
	assert_ranks("--data-parallel-size 8", 8, 8, 8);
	assert_ranks("--intra-node-data-parallel-size 8 --decode-data-parallel-size 1", 8, 8, 1);
	assert_ranks("--prefill-data-parallel-size auto", 1, RANKS_AUTO, 1);
	assert_ranks(
	    "--data-parallel-size 0 --prefill-data-parallel-size 1024", RANKS_AUTO, RANKS_MAX, RANKS_AUTO);
	static const char *const wrong[] = { "1025", "-1", "Auto", "65535" };
	for (size_t i = 0; i < n_elems(wrong); i++) {
		char flags[64];

		snprintf(flags, sizeof(flags), "--data-parallel-size %s", wrong[i]);
		struct reading r = read_config(flags, NULL);
		assert_int_equal(option_mistakes(r.config.options), 1);
		release(&r);
	}
}

static void workers_may_be_ranks(void **state) {
	struct reading r = read_config("--worker-urls HTTPS://GPU@3 http://[::1]:1@0",
	    "[[worker]]\nurl = \"http://a:1\"\nranks = \"auto\"\n[[worker]]\nurl = \"http://a:1@2\"\nname = "
	    "\"x\"\n");
	const struct router_worker *w = r.config.workers.items;

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.workers.n, 4);
	assert_int_equal(w[0].n_ranks, RANKS_AUTO);
	assert_false(w[0].has_rank);
	assert_string_equal(w[1].url, "http://a:1@2");
	assert_string_equal(w[1].name, "x");
	assert_string_equal(w[2].url, "https://gpu:443@3");
	assert_string_equal(w[2].name, w[2].url);
	assert_int_equal(w[2].rank, 3);
	assert_string_equal(w[3].url, "http://[::1]:1@0");
	assert_true(w[3].has_rank);
	release(&r);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_byte_holds_for_all_once_it_is_set),
		cmocka_unit_test(workers_of_file_and_flags),
		cmocka_unit_test(the_table_of_the_registry_has_a_place),
		cmocka_unit_test(a_place_for_the_table_that_is_too_long_is_a_mistake),
		cmocka_unit_test(header_names_are_lowered),
		cmocka_unit_test(sessions_are_looked_for_in_order),
		cmocka_unit_test(ids_of_single_requests_are_no_sessions),
		cmocka_unit_test(many_of_one_engine),
		cmocka_unit_test(too_many_workers),
		cmocka_unit_test(which_engines_speak_tls),
		cmocka_unit_test(labels_of_other_models_are_told),
		cmocka_unit_test(mistakes_between_values),
		cmocka_unit_test(what_one_flag_names_twice_is_one),
		cmocka_unit_test(logs_go_where_a_folder_is),
		cmocka_unit_test(the_dialect_has_other_defaults),
		cmocka_unit_test(the_environment_has_the_total),
		cmocka_unit_test(the_environment_has_validation_urls),
		cmocka_unit_test(static_services_are_engines),
		cmocka_unit_test(bad_static_services_are_mistakes),
		cmocka_unit_test(ranks_are_numbers_or_auto),
		cmocka_unit_test(workers_may_be_ranks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
