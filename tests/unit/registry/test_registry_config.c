#include "unit/unit.h"

#include "registry/registry_config.h"

#define LOAD(config, ...) load(config, (char *[]){ __VA_ARGS__, NULL })

static int load(struct registry_config *config, char **argv) {
	int argc = 0;

	while (argv[argc])
		argc++;
	return registry_config_load(config, argc, argv);
}

static int setup(void **state) {
	setenv("HOME", "/home/somebody", 1);
	unsetenv("XDG_STATE_HOME");
	return 0;
}

static void the_defaults(void **state) {
	struct registry_config c;

	assert_int_equal(LOAD(&c, "registry"), -1);
	assert_string_equal(c.host, "127.0.0.1");
	assert_int_equal(c.port, 8081);
	assert_int_equal(c.store, REGISTRY_SQLITE);
	assert_string_equal(c.state_dir, "/home/somebody/.local/state/headrace");
	assert_string_equal(c.token, "");
	assert_int_equal(c.ttl_ms, 120000);
	assert_int_equal(c.health_interval_ms, 30000);
	assert_int_equal(c.health_timeout_ms, 5000);
	assert_int_equal(c.cleanup_interval_ms, 60000);
	assert_int_equal(c.body_limit_bytes, 1 << 20);
	registry_config_deinit(&c);
}

static void the_state_is_where_the_user_keeps_it(void **state) {
	struct registry_config c;

	setenv("XDG_STATE_HOME", "/var/state", 1);
	assert_int_equal(LOAD(&c, "registry"), -1);
	assert_string_equal(c.state_dir, "/var/state/headrace");
	registry_config_deinit(&c);
	assert_int_equal(LOAD(&c, "registry", "--state-dir", "/elsewhere"), -1);
	assert_string_equal(c.state_dir, "/elsewhere");
	registry_config_deinit(&c);

	unsetenv("XDG_STATE_HOME");
	unsetenv("HOME");
	assert_int_equal(LOAD(&c, "registry"), 2);
	registry_config_deinit(&c);
	assert_int_equal(LOAD(&c, "registry", "--store", "memory"), -1);
	registry_config_deinit(&c);
	setup(state);
}

static void by_the_other_name_all_addresses(void **state) {
	struct registry_config c;

	assert_int_equal(LOAD(&c, "/opt/bin/infini-registry", "--health-interval", "7", "--health-timeout=2",
			     "--cleanup-interval", "1m", "--port", "18000"),
	    -1);
	assert_string_equal(c.host, "0.0.0.0");
	assert_int_equal(c.port, 18000);
	assert_int_equal(c.health_interval_ms, 7000);
	assert_int_equal(c.health_timeout_ms, 2000);
	assert_int_equal(c.cleanup_interval_ms, 60000);
	registry_config_deinit(&c);
	assert_int_equal(LOAD(&c, "infini-registry", "--host", "127.0.0.1"), -1);
	assert_string_equal(c.host, "127.0.0.1");
	registry_config_deinit(&c);
	assert_int_equal(LOAD(&c, "registry", "--health-interval", "7"), -1);
	assert_int_equal(c.health_interval_ms, 7000);
	assert_string_equal(c.host, "127.0.0.1");
	registry_config_deinit(&c);
}

static void mistakes(void **state) {
	static char *const flags[][2] = { { "--allow", "10.0.0.1/8" }, { "--allow", "name" },
		{ "--ttl", "1500ms" }, { "--ttl", "0" }, { "--store", "etcd" }, { "--token", "two words" },
		{ "--port", "65536" }, { "--max-records", "0" }, { "--host", "" } };
	struct registry_config c;

	for (size_t i = 0; i < n_elems(flags); i++) {
		if (LOAD(&c, "registry", flags[i][0], flags[i][1]) != 2)
			fail_msg("%s %s was taken", flags[i][0], flags[i][1]);
		registry_config_deinit(&c);
	}
}

static void urls_are_judged_however_they_are_written(void **state) {
	static const char *const refused[] = { "http://169.254.169.254", "http://169.254.169.254:80/x",
		"http://2852039166/", "http://user:pw@169.254.169.254/", "http://ok@169.254.169.254",
		"https://[fe80::1]:443", "//169.254.169.254", "169.254.169.254:80",
		"http://[::ffff:169.254.169.254]", "http://169.254.169.254?x", "http://169.254.169.254#x",
		"169.254.169.254:80//x", "169.254.169.254/x://ok" };
	static const char *const taken[] = { "http://10.0.0.1:8000", "http://engine/169.254.169.254", "",
		"nonsense", "http://engine?u=http://169.254.169.254" };
	struct registry_config c;

	assert_int_equal(LOAD(&c, "registry"), -1);
	for (size_t i = 0; i < n_elems(refused); i++)
		if (registry_config_allows(&c, SLICE("engine"), slice_of(refused[i])))
			fail_msg("%s was taken", refused[i]);
	for (size_t i = 0; i < n_elems(taken); i++)
		if (!registry_config_allows(&c, SLICE("engine"), slice_of(taken[i])))
			fail_msg("%s was refused", taken[i]);
	assert_false(registry_config_allows(&c, SLICE("[fe80::1]"), SLICE("http://engine")));
	registry_config_deinit(&c);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_defaults, setup),
		cmocka_unit_test_setup(the_state_is_where_the_user_keeps_it, setup),
		cmocka_unit_test_setup(by_the_other_name_all_addresses, setup),
		cmocka_unit_test_setup(mistakes, setup),
		cmocka_unit_test_setup(urls_are_judged_however_they_are_written, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
