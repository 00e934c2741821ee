/*
 * babysitter_config: the options of the babysitter, read once at the start, then
 * immutable.
 *
 * The file has the form that InfiniLM-SVC's babysitter reads: name, host, port and the
 * registry at its top, [babysitter], [backend], and a free [metadata]; the flags have
 * its names too. Keys that nobody knows are ignored with a warning, since they are
 * there. Times without a unit are seconds.
 */
#pragma once

#include "base/log.h"
#include "base/option.h"
#include "base/spawn.h"
#include "net/tls_options.h"

enum backend_type {
	BACKEND_COMMAND,
	BACKEND_VLLM,
	BACKEND_MOCK,
	BACKEND_INFINILM,
	BACKEND_INFINILM_RUST,
	BACKEND_SGLANG,
	BACKEND_LLAMA_CPP,
	BACKEND_N_TYPES,
};

struct babysitter_backend {
	enum backend_type type;
	const char *type_text;                 /* as configured */
	const char *command;                   /* command */
	const char *model;                     /* vllm, sglang, llama.cpp */
	const char *model_path;                /* infinilm */
	const char *config_file;               /* infinilm-rust */
	const char *path;                      /* what type needs most, whatever that is; "" */
	const char *launch_script;             /* infinilm */
	const char *served_model;              /* vllm; "": the model's last part, "-": not said */
	struct option_list models;             /* mock */
	struct option_list args;               /* one by one, spaces and all */
	const char *work_dir;                  /* "": ours */
	struct option_map env;                 /* beside our own */
	struct option_list cpus;               /* as configured: "0-3", "7" */
	const cpu_set_t *cpu_set;              /* the set's; NULL: ours */
	struct option_map limits;              /* as configured: nofile = "65536" */
	const struct spawn_limit *limit_items; /* the set's */
	size_t n_limits;
	const char *dev; /* infinilm: accelerator; "" */
	unsigned n_dev, n_batch_max, n_tokens_max;
	bool awq;
};

struct babysitter_config {
	struct option_set *options; /* owns the texts */
	const char *name;           /* never "" after loading */
	const char *host;           /* the engine's */
	uint16_t port;              /* the engine's; ours is the next */
	const char *listen;
	const char *advertise; /* "": found out when the registry's address is known */
	const char *registry_url, *router_url;
	struct tls_server_options tls; /* with any, the engine speaks TLS too, as who is advertised */
	struct tls_client_files peer;  /* for the engine then, and an https registry */
	const char *token;
	const char *state_dir;
	uint32_t n_restarts_max;
	uint64_t restart_delay_ms; /* 0: exponential */
	uint64_t healthy_ms;
	uint64_t heartbeat_ms;
	uint64_t start_timeout_ms; /* never 0 after loading */
	uint64_t stop_timeout_ms, drain_timeout_ms;
	bool exit_on_failed, use_cgroup;
	struct babysitter_backend backend;
	struct {
		uint64_t interval_ms, timeout_ms;
		uint32_t n_failures;
		const char *api_key;
		bool completion;
	} probe;
	struct {
		const char *file; /* "-": standard output */
		uint64_t bytes_max;
		unsigned n_files;
		uint32_t n_lines_per_s;
		enum log_level level;
	} log;
	const json_t *metadata; /* an object; the set's */
};

extern const struct option_schema babysitter_config_schema;

/* The name that a type is registered under: "vLLM", "InfiniLM-Rust", "command". */
const char *babysitter_config_type_name(enum backend_type type);

/* Returns -1 when the babysitter is to run, otherwise the exit code. To be deinitialised either way. */
must_use int babysitter_config_load(struct babysitter_config *config, int argc, char *const *argv);
void babysitter_config_deinit(struct babysitter_config *config);
