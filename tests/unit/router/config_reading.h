/*
 * A configuration as a test gives it: flags and a file's text, read, stored and verified.
 */
#pragma once

#include "router/config_verify.h"

/* As long as the name of a model can be. */
#define NAME_64  "m123456789abcdefm123456789abcdefm123456789abcdefm123456789abcdef"
#define NAME_256 NAME_64 NAME_64 NAME_64 NAME_64

struct reading {
	struct router_config config;
	char *mistakes;
};

/* The program, by the name that it goes by. */
static char *called = "router";

static inline struct reading read_config(const char *flags, const char *toml) {
	struct reading r = { .config.options = option_set_new(&router_config_schema) };
	struct option_set *set = r.config.options;
	char words[512], *argv[32] = { called }, *save = NULL;
	int argc = 1;
	size_t n;

	snprintf(words, sizeof(words), "%s", flags);
	for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	option_read_flags(set, argc, argv);
	if (toml)
		option_read_text(set, "FILE", OPTION_TOML, slice_of(toml));
	option_store(set, &r.config);
	config_verify(set, &r.config);
	FILE *out = open_memstream(&r.mistakes, &n);
	option_print_mistakes(set, out);
	fclose(out);
	return r;
}

static inline void release(struct reading *r) {
	static_file_deinit(&r->config.static_services);
	tenant_table_free(&r->config.tenants);
	option_set_free(&r->config.options);
	free(r->mistakes);
}
