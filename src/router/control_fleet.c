/* The fleet: who says what of it, what follows, and when the workers are told. */
#include "router/control.h"

#include "base/log.h"
#include "router/engine_info.h"
#include "router/fleet_routes.h"
#include "router/flush.h"
#include "router/leavers.h"
#include "router/recruits.h"
#include "router/split_breaker.h"
#include "router/static_fleet.h"
#include "router/verdicts.h"

/* --- fleet -------------------------------------------------------------------- */

/* A model begins, or ceases, to be served by instances that seem unhealthy. */
static void control_say_panics(const struct snapshot *old, const struct snapshot *new) {
	for (uint32_t i = 0; i < new->n_models; i++) {
		const struct model *model = &new->models[i], *before = snapshot_model(old, model->name);
		struct log_event e;
		if (model->is_panic == (before && before->is_panic))
			continue;
		log_begin(&e, model->is_panic ? LOG_ERROR : LOG_INFO,
		    model->is_panic
			? "more than half of a model's instances are unhealthy: they get requests "
			  "all the same"
			: "enough of a model's instances are healthy again");
		line_text(&e.line, SLICE("model"), model->name);
		line_uint(&e.line, SLICE("healthy"), model->n_healthy);
		line_uint(&e.line, SLICE("candidates"), model->n_candidates);
		log_end(&e);
	}
}

void control_publish_now(struct control *c) {
	struct snapshot *next = c->is_started ? fleet_build(c->fleet) : NULL;
	if (!next)
		return;
	c->published_ms = loop_now_ms(&c->loop);
	health_sync(&c->health, next);
	if (c->router.prefixes)
		prefix_index_widen(c->router.prefixes, next->n_rows);
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_publish(&c->router.workers[i], snapshot_ref(next));
	gatekeeper_publish(c->router.gate, next);
	control_say_panics(c->snapshot, next);
	label_check_see(&c->labels, next);
	if (c->config->metrics_compat == ROUTER_METRICS_VLLM)
		vllm_turnover_note(&c->report.turnover, c->snapshot, next);
	snapshot_unref(&c->snapshot);
	c->snapshot = next;
	c->report.snapshot = next;
	watcher_sync(&c->watcher, next);
	scraper_sync(&c->scraper, next);
	kv_engines_sync(&c->kv_engines, next);
	recruits_sync(c->report.recruits, next);
}

void control_on_publish(struct timer *t) {
	control_publish_now(container_of(t, struct control, publish));
}

/* The first news go out at once. */
static void control_publish(struct control *c) {
	uint64_t passed_ms = loop_now_ms(&c->loop) - c->published_ms;
	if (passed_ms >= CONTROL_PUBLISH_MS)
		control_publish_now(c);
	else if (!timer_is_running(&c->publish))
		loop_timer(&c->loop, &c->publish, CONTROL_PUBLISH_MS - passed_ms);
}

void control_on_watch(struct watcher *watcher) {
	control_publish(container_of(watcher, struct control, watcher));
}

static void control_on_health(struct health *health) {
	control_publish(container_of(health, struct control, health));
}

/* What an operator wishes is known to all workers in the order in which they get their mail. */
static void control_on_wish(struct report *report) {
	struct control *c = container_of(report, struct control, report);
	health_heed(&c->health);
	control_publish_now(c);
}

static void control_on_scraper(struct scraper *scraper) {
	control_publish(container_of(scraper, struct control, scraper));
}

static void control_on_registry(struct registry_source *registry) {
	control_publish(container_of(registry, struct control, registry));
}

static void control_on_zmq(struct zmq_source *zmq) {
	control_publish(container_of(zmq, struct control, zmq));
}

void control_on_kv_engines(struct kv_engines *kv_engines) {
	control_publish(container_of(kv_engines, struct control, kv_engines));
}

/* What all workers have counted for a slot. */
static void control_evidence(void *context, unsigned slot, struct health_evidence *out) {
	const struct router *router = context;
	*out = (struct health_evidence){ .n_good = 0 };
	for (unsigned i = 0; i < router->n_workers; i++) {
		const struct worker_tally *t = &router->workers[i].tallies[slot];
		uint32_t n_streams = atomic_load_explicit(&t->n_streams, memory_order_relaxed);
		uint32_t n_stalled = atomic_load_explicit(&t->n_stalled, memory_order_relaxed);
		out->n_requests += metric_read(&t->n_requests);
		out->n_errors += metric_read(&t->n_errors);
		out->n_good += metric_read(&t->n_good);
		out->n_faults += metric_read(&t->n_faults);
		for (unsigned k = 0; k < BREAKER_OUTCOMES; k++)
			out->n_outcomes[k] += metric_read(&t->n_outcomes[k]);
		out->answered_ms =
		    u64_max(out->answered_ms, atomic_load_explicit(&t->answered_ms, memory_order_relaxed));
		out->n_waiting += atomic_load_explicit(&t->n_waiting, memory_order_relaxed);
		out->n_streams += n_streams;
		out->n_stalled +=
		    n_stalled < n_streams ? n_stalled : n_streams; /* read one after the other */
	}
}

/* Before the first snapshot, which then has what was kept of the registry. */
bool control_open_registry(struct control *c) {
	const struct router_config *config = c->config;
	const struct registry_options options = reload_registry_options(config);
	if (!config->registry_url[0])
		return true;
	c->has_registry =
	    registry_source_init(&c->registry, &c->loop, c->fleet, &options, control_on_registry);
	if (!c->has_registry)
		fprintf(stderr, "headrace router: registry: cannot ask %s\n", config->registry_url);
	c->report.registry = c->has_registry ? &c->registry : NULL;
	c->report.watcher = &c->watcher;
	return c->has_registry;
}

/* Before the first snapshot, which then has whom the process before us knew. */
void control_open_zmq(struct control *c) {
	const struct router_pd *pd = &c->config->pd;
	/* nixl says nothing: its engines do not announce themselves. */
	const char *connector = strcmp(pd->connector, "nixl") == 0 ? "p2p_nccl" : pd->connector;
	c->has_zmq = pd->discovery_address[0];
	if (!c->has_zmq)
		return;
	zmq_source_init(&c->zmq, &c->loop, c->fleet, connector, control_on_zmq);
	int kept = handed_take(&c->succession.handed, "zmq_records");
	if (kept >= 0)
		zmq_source_restore(&c->zmq, kept);
	c->report.zmq = &c->zmq;
}

void control_open_health(struct control *c) {
	const struct health_options options = reload_health_options(c->config);
	health_init(
	    &c->health, &c->loop, c->fleet, &options, control_evidence, &c->router, control_on_health);
	c->report.health = &c->health;
	c->report.fleet = c->fleet;
	c->report.on_wish = control_on_wish;
}

void control_open_scraper(struct control *c) {
	const struct scrape_options options = reload_scrape_options(c->config, c->router.load);
	scraper_init(&c->scraper, &c->loop, c->fleet, &options, control_on_scraper);
	c->report.scraper = &c->scraper;
}

void control_open_gate(struct control *c) {
	struct router *router = &c->router;
	const struct admission_limits limits = settings_limits(router->settings);
	router->admission = admission_new(&limits);
	const struct gatekeeper_options options = { .loop = &c->loop,
		.admission = router->admission,
		.load = router->load,
		.tenants = limits.tenants,
		.n_tenants = limits.n_tenants,
		.n_max = c->config->admission.queue_size };
	router->gate = gatekeeper_new(&options);
	router->split_breaker = calloc(1, sizeof(*router->split_breaker));
	gatekeeper_publish(router->gate, c->snapshot);
}

void control_close_gate(struct control *c) {
	gatekeeper_free(&c->router.gate);
	free(c->router.split_breaker);
	admission_free(&c->router.admission);
}

bool control_open_verdicts(struct control *c) {
	const struct router_validation *config = &c->router.settings->config->validation;
	const struct verdict_options options = { config->urls, config->times, config->timeout_ms };
	const char *url;
	if (!config->urls.n)
		return true;
	c->router.verdicts = verdicts_new(&c->loop, &options, &url);
	if (!c->router.verdicts)
		fprintf(stderr, "headrace router: keys: cannot ask %s\n", url);
	return c->router.verdicts;
}

static int control_say_refused(const char *name, int r) {
	if (r)
		fprintf(stderr, "headrace router: worker %s: %s\n", name,
		    r == FLEET_E_FULL ? "too many instances" : "beyond a limit of the fleet table");
	return r;
}

bool control_fill_fleet(struct control *c) {
	struct static_fleet fleet;
	int r = 0;
	fleet_set_rank_defaults(c->fleet, &c->config->ranks);
	static_fleet_init(&fleet, c->config);
	for (size_t i = 0; i < fleet.n && !r; i++)
		r = control_say_refused(
		    fleet.specs[i].instance.name.p, fleet_upsert(c->fleet, SOURCE_STATIC, &fleet.specs[i]));
	static_fleet_deinit(&fleet);
	return !r;
}

/* --- workers that are registered while we run ------------------------------------------ */

static struct recruits_terms control_recruit_terms(void *context) {
	const struct router_config *config = ((const struct control *)context)->config;
	return (struct recruits_terms){ .health_path = config->health.endpoint,
		.api_key = config->engine_key,
		.startup_timeout_ms = config->worker_startup_timeout_ms,
		.answer_ms = config->health.timeout_ms };
}

static void control_on_recruits(void *context) {
	control_publish_now(context);
}

/* Before the first snapshot, which then has those of before. */
void control_open_recruits(struct control *c) {
	struct router *router = &c->router;
	const struct recruits_options options = { .loop = &c->loop,
		.fleet = c->fleet,
		.file = c->config->workers_file,
		.terms = control_recruit_terms,
		.on_change = control_on_recruits,
		.on_end = fleet_routes_added,
		.context = c };
	petitions_init(&router->petitions, &c->loop, fleet_routes_run, &c->report);
	list_init(&c->report.flushes);
	list_init(&c->report.infos);
	c->report.recruits = recruits_new(&options);
	c->report.leavers = leavers_new(router->load);
}

void control_close_recruits(struct control *c) {
	flush_close(&c->report);
	engine_info_close(&c->report);
	petitions_close(&c->router.petitions);
	recruits_free(&c->report.recruits);
	leavers_free(&c->report.leavers);
}
