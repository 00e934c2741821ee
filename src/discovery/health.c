/*
 * One monitor per instance. All that is heard of it goes through monitor_apply(), which
 * compares what was with what is: there, and only there, transitions are counted, logged
 * and told to the fleet.
 */
#include "discovery/health.h"

#include "base/log.h"
#include "discovery/checkup.h"
#include "discovery/progress.h"
#include "fleet/guard.h"

#define TICK_MS       100u
#define GAP_MS        2000u /* between two ticks: the process stood still */
#define SPREAD_MS     2u    /* for each instance, of the first round of probes */
#define PROBES_MAX    256u  /* at once: descriptors are for requests */
#define INQUIRIES_MAX 16u   /* at once: they take long, and probes must not wait for them */
#define FRESH_MS      1000u /* by then all workers have counted streams again */

struct monitor {
	struct health *health;
	struct instance *instance;
	uint32_t row; /* in health->snapshot */
	struct health_state state;
	struct checkup engine, sitter;
	struct progress progress;
	struct health_evidence seen;
	uint64_t avoid_until_ms; /* as last seen */
	uint64_t began_ms, probe_at_ms;
	enum instance_state told; /* the fleet */
	bool is_listed;
};

static uint64_t health_now(const struct health *h) {
	return loop_now_ms(h->loop);
}

static const struct snapshot_row *monitor_row(const struct monitor *m) {
	return &m->health->snapshot->rows[m->row];
}

static struct monitor *health_monitor(const struct health *h, uint32_t row) {
	return h->monitors[h->snapshot->rows[row].instance->slot];
}

/* --- ranks: monitors of one engine; of who has no rank, it alone ------------------------------ */

/* The one whose probes are for all. */
static struct monitor *monitor_first(const struct monitor *m) {
	return health_monitor(m->health, monitor_row(m)->first_rank);
}

/* From the first on; NULL behind the last. */
static struct monitor *monitor_next(const struct monitor *m) {
	uint32_t row = monitor_row(m)->next_rank;

	return row == SNAPSHOT_NO_ROW ? NULL : health_monitor(m->health, row);
}

/* The one that is asked most often says when. */
static uint64_t monitor_probe_wait_ms(const struct monitor *first) {
	uint64_t wait_ms = UINT64_MAX;

	for (const struct monitor *m = first; m; m = monitor_next(m))
		wait_ms = u64_min(wait_ms, health_state_probe_wait_ms(&m->state));
	return wait_ms;
}

static void monitor_probe_in(const struct monitor *m, uint64_t wait_ms) {
	struct monitor *first = monitor_first(m);

	first->probe_at_ms = u64_min(first->probe_at_ms, loop_now_ms(m->health->loop) + wait_ms);
}

/* --- the one way out --------------------------------------------------------------------- */

static void monitor_log(const struct monitor *m, enum instance_state from) {
	bool is_bad = m->state.state == INSTANCE_UNHEALTHY;
	struct log_event e;

	log_begin(&e, is_bad ? LOG_WARN : LOG_INFO, "instance changed its state");
	line_text(&e.line, SLICE("instance"), m->instance->spec.name);
	line_text(&e.line, SLICE("from"), slice_of(instance_state_text(from)));
	line_text(&e.line, SLICE("to"), slice_of(instance_state_text(m->state.state)));
	line_text(&e.line, SLICE("reason"), slice_of(health_cause_text(m->state.cause)));
	if (is_bad && m->state.held_ms)
		line_uint(&e.line, SLICE("held_ms"), m->state.held_ms);
	log_end(&e);
}

/* Something was heard, or time has passed: what follows of it? */
static void monitor_apply(struct monitor *m) {
	struct health *h = m->health;
	enum instance_state from = m->told, to = m->state.state;

	if (from != to) {
		m->told = to;
		h->n_transitions[to]++;
		monitor_log(m, from);
		if (!instance_state_may_follow(from, to)) /* a good probe at once */
			fleet_set_state(h->fleet, m->instance, INSTANCE_UNKNOWN);
		fleet_set_state(h->fleet, m->instance, to);
		if (to == INSTANCE_UNHEALTHY) /* is it back? */
			monitor_probe_in(m, health_state_probe_wait_ms(&m->state));
		if (from >= INSTANCE_DRAINING && to == INSTANCE_UNKNOWN)
			monitor_probe_in(m, 0);   /* it need not be on trial for long */
		if (from >= INSTANCE_UNHEALTHY) { /* workers held it against it, too */
			instance_succeeded(m->instance);
			guard_relent(m->instance, health_now(h));
		}
	}
	fleet_set_share(h->fleet, m->instance, health_state_share(&m->state, health_now(h)),
	    health_state_is_refusing(&m->state));
	fleet_set_denied(h->fleet, m->instance, m->state.is_denied);
	loop_wake(h->loop, &h->change);
}

/* As operators and sources want it. */
static void monitor_heed(struct monitor *m) {
	const struct health *h = m->health;

	health_state_will(&m->state, fleet_will(h->fleet, m->instance), health_now(h));
	if (m->state.state != m->told)
		monitor_apply(m);
}

/* --- probes --------------------------------------------------------------------------------- */

static void monitor_on_engine(struct checkup *c, enum checkup_outcome outcome, uint64_t took_us) {
	struct monitor *m = container_of(c, struct monitor, engine);
	static const enum health_verdict verdicts[] = {
		[CHECKUP_GOOD] = HEALTH_PROBE_GOOD,
		[CHECKUP_BAD] = HEALTH_PROBE_BAD,
		[CHECKUP_DRAINS] = HEALTH_PROBE_DRAINS,
		[CHECKUP_REFUSED] = HEALTH_PROBE_REFUSED,
	};

	if (outcome == CHECKUP_UNASKED)
		return;
	assert(outcome < n_elems(verdicts));
	m->health->n_probes++;
	m->health->n_failed_probes += outcome == CHECKUP_BAD || outcome == CHECKUP_REFUSED;
	for (; m; m = monitor_next(m)) {
		if (outcome == CHECKUP_GOOD)
			atomic_store_explicit(
			    &m->instance->response_us, u64_max(took_us, 1), memory_order_relaxed);
		health_state_probe(&m->state, verdicts[outcome], health_now(m->health));
		monitor_apply(m);
	}
}

static void monitor_on_sitter(struct checkup *c, enum checkup_outcome outcome, uint64_t took_us) {
	struct monitor *m = container_of(c, struct monitor, sitter);

	if (outcome == CHECKUP_UNASKED)
		return;
	/* One that ceases to answer cannot hold against the engine what it said before. */
	enum health_word word = outcome == CHECKUP_BAD ? HEALTH_WORD_DENIES
	    : outcome == CHECKUP_DRAINS                ? HEALTH_WORD_DRAINS
						       : HEALTH_WORD_SERVES;
	for (; m; m = monitor_next(m)) {
		health_state_word(&m->state, word, health_now(m->health));
		monitor_apply(m);
	}
}

static void monitor_probe(struct monitor *m) {
	const struct snapshot_row *row = monitor_row(m);
	struct health *h = m->health;
	uint64_t wait_ms = monitor_probe_wait_ms(m);

	if (row->n_addresses == 0 || h->n_probing + 2 > PROBES_MAX)
		return;
	/* Within a tenth of its time, so that many drift apart. */
	m->probe_at_ms = health_now(h) + wait_ms - wait_ms / 10 + rng_below(&h->rng, wait_ms / 5 + 1);
	if (row->source == SOURCE_REGISTRY && !m->instance->spec.is_provider &&
	    m->instance->spec.port < UINT16_MAX && !checkup_is_busy(&m->sitter)) {
		h->n_probing++;
		checkup_start(
		    &m->sitter, m->instance, row->addresses, row->n_addresses, (struct slice){ NULL, 0 });
	}
	if (!checkup_is_busy(&m->engine)) {
		h->n_probing++;
		checkup_start(&m->engine, m->instance, row->addresses, row->n_addresses,
		    instance_key(&m->instance->spec, h->options.api_key));
	}
}

/* --- what the workers saw -------------------------------------------------------------------- */

/* Nobody listens there: for none of its ranks. */
static void monitor_refused(struct monitor *m) {
	for (m = monitor_first(m); m; m = monitor_next(m)) {
		health_state_refused(&m->state, health_now(m->health));
		monitor_apply(m);
	}
}

/* It hangs since a moment ago: who is with it in that? */
static void monitor_hangs(struct monitor *hung) {
	for (struct monitor *m = monitor_first(hung); m; m = monitor_next(m)) {
		if (m == hung)
			continue;
		health_state_join_hang(&m->state, health_now(m->health));
		if (m->state.state != m->told)
			monitor_apply(m);
	}
}

/* What followed of what was heard of it alone. */
static void monitor_judge(struct monitor *m) {
	if (health_state_is_hung(&m->state) && m->told != INSTANCE_UNHEALTHY)
		monitor_hangs(m);
	monitor_apply(m);
}

static void monitor_look(struct monitor *m, bool has_gap) {
	struct health *h = m->health;
	uint64_t now_ms = health_now(h);
	uint64_t avoid_until_ms = instance_refused_until_ms(m->instance);
	struct health_evidence seen;

	h->evidence(h->context, m->instance->slot, &seen);
	if (avoid_until_ms != m->avoid_until_ms && avoid_until_ms > now_ms)
		monitor_refused(m);
	m->avoid_until_ms = avoid_until_ms;
	health_state_answers(&m->state, (uint32_t)(seen.n_good - m->seen.n_good),
	    (uint32_t)(seen.n_faults - m->seen.n_faults), now_ms);
	/* The gauges of its slot may still be those of the one that had it before. */
	if (!has_gap && now_ms - m->began_ms >= FRESH_MS) {
		health_state_streams(&m->state, seen.n_streams, seen.n_stalled, now_ms);
		health_state_waits(&m->state, seen.n_waiting);
	}
	if (seen.answered_ms > m->seen.answered_ms)
		health_state_acquit(&m->state, now_ms);
	m->seen = seen;
}

/* --- does it work? --------------------------------------------------------------------------- */

static void monitor_on_progress(struct progress *p, enum health_progress progress) {
	struct monitor *m = container_of(p, struct monitor, progress);

	health_state_progress(&m->state, progress, health_now(m->health));
	monitor_judge(m);
}

/* Nobody is asked, nor listened to, whom nothing is held against any more; nor is who takes money for it. */
static void monitor_inquire(struct monitor *m) {
	const struct snapshot_row *row = monitor_row(m);
	struct health *h = m->health;

	if (m->instance->spec.is_provider)
		return;
	if (!health_state_is_suspect(&m->state, health_now(h))) {
		progress_cancel(&m->progress);
		return;
	}
	if (progress_is_busy(&m->progress) || row->n_addresses == 0 || h->n_inquiring >= INQUIRIES_MAX)
		return;
	h->n_inquiring++;
	progress_start(&m->progress,
	    &(struct progress_question){
		.instance = m->instance,
		.address = &row->addresses[instance_good_address(m->instance, row->n_addresses)],
		.bearer = instance_key(&m->instance->spec, h->options.api_key),
		.model = h->options.has_canary && row->models.n ? row->models.items[0].key
								: (struct slice){ NULL, 0 },
		.is_hung = health_state_is_hung(&m->state),
	    });
}

static void monitor_tick(struct monitor *m, uint64_t gap_ms) {
	struct health *h = m->health;
	unsigned share = health_state_share(&m->state, h->ticked_ms);
	bool is_refusing = health_state_is_refusing(&m->state);

	if (gap_ms) {
		health_state_forgive(&m->state, gap_ms, health_now(h));
		progress_cancel(&m->progress); /* the engine may have stood still with us */
	}
	if (h->options.is_passive)
		monitor_look(m, gap_ms > 0);
	monitor_inquire(m);
	health_state_tick(&m->state, health_now(h));
	if (m->state.state != m->told || is_refusing != health_state_is_refusing(&m->state) ||
	    share != health_state_share(&m->state, health_now(h)))
		monitor_judge(m);
	if (h->options.has_probes && monitor_first(m) == m && health_now(h) >= m->probe_at_ms)
		monitor_probe(m);
}

static void health_count_asked(struct health *h) {
	h->n_probing = h->n_inquiring = 0;
	for (uint32_t i = 0; i < h->snapshot->n_rows; i++) {
		const struct monitor *m = health_monitor(h, i);

		h->n_probing += (unsigned)checkup_is_busy(&m->engine) + (unsigned)checkup_is_busy(&m->sitter);
		h->n_inquiring += progress_is_busy(&m->progress);
	}
}

static void health_on_tick(struct timer *t) {
	struct health *h = container_of(t, struct health, tick);
	uint64_t now_ms = health_now(h), passed_ms = now_ms - h->ticked_ms;
	uint32_t n = h->snapshot->n_rows;

	loop_timer(h->loop, &h->tick, TICK_MS);
	health_count_asked(h);
	for (uint32_t i = 0; i < n; i++) /* where there are many, each comes first at times */
		monitor_tick(health_monitor(h, (h->first_row + i) % n), passed_ms > GAP_MS ? passed_ms : 0);
	h->first_row = n ? (h->first_row + PROBES_MAX) % n : 0;
	h->ticked_ms = now_ms;
}

/* --- the table ------------------------------------------------------------------------------- */

static void monitor_set_endpoint(struct monitor *m) {
	const char *endpoint = m->health->options.endpoint;

	if (endpoint)
		m->engine.path = slice_of(endpoint);
}

static struct monitor *monitor_new(struct health *h, const struct snapshot_row *row, uint32_t n_rows) {
	struct monitor *m = calloc(1, sizeof(*m));
	uint64_t spread_ms = u64_min((uint64_t)n_rows * SPREAD_MS, h->options.interval_ms);

	m->health = h;
	m->instance = instance_ref(row->instance);
	if (!fleet_state(h->fleet, m->instance, &m->told)) /* it has left meanwhile */
		m->told = INSTANCE_UNKNOWN;
	health_state_init(&m->state, &h->limits, health_now(h));
	health_state_begin(&m->state, m->told, health_now(h));
	health_state_hold(&m->state, row->held_until_ms, health_now(h));
	checkup_init(&m->engine, h->loop, CHECKUP_ENGINE, h->options.timeout_ms, monitor_on_engine);
	monitor_set_endpoint(m);
	checkup_init(&m->sitter, h->loop, CHECKUP_SITTER, h->options.timeout_ms, monitor_on_sitter);
	progress_init(&m->progress, h->loop, h->options.timeout_ms, h->options.stall_ms, monitor_on_progress);
	m->began_ms = health_now(h);
	m->probe_at_ms = m->began_ms + rng_below(&h->rng, spread_ms + 1);
	m->avoid_until_ms = instance_refused_until_ms(row->instance);
	h->evidence(h->context, m->instance->slot, &m->seen);
	atomic_store_explicit(&m->instance->n_requests_before, m->seen.n_requests, memory_order_relaxed);
	atomic_store_explicit(&m->instance->n_errors_before, m->seen.n_errors, memory_order_relaxed);
	for (unsigned i = 0; i < BREAKER_OUTCOMES; i++)
		atomic_store_explicit(
		    &m->instance->n_outcomes_before[i], m->seen.n_outcomes[i], memory_order_relaxed);
	return m;
}

static void monitor_free(struct monitor **mp) {
	struct monitor *m = *mp;

	*mp = NULL;
	checkup_deinit(&m->engine);
	checkup_deinit(&m->sitter);
	progress_cancel(&m->progress);
	instance_unref(&m->instance);
	free(m);
}

static void health_let_go(struct health *h) {
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (h->monitors[slot] && !h->monitors[slot]->is_listed)
			monitor_free(&h->monitors[slot]);
}

static void health_on_change(struct job *job) {
	struct health *h = container_of(job, struct health, change);

	h->on_change(h);
}

static void health_set_options(struct health *h, const struct health_options *options) {
	h->options = *options;
	h->limits = (struct health_limits){ .interval_ms = options->has_probes ? options->interval_ms : 0,
		.slow_start_ms = options->slow_start_ms,
		.stall_ms = options->stall_ms,
		.errors_max = options->errors_max,
		.n_good_min = options->n_good_min };
}

/* A probe that is due later than it would be now comes earlier; what a question under way asks next it asks
 * with the new key: the old one's text may be gone by then. */
static void monitor_retune(struct monitor *m) {
	const struct health *h = m->health;

	m->engine.fetch.timeout_ms = m->sitter.fetch.timeout_ms = h->options.timeout_ms;
	m->engine.bearer = m->progress.bearer = instance_key(&m->instance->spec, h->options.api_key);
	monitor_set_endpoint(m);
	m->progress.answer_ms = h->options.timeout_ms;
	m->progress.pause_ms = h->options.stall_ms;
	m->probe_at_ms = u64_min(m->probe_at_ms, health_now(h) + health_state_probe_wait_ms(&m->state));
}

void health_retune(struct health *h, const struct health_options *options) {
	health_set_options(h, options);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (h->monitors[slot])
			monitor_retune(h->monitors[slot]);
}

void health_init(struct health *h, struct loop *loop, struct fleet *fleet,
    const struct health_options *options, health_evidence_fn evidence, void *context,
    void (*on_change)(struct health *h)) {
	memset(h, 0, sizeof(*h));
	h->loop = loop;
	h->fleet = fleet;
	health_set_options(h, options);
	h->evidence = evidence;
	h->context = context;
	h->on_change = on_change;
	h->ticked_ms = health_now(h);
	rng_init_random(&h->rng);
	timer_init(&h->tick, health_on_tick);
	job_init(&h->change, health_on_change);
}

void health_deinit(struct health *h) {
	timer_stop(&h->tick);
	job_cancel(&h->change);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (h->monitors[slot])
			monitor_free(&h->monitors[slot]);
	snapshot_unref(&h->snapshot);
}

void health_sync(struct health *h, struct snapshot *snapshot) {
	struct snapshot *old = h->snapshot;

	h->snapshot = snapshot_ref(snapshot);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (h->monitors[slot])
			h->monitors[slot]->is_listed = false;
	for (uint32_t i = 0; i < snapshot->n_rows; i++) {
		const struct snapshot_row *row = &snapshot->rows[i];
		struct monitor **m = &h->monitors[row->instance->slot];
		bool is_new = !*m;

		/* A slot is taken again only when nobody holds its last instance, and the monitor did. */
		if (is_new)
			*m = monitor_new(h, row, snapshot->n_rows);
		assert((*m)->instance == row->instance);
		(*m)->row = i;
		(*m)->is_listed = true;
		if (is_new)
			monitor_apply(*m);
		monitor_heed(*m);
	}
	health_let_go(h);
	snapshot_unref(&old);
	if (!timer_is_running(&h->tick))
		loop_timer(h->loop, &h->tick, 0);
}

void health_heed(struct health *h) {
	for (uint32_t i = 0; i < h->snapshot->n_rows; i++)
		monitor_heed(health_monitor(h, i));
}
