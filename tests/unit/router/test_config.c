#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/option_doc.h"
#include "base/option_name.h"
#include "policy/policy.h"
#include "router/config.c"
#include "unit/router/config_reading.h"

static void defaults(void **state) {
	static const char *const headers[] = { "x-request-id", "x-correlation-id", "x-trace-id",
		"request-id" };
	struct reading r = read_config("", NULL);
	const struct router_config *c = &r.config;

	assert_string_equal(r.mistakes, "worker: warning: there is none: the router will not be ready\n");
	assert_int_equal(option_mistakes(c->options), 0);
	assert_string_equal(c->host, "127.0.0.1");
	assert_int_equal(c->port, 30000);
	assert_int_equal(c->dialect, ROUTER_HEADRACE);
	assert_int_equal(c->errors, REPLY_BY_PATH);
	assert_int_equal(c->n_threads, 0);
	assert_int_equal(c->body_limit_bytes, 512 << 20);
	assert_int_equal(c->inspect_limit_bytes, 1 << 20);
	assert_int_equal(c->hold_limit_bytes, 64 << 20);
	assert_int_equal(c->hold_memory_bytes, 256 << 20);
	assert_int_equal(c->request_id_headers.n, n_elems(headers));
	for (size_t i = 0; i < n_elems(headers); i++)
		assert_string_equal(c->request_id_headers.items[i], headers[i]);
	assert_int_equal(c->half_close, ROUTER_HALF_CLOSE_ABORT);
	assert_string_equal(c->admin_host, "127.0.0.1");
	assert_int_equal(c->admin_port, 29000);
	assert_string_equal(c->metrics_host, "127.0.0.1");
	assert_int_equal(c->metrics_port, 29000);
	assert_string_equal(c->policy, "cache_aware");
	assert_string_equal(c->log_access, "-");
	assert_string_equal(c->log_dir, "");
	assert_int_equal(c->log_level, LOG_INFO);
	assert_int_equal(c->models_interval_ms, 10000);
	assert_int_equal(c->models_timeout_ms, 5000);
	assert_int_equal(c->resolve_interval_ms, 30000);
	assert_int_equal(c->workers.n, 0);
	release(&r);
}

static void default_timeouts(void **state) {
	struct reading r = read_config("", NULL);
	const struct router_timeouts *t = &r.config.timeout;

	assert_int_equal(t->head_ms, 10000);
	assert_int_equal(t->body_idle_ms, 30000);
	assert_int_equal(t->write_idle_ms, 60000);
	assert_int_equal(t->keepalive_ms, 75000);
	assert_int_equal(t->pool_idle_ms, 4000);
	assert_int_equal(t->connect_ms, 5000);
	assert_int_equal(t->first_byte_ms, 600000);
	assert_false(t->first_byte_all);
	assert_int_equal(t->stream_idle_ms, 300000);
	assert_int_equal(t->total_ms, 0);
	assert_int_equal(t->announce_ms, 5000);
	assert_int_equal(t->drain_ms, 300000);
	release(&r);
}

/* That they cannot be read is another matter. */
static void certificates_are_listed(void **state) {
	struct reading r = read_config("--ssl-certfile a.pem --ssl-keyfile a.key --engine-certificate e.pem",
	    "[tls]\ncertificates = ['b.pem:b.key', 'c.pem']\n");
	const struct router_tls *tls = &r.config.tls;

	assert_int_equal(tls->server.files.n, 3);
	assert_string_equal(tls->server.files.certificates[0].chain, "a.pem");
	assert_string_equal(tls->server.files.certificates[0].key, "a.key");
	assert_string_equal(tls->server.files.certificates[1].chain, "b.pem");
	assert_string_equal(tls->server.files.certificates[1].key, "b.key");
	assert_string_equal(tls->server.files.certificates[2].chain, "c.pem");
	assert_string_equal(tls->server.files.certificates[2].key, "c.pem");
	assert_string_equal(tls->client.certificate.key, "e.pem");
	release(&r);
}

static void mistakes(void **state) {
	static const struct {
		const char *flags, *toml, *line;
	} cases[] = {
		{ "--threads 257", NULL, "--threads: 257 is out of range: 0 to 256\n" },
		{ "--port 0", NULL, "--port: 0 is out of range: 1 to 65535\n" },
		{ "--host [::1]", NULL, "--host: expected a host name or an address\n" },
		{ "--policy lucky", NULL,
		    "--policy: expected one of cache_aware, round_robin, least_load, power_of_two, random, "
		    "weighted_random, least_latency, consistent_hash, rendezvous_hash, session, bucket, "
		    "size_class, composite, least_connections, got \"lucky\"\n" },
		{ "--cache-threshold 1.1", NULL, "--cache-threshold: 1.1 is out of range: 0 to 1\n" },
		{ "--balance-rel-threshold 0.999", NULL,
		    "--balance-rel-threshold: expected 1 or more, or 0\n" },
		{ "--weighted-random-sharpness 5", NULL,
		    "--weighted-random-sharpness: 5 is out of range: 0 to 4\n" },
		{ "--size-class-then bucket", NULL,
		    "--size-class-then: \"bucket\" cannot decide among the engines of a class\n" },
		{ "--request-id-headers x-id: id", NULL,
		    "--request-id-headers: expected the name of a header\n" },
		{ "--session-headers x:", NULL, "--session-headers: expected the name of a header\n" },
		{ "--session-headers "
		  "x234567890123456789012345678901234567890123456789012345678901234",
		    NULL, "--session-headers: expected a name of at most 63 bytes\n" },
		{ "--worker-urls a:8000", NULL,
		    "--worker-urls: expected http://HOST[:PORT] or https://HOST[:PORT]\n" },
		{ "--ssl-certfile /no/chain", NULL,
		    "--ssl-certfile: /no/chain: No such file or directory\n" },
		{ "--tls-certificates /dev/null:/no/key", NULL,
		    "--tls-certificates: /dev/null: there is no certificate in it\n" },
		{ "--ssl-keyfile /no/key", NULL, "--ssl-keyfile: there is no certificate for it\n" },
		{ "--ssl-ca-certs /no/ca", NULL,
		    "--ssl-ca-certs: there is no certificate of our own, so that nobody is asked\n" },
		{ "--engine-ca /no/ca", NULL, "--engine-ca: /no/ca: No such file or directory\n" },
		{ "--engine-certificate /no/chain", NULL,
		    "--engine-certificate: /no/chain: No such file or directory\n" },
		{ "--engine-certificate-key /no/key", NULL,
		    "--engine-certificate-key: there is no certificate for it\n" },
		{ "--worker-urls ftp://a", NULL,
		    "--worker-urls: unknown scheme: expected http://HOST[:PORT] or https://HOST[:PORT]\n" },
		{ "--worker-urls http://a/v1", NULL,
		    "--worker-urls: an engine's url has no path: expected "
		    "http://HOST[:PORT] or https://HOST[:PORT]\n" },
		{ "--worker-urls http://a/v1?x --backend openai", NULL,
		    "--worker-urls: a provider's url has no query\n" },
		{ "", "[[worker]]\nurl = 'https://a'\nlabels = { provider = 'azure' }\n",
		    "FILE:3: worker[0].labels: provider = \"azure\": expected openai\n" },
		{ "--worker-urls http://a", "[policy.models]\n'' = 'random'\n",
		    "FILE:1: policy.models: \"\" is no name of a model: expected 1 to 256 bytes without "
		    "control characters\n" },
		{ "--worker-urls http://a", "[policy.models]\n" NAME_256 "x = 'random'\n",
		    "FILE:1: policy.models: \"" NAME_256
		    "x\" is no name of a model: expected 1 to 256 bytes without control characters\n" },
		{ "--composite-load 0 --composite-latency 0 --composite-locality 0 --composite-cost 0", NULL,
		    "--composite-load: the four weights are 0: nothing would count\n" },
		{ "", "[alias]\ngpt = 'llama'\nllama = 'm'\n",
		    "FILE:1: alias: \"gpt\" stands for \"llama\", which is an alias itself\n" },
		{ "--locality-mode require", NULL,
		    "--locality-mode: needs locality.zone or locality.region\n" },
		{ "--locality-threshold 1.5", NULL,
		    "--locality-threshold: 1.5 is out of range: 0.001 to 1\n" },
		{ "--privacy-floor secret", NULL,
		    "--privacy-floor: expected one of public, internal, confidential, restricted, got "
		    "\"secret\"\n" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, cases[i].toml);

		assert_string_equal(r.mistakes, cases[i].line);
		assert_int_equal(option_mistakes(r.config.options), 1);
		release(&r);
	}
}

static void values_at_their_limits(void **state) {
	struct reading r =
	    read_config("--threads 256 --port 65535 --hold-limit 256MiB --inspect-limit 256MiB --drain 0 "
			"--prometheus-port 9090 --metrics-host ::1 --worker-urls http://a:30000 "
			"--admin-host 127.0.0.2 --admin-port 30000 --half-close serve --level error",
		"[alias]\n");

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.n_threads, 256);
	assert_int_equal(r.config.port, 65535);
	assert_int_equal(r.config.inspect_limit_bytes, 256 << 20);
	assert_int_equal(r.config.timeout.drain_ms, 0);
	assert_string_equal(r.config.metrics_host, "::1");
	assert_int_equal(r.config.metrics_port, 9090);
	assert_int_equal(r.config.half_close, ROUTER_HALF_CLOSE_SERVE);
	assert_int_equal(r.config.log_level, LOG_ERROR);
	release(&r);
}

static void breakers_are_read(void **state) {
	static const char *const off[] = { "--disable-circuit-breaker", "--breaker-enabled false" };
	struct reading r = read_config("--worker-urls http://a", "");
	const struct breaker_limits *limits = &r.config.breaker.limits;

	assert_string_equal(r.mistakes, "");
	assert_true(limits->failures == 10 && limits->successes == 3);
	assert_true(limits->open_ms == 60000 && limits->open_max_ms == 300000 && limits->window_ms == 120000);
	assert_string_equal(r.config.admin_key, "");
	release(&r);
	/* As vLLM's router spells them. */
	r = read_config("--worker-urls http://a --cb-failure-threshold 5 --cb-success-threshold 2 "
			"--cb-timeout-duration-secs 600 --cb-window-duration-secs 30",
	    "admin.key = 'secret'\n");
	limits = &r.config.breaker.limits;
	assert_string_equal(r.mistakes, "");
	assert_true(limits->failures == 5 && limits->successes == 2);
	assert_true(limits->open_ms == 600000 && limits->open_max_ms == 600000 && limits->window_ms == 30000);
	assert_string_equal(r.config.admin_key, "secret");
	release(&r);
	for (size_t i = 0; i < n_elems(off); i++) {
		char flags[96];

		snprintf(flags, sizeof(flags), "--worker-urls http://a %s", off[i]);
		r = read_config(flags, "");
		assert_string_equal(r.mistakes, "");
		assert_int_equal(r.config.breaker.limits.failures, 0);
		release(&r);
	}
	r = read_config("--worker-urls http://a --cb-failure-threshold 0", "");
	assert_int_equal(option_mistakes(r.config.options), 1);
	release(&r);
}

static void retries_are_read(void **state) {
	struct reading r = read_config("--worker-urls http://a", "");
	const struct retry_options *retry = &r.config.retry;

	assert_string_equal(r.mistakes, "");
	assert_int_equal(retry->attempts, 3);
	assert_int_equal(retry->refusals, 1u << RETRY_429 | 1u << RETRY_503);
	assert_int_equal(retry->backoff_ms, 25);
	assert_false(retry->sent);
	release(&r);
	/* As vLLM's router spells them. */
	r = read_config(
	    "--worker-urls http://a --retry-max-retries 7 --retry-initial-backoff-ms 50 "
	    "--retry-max-backoff-ms 30000 --retry-backoff-multiplier 1.5 --retry-jitter-factor 0.3",
	    "retry.statuses = ['502', '503']\nretry.sent = true\n");
	retry = &r.config.retry;
	assert_string_equal(r.mistakes, "");
	assert_int_equal(retry->attempts, 7);
	assert_int_equal(retry->refusals, 1u << RETRY_502 | 1u << RETRY_503);
	assert_true(retry->backoff_ms == 50 && retry->backoff_max_ms == 30000);
	assert_true(retry->multiplier == 1.5 && retry->jitter == 0.3 && retry->sent);
	release(&r);
	r = read_config("--worker-urls http://a --disable-retries", "");
	assert_int_equal(r.config.retry.attempts, 1);
	release(&r);
	r = read_config("--worker-urls http://a", "retry.statuses = ['404']\n");
	assert_non_null(strstr(r.mistakes, "expected one of 408, 429, 500, 502, 503, 504"));
	release(&r);
}

static void admission_is_read(void **state) {
	struct reading r = read_config("--worker-urls http://a", "");
	const struct router_admission *a = &r.config.admission;

	assert_string_equal(r.mistakes, "");
	assert_true(!a->max_requests && !a->model_requests && !a->models.n && !a->is_vllm);
	assert_true(a->queue_size == 100 && a->queue_timeout_ms == 60000);
	release(&r);
	/* As vLLM's router spells them. */
	r = read_config(
	    "--worker-urls http://a --max-concurrent-requests 7 --queue-size 0 --queue-timeout-secs 3",
	    "admission.model_requests = 5\nadmission.models = { m = '2', n = '0' }\n");
	assert_string_equal(r.mistakes, "");
	assert_true(a->max_requests == 7 && a->model_requests == 5 && a->models.n == 2);
	assert_true(a->queue_size == 0 && a->queue_timeout_ms == 3000);
	release(&r);
	r = read_config("--worker-urls http://a --dialect vllm", "");
	assert_true(a->max_requests == 32768 && a->is_vllm);
	release(&r);
	r = read_config("--worker-urls http://a", "admission.models = { m = 'some' }\n");
	assert_non_null(strstr(r.mistakes, "expected a number of requests; 0 is no cap"));
	release(&r);
}

/* What /config shows is a file that says the same. */
static void the_dump_reads_back(void **state) {
	struct reading r = read_config("--worker-urls http://b --first-byte off --body-limit 7MiB",
	    "[[worker]]\nurl = 'http://a'\nlabels = { x = 'y' }\n");
	json_t *dump = option_dump(r.config.options);
	char *text = json_dumps(dump, JSON_COMPACT);
	struct option_set *again = option_set_new(&router_config_schema);
	struct router_config config = { 0 };

	option_read_text(again, "DUMP", OPTION_JSON, slice_of(text));
	option_store(again, &config);
	assert_int_equal(option_mistakes(again), 0);
	json_t *second = option_dump(again);
	assert_true(json_equal(dump, second));
	json_decref(second);
	option_set_free(&again);
	free(text);
	json_decref(dump);
	release(&r);
}

static void its_flags_are_in_seconds(void **state) {
	struct reading r = read_config(
	    "--router-port 18000 --registry-url http://r:1/ --health-interval 5 --health-timeout 2 "
	    "--max-errors 4 --registry-sync-interval 2 --service-removal-grace-period 90",
	    NULL);

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.port, 18000);
	assert_string_equal(r.config.registry_url, "http://r:1/");
	assert_int_equal(r.config.health.interval_ms, 5000);
	assert_int_equal(r.config.health.timeout_ms, 2000);
	assert_int_equal(r.config.health.errors_max, 4);
	assert_int_equal(r.config.registry_sync_ms, 2000);
	assert_int_equal(r.config.registry_grace_ms, 90000);
	release(&r);
}

static void flags_of_vllms_router_for_health(void **state) {
	static const char *const paths[] = { "health", "", "/a b", "/\x7f" };
	struct reading r = read_config("--worker-urls http://a", NULL);
	const struct router_health *h = &r.config.health;

	assert_true(h->errors_max == 3 && h->n_good_min == 1);
	assert_string_equal(h->endpoint, "/health");
	release(&r);
	r = read_config(
	    "--worker-urls http://a --health-check-interval-secs 60 --health-check-timeout-secs 5 "
	    "--health-failure-threshold 4 --health-success-threshold 2 --health-check-endpoint /ready?now=1",
	    NULL);
	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.health.interval_ms, 60000);
	assert_int_equal(r.config.health.timeout_ms, 5000);
	assert_true(r.config.health.errors_max == 4 && r.config.health.n_good_min == 2);
	assert_string_equal(r.config.health.endpoint, "/ready?now=1");
	release(&r);
	for (size_t i = 0; i < n_elems(paths); i++) {
		char file[64];

		snprintf(file, sizeof(file), "health.endpoint = '%s'\n", i == 3 ? "/\xc3\xa4" : paths[i]);
		r = read_config("--worker-urls http://a", file);
		assert_non_null(strstr(r.mistakes, "health.endpoint"));
		release(&r);
	}
}

/* What users of vLLM's router pass to it. */
static void large_values_of_vllms_router(void **state) {
	struct reading r = read_config("--worker-urls http://a --cb-failure-threshold 1000 "
				       "--cb-success-threshold 255 --cb-timeout-duration-secs 999999 "
				       "--cb-window-duration-secs 99999999 --queue-timeout-secs 999999 "
				       "--retry-max-retries 100 --health-check-interval-secs 999999999",
	    NULL);
	const struct breaker_limits *limits = &r.config.breaker.limits;

	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_string_equal(r.mistakes,
	    "--retry-max-retries: warning: 100 is taken as 64: no request is sent more often\n"
	    "--cb-failure-threshold: warning: 1000 is taken as 255: a breaker counts no further\n"
	    "--cb-window-duration-secs: warning: 99999999s is taken as 8640h: a breaker knows no longer "
	    "time\n");
	assert_int_equal(r.config.retry.attempts, RETRY_ATTEMPTS_MAX);
	assert_true(limits->failures == BREAKER_COUNT_MAX && limits->successes == 255);
	assert_true(limits->open_ms == 999999000 && limits->open_max_ms == 999999000);
	assert_int_equal(limits->window_ms, BREAKER_TIME_MAX_MS);
	assert_int_equal(r.config.admission.queue_timeout_ms, 999999000);
	assert_int_equal(r.config.health.interval_ms, 999999999000);
	release(&r);
}

/* As a set of policies looks for it. */
static const struct policy *policy_for(const struct router_config *config, const char *model) {
	const struct policy_options *options = &config->policies;

	for (size_t i = 0; i < options->n_models; i++)
		if (slice_eq(options->models[i].model, slice_of(model)))
			return options->models[i].policy;
	return options->policy;
}

static void flags_name_policies_of_models(void **state) {
	static const struct {
		const char *flags, *mistake;
	} cases[] = {
		{ "--model-policy x", "--model-policy: expected MODEL=POLICY, got \"x\"\n" },
		{ "--model-policy =random",
		    "--model-policy: \"\" is no name of a model: expected 1 to 256 bytes without control "
		    "characters\n" },
		{ "--model-policy x=nope", "--model-policy: \"nope\" is no policy\n" },
		{ "--model-policy x=", "--model-policy: \"\" is no policy\n" },
		{ "--model-policy x=random,y=random,x=session", "--model-policy: \"x\" is there twice\n" },
	};
	struct reading r =
	    read_config("--worker-urls http://a --model-policy a=random --model-policy b=c=session,d=bucket",
		"[policy]\ndefault = 'least_load'\n[policy.models]\na = 'round_robin'\ne = 'composite'\n");

	assert_string_equal(r.mistakes, "");
	assert_ptr_equal(policy_for(&r.config, "a"), policy_find(SLICE("random")));
	assert_ptr_equal(policy_for(&r.config, "b=c"), policy_find(SLICE("session")));
	assert_ptr_equal(policy_for(&r.config, "d"), policy_find(SLICE("bucket")));
	assert_ptr_equal(policy_for(&r.config, "e"), policy_find(SLICE("composite")));
	assert_ptr_equal(policy_for(&r.config, "f"), policy_find(SLICE("least_load")));
	release(&r);
	for (size_t i = 0; i < n_elems(cases); i++) {
		char flags[256];

		snprintf(flags, sizeof(flags), "--worker-urls http://a %s", cases[i].flags);
		r = read_config(flags, NULL);
		assert_string_equal(r.mistakes, cases[i].mistake);
		release(&r);
	}
}

/* ---- the table itself ---- */

static void every_flag_leads_to_its_row(void **state) {
	static const char *const taken[] = { "--config", "--check", "--help", "--man", "--version" };
	const struct option_schema *schema = &router_config_schema;
	char name[OPTION_NAME_BYTES];

	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++) {
		if (!option_name_is_flag(r))
			continue;
		assert_ptr_equal(
		    option_name_find_flag(schema, slice_of(option_name_flag(schema, r, name))), r);
		for (size_t i = 0; i < n_elems(taken); i++)
			assert_string_not_equal(name, taken[i]);
		assert_ptr_equal(option_name_find_flag(schema, slice_of(option_name_long_flag(r, name))), r);
		if (r->also)
			assert_ptr_equal(
			    option_name_find_flag(schema, slice_of(option_name_other_flag(r, name))), r);
	}
}

static void the_flags_of_the_contract(void **state) {
	static const struct {
		const char *flag, *path;
	} cases[] = {
		{ "--host", "router.host" },
		{ "--dialect", "router.dialect" },
		{ "--static-services", "discovery.static_services" },
		{ "--port", "router.port" },
		{ "--threads", "router.threads" },
		{ "--worker-urls", "router.worker_urls" },
		{ "--policy", "policy.default" },
		{ "--prometheus-host", "metrics.host" },
		{ "--prometheus-port", "metrics.port" },
		{ "--admin-port", "admin.port" },
		{ "--first-byte", "timeout.first_byte" },
		{ "--timeout-first-byte", "timeout.first_byte" },
		{ "--discovery-timeout", "discovery.timeout" },
		{ "--pd-disaggregation", "pd.enabled" },
		{ "--vllm-pd-disaggregation", "pd.enabled" },
		{ "--prefill", "pd.prefill" },
		{ "--decode", "pd.decode" },
		{ "--data-parallel-size", "router.data_parallel_size" },
		{ "--intra-node-data-parallel-size", "router.data_parallel_size" },
		{ "--runtime", "router.backend" },
		{ "--max-payload-size", "router.body_limit" },
		{ "--request-timeout-secs", "timeout.total" },
		{ "--request-timeout", "timeout.total" },
		{ "--health-check-interval", "health.interval" },
		{ "--health-check-interval-secs", "health.interval" },
		{ "--cb-timeout-duration", "breaker.open" },
		{ "--retry-initial-backoff", "retry.backoff" },
		{ "--eviction-interval-secs", "policy.eviction_interval" },
		{ "--selector", "vllm.selector" },
	};
	const struct option_schema *schema = &router_config_schema;

	for (size_t i = 0; i < n_elems(cases); i++) {
		const struct option *row = option_name_find_path(schema, slice_of(cases[i].path));

		assert_non_null(row);
		assert_ptr_equal(option_name_find_flag(schema, slice_of(cases[i].flag)), row);
	}
	assert_null(option_name_find_flag(schema, SLICE("--timeout"))); /* which of them? */
	assert_null(option_name_find_flag(schema, SLICE("--interval")));
}

static void every_table_is_introduced(void **state) {
	for (size_t i = 0; i < n_elems(rows); i++) {
		size_t n = 0;

		for (size_t j = 0; j < n_elems(tables); j++)
			n += !strcmp(tables[j].name, rows[i].table);
		assert_int_equal(n, rows[i].table[0] ? 1 : 0);
	}
}

static void what_picks_go_by(void **state) {
	struct reading r = read_config("", NULL);
	const struct policy_options *o = &r.config.policies;

	assert_int_equal(o->privacy_floor, PRIVACY_PUBLIC);
	assert_int_equal(o->residency.n, 0);
	assert_int_equal(o->cost_ceiling, 0);
	assert_int_equal(o->locality.mode, LOCALITY_OFF);
	assert_int_equal(o->locality.capacity, 64);
	assert_true(o->locality.threshold == 0.8);
	release(&r);

	r = read_config("--zone z1 --locality-threshold 0.5 --privacy-residency eu de --cost-ceiling 700",
	    "[privacy]\nfloor = 'confidential'\n[locality]\ncapacity = 8\n");
	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_int_equal(o->privacy_floor, PRIVACY_CONFIDENTIAL);
	assert_true(slice_eq(o->residency, SLICE("eu,de")));
	assert_int_equal(o->cost_ceiling, 700);
	assert_int_equal(o->locality.mode, LOCALITY_PREFER);
	assert_true(o->locality.zone == traits_word(SLICE("z1")) && o->locality.region == 0);
	assert_int_equal(o->locality.capacity, 8);
	assert_true(o->locality.threshold == 0.5);
	release(&r);

	r = read_config("--session-overload 2.5 --composite-load 0",
	    "[composite]\nlatency = 2.5\nlocality = 3\ncost = 0.1\nmin_score = 0.7\n"
	    "[weighted_random]\nsharpness = 1.5\n[locality]\nthreshold = 0.001\n");
	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_true(o->session_overload == 2.5 && o->random_sharpness == 1.5);
	assert_true(o->composite_weights[0] == 0 && o->composite_weights[1] == 2.5);
	assert_true(o->composite_weights[2] == 3 && o->composite_weights[3] == 0.1);
	assert_true(o->composite_min_score == 0.7 && o->locality.threshold == 0.001);
	release(&r);

	r = read_config("--region r1 --locality-mode off", NULL);
	assert_int_equal(o->locality.mode, LOCALITY_OFF);
	release(&r);
	r = read_config("--region r1 --locality-mode require", NULL);
	assert_int_equal(o->locality.mode, LOCALITY_REQUIRE);
	release(&r);
}

static void the_policies_exist(void **state) {
	for (size_t i = 0; policy_config_names[i]; i++)
		assert_non_null(policy_find(slice_of(policy_config_names[i])));
	for (size_t i = 0; policy_table[i]; i++)
		assert_string_equal(policy_name(policy_table[i]), policy_config_names[i]);
}

/* What the tables say unless told otherwise is what holds where there is no configuration. */
static void the_policies_defaults_are_one(void **state) {
	const struct policy_options defaults = { POLICY_OPTIONS_DEFAULTS };
	struct reading r = read_config("--worker-urls http://a", NULL);
	const struct policy_options *o = &r.config.policies;

	assert_true(o->random_sharpness == defaults.random_sharpness);
	assert_int_equal(o->session_idle_ms, defaults.session_idle_ms);
	assert_int_equal(o->session_capacity, defaults.session_capacity);
	assert_true(o->session_overload == defaults.session_overload);
	assert_int_equal(o->size_class_bytes, defaults.size_class_bytes);
	for (unsigned i = 0; i < n_elems(o->composite_weights); i++)
		assert_true(o->composite_weights[i] == defaults.composite_weights[i]);
	assert_true(o->composite_min_score == defaults.composite_min_score);
	assert_int_equal(o->composite_candidates_max, defaults.composite_candidates_max);
	assert_true(o->cache_threshold == 0 && o->balance_rel_threshold == 0 && !o->balance_abs_threshold);
	assert_ptr_equal(o->size_class_then, policy_find(SLICE("cache_aware")));
	release(&r);
}

/* The three that mean something are taken, the two that do not are told of, however they are spelled. */
static void the_flags_of_vllms_router(void **state) {
	struct reading r =
	    read_config("--worker-urls http://a --cache-threshold 0.3 --balance-abs-threshold 64 "
			"--balance-rel-threshold 1.5 --eviction-interval-secs 120 "
			"--max-tree-size 67108864",
		NULL);
	const struct policy_options *o = &r.config.policies;

	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_non_null(strstr(r.mistakes, "--eviction-interval: warning: has no effect"));
	assert_non_null(strstr(r.mistakes, "--max-tree-size: warning: has no effect"));
	assert_true(o->cache_threshold == 0.3);
	assert_true(o->balance_rel_threshold == 1.5);
	assert_int_equal(o->balance_abs_threshold, 64);
	release(&r);
}

/* Who moves a flag over from there means the other one as it stands there. */
static void one_threshold_brings_the_other(void **state) {
	static const struct {
		const char *flags;
		uint64_t by;
		double times;
	} cases[] = {
		{ "--balance-rel-threshold 2", 64, 2 },
		{ "--balance-abs-threshold 8", 8, 1.5 },
		{ "--balance-abs-threshold 0 --balance-rel-threshold 1", 0, 1 },
		{ "--balance-abs-threshold 8 --balance-rel-threshold 0", 8, 0 },
		{ "--balance-rel-threshold 0", 0, 0 },
		{ "--balance-abs-threshold 0", 0, 0 },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, NULL);

		assert_int_equal(option_mistakes(r.config.options), 0);
		assert_int_equal(r.config.policies.balance_abs_threshold, cases[i].by);
		assert_true(r.config.policies.balance_rel_threshold == cases[i].times);
		release(&r);
	}
}

static void the_help_fits(void **state) {
	char *text;
	size_t n;
	FILE *out = open_memstream(&text, &n);

	option_doc_help(&router_config_schema, &vllm_config_dialect, out);
	fclose(out);
	for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
		assert_true(strcspn(line, "\n") <= 100);
	free(text);
}

/* ---- the start ---- */

static void loading(void **state) {
	char *good[] = { "router", "--port", "31000", "--worker-urls", "http://a", NULL };
	char *bad[] = { "router", "--port", "x", NULL };
	char *checked[] = { "router", "--check", "--worker-urls", "http://a", NULL };
	char *no_file[] = { "router", "--config", "/no/such/file", NULL };
	struct router_config *config = NULL;

	assert_int_equal(router_config_load(5, good, &config), -1);
	assert_int_equal(config->port, 31000);
	router_config_free(&config);
	assert_null(config);
	router_config_free(&config);
	assert_int_equal(router_config_load(3, bad, &config), 2);
	assert_null(config);
	assert_int_equal(router_config_load(3, no_file, &config), 2);
	assert_null(config);
	assert_int_equal(router_config_load(4, checked, &config), 0);
	assert_null(config);
}

/* --- tenants and keys -------------------------------------------------------------------- */

/* sha256 of "k" and of "l" */
#define K "sha256:8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"
#define L "sha256:acac86c0e609ca906f632b0e2dacccb2b77d22b0621f20ebece1a4835b93f6f0"

#define TENANTS "[[tenant]]\nname = 'a'\nkeys = ['" K "']\n[[tenant]]\nname = 'b'\nkeys = ['" L "']\n"

static uint32_t tenant_of_key(const struct router_config *c, const char *key) {
	struct digester *d = digester_new();
	uint8_t digest[DIGEST_BYTES];

	digester_sha256(d, slice_of(key), digest);
	digester_free(&d);
	return tenant_table_find(c->tenants, digest);
}

static void tenants_are_read(void **state) {
	struct reading r = read_config("",
	    "[[tenant]]\nname = 'a'\nkeys = ['" K "']\nmodels = ['m', 'n-*']\nmax_requests = 4\n"
	    "requests_per_minute = 60\ntokens_per_minute = 10000\npriority = 2\nweight = 5\n"
	    "privacy_floor = 'confidential'\n[tenant.labels]\nteam = 'x'\n"
	    "[[tenant]]\nname = 'b'\nkeys = ['" L "']\n");
	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_int_equal(tenant_table_n(r.config.tenants), 3);
	assert_int_equal(tenant_of_key(&r.config, "k"), 1);
	assert_int_equal(tenant_of_key(&r.config, "l"), 2);
	assert_int_equal(tenant_of_key(&r.config, "m"), TENANT_ANONYMOUS);
	const struct tenant *a = tenant_get(r.config.tenants, 1), *b = tenant_get(r.config.tenants, 2);
	assert_int_equal(a->models.n, 2);
	assert_int_equal(a->max_requests, 4);
	assert_int_equal(a->requests_per_minute, 60);
	assert_int_equal(a->tokens_per_minute, 10000);
	assert_int_equal(a->priority, 2);
	assert_int_equal(a->weight, 5);
	assert_int_equal(a->privacy_floor, PRIVACY_CONFIDENTIAL);
	assert_string_equal(a->labels.items[0].value, "x");
	assert_int_equal(b->weight, 1);
	assert_int_equal(b->privacy_floor, PRIVACY_PUBLIC);
	assert_false(r.config.passes_keys);
	release(&r);
	r = read_config("", NULL);
	assert_null(r.config.tenants);
	release(&r);
}

/* Writes a file of keys and reads the configuration with it. */
static struct reading read_keys(const char *flags, const char *lines) {
	char name[] = "/tmp/headrace-keys-XXXXXX", words[256];
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, lines, strlen(lines)), strlen(lines));
	close(fd);
	snprintf(words, sizeof(words), "--auth-keys-file %s %s", name, flags);
	struct reading r = read_config(words, TENANTS);
	unlink(name);
	return r;
}

static void keys_come_from_a_file_and_a_list(void **state) {
	struct reading r = read_keys("--auth-keys a=listed b=two=2",
	    "# ours\n\na plain-1\r\n  b\tplain-2  \na " K "\na plain-1\nb last");
	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_int_equal(tenant_of_key(&r.config, "plain-1"), 1);
	assert_int_equal(tenant_of_key(&r.config, "plain-2"), 2);
	assert_int_equal(tenant_of_key(&r.config, "last"), 2);
	assert_int_equal(tenant_of_key(&r.config, "listed"), 1);
	assert_int_equal(tenant_of_key(&r.config, "two=2"), 2);
	for (size_t i = 0; i < r.config.auth_keys.n; i++) /* nothing of them is left */
		assert_string_equal(r.config.auth_keys.items[i], "");
	release(&r);
}

/* The second reading finds what the first one left there. */
static void the_environment_keeps_digests(void **state) {
	static const char *const left =
	    "a=sha256:8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a,b=" L;
	char name[] = "HEADRACE_AUTH_KEYS";

	assert_int_equal(setenv(name, "a=k b=" L, 1), 0);
	for (unsigned round = 0; round < 2; round++) {
		char variable[512];
		snprintf(variable, sizeof(variable), "%s=%s", name, getenv(name));
		struct reading r = { .config.options = option_set_new(&router_config_schema) };
		option_read_environment(r.config.options, (char *[]){ variable, NULL });
		option_read_text(r.config.options, "FILE", OPTION_TOML,
		    SLICE("[[tenant]]\nname = 'a'\n[[tenant]]\nname = 'b'\n"));
		option_store(r.config.options, &r.config);
		config_verify(r.config.options, &r.config);
		assert_int_equal(option_mistakes(r.config.options), 0);
		assert_int_equal(tenant_of_key(&r.config, "k"), 1);
		assert_int_equal(tenant_of_key(&r.config, "l"), 2);
		assert_string_equal(getenv(name), left);
		release(&r);
	}
	unsetenv(name);
}

static void who_is_valid_elsewhere_is_a_tenant(void **state) {
	struct reading r = read_config("--api-key-validation-urls http://x --auth-validation-tenant b",
	    "[[tenant]]\nname = 'a'\n[[tenant]]\nname = 'b'\n"); /* none needs a key of ours then */

	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_int_equal(r.config.validation.tenant, 2);
	assert_int_equal(r.config.validation.times.good_ms, 300000);
	assert_int_equal(r.config.validation.times.bad_ms, 30000);
	assert_int_equal(r.config.validation.times.grace_ms, 300000);
	assert_int_equal(r.config.validation.timeout_ms, 3000);
	release(&r);
	r = read_config("--api-key-validation-urls http://x --auth-validation-invalid-ttl 0", NULL);
	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_int_equal(r.config.validation.tenant, TENANT_ANONYMOUS);
	assert_int_equal(r.config.validation.times.bad_ms, 0);
	release(&r);
}

/* Whatever is wrong, no key is told. */
static void bad_keys_are_refused(void **state) {
	static const struct {
		const char *lines, *mistake;
	} cases[] = {
		{ "a canary\nb canary\n", "line 2: this key is tenant a's already" },
		{ "a\n", "line 1: there is no key behind the tenant's name" },
		{ "canary\n", "line 1: there is no key behind the tenant's name" },
		{ "c canary\n", "line 1: there is no such tenant" },
		{ "anonymous canary\n", "line 1: there is no such tenant" },
		{ "\na canary canary\n", "line 2: a key is printable ASCII without blanks" },
		{ "a canary\xc3\xa9\n", "line 1: a key is printable ASCII without blanks" },
		{ "a sha256:canary\n", "line 1: expected 64 hexadecimal digits behind sha256:" },
		{ "a " L "\n", "line 1: this key is tenant b's already" },
	};
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_keys("", cases[i].lines);
		if (!strstr(r.mistakes, cases[i].mistake) || strstr(r.mistakes, "canary"))
			fail_msg("%s -> %s", cases[i].lines, r.mistakes);
		assert_int_equal(option_mistakes(r.config.options), 1);
		release(&r);
	}
}

static void a_key_is_bounded(void **state) {
	char line[2048] = "a ";

	for (unsigned n = TENANT_KEY_MAX; n <= 1600; n += n == TENANT_KEY_MAX ? 1 : 1087) {
		memset(line + 2, 'c', n);
		line[2 + n] = '\0';
		struct reading r = read_keys("", line);
		const char *mistake = n == TENANT_KEY_MAX ? ""
		    : n < 1000                            ? "longer than 512"
							  : "line is too long";
		assert_non_null(strstr(r.mistakes, mistake));
		assert_int_equal(option_mistakes(r.config.options), n != TENANT_KEY_MAX);
		assert_null(strstr(r.mistakes, "ccc"));
		release(&r);
	}
}

static void bad_tenants_are_refused(void **state) {
	static const struct {
		const char *flags, *toml, *mistake;
	} cases[] = {
		{ "", "[[tenant]]\nname = 'a'\n", "no tenant has a key" },
		{ "", TENANTS "[[tenant]]\nname = 'a'\n", "\"a\" is there twice" },
		{ "", TENANTS "[[tenant]]\nname = 'c'\nkeys = ['" L "']\n",
		    "tenant[2].keys: this key is tenant b's already" },
		{ "", TENANTS "[[tenant]]\nname = 'anonymous'\n", "expected another name" },
		{ "", TENANTS "[[tenant]]\nname = ''\n", "expected 1 to 64" },
		{ "", TENANTS "[[tenant]]\nname = 'a=b'\n", "expected 1 to 64" },
		{ "", TENANTS "[[tenant]]\nkeys = []\n", "name is missing" },
		{ "", "[[tenant]]\nname = 'a'\nkeys = ['plain']\n", "expected sha256: and 64" },
		{ "", TENANTS "[[tenant]]\nname = 'c'\nmodels = ['a*b']\n", "expected a model id" },
		{ "", TENANTS "[[tenant]]\nname = 'c'\npriority = 8\n", "0 to 7" },
		{ "", TENANTS "[[tenant]]\nname = 'c'\nweight = 0\n", "1 to 1000000" },
		{ "--auth-keys a=canary", NULL, "--auth-keys: there is no [[tenant]]" },
		{ "--auth-keys-file /nowhere/keys", TENANTS, "/nowhere/keys: No such file" },
		{ "--api-key-validation-urls ftp://x", NULL, "expected http://HOST" },
		{ "--api-key-validation-urls https://u:p@x/", NULL, "expected http://HOST" },
		{ "--api-key-validation-urls a:b", NULL, "expected http://HOST" },
		{ "--api-key-validation-urls http://a,http://b,http://c,http://d,http://e,http://f,http://g,"
		  "http://h,http://i",
		    NULL, "more than 8" },
		{ "--auth-validation-tenant nobody", TENANTS,
		    "auth-validation-tenant: there is no such tenant" },
		{ "--auth-validation-timeout 0s", NULL, "validation-timeout" },
		{ "--api-key k --api-key-file /nowhere/key", NULL, "there is an api_key, too" },
		{ "--api-key-file /nowhere/key", NULL, "/nowhere/key: No such file" },
		{ "--cors-allowed-origins http://a/b", NULL, "expected * or SCHEME" },
	};
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, cases[i].toml);
		if (!strstr(r.mistakes, cases[i].mistake) || strstr(r.mistakes, "canary") ||
		    strstr(r.mistakes, "plain"))
			fail_msg("%zu: %s", i, r.mistakes);
		assert_true(option_mistakes(r.config.options) > 0);
		release(&r);
	}
}

static void engines_have_keys(void **state) {
	char name[] = "/tmp/headrace-key-XXXXXX", toml[256];
	int fd = mkstemp(name);

	assert_int_equal(write(fd, "filed\nrest", 10), 10);
	close(fd);
	snprintf(toml, sizeof(toml),
	    "[[worker]]\nurl = 'http://a'\napi_key = 'own'\n[[worker]]\nurl = 'http://b'\napi_key_file = "
	    "'%s'\n",
	    name);
	struct reading r = read_config("--worker-urls http://c --api-key all", toml);
	unlink(name);
	assert_int_equal(option_mistakes(r.config.options), 0);
	assert_string_equal(r.config.workers.items[0].api_key, "own");
	assert_string_equal(r.config.workers.items[1].api_key, "filed");
	assert_string_equal(r.config.workers.items[2].api_key, "");
	assert_string_equal(r.config.upstream_key, "all");
	assert_string_equal(r.config.engine_key, "all");
	release(&r);
	r = read_config("--api-key all --engine-key asking", NULL);
	assert_string_equal(r.config.engine_key, "asking");
	release(&r);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(default_timeouts),
		cmocka_unit_test(tenants_are_read),
		cmocka_unit_test(keys_come_from_a_file_and_a_list),
		cmocka_unit_test(the_environment_keeps_digests),
		cmocka_unit_test(who_is_valid_elsewhere_is_a_tenant),
		cmocka_unit_test(bad_keys_are_refused),
		cmocka_unit_test(a_key_is_bounded),
		cmocka_unit_test(bad_tenants_are_refused),
		cmocka_unit_test(engines_have_keys),
		cmocka_unit_test(its_flags_are_in_seconds),
		cmocka_unit_test(flags_of_vllms_router_for_health),
		cmocka_unit_test(large_values_of_vllms_router),
		cmocka_unit_test(flags_name_policies_of_models),
		cmocka_unit_test(certificates_are_listed),
		cmocka_unit_test(mistakes),
		cmocka_unit_test(values_at_their_limits),
		cmocka_unit_test(retries_are_read),
		cmocka_unit_test(breakers_are_read),
		cmocka_unit_test(admission_is_read),
		cmocka_unit_test(the_dump_reads_back),
		cmocka_unit_test(every_flag_leads_to_its_row),
		cmocka_unit_test(the_flags_of_the_contract),
		cmocka_unit_test(every_table_is_introduced),
		cmocka_unit_test(what_picks_go_by),
		cmocka_unit_test(the_policies_exist),
		cmocka_unit_test(the_policies_defaults_are_one),
		cmocka_unit_test(the_flags_of_vllms_router),
		cmocka_unit_test(one_threshold_brings_the_other),
		cmocka_unit_test(the_help_fits),
		cmocka_unit_test(loading),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
