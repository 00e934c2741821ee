/*
 * ctl_config: the options of ctl, and the words among its arguments that are none.
 */
#pragma once

#include "base/option.h"

struct ctl_config {
	struct option_set *options; /* owns the texts */
	const char *admin;          /* url */
	const char *file;           /* of explain: "-" is standard input */
	const char *path;           /* of explain; "": it is guessed */
	struct option_list headers; /* of explain: "name: value" */
	const char *model, *instance, *reason;
	unsigned limit;
	uint64_t timeout_ms;
	bool is_json;
};

#define CTL_WORDS_MAX 3

/* What stands between the flags: the verb and what it is about. NULL: not given. */
struct ctl_words {
	const char *items[CTL_WORDS_MAX];
	unsigned n; /* more than CTL_WORDS_MAX: too many */
};

/* As option_start(): -1 and a configuration, or the exit code. */
int ctl_config_load(int argc, char **argv, struct ctl_words *words_out, struct ctl_config **config_out);
void ctl_config_free(struct ctl_config **config);
