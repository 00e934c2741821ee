#include "discovery/scrape.h"

#include <math.h>
#include <stdlib.h>

#include "base/log.h"
#include "http/fetch.h"

#define BODY_BYTES_MAX (2u << 20) /* engines with many ranks have long ones */
#define UNDER_WAY_MAX  64u
#define FAILING_MAX    (UNDER_WAY_MAX / 2) /* of them, those that failed last: others must not wait for them */
#define TICK_MAX_MS    100u
#define TICK_MIN_MS    10u
#define NONE_MS        60000u /* until one without figures is asked again */
#define DOUBLINGS_MAX  3u     /* of the interval, with each failure in a row */
#define FRESH          3u     /* intervals */

/* A clock that is set right moves what some systems say of a process by a second. */
#define STARTED_SLACK_S 1.5

struct scrape {
	struct scraper *scraper;
	struct instance *instance;
	struct fetch fetch;
	struct figures figures; /* of the last good answer */
	uint64_t said_ms;       /* when it came; 0: never */
	double started_s;       /* as said last; 0: never */
	double n_generated;     /* likewise, at: */
	uint64_t generated_ms;  /* 0: never */
	uint64_t ask_at_ms;
	unsigned n_failed;  /* in a row */
	uint32_t n_refused; /* connects, ever: which address is next */
	uint32_t row;       /* in scraper->snapshot */
	bool is_asking;     /* for itself, or for all ranks of its engine */
	bool is_cut;        /* said in the log: there is no room for all of its ranks */
	bool is_listed;
};

const char *scrape_outcome_text(enum scrape_outcome outcome) {
	static const char *const texts[SCRAPE_OUTCOMES] = { "good", "none", "failed" };

	assert(outcome < SCRAPE_OUTCOMES);
	return texts[outcome];
}

static uint64_t scraper_now(const struct scraper *s) {
	return loop_now_ms(s->loop);
}

/* Within a tenth of its time, so that many drift apart. */
static void scrape_ask_in(struct scrape *s, uint64_t wait_ms) {
	s->ask_at_ms =
	    scraper_now(s->scraper) + wait_ms - wait_ms / 10 + rng_below(&s->scraper->rng, wait_ms / 5 + 1);
}

/* --- what it says ------------------------------------------------------------------------ */

static bool scrape_is_restarted(const struct scrape *s, const struct figures *f) {
	if (f->is_said[FIGURE_STARTED] && s->started_s > 0 &&
	    fabs(f->values[FIGURE_STARTED] - s->started_s) > STARTED_SLACK_S)
		return true;
	return f->is_said[FIGURE_GENERATED] && s->generated_ms &&
	    f->values[FIGURE_GENERATED] < s->n_generated;
}

/* An engine that does not say its rate shows it by what its counter has grown by. */
static void scrape_show_rate(const struct scrape *s, struct figures *f, bool is_restarted) {
	uint64_t now_ms = scraper_now(s->scraper);

	if (f->is_said[FIGURE_GENERATION_RATE] || !f->is_said[FIGURE_GENERATED] || !s->generated_ms ||
	    now_ms <= s->generated_ms || is_restarted)
		return;
	f->is_said[FIGURE_GENERATION_RATE] = true;
	f->values[FIGURE_GENERATION_RATE] =
	    (f->values[FIGURE_GENERATED] - s->n_generated) * 1000 / (double)(now_ms - s->generated_ms);
}

static void scrape_remember(struct scrape *s, const struct figures *f) {
	s->figures = *f;
	s->said_ms = scraper_now(s->scraper);
	if (f->is_said[FIGURE_STARTED])
		s->started_s = f->values[FIGURE_STARTED];
	if (f->is_said[FIGURE_GENERATED]) {
		s->n_generated = f->values[FIGURE_GENERATED];
		s->generated_ms = s->said_ms;
	}
}

/* What it does not say this time stays as it was. */
static void scrape_learn(struct scrape *s, struct figures *f) {
	struct learned *learned = &s->instance->learned;
	bool is_restarted = scrape_is_restarted(s, f);

	if (is_restarted)
		atomic_fetch_add_explicit(&learned->n_restarts, 1, memory_order_relaxed);
	scrape_show_rate(s, f, is_restarted);
	if (f->is_said[FIGURE_RUNNING])
		learned_hear_requests(learned, f->values[FIGURE_RUNNING], f->values[FIGURE_WAITING],
		    load_requests(s->scraper->options.load, s->instance->slot));
	else
		learned_write(&learned->n_waiting, f->values[FIGURE_WAITING]);
	if (f->is_said[FIGURE_KV_USAGE])
		learned_write(&learned->kv_usage, f->values[FIGURE_KV_USAGE]);
	if (f->is_said[FIGURE_CACHE_TOKENS])
		atomic_store_explicit(
		    &learned->cache_tokens, (uint64_t)f->values[FIGURE_CACHE_TOKENS], memory_order_relaxed);
	scrape_remember(s, f);
	atomic_store_explicit(&learned->scraped_ms, s->said_ms, memory_order_relaxed);
}

/* --- ranks ------------------------------------------------------------------------------- */

/* NULL: another row stands for that one, and it is asked for nobody. */
static struct scrape *scraper_scrape(const struct scraper *s, uint32_t row) {
	return s->scrapes[s->snapshot->rows[row].instance->slot];
}

/* Each learns its own; what is not split among them is nobody's. */
static void scrape_share(const struct scrape *first, struct slice body) {
	const struct scraper *scraper = first->scraper;
	const struct snapshot_row *rows = scraper->snapshot->rows;
	size_t n = snapshot_n_ranks(scraper->snapshot, first->row);
	struct figures *ranks = calloc(n, sizeof(*ranks));

	figures_read_ranks(body, ranks, n);
	for (uint32_t r = first->row; r != SNAPSHOT_NO_ROW; r = rows[r].next_rank) {
		struct scrape *s = scraper_scrape(scraper, r);
		struct figures *own = &ranks[rows[r].instance->spec.rank];

		if (s && (own->is_said[FIGURE_RUNNING] || own->is_said[FIGURE_WAITING]))
			scrape_learn(s, own);
	}
	free(ranks);
}

static void scrape_count_ranks(struct scrape *s, uint32_t n_engines) {
	bool is_cut = fleet_set_ranks(s->scraper->fleet, s->instance, n_engines) != 0;
	struct log_event e;

	if (is_cut && !s->is_cut) {
		log_begin(&e, LOG_WARN, "there is no room for all data-parallel ranks of an engine");
		line_text(&e.line, SLICE("instance"), s->instance->spec.name);
		line_uint(&e.line, SLICE("ranks"), n_engines);
		log_end(&e);
	}
	s->is_cut = is_cut;
	loop_wake(s->scraper->loop, &s->scraper->change);
}

static void scrape_take(struct scrape *s, struct figures *figures, struct slice body) {
	if (s->instance->spec.has_rank)
		scrape_share(s, body);
	else
		scrape_learn(s, figures);
	if (figures->n_engines)
		scrape_count_ranks(s, figures->n_engines);
}

/* --- a question -------------------------------------------------------------------------- */

static enum scrape_outcome scrape_read(
    int outcome, unsigned status, struct slice body, struct figures *figures_out) {
	if (outcome)
		return SCRAPE_FAILED;
	if (status == 200)
		return figures_read(body, figures_out) ? SCRAPE_GOOD : SCRAPE_NONE;
	return status == 404 || status == 405 || status == 501 ? SCRAPE_NONE : SCRAPE_FAILED;
}

static void scrape_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct scrape *s = container_of(f, struct scrape, fetch);
	uint64_t interval_ms = s->scraper->options.interval_ms;
	struct figures figures;

	if (outcome == FETCH_E_LOCAL) /* it has no part in that */
		return;
	enum scrape_outcome read = scrape_read(outcome, status, body, &figures);

	s->scraper->counts[read]++;
	s->n_refused += outcome == FETCH_E_CONNECT;
	s->n_failed = read == SCRAPE_FAILED ? s->n_failed + 1 : 0;
	if (read == SCRAPE_GOOD)
		scrape_take(s, &figures, body);
	else if (read == SCRAPE_NONE)
		scrape_ask_in(s, u64_max(NONE_MS, interval_ms));
	else
		scrape_ask_in(s, interval_ms << size_min(s->n_failed, DOUBLINGS_MAX));
}

static void scrape_ask(struct scrape *s, const struct snapshot_row *row) {
	const struct fetch_request request = {
		.authority = s->instance->spec.authority,
		.path = SLICE("/metrics"),
		.accept = SLICE("text/plain"),
		.bearer = instance_key(&s->instance->spec, s->scraper->options.api_key),
		.tls_host = instance_tls_host(s->instance),
	};
	uint32_t address = instance_good_address(s->instance, row->n_addresses) + s->n_refused;

	scrape_ask_in(s, s->scraper->options.interval_ms);
	fetch_start(&s->fetch, s->scraper->loop, &row->addresses[address % row->n_addresses], &request);
}

static bool scrape_is_due(const struct scrape *s, const struct snapshot_row *row) {
	return s->is_asking && row->n_addresses && !s->instance->spec.is_provider &&
	    !fetch_is_busy(&s->fetch) && scraper_now(s->scraper) >= s->ask_at_ms;
}

/* --- the table --------------------------------------------------------------------------- */

static void scraper_count_asked(struct scraper *s) {
	s->n_under_way = 0;
	for (uint32_t i = 0; i < s->snapshot->n_rows; i++) {
		const struct scrape *scrape = scraper_scrape(s, i);

		s->n_under_way += scrape && fetch_is_busy(&scrape->fetch);
	}
}

/* Asks who is due. False when somebody well is turned away, who then comes first next time. */
static bool scraper_ask(struct scraper *s) {
	uint32_t n = s->snapshot->n_rows, first = s->first_row;
	bool is_done = true;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t row = (uint32_t)(((uint64_t)first + i) % n);
		struct scrape *scrape = scraper_scrape(s, row);

		if (!scrape || !scrape_is_due(scrape, &s->snapshot->rows[row]))
			continue;
		if (s->n_under_way < (scrape->n_failed ? FAILING_MAX : UNDER_WAY_MAX)) {
			scrape_ask(scrape, &s->snapshot->rows[row]);
			s->n_under_way += fetch_is_busy(&scrape->fetch);
		} else if (is_done && !scrape->n_failed) {
			s->first_row = row;
			is_done = false;
		}
	}
	return is_done;
}

static void scraper_on_tick(struct timer *t) {
	struct scraper *s = container_of(t, struct scraper, tick);
	uint64_t tick_ms = u64_max(u64_min(s->options.interval_ms / 10, TICK_MAX_MS), TICK_MIN_MS);

	scraper_count_asked(s);
	loop_timer(s->loop, &s->tick, scraper_ask(s) ? tick_ms : TICK_MIN_MS);
}

static struct scrape *scrape_new(struct scraper *scraper, struct instance *instance) {
	struct scrape *s = calloc(1, sizeof(*s));

	s->scraper = scraper;
	s->instance = instance_ref(instance);
	s->ask_at_ms = scraper_now(scraper) + rng_below(&scraper->rng, scraper->options.interval_ms);
	fetch_init(&s->fetch, scraper->options.timeout_ms, BODY_BYTES_MAX, scrape_on_done);
	return s;
}

static void scrape_free(struct scrape **sp) {
	struct scrape *s = *sp;

	*sp = NULL;
	fetch_cancel(&s->fetch);
	instance_unref(&s->instance);
	free(s);
}

static void scraper_on_change(struct job *job) {
	struct scraper *s = container_of(job, struct scraper, change);

	s->on_change(s);
}

void scraper_init(struct scraper *s, struct loop *loop, struct fleet *fleet,
    const struct scrape_options *options, void (*on_change)(struct scraper *)) {
	memset(s, 0, sizeof(*s));
	s->loop = loop;
	s->fleet = fleet;
	s->options = *options;
	s->on_change = on_change;
	job_init(&s->change, scraper_on_change);
	rng_init_random(&s->rng);
	timer_init(&s->tick, scraper_on_tick);
}

/* Nobody is asked any more, and nothing is known. */
static void scraper_clear(struct scraper *s) {
	timer_stop(&s->tick);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (s->scrapes[slot])
			scrape_free(&s->scrapes[slot]);
	snapshot_unref(&s->snapshot);
}

void scraper_deinit(struct scraper *s) {
	job_cancel(&s->change);
	scraper_clear(s);
}

static void scraper_let_go(struct scraper *s) {
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (s->scrapes[slot] && !s->scrapes[slot]->is_listed)
			scrape_free(&s->scrapes[slot]);
}

static struct scrape *scraper_list(struct scraper *s, uint32_t row) {
	struct instance *instance = s->snapshot->rows[row].instance;
	struct scrape **scrape = &s->scrapes[instance->slot];

	if (!*scrape)
		*scrape = scrape_new(s, instance);
	/* A slot is taken again only when nobody holds its last instance, and the scrape did. */
	assert((*scrape)->instance == instance);
	(*scrape)->row = row;
	(*scrape)->is_listed = true;
	return *scrape;
}

void scraper_sync(struct scraper *s, struct snapshot *snapshot) {
	if (!s->options.interval_ms)
		return;
	snapshot_unref(&s->snapshot);
	s->snapshot = snapshot_ref(snapshot);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (s->scrapes[slot])
			s->scrapes[slot]->is_listed = s->scrapes[slot]->is_asking = false;
	for (uint32_t i = 0; i < snapshot->n_rows; i++) {
		if (snapshot->rows[i].primary != i)
			continue;
		scraper_list(s, i);
		scraper_list(s, snapshot->rows[i].first_rank)->is_asking = true;
	}
	scraper_let_go(s);
	if (!timer_is_running(&s->tick))
		loop_timer(s->loop, &s->tick, 0);
}

void scraper_retune(struct scraper *s, const struct scrape_options *options) {
	uint64_t next_ms = scraper_now(s) + options->interval_ms;

	s->options = *options;
	if (!options->interval_ms)
		scraper_clear(s);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++) {
		struct scrape *scrape = s->scrapes[slot];

		if (!scrape)
			continue;
		scrape->fetch.timeout_ms = options->timeout_ms;
		scrape->ask_at_ms = u64_min(scrape->ask_at_ms, next_ms);
	}
}

bool scraper_figure(
    const struct scraper *s, const struct instance *inst, enum figure figure, double *value_out) {
	const struct scrape *scrape = s->scrapes[inst->slot];

	if (!scrape || scrape->instance != inst || !scrape->said_ms || !scrape->figures.is_said[figure] ||
	    scraper_now(s) - scrape->said_ms >= FRESH * s->options.interval_ms)
		return false;
	*value_out = scrape->figures.values[figure];
	return true;
}
