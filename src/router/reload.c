/*
 * Reading comes first, and may say no; then what could fail later is tried; what follows
 * cannot fail, and each part of the router gets what is its business.
 */
#include "router/reload.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/notify.h"
#include "base/option_diff.h"
#include "router/config_diff.h"
#include "router/report.h"
#include "router/static_fleet.h"

#define LEAVE_CHECK_MS 50
#define LEAVE_MS       5000

/* One attempt. */
struct attempt {
	struct router_config *config; /* read, and not in use yet */
	struct certificates_fresh tls;
	struct static_fleet fleet;
	json_t *mistakes, *warnings; /* lines */
	const char *code;            /* of a refusal */
	char message[512];
};

/* --- what is said ---------------------------------------------------------------------------- */

/* Each line of a text; a warning is one that says so. */
static void take_lines(struct attempt *a, const char *text) {
	for (size_t n; *text; text += n + (text[n] == '\n')) {
		n = strcspn(text, "\n");
		bool is_warning = memmem(text, n, ": warning: ", strlen(": warning: "));

		json_array_append_new(is_warning ? a->warnings : a->mistakes, json_stringn(text, n));
	}
}

static void log_lines(const json_t *lines, enum log_level level, const char *event) {
	for (size_t i = 0; i < json_array_size(lines); i++) {
		struct log_event e;

		log_begin(&e, level, event);
		line_text(&e.line, SLICE("what"), slice_of(json_string_value(json_array_get(lines, i))));
		log_end(&e);
	}
}

/* What was said of the configuration in use, at the start or by a reload, is not said again. */
static json_t *new_lines(const json_t *lines, const struct option_set *in_use) {
	json_t *fresh = json_array();

	for (size_t i = 0; i < json_array_size(lines); i++) {
		json_t *line = json_array_get(lines, i);

		if (!option_has_said(in_use, json_string_value(line)))
			json_array_append(fresh, line);
	}
	return fresh;
}

static void log_value(struct line *line, struct slice name, const json_t *value) {
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

	line_text(line, name, json_is_string(value) ? slice_of(json_string_value(value)) : slice_of(text));
	free(text);
}

/* `of`: "worker" or "tenant", and its name; NULL: an option of all. */
static void log_changes(const json_t *changes, const char *of, const char *name) {
	for (size_t i = 0; i < json_array_size(changes); i++) {
		const json_t *change = json_array_get(changes, i);
		struct log_event e;

		log_begin(&e, LOG_INFO, "option changed");
		if (of)
			line_text(&e.line, slice_of(of), slice_of(name));
		log_value(&e.line, SLICE("option"), json_object_get(change, "option"));
		log_value(&e.line, SLICE("from"), json_object_get(change, "from"));
		log_value(&e.line, SLICE("to"), json_object_get(change, "to"));
		log_end(&e);
	}
}

static void log_names(const json_t *names, const char *of, const char *event) {
	for (size_t i = 0; i < json_array_size(names); i++) {
		struct log_event e;

		log_begin(&e, LOG_INFO, event);
		line_text(&e.line, slice_of(of), slice_of(json_string_value(json_array_get(names, i))));
		log_end(&e);
	}
}

static void log_named(const json_t *named, const char *of) {
	const json_t *changed = json_object_get(named, "changed");

	log_names(json_object_get(named, "added"), of, "added to the configuration");
	log_names(json_object_get(named, "removed"), of, "removed from the configuration");
	for (size_t i = 0; i < json_array_size(changed); i++) {
		const json_t *item = json_array_get(changed, i);

		log_changes(
		    json_object_get(item, "changes"), of, json_string_value(json_object_get(item, "name")));
	}
}

static void log_applied(const json_t *diff) {
	struct log_event e;

	log_changes(json_object_get(diff, "options"), NULL, NULL);
	log_named(json_object_get(diff, "workers"), "worker");
	log_named(json_object_get(diff, "tenants"), "tenant");
	log_begin(&e, LOG_INFO,
	    config_diff_is_empty(diff) ? "configuration read again: nothing has changed"
				       : "configuration read again, and applied");
	log_end(&e);
}

static void log_refused(const struct attempt *a) {
	struct log_event e;

	log_lines(a->mistakes, LOG_ERROR, "mistake in the configuration");
	log_begin(&e, LOG_ERROR, "configuration read again, and refused: all stays as it was");
	line_text(&e.line, SLICE("why"), slice_of(a->message));
	log_end(&e);
}

/* --- may it be? ------------------------------------------------------------------------------ */

static bool refuse(struct attempt *a, const char *code, const char *message) {
	a->code = code;
	snprintf(a->message, sizeof(a->message), "%s", message);
	return false;
}

static bool refuse_mistake(struct attempt *a, const char *mistake) {
	json_array_append_new(a->mistakes, json_string(mistake));
	return refuse(a, "bad_configuration", "the configuration has a mistake");
}

static bool read_config(struct attempt *a, const struct reload *r) {
	char *lines;

	a->config = router_config_read(r->argc, r->argv, &lines);
	take_lines(a, lines);
	free(lines);
	return a->config || refuse(a, "bad_configuration", "the configuration has mistakes");
}

/* "router.port, admin.host cannot change while ..." */
static bool check_fixed(struct attempt *a, const struct reload *r) {
	json_t *fixed = option_diff(r->router->settings->config->options, a->config->options, true);
	size_t n_fixed = json_array_size(fixed);
	char *names;
	size_t n_bytes;
	FILE *out = open_memstream(&names, &n_bytes);

	assert(out);
	for (size_t i = 0; i < n_fixed; i++)
		fprintf(out, "%s%s", i ? ", " : "",
		    json_string_value(json_object_get(json_array_get(fixed, i), "option")));
	fputs(" cannot change while the router runs: a restart or an upgrade takes it", out);
	fclose(out);
	json_decref(fixed);
	if (n_fixed)
		refuse(a, "needs_restart", names);
	free(names);
	return !n_fixed;
}

static bool check_fleet(struct attempt *a, const struct reload *r) {
	struct slice name;
	int outcome;

	static_fleet_init(&a->fleet, a->config);
	outcome = fleet_check(r->fleet, SOURCE_STATIC, a->fleet.specs, a->fleet.n, &name);
	if (!outcome)
		return true;
	char text[256];
	snprintf(text, sizeof(text), "worker %.*s: %s", (int)size_min(name.n, 128), name.p,
	    outcome == FLEET_E_FULL ? "too many instances, with those that leave"
				    : "beyond a limit of the fleet table");
	return refuse_mistake(a, text);
}

static bool check_tls(struct attempt *a) {
	char why[TLS_WHY_BYTES];

	a->tls = reload_tls_files(a->config);
	return certificates_fetch(&a->tls, why) || refuse_mistake(a, why);
}

/* Else whoever asked would be told that it is applied, by a process that is about to be replaced. */
static bool check_upgrade(struct attempt *a, const struct reload *r) {
	return !upgrade_is_running(r->upgrade) ||
	    refuse(a, "upgrade_running", "an upgrade is under way: ask again when it has ended");
}

static bool check(struct attempt *a, const struct reload *r) {
	return check_upgrade(a, r) && read_config(a, r) && check_fixed(a, r) && check_fleet(a, r) &&
	    check_tls(a);
}

/* --- what modules go by ----------------------------------------------------------------------- */

struct health_options reload_health_options(const struct router_config *config) {
	const struct router_health *h = &config->health;

	return (struct health_options){ .has_probes = h->has_probes,
		.is_passive = h->is_passive,
		.has_canary = h->has_canary,
		.interval_ms = h->interval_ms,
		.timeout_ms = h->timeout_ms,
		.slow_start_ms = h->slow_start_ms,
		.stall_ms = h->stall_timeout_ms,
		.errors_max = h->errors_max,
		.n_good_min = h->n_good_min,
		.endpoint = h->endpoint,
		.api_key = config->engine_key };
}

struct scrape_options reload_scrape_options(const struct router_config *config, const struct load *load) {
	return (struct scrape_options){ .interval_ms = config->scrape_interval_ms,
		.timeout_ms = config->models_timeout_ms,
		.api_key = config->engine_key,
		.load = load };
}

struct watch_intervals reload_watch_intervals(const struct router_config *config) {
	return (struct watch_intervals){ config->models_interval_ms, config->models_timeout_ms,
		config->resolve_interval_ms, config->engine_key, config->allowed_addresses };
}

struct registry_options reload_registry_options(const struct router_config *config) {
	return (struct registry_options){ .url = config->registry_url,
		.token = config->registry_token,
		.file = config->table_file,
		.is_file_ours = !config->state_dir[0],
		.sync_interval_ms = config->registry_sync_ms,
		.grace_ms = config->registry_grace_ms };
}

/* Is there anybody to speak TLS to? Whom a registry will name, or who will be registered here, is not known.
 */
static bool has_tls_peers(const struct router_config *config) {
	for (size_t i = 0; i < config->workers.n; i++)
		if (config->workers.items[i].is_tls)
			return true;
	for (size_t i = 0; i < config->static_services.n; i++)
		if (config->static_services.services[i]->spec.instance.is_tls)
			return true;
	for (size_t i = 0; i < config->validation.urls.n; i++)
		if (slice_is(slice_head(slice_of(config->validation.urls.items[i]), 6), SLICE("https:")))
			return true;
	return config->registry_url[0] || config->worker_api != ROUTER_WORKER_API_OFF;
}

struct certificates_fresh reload_tls_files(const struct router_config *config) {
	return (struct certificates_fresh){ .server_files = &config->tls.server.files,
		.client_files = has_tls_peers(config) ? &config->tls.client : NULL };
}

/* --- it is applied ---------------------------------------------------------------------------- */

/* Those that were not there before have addresses and models, and have been heard of. */
static bool are_new_ones_known(const struct reload *r) {
	const struct snapshot *snap = *r->snapshot;

	for (uint32_t i = 0; i < snap->n_rows; i++) {
		const struct snapshot_row *row = &snap->rows[i];

		if (row->source == SOURCE_STATIC && row->instance->serial > r->newest &&
		    !(row->n_addresses && row->are_models_known && row->state != INSTANCE_UNKNOWN))
			return false;
	}
	return true;
}

static uint32_t newest_of(const struct snapshot *snap) {
	uint32_t serial = 0;

	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (snap->rows[i].instance->serial > serial)
			serial = snap->rows[i].instance->serial;
	return serial;
}

static void let_leave(struct reload *r) {
	struct static_fleet fleet;

	static_fleet_init(&fleet, r->router->settings->config);
	int outcome = fleet_replace(r->fleet, SOURCE_STATIC, fleet.specs, fleet.n);
	assert(!outcome); /* all of them are there */
	outcome = fleet_replace(r->fleet, SOURCE_LEAVING, NULL, 0);
	assert(!outcome);
	static_fleet_deinit(&fleet);
	r->on_change(r);
}

static void on_leave(struct timer *t) {
	struct reload *r = container_of(t, struct reload, leave);

	if (are_new_ones_known(r) || loop_now_ms(r->loop) >= r->leave_by_ms)
		let_leave(r);
	else
		loop_timer(r->loop, &r->leave, LEAVE_CHECK_MS);
}

static void apply_fleet(struct reload *r, const struct static_fleet *fleet) {
	if (!timer_is_running(&r->leave)) /* else those are waited for as well whom the last reload brought */
		r->newest = newest_of(*r->snapshot);
	for (size_t i = 0; i < fleet->n; i++) {
		int outcome = fleet_take_over(r->fleet, SOURCE_STATIC, &fleet->specs[i]);
		assert(!outcome); /* fleet_check() */
	}
	fleet_set_rank_defaults(r->fleet, &r->router->settings->config->ranks);
	timer_stop(&r->leave);
	r->on_change(r);
	if (!fleet_has_others(r->fleet, SOURCE_STATIC, fleet->specs, fleet->n))
		return;
	r->leave_by_ms = loop_now_ms(r->loop) + LEAVE_MS;
	on_leave(&r->leave);
}

static void apply_to_endpoints(struct endpoint_server *server, const struct router_config *config) {
	if (server)
		server->server.dialect = (uint8_t)config->errors;
}

/* Behind it nobody on this thread looks at the old settings. */
static void apply_to_control(struct reload *r, const struct router_config *config) {
	const struct health_options health = reload_health_options(config);
	const struct scrape_options scrape = reload_scrape_options(config, r->router->load);
	const struct watch_intervals every = reload_watch_intervals(config);
	const struct registry_options registry = reload_registry_options(config);

	log_set_level(config->log_level);
	health_retune(r->health, &health);
	scraper_retune(r->scraper, &scrape);
	scraper_sync(r->scraper, *r->snapshot); /* it may have been off */
	watcher_retune(r->watcher, &every);
	if (r->registry)
		registry_source_retune(r->registry, &registry);
	apply_to_endpoints(r->admin, config);
	apply_to_endpoints(r->metrics, config);
	r->admin->token = config->admin_key;
}

/* Limits before settings: a worker's tenants are known when its requests are. */
static void apply_to_workers(struct reload *r) {
	struct router *router = r->router;
	const struct admission_limits limits = settings_limits(router->settings);

	admission_limit(router->admission, &limits);
	gatekeeper_limit(
	    router->gate, limits.tenants, limits.n_tenants, router->settings->config->admission.queue_size);
	for (unsigned i = 0; i < router->n_workers; i++)
		worker_give_settings(&router->workers[i], settings_ref(router->settings));
}

static void apply(struct reload *r, struct attempt *a) {
	struct router *router = r->router;
	struct settings *old = router->settings;

	router->settings = settings_new(a->config, router->n_workers, old);
	settings_own(router->settings, a->config);
	apply_to_workers(r);
	apply_to_control(r, a->config);
	certificates_take(r->certificates, &a->tls);
	apply_fleet(r, &a->fleet);
	a->config = NULL;
	settings_unref(&old);
}

/* --- the whole ---------------------------------------------------------------------------------- */

static json_t *report_applied(struct reload *r, struct attempt *a) {
	const struct router_config *in_use = r->router->settings->config;
	json_t *report = config_diff(in_use, a->config), *fresh = new_lines(a->warnings, in_use->options);

	apply(r, a);
	r->n_applied++;
	log_lines(fresh, LOG_WARN, "about the configuration");
	json_decref(fresh);
	log_applied(report);
	json_object_set_new(report, "applied", json_true());
	json_object_set(report, "warnings", a->warnings);
	return report;
}

static json_t *report_refused(struct reload *r, struct attempt *a) {
	r->n_refused++;
	log_refused(a);
	certificates_drop(&a->tls);
	router_config_free(&a->config);
	return json_pack("{s:b, s:{s:s, s:s, s:n, s:s}, s:O}", "applied", false, "error", "message",
	    a->message, "type", "invalid_request_error", "param", "code", a->code, "mistakes", a->mistakes);
}

bool reload_run(struct reload *r, json_t **report_out) {
	struct attempt a = { .mistakes = json_array(), .warnings = json_array() };
	bool is_leaving = atomic_load_explicit(&r->router->is_leaving, memory_order_relaxed);

	if (!is_leaving) /* else the manager has heard of the end, or of another process */
		notify_reloading();
	bool is_good =
	    is_leaving ? refuse(&a, "stopping", "the router is being stopped, or replaced") : check(&a, r);
	*report_out = is_good ? report_applied(r, &a) : report_refused(r, &a);
	static_fleet_deinit(&a.fleet);
	json_decref(a.mistakes);
	json_decref(a.warnings);
	if (!is_leaving)
		notify_ready();
	return is_good;
}

void reload_init(struct reload *r) {
	timer_init(&r->leave, on_leave);
}

void reload_deinit(struct reload *r) {
	timer_stop(&r->leave);
}

/* --- the answer ----------------------------------------------------------------------------------- */

/* Mail keeps its order: who has this one has the settings. */
struct round {
	struct mail mail;
	struct answer *answer;
};

struct answer {
	struct endpoint_call *call; /* NULL: the client has left */
	struct loop *loop;
	json_t *json;
	unsigned n_left;
	struct round rounds[];
};

static void on_round_done(struct mail *mail) {
	struct answer *a = container_of(mail, struct round, mail)->answer;

	if (--a->n_left)
		return;
	if (a->call)
		endpoint_answer_json(a->call, 200, a->json);
	else
		json_decref(a->json);
	free(a);
}

static void on_round(struct mail *mail) {
	loop_post(container_of(mail, struct round, mail)->answer->loop, mail, on_round_done);
}

static void on_gone(void *owner) {
	struct answer *a = owner;

	a->call = NULL;
}

/* Once all workers go by it: what is asked after the answer is asked under the new settings. Takes the JSON.
 */
static void answer_later(struct endpoint_call *call, const struct reload *r, json_t *json) {
	unsigned n = r->router->n_workers;
	struct answer *a = calloc(1, sizeof(*a) + n * sizeof(a->rounds[0]));

	*a = (struct answer){ .call = call, .loop = r->loop, .json = json, .n_left = n };
	endpoint_keep(call, on_gone, a);
	for (unsigned i = 0; i < n; i++) {
		a->rounds[i].answer = a;
		loop_post(&r->router->workers[i].loop, &a->rounds[i].mail, on_round);
	}
}

void reload_answer(struct endpoint_call *call) {
	struct reload *r = ((const struct report *)endpoint_context(call))->reload;
	json_t *json;

	if (reload_run(r, &json))
		answer_later(call, r, json);
	else
		endpoint_answer_json(call, 409, json);
}

void reload_write_metrics(const struct reload *r, FILE *out) {
	metric_write_family(
	    out, "headrace_reloads_total", "counter", "Times that the configuration was read again.");
	metric_write_row(out, "headrace_reloads_total", "outcome", "applied", (double)r->n_applied);
	metric_write_row(out, "headrace_reloads_total", "outcome", "refused", (double)r->n_refused);
	metric_write_one(out, "headrace_settings_in_use", "gauge",
	    "Configurations that requests go by: one, and those of before that some began under.",
	    settings_n_alive());
}
