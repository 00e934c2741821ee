#include "sim/sim_config.h"

#include "sim/generator.h"
#include "sim/virtual_router.h"

#define SPEED_MAX 1000000ULL

static const char *check_policy(const char *text) {
	static _Thread_local char message[512];
	size_t n;

	if (virtual_router_knows(slice_of(text)))
		return NULL;
	n = (size_t)snprintf(message, sizeof(message), "\"%.64s\" is none of ", text);
	for (const struct policy *const *p = policy_table; *p && n < sizeof(message); p++)
		n += (size_t)snprintf(message + n, sizeof(message) - n, "%s, ", policy_name(*p));
	if (n < sizeof(message))
		snprintf(message + n, sizeof(message) - n, "vllm");
	return message;
}

static const char *const models[] = { "mock", "simple", NULL };

#define AT(member)                                                                                           \
	.offset = offsetof(struct sim_config, member), .bytes = sizeof(((struct sim_config *)0)->member)

static const struct option rows[] = {
	{ "sim", "trace", .arg = "FILE", .help = "the requests: a recorded trace, or gen:KIND,KEY=VALUE,...",
	    .type = OPTION_STRING, AT(trace) },
	{ "sim", "policy", .arg = "NAME,...",
	    .help = "policies that are compared: those of the router, and vllm", .type = OPTION_LIST,
	    .def = "cache_aware,round_robin,least_load,vllm", .check = check_policy, AT(policies) },
	{ "sim", "engines", .help = "engines in the fleet", .type = OPTION_UINT, .def = "8", .min = 1,
	    .max = VIRTUAL_ENGINES_MAX, AT(n_engines) },
	{ "sim", "routers", .help = "routers; requests go to them in turn, and none knows what another does",
	    .type = OPTION_UINT, .def = "1", .min = 1, .max = 64, AT(n_routers) },
	{ "sim", "model", .help = "the model of an engine", .type = OPTION_ENUM, .choices = models,
	    .def = "mock", AT(model) },
	{ "sim", "prefill_rate", .arg = "TOKENS", .help = "uncached prompt tokens per second of an engine",
	    .type = OPTION_UINT, .def = "8000", .min = 1, .max = 1000000000, AT(prefill_tokens_per_s) },
	{ "sim", "cache_blocks", .help = "capacity of an engine's prefix cache, in blocks",
	    .type = OPTION_UINT, .def = "4000", .min = 1, .max = 100000000, AT(n_cache_blocks) },
	{ "sim", "block_tokens", .help = "tokens that a block id of the trace stands for",
	    .type = OPTION_UINT, .def = "512", .min = 1, .max = 65536, AT(n_block_tokens) },
	{ "sim", "itl_ms", .arg = "MS", .help = "milliseconds between two output tokens of a request",
	    .type = OPTION_UINT, .def = "20", .min = 0, .max = 3600000, AT(inter_token_ms) },
	{ "sim", "max_running", .help = "requests that run at once on an engine of the model mock",
	    .type = OPTION_UINT, .def = "256", .min = 1, .max = 1000000, AT(n_running_max) },
	{ "sim", "speed", .arg = "FACTOR", .help = "plays the trace so many times as fast, such as 0.5",
	    .type = OPTION_NUMBER, .def = "1", .min = 1, .max = SPEED_MAX * OPTION_ONE, AT(speed) },
	{ "sim", "prefix_index_mb",
	    .help = "memory of each router for what is known of the engines' prefix caches, MiB; 0 keeps no "
		    "index",
	    .type = OPTION_UINT, .def = "64", .max = 4096, AT(prefix_index_mib) },
	{ "sim", "seed", .help = "another seed is other random choices, and another generated trace",
	    .type = OPTION_UINT, .def = "0", AT(seed) },
	{ "sim", "json", .arg = "FILE",
	    .help = "the figures as JSON; - is standard output, which then has nothing else",
	    .type = OPTION_STRING, AT(json) },
	{ "sim", "svg", .arg = "FILE", .help = "curves: how many requests had their first token by when",
	    .type = OPTION_STRING, AT(svg) },
	{ "sim", "cpu", .help = "shows what a decision costs, which is never the same twice",
	    .type = OPTION_BOOL, AT(shows_cpu) },
};

#undef AT

static const struct option_table tables[] = {
	{ "sim", "the simulator" },
};

static const struct option_schema schema = {
	.program = "headrace sim",
	.summary = "the router's policies on recorded traffic, in virtual time",
	.main_table = "sim",
	.env_prefix = "HEADRACE",
	.tables = tables,
	.n_tables = n_elems(tables),
	.rows = rows,
	.n_rows = n_elems(rows),
	.page = {
		.description =
		    "Plays a trace against a fleet of modelled engines, once for each policy, and prints what came "
		    "of it. The decisions are made by the code of headrace router; vllm is the rule of vLLM's router "
		    "(cache_aware, thresholds 0.3, 64 and 1.5) over all prefixes seen. The same trace, options and "
		    "seed give the same bytes.\n"
		    "A trace is Mooncake's JSON lines, Azure's CSV (TIMESTAMP,ContextTokens,GeneratedTokens) or "
		    "headrace's decision log, known by its content. Requests of equal time are spread evenly to the "
		    "next time, the last ones over 3 s. Or it is made up:\n"
		    " gen:shared_prefix  one request each, with a prefix that its group shares\n"
		    " gen:multi_turn     chats that grow with every turn\n"
		    " gen:agents         many quick steps behind a long prefix\n"
		    "with any of\n"
		    " n=1000             requests\n"
		    " rate=4             requests per second\n"
		    " groups=16          prefixes that are shared\n"
		    " prefix_tokens=4096 tokens of such a prefix\n"
		    " turns=8            requests of one conversation\n"
		    " input_tokens=512   new tokens of a request, from half to half as much more\n"
		    " output_tokens=128  tokens of an answer, likewise\n"
		    " think=20s          mean time from an answer to the next turn\n"
		    "The model mock is headrace mock-engine: the cache is looked up when a prefill begins, a limited "
		    "number of requests runs. The model simple is for comparison with other simulators: at its arrival a "
		    "request's leading blocks in the engine's LRU are hits, all its blocks are then the latest; "
		    "max(1, input - hits x block) / rate seconds pass in one queue, the end of which is the first token; "
		    "output x inter-token time later it is done. There is no limit of what runs.\n"
		    "The columns: hit, blocks found cached of all blocks; time to first token, mean and percentiles "
		    "(the p x n-th of n in order); tok/s, output tokens from the first arrival to the last token; "
		    "imbalance, prompt tokens computed by the busiest engine over the mean.",
		.signals = "None is handled.",
		.examples =
		    " headrace sim --trace conversation.jsonl --policy round_robin,least_load,vllm --engines 8\n"
		    " headrace sim --trace gen:agents,n=5000,rate=20 --svg curves.svg --json -",
	},
};

static void verify_trace(struct option_set *set, struct slice trace) {
	char message[GENERATOR_MESSAGE_BYTES];
	struct generator generator;

	if (!trace.n)
		option_mistake(set, "sim.trace", "there is none");
	else if (generator_is_named(trace) && !generator_parse(&generator, trace, message))
		option_mistake(set, "sim.trace", "%s", message);
}

static void verify(struct option_set *set, void *arg) {
	struct sim_config *config = arg;

	verify_trace(set, slice_of(config->trace));
	if (config->policies.n == 0)
		option_mistake(set, "sim.policy", "there is none");
	if ((uint64_t)config->n_engines * config->n_routers > INSTANCE_SLOTS_MAX)
		option_mistake(set, "sim.routers", "engines times routers: at most %d", INSTANCE_SLOTS_MAX);
	if (!strcmp(config->json, "-") && !strcmp(config->svg, "-"))
		option_mistake(set, "sim.svg", "standard output is taken by --json");
}

int sim_config_load(struct sim_config *config, int argc, char *const *argv) {
	*config = (struct sim_config){ .options = option_set_new(&schema) };
	return option_start(config->options, argc, argv, config, verify);
}

void sim_config_deinit(struct sim_config *config) {
	option_set_free(&config->options);
}
