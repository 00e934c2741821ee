#include "unit/unit.h"

#include <unistd.h>

#include "unit/router/config_reading.h"

#define VLLM "--dialect vllm --worker-urls http://a "

static void its_defaults_hold(void **state) {
	static const char *const ways[][2] = { { VLLM, "router" },
		{ "--worker-urls http://a", "vllm-router" },
		{ "--worker-urls http://a", "/usr/bin/vllm-router" } };

	for (size_t i = 0; i < n_elems(ways); i++) {
		called = (char *)ways[i][1];
		struct reading r = read_config(ways[i][0], NULL);
		const struct router_config *c = &r.config;

		assert_string_equal(r.mistakes, "");
		assert_int_equal(c->dialect, ROUTER_VLLM);
		assert_true(!strcmp(c->host, "127.0.0.1") && c->port == 30000);
		assert_true(!strcmp(c->metrics_host, "127.0.0.1") && c->metrics_port == 29000);
		assert_int_equal(c->body_limit_bytes, 512 << 20);
		assert_int_equal(c->timeout.total_ms, 1800000);
		assert_int_equal(c->timeout.first_byte_ms, 0);
		assert_int_equal(c->timeout.announce_ms, 2000);
		assert_string_equal(c->policy, "cache_aware");
		assert_true(c->policies.cache_threshold == 0.3 && c->policies.balance_rel_threshold == 1.5);
		assert_int_equal(c->policies.balance_abs_threshold, 64);
		assert_true(c->health.errors_max == 3 && c->health.n_good_min == 2);
		assert_true(c->health.timeout_ms == 5000 && c->health.interval_ms == 60000);
		assert_true(c->retry.attempts == 5 && c->retry.backoff_ms == 50);
		assert_true(c->retry.backoff_max_ms == 30000 && c->retry.multiplier == 1.5);
		assert_true(c->retry.jitter == 0.2 && c->retry.sent);
		assert_int_equal(c->retry.refusals, (1u << RETRY_STATUSES) - 1);
		assert_true(c->breaker.limits.failures == 10 && c->breaker.limits.successes == 3);
		assert_true(c->breaker.limits.open_ms == 60000 && c->breaker.limits.window_ms == 120000);
		assert_true(c->admission.is_vllm && c->admission.max_requests == 32768);
		assert_true(c->admission.queue_size == 100 && c->admission.queue_timeout_ms == 60000);
		assert_true(c->cors_origins.n == 1 && !strcmp(c->cors_origins.items[0], "*"));
		assert_int_equal(c->unknown_models, ROUTER_UNKNOWN_RELAY);
		release(&r);
	}
	called = "router";
}

static void unknown_models_are_refused_where_there_are_many(void **state) {
	static const struct {
		const char *flags;
		enum router_unknown_models expected;
	} cases[] = {
		{ "--worker-urls http://a", ROUTER_UNKNOWN_REFUSE },
		{ "--worker-urls http://a --unknown-models relay", ROUTER_UNKNOWN_RELAY },
		{ VLLM "--enable-igw", ROUTER_UNKNOWN_REFUSE },
		{ VLLM "--enable-igw false", ROUTER_UNKNOWN_RELAY },
		{ VLLM "--enable-igw --unknown-models relay", ROUTER_UNKNOWN_RELAY },
		{ VLLM "--unknown-models refuse", ROUTER_UNKNOWN_REFUSE },
		{ "--worker-urls http://a --backend openai", ROUTER_UNKNOWN_RELAY },
		{ VLLM "--backend openai --enable-igw", ROUTER_UNKNOWN_RELAY },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, NULL);

		assert_string_equal(r.mistakes, "");
		assert_int_equal(r.config.unknown_models, cases[i].expected);
		release(&r);
	}
}

static void what_is_said_goes_before_them(void **state) {
	struct reading r =
	    read_config(VLLM "--request-timeout-secs 14400 --retry-max-retries 2 --cors-allowed-origins "
			     "--balance-abs-threshold 8 --max-payload-size 1024 --level warning",
		"[health]\ninterval = '1s'\n");

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.timeout.total_ms, 14400000);
	assert_int_equal(r.config.retry.attempts, 2);
	assert_int_equal(r.config.cors_origins.n, 0);
	assert_int_equal(r.config.policies.balance_abs_threshold, 8);
	assert_int_equal(r.config.body_limit_bytes, 1024);
	assert_int_equal(r.config.health.interval_ms, 1000);
	assert_int_equal(r.config.log_level, LOG_WARN);
	release(&r);
	called = "vllm-router";
	r = read_config("--dialect headrace --worker-urls http://a --log-level critical", NULL);
	called = "router";
	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.dialect, ROUTER_HEADRACE);
	assert_false(r.config.admission.is_vllm);
	assert_int_equal(r.config.timeout.total_ms, 0);
	assert_int_equal(r.config.retry.attempts, 3);
	assert_int_equal(r.config.log_level, LOG_ERROR);
	release(&r);
}

/* Several of them on one machine differ in --port and --prometheus-port alone. */
static void the_admin_listener_is_where_metrics_are(void **state) {
	static const struct {
		const char *flags, *admin, *metrics, *mistakes;
		unsigned admin_port, metrics_port;
	} cases[] = {
		{ "", "127.0.0.1", "127.0.0.1", "", 29000, 29000 },
		{ "--prometheus-port 9", "127.0.0.1", "127.0.0.1", "", 9, 9 },
		{ "--prometheus-host 0.0.0.0", "0.0.0.0", "0.0.0.0", "", 29000, 29000 },
		{ "--prometheus-host ::1 --prometheus-port 9", "::1", "::1", "", 9, 9 },
		{ "--prometheus-host 0.0.0.0 --admin-host 127.0.0.1 --admin-port 9", "127.0.0.1", "0.0.0.0",
		    "", 9, 9 },
		{ "--prometheus-port 9 --admin-port 8", "127.0.0.1", "127.0.0.1", "", 8, 9 },
		{ "--prometheus-host here", "0.0.0.0", "0.0.0.0",
		    "--prometheus-host: warning: \"here\" is no address: 0.0.0.0 is taken\n", 29000, 29000 },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		char flags[256];

		snprintf(flags, sizeof(flags), VLLM "%s", cases[i].flags);
		struct reading r = read_config(flags, NULL);
		assert_string_equal(r.mistakes, cases[i].mistakes);
		assert_string_equal(r.config.admin_host, cases[i].admin);
		assert_string_equal(r.config.metrics_host, cases[i].metrics);
		assert_int_equal(r.config.admin_port, cases[i].admin_port);
		assert_int_equal(r.config.metrics_port, cases[i].metrics_port);
		release(&r);
	}
	struct reading r =
	    read_config("--worker-urls http://a --prometheus-host here --prometheus-port 9", NULL);
	assert_string_equal(r.mistakes, "");
	assert_string_equal(r.config.metrics_host, "here");
	assert_int_equal(r.config.admin_port, 29000);
	release(&r);
}

/* All that is said of a command line. */
static void assert_lines(const char *flags, const char *more, const char *lines, size_t n_mistakes) {
	char words[512];

	snprintf(words, sizeof(words), "%s %s", flags, more);
	struct reading r = read_config(words, NULL);
	assert_string_equal(r.mistakes, lines);
	assert_int_equal(option_mistakes(r.config.options), n_mistakes);
	release(&r);
}

static void extras_are_refused_once(void **state) {
	static const struct {
		const char *flags, *line;
	} cases[] = {
		{ "--enable-program-scheduling --program-scheduling-config-json {\"a\":1}",
		    "--enable-program-scheduling: scheduling of programs is not built\n" },
		{ "--service-discovery --selector app=x role=y --service-discovery-port 80 "
		  "--service-discovery-namespace n --prefill-selector a=b --decode-selector a=c",
		    "--service-discovery: engines are not looked for in Kubernetes: name them by "
		    "--worker-urls, or "
		    "have them register at a registry\n" },
		{ "--wasm-middleware f --wasm-middleware-sha256 00 --wasm-middleware-route /a /b",
		    "--wasm-middleware: middleware in WebAssembly is not built\n" },
		{ "--epd-config {}",
		    "--epd-config: engines that encode apart from those that prefill are not built\n" },
		{ "--kv-events-port 5557 --kv-model m --kv-block-size 16 --kv-hash-algo x --kv-hash-seed 0 "
		  "--kv-tokenizer-path t --kv-events-topic-filter kv --kv-events-endpoint a=b",
		    "--kv-model: what engines tell of their caches is not listened to: --policy cache_aware "
		    "goes by "
		    "what they were sent\n" },
		{ "--mini-lb",
		    "--mini-lb: there is no balancer but the router: --policy random is the nearest\n" },
	};

	for (size_t i = 0; i < n_elems(cases); i++)
		assert_lines("--worker-urls http://a", cases[i].flags, cases[i].line, 1);
}

static void flags_without_effect_are_told(void **state) {
	static const struct {
		const char *flags, *line;
	} cases[] = {
		{ "--enable-trace", "--enable-trace: warning: has no effect: spans are not exported\n" },
		{ "--otlp-traces-endpoint localhost:4317",
		    "--otlp-traces-endpoint: warning: has no effect: spans are not exported\n" },
		{ "--otel-sampling-ratio 0.1",
		    "--otel-sampling-ratio: warning: has no effect: spans are not exported\n" },
		{ "--otel-excluded-paths /health /metrics",
		    "--otel-excluded-paths: warning: has no effect: spans are not exported\n" },
		{ "--profile", "--profile: warning: has no effect: engines are not told to profile\n" },
		{ "--worker-startup-check-interval 600",
		    "--worker-startup-check-interval: warning: has no effect: the router does not wait for "
		    "engines, "
		    "/readiness says whether there is one\n" },
		{ "--history-backend memory",
		    "--history-backend: warning: has no effect: responses are kept by the "
		    "engine that made them\n" },
		{ "--runtime trtllm", "--backend: warning: is taken as vllm\n" },
		{ "--backend anthropic", "--backend: warning: is taken as vllm\n" },
		{ "--history-backend none",
		    "--history-backend: warning: has no effect: responses are kept by the "
		    "engine that made them\n" },
		{ "--enable-igw --backend sglang", "" },
		{ "--profile=false --mini-lb false --service-discovery=false", "" },
	};

	for (size_t i = 0; i < n_elems(cases); i++)
		assert_lines("--worker-urls http://a", cases[i].flags, cases[i].line, 0);
}

static void what_it_refuses(void **state) {
	static const char power[] = "--policy: power_of_two needs two engines to choose between\n";
	static const struct {
		const char *flags, *line;
	} cases[] = {
		{ VLLM "--policy power_of_two", power },
		{ "--policy power_of_two --worker-urls http://a", "" },
		{ VLLM "http://b --policy power_of_two", "" },
		{ VLLM "--policy power_of_two --registry-url http://r --state-dir /tmp", "" },
		{ "--dialect vllm --prefill http://a --decode http://b http://c --policy power_of_two",
		    "policy.prefill: power_of_two needs two engines to choose between\n" },
		{ "--dialect vllm --prefill http://a --decode http://b http://c --prefill-policy random "
		  "--decode-policy power_of_two",
		    "" },
		{ "--dialect vllm --prefill http://a --decode http://b --decode-policy power_of_two",
		    "--decode-policy: power_of_two needs two engines to choose between\n" },
		{ VLLM "--retry-max-backoff-ms 49", "--retry-max-backoff-ms: is less than retry.backoff\n" },
		{ VLLM "--retry-initial-backoff-ms 0", "--retry-initial-backoff-ms: expected more than 0\n" },
		{ "--worker-urls http://a --retry-max-backoff-ms 1 --retry-initial-backoff-ms 0", "" },
		{ "--worker-urls http://a http://b --backend openai",
		    "--backend: openai needs exactly one url in --worker-urls\n" },
		{ "--worker-urls http://a --backend openai", "" },
	};

	for (size_t i = 0; i < n_elems(cases); i++)
		assert_lines("", cases[i].flags, cases[i].line, cases[i].line[0] != '\0');
}

/* In a folder with a file .env of this content. */
static struct reading read_beside(const char *dotenv, const char *flags) {
	char folder[] = "/tmp/headrace-dotenv-XXXXXX", before[4096];

	assert_non_null(mkdtemp(folder));
	assert_non_null(getcwd(before, sizeof(before)));
	assert_int_equal(chdir(folder), 0);
	FILE *out = fopen(".env", "w");
	fputs(dotenv, out);
	fclose(out);
	struct reading r = read_config(flags, NULL);
	unlink(".env");
	assert_int_equal(chdir(before), 0);
	rmdir(folder);
	return r;
}

static void its_environment_is_read(void **state) {
	static const struct {
		const char *dotenv, *rust_log, *flags, *mistakes;
		enum log_level level;
		size_t n_urls;
	} cases[] = {
		{ "RUST_LOG=debug\nAPI_KEY_VALIDATION_URLS=http://x,http://y\n", NULL, VLLM, "", LOG_DEBUG,
		    2 },
		{ "RUST_LOG=debug\nAPI_KEY_VALIDATION_URLS=http://x\n", NULL, "--worker-urls http://a", "",
		    LOG_INFO, 0 },
		{ "RUST_LOG=debug\n", "Error", VLLM "--log-level warn", "", LOG_ERROR, 0 },
		{ "", "trace", VLLM "--log-level warn", "", LOG_DEBUG, 0 },
		{ "", "off", VLLM, "", LOG_ERROR, 0 },
		{ "", "vllm_router=debug", VLLM "--log-level warn", "", LOG_WARN, 0 },
		{ "", "debug", "--worker-urls http://a", "", LOG_INFO, 0 },
		{ "API_KEY_VALIDATION_URLS=http://x\n", NULL,
		    VLLM "--api-key-validation-urls http://c http://d", "", LOG_INFO, 2 },
		{ "HEADRACE_ROUTER_PORT=1\n", NULL, VLLM,
		    "--dialect: warning: .env: HEADRACE_ROUTER_PORT is taken from the environment alone\n",
		    LOG_INFO, 0 },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		cases[i].rust_log ? setenv("RUST_LOG", cases[i].rust_log, 1) : unsetenv("RUST_LOG");
		struct reading r = read_beside(cases[i].dotenv, cases[i].flags);
		assert_string_equal(r.mistakes, cases[i].mistakes);
		assert_int_equal(r.config.log_level, cases[i].level);
		assert_int_equal(r.config.validation.urls.n, cases[i].n_urls);
		release(&r);
	}
	unsetenv("RUST_LOG");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(its_defaults_hold),
		cmocka_unit_test(unknown_models_are_refused_where_there_are_many),
		cmocka_unit_test(what_is_said_goes_before_them),
		cmocka_unit_test(the_admin_listener_is_where_metrics_are),
		cmocka_unit_test(extras_are_refused_once),
		cmocka_unit_test(flags_without_effect_are_told),
		cmocka_unit_test(what_it_refuses),
		cmocka_unit_test(its_environment_is_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
