/*
 * A configuration file of the router, TOML, or JSON behind a first byte of '{'. Whatever
 * it holds: no crash; and if it is good, its dump is a file that says the same.
 */
#include "router/config_verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static json_t *dump_of(struct slice text, enum option_format format, size_t *n_mistakes_out) {
	struct router_config config = { .options = option_set_new(&router_config_schema) };
	struct option_set *set = config.options;

	option_read_text(set, "FILE", format, text);
	option_store(set, &config);
	config_verify(set, &config);
	*n_mistakes_out = option_mistakes(set);
	json_t *dump = option_dump(set);
	static_file_deinit(&config.static_services);
	tenant_table_free(&config.tenants);
	option_set_free(&set);
	return dump;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	struct slice text = { (const char *)data, n };
	size_t n_mistakes;

	json_t *dump = dump_of(text, n && data[0] == '{' ? OPTION_JSON : OPTION_TOML, &n_mistakes);
	if (n_mistakes == 0) {
		char *dumped = json_dumps(dump, JSON_COMPACT);
		json_t *again = dump_of(slice_of(dumped), OPTION_JSON, &n_mistakes);
		assert(n_mistakes == 0 && json_equal(dump, again));
		json_decref(again);
		free(dumped);
	}
	json_decref(dump);
	return 0;
}
