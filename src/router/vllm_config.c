#include "router/vllm_config.h"

#include <sys/socket.h>

#include "net/resolver.h"
#include "router/dotenv.h"

/* --- its defaults ------------------------------------------------------------------------ */

static const struct option_default defaults[] = {
	{ "router.cors_origins", "*" },
	{ "router.worker_api", "loopback" },
	{ "timeout.total", "1800s" },
	{ "timeout.first_byte", "off" }, /* the former is all that it has */
	{ "timeout.announce", "2s" },    /* its own tests kill what has not ended in 5 s */
	{ "policy.cache_threshold", "0.3" },
	{ "policy.balance_abs_threshold", "64" },
	{ "policy.balance_rel_threshold", "1.5" },
	{ "health.interval", "60s" },
	{ "health.timeout", "5s" },
	{ "health.successes", "2" },
	{ "retry.attempts", "5" },
	{ "retry.statuses", "408,429,500,502,503,504" },
	{ "retry.sent", "true" }, /* a connection that broke is 500 to it */
	{ "retry.backoff", "50ms" },
	{ "retry.backoff_max", "30s" },
	{ "retry.multiplier", "1.5" },
	{ "admission.max_requests", "32768" },
	{ "metrics.compat", "vllm" },
};

static const struct option_alias aliases[] = {
	{ "router.body_limit", "max-payload-size" },
	{ "router.data_parallel_size", "intra-node-data-parallel-size" },
	{ "pd.enabled", "vllm-pd-disaggregation" },
	{ "timeout.total", "request-timeout-secs" },
	{ "log.level", "log-level" },
	{ "log.dir", "log-dir" },
	{ "health.interval", "health-check-interval-secs" },
	{ "health.timeout", "health-check-timeout-secs" },
	{ "health.max_errors", "health-failure-threshold" },
};

const struct option_dialect vllm_config_dialect = { "vllm", "vllm-router", defaults, n_elems(defaults),
	aliases, n_elems(aliases) };

/* It has one listener for metrics, and several routers on a machine each their own: ours is there, too. */
static void place_admin(struct option_set *set, struct router_config *config) {
	struct sockaddr_storage address;
	char port[8];

	if (config->metrics_host[0] && !resolver_is_address(config->metrics_host, 0, &address)) {
		option_warning(
		    set, "metrics.host", "\"%s\" is no address: 0.0.0.0 is taken", config->metrics_host);
		option_replace(set, config, "metrics.host", "0.0.0.0");
	}
	if (config->metrics_host[0])
		option_default(set, config, "admin.host", config->metrics_host);
	snprintf(port, sizeof(port), "%u", (unsigned)config->metrics_port);
	if (config->metrics_port)
		option_default(set, config, "admin.port", port);
}

/* With a folder for logs it has a file a day there, of all that it says. */
static void place_logs(struct option_set *set, struct router_config *config) {
	if (!config->log_dir[0])
		return;
	option_default(set, config, "log.access", "vllm-router");
	if (strcmp(config->log_access, "-") == 0 || strcmp(config->log_access, "off") == 0)
		return;
	option_default(set, config, "log.rotate", "daily");
	option_default(set, config, "log.events", "both");
}

/* --- its environment --------------------------------------------------------------------- */

static void read_dotenv(struct option_set *set, struct router_config *config) {
	static const char path[] = ".env", ours[] = "HEADRACE_";
	int error = dotenv_read(set, path, &config->dotenv);

	if (error)
		option_mistake(set, "router.dialect", "%s: %s", path, strerror(-error));
	for (size_t i = 0; i < config->dotenv.n; i++)
		if (!strncmp(config->dotenv.items[i].name, ours, strlen(ours)))
			option_warning(set, "router.dialect", "%s: %s is taken from the environment alone",
			    path, config->dotenv.items[i].name);
}

/* It goes before the flag. What is more than a level is about modules, and ours have none. */
static void use_rust_log(struct option_set *set, struct router_config *config) {
	static const char *const levels[][2] = { { "trace", "debug" }, { "debug", "debug" },
		{ "info", "info" }, { "warn", "warn" }, { "error", "error" }, { "off", "error" } };
	const char *text = dotenv_variable(&config->dotenv, "RUST_LOG");

	for (size_t i = 0; i < n_elems(levels); i++)
		if (slice_is(slice_of(text), slice_of(levels[i][0])))
			option_replace(set, config, "log.level", levels[i][1]);
}

/* Its engines are taken to be alike without that flag, and a provider need not list what it has: whoever gets
 * the request says whether there is such a model. */
static void relay_unknown_models(struct option_set *set, struct router_config *config) {
	if ((config->dialect == ROUTER_VLLM && !option_is_on(set, "router.enable_igw")) ||
	    config->backend == ROUTER_BACKEND_OPENAI)
		option_default(set, config, "router.unknown_models", "relay");
}

void vllm_config_apply(struct option_set *set, struct router_config *config) {
	if (option_is_called(set, vllm_config_dialect.called))
		option_default(set, config, "router.dialect", vllm_config_dialect.name);
	relay_unknown_models(set, config);
	config->admission.is_vllm = config->dialect == ROUTER_VLLM;
	if (config->dialect != ROUTER_VLLM)
		return;
	option_speak(set, config, &vllm_config_dialect);
	place_admin(set, config);
	place_logs(set, config);
	read_dotenv(set, config);
	use_rust_log(set, config);
}

/* --- what is not built here -------------------------------------------------------------- */

enum extra {
	EXTRA_PROGRAMS = 1,
	EXTRA_KUBERNETES,
	EXTRA_WASM,
	EXTRA_ENCODERS,
	EXTRA_KV_EVENTS,
	EXTRA_MINI_LB,
	EXTRA_TRACES,
	EXTRA_PROFILES,
	EXTRAS
};

static const struct {
	const char *text;
	bool is_served_without; /* what clients get is the same */
} extras[EXTRAS] = {
	[EXTRA_PROGRAMS] = { .text = "scheduling of programs is not built" },
	[EXTRA_KUBERNETES] = { .text =
				   "engines are not looked for in Kubernetes: name them by --worker-urls, or "
				   "have them register at a registry" },
	[EXTRA_WASM] = { .text = "middleware in WebAssembly is not built" },
	[EXTRA_ENCODERS] = { .text = "engines that encode apart from those that prefill are not built" },
	[EXTRA_KV_EVENTS] = { .text = "what engines tell of their caches is not listened to: --policy "
				      "cache_aware "
				      "goes by what they were sent" },
	[EXTRA_MINI_LB] = { .text = "there is no balancer but the router: --policy random is the nearest" },
	[EXTRA_TRACES] = { .text = "has no effect: spans are not exported", .is_served_without = true },
	[EXTRA_PROFILES] = { .text = "has no effect: engines are not told to profile",
	    .is_served_without = true },
};

/* How engines are to be looked for in Kubernetes, and not whether. */
static const char *const discovery_details[] = { "vllm.selector", "vllm.service_discovery_port",
	"vllm.service_discovery_namespace", "vllm.prefill_selector", "vllm.decode_selector" };

static const struct {
	const char *path;
	enum extra extra;
} flags[] = {
#define VLLM_FLAG(key, type, extra, help) { "vllm." #key, EXTRA_##extra },
#include "router/vllm_flag.tbl"
#undef VLLM_FLAG
};

static bool lacks_discovery(const struct option_set *set, const char *path) {
	bool is_detail = false;

	for (size_t i = 0; i < n_elems(discovery_details); i++)
		is_detail |= !strcmp(path, discovery_details[i]);
	return is_detail && !option_is_on(set, "vllm.service_discovery");
}

/* An extra is refused once, whatever it was given by; each flag without effect is told. */
static void verify_flags(struct option_set *set) {
	bool is_refused[EXTRAS] = { false };

	for (size_t i = 0; i < n_elems(flags); i++) {
		enum extra extra = flags[i].extra;

		if (!option_is_on(set, flags[i].path) || is_refused[extra])
			continue;
		if (lacks_discovery(set, flags[i].path)) {
			option_warning(set, flags[i].path, "has no effect without --service-discovery");
			continue;
		}
		if (extras[extra].is_served_without) {
			option_warning(set, flags[i].path, "%s", extras[extra].text);
			continue;
		}
		is_refused[extra] = true;
		option_mistake(set, flags[i].path, "%s", extras[extra].text);
	}
}

static void warn_of_others(struct option_set *set, const struct router_config *config) {
	if (option_is_given(set, "vllm.worker_startup_check_interval"))
		option_warning(set, "vllm.worker_startup_check_interval",
		    "has no effect: the router does not wait for engines, /readiness says whether there is "
		    "one");
	if (option_is_given(set, "vllm.history_backend"))
		option_warning(set, "vllm.history_backend",
		    "has no effect: responses are kept by the engine that made them");
	if (config->backend == ROUTER_BACKEND_TRTLLM || config->backend == ROUTER_BACKEND_ANTHROPIC)
		option_warning(set, "router.backend", "is taken as vllm");
}

/* --- what it refuses --------------------------------------------------------------------- */

static void verify_choice(struct option_set *set, const char *path, const char *policy, size_t n) {
	if (!strcmp(policy, "power_of_two") && n < 2)
		option_mistake(set, path, "power_of_two needs two engines to choose between");
}

static void verify_choices(struct option_set *set, const struct router_config *config) {
	const struct router_pd *pd = &config->pd;
	const char *policy = config->policy, *prefill = config->prefill_policy,
		   *decode = config->decode_policy;
	size_t n_prefill = 0, n_decode = 0;

	if (pd->discovery_address[0] || config->registry_url[0] || config->static_services_file[0])
		return;
	for (size_t i = 0; i < config->workers.n; i++) {
		const char *option = config->workers.items[i].option;
		n_prefill += option && !strcmp(option, "pd.prefill");
		n_decode += option && !strcmp(option, "pd.decode");
	}
	size_t n_others = config->workers.n - n_prefill - n_decode;
	if (n_others)
		verify_choice(set, "policy.default", policy, n_others);
	if (n_prefill)
		verify_choice(set, "policy.prefill", prefill[0] ? prefill : policy, n_prefill);
	if (n_decode)
		verify_choice(set, "policy.decode", decode[0] ? decode : policy, n_decode);
}

static void verify_waits(struct option_set *set, const struct retry_options *retry) {
	if (!retry->backoff_ms)
		option_mistake(set, "retry.backoff", "expected more than 0");
	if (retry->backoff_max_ms < retry->backoff_ms)
		option_mistake(set, "retry.backoff_max", "is less than retry.backoff");
}

void vllm_config_verify(struct option_set *set, const struct router_config *config) {
	verify_flags(set);
	warn_of_others(set, config);
	if (config->backend == ROUTER_BACKEND_OPENAI && config->worker_urls.n != 1)
		option_mistake(set, "router.backend", "openai needs exactly one url in --worker-urls");
	if (config->dialect != ROUTER_VLLM)
		return;
	verify_choices(set, config);
	verify_waits(set, &config->retry);
}
