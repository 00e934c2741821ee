/*
 * Each entry is a small machine: PENDING, until it is asked for the first time; PROCESSING, while it is asked
 * again and again, and then until the fleet knows it; DONE and FAILED. entry_end() is its one door out of a
 * job. Who has a question under way holds one of RECRUITS_ASKED_MAX places; who is to be asked stands in line
 * for one, in `fresh` while PENDING, later in `again`: those who were never asked come first, and then in the
 * order in which they were. The fleet changes and the file is written behind what a turn has brought, by one
 * job.
 */
#include "router/recruits.h"

#include <stdlib.h>
#include <unistd.h>

#define HASH_FUNCTION HASH_SAX /* the default one falls through its cases, which clang refuses */
#include <uthash.h>

#include "base/log.h"
#include "http/origin.h"

#define ASK_AGAIN_MS     1000u
#define KNOWN_MS         5000u /* for the fleet to hear of one that is well; then the job is done all the same */
#define ANSWER_BYTES_MAX 65536u

struct entry {
	UT_hash_handle hh; /* by the url */
	struct recruits *owner;
	struct recruit *recruit;
	enum recruit_status status;
	bool is_in_fleet;
	char error[160];
	char url[RECRUIT_URL_BYTES]; /* of whatever recruit it has */
	/* of a job */
	struct origin *origin;
	struct fetch fetch;
	struct timer timer; /* ends a question, or the time until the next one, or until it is known */
	struct list turn;   /* recruits->fresh or again */
	uint64_t until_ms;
	struct list waiting; /* petitions */
};

struct recruits {
	struct recruits_options options;
	struct entry *entries;
	struct list fresh, again; /* entries to be asked */
	unsigned n_asked;         /* entries that are: their fetches are busy */
	unsigned n_waiting;
	struct job change;
	bool is_fleet_changed;
	struct file_save *save; /* NULL: no file */
	uint64_t version, saving, saved;
	struct list unsaved; /* petitions that wait for the file */
};

static uint64_t now_of(const struct recruits *r) {
	return loop_now_ms(r->options.loop);
}

const char *recruit_status_text(enum recruit_status status) {
	static const char *const texts[] = { "pending", "processing", "done", "failed" };

	assert(status < n_elems(texts));
	return texts[status];
}

static struct slice url_of(const struct entry *e) {
	return slice_of(e->url);
}

static struct entry *find(const struct recruits *r, struct slice url) {
	struct entry *e;

	HASH_FIND(hh, r->entries, url.p, url.n, e);
	return e;
}

/* Itself, or the engine that it is a rank of. */
static struct entry *find_of(const struct recruits *r, struct slice url) {
	struct entry *e = find(r, url);

	return e ? e : find(r, recruit_base(url));
}

static void say(const struct entry *e, enum log_level level, const char *event) {
	struct log_event log;

	log_begin(&log, level, event);
	line_text(&log.line, SLICE("instance"), url_of(e));
	if (e->error[0])
		line_text(&log.line, SLICE("reason"), slice_of(e->error));
	log_end(&log);
}

/* --- the file ------------------------------------------------------------------------------- */

static char *table_text(const struct recruits *r, size_t *n_out) {
	json_t *workers = json_array();

	for (const struct entry *e = r->entries; e; e = e->hh.next)
		if (e->status != RECRUIT_FAILED)
			json_array_append_new(workers,
			    json_pack("{s:O, s:b}", "worker", e->recruit->json, "is_done",
				e->status == RECRUIT_DONE));
	json_t *table = json_pack("{s:o}", "workers", workers);
	char *text = json_dumps(table, JSON_COMPACT);

	json_decref(table);
	*n_out = strlen(text);
	return text;
}

static void release_saved(struct recruits *r) {
	list_each_safe (it, &r->unsaved)
		petition_release(container_of(it, struct petition, waiting));
}

static void save(struct recruits *r) {
	size_t n;

	if (!r->save || r->saved == r->version) {
		release_saved(r);
		return;
	}
	if (file_save_is_busy(r->save))
		return;
	r->saving = r->version;
	char *text = table_text(r, &n);
	file_save_start(r->save, r->options.loop, text, n);
}

/* What cannot be written holds for this process alone, and is not worth an operator's wait. */
static void on_saved(void *context, int error) {
	struct recruits *r = context;
	struct log_event e;

	r->saved = r->saving;
	if (error) {
		log_begin(&e, LOG_ERROR, "the workers that were registered cannot be kept");
		line_text(&e.line, SLICE("reason"), slice_of(strerror(-error)));
		log_end(&e);
	}
	save(r);
}

void recruits_answer(struct recruits *r, struct petition *p) {
	list_push(&r->unsaved, &p->waiting);
	loop_wake(r->options.loop, &r->change);
}

/* --- changes ---------------------------------------------------------------------------------- */

static void on_change(struct job *job) {
	struct recruits *r = container_of(job, struct recruits, change);

	if (r->is_fleet_changed) {
		r->is_fleet_changed = false;
		r->options.on_change(r->options.context);
	}
	save(r);
}

static void note_change(struct recruits *r, bool is_of_fleet) {
	r->version++;
	r->is_fleet_changed |= is_of_fleet;
	loop_wake(r->options.loop, &r->change);
}

/* --- jobs --------------------------------------------------------------------------------------- */

/* It is to be asked. */
static void entry_begin(struct entry *e) {
	e->status = RECRUIT_PENDING;
	e->error[0] = '\0';
	list_push(&e->owner->fresh, &e->turn);
}

/* Leaves its place, if it has one. */
static void stop_asking(struct entry *e) {
	if (!fetch_is_busy(&e->fetch))
		return;
	origin_cancel(e->origin, &e->fetch);
	e->owner->n_asked--;
}

static void entry_end(struct entry *e, enum recruit_status status) {
	struct recruits *r = e->owner;

	assert(status >= RECRUIT_DONE);
	e->status = status;
	stop_asking(e);
	origin_free(&e->origin);
	timer_stop(&e->timer);
	list_remove(&e->turn);
	if (status == RECRUIT_DONE)
		e->error[0] = '\0';
	list_each_safe (it, &e->waiting) {
		struct petition *p = container_of(it, struct petition, waiting);

		list_remove(it);
		petition_keep(p, NULL, NULL);
		r->n_waiting--;
		r->options.on_end(p, url_of(e).p, status == RECRUIT_DONE ? NULL : e->error);
	}
}

static void entry_free(struct entry *e) {
	struct recruits *r = e->owner;

	if (e->status < RECRUIT_DONE) {
		snprintf(e->error, sizeof(e->error), "it was removed");
		entry_end(e, RECRUIT_FAILED);
	}
	if (e->is_in_fleet) {
		int outcome = fleet_remove(r->options.fleet, SOURCE_API, url_of(e));

		assert(!outcome);
	}
	HASH_DEL(r->entries, e); /* NOLINT(clang-analyzer-unix.Malloc) */
	recruit_free(&e->recruit);
	free(e);
}

/* Of the oldest there is most reason to forget. */
static void forget_failed(struct recruits *r) {
	struct entry *oldest = NULL;
	unsigned n = 0;

	for (struct entry *e = r->entries; e; e = e->hh.next) {
		if (e->status == RECRUIT_FAILED && !oldest)
			oldest = e;
		n += e->status == RECRUIT_FAILED;
	}
	if (n > RECRUITS_FAILED_MAX)
		entry_free(oldest);
}

static void entry_fail(struct entry *e) {
	struct recruits *r = e->owner;

	say(e, LOG_WARN, "a worker was not registered");
	entry_end(e, RECRUIT_FAILED);
	forget_failed(r);
	note_change(r, false);
}

static void entry_done(struct entry *e) {
	struct recruits *r = e->owner;

	say(e, LOG_INFO, "a worker was registered");
	entry_end(e, RECRUIT_DONE);
	note_change(r, false);
}

static int enlist(struct entry *e) {
	int outcome = fleet_upsert(e->owner->options.fleet, SOURCE_API, &e->recruit->spec);

	e->is_in_fleet |= !outcome;
	if (outcome)
		snprintf(e->error, sizeof(e->error), "%s",
		    outcome == FLEET_E_FULL ? "there are too many instances"
					    : "it is beyond a limit of the fleet");
	return outcome;
}

/* It is well: the fleet gets to know it. */
static void go_in(struct entry *e) {
	origin_free(&e->origin);
	if (enlist(e)) {
		entry_fail(e);
		return;
	}
	loop_timer(e->owner->options.loop, &e->timer, KNOWN_MS);
	note_change(e->owner, true);
}

static void ask(struct entry *e) {
	const struct recruits_options *o = &e->owner->options;
	const struct recruits_terms terms = o->terms(o->context);
	const struct instance_spec *at = &e->recruit->spec.instance;
	const struct fetch_request request = { .path = at->is_provider
		    ? instance_target(at, SLICE("/v1/models"))
		    : slice_of(terms.health_path),
		.bearer = instance_key(at, terms.api_key) };

	e->owner->n_asked++;
	origin_fetch(e->origin, &e->fetch, &request);
	loop_timer(o->loop, &e->timer, terms.answer_ms + FETCH_CONNECT_MS);
}

/* Later, unless its time is over. */
static void ask_again(struct entry *e) {
	uint64_t now_ms = now_of(e->owner);

	if (now_ms >= e->until_ms)
		entry_fail(e);
	else
		loop_timer(e->owner->options.loop, &e->timer, u64_min(ASK_AGAIN_MS, e->until_ms - now_ms));
}

static void fill_places(struct recruits *r);

static void on_health(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct entry *e = container_of(f, struct entry, fetch);
	struct recruits *r = e->owner;

	r->n_asked--;
	if (!outcome && status < 500) { /* keys and paths are not ours to judge */
		go_in(e);
	} else {
		if (outcome)
			snprintf(e->error, sizeof(e->error), "its health: %s",
			    fetch_outcome_text((enum fetch_outcome)outcome));
		else
			snprintf(e->error, sizeof(e->error), "its health: status %u", status);
		ask_again(e);
	}
	fill_places(r);
}

static void entry_start(struct entry *e) {
	struct recruits *r = e->owner;
	const struct recruits_terms terms = r->options.terms(r->options.context);

	e->status = RECRUIT_PROCESSING;
	e->until_ms = now_of(r) + terms.startup_timeout_ms;
	fetch_init(&e->fetch, terms.answer_ms, ANSWER_BYTES_MAX, on_health);
	e->origin = origin_new(r->options.loop, e->recruit->base);
	if (e->origin) {
		ask(e);
		return;
	}
	snprintf(e->error, sizeof(e->error), "nothing can be asked at this url");
	loop_timer(r->options.loop, &e->timer, 0);
}

static struct entry *take_next(struct recruits *r) {
	struct list *turn = list_first(list_is_empty(&r->fresh) ? &r->again : &r->fresh);

	if (!turn)
		return NULL;
	list_remove(turn);
	return container_of(turn, struct entry, turn);
}

static void fill_places(struct recruits *r) {
	struct entry *e;

	while (r->n_asked < RECRUITS_ASKED_MAX && (e = take_next(r))) {
		if (e->status == RECRUIT_PENDING)
			entry_start(e);
		else
			ask(e);
	}
}

static void on_timer(struct timer *t) {
	struct entry *e = container_of(t, struct entry, timer);
	struct recruits *r = e->owner;

	if (e->is_in_fleet) {
		entry_done(e);
	} else if (!e->origin) {
		entry_fail(e);
	} else if (fetch_is_busy(&e->fetch)) { /* it has many addresses, and all of them are silent */
		snprintf(e->error, sizeof(e->error), "its health: %s", fetch_outcome_text(FETCH_E_TIMEOUT));
		stop_asking(e);
		ask_again(e);
	} else {
		list_push(&r->again, &e->turn);
	}
	fill_places(r);
}

/* --- what is asked of it -------------------------------------------------------------------------- */

static struct entry *entry_new(struct recruits *r, struct recruit **recruit) {
	struct entry *e = calloc(1, sizeof(*e));

	e->owner = r;
	e->recruit = *recruit;
	*recruit = NULL;
	list_init(&e->waiting);
	list_init(&e->turn);
	timer_init(&e->timer, on_timer);
	struct slice url = e->recruit->spec.instance.name;
	memcpy(e->url, url.p, url.n);
	HASH_ADD(hh, r->entries, url[0], (unsigned)url.n, e);
	return e;
}

/* One that is in the fleet: another record at once. One that is asked for its health goes on with that. */
static void change(struct entry *e, struct recruit **recruit) {
	assert(slice_eq((*recruit)->spec.instance.name, url_of(e)));
	recruit_free(&e->recruit);
	e->recruit = *recruit;
	*recruit = NULL;
	if (e->is_in_fleet) {
		int outcome = enlist(e);

		assert(!outcome); /* it was checked */
	} else if (e->status == RECRUIT_FAILED) {
		entry_begin(e);
	}
}

/* Of a rank: its engine as a whole. */
static bool has_whole(const struct recruits *r, const struct recruit *recruit) {
	const struct entry *whole = find(r, recruit->base);

	return recruit->spec.instance.has_rank && whole && whole->status != RECRUIT_FAILED;
}

/* Ranks of this engine that were registered alone. */
static void drop_ranks(struct recruits *r, const struct recruit *engine) {
	struct entry *e, *next;

	HASH_ITER(hh, r->entries, e, next)
	if (e->recruit->spec.instance.has_rank && slice_eq(e->recruit->base, engine->base))
		entry_free(e);
}

static int check(const struct recruits *r, const struct recruit *recruit) {
	struct slice name = recruit->spec.instance.name;

	if (has_whole(r, recruit))
		return RECRUITS_E_WHOLE;
	if (!find(r, name) && HASH_COUNT(r->entries) >= RECRUITS_MAX)
		return RECRUITS_E_FULL;
	switch (fleet_check(r->options.fleet, SOURCE_API, &recruit->spec, 1, &name)) {
	case 0:
		return 0;
	case FLEET_E_FULL:
		return RECRUITS_E_FULL;
	default:
		return RECRUITS_E_LIMIT;
	}
}

int recruits_put(struct recruits *r, struct recruit **recruit) {
	struct entry *e = find(r, (*recruit)->spec.instance.name);
	int outcome = check(r, *recruit);

	if (outcome) {
		recruit_free(recruit);
		return outcome;
	}
	if (!(*recruit)->spec.instance.has_rank)
		drop_ranks(r, *recruit);
	if (e)
		change(e, recruit);
	else
		entry_begin(entry_new(r, recruit));
	note_change(r, true);
	fill_places(r);
	return 0;
}

int recruits_remove(struct recruits *r, struct slice url) {
	struct entry *e = find(r, url);

	if (!e)
		return RECRUITS_E_ABSENT;
	entry_free(e);
	note_change(r, true);
	fill_places(r);
	return 0;
}

bool recruits_can_wait(const struct recruits *r) {
	return r->n_waiting < RECRUITS_WAIT_MAX;
}

static void on_left(void *keeper, struct petition *p) {
	struct recruits *r = keeper;

	assert(!list_is_linked(&p->waiting));
	r->n_waiting--;
}

void recruits_wait(struct recruits *r, struct slice url, struct petition *p) {
	struct entry *e = find(r, url);

	assert(e && recruits_can_wait(r));
	r->n_waiting++;
	list_push(&e->waiting, &p->waiting);
	petition_keep(p, on_left, r);
	if (e->status >= RECRUIT_DONE)
		entry_end(e, e->status);
}

static struct recruits_row row_of(const struct entry *e) {
	return (struct recruits_row){ e->recruit, e->status, e->error };
}

bool recruits_find(const struct recruits *r, struct slice url, struct recruits_row *row_out) {
	const struct entry *e = find_of(r, url);

	if (e)
		*row_out = row_of(e);
	return e;
}

void recruits_each(
    const struct recruits *r, void (*see)(void *context, const struct recruits_row *row), void *context) {
	for (const struct entry *e = r->entries; e; e = e->hh.next) {
		const struct recruits_row row = row_of(e);

		see(context, &row);
	}
}

/* --- the fleet as it is ----------------------------------------------------------------------------- */

static bool is_known(const struct snapshot_row *row) {
	return row->n_addresses && row->are_models_known && row->state != INSTANCE_UNKNOWN;
}

/* What the configuration has of the engine, or the rank, that this entry is; not a rank of an engine that it
 * has as a whole, when that rank was registered alone. */
static bool drop_static(const struct entry *e, const struct instance_spec *at) {
	struct slice engine;
	uint16_t rank;

	if (!fleet_remove(e->owner->options.fleet, SOURCE_STATIC, at->name))
		return true;
	return !e->recruit->spec.instance.has_rank && rank_split(at->name, &engine, &rank) &&
	    !fleet_remove(e->owner->options.fleet, SOURCE_STATIC, engine);
}

void recruits_sync(struct recruits *r, const struct snapshot *snapshot) {
	for (uint32_t i = 0; i < snapshot->n_rows; i++) {
		const struct snapshot_row *row = &snapshot->rows[i];
		const struct instance_spec *at = &row->instance->spec;
		struct entry *e =
		    row->source == SOURCE_API || row->source == SOURCE_STATIC ? find_of(r, at->url) : NULL;

		if (!e || !e->is_in_fleet)
			continue;
		if (row->source == SOURCE_STATIC && drop_static(e, at)) { /* two records of one engine */
			r->is_fleet_changed = true;
			loop_wake(r->options.loop, &r->change);
		} else if (row->source == SOURCE_API && e->status == RECRUIT_PROCESSING && is_known(row)) {
			entry_done(e);
		}
	}
}

/* --- the whole ---------------------------------------------------------------------------------------- */

/* NULL, or what is wrong with it. */
static const char *restore_one(struct recruits *r, const json_t *kept) {
	const char *why;
	struct recruit *recruit = recruit_new(json_object_get(kept, "worker"), &why);

	if (!recruit)
		return why;
	if (find(r, recruit->spec.instance.name) || HASH_COUNT(r->entries) >= RECRUITS_MAX) {
		recruit_free(&recruit);
		return "a worker is there twice, or there are too many";
	}
	struct entry *e = entry_new(r, &recruit);
	if (json_is_true(json_object_get(kept, "is_done")) && !enlist(e))
		e->status = RECRUIT_DONE;
	else
		entry_begin(e);
	return NULL;
}

/* The next change takes the file's place: what could not be read stays beside it. */
static void put_aside(struct recruits *r, const char *why) {
	size_t n = strlen(r->options.file) + sizeof(".bad");
	char *aside = malloc(n);
	struct log_event e;

	snprintf(aside, n, "%s.bad", r->options.file);
	log_begin(&e, LOG_ERROR, "the kept table of registered workers cannot be read, or not all of it");
	line_text(&e.line, SLICE("reason"), slice_of(why));
	if (rename(r->options.file, aside) == 0)
		line_text(&e.line, SLICE("kept_as"), slice_of(aside));
	log_end(&e);
	free(aside);
	note_change(r, false);
}

static void restore(struct recruits *r) {
	json_error_t error = { .text = "" };
	json_t *table = json_load_file(r->options.file, 0, &error);
	const json_t *workers = json_object_get(table, "workers");
	const char *why = NULL;

	if (!table && access(r->options.file, F_OK) == 0)
		why = error.text;
	else if (table && !json_is_array(workers))
		why = "it is no table of workers";
	for (size_t i = 0; i < json_array_size(workers); i++) {
		const char *mistake = restore_one(r, json_array_get(workers, i));

		why = why ? why : mistake;
	}
	if (why)
		put_aside(r, why);
	json_decref(table);
}

struct recruits *recruits_new(const struct recruits_options *options) {
	struct recruits *r = calloc(1, sizeof(*r));

	r->options = *options;
	job_init(&r->change, on_change);
	list_init(&r->unsaved);
	list_init(&r->fresh);
	list_init(&r->again);
	if (options->file[0]) {
		r->save = file_save_new(options->file, on_saved, r);
		restore(r);
	}
	fill_places(r);
	return r;
}

void recruits_leave_file(struct recruits *r) {
	file_save_free(&r->save);
	release_saved(r);
}

void recruits_free(struct recruits **recruits) {
	struct recruits *r = *recruits;
	struct entry *e, *next;

	*recruits = NULL;
	if (!r)
		return;
	HASH_ITER(hh, r->entries, e, next) {
		origin_free(&e->origin);
		timer_stop(&e->timer);
		HASH_DEL(r->entries, e); /* NOLINT(clang-analyzer-unix.Malloc) */
		recruit_free(&e->recruit);
		free(e);
	}
	job_cancel(&r->change);
	file_save_free(&r->save);
	free(r);
}
