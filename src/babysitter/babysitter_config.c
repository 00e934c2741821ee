/*
 * The babysitter's table, the spellings of other systems that it understands, and what
 * only the values together can show. The rows come first, in the order of the help.
 */
#include "babysitter/babysitter_config.h"

#include <strings.h>
#include <sys/resource.h>

#include "babysitter/advertise.h"
#include "base/option_check.h"
#include "base/text.h"

#define KIB      (1ULL << 10)
#define GIB      (1ULL << 30)
#define HOUR_MS  (3600 * 1000ULL)
#define N_CPUS   ((uint64_t)CPU_SETSIZE - 1)
#define NO_LIMIT "unlimited"

static const struct {
	const char *name;          /* as registered, and one spelling */
	const char *other;         /* another */
	uint64_t start_timeout_ms; /* a model may take long to load */
} types[BACKEND_N_TYPES] = {
	[BACKEND_COMMAND] = { "command", "command", HOUR_MS / 2 },
	[BACKEND_VLLM] = { "vLLM", "vllm", HOUR_MS / 2 },
	[BACKEND_MOCK] = { "mock", "mock", 30000 },
	[BACKEND_INFINILM] = { "InfiniLM", "infinilm", HOUR_MS / 2 },
	[BACKEND_INFINILM_RUST] = { "InfiniLM-Rust", "infinilm-rust", HOUR_MS / 2 },
	[BACKEND_SGLANG] = { "sglang", "sglang", HOUR_MS / 2 },
	[BACKEND_LLAMA_CPP] = { "llama.cpp", "llama-cpp", HOUR_MS / 2 },
};

static const struct {
	const char *name;
	int resource;
} limits[] = {
	{ "nofile", RLIMIT_NOFILE },
	{ "core", RLIMIT_CORE },
	{ "memlock", RLIMIT_MEMLOCK },
	{ "as", RLIMIT_AS },
	{ "data", RLIMIT_DATA },
	{ "stack", RLIMIT_STACK },
	{ "nproc", RLIMIT_NPROC },
	{ "fsize", RLIMIT_FSIZE },
	{ "cpu", RLIMIT_CPU },
	{ "rtprio", RLIMIT_RTPRIO },
};

const char *babysitter_config_type_name(enum backend_type type) {
	assert(type < BACKEND_N_TYPES);
	return types[type].name;
}

static bool find_type(const char *text, enum backend_type *type_out) {
	for (unsigned i = 0; i < BACKEND_N_TYPES; i++)
		if (!strcasecmp(text, types[i].name) || !strcasecmp(text, types[i].other)) {
			*type_out = (enum backend_type)i;
			return true;
		}
	return false;
}

/* --- checks of one value ---------------------------------------------------------- */

static const char *check_type(const char *text) {
	enum backend_type type;
	return find_type(text, &type)
	    ? NULL
	    : "expected one of command, vllm, mock, infinilm, infinilm-rust, sglang, llama.cpp";
}

static const char *check_advertise(const char *text) {
	if (!text[0])
		return NULL;
	if (text_is_wildcard(slice_of(text)))
		return "nobody can reach that: expected the address that others use";
	return option_check_host(text);
}

static const char *check_registry(const char *text) {
	struct text_url url;

	if (!text[0])
		return NULL;
	if (!text_url(slice_of(text), &url) ||
	    !(slice_is(url.scheme, SLICE("http")) || slice_is(url.scheme, SLICE("https"))))
		return "expected http://HOST[:PORT] or https://HOST[:PORT]";
	return NULL;
}

/* It stands in a path, in log lines and in the name of the lock. */
static const char *check_name(const char *text) {
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c > '~' || strchr("\"\\/?#%", *c))
			return "expected printable ASCII without spaces and any of \"\\/?#%";
	return strlen(text) <= 200 ? NULL : "is longer than 200 bytes";
}

static bool read_cpus(const char *text, cpu_set_t *set) {
	struct slice s = slice_of(text), first = s;
	const char *dash = strchr(text, '-');
	uint64_t from, to;

	if (dash)
		first.n = (size_t)(dash - text);
	if (!text_uint(first, N_CPUS, &from))
		return false;
	to = from;
	if (dash && (!text_uint(slice_skip(s, first.n + 1), N_CPUS, &to) || to < from))
		return false;
	for (; from <= to; from++)
		CPU_SET(from, set);
	return true;
}

static const char *check_cpus(const char *text) {
	cpu_set_t set;
	return read_cpus(text, &set) ? NULL : "expected a CPU's number or a range such as 0-3";
}

static bool read_limit(struct slice s, uint64_t *value_out) {
	if (slice_eq(s, SLICE(NO_LIMIT))) {
		*value_out = RLIM_INFINITY;
		return true;
	}
	return text_size_bytes(s, value_out);
}

/* "SOFT:HARD" or one for both. */
static bool read_limits(const char *text, uint64_t *soft_out, uint64_t *hard_out) {
	struct slice s = slice_of(text), soft = s;
	const char *colon = strchr(text, ':');

	if (colon)
		soft.n = (size_t)(colon - text);
	if (!read_limit(soft, soft_out))
		return false;
	*hard_out = *soft_out;
	return !colon || (read_limit(slice_skip(s, soft.n + 1), hard_out) && *soft_out <= *hard_out);
}

static const char *check_limit(const char *text) {
	uint64_t soft, hard;
	return read_limits(text, &soft, &hard) ? NULL : "expected a number, \"unlimited\", or SOFT:HARD";
}

static const char *const log_levels[] = { "debug", "info", "warn", "error", NULL };

/* --- the table ---------------------------------------------------------------------- */

#define AT(member)                                                                                           \
	.offset = offsetof(struct babysitter_config, member),                                                \
	.bytes = sizeof(((struct babysitter_config *)0)->member)

static const struct option rows[] = {
	{ "babysitter", "name",
	    .help = "name that it is registered under, and with -server behind it the engine; without one, "
		    "the type and the port",
	    .type = OPTION_STRING, .check = check_name, AT(name) },
	{ "babysitter", "host", .arg = "HOST",
	    .help = "the engine's address: told to the engine, and registered unless it stands for all; "
		    "without one, all addresses if the registry or the advertised address is not of this "
		    "machine alone",
	    .type = OPTION_STRING, .def = "localhost", .check = option_check_host, AT(host) },
	{ "babysitter", "port", .help = "the engine's port, needed; the babysitter listens on the next one",
	    .type = OPTION_UINT, .max = UINT16_MAX - 1, AT(port) },
	{ "babysitter", "listen", .arg = "HOST", .help = "address that the babysitter itself listens on",
	    .type = OPTION_STRING, .def = "0.0.0.0", .check = option_check_host, AT(listen) },
	{ "babysitter", "advertise", .arg = "HOST",
	    .help =
		"address that is registered; without one, host if it stands for one address, else the one by "
		"which this machine reaches the registry",
	    .type = OPTION_STRING, .check = check_advertise, AT(advertise) },
	{ "babysitter", "registry_url", .arg = "URL",
	    .help = "the registry; without one nothing is registered", .type = OPTION_STRING,
	    .check = check_registry, AT(registry_url) },
	{ "babysitter", "router_url", .arg = "URL", .help = "taken for the sake of old scripts, to no effect",
	    .type = OPTION_STRING, AT(router_url) },
	{ "babysitter", "token", .help = "bearer token for the registry, and for what changes something here",
	    .type = OPTION_STRING, .secret = true, .check = option_check_token, AT(token) },
	{ "babysitter", "heartbeat_interval", .help = "between two heartbeats", .type = OPTION_DURATION,
	    .def = "30s", .min = 100, .max = HOUR_MS, .unit_ms = 1000, AT(heartbeat_ms) },
	{ "babysitter", "max_restarts",
	    .help = "failures in a row, without a healthy period between, after which it gives up",
	    .type = OPTION_UINT, .def = "10000", AT(n_restarts_max) },
	{ "babysitter", "restart_delay",
	    .help = "pause before a restart; 0 begins with 200 ms and doubles up to 30 s, with jitter",
	    .type = OPTION_DURATION, .def = "0", .max = HOUR_MS, .unit_ms = 1000, AT(restart_delay_ms) },
	{ "babysitter", "healthy_after", .help = "an engine that served so long has its failures forgiven",
	    .type = OPTION_DURATION, .def = "60s", .min = 1, .max = 24 * HOUR_MS, .unit_ms = 1000,
	    AT(healthy_ms) },
	{ "babysitter", "start_timeout",
	    .help = "an engine that does not serve by then is restarted; 0 is 30 s for mock, 30 m for others",
	    .type = OPTION_DURATION, .def = "0", .max = 24 * HOUR_MS, .unit_ms = 1000, AT(start_timeout_ms) },
	{ "babysitter", "stop_timeout", .help = "from SIGTERM to SIGKILL", .type = OPTION_DURATION,
	    .def = "10s", .max = HOUR_MS, .unit_ms = 1000, AT(stop_timeout_ms) },
	{ "babysitter", "drain_timeout", .help = "what a drain waits for the requests at the engine, at most",
	    .type = OPTION_DURATION, .def = "300s", .max = 24 * HOUR_MS, .unit_ms = 1000,
	    AT(drain_timeout_ms) },
	{ "babysitter", "exit_on_failed", .help = "end with code 1 when the engine is given up",
	    .type = OPTION_BOOL, AT(exit_on_failed) },
	{ "babysitter", "state_dir", .arg = "DIR",
	    .help = "where the lock is that keeps a second copy of the engine away; without one, "
		    "$STATE_DIRECTORY, $XDG_RUNTIME_DIR or /tmp",
	    .type = OPTION_STRING, AT(state_dir) },
	{ "babysitter", "cgroup", .help = "give the engine a cgroup of its own where one can be made",
	    .type = OPTION_BOOL, .def = "true", AT(use_cgroup) },

	{ "tls", "certificates", .flag = "tls-certificates", .arg = "CHAIN:KEY...",
	    .help = "PEM files of certificate chain and key, or one with both: with any, all must speak TLS "
		    "to the "
		    "babysitter, and to the engine, whose own arguments say with which certificate; "
		    "advertise says "
		    "the name that both have",
	    .type = OPTION_LIST, AT(tls.certificates) },
	{ "tls", "certificate", .flag = "ssl-certfile", .arg = "FILE", .help = "the chain of a single one",
	    .type = OPTION_STRING, AT(tls.chain) },
	{ "tls", "key", .flag = "ssl-keyfile", .arg = "FILE", .help = "and its key, if not in the same file",
	    .type = OPTION_STRING, AT(tls.key) },
	{ "tls", "client_ca", .flag = "ssl-ca-certs", .arg = "FILE",
	    .help = "who asks the babysitter must show a certificate that one of these has signed",
	    .type = OPTION_STRING, AT(tls.files.client_ca) },
	{ "tls", "peer_ca", .flag = "peer-ca", .arg = "FILE",
	    .help =
		"who may have signed the certificates of the engine and of an https registry, in place of "
		"the system's",
	    .type = OPTION_STRING, AT(peer.ca) },
	{ "tls", "peer_insecure", .flag = "peer-insecure",
	    .help = "whether they are believed whatever certificate they show; for tests",
	    .type = OPTION_BOOL, .def = "false", AT(peer.is_insecure) },
	{ "tls", "peer_certificate", .flag = "peer-certificate", .arg = "FILE",
	    .help = "certificate chain to show to them", .type = OPTION_STRING, AT(peer.certificate.chain) },
	{ "tls", "peer_key", .flag = "peer-certificate-key", .arg = "FILE",
	    .help = "and its key, if not in the same file", .type = OPTION_STRING, AT(peer.certificate.key) },
	{ "backend", "type", .flag = "service-type", .arg = "TYPE",
	    .help = "command, vllm, mock, infinilm, infinilm-rust, sglang or llama.cpp",
	    .type = OPTION_STRING, .def = "command", .check = check_type, AT(backend.type_text) },
	{ "backend", "command", .help = "what to start, split at white space; for the type command",
	    .type = OPTION_STRING, AT(backend.command) },
	{ "backend", "args", .help = "further arguments; in the file each stays as it is, spaces and all",
	    .type = OPTION_LIST, .at_spaces = true, AT(backend.args) },
	{ "backend", "model", .help = "the model of vllm, sglang and llama.cpp", .type = OPTION_STRING,
	    AT(backend.model) },
	{ "backend", "model_path", .arg = "PATH", .help = "the model of infinilm", .type = OPTION_STRING,
	    AT(backend.model_path) },
	{ "backend", "config_file", .flag = "backend-config-file", .arg = "PATH",
	    .help = "the configuration of infinilm-rust", .type = OPTION_STRING, AT(backend.config_file) },
	{ "backend", "path", .arg = "PATH",
	    .help = "the model, configuration or command, whatever the type needs", .type = OPTION_STRING,
	    AT(backend.path) },
	{ "backend", "served_model_name", .arg = "ID",
	    .help = "the id that vllm gives its model; without one, the last part of the model; - says none",
	    .type = OPTION_STRING, AT(backend.served_model) },
	{ "backend", "models", .arg = "ID,...", .help = "model ids of the mock", .type = OPTION_LIST,
	    AT(backend.models) },
	{ "backend", "launch_script", .arg = "PATH", .help = "the script of infinilm", .type = OPTION_STRING,
	    .def = "launch_server.py", AT(backend.launch_script) },
	{ "backend", "dev", .arg = "NAME", .help = "infinilm: the kind of accelerator", .type = OPTION_STRING,
	    AT(backend.dev) },
	{ "backend", "ndev", .help = "infinilm: how many of them; 0 does not say", .type = OPTION_UINT,
	    AT(backend.n_dev) },
	{ "backend", "max_batch", .help = "infinilm: largest batch; 0 does not say", .type = OPTION_UINT,
	    AT(backend.n_batch_max) },
	{ "backend", "max_tokens", .help = "infinilm: most tokens; 0 does not say", .type = OPTION_UINT,
	    AT(backend.n_tokens_max) },
	{ "backend", "awq", .help = "infinilm: the model is quantised so", .type = OPTION_BOOL,
	    AT(backend.awq) },
	{ "backend", "work_dir", .arg = "DIR", .help = "where it runs; without one, here",
	    .type = OPTION_STRING, AT(backend.work_dir) },
	{ "backend", "cpus", .arg = "LIST", .help = "the CPUs that it may use, such as 0-3,8",
	    .type = OPTION_LIST, .check = check_cpus, AT(backend.cpus) },
	{ "backend", "env", .help = "variables of its environment, beside those of the babysitter",
	    .type = OPTION_MAP, AT(backend.env) },
	{ "backend", "limits",
	    .help =
		"resource limits, NAME = \"N\", \"SOFT:HARD\" or \"unlimited\": nofile, core, memlock, as, "
		"data, stack, nproc, fsize, cpu, rtprio",
	    .type = OPTION_MAP, .check = check_limit, AT(backend.limits) },

	{ "probe", "interval", .help = "between two looks at an engine that serves", .type = OPTION_DURATION,
	    .def = "5s", .min = 50, .max = HOUR_MS, .unit_ms = 1000, AT(probe.interval_ms) },
	{ "probe", "timeout", .help = "what one look may take", .type = OPTION_DURATION, .def = "5s",
	    .min = 50, .max = HOUR_MS, .unit_ms = 1000, AT(probe.timeout_ms) },
	{ "probe", "failures", .help = "looks that fail in a row before it is restarted; 0 never does",
	    .type = OPTION_UINT, .def = "6", AT(probe.n_failures) },
	{ "probe", "api_key", .arg = "KEY", .help = "key that the engine wants", .type = OPTION_STRING,
	    .secret = true, .check = option_check_token, AT(probe.api_key) },
	{ "probe", "completion", .help = "an engine is ready only when it has completed one token",
	    .type = OPTION_BOOL, AT(probe.completion) },

	{ "log", "file", .arg = "PATH", .help = "where what the engine says goes; - is standard output",
	    .type = OPTION_STRING, .def = "-", AT(log.file) },
	{ "log", "max_size", .help = "at this size the file is renamed and begun afresh; 0 never does",
	    .type = OPTION_SIZE, .def = "64MiB", .max = 1024 * GIB, AT(log.bytes_max) },
	{ "log", "max_files", .help = "how many renamed files are kept", .type = OPTION_UINT, .def = "5",
	    .min = 1, .max = 99, AT(log.n_files) },
	{ "log", "rate", .help = "lines a second; what is more is counted; 0 is no limit",
	    .type = OPTION_UINT, .def = "1000", AT(log.n_lines_per_s) },
	{ "log", "level", .help = "of the babysitter's own events", .type = OPTION_ENUM, .def = "info",
	    .choices = log_levels, AT(log.level) },

	{ "", "metadata",
	    .help = "goes into the engine's record, whatever it is, over what would stand there",
	    .type = OPTION_TREE, AT(metadata) },
};

static const struct option_table tables[] = {
	{ "babysitter", "itself, and when it restarts; in the file these may stand at the top" },
	{ "tls", "encryption and who is who" },
	{ "backend", "the engine" },
	{ "probe", "how it finds out whether the engine serves" },
	{ "log", "what the engine says" },
};

const struct option_schema babysitter_config_schema = {
	.program = "headrace babysitter",
	.summary = "start, watch and restart one engine, and keep it registered",
	.main_table = "babysitter",
	.env_prefix = "HEADRACE",
	.tables = tables,
	.n_tables = n_elems(tables),
	.rows = rows,
	.n_rows = n_elems(rows),
	.main_at_top = true,
	.ignores_unknown = true,
	.page = {
		.description =
		    "Starts one engine and keeps one copy of it running, never two: what a babysitter that was "
		    "killed has left behind is ended before another engine is started. The engine counts as "
		    "ready when its port is open and it lists its models (GET /v1/models, else /models; 404 "
		    "will do). Then NAME-server is registered with them. An engine that ends is taken off "
		    "the registry at once and started again; one that hangs is taken off when two looks at it "
		    "have failed, and started again after --failures.\n"
		    "On the port behind the engine's it serves GET /health (200 only while the engine serves, "
		    "else 503, with the state), /models, /info, /metrics, and POST /drain.\n"
		    "Flags and files of InfiniLM-SVC's babysitters work: --config-file is --config, -p and -n, "
		    "--registry and --router are --port, --name, --registry-url and --router-url. Times without "
		    "a unit are seconds.",
		.signals = "SIGTERM and SIGINT deregister, wait until the engine has finished what it has, "
			   "--drain-timeout at most, end it and all it has started, and exit with 0. A second "
			   "one waits neither for requests nor for the registry. SIGHUP reads the files of [tls] "
			   "again; if one is wrong, all stays as it was.",
		.examples = " headrace babysitter --port 8100 --service-type mock --models llama \\\n"
			    "     --registry-url http://registry:8081\n"
			    " headrace babysitter --config engine.toml --host 0.0.0.0",
	},
};

/* --- spellings of other systems ------------------------------------------------------ */

static const struct {
	const char *other, *ours;
} spellings[] = {
	{ "--config-file", "--config" },
	{ "-p", "--port" },
	{ "-n", "--name" },
	{ "--registry", "--registry-url" },
	{ "--router", "--router-url" },
};

/* Parsed there and never used; each with a value. */
static const char *const unused[] = { "--env", "--request-timeout", "--max-concurrency" };

static bool is_spelt(const char *arg, const char *flag) {
	size_t n = strlen(flag);
	return strncmp(arg, flag, n) == 0 && (arg[n] == '\0' || arg[n] == '=');
}

static bool is_unused(const char *arg) {
	for (size_t i = 0; i < n_elems(unused); i++)
		if (is_spelt(arg, unused[i]))
			return true;
	return false;
}

static char *respell(struct option_set *set, const char *flag, const char *tail) {
	size_t n = strlen(flag) + strlen(tail) + 1;
	char *text = option_alloc(set, n);
	snprintf(text, n, "%s%s", flag, tail);
	return text;
}

/* The same words in our spelling; *argc_inout of them. */
static char **translate(struct option_set *set, int *argc_inout, char *const *argv) {
	char **out = option_alloc(set, ((size_t)*argc_inout + 1) * sizeof(*out));
	int n = 0;

	for (int i = 0; i < *argc_inout; i++) {
		char *arg = argv[i];
		bool is_last = i + 1 == *argc_inout;
		if (i > 0 && is_unused(arg)) {
			i += !strchr(arg, '=') && !is_last;
			continue;
		}
		for (size_t j = 0; i > 0 && j < n_elems(spellings); j++)
			if (is_spelt(arg, spellings[j].other)) {
				arg = respell(set, spellings[j].ours, arg + strlen(spellings[j].other));
				break;
			}
		/* Their value mostly begins with dashes itself. */
		if (!is_last && (!strcmp(arg, "--args") || !strcmp(arg, "--command"))) {
			char *flag = respell(set, arg, "=");
			arg = respell(set, flag, argv[++i]);
		}
		out[n++] = arg;
	}
	*argc_inout = n;
	return out;
}

/* --- what only the values together can show ------------------------------------------ */

static const char *or_path(struct option_set *set, const char *value, const char *path, const char *key) {
	char at[64];

	if (value[0] || path[0])
		return value[0] ? value : path;
	snprintf(at, sizeof(at), "backend.%s", key);
	option_mistake(set, at, "is missing");
	return value;
}

static bool is_blank(const char *text) {
	return text[strspn(text, " \t")] == '\0';
}

static void verify_backend(struct option_set *set, struct babysitter_backend *b) {
	static const char *const mock_models[] = { "test-model" };

	switch (b->type) {
	case BACKEND_COMMAND:
		b->command = or_path(set, b->command, b->path, "command");
		if (b->command[0] && is_blank(b->command))
			option_mistake(set, "backend.command", "has no word");
		break;
	case BACKEND_VLLM:
	case BACKEND_SGLANG:
	case BACKEND_LLAMA_CPP:
		b->model = or_path(set, b->model, b->path, "model");
		break;
	case BACKEND_INFINILM:
		b->model_path = or_path(set, b->model_path, b->path, "model_path");
		break;
	case BACKEND_INFINILM_RUST:
		b->config_file = or_path(set, b->config_file, b->path, "config_file");
		break;
	case BACKEND_MOCK:
		if (b->models.n == 0)
			b->models = (struct option_list){ mock_models, n_elems(mock_models) };
		break;
	case BACKEND_N_TYPES:
		assert(!"a type");
	}
}

static void make_cpus(struct option_set *set, struct babysitter_backend *b) {
	if (b->cpus.n == 0)
		return;
	cpu_set_t *cpus = option_alloc(set, sizeof(*cpus));
	for (size_t i = 0; i < b->cpus.n; i++)
		if (!read_cpus(b->cpus.items[i], cpus))
			assert(!"a range that was checked");
	b->cpu_set = cpus;
}

static void make_limits(struct option_set *set, struct babysitter_backend *b) {
	struct spawn_limit *items = option_alloc(set, (b->limits.n + 1) * sizeof(*items));

	for (size_t i = 0; i < b->limits.n; i++) {
		const struct option_pair *pair = &b->limits.items[i];
		size_t at = 0;
		while (at < n_elems(limits) && strcmp(limits[at].name, pair->name))
			at++;
		if (at == n_elems(limits)) {
			option_mistake(set, "backend.limits", "%.60s is no limit", pair->name);
			continue;
		}
		struct spawn_limit *limit = &items[b->n_limits++];
		limit->resource = limits[at].resource;
		if (!read_limits(pair->value, &limit->soft, &limit->hard))
			assert(!"a limit that was checked");
	}
	b->limit_items = items;
}

/* An environment's name may not hold '='; nothing may hold a NUL, which the reader has seen to. */
static void verify_env(struct option_set *set, const struct option_map *env) {
	for (size_t i = 0; i < env->n; i++)
		if (!env->items[i].name[0] || strchr(env->items[i].name, '='))
			option_mistake(
			    set, "backend.env", "\"%.60s\" is no name of a variable", env->items[i].name);
}

static char *make_name(struct option_set *set, const struct babysitter_config *config) {
	char *name = option_alloc(set, 64);
	snprintf(name, 64, "%s-%u", types[config->backend.type].name, config->port);
	for (char *c = name; *c; c++)
		*c = *c == ' ' ? '-' : ascii_lower(*c);
	return name;
}

/* Where the engine listens must be where others look for it. A name may be anybody's. */
static void verify_host(struct option_set *set, struct babysitter_config *config) {
	char others[ADVERTISE_BYTES] = "";
	struct text_url url;

	if (text_url(slice_of(config->registry_url), &url))
		snprintf(others, sizeof(others), "%.*s", (int)url.host.n, url.host.p);
	if (config->advertise[0])
		snprintf(others, sizeof(others), "%s", config->advertise);
	if (!others[0] || advertise_is_loopback(others))
		return;
	if (!option_is_given(set, "babysitter.host"))
		option_default(set, config, "babysitter.host", strchr(others, ':') ? "::" : "0.0.0.0");
	else if (!config->advertise[0] && advertise_is_loopback(config->host))
		option_mistake(set, "babysitter.host",
		    "nobody but this machine reaches that, and the registry may be on another: give 0.0.0.0 "
		    "or an address of this machine; if it is meant, give advertise as well");
}

static void verify(struct option_set *set, void *arg) {
	struct babysitter_config *config = arg;
	struct babysitter_backend *b = &config->backend;

	tls_options_verify_server(set, &config->tls);
	tls_options_verify_client(set, &config->peer, "tls.peer_");
	if (config->tls.files.n && !config->advertise[0])
		option_mistake(
		    set, "babysitter.advertise", "is missing: the name that the certificates are for");
	if (config->port == 0)
		option_mistake(set, "babysitter.port", "is missing");
	if (!find_type(b->type_text, &b->type))
		b->type = BACKEND_COMMAND;
	if (!option_mistakes(set) || option_is_given(set, "backend.type"))
		verify_backend(set, b);
	make_cpus(set, b);
	make_limits(set, b);
	verify_env(set, &b->env);
	verify_host(set, config);
	if (config->router_url[0])
		option_warning(set, "babysitter.router_url", "has no effect");
	if (!config->name[0])
		config->name = make_name(set, config);
	if (config->start_timeout_ms == 0)
		config->start_timeout_ms = types[b->type].start_timeout_ms;
}

int babysitter_config_load(struct babysitter_config *config, int argc, char *const *argv) {
	*config = (struct babysitter_config){ .options = option_set_new(&babysitter_config_schema) };
	char **words = translate(config->options, &argc, argv);
	return option_start(config->options, argc, words, config, verify);
}

void babysitter_config_deinit(struct babysitter_config *config) {
	option_set_free(&config->options);
}
