/*
 * First the dialect and the environment give their defaults, then each table is looked at by itself, and
 * made into what the router goes by: lower case, whole urls, one list of engines.
 */
#include "router/config_verify.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/text.h"
#include "fleet/instance.h"
#include "fleet/traits.h"
#include "router/alias_config.h"
#include "router/auth_config.h"
#include "router/dotenv.h"
#include "router/label_check.h"
#include "router/pd_config.h"
#include "router/policy_config.h"
#include "router/vllm_config.h"

/* The blame goes to the one that somebody gave. */
static void verify_order(struct option_set *set, const char *small, uint64_t small_bytes, const char *large,
    uint64_t large_bytes) {
	if (small_bytes <= large_bytes)
		return;
	if (option_is_given(set, small))
		option_mistake(set, small, "is more than %s", large);
	else
		option_mistake(set, large, "is less than %s", small);
}

static void verify_limits(struct option_set *set, const struct router_config *config) {
	verify_order(set, "router.inspect_limit", config->inspect_limit_bytes, "router.hold_limit",
	    config->hold_limit_bytes);
	verify_order(set, "router.hold_limit", config->hold_limit_bytes, "router.hold_memory",
	    config->hold_memory_bytes);
}

static bool is_any(const char *host) {
	return !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

static bool is_router_address(const struct router_config *config, const char *host, uint16_t port) {
	return port == config->port && (!strcmp(host, config->host) || is_any(host) || is_any(config->host));
}

static void verify_listeners(struct option_set *set, struct router_config *config) {
	if (!config->metrics_host[0])
		config->metrics_host = config->admin_host;
	if (!config->metrics_port)
		config->metrics_port = config->admin_port;
	if (is_router_address(config, config->admin_host, config->admin_port))
		option_mistake(set, "admin.port", "is the router's own port");
	else if (is_router_address(config, config->metrics_host, config->metrics_port))
		option_mistake(set, "metrics.port", "is the router's own port");
}

static const char *lower_copy(struct option_set *set, struct slice text) {
	char *copy = option_alloc(set, text.n + 1);

	for (size_t i = 0; i < text.n; i++)
		copy[i] = ascii_lower(text.p[i]);
	return copy;
}

static void lower_headers(struct option_set *set, struct option_list *headers) {
	const char **items = option_alloc(set, headers->n * sizeof(*items));

	for (size_t i = 0; i < headers->n; i++)
		items[i] = lower_copy(set, slice_of(headers->items[i]));
	headers->items = items;
}

/* Headers that are another one for each request, with whatever router or tracer in front. */
static bool is_id_of_one_request(const char *name) {
	static const char *const names[] = { "x-request-id", "request-id", "x-correlation-id", "x-trace-id",
		"traceparent", "tracestate", "idempotency-key", "x-idempotency-key", "x-b3-traceid",
		"x-b3-spanid", "x-amzn-trace-id", "x-amzn-requestid" };

	for (size_t i = 0; i < n_elems(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

/* What names one request must not say where a whole session goes. */
static void verify_session_headers(struct option_set *set, const struct router_config *config) {
	const struct option_list *ids = &config->request_id_headers, *sessions = &config->session_headers;
	const char *path = option_is_given(set, "router.session_headers") ? "router.session_headers"
									  : "router.request_id_headers";
	for (size_t i = 0; i < sessions->n; i++) {
		if (is_id_of_one_request(sessions->items[i])) {
			option_mistake(set, "router.session_headers",
			    "\"%s\" names one request, not a session", sessions->items[i]);
			continue;
		}
		for (size_t j = 0; j < ids->n; j++)
			if (!strcmp(sessions->items[i], ids->items[j]))
				option_mistake(set, path,
				    "\"%s\" cannot bring both a request's id and a session", ids->items[j]);
	}
}

static void make_inspect_rules(struct option_set *set, struct router_config *config) {
	lower_headers(set, &config->session_headers);
	verify_session_headers(set, config);
	inspect_rules_init(&config->inspect, config->session_headers.items, config->session_headers.n);
	for (size_t i = 0; i < config->session_members.n; i++) {
		const char *name = config->session_members.items[i];
		if (!inspect_rules_add(&config->inspect, slice_of(name)))
			option_mistake(set, "router.session_members",
			    "\"%s\" is not known, or there twice: expected some of %s", name,
			    INSPECT_MEMBERS_NAMES);
	}
}

/* Without slashes at its end, where the path of a request begins with one. */
static const char *base_copy(struct option_set *set, struct slice path) {
	while (path.n && path.p[path.n - 1] == '/')
		path.n--;
	char *copy = option_alloc(set, path.n + 1);
	for (size_t i = 0; i < path.n; i++)
		copy[i] = path.p[i];
	return copy;
}

/* Fills what follows from the url, which was checked. */
static void complete_worker(struct option_set *set, struct router_worker *worker) {
	struct rank_url at;
	size_t n_bytes = sizeof("https://[]:65535") + strlen(worker->url);
	char *text = option_alloc(set, n_bytes);

	if (!rank_url(slice_of(worker->url), &at))
		assert(!"a url that was checked");
	worker->host = lower_copy(set, at.url.host);
	worker->port = at.url.port;
	worker->rank = at.rank;
	worker->has_rank = at.has_rank;
	worker->is_tls = slice_is(at.url.scheme, SLICE("https"));
	(worker->is_tls ? text_print_tls_url : text_print_url)(text, n_bytes, worker->host, worker->port);
	worker->base = base_copy(set, at.url.path);
	size_t n = strlen(text);
	n += (size_t)snprintf(text + n, n_bytes - n, "%s", worker->base);
	if (at.has_rank)
		snprintf(text + n, n_bytes - n, "@%u", at.rank);
	worker->url = text;
	if (!worker->name || !worker->name[0])
		worker->name = text;
}

/* Of what --backend openai makes of urls. */
static const struct option_pair provider_label = { "provider", "openai" };
static const struct option_map provider_labels = { &provider_label, 1 };

/* Who is asked in the operator's name is shown the operator's key. */
static void give_keys_to_providers(struct router_config *config) {
	struct router_worker *workers = (struct router_worker *)config->workers.items; /* made by ourselves */

	for (size_t i = 0; i < config->workers.n; i++)
		if (workers[i].labels.items == &provider_label)
			workers[i].api_key = config->upstream_key;
}

static bool is_provider(const struct router_worker *worker) {
	for (size_t i = 0; i < worker->labels.n; i++)
		if (!strcmp(worker->labels.items[i].name, "provider"))
			return true;
	return false;
}

static void verify_base(struct option_set *set, const char *path, const struct router_worker *worker) {
	if (!worker->base[0])
		return;
	if (!is_provider(worker))
		option_mistake(set, path,
		    "an engine's url has no path: expected http://HOST[:PORT] or https://HOST[:PORT]");
	else if (strpbrk(worker->base, "?#"))
		option_mistake(set, path, "a provider's url has no query");
}

static void collect_workers(struct option_set *set, struct router_config *config) {
	const struct option_list *urls = &config->worker_urls;
	size_t n_max = config->workers.n + urls->n + config->pd.prefill.n + config->pd.decode.n, n = 0;
	struct router_worker *workers = option_alloc(set, n_max * sizeof(*workers));

	for (size_t i = 0; i < config->workers.n; i++)
		workers[n++] = config->workers.items[i];
	for (size_t i = 0; i < urls->n; i++)
		workers[n++] = (struct router_worker){
			.url = urls->items[i],
			.labels = config->backend == ROUTER_BACKEND_OPENAI ? provider_labels
									   : (struct option_map){ 0 },
			.api_key = "",
			.api_key_file = "",
			.weight = 1,
			.option = "router.worker_urls",
		};
	n += pd_config_workers(set, config, workers + n);
	for (size_t i = 0; i < n; i++)
		complete_worker(set, &workers[i]);
	config->workers = (struct router_workers){ workers, n };
}

/* The same, named twice by one flag. */
static bool is_repetition(const struct router_worker *of, const struct router_worker *worker) {
	if (!of->option || !worker->option || strcmp(of->option, worker->option) ||
	    strcmp(of->url, worker->url) || of->labels.n != worker->labels.n)
		return false;
	for (size_t i = 0; i < of->labels.n; i++)
		if (strcmp(of->labels.items[i].value, worker->labels.items[i].value))
			return false;
	return true;
}

static void drop_repetitions(struct option_set *set, struct router_workers *workers) {
	struct router_worker *items = (struct router_worker *)workers->items; /* made by ourselves */
	size_t n = 0;

	for (size_t i = 0; i < workers->n; i++) {
		size_t j = 0;
		while (j < n && !is_repetition(&items[j], &items[i]))
			j++;
		if (j < n)
			option_warning(
			    set, items[i].option, "%s is there twice: it counts once", items[i].url);
		else
			items[n++] = items[i];
	}
	workers->n = n;
}

/* Two urls are one engine, and two names would be one in every log: both would mislead. */
static void verify_workers(struct option_set *set, const struct router_config *config) {
	const struct router_worker *w = config->workers.items;
	char table_path[64], name_path[64];

	for (size_t i = 0; i < config->workers.n; i++) {
		const char *url_path = w[i].option ? w[i].option : table_path;
		snprintf(table_path, sizeof(table_path), "worker[%zu].url", i);
		snprintf(name_path, sizeof(name_path), "worker[%zu].name", i);
		verify_base(set, url_path, &w[i]);
		size_t j = 0;
		while (j < i && strcmp(w[i].url, w[j].url) && strcmp(w[i].name, w[j].name))
			j++;
		if (j < i && !strcmp(w[i].url, w[j].url))
			option_mistake(set, url_path, "%s is there twice", w[i].url);
		else if (j < i)
			option_mistake(set, name_path, "\"%s\" is there twice", w[i].name);
	}
}

static bool may_serve(const struct router_worker *worker, struct slice model) {
	for (size_t i = 0; i < worker->models.n; i++)
		if (slice_eq(model, slice_of(worker->models.items[i])))
			return true;
	return !worker->models.n; /* it will be asked */
}

static void verify_label(struct option_set *set, const char *path, const struct router_worker *worker,
    const struct option_pair *label) {
	struct slice name = slice_of(label->name), value = slice_of(label->value);
	struct slice model = traits_model(name);
	const char *mistake = label_check_mistake(name, value, true);

	if (mistake)
		option_mistake(set, path, "%s = \"%s\": %s", name.p, value.p, mistake);
	else if (model.p && !may_serve(worker, model))
		option_warning(set, path, "%s: \"%s\" is none of its models", name.p, model.p);
}

static void verify_labels(struct option_set *set, const struct router_config *config) {
	for (size_t i = 0; i < config->workers.n; i++) {
		const struct router_worker *worker = &config->workers.items[i];
		char path[64];

		snprintf(path, sizeof(path), "worker[%zu].labels", i);
		for (size_t k = 0; k < worker->labels.n; k++)
			verify_label(set, path, worker, &worker->labels.items[k]);
	}
}

/* Whole seconds, 0 for no limit; what is no number gives the default. */
static void use_proxy_timeout(struct option_set *set, struct router_config *config) {
	const char *text = getenv("PROXY_TIMEOUT_SECONDS");
	char duration[TEXT_PRINT_BYTES];
	uint64_t seconds;

	if (!text || !text_uint(slice_of(text), UINT64_MAX, &seconds))
		seconds = 300;
	text_print_duration(u64_min(seconds, ROUTER_TIME_MAX_MS / 1000) * 1000, duration);
	option_default(set, config, "timeout.total", duration);
}

/* The variable that vLLM's router reads: to pass over it would let everybody in. */
static void use_validation_urls(struct option_set *set, struct router_config *config) {
	const char *text = dotenv_variable(&config->dotenv, "API_KEY_VALIDATION_URLS");

	if (!text || option_is_given(set, "auth.validation_urls"))
		return;
	const char *wrong = auth_config_check_urls(text);
	if (wrong)
		option_mistake(set, "auth.validation_urls", "API_KEY_VALIDATION_URLS: %s", wrong);
	else
		option_default(set, config, "auth.validation_urls", text);
}

static const struct option_default infinilm_defaults[] = {
	{ "router.host", "0.0.0.0" },
	{ "router.port", "8080" },
	{ "policy.default", "rendezvous_hash" },
	{ "router.session_headers", "" },
	{ "router.session_members", "prompt_cache_key" },
};

const struct option_dialect config_verify_infinilm = { "infinilm", "infini-router", infinilm_defaults,
	n_elems(infinilm_defaults), NULL, 0 };

static void apply_dialect(struct option_set *set, struct router_config *config) {
	if (option_is_called(set, config_verify_infinilm.called))
		option_default(set, config, "router.dialect", config_verify_infinilm.name);
	vllm_config_apply(set, config);
	if (config->dialect != ROUTER_INFINILM)
		return;
	option_speak(set, config, &config_verify_infinilm);
	use_proxy_timeout(set, config);
	config->errors = REPLY_INFINILM;
}

static bool has_name(const struct router_workers *workers, struct slice name) {
	for (size_t i = 0; i < workers->n; i++)
		if (slice_eq(name, slice_of(workers->items[i].name)))
			return true;
	return false;
}

/* After collect_workers(): both are records of one source, known by their names. */
static void read_static_services(struct option_set *set, struct router_config *config) {
	static const char path[] = "discovery.static_services";
	struct static_file *file = &config->static_services;
	char why[STATIC_FILE_WHY_BYTES];

	if (!config->static_services_file[0])
		return;
	if (static_file_read(file, config->static_services_file, why)) {
		option_mistake(set, path, "%s", why);
		return;
	}
	for (size_t i = 0; i < file->n; i++)
		if (has_name(&config->workers, file->services[i]->spec.instance.name))
			option_mistake(set, path, "\"%s\" is the name of a worker, too",
			    file->services[i]->spec.instance.name.p);
	if (config->workers.n + file->n > INSTANCE_SLOTS_MAX)
		option_mistake(set, path, "there are more than %d engines", INSTANCE_SLOTS_MAX);
}

/* Several routers of one user have a file each; who names a folder means it for this router alone. */
static void choose_table_file(struct option_set *set, struct router_config *config) {
	const char *dir = getenv("STATE_DIRECTORY"), *state = getenv("XDG_STATE_HOME"),
		   *home = getenv("HOME");
	char *file = config->table_file;
	const size_t bytes = sizeof(config->table_file);
	int n = 0;

	if (config->state_dir[0])
		n = snprintf(file, bytes, "%s/registry.json", config->state_dir);
	else if (dir && dir[0] == '/') /* it may name several */
		n = snprintf(file, bytes, "%.*s/router-%u.json", (int)strcspn(dir, ":"), dir, config->port);
	else if (state && state[0] == '/') /* as the XDG base directory specification has it */
		n = snprintf(file, bytes, "%s/headrace/router-%u.json", state, config->port);
	else if (home && home[0] == '/')
		n = snprintf(file, bytes, "%s/.local/state/headrace/router-%u.json", home, config->port);
	else
		option_warning(
		    set, "router.state_dir", "HOME is not set either: the table of the registry is not kept");
	if (n < 0 || (size_t)n >= bytes)
		option_mistake(set, "router.state_dir", "the path of the registry's table is too long");
}

/* Only where somebody said that something is to be kept. */
static void choose_workers_file(struct option_set *set, struct router_config *config) {
	const char *dir = getenv("STATE_DIRECTORY");
	const size_t bytes = sizeof(config->workers_file);
	int n = 0;

	if (config->state_dir[0])
		n = snprintf(config->workers_file, bytes, "%s/workers.json", config->state_dir);
	else if (dir && dir[0] == '/')
		n = snprintf(config->workers_file, bytes, "%.*s/workers-%u.json", (int)strcspn(dir, ":"), dir,
		    config->port);
	if (n < 0 || (size_t)n >= bytes)
		option_mistake(set, "router.state_dir", "the path of the file of workers is too long");
}

static void verify_worker_api(struct option_set *set, const struct router_config *config) {
	if (config->worker_api == ROUTER_WORKER_API_KEY && !config->admin_key[0])
		option_mistake(set, "router.worker_api", "is for who has the admin key, and there is none");
}

/* Whether we may write there shows at the start: somebody else may have asked for the check. */
static void verify_log(struct option_set *set, const char *path, const char *file, bool is_daily) {
	const char *slash = strrchr(file, '/');
	size_t n = slash ? size_max((size_t)(slash - file), 1) : 0, n_bytes = n + sizeof(".");
	char *folder = option_alloc(set, n_bytes);
	struct stat s;

	snprintf(folder, n_bytes, "%.*s", (int)(n ? n : 1), n ? file : ".");
	if (!file[0] || (stat(file, &s) == 0 && S_ISDIR(s.st_mode))) {
		option_mistake(set, path, "\"%s\" is no file", file);
		return;
	}
	int r = stat(folder, &s);

	if (r < 0 && errno == ENOENT && is_daily) /* it is made at the start */
		return;
	if (r < 0 || !S_ISDIR(s.st_mode))
		option_mistake(set, path, "%s: %s", folder, strerror(r < 0 ? errno : ENOTDIR));
}

/* Makes a path of the name of a log that is to be a file. */
static void place_log(struct option_set *set, const struct router_config *config, const char *path,
    const char **file_inout, bool is_daily) {
	const char *file = *file_inout;
	size_t n_bytes = strlen(config->log_dir) + strlen(file) + sizeof("/");
	char *joined = option_alloc(set, n_bytes);

	if (!strcmp(file, "-") || !strcmp(file, "off"))
		return;
	snprintf(joined, n_bytes, "%s/%s", config->log_dir, file);
	if (file[0] && file[0] != '/' && config->log_dir[0])
		*file_inout = joined;
	verify_log(set, path, *file_inout, is_daily);
}

/* What is said of a file, and there is none. */
static void warn_of_logs(struct option_set *set, const struct router_config *config) {
	bool is_file = strcmp(config->log_access, "-") && strcmp(config->log_access, "off");

	if (!is_file && config->log_rotation != ROUTER_LOG_NEVER)
		option_warning(set, "log.rotate", "has no effect: the access log is no file");
	if (!is_file && config->log_events != ROUTER_EVENTS_STDERR)
		option_warning(set, "log.events", "has no effect: the access log is no file");
}

/* Those of a role are as those of all, until somebody says another number. */
static void complete_ranks(struct option_set *set, struct rank_defaults *ranks) {
	if (!option_is_given(set, "router.prefill_data_parallel_size"))
		ranks->prefill = ranks->unified;
	if (!option_is_given(set, "router.decode_data_parallel_size"))
		ranks->decode = ranks->unified;
	ranks->unified = ranks->unified ? ranks->unified : RANKS_AUTO;
	ranks->prefill = ranks->prefill ? ranks->prefill : RANKS_AUTO;
	ranks->decode = ranks->decode ? ranks->decode : RANKS_AUTO;
}

static void clamp_count(
    struct option_set *set, const char *path, uint32_t *count, uint32_t max, const char *why) {
	if (*count <= max)
		return;
	option_warning(set, path, "%u is taken as %u: %s", *count, max, why);
	*count = max;
}

static void complete_retry(struct option_set *set, struct router_config *config) {
	struct retry_options *retry = &config->retry;

	clamp_count(
	    set, "retry.attempts", &retry->attempts, RETRY_ATTEMPTS_MAX, "no request is sent more often");
	retry->refusals = 0;
	for (size_t i = 0; i < config->retry_statuses.n; i++)
		retry->refusals |=
		    (uint8_t)(1u << retry_status_read(slice_of(config->retry_statuses.items[i])));
	if (config->are_retries_disabled)
		retry->attempts = 1;
	retry->backoff_max_ms = u64_max(retry->backoff_max_ms, retry->backoff_ms);
}

static void clamp_time(struct option_set *set, const char *path, uint64_t *time_ms) {
	char given[TEXT_PRINT_BYTES], taken[TEXT_PRINT_BYTES];

	if (*time_ms <= BREAKER_TIME_MAX_MS)
		return;
	option_warning(set, path, "%s is taken as %s: a breaker knows no longer time",
	    text_print_duration(*time_ms, given), text_print_duration(BREAKER_TIME_MAX_MS, taken));
	*time_ms = BREAKER_TIME_MAX_MS;
}

/* Without failures: those that nothing but a hand opens. */
static void complete_breaker(struct option_set *set, struct router_breaker *breaker) {
	static const char why[] = "a breaker counts no further";

	clamp_count(set, "breaker.failures", &breaker->limits.failures, BREAKER_COUNT_MAX, why);
	clamp_count(set, "breaker.successes", &breaker->limits.successes, BREAKER_COUNT_MAX, why);
	clamp_time(set, "breaker.open", &breaker->limits.open_ms);
	clamp_time(set, "breaker.open_max", &breaker->limits.open_max_ms);
	clamp_time(set, "breaker.window", &breaker->limits.window_ms);
	if (!breaker->is_enabled || breaker->is_disabled)
		breaker->limits.failures = 0;
	breaker->limits.open_max_ms = u64_max(breaker->limits.open_max_ms, breaker->limits.open_ms);
}

/* Levels that logs of ours do not have. */
static void verify_level(struct option_set *set, struct router_config *config) {
	if (config->log_level > LOG_ERROR)
		option_replace(
		    set, config, "log.level", config->log_level == LOG_ERROR + 1 ? "warn" : "error");
}

void config_verify(struct option_set *set, struct router_config *config) {
	apply_dialect(set, config);
	verify_level(set, config);
	use_validation_urls(set, config);
	verify_limits(set, config);
	verify_listeners(set, config);
	place_log(set, config, "log.access", &config->log_access, config->log_rotation == ROUTER_LOG_DAILY);
	place_log(set, config, "explain.log", &config->explain.log, false);
	warn_of_logs(set, config);
	tls_options_verify_server(set, &config->tls.server);
	tls_options_verify_client(set, &config->tls.client, "tls.engine_");
	policy_config_verify(set, config);
	lower_headers(set, &config->request_id_headers);
	make_inspect_rules(set, config);
	collect_workers(set, config);
	if (config->workers.n > INSTANCE_SLOTS_MAX) {
		option_mistake(set, "worker", "there are more than %d", INSTANCE_SLOTS_MAX);
	} else {
		drop_repetitions(set, &config->workers);
		verify_workers(set, config);
	}
	verify_labels(set, config);
	pd_config_verify(set, config);
	vllm_config_verify(set, config);
	alias_config_verify(set, config);
	auth_config_verify(set, config);
	give_keys_to_providers(config);
	read_static_services(set, config);
	if (config->workers.n + config->static_services.n == 0 && !config->registry_url[0] &&
	    !config->pd.discovery_address[0] && option_mistakes(set) == 0)
		option_warning(set, "worker", "there is none: the router will not be ready");
	if (config->registry_url[0])
		choose_table_file(set, config);
	complete_ranks(set, &config->ranks);
	choose_workers_file(set, config);
	verify_worker_api(set, config);
	complete_retry(set, config);
	complete_breaker(set, &config->breaker);
	config->timeout.first_byte_all = option_is_given(set, "timeout.first_byte");
}
