#include "unit/unit.h"

#include "unit/router/config_reading.h"

static const char *label(const struct router_worker *worker, const char *name) {
	for (size_t i = 0; i < worker->labels.n; i++)
		if (!strcmp(worker->labels.items[i].name, name))
			return worker->labels.items[i].value;
	return NULL;
}

struct expected {
	const char *url, *role, *port;
};

static void assert_workers(const char *flags, const char *toml, const struct expected *expected, size_t n) {
	struct reading r = read_config(flags, toml);

	assert_string_equal(r.mistakes, "");
	assert_int_equal(r.config.workers.n, n);
	for (size_t i = 0; i < n; i++) {
		const struct router_worker *w = &r.config.workers.items[i];
		assert_string_equal(w->url, expected[i].url);
		assert_string_equal(w->name, expected[i].url);
		assert_int_equal(w->weight, 1);
		for (unsigned k = 0; k < 2; k++) {
			const char *value = k ? expected[i].port : expected[i].role;
			const char *found = label(w, k ? "bootstrap_port" : "role");
			assert_int_equal(value != NULL, found != NULL);
			if (value)
				assert_string_equal(found, value);
		}
	}
	release(&r);
}

static void engines_of_both_kinds(void **state) {
	static const struct expected expected[] = {
		{ "http://u:80", NULL, NULL },
		{ "http://a:80", "prefill", NULL },
		{ "http://b:80", "prefill", "8998" },
		{ "http://c:80", "prefill", NULL },
		{ "https://d:443", "prefill", "65535" },
		{ "http://e:80", "decode", NULL },
		{ "http://f:80", "decode", NULL },
	};

	assert_workers(
	    "--decode http://e --prefill http://a none --prefill http://b 8998 --worker-urls http://u "
	    "--prefill http://c --prefill=https://d,65535 --decode=http://f",
	    NULL, expected, n_elems(expected));
	assert_workers("--prefill http://a None http://b 8998 http://c https://d 65535 --pd-disaggregation",
	    "[router]\nworker_urls = ['http://u']\n[pd]\nprefill = ['http://x']\ndecode = ['http://e', "
	    "'http://f']\n",
	    expected, n_elems(expected));
}

static void roles_may_stand_in_the_file(void **state) {
	struct reading r = read_config("--vllm-pd-disaggregation --kv-connector moriio",
	    "[[worker]]\nurl = 'http://a'\nlabels = { role = 'prefill', zmq_address = 'a:1' }\n"
	    "[[worker]]\nurl = 'http://b'\nlabels = { role = 'decode' }\n");

	assert_string_equal(r.mistakes, "");
	assert_true(r.config.pd.is_enabled);
	assert_string_equal(r.config.pd.connector, "moriio");
	release(&r);
}

static void what_is_said_otherwise(void **state) {
	struct reading r = read_config("--worker-urls http://a", NULL);

	assert_false(r.config.pd.is_enabled);
	assert_string_equal(r.config.pd.connector, "nixl");
	assert_int_equal(r.config.pd.min_uncached_tokens, 256);
	assert_string_equal(r.config.pd.discovery_address, "");
	assert_string_equal(r.config.prefill_policy, "");
	assert_string_equal(r.config.decode_policy, "");
	assert_int_equal(r.config.ranks.unified, 1);
	assert_int_equal(r.config.ranks.prefill, 1);
	assert_int_equal(r.config.ranks.decode, 1);
	release(&r);
	r = read_config("--vllm-discovery-address 0.0.0.0:30001 --pd-disaggregation --kv-connector moriio "
			"--prefill-policy session --decode-policy random --pd-min-uncached-tokens 0 "
			"--intra-node-data-parallel-size 8 --prefill-data-parallel-size 4 "
			"--decode-data-parallel-size 256",
	    NULL);
	assert_string_equal(r.mistakes, ""); /* they will come */
	assert_string_equal(r.config.pd.discovery_address, "0.0.0.0:30001");
	assert_int_equal(r.config.pd.min_uncached_tokens, 0);
	assert_string_equal(r.config.prefill_policy, "session");
	assert_string_equal(r.config.decode_policy, "random");
	assert_int_equal(r.config.ranks.unified, 8);
	assert_int_equal(r.config.ranks.prefill, 4);
	assert_int_equal(r.config.ranks.decode, 256);
	release(&r);
}

static void mistakes(void **state) {
	static const char port[] =
	    "--prefill: expected http://HOST[:PORT], or behind one its bootstrap port, 1 to 65535 or none\n";
	static const struct {
		const char *flags, *line;
	} cases[] = {
		{ "--prefill 8998", "--prefill: \"8998\" stands behind no url\n" },
		{ "--prefill http://a 1 2", "--prefill: \"2\" stands behind no url\n" },
		{ "--prefill http://a 0", port },
		{ "--prefill http://a 65536", port },
		{ "--prefill http://a:1 x", port },
		{ "--prefill a:1", port },
		{ "--prefill grpc://a",
		    "--prefill: engines are not asked by gRPC: expected http://HOST[:PORT] or "
		    "https://HOST[:PORT]\n" },
		{ "--decode http://a none",
		    "--decode: expected http://HOST[:PORT] or https://HOST[:PORT]\n" },
		{ "--prefill http://a --decode http://a", "--decode: http://a:80 is there twice\n" },
		{ "--prefill http://a 1 http://A:80", "--prefill: http://a:80 is there twice\n" },
		{ "--vllm-discovery-address 30001", "--vllm-discovery-address: expected HOST:PORT\n" },
		{ "--vllm-discovery-address a", "--vllm-discovery-address: expected HOST:PORT\n" },
		{ "--pd-disaggregation --worker-urls http://a",
		    "--pd-disaggregation: there is nobody to prefill: give --prefill, "
		    "--vllm-discovery-address or "
		    "--registry-url\n" },
		{ "--pd-disaggregation --prefill http://a --worker-urls http://b",
		    "--pd-disaggregation: there is nobody to decode: give --decode, --vllm-discovery-address "
		    "or "
		    "--registry-url\n" },
		{ "--kv-connector moriio --prefill http://a --decode http://b",
		    "--kv-connector: moriio needs --vllm-discovery-address, or engines with the label "
		    "zmq_address\n" },
		{ "--data-parallel-size 1025 --worker-urls http://a",
		    "--data-parallel-size: 1025 is out of range: 0 to 1024, or auto\n" },
		{ "--prefill-policy lucky --worker-urls http://a",
		    "--prefill-policy: expected the name of a policy\n" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct reading r = read_config(cases[i].flags, NULL);

		assert_string_equal(r.mistakes, cases[i].line);
		assert_int_equal(option_mistakes(r.config.options), 1);
		release(&r);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(engines_of_both_kinds),
		cmocka_unit_test(roles_may_stand_in_the_file),
		cmocka_unit_test(what_is_said_otherwise),
		cmocka_unit_test(mistakes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
