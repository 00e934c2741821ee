#include "sim/sim.h"

#include <errno.h>

#include "sim/curves.h"
#include "sim/generator.h"
#include "sim/sim_config.h"
#include "sim/summary.h"
#include "sim/trace_file.h"

#define NS_PER_MS 1000000ull

/* Where the figures go; NULL: nowhere. */
struct outputs {
	FILE *table, *json, *svg;
};

static bool open_output(const char *path, FILE **file_out) {
	if (!path[0])
		return true;
	*file_out = strcmp(path, "-") ? fopen(path, "we") : stdout;
	if (!*file_out)
		fprintf(stderr, "headrace sim: %s: %s\n", path, strerror(errno));
	return *file_out;
}

/* Before the work: what cannot be written is not worth it. */
static bool open_outputs(struct outputs *outputs, const struct sim_config *config) {
	if (!open_output(config->json, &outputs->json) || !open_output(config->svg, &outputs->svg))
		return false;
	if (outputs->json != stdout && outputs->svg != stdout)
		outputs->table = stdout;
	return true;
}

static bool close_output(FILE *file, const char *name) {
	if (!file)
		return true;
	bool is_good = !ferror(file);
	is_good &= (file == stdout ? fflush(file) : fclose(file)) == 0;
	if (!is_good)
		fprintf(stderr, "headrace sim: %s: %s\n", name, strerror(errno));
	return is_good;
}

static bool close_outputs(const struct outputs *outputs, const struct sim_config *config) {
	bool is_good = close_output(outputs->table, "standard output");

	is_good &= close_output(outputs->json, config->json);
	is_good &= close_output(outputs->svg, config->svg);
	return is_good;
}

static bool load_trace(struct trace *trace, const struct sim_config *config) {
	char message[TRACE_FILE_MESSAGE_BYTES];

	_Static_assert(sizeof(message) >= GENERATOR_MESSAGE_BYTES, "room for both");
	if (generator_is_named(slice_of(config->trace))) {
		struct generator generator;
		bool is_good = generator_parse(&generator, slice_of(config->trace), message);

		assert(is_good); /* it was looked at with the options */
		generator_run(&generator, config->seed, config->n_block_tokens, trace);
	} else if (!trace_file_read(trace, config->trace, message)) {
		fprintf(stderr, "headrace sim: %s\n", message);
		return false;
	}
	trace_finish(trace, config->speed);
	return true;
}

static bool play(
    struct score *score, const struct sim_config *config, const struct trace *trace, const char *policy) {
	struct run_options options = {
		.trace = trace,
		.policy = policy,
		.engine = {
			.kind = config->model,
			.n_engines = config->n_engines,
			.prefill_tokens_per_s = config->prefill_tokens_per_s,
			.inter_token_ns = config->inter_token_ms * NS_PER_MS,
			.n_cache_blocks = config->n_cache_blocks,
			.n_block_tokens = config->n_block_tokens,
			.n_running_max = config->n_running_max,
		},
		.n_routers = config->n_routers,
		.index_bytes = config->prefix_index_mib << 20,
		.seed = config->seed,
	};
	struct run run;
	bool is_good = run_init(&run, &options);

	if (is_good)
		score_init(score, policy, &run);
	else
		fputs("headrace sim: not enough memory for the prefix index\n", stderr);
	run_deinit(&run);
	return is_good;
}

/* A picture that is passed on tells nothing of the folders here. */
static const char *name_of(const char *path) {
	const char *slash = generator_is_named(slice_of(path)) ? NULL : strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void print(
    const struct outputs *outputs, const struct sim_config *config, const struct score *scores, size_t n) {
	char title[256];

	snprintf(title, sizeof(title), "%.120s: %zu requests, %u engines, speed %.12g",
	    name_of(config->trace), scores[0].n, config->n_engines, config->speed);
	if (outputs->table)
		summary_table(scores, n, config->shows_cpu, outputs->table);
	if (outputs->json)
		summary_json(scores, n, outputs->json);
	if (outputs->svg)
		curves_print(scores, n, title, outputs->svg);
}

static int compare_policies(const struct sim_config *config, const struct trace *trace) {
	struct outputs outputs = { .table = NULL };
	size_t n = config->policies.n;
	struct score *scores = calloc(n, sizeof(*scores));
	bool is_good = open_outputs(&outputs, config);

	for (size_t i = 0; i < n && is_good; i++)
		is_good = play(&scores[i], config, trace, config->policies.items[i]);
	if (is_good)
		print(&outputs, config, scores, n);
	for (size_t i = 0; i < n; i++)
		score_deinit(&scores[i]);
	free(scores);
	is_good &= close_outputs(&outputs, config);
	return is_good ? 0 : 1;
}

int sim_main(int argc, char **argv) {
	struct sim_config config;
	int code = sim_config_load(&config, argc, argv);

	if (code < 0) {
		struct trace trace;

		trace_init(&trace);
		code = load_trace(&trace, &config) ? compare_policies(&config, &trace) : 1;
		trace_deinit(&trace);
	}
	sim_config_deinit(&config);
	return code;
}
