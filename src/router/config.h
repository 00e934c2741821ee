/*
 * config: what the router was told, never changed once it is read.
 *
 * Made by router_config_load() on the main thread before any other exists, or by router_config_read() while
 * the router runs (router/reload.h), then shared read-only. The struct owns everything its members point to.
 * Times are milliseconds, sizes bytes.
 */
#pragma once

#include "base/log.h"
#include "base/option.h"
#include "discovery/static_file.h"
#include "fleet/breaker.h"
#include "http/reply.h"
#include "net/tls_options.h"
#include "policy/policy_options.h"
#include "router/alias.h"
#include "router/inspect.h"
#include "router/lateness.h"
#include "router/retry.h"
#include "router/tenant.h"
#include "router/verdict_table.h"

/* Who may use the worker API on the data port. */
enum router_worker_api {
	ROUTER_WORKER_API_OFF,
	ROUTER_WORKER_API_LOOPBACK,
	ROUTER_WORKER_API_KEY,
	ROUTER_WORKER_API_OPEN
};

/* Whose defaults and errors: ours, those of InfiniLM-SVC's router, or of vLLM's (router/vllm_config.h). */
enum router_dialect { ROUTER_HEADRACE, ROUTER_INFINILM, ROUTER_VLLM };

/* Whose names metrics have, besides our own. */
enum router_metrics { ROUTER_METRICS_NONE, ROUTER_METRICS_VLLM };

/* When a log of ours goes on in another file, and where events go. */
enum router_rotation { ROUTER_LOG_NEVER, ROUTER_LOG_DAILY };
enum router_events { ROUTER_EVENTS_STDERR, ROUTER_EVENTS_BOTH };

/* What the engines are, as vLLM's router asks it; the last two are taken as the first. */
enum router_backend {
	ROUTER_BACKEND_VLLM,
	ROUTER_BACKEND_SGLANG,
	ROUTER_BACKEND_OPENAI,
	ROUTER_BACKEND_TRTLLM,
	ROUTER_BACKEND_ANTHROPIC
};

enum router_unknown_models { ROUTER_UNKNOWN_REFUSE, ROUTER_UNKNOWN_RELAY };
enum router_half_close { ROUTER_HALF_CLOSE_ABORT, ROUTER_HALF_CLOSE_SERVE };

struct router_worker {
	const char *url;           /* "http://host:port", or https: lower case, the port always there; with
				    * "@K" behind it when there is a rank */
	const char *host;          /* lower case, without brackets */
	const char *base;          /* path of the url as given, without slashes at its end; "": none */
	const char *name;          /* the url when not given */
	struct option_list models; /* none: ask the engine */
	struct option_map labels;
	const char *api_key, *api_key_file; /* that it is shown; "": the default. The former has both */
	uint16_t port, rank;
	uint16_t n_ranks; /* 0: not said here */
	uint32_t weight;  /* 0 to 1,000,000 */
	bool has_rank, is_tls;
	const char *option; /* the list that names it, by its path; NULL: a [[worker]] */
};

/* Engines that prefill and engines that decode. */
struct router_pd {
	bool is_enabled;            /* there must be some of both */
	struct option_list prefill; /* as given: urls, and bootstrap ports behind them */
	struct option_list decode;  /* both lists are in workers, too */
	const char *connector;      /* of engines without the label kv_connector */
	uint32_t min_uncached_tokens;
	const char *discovery_address; /* "host:port" to bind; "": none */
};

struct router_tenants {
	const struct tenant *items;
	size_t n;
};

/* Of clients' keys that are none of ours. */
struct router_validation {
	struct option_list urls; /* that are asked about them; none: they are nobody's */
	struct verdict_times times;
	uint64_t timeout_ms;
	const char *tenant_name; /* whose they are; "": the anonymous one's */
	uint16_t tenant;         /* its number */
};

struct router_workers {
	const struct router_worker *items;
	size_t n;
};

/* Of times that may be as good as for ever, as other routers take them: a century. */
#define ROUTER_TIME_MAX_MS (100ULL * 365 * 24 * 3600 * 1000)

/* Those that can be off are 0 then. */
struct router_timeouts {
	uint64_t head_ms;        /* first byte of a request's head to its last */
	uint64_t body_idle_ms;   /* for 16 KiB more of a request's body, or its end; can be off */
	uint64_t write_idle_ms;  /* a client that does not read its answer; can be off */
	uint64_t keepalive_ms;   /* a client's connection without a request */
	uint64_t pool_idle_ms;   /* an engine's connection without a request; 0: none is kept */
	uint64_t connect_ms;     /* one attempt to connect to an engine */
	uint64_t first_byte_ms;  /* request sent to first byte of the answer; can be off */
	bool first_byte_all;     /* set by hand: holds for requests that are not streamed, too */
	uint64_t stream_idle_ms; /* between two reads of an answer; can be off */
	uint64_t total_ms;       /* whole request; can be off */
	uint64_t announce_ms;    /* after SIGTERM: not ready, but still accepting */
	uint64_t drain_ms;       /* after that: what streams get to finish */
	uint64_t upgrade_ms;     /* for a new binary to be ready; as long again to serve */
};

struct router_health {
	bool has_probes, is_passive, has_canary;
	uint64_t interval_ms, timeout_ms, slow_start_ms;
	unsigned n_good_min;
	const char *endpoint;
	uint64_t stall_timeout_ms; /* 0: silence is no evidence */
	unsigned errors_max;
};

/* What the files hold is the certificates' (net/certificates.h). */
struct router_tls {
	struct tls_server_options server;
	struct tls_client_files client; /* for engines and the registry */
};

struct router_admission {
	uint32_t max_requests;    /* in flight; 0: no cap, so below */
	uint32_t model_requests;  /* of each model */
	struct option_map models; /* of single ones */
	uint32_t queue_size;      /* that wait for a place; 0: none may */
	uint64_t queue_timeout_ms;
	bool is_vllm; /* refused with 429 and 408 */
};

/* Of streams that an engine cut. */
#define RESUME_ATTEMPTS_MAX 8u

struct router_resume {
	bool is_enabled;
	uint32_t attempts;  /* at the most, for one request */
	uint64_t max_bytes; /* of body and text, kept for it */
};

struct router_explain {
	bool has_headers;   /* answers say how their instance was chosen */
	uint32_t n_records; /* of choices, that each worker remembers */
	const char *log;    /* of requests, to be played again: as log_access */
};

struct router_breaker {
	bool is_enabled, is_disabled;
	struct breaker_limits limits; /* failures is 0 when there are to be none */
};

struct router_config {
	/* [router] */
	enum router_dialect dialect;
	enum reply_dialect errors; /* what follows from it */
	const char *host;
	uint16_t port;
	unsigned n_threads; /* 0: one per CPU */
	uint64_t body_limit_bytes, inspect_limit_bytes, hold_limit_bytes, hold_memory_bytes;
	struct option_list request_id_headers; /* lower case */
	struct option_list session_headers, session_members;
	struct inspect_rules inspect; /* made of these two */
	enum router_half_close half_close;
	enum router_backend backend;
	enum router_worker_api worker_api;
	uint64_t worker_startup_timeout_ms;
	struct option_list cors_origins;  /* none: origins are the engines' business */
	struct option_map alias_map;      /* [alias] */
	struct option_list given_aliases; /* "alias=model", they come first */
	struct alias_table aliases;       /* made of these two */
	enum router_unknown_models unknown_models;
	struct rank_defaults ranks; /* 1 or more, or RANKS_AUTO */
	bool trusts_rank;           /* a client may choose it */
	/* [admin], [metrics]: metrics default to the admin address, so both are always set here */
	const char *admin_host, *metrics_host;
	uint16_t admin_port, metrics_port;
	enum router_metrics metrics_compat;
	const char *admin_key; /* "": who is not on this machine changes nothing */
	/* [auth], [[tenant]] */
	bool passes_keys;             /* clients' keys go on to engines */
	struct option_list auth_keys; /* wiped once they are read */
	const char *auth_keys_file;   /* "": none */
	struct router_validation validation;
	struct router_tenants tenant_items;
	struct tenant_table *tenants; /* of them; NULL: everybody is welcome */
	/* [upstream] */
	const char *upstream_key, *upstream_key_file; /* as those of a worker, for all that have none */
	uint64_t requests_per_second;                 /* [rate]; 0: no limit */
	struct router_timeouts timeout;
	uint64_t heartbeat_ms; /* [sse]: off is 0 */
	/* [policy] */
	const char *policy;                         /* a name of policy_table */
	const char *prefill_policy, *decode_policy; /* likewise; "": as policy */
	struct option_map model_policies;           /* model -> name */
	struct option_list given_policies;          /* "model=name", they come first */
	uint64_t prefix_index_mib;
	struct policy_options policies; /* what follows, and the tables below */
	const char *zone, *region;      /* [locality]; "": not said */
	struct option_list residency;   /* [privacy] */
	const char *size_class_then;    /* a name of policy_table */
	/* [log] */
	const char *log_access; /* "-": stdout, "off", or a path (log_dir is in it) */
	const char *log_dir;    /* "": where we were started */
	enum log_level log_level;
	enum router_rotation log_rotation;
	enum router_events log_events;
	/* [discovery] */
	uint64_t models_interval_ms, models_timeout_ms, resolve_interval_ms;
	uint64_t scrape_interval_ms;          /* 0: off */
	struct option_list allowed_addresses; /* that a registry may name; none: the default ones */
	const char *engine_key;               /* "": none */
	const char *registry_url;             /* "": none */
	const char *registry_token;           /* "": none */
	uint64_t registry_sync_ms, registry_grace_ms;
	const char *static_services_file; /* "": none */
	struct static_file static_services;
	const char *state_dir;   /* [router]; as given */
	char table_file[4096];   /* where the table of the registry is kept; "": nowhere */
	char workers_file[4096]; /* the same of workers that were registered here */
	struct router_health health;
	struct router_admission admission;
	struct router_explain explain;
	struct router_resume resume;
	struct router_tls tls;
	struct retry_options retry;
	struct option_list retry_statuses; /* as given; retry has them */
	bool are_retries_disabled;
	struct hedge_options hedge;
	struct router_breaker breaker;
	struct option_list worker_urls; /* as written; they are in workers, too */
	struct router_pd pd;
	struct router_workers workers; /* [[worker]], worker_urls, prefill, decode; one per host and port */
	struct option_map dotenv;      /* the file .env, in the dialect that reads it */
	struct option_set *options;    /* owner of all of this; for option_dump() */
};

/*
 * Reads flags, environment and file, and answers --help, --man, --version and --check.
 * Returns -1 and a configuration to run with, otherwise the exit code of the process
 * (0 or 2) and NULL; what there is to say was then printed.
 */
must_use int router_config_load(int argc, char *const *argv, struct router_config **config_out);

/*
 * Reads the same again while the router runs: the control thread, which is the one that looks at the
 * environment. Returns a configuration to change to, or NULL. What there is to say, mistakes and warnings,
 * one a line, is in *mistakes_out, the caller's to free; what cannot change is not among it.
 */
must_use struct router_config *router_config_read(int argc, char *const *argv, char **mistakes_out);

/* Accepts NULL, clears. Any thread. */
void router_config_free(struct router_config **config);

extern const struct option_schema router_config_schema;
