/* The programs in this binary, by the name that is their first argument. */
#include <stdio.h>
#include <string.h>

#include "babysitter/babysitter.h"
#include "base/heap.h"
#include "base/version.h"
#include "ctl/ctl.h"
#include "engine/engine.h"
#include "registry/registry.h"
#include "router/router.h"
#include "sim/sim.h"

struct command {
	const char *name;
	const char *dialects[2]; /* names of other systems' programs whose flags are then taken; NULL: none */
	const char *help;
	int (*run)(int argc, char **argv); /* argv[0] is the name; returns the exit code */
};

static const struct command commands[] = {
	{ "router", { "infini-router", "vllm-router" },
	    "take requests and stream them to the engines that serve them", router_main },
	{ "registry", { "infini-registry" }, "who is in the fleet: records, leases, health, watch",
	    registry_main },
	{ "babysitter", { "infini-babysitter" }, "start one engine, watch it, and keep it registered",
	    babysitter_main },
	{ "mock-engine", { NULL }, "an engine without a GPU, for demos, tests and benches", engine_main },
	{ "ctl", { NULL }, "ask a running router why requests went where they went", ctl_main },
	{ "sim", { NULL }, "policies compared on recorded traffic, in virtual time", sim_main },
};

static bool is_name_of(const struct command *command, const char *called) {
	for (size_t i = 0; i < n_elems(command->dialects) && command->dialects[i]; i++)
		if (!strcmp(called, command->dialects[i]))
			return true;
	return false;
}

static int print_help(FILE *out) {
	fputs("Usage: headrace COMMAND [OPTION]...\n\n", out);
	for (size_t i = 0; i < n_elems(commands); i++)
		fprintf(out, "  %-12s  %s\n", commands[i].name, commands[i].help);
	fputs("\nheadrace COMMAND --help lists the options of one; headrace --version says which this is.\n",
	    out);
	return out == stdout ? 0 : 2;
}

int main(int argc, char **argv) {
	const char *name = argc > 1 ? argv[1] : NULL;
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *called = slash ? slash + 1 : argc > 0 ? argv[0] : "";

	heap_init();
	for (size_t i = 0; i < n_elems(commands); i++)
		if (is_name_of(&commands[i], called))
			return commands[i].run(argc, argv);
	if (!name)
		return print_help(stderr);
	for (size_t i = 0; i < n_elems(commands); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	if (!strcmp(name, "--version")) {
		puts("headrace " HEADRACE_VERSION);
		return 0;
	}
	if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
		return print_help(stdout);
	fprintf(stderr, "headrace: unknown command \"%s\"\n", name);
	return print_help(stderr);
}
