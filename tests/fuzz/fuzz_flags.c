/*
 * A command line and an environment of the router: one word a line, those with the
 * prefix of our variables are the environment. No crash; and if all is good, the dump
 * is a file that says the same.
 */
#include "router/config_verify.h"

enum { WORDS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct words {
	char *argv[WORDS_MAX + 2], *environment[WORDS_MAX + 1];
	int argc, n_environment;
};

/* Cuts `text` into words; a NUL in it ends one, too. */
static void cut(char *text, struct words *words) {
	char *save = NULL;

	words->argv[words->argc++] = text;
	for (char *word = strtok_r(text, "\n", &save); word; word = strtok_r(NULL, "\n", &save)) {
		if (words->argc + words->n_environment > WORDS_MAX)
			break;
		if (strncmp(word, "HEADRACE_", 9))
			words->argv[words->argc++] = word;
		else
			words->environment[words->n_environment++] = word;
	}
}

static void check_dump(const struct option_set *set) {
	json_t *dump = option_dump(set);
	char *text = json_dumps(dump, JSON_COMPACT);
	struct option_set *again = option_set_new(&router_config_schema);
	struct router_config config;

	option_read_text(again, "DUMP", OPTION_JSON, slice_of(text));
	option_store(again, &config);
	json_t *second = option_dump(again);
	assert(option_mistakes(again) == 0 && json_equal(dump, second));
	json_decref(second);
	option_set_free(&again);
	free(text);
	json_decref(dump);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	struct option_set *set = option_set_new(&router_config_schema);
	struct router_config config = { .options = set };
	struct words words = { 0 };
	char *text = strndup((const char *)data, n);

	cut(text, &words);
	option_read_flags(set, words.argc, words.argv);
	option_read_environment(set, words.environment);
	option_store(set, &config);
	config_verify(set, &config);
	if (option_mistakes(set) == 0)
		check_dump(set);
	static_file_deinit(&config.static_services);
	tenant_table_free(&config.tenants);
	option_set_free(&set);
	free(text);
	return 0;
}
