/*
 * The router's table, and the reading by it. The rows stand in the order of the help, behind the checks of
 * single values; what only the values together can show is in config_verify.c.
 */
#include "router/config.h"

#include "base/option_check.h"
#include "base/text.h"
#include "fleet/rank.h"
#include "net/address_range.h"
#include "policy/policy.h"
#include "router/auth_config.h"
#include "router/config_verify.h"
#include "router/cors.h"
#include "router/pd_config.h"
#include "router/policy_config.h"
#include "router/rate.h"
#include "router/vllm_config.h"

#define KIB     (1ULL << 10)
#define GIB     (1ULL << 30)
#define HOUR_MS (3600 * 1000ULL)

#define VALIDATION_MAX_MS (24 * HOUR_MS)

#define NUMBER_MAX (1000000ULL * OPTION_ONE)

static const char *check_host_or_none(const char *text) {
	return text[0] ? option_check_host(text) : NULL;
}

static const char *check_prefill(const char *text) {
	return pd_config_is_url(text) ? rank_url_mistake(text) : pd_config_check_port(text);
}

static const char *check_policy_or_none(const char *text) {
	return !text[0] || policy_find(slice_of(text)) ? NULL : "expected the name of a policy";
}

static const char *check_registry(const char *text) {
	struct text_url url;

	if (!text[0])
		return NULL;
	if (!text_url(slice_of(text), &url) || strlen(text) > 512 ||
	    !(slice_is(url.scheme, SLICE("http")) || slice_is(url.scheme, SLICE("https"))))
		return "expected http://HOST[:PORT] or https://HOST[:PORT]";
	return NULL;
}

/* A token of RFC 9110 section 5.6.2. */
static const char *check_header(const char *text) {
	static const char letters[] = "!#$%&'*+-.^_`|~0123456789"
				      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

	return text[strspn(text, letters)] ? "expected the name of a header" : NULL;
}

static const char *check_session_header(const char *text) {
	return strlen(text) > INSPECT_HEADER_MAX ? "expected a name of at most 63 bytes" : check_header(text);
}

static const char *check_path(const char *text) {
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c > '~' || *c == '#')
			return "expected a path without blanks";
	return text[0] == '/' && strlen(text) <= 1024 ? NULL : "expected a path that begins with /";
}

/* It is one of a list in a label. */
static const char *check_tag(const char *text) {
	return !text[0] || strpbrk(text, ", ") ? "expected a tag without commas and blanks" : NULL;
}

static const char *check_requests(const char *text) {
	uint64_t n;

	return text_uint(slice_of(text), UINT32_MAX, &n) ? NULL
							 : "expected a number of requests; 0 is no cap";
}

static const char *check_status(const char *text) {
	return retry_status_read(slice_of(text)) == RETRY_STATUSES
	    ? "expected one of 408, 429, 500, 502, 503, 504"
	    : NULL;
}

static const char *const worker_apis[] = { "off", "loopback", "key", "open", NULL };
static const char *const dialects[] = { "headrace", "infinilm", "vllm", NULL };
static const char *const backends[] = { "vllm", "sglang", "openai", "trtllm", "anthropic", NULL };
static const char *const unknown_models[] = { "refuse", "relay", NULL };
static const char *const half_closes[] = { "abort", "serve", NULL };
static const char *const privacy_levels[] = { "public", "internal", "confidential", "restricted", NULL };
static const char *const log_formats[] = { "json", NULL };
static const char *const log_rotations[] = { "never", "daily", NULL };
static const char *const log_events[] = { "stderr", "both", NULL };
static const char *const metrics_names[] = { "none", "vllm", NULL };
static const char *const locality_modes[] = { "off", "prefer", "require", NULL };
/* The first as enum log_level has them; config_verify() makes the former of the others. */
static const char *const log_levels[] = { "debug", "info", "warn", "error", "warning", "critical", NULL };
static const char *const connectors[] = { "nixl", "mooncake", "moriio", "p2p_nccl", "sglang", NULL };
static const char *const histories[] = { "none", "memory", NULL };

#define AT(type, member) .offset = offsetof(type, member), .bytes = sizeof(((type *)0)->member)
#define WORKER(member)   AT(struct router_worker, member)
#define TENANT(member)   AT(struct tenant, member)
#define ROUTER(member)   AT(struct router_config, member)

static const struct option worker_fields[] = {
	{ "", "url", .arg = "URL",
	    .help =
		"where the engine listens: http://HOST[:PORT] or https://HOST[:PORT]; with @K behind it that "
		"is its data-parallel rank K alone; of a provider with the path that stands in place of /v1",
	    .type = OPTION_STRING, .check = rank_url_mistake, .required = true, WORKER(url) },
	{ "", "models", .help = "the model ids that it serves; without any it is asked, again and again",
	    .type = OPTION_LIST, WORKER(models) },
	{ "", "name", .help = "its name in logs and metrics; without one, the url", .type = OPTION_STRING,
	    WORKER(name) },
	{ "", "weight",
	    .help = "its share of the traffic; 0 is none while others of its models with a weight serve",
	    .type = OPTION_UINT, .def = "1", .max = FLEET_WEIGHT_MAX / INSTANCE_WEIGHT_ONE, WORKER(weight) },
	{ "", "ranks",
	    .help = "its data-parallel ranks, each an instance url@K with load, cache and breaker of its "
		    "own; auto "
		    "is as many as its /metrics say; 0 is as [router] data_parallel_size has it",
	    .type = OPTION_UINT, .max = RANKS_MAX, .can_be_auto = true, WORKER(n_ranks) },
	{ "", "labels", .arg = "{ KEY = TEXT }",
	    .help =
		"whatever you want to find it by; these say what it can do, for whom, where and at what "
		"price: "
		"capabilities, features, context, clearance, residency, zone, region, accelerator, price_in, "
		"price_cached, price_out, capacity, priority, cost, policy, provider, cache_type; "
		"NAME@MODEL is for that model alone, but for the last two",
	    .type = OPTION_MAP, WORKER(labels) },
	{ "", "api_key", .arg = "KEY", .help = "bearer token for it, in place of [upstream] api_key",
	    .type = OPTION_STRING, .check = option_check_token, .secret = true, WORKER(api_key) },
	{ "", "api_key_file", .arg = "FILE", .help = "a file whose first line is that token",
	    .type = OPTION_STRING, WORKER(api_key_file) },
};

static const struct option tenant_fields[] = {
	{ "", "name", .help = "its name in metrics and decisions", .type = OPTION_STRING,
	    .check = auth_config_check_tenant, .required = true, TENANT(name) },
	{ "", "keys", .arg = "sha256:HEX",
	    .help = "SHA-256 of each of its API keys; keys themselves stand in [auth] keys_file or in the "
		    "environment",
	    .type = OPTION_LIST, .check = auth_config_check_digest, TENANT(keys) },
	{ "", "models",
	    .help =
		"the models that it may ask for: ids, or their beginnings and a *; without any all of them",
	    .type = OPTION_LIST, .check = auth_config_check_pattern, TENANT(models) },
	{ "", "max_requests", .help = "how many of its requests may be in flight; 0 is no limit",
	    .type = OPTION_UINT, .max = UINT32_MAX, TENANT(max_requests) },
	{ "", "requests_per_minute", .help = "requests for each model; 0 is no limit", .type = OPTION_UINT,
	    .max = RATE_PER_MINUTE_MAX, TENANT(requests_per_minute) },
	{ "", "tokens_per_minute", .help = "tokens of prompts and answers for each model; 0 is no limit",
	    .type = OPTION_UINT, .max = RATE_PER_MINUTE_MAX, TENANT(tokens_per_minute) },
	{ "", "priority", .help = "the best class that its requests may ask for; 0 is the best of all",
	    .type = OPTION_UINT, .max = TENANT_PRIORITY_MAX, TENANT(priority) },
	{ "", "weight", .help = "its share among those that wait", .type = OPTION_UINT, .def = "1", .min = 1,
	    .max = 1000000, TENANT(weight) },
	{ "", "privacy_floor", .help = "the least that its requests are taken to need", .type = OPTION_ENUM,
	    .choices = privacy_levels, .def = "public", TENANT(privacy_floor) },
	{ "", "labels", .arg = "{ KEY = TEXT }", .help = "whatever you want to know of it in /config",
	    .type = OPTION_MAP, TENANT(labels) },
};

static const struct option rows[] = {
	{ "router", "dialect",
	    .help = "whose defaults and errors: our own, those of InfiniLM-SVC's router, or those of "
		    "vLLM's; their names, infini-router and vllm-router, choose them too",
	    .type = OPTION_ENUM, .choices = dialects, .def = "headrace", ROUTER(dialect) },
	{ "router", "host", .arg = "HOST", .help = "address to listen on", .type = OPTION_STRING,
	    .def = "127.0.0.1", .check = option_check_host, ROUTER(host), .fixed = true },
	{ "router", "port", .help = "port to listen on", .type = OPTION_UINT, .def = "30000", .min = 1,
	    .max = UINT16_MAX, ROUTER(port), .fixed = true },
	{ "router", "threads", .help = "worker threads; 0 is one per CPU", .type = OPTION_UINT, .def = "0",
	    .max = 256, ROUTER(n_threads), .fixed = true },
	{ "router", "body_limit", .also = "max-payload-size",
	    .help = "largest body of a request; beyond is 413; --max-payload-size with vLLM's router",
	    .type = OPTION_SIZE, .def = "512MiB", .min = 1, .max = 1024 * GIB, ROUTER(body_limit_bytes) },
	{ "router", "inspect_limit",
	    .help =
		"how much of a JSON body is waited for before an instance is picked: so much where the "
		"policy "
		"goes by its prompt or session, up to hold_limit where it may name a stored response or be "
		"for an engine that prefills and one that decodes, 64KiB at most elsewhere",
	    .type = OPTION_SIZE, .def = "1MiB", .max = GIB, ROUTER(inspect_limit_bytes) },
	{ "router", "hold_limit",
	    .help = "how much of a body may be held until its model, or the stored response that it goes on "
		    "from, is found; without its model it is 413 then",
	    .type = OPTION_SIZE, .def = "64MiB", .min = KIB, .max = 1024 * GIB, ROUTER(hold_limit_bytes) },
	{ "router", "hold_memory",
	    .help = "what held bodies, heads and unread output may take together; beyond is 503",
	    .type = OPTION_SIZE, .def = "256MiB", .min = KIB, .max = 1024 * GIB, ROUTER(hold_memory_bytes),
	    .fixed = true },
	{ "router", "request_id_headers", .arg = "NAME...",
	    .help = "headers that may bring a request's id; the first that is there and well-formed counts",
	    .type = OPTION_LIST, .def = "x-request-id,x-correlation-id,x-trace-id,request-id",
	    .check = check_header, .can_be_bare = true, ROUTER(request_id_headers) },
	{ "router", "session_headers", .arg = "NAME...",
	    .help =
		"headers that may bring a session, whose requests go where its cache is; the first of the "
		"list that is there counts, and more than any member of the body",
	    .type = OPTION_LIST,
	    .def =
		"x-session-id, x-session-affinity, x-smg-routing-key, x-claude-code-session-id, session-id, "
		"session_id, x-session-token",
	    .check = check_session_header, ROUTER(session_headers) },
	{ "router", "session_members", .arg = "NAME...",
	    .help =
		"members of a JSON body that may name a session, those known by default in any order; the "
		"first of the list that is there counts",
	    .type = OPTION_LIST, .def = INSPECT_MEMBERS_NAMES, ROUTER(session_members) },
	{ "router", "half_close", .help = "whether a client's FIN before its answer is over ends the request",
	    .type = OPTION_ENUM, .choices = half_closes, .def = "abort", ROUTER(half_close) },
	{ "router", "cors_origins", .flag = "cors-allowed-origins", .arg = "ORIGIN...",
	    .help = "web pages that may read answers: SCHEME://HOST[:PORT], or * for all; without any what "
		    "engines say of it goes on as it is; * is the default of the dialect vllm",
	    .type = OPTION_LIST, .check = cors_mistake, .can_be_bare = true, ROUTER(cors_origins) },
	{ "router", "worker_urls", .arg = "URL...", .help = "engines, besides those of [[worker]]",
	    .type = OPTION_LIST, .check = rank_url_mistake, .can_be_bare = true, ROUTER(worker_urls) },
	{ "router", "backend", .also = "runtime",
	    .help = "what the engines are; trtllm and anthropic are taken as vllm, openai makes a provider "
		    "of the "
		    "one in worker_urls; --runtime with vLLM's router",
	    .type = OPTION_ENUM, .choices = backends, .def = "vllm", ROUTER(backend) },
	{ "router", "enable_igw",
	    .help = "whether engines may have different models, as vLLM's router asks it: they always may; "
		    "in its dialect unknown models are refused then",
	    .type = OPTION_BOOL, .def = "false" },
	{ "router", "unknown_models",
	    .help = "what becomes of requests for a model that nobody serves: 404, or any engine gets them; "
		    "relay is the default of the dialect vllm without enable_igw, and of the backend openai",
	    .type = OPTION_ENUM, .choices = unknown_models, .def = "refuse", ROUTER(unknown_models) },
	{ "router", "data_parallel_size", .also = "intra-node-data-parallel-size",
	    .help =
		"data-parallel ranks of engines for which nothing else says it, nor their url names one; 1 "
		"is an engine without ranks, 0 or auto as many as its /metrics say; "
		"--intra-node-data-parallel-size with vLLM's router",
	    .type = OPTION_UINT, .def = "1", .max = RANKS_MAX, .can_be_auto = true, ROUTER(ranks.unified) },
	{ "router", "prefill_data_parallel_size",
	    .help = "the same of those with the role prefill, if it is another number", .type = OPTION_UINT,
	    .def = "1", .max = RANKS_MAX, .can_be_auto = true, ROUTER(ranks.prefill) },
	{ "router", "decode_data_parallel_size", .help = "the same of those with the role decode",
	    .type = OPTION_UINT, .def = "1", .max = RANKS_MAX, .can_be_auto = true, ROUTER(ranks.decode) },
	{ "router", "trust_rank_header",
	    .help =
		"whether a client may choose the rank, by the header X-data-parallel-rank: only instances "
		"of that rank get the request, and engines without ranks, which get the header; else it "
		"is left out",
	    .type = OPTION_BOOL, .def = "false", ROUTER(trusts_rank) },
	{ "router", "worker_api",
	    .help = "who may register, remove and list workers on the router's port, as with vLLM's router: "
		    "programs on this machine and who brings the admin key (loopback), the latter alone "
		    "(key), or "
		    "anybody; loopback is the default of the dialect vllm",
	    .type = OPTION_ENUM, .choices = worker_apis, .def = "off", ROUTER(worker_api) },
	{ "router", "worker_startup_timeout", .flag = "worker-startup-timeout-secs",
	    .help =
		"how long a worker that is being registered may take to be well; a plain number is seconds",
	    .type = OPTION_DURATION, .def = "600s", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    ROUTER(worker_startup_timeout_ms) },
	{ "router", "model_alias", .flag = "model-alias", .arg = "ALIAS=MODEL...",
	    .help = "other names of models; they count before those of [alias]", .type = OPTION_LIST,
	    ROUTER(given_aliases) },
	{ "router", "state_dir", .arg = "DIR",
	    .help =
		"where the workers that were registered are kept, and the last table of the registry, for a "
		"start while it is away; it is made if need be; workers are in $STATE_DIRECTORY, too, and "
		"without "
		"either for this process alone; the table without one is in "
		"$STATE_DIRECTORY, $XDG_STATE_HOME/headrace or ~/.local/state/headrace, which is made if "
		"need be",
	    .type = OPTION_STRING, ROUTER(state_dir), .fixed = true },

	{ "admin", "host", .arg = "HOST", .help = "address of the admin listener", .type = OPTION_STRING,
	    .def = "127.0.0.1", .check = option_check_host, ROUTER(admin_host), .fixed = true },
	{ "admin", "port", .help = "its port", .type = OPTION_UINT, .def = "29000", .min = 1,
	    .max = UINT16_MAX, ROUTER(admin_port), .fixed = true },
	{ "admin", "key", .arg = "KEY",
	    .help = "bearer token for calls that change something; without it, or for who does not bring it, "
		    "these are for this machine alone",
	    .type = OPTION_STRING, .check = option_check_token, .secret = true, ROUTER(admin_key) },

	{ "auth", "keys", .flag = "auth-keys", .arg = "TENANT=KEY...",
	    .help = "API keys of tenants, or sha256: and their digest: for the environment, from which they "
		    "are wiped",
	    .type = OPTION_LIST, .secret = true, ROUTER(auth_keys) },
	{ "auth", "keys_file", .flag = "auth-keys-file", .arg = "FILE",
	    .help = "a file of such keys, a line each: tenant, blank, key or sha256:HEX; # begins a comment",
	    .type = OPTION_STRING, ROUTER(auth_keys_file) },
	{ "auth", "pass_key", .flag = "auth-pass-key",
	    .help =
		"whether clients' keys go on to engines that have none of their own; without keys of ours "
		"they always do",
	    .type = OPTION_BOOL, .def = "false", ROUTER(passes_keys) },
	{ "auth", "validation_urls", .flag = "api-key-validation-urls", .arg = "URL...",
	    .help = "servers that are asked about keys that are none of ours, as vLLM's router does: GET "
		    "with the "
		    "key as bearer token, one 200 means that it is valid",
	    .type = OPTION_LIST, .check = auth_config_check_url, .can_be_bare = true, ROUTER(validation.urls),
	    .fixed = true },
	{ "auth", "validation_tenant", .flag = "auth-validation-tenant", .arg = "NAME",
	    .help = "the tenant of whoever is valid by them; without one, nobody's limits hold for it",
	    .type = OPTION_STRING, ROUTER(validation.tenant_name) },
	{ "auth", "validation_ttl", .flag = "auth-validation-ttl",
	    .help = "how long a key that they call valid is so; 0 asks each time", .type = OPTION_DURATION,
	    .def = "5m", .max = VALIDATION_MAX_MS, .can_be_off = true, ROUTER(validation.times.good_ms),
	    .fixed = true },
	{ "auth", "validation_invalid_ttl", .flag = "auth-validation-invalid-ttl",
	    .help = "the same of one that they do not", .type = OPTION_DURATION, .def = "30s",
	    .max = VALIDATION_MAX_MS, .can_be_off = true, ROUTER(validation.times.bad_ms), .fixed = true },
	{ "auth", "validation_grace", .flag = "auth-validation-grace",
	    .help = "how much longer a valid key is so while they do not answer", .type = OPTION_DURATION,
	    .def = "5m", .max = VALIDATION_MAX_MS, .can_be_off = true, ROUTER(validation.times.grace_ms),
	    .fixed = true },
	{ "auth", "validation_timeout", .flag = "auth-validation-timeout",
	    .help = "how long they may take to answer", .type = OPTION_DURATION, .def = "3s", .min = 1,
	    .max = 60000, ROUTER(validation.timeout_ms), .fixed = true },

	{ "upstream", "api_key", .flag = "api-key", .arg = "KEY",
	    .help = "bearer token for engines that have none of their own, in place of the client's; for our "
		    "own questions too, unless [discovery] engine_key says another",
	    .type = OPTION_STRING, .check = option_check_token, .secret = true, ROUTER(upstream_key) },
	{ "upstream", "api_key_file", .flag = "api-key-file", .arg = "FILE",
	    .help = "a file whose first line is that token", .type = OPTION_STRING,
	    ROUTER(upstream_key_file) },

	{ "rate", "requests_per_second", .flag = "rate-limit-tokens-per-second",
	    .help = "requests that all clients together may make in a second, as vLLM's router counts "
		    "tokens; 0 is no limit",
	    .type = OPTION_UINT, .max = RATE_PER_SECOND_MAX, ROUTER(requests_per_second) },

	{ "metrics", "host", .flag = "prometheus-host", .arg = "HOST",
	    .help = "address of /metrics, if not the admin one", .type = OPTION_STRING,
	    .check = check_host_or_none, ROUTER(metrics_host), .fixed = true },
	{ "metrics", "port", .flag = "prometheus-port",
	    .help = "its port, if not the admin one; 0 is the admin one", .type = OPTION_UINT,
	    .max = UINT16_MAX, ROUTER(metrics_port), .fixed = true },
	{ "metrics", "compat", .flag = "metrics-compat",
	    .help = "whose names metrics have, besides our own; vllm, those of vLLM's router, is the default "
		    "of its dialect",
	    .type = OPTION_ENUM, .choices = metrics_names, .def = "none", ROUTER(metrics_compat) },

	{ "tls", "certificates", .flag = "tls-certificates", .arg = "CHAIN:KEY...",
	    .help =
		"PEM files of certificate chain and key, or one with both: with any, clients must speak TLS; "
		"who names no host of theirs is shown the first",
	    .type = OPTION_LIST, ROUTER(tls.server.certificates) },
	{ "tls", "certificate", .flag = "ssl-certfile", .arg = "FILE",
	    .help = "the same for one certificate, as uvicorn and vLLM name it: its chain",
	    .type = OPTION_STRING, ROUTER(tls.server.chain) },
	{ "tls", "key", .flag = "ssl-keyfile", .arg = "FILE", .help = "and its key, if not in the same file",
	    .type = OPTION_STRING, ROUTER(tls.server.key) },
	{ "tls", "client_ca", .flag = "ssl-ca-certs", .arg = "FILE",
	    .help = "clients must show a certificate that one of these has signed", .type = OPTION_STRING,
	    ROUTER(tls.server.files.client_ca) },
	{ "tls", "engine_ca", .arg = "FILE",
	    .help = "who may have signed the certificates of https engines and registries, in place of the "
		    "system's",
	    .type = OPTION_STRING, ROUTER(tls.client.ca) },
	{ "tls", "engine_insecure",
	    .help = "whether they are believed whatever certificate they show; for tests",
	    .type = OPTION_BOOL, .def = "false", ROUTER(tls.client.is_insecure) },
	{ "tls", "engine_certificate", .arg = "FILE", .help = "certificate chain to show to them",
	    .type = OPTION_STRING, ROUTER(tls.client.certificate.chain) },
	{ "tls", "engine_key", .flag = "engine-certificate-key", .arg = "FILE",
	    .help = "and its key, if not in the same file", .type = OPTION_STRING,
	    ROUTER(tls.client.certificate.key) },

	{ "timeout", "head", .help = "for a request's head, from its first byte to its last",
	    .type = OPTION_DURATION, .def = "10s", .min = 1, .max = HOUR_MS, ROUTER(timeout.head_ms) },
	{ "timeout", "body_idle", .help = "for 16 KiB more of a request's body, or its end",
	    .type = OPTION_DURATION, .def = "30s", .min = 1, .max = 24 * HOUR_MS, .can_be_off = true,
	    ROUTER(timeout.body_idle_ms) },
	{ "timeout", "write_idle", .help = "for a client that does not read its answer",
	    .type = OPTION_DURATION, .def = "60s", .min = 1, .max = 24 * HOUR_MS, .can_be_off = true,
	    ROUTER(timeout.write_idle_ms) },
	{ "timeout", "keepalive", .help = "a client's connection without a request", .type = OPTION_DURATION,
	    .def = "75s", .min = 1, .max = 24 * HOUR_MS, ROUTER(timeout.keepalive_ms) },
	{ "timeout", "pool_idle",
	    .help = "an engine's connection without a request: less than the engine's own (uvicorn: 5s); 0 "
		    "keeps none",
	    .type = OPTION_DURATION, .def = "4s", .max = HOUR_MS, ROUTER(timeout.pool_idle_ms) },
	{ "timeout", "connect", .help = "for one attempt to connect to an engine", .type = OPTION_DURATION,
	    .def = "5s", .min = 1, .max = HOUR_MS, ROUTER(timeout.connect_ms) },
	{ "timeout", "first_byte",
	    .help =
		"from request to first byte of the answer; as long as it is not set, it holds for streamed "
		"requests alone, once it is set for all",
	    .type = OPTION_DURATION, .def = "600s", .min = 1, .max = 24 * HOUR_MS, .can_be_off = true,
	    ROUTER(timeout.first_byte_ms) },
	{ "timeout", "stream_idle", .help = "between two pieces of an answer", .type = OPTION_DURATION,
	    .def = "300s", .min = 1, .max = 24 * HOUR_MS, .can_be_off = true,
	    ROUTER(timeout.stream_idle_ms) },
	{ "timeout", "total", .also = "request-timeout-secs",
	    .help =
		"for a whole request; a plain number is seconds; --request-timeout-secs with vLLM's router",
	    .type = OPTION_DURATION, .def = "off", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    .can_be_off = true, ROUTER(timeout.total_ms) },
	{ "timeout", "announce", .help = "after SIGTERM: not ready any more, but still accepting",
	    .type = OPTION_DURATION, .def = "5s", .max = HOUR_MS, ROUTER(timeout.announce_ms) },
	{ "timeout", "drain", .help = "after that: for open requests to finish", .type = OPTION_DURATION,
	    .def = "300s", .max = 24 * HOUR_MS, ROUTER(timeout.drain_ms) },
	{ "timeout", "upgrade",
	    .help = "for a new binary to be ready, and as long to serve; if it does not, the old one goes on",
	    .type = OPTION_DURATION, .def = "60s", .min = 1, .max = HOUR_MS, ROUTER(timeout.upgrade_ms) },

	{ "policy", "default", .flag = "policy", .help = "which engine gets a request", .type = OPTION_STRING,
	    .choices = policy_config_names, .def = "cache_aware", ROUTER(policy) },
	{ "policy", "models", .arg = "{ MODEL = POLICY }", .help = "policies of single models",
	    .type = OPTION_MAP, ROUTER(model_policies) },
	{ "policy", "model_policy", .flag = "model-policy", .arg = "MODEL=POLICY...",
	    .help = "policies of single models; they count before those of policy.models",
	    .type = OPTION_LIST, ROUTER(given_policies) },
	{ "policy", "prefix_index_mb", .flag = "prefix-index-mb",
	    .help = "memory for what is known of the engines' prefix caches, MiB; 0 keeps no index",
	    .type = OPTION_UINT, .def = "64", .max = 4096, ROUTER(prefix_index_mib), .fixed = true },
	{ "policy", "prefill", .flag = "prefill-policy", .arg = "NAME",
	    .help = "for engines that only prefill; empty is as the model has it", .type = OPTION_STRING,
	    .check = check_policy_or_none, ROUTER(prefill_policy) },
	{ "policy", "decode", .flag = "decode-policy", .arg = "NAME",
	    .help = "for engines that only decode; empty is as the model has it", .type = OPTION_STRING,
	    .check = check_policy_or_none, ROUTER(decode_policy) },
	{ "policy", "cache_threshold", .arg = "PART",
	    .help = "cache_aware: no more than this part of a prompt cached counts as nothing",
	    .type = OPTION_NUMBER, .def = "0", .max = OPTION_ONE, ROUTER(policies.cache_threshold) },
	{ "policy", "balance_abs_threshold",
	    .help =
		"cache_aware: with more requests than this between the busiest engine and the idlest, and "
		"beyond balance_rel_threshold, the least loaded is taken; 64 once the other is given; 0 for "
		"both: never",
	    .type = OPTION_UINT, .def = "0", .max = UINT32_MAX, ROUTER(policies.balance_abs_threshold) },
	{ "policy", "balance_rel_threshold", .arg = "TIMES",
	    .help =
		"cache_aware: how many times the idlest engine's requests the busiest must have for that, 1 "
		"or more; 1.5 once the other is given",
	    .type = OPTION_NUMBER, .def = "0", .max = NUMBER_MAX, ROUTER(policies.balance_rel_threshold) },
	{ "policy", "eviction_interval",
	    .help = "taken for vLLM's router, to no effect: the index needs no eviction",
	    .type = OPTION_DURATION, .def = "120s", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000 },
	{ "policy", "max_tree_size",
	    .help = "taken for vLLM's router, to no effect: prefix_index_mb bounds the index",
	    .type = OPTION_UINT, .def = "67108864", .min = 1, .max = INT64_MAX },

	{ "pd", "enabled", .flag = "pd-disaggregation", .also = "vllm-pd-disaggregation",
	    .help = "whether there must be engines that prefill and engines that decode, as vLLM's router "
		    "asks it (--vllm-pd-disaggregation); where there are both they work so without it",
	    .type = OPTION_BOOL, .def = "false", ROUTER(pd.is_enabled) },
	{ "pd", "prefill", .flag = "prefill", .arg = "URL [PORT]",
	    .help = "an engine that only prefills, and its bootstrap port if it has one, or none; may be "
		    "repeated",
	    .type = OPTION_LIST, .check = check_prefill, ROUTER(pd.prefill) },
	{ "pd", "decode", .flag = "decode", .arg = "URL...", .help = "engines that only decode",
	    .type = OPTION_LIST, .check = rank_url_mistake, ROUTER(pd.decode) },
	{ "pd", "connector", .flag = "kv-connector",
	    .help = "how the cache of a prompt gets from one to the other, where their label kv_connector "
		    "does not say it; engines that announce themselves are p2p_nccl or moriio unless this is "
		    "another than nixl",
	    .type = OPTION_STRING, .choices = connectors, .def = "nixl", ROUTER(pd.connector),
	    .fixed = true },
	{ "pd", "min_uncached_tokens", .flag = "pd-min-uncached-tokens",
	    .help = "prompts with fewer tokens that are in no cache are for the decoding engine alone",
	    .type = OPTION_UINT, .def = "256", .max = UINT32_MAX, ROUTER(pd.min_uncached_tokens) },
	{ "pd", "discovery_address", .flag = "vllm-discovery-address", .arg = "HOST:PORT",
	    .help = "where a ZeroMQ socket listens on which engines announce themselves, as vLLM's P2P NCCL "
		    "and MoRIIO connectors do; allow holds for their addresses, too",
	    .type = OPTION_STRING, .check = pd_config_check_address, ROUTER(pd.discovery_address),
	    .fixed = true },

	{ "weighted_random", "sharpness", .flag = "weighted-random-sharpness", .arg = "POWER",
	    .help = "weights count to this power", .type = OPTION_NUMBER, .def = "1",
	    .max = POLICY_SHARPNESS_MAX * OPTION_ONE, ROUTER(policies.random_sharpness) },

	{ "session", "idle", .flag = "session-idle",
	    .help = "a session unused for so long is over, and the engine of a stored response forgotten",
	    .type = OPTION_DURATION, .def = "2h", .min = 60000, .max = 144 * HOUR_MS,
	    ROUTER(policies.session_idle_ms), .fixed = true },
	{ "session", "capacity", .flag = "session-capacity",
	    .help = "so many sessions are known at a time, the latest, and as many stored responses; 8 bytes "
		    "each",
	    .type = OPTION_UINT, .def = "131072", .min = 64, .max = 1 << 27,
	    ROUTER(policies.session_capacity), .fixed = true },
	{ "session", "overload", .flag = "session-overload", .arg = "TIMES",
	    .help =
		"an engine with so many times the requests in flight of the others is left by its sessions",
	    .type = OPTION_NUMBER, .def = "2", .max = NUMBER_MAX, ROUTER(policies.session_overload) },

	{ "size_class", "threshold", .flag = "size-class-threshold",
	    .help = "longer prompts are for engines of cache_type static, others for those of paged",
	    .type = OPTION_SIZE, .def = "51200", .max = GIB, ROUTER(policies.size_class_bytes) },
	{ "size_class", "then", .flag = "size-class-then", .arg = "POLICY",
	    .help = "the policy that decides among the engines of a class", .type = OPTION_STRING,
	    .choices = policy_config_names, .def = "cache_aware", ROUTER(size_class_then) },

	{ "composite", "load", .flag = "composite-load", .arg = "WEIGHT", .help = "what the load counts",
	    .type = OPTION_NUMBER, .def = "2", .max = NUMBER_MAX, ROUTER(policies.composite_weights[0]) },
	{ "composite", "latency", .flag = "composite-latency", .arg = "WEIGHT",
	    .help = "what the first-token time counts", .type = OPTION_NUMBER, .def = "1", .max = NUMBER_MAX,
	    ROUTER(policies.composite_weights[1]) },
	{ "composite", "locality", .flag = "composite-locality", .arg = "WEIGHT",
	    .help = "what nearness counts", .type = OPTION_NUMBER, .def = "1", .max = NUMBER_MAX,
	    ROUTER(policies.composite_weights[2]) },
	{ "composite", "cost", .flag = "composite-cost", .arg = "WEIGHT", .help = "what the price counts",
	    .type = OPTION_NUMBER, .def = "1", .max = NUMBER_MAX, ROUTER(policies.composite_weights[3]) },
	{ "composite", "max_candidates", .flag = "composite-max-candidates",
	    .help =
		"so many of the best count as candidates in explanations and records; the choice is the same",
	    .type = OPTION_UINT, .def = "10", .min = 1, .max = 4096,
	    ROUTER(policies.composite_candidates_max) },
	{ "composite", "min_score", .flag = "composite-min-score", .arg = "SCORE",
	    .help = "engines below it are no candidates, unless nobody reaches it", .type = OPTION_NUMBER,
	    .def = "0.1", .max = OPTION_ONE, ROUTER(policies.composite_min_score) },

	{ "locality", "zone",
	    .help = "the zone that the router is in, as the labels of engines name it; empty is none",
	    .type = OPTION_STRING, ROUTER(zone) },
	{ "locality", "region", .help = "its region, likewise", .type = OPTION_STRING, ROUTER(region) },
	{ "locality", "mode", .flag = "locality-mode",
	    .help = "prefer engines of the own zone, then of the region, until they are busy; or require the "
		    "region, or the zone if that is all that is given; prefer once one is given",
	    .type = OPTION_ENUM, .choices = locality_modes, .def = "off", ROUTER(policies.locality.mode) },
	{ "locality", "threshold", .flag = "locality-threshold", .arg = "PART",
	    .help = "what part of the requests that the near engines take must be in flight there before "
		    "farther ones get any",
	    .type = OPTION_NUMBER, .def = "0.8", .min = 1, .max = OPTION_ONE,
	    ROUTER(policies.locality.threshold) },
	{ "locality", "capacity", .flag = "locality-capacity",
	    .help = "how many an engine without the label capacity is thought to take", .type = OPTION_UINT,
	    .def = "64", .min = 1, .max = UINT32_MAX, ROUTER(policies.locality.capacity) },

	{ "privacy", "floor", .flag = "privacy-floor",
	    .help = "the least that every request is taken to need; who has no label clearance gets public "
		    "ones alone, and x-headrace-privacy only raises it",
	    .type = OPTION_ENUM, .choices = privacy_levels, .def = "public", ROUTER(policies.privacy_floor) },
	{ "privacy", "residency", .flag = "privacy-residency", .arg = "TAG...",
	    .help = "tags that an engine's label residency must have", .type = OPTION_LIST,
	    .check = check_tag, ROUTER(residency) },

	{ "cost", "ceiling", .flag = "cost-ceiling",
	    .help = "what one request may cost by its estimate, in micro-units as in the labels price_in and "
		    "price_out; 0 is no limit, and what has no price costs nothing",
	    .type = OPTION_UINT, .def = "0", .max = UINT32_MAX, ROUTER(policies.cost_ceiling) },

	{ "log", "access", .arg = "FILE", .help = "one line a request; - is standard output, off is none",
	    .type = OPTION_STRING, .def = "-", ROUTER(log_access), .fixed = true },
	{ "log", "format", .help = "form of the lines", .type = OPTION_STRING, .choices = log_formats,
	    .def = "json" },
	{ "log", "level", .help = "least of the events that are logged", .type = OPTION_ENUM,
	    .choices = log_levels, .def = "info", ROUTER(log_level) },
	{ "log", "dir", .arg = "DIR", .help = "where log files go that are not named from the root",
	    .type = OPTION_STRING, ROUTER(log_dir), .fixed = true },
	{ "log", "rotate", .flag = "log-rotate",
	    .help =
		"daily: the access log is FILE.YYYY-MM-DD, a new one from midnight UTC on; its folders are "
		"made if need be",
	    .type = OPTION_ENUM, .choices = log_rotations, .def = "never", ROUTER(log_rotation),
	    .fixed = true },
	{ "log", "events", .flag = "log-events",
	    .help = "where events go: to standard error, or there and into the access log",
	    .type = OPTION_ENUM, .choices = log_events, .def = "stderr", ROUTER(log_events), .fixed = true },

	{ "discovery", "interval", .help = "how often engines without declared models are asked for them",
	    .type = OPTION_DURATION, .def = "10s", .min = 100, .max = 24 * HOUR_MS,
	    ROUTER(models_interval_ms) },
	{ "discovery", "timeout", .flag = "discovery-timeout", .help = "for their answer",
	    .type = OPTION_DURATION, .def = "5s", .min = 1, .max = HOUR_MS, ROUTER(models_timeout_ms) },
	{ "discovery", "resolve", .help = "how often names are resolved again", .type = OPTION_DURATION,
	    .def = "30s", .min = 100, .max = 24 * HOUR_MS, ROUTER(resolve_interval_ms) },
	{ "discovery", "scrape",
	    .help = "how often engines are asked at /metrics how busy they are; those that do not say it are "
		    "asked once a minute",
	    .type = OPTION_DURATION, .def = "2s", .min = 100, .max = HOUR_MS, .can_be_off = true,
	    ROUTER(scrape_interval_ms) },
	{ "discovery", "engine_key", .flag = "engine-key", .arg = "KEY",
	    .help = "bearer token for our own questions to engines", .type = OPTION_STRING,
	    .check = option_check_token, .secret = true, ROUTER(engine_key) },
	{ "discovery", "registry_url", .arg = "URL",
	    .help = "the registry that knows the engines, besides those named here", .type = OPTION_STRING,
	    .check = check_registry, ROUTER(registry_url), .fixed = true },
	{ "discovery", "registry_token", .arg = "TOKEN", .help = "bearer token for the registry",
	    .type = OPTION_STRING, .check = option_check_token, .secret = true, ROUTER(registry_token) },
	{ "discovery", "registry_sync_interval", .help = "how often a registry without a watch is asked",
	    .type = OPTION_DURATION, .def = "10s", .min = 100, .max = HOUR_MS, .unit_ms = 1000,
	    ROUTER(registry_sync_ms) },
	{ "discovery", "service_removal_grace_period",
	    .help = "how long an engine stays that the registry does not list any more; one that was "
		    "deregistered leaves at once",
	    .type = OPTION_DURATION, .def = "60s", .max = 24 * HOUR_MS, .unit_ms = 1000,
	    ROUTER(registry_grace_ms) },
	{ "discovery", "allow", .flag = "discovery-allow", .arg = "RANGE...",
	    .help = "address ranges that engines of the registry may be at, whatever their names stand for; "
		    "without any all but link-local, metadata and multicast addresses. Engines "
		    "named here may be anywhere",
	    .type = OPTION_LIST, .check = address_range_mistake, ROUTER(allowed_addresses) },
	{ "discovery", "static_services", .arg = "FILE",
	    .help = "a JSON file of engines as InfiniLM-SVC's router has it, besides those named here",
	    .type = OPTION_STRING, ROUTER(static_services_file) },

	{ "health", "probe",
	    .help = "whether engines are asked for /health, or /v1/models, and babysitters for /health",
	    .type = OPTION_BOOL, .def = "true", ROUTER(health.has_probes) },
	{ "health", "passive", .help = "whether failed requests and silent streams are evidence",
	    .type = OPTION_BOOL, .def = "true", ROUTER(health.is_passive) },
	{ "health", "interval", .flag = "health-interval", .also = "health-check-interval-secs",
	    .help = "between two probes of an engine; --health-check-interval-secs with vLLM's router",
	    .type = OPTION_DURATION, .def = "5s", .min = 50, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    ROUTER(health.interval_ms) },
	{ "health", "timeout", .flag = "health-timeout", .also = "health-check-timeout-secs",
	    .help = "for a probe's answer; --health-check-timeout-secs with vLLM's router",
	    .type = OPTION_DURATION, .def = "3s", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    ROUTER(health.timeout_ms) },
	{ "health", "max_errors", .also = "health-failure-threshold",
	    .help = "failures in a row that make an engine unhealthy; a refused connection does at once; "
		    "--health-failure-threshold with vLLM's router",
	    .type = OPTION_UINT, .def = "3", .min = 1, .max = UINT32_MAX, ROUTER(health.errors_max) },
	{ "health", "successes", .flag = "health-success-threshold",
	    .help = "good probes in a row that an unhealthy engine comes back after", .type = OPTION_UINT,
	    .def = "1", .min = 1, .max = UINT32_MAX, ROUTER(health.n_good_min) },
	{ "health", "endpoint", .flag = "health-check-endpoint", .arg = "PATH",
	    .help = "what engines are asked for; where it is not there, /v1/models", .type = OPTION_STRING,
	    .def = "/health", .check = check_path, ROUTER(health.endpoint) },
	{ "health", "slow_start", .help = "how long the share of an engine grows that is healthy again",
	    .type = OPTION_DURATION, .def = "10s", .max = HOUR_MS, ROUTER(health.slow_start_ms) },
	{ "health", "stall_timeout",
	    .help = "a streamed answer silent for so long has stalled: two of them, or all there are, and "
		    "the engine is hung; so it is when requests wait as long for a first byte and its "
		    "counters at /metrics stand still for that time",
	    .type = OPTION_DURATION, .def = "30s", .min = 100, .max = HOUR_MS, .can_be_off = true,
	    ROUTER(health.stall_timeout_ms) },
	{ "health", "canary",
	    .help =
		"whether an engine that keeps requests waiting so long, and has no counters, is asked for "
		"one token to see if it is hung, and one that is hung to see if it still is",
	    .type = OPTION_BOOL, .def = "true", ROUTER(health.has_canary) },

	{ "explain", "headers", .flag = "explain-headers",
	    .help = "whether answers say in x-headrace headers how their engine was chosen",
	    .type = OPTION_BOOL, .def = "false", ROUTER(explain.has_headers) },
	{ "explain", "ring", .flag = "explain-ring",
	    .help = "choices that each thread remembers for the admin port's /decisions; 0 is none",
	    .type = OPTION_UINT, .def = "1024", .max = 1u << 16, ROUTER(explain.n_records), .fixed = true },
	{ "explain", "log", .flag = "explain-log", .arg = "FILE",
	    .help = "one line a request, for headrace sim to play it again under another policy: times, "
		    "tokens and hashes, no text; off is none",
	    .type = OPTION_STRING, .def = "off", ROUTER(explain.log), .fixed = true },

	{ "retry", "attempts", .flag = "retry-max-retries",
	    .help = "how often one request is sent at most, if engines refuse or lose it; 1 is no retry, and "
		    "more "
		    "than 64 is 64. What never reached an engine is not counted",
	    .type = OPTION_UINT, .def = "3", .min = 1, .max = UINT32_MAX, ROUTER(retry.attempts) },
	{ "retry", "statuses", .flag = "retry-statuses", .arg = "STATUS...",
	    .help = "answers that are taken as refusals, of 408, 429, 500, 502, 503, 504: another engine is "
		    "asked",
	    .type = OPTION_LIST, .def = "429,503", .check = check_status, ROUTER(retry_statuses) },
	{ "retry", "sent", .flag = "retry-sent",
	    .help = "whether a request is repeated, too, when the connection broke before any answer and the "
		    "engine may have begun; GET, HEAD and OPTIONS always are",
	    .type = OPTION_BOOL, .def = "false", ROUTER(retry.sent) },
	{ "retry", "backoff", .flag = "retry-initial-backoff-ms",
	    .help = "the wait before the first retry; a number is milliseconds", .type = OPTION_DURATION,
	    .def = "25ms", .max = RETRY_BACKOFF_MAX_MS, .unit_ms = 1, ROUTER(retry.backoff_ms) },
	{ "retry", "backoff_max", .flag = "retry-max-backoff-ms",
	    .help = "the longest such wait, also of those that engines ask for by Retry-After; a number is "
		    "milliseconds",
	    .type = OPTION_DURATION, .def = "1s", .max = RETRY_BACKOFF_MAX_MS, .unit_ms = 1,
	    ROUTER(retry.backoff_max_ms) },
	{ "retry", "multiplier", .flag = "retry-backoff-multiplier", .arg = "TIMES",
	    .help = "so many times as long is each wait as the one before", .type = OPTION_NUMBER, .def = "2",
	    .min = OPTION_ONE, .max = NUMBER_MAX, ROUTER(retry.multiplier) },
	{ "retry", "jitter", .flag = "retry-jitter-factor", .arg = "PART",
	    .help = "a wait is shorter or longer by up to this part of it", .type = OPTION_NUMBER,
	    .def = "0.2", .max = OPTION_ONE, ROUTER(retry.jitter) },
	{ "retry", "budget", .flag = "retry-budget", .arg = "PART",
	    .help = "retries of a model by its requests of the last ten seconds or so, each thread by those "
		    "that it "
		    "got, and three more for each model and thread; 0 is no retry",
	    .type = OPTION_NUMBER, .def = "0.2", .max = OPTION_ONE, ROUTER(retry.budget) },
	{ "retry", "disabled", .flag = "disable-retries", .help = "whether no request is sent twice",
	    .type = OPTION_BOOL, .def = "false", ROUTER(are_retries_disabled) },
	{ "hedge", "enabled", .flag = "hedge-enabled",
	    .help =
		"whether a request whose answer is late to begin is given to a second engine, too: the first "
		"good answer counts, the other one is cut off, and engines may work for nothing",
	    .type = OPTION_BOOL, .def = "false", ROUTER(hedge.is_enabled) },
	{ "hedge", "percentile", .flag = "hedge-percentile", .arg = "PART",
	    .help = "it is late when it takes longer than this part of the model's answers to prompts of its "
		    "size took lately",
	    .type = OPTION_NUMBER, .def = "0.95", .min = OPTION_ONE / 2, .max = OPTION_ONE * 999 / 1000,
	    ROUTER(hedge.percentile) },
	{ "hedge", "wait_min", .flag = "hedge-wait-min",
	    .help = "and longer than this; a number is milliseconds", .type = OPTION_DURATION, .def = "50ms",
	    .min = 1, .max = HOUR_MS, .unit_ms = 1, ROUTER(hedge.wait_min_ms) },
	{ "hedge", "budget", .flag = "hedge-budget", .arg = "PART",
	    .help =
		"second requests of a model by its requests that could have one; ten are saved up at most",
	    .type = OPTION_NUMBER, .def = "0.05", .max = OPTION_ONE, ROUTER(hedge.budget) },
	{ "resume", "enabled", .flag = "resume",
	    .help =
		"whether a stream that an engine cuts in the middle of its text goes on at another engine, "
		"where that is sound",
	    .type = OPTION_BOOL, .def = "false", ROUTER(resume.is_enabled) },
	{ "resume", "attempts", .flag = "resume-attempts",
	    .help = "how often one stream goes on at most; each is paid from the budget of retries",
	    .type = OPTION_UINT, .def = "2", .min = 1, .max = RESUME_ATTEMPTS_MAX, ROUTER(resume.attempts) },
	{ "resume", "max_bytes", .flag = "resume-max-bytes",
	    .help = "the most of a request's body and its answer's text that are kept for it",
	    .type = OPTION_SIZE, .def = "256KiB", .min = 1, .max = 1u << 20, ROUTER(resume.max_bytes) },
	{ "breaker", "enabled", .flag = "breaker-enabled",
	    .help =
		"whether an engine that fails again and again is left alone for a while, and then gets one "
		"request at a time until it works",
	    .type = OPTION_BOOL, .def = "true", ROUTER(breaker.is_enabled) },
	{ "breaker", "failures", .flag = "cb-failure-threshold",
	    .help =
		"so many attempts in a row that fail open an engine's breaker: no connection, a broken one, "
		"no answer in time, 5xx but 501 and 503",
	    .type = OPTION_UINT, .def = "10", .min = 1, .max = UINT32_MAX, ROUTER(breaker.limits.failures) },
	{ "breaker", "successes", .flag = "cb-success-threshold",
	    .help = "so many good ones in a row close it again", .type = OPTION_UINT, .def = "3", .min = 1,
	    .max = UINT32_MAX, ROUTER(breaker.limits.successes) },
	{ "breaker", "open", .flag = "cb-timeout-duration-secs",
	    .help = "how long it stays open, within a tenth; twice as long each time that it fails again",
	    .type = OPTION_DURATION, .def = "60s", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    ROUTER(breaker.limits.open_ms) },
	{ "breaker", "open_max", .flag = "breaker-open-max",
	    .help = "the longest, and how long one is open that was tripped by hand", .type = OPTION_DURATION,
	    .def = "5m", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    ROUTER(breaker.limits.open_max_ms) },
	{ "breaker", "window", .flag = "cb-window-duration-secs",
	    .help = "failures in a row count together when the first is no older than this",
	    .type = OPTION_DURATION, .def = "120s", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    ROUTER(breaker.limits.window_ms) },
	{ "breaker", "disabled", .flag = "disable-circuit-breaker",
	    .help = "the contrary of enabled, as vLLM's router has it", .type = OPTION_BOOL, .def = "false",
	    ROUTER(breaker.is_disabled) },
	{ "admission", "max_requests", .flag = "max-concurrent-requests",
	    .help = "requests in flight, from the choice of an engine to the last byte; those beyond wait; 0 "
		    "is no cap, and 32768 the default of the dialect vllm",
	    .type = OPTION_UINT, .def = "0", .max = UINT32_MAX / 2, ROUTER(admission.max_requests) },
	{ "admission", "model_requests", .flag = "admission-model-requests",
	    .help = "the same of each model; engines have their label capacity besides", .type = OPTION_UINT,
	    .def = "0", .max = UINT32_MAX / 2, ROUTER(admission.model_requests) },
	{ "admission", "models", .arg = "{ MODEL = N }", .help = "the same of single models",
	    .type = OPTION_MAP, .check = check_requests, ROUTER(admission.models) },
	{ "admission", "queue_size", .flag = "queue-size",
	    .help = "requests that may wait for a place, or for an engine that is not full; 0 refuses them "
		    "at once",
	    .type = OPTION_UINT, .def = "100", .max = 1u << 20, ROUTER(admission.queue_size) },
	{ "admission", "queue_timeout", .flag = "queue-timeout-secs",
	    .help = "how long one waits at most; a plain number is seconds", .type = OPTION_DURATION,
	    .def = "60s", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000,
	    ROUTER(admission.queue_timeout_ms) },
	{ "sse", "heartbeat", .help = "between two comments in a stream whose engine is silent",
	    .type = OPTION_DURATION, .def = "off", .min = 10, .max = HOUR_MS, .can_be_off = true,
	    ROUTER(heartbeat_ms) },
#define VLLM_FLAG(key, type_, extra, help_) { "vllm", #key, .help = help_, .type = OPTION_##type_ },
#include "router/vllm_flag.tbl"
#undef VLLM_FLAG
	{ "vllm", "worker_startup_check_interval",
	    .help = "how often that router looks for its first engine; to no effect: what is not up yet is "
		    "asked again and again",
	    .type = OPTION_DURATION, .def = "30s", .min = 1, .max = ROUTER_TIME_MAX_MS, .unit_ms = 1000 },
	{ "vllm", "history_backend",
	    .help = "where it keeps responses; to no effect: they are at the engine that made them",
	    .type = OPTION_ENUM, .choices = histories, .def = "none" },
	{ "", "worker", .help = "one engine each", .type = OPTION_ARRAY, .fields = worker_fields,
	    .n_fields = n_elems(worker_fields), .item_bytes = sizeof(struct router_worker), ROUTER(workers) },
	{ "", "tenant", .help = "one of those who may ask, with its keys and limits", .type = OPTION_ARRAY,
	    .fields = tenant_fields, .n_fields = n_elems(tenant_fields), .item_bytes = sizeof(struct tenant),
	    ROUTER(tenant_items) },
	{ "", "alias", .arg = "{ ALIAS = MODEL }",
	    .help = "other names of models; they come before models of the same name", .type = OPTION_MAP,
	    ROUTER(alias_map) },
};

#undef ROUTER
#undef TENANT
#undef WORKER
#undef AT

/* Below their headings in the help. */
static const struct option_table tables[] = {
	{ "router", "the data plane" },
	{ "admin", "the listener for health, metrics and state" },
	{ "metrics", "a listener for metrics alone" },
	{ "tls", "encryption and who is who, towards clients and engines" },
	{ "discovery", "which engines there are, and what is learned from them" },
	{ "upstream", "what engines are shown" },
	{ "policy", "routing" },
	{ "locality", "where requests go first" },
	{ "privacy", "whom requests may be given to" },
	{ "cost", "what requests may cost" },
	{ "weighted_random", "the policy of that name" },
	{ "session", "the policy of that name" },
	{ "size_class", "the policy of that name" },
	{ "composite", "the policy of that name" },
	{ "pd", "engines that prefill and engines that decode" },
	{ "timeout", "how long the router waits" },
	{ "health", "health of engines" },
	{ "retry", "repeated requests" },
	{ "hedge", "second requests for answers that are late" },
	{ "resume", "streams that go on at another engine" },
	{ "breaker", "circuit breakers" },
	{ "auth", "who may ask, by API key" },
	{ "rate", "how much all may ask for together" },
	{ "admission", "how many requests are in flight, and who waits" },
	{ "log", "logs" },
	{ "explain", "explained choices" },
	{ "sse", "event streams" },
	{ "vllm", "refused where they would change what is served, otherwise to no effect" },
};

static const struct option_group groups[] = {
	{ "general", "router" },
	{ "engines", "discovery" },
	{ "policies", "policy" },
	{ "prefill and decode apart", "pd" },
	{ "reliability", "timeout" },
	{ "clients and limits", "auth" },
	{ "logs and streams", "log" },
	{ "accepted for vLLM's router only", "vllm" },
};

static const struct option_dialect *const stand_ins[] = { &config_verify_infinilm, &vllm_config_dialect };

const struct option_schema router_config_schema = {
	.program = "headrace router",
	.summary = "streaming, model-aware HTTP router for LLM inference engines",
	.main_table = "router",
	.env_prefix = "HEADRACE",
	.tables = tables,
	.n_tables = n_elems(tables),
	.groups = groups,
	.n_groups = n_elems(groups),
	.rows = rows,
	.n_rows = n_elems(rows),
	.dialect_path = "router.dialect",
	.dialects = stand_ins,
	.n_dialects = n_elems(stand_ins),
	.page = {
		.description =
		    "Takes requests in the OpenAI and Anthropic APIs, and any other over HTTP/1.1, finds in their "
		    "body which model they are for, chooses an engine that serves it, and streams the answer back "
		    "as it comes. The bytes of body and answer are never changed.\n"
		    "Engines are named by --worker-urls or by [[worker]] tables. One that declares no models is "
		    "asked for them (GET /v1/models, then /models), again and again. Without any engine the router "
		    "runs, but is not ready.\n"
		    "With --registry-url the engines of a registry are added, as they come and go. While the "
		    "registry is away the last ones stay. Engines are probed, and what their answers show counts, "
		    "too: unhealthy ones get no requests until they are well again, and then few at first. When "
		    "more than half of a model's engines are unhealthy, all get requests but those that refuse "
		    "connections. An engine of weight 0 gets none while others of its models serve.\n"
		    "The data port has /health, /status, /readiness, /liveness, /v1/models, /models, /services, /stats and "
		    "/finish_session of its own; the admin port has /metrics, /config, /decisions, /explain, /reload and /liveness. "
		    "Everything else is relayed, but for CONNECT, TRACE "
		    "and methods that are not known: those are answered with 501.\n"
		    "Called as infini-router, or with --dialect infinilm, it stands in for InfiniLM-SVC's router: it "
		    "listens at 0.0.0.0:8080, a request takes PROXY_TIMEOUT_SECONDS at most (300 without that "
		    "variable), and errors have that router's texts and codes, 503 for an unknown model among them, "
		    "with our code beside them. Its flags are taken with or without the dialect; a plain number in "
		    "them is seconds. Unlike there, /v1/models lists the models of all engines, broken JSON is 400, "
		    "and an engine of --static-services is probed itself: nothing need answer on its next port.\n"
		    "Called as vllm-router, or with --dialect vllm, it stands in for vLLM's router. Its flags are taken in "
		    "either case, as its Rust binary and as its Python package spell them, with -secs or without. In the "
		    "dialect its defaults hold: worker_api loopback; total 1800s, no first_byte, announce 2s; cors_origins *, cache_threshold 0.3, "
		    "balance_abs_threshold 64, balance_rel_threshold 1.5; [health] interval 60s, timeout 5s, successes 2; "
		    "[retry] attempts 5, all statuses, backoff 50ms to 30s, multiplier 1.5; [admission] max_requests 32768, "
		    "where a full queue is 429 and an expired wait 408. power_of_two needs two engines. The admin listener "
		    "is where --prometheus-host and --prometheus-port say, unless [admin] says otherwise; a host that is no "
		    "address is 0.0.0.0. A file .env in the working directory is read: NAME=VALUE lines, for what is not in "
		    "the environment. RUST_LOG, if it is a level, goes before --log-level; API_KEY_VALIDATION_URLS is "
		    "validation_urls in any dialect. The flags of [vllm] are for what is not built here: those that would "
		    "change what is served stop the start, the others are told of once. Unlike there, requests are served "
		    "as soon as there is an engine for them, and nothing is retried beyond [retry] budget.\n",
		.signals =
		    "SIGTERM and SIGINT end the router gently: not ready for [timeout] announce, then no new "
		    "connections, then up to [timeout] drain for open requests; exit status 0. A second one ends it "
		    "at once: who has no answer gets an error, streams are cut, and all have a second to take that. "
		    "SIGUSR2 starts the binary that stands where this one was started from, with the same "
		    "arguments; it takes over the listening sockets when it is ready, and the old process ends as "
		    "after SIGTERM. If it is not ready within [timeout] upgrade, or ends, all stays as it was. "
		    "SIGHUP, and headrace ctl reload, read the configuration again, command line, environment and "
		    "file, with all files that it names, and apply it whole, or not at all if there is a mistake: the log "
		    "says what has changed. Requests end under the values that they began under. Options that are marked "
		    "as such cannot change so: another value of one refuses the whole.\n",
		.examples =
		    "Two engines on one machine:\n"
		    "  headrace router --worker-urls http://127.0.0.1:8000 http://127.0.0.1:8001\n"
		    "A file, looked at and then used:\n"
		    "  headrace router --config router.toml --check\n"
		    "  headrace router --config router.toml --port 30001\n"
		    "What stands in it:\n"
		    "  [router]\n"
		    "  host = \"0.0.0.0\"\n"
		    "  body_limit = \"64MiB\"\n"
		    "  [timeout]\n"
		    "  stream_idle = \"2m\"\n"
		    "  [[worker]]\n"
		    "  url = \"http://gpu-1:8000\"\n"
		    "  models = [\"llama-3-8b\"]\n"
		    "  weight = 2\n",
	},
};

static void verify(struct option_set *set, void *config) {
	config_verify(set, config);
}

int router_config_load(int argc, char *const *argv, struct router_config **config_out) {
	struct router_config *config = calloc(1, sizeof(*config));

	config->options = option_set_new(&router_config_schema);
	int code = option_start(config->options, argc, argv, config, verify);
	if (code >= 0)
		router_config_free(&config);
	*config_out = config;
	return code;
}

struct router_config *router_config_read(int argc, char *const *argv, char **mistakes_out) {
	struct router_config *config = calloc(1, sizeof(*config));
	size_t n_bytes;
	FILE *out = open_memstream(mistakes_out, &n_bytes);

	assert(out);
	config->options = option_set_new(&router_config_schema);
	size_t n = option_read_again(config->options, argc, argv, config, verify);
	option_print_mistakes(config->options, out);
	fclose(out);
	if (n)
		router_config_free(&config);
	return config;
}

void router_config_free(struct router_config **config_inout) {
	struct router_config *config = *config_inout;

	*config_inout = NULL;
	if (!config)
		return;
	static_file_deinit(&config->static_services);
	tenant_table_free(&config->tenants);
	option_set_free(&config->options);
	free(config);
}
