/*
 * The roster against a model that knows no wheel, hash, ring or counter: it looks at every
 * record each time. Seeded random calls, ticks and standstills in virtual time; after each
 * one everything that can be seen must agree. Watchers of different diligence follow by
 * changes and resets, and must know the same as the model each time they have caught up.
 */
#include "unit/registry/fleetlet.h"

#include "base/rng.h"

#define N_NAMES    40
#define N_WATCHERS 3
#define N_STEPS    3000
#define WALL_MS    UINT64_C(1700000000000)

struct view { /* what a client can see of a record */
	bool exists, is_alive;
	unsigned port, ttl_s;
	const char *status;
	enum record_health health;
};

struct model_record {
	struct view view;
	uint64_t heard_ms, seq;
};

struct model {
	struct model_record records[N_NAMES];
	uint64_t now_ms, n_seq;
};

struct watcher {
	struct view views[N_NAMES];
	uint64_t version;
	unsigned n_resets;
};

static const char *const statuses[] = { "running", "running", "running", "draining" };
static const unsigned ttls[] = { 0, 1, 2, 5, 60, 600 };

static uint64_t ttl_ms(const struct view *v) {
	return (v->ttl_s ? v->ttl_s : 120) * 1000;
}

static void model_judge(struct model *m) {
	for (int i = 0; i < N_NAMES; i++) {
		struct model_record *x = &m->records[i];
		x->view.is_alive = x->view.exists && strcmp(x->view.status, "running") == 0 &&
		    m->now_ms < x->heard_ms + ttl_ms(&x->view);
	}
}

static void model_advance(struct model *m, uint64_t ms) {
	m->now_ms += ms;
	for (int i = 0; i < N_NAMES && ms > 500; i++) {
		struct model_record *x = &m->records[i];
		if (!x->view.exists || ms <= ttl_ms(&x->view) / 2)
			continue;
		if (!x->view.is_alive)
			x->heard_ms += ms;
		else if (x->heard_ms < m->now_ms)
			x->heard_ms = m->now_ms;
	}
	model_judge(m);
}

static bool model_is_stale(const struct model *m, int i) {
	const struct model_record *x = &m->records[i];
	uint64_t limit_ms = ttl_ms(&x->view) * 5 / 2 > 300000 ? ttl_ms(&x->view) * 5 / 2 : 300000;
	return x->view.exists && m->now_ms > x->heard_ms + limit_ms;
}

/* --- seeing -------------------------------------------------------------------------------- */

static int index_of(struct slice name) {
	char text[16];
	assert_in_range(name.n, 2, 4);
	snprintf(text, sizeof(text), "%.*s", (int)name.n - 1, name.p + 1);
	return (int)strtoul(text, NULL, 10);
}

static struct view view_of(const struct roster_entry *e) {
	if (!e)
		return (struct view){ .exists = false };
	return (struct view){ true, e->is_alive, e->record->port, e->record->ttl_s,
		strcmp(e->record->status, "running") == 0 ? "running" : "draining", e->record->health };
}

static bool view_eq(const struct view *a, const struct view *b) {
	if (!a->exists || !b->exists)
		return a->exists == b->exists;
	return a->is_alive == b->is_alive && a->port == b->port && a->ttl_s == b->ttl_s &&
	    strcmp(a->status, b->status) == 0 && a->health == b->health;
}

static void compare(const struct roster *r, const struct model *m) {
	char name[16];
	uint32_t n = 0, n_alive = 0, n_listed = 0;
	uint64_t last_seq = 0;
	for (int i = 0; i < N_NAMES; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		struct view v = view_of(roster_find(r, slice_of(name)));
		if (!view_eq(&v, &m->records[i].view))
			fail_msg(
			    "%s differs: alive %d, model %d", name, v.is_alive, m->records[i].view.is_alive);
		n += v.exists;
		n_alive += v.is_alive;
	}
	struct roster_counts c = counts_of(r);
	assert_int_equal(c.n_records, n);
	assert_int_equal(c.n_alive, n_alive);
	for (const struct roster_entry *e = NULL; (e = roster_next(r, e, NULL)); n_listed++) {
		uint64_t seq = m->records[index_of(slice_of(e->record->name))].seq;
		assert_true(seq > last_seq);
		last_seq = seq;
	}
	assert_int_equal(n_listed, n);
}

static void catch_up(const struct roster *r, struct watcher *w, const struct model *m) {
	struct roster_change c;
	if (!roster_remembers(r, w->version)) {
		memset(w->views, 0, sizeof(w->views));
		for (const struct roster_entry *e = NULL; (e = roster_next(r, e, NULL));)
			w->views[index_of(slice_of(e->record->name))] = view_of(e);
		w->version = roster_version(r);
		w->n_resets++;
	}
	for (uint64_t last = w->version; roster_next_change(r, &w->version, &c); last = c.version) {
		assert_true(c.version > last && c.version <= roster_version(r));
		w->views[index_of(c.name)] = view_of(c.entry);
	}
	for (int i = 0; i < N_NAMES; i++)
		if (!view_eq(&w->views[i], &m->records[i].view))
			fail_msg("a watcher does not know n%d", i);
}

/* --- doing ----------------------------------------------------------------------------------- */

static void do_put(
    struct roster *r, struct model *m, struct rng *rng, const char *name, struct model_record *x) {
	struct view v = { .exists = true,
		.status = statuses[rng_below(rng, n_elems(statuses))],
		.ttl_s = ttls[rng_below(rng, n_elems(ttls))],
		.port = 80 + (unsigned)rng_below(rng, 2) };
	if (x->view.exists && x->view.port == v.port)
		v.health = x->view.health;
	if (!x->view.exists)
		x->seq = ++m->n_seq;
	x->view = v;
	x->heard_ms = m->now_ms;
	roster_put(r, record_of(name, v.status, v.ttl_s, v.port), m->now_ms);
}

static void on_swept(void *context, struct slice name) {
	struct model *m = context;
	int i = index_of(name);
	assert_true(model_is_stale(m, i));
	m->records[i].view.exists = false;
}

static void do_sweep(struct roster *r, struct model *m) {
	sweep(r, m->now_ms, on_swept, m);
	for (int i = 0; i < N_NAMES; i++)
		assert_false(model_is_stale(m, i));
}

static void do_one(struct roster *r, struct model *m, struct rng *rng) {
	char name[16];
	int i = (int)rng_below(rng, N_NAMES);
	struct model_record *x = &m->records[i];
	snprintf(name, sizeof(name), "n%d", i);
	switch (rng_below(rng, 8)) {
	case 0:
	case 1:
		do_put(r, m, rng, name, x);
		break;
	case 2:
		assert_int_equal(roster_delete(r, slice_of(name), m->now_ms), x->view.exists);
		x->view.exists = false;
		break;
	case 3: {
		enum record_health health = (enum record_health)rng_below(rng, 3);
		roster_set_health(r, slice_of(name), health, m->now_ms);
		x->view.health = health;
		break;
	}
	case 4:
		do_sweep(r, m);
		break;
	default: /* heartbeats are the most of it */
		assert_int_equal(
		    roster_heartbeat(r, slice_of(name), WALL_MS, m->now_ms) != NULL, x->view.exists);
		x->heard_ms = m->now_ms;
	}
	model_judge(m);
}

static uint64_t some_time(struct rng *rng) {
	static const uint64_t stops_ms[] = { 501, 1500, 20000, 61000, 400000, 4000000 };
	if (rng_below(rng, 100) == 0)
		return stops_ms[rng_below(rng, n_elems(stops_ms))];
	return rng_below(rng, 3) ? rng_below(rng, ROSTER_TICK_MS + 1) : 0;
}

static void run(uint64_t seed) {
	struct rng rng;
	struct model m = { .now_ms = 1000 };
	struct watcher watchers[N_WATCHERS] = { { .version = 0 } };
	rng_init(&rng, seed);
	struct roster *r = roster_new(&(struct roster_options){ .version = 1, .seed = seed }, m.now_ms);
	/* Some seeds let long stretches pass, by ticks, so that leases of minutes end too. */
	uint64_t n_idle_ticks = seed % 4 == 0 ? 300 : seed % 4 == 1 ? 20 : 0;
	for (int step = 0; step < N_STEPS; step++) {
		struct model before = m;
		uint64_t version = roster_version(r);
		if (rng_below(&rng, 2)) {
			model_advance(&m, some_time(&rng));
			roster_advance(r, m.now_ms);
			for (uint64_t i = rng_below(&rng, 20) ? 0 : n_idle_ticks; i > 0; i--) {
				model_advance(&m, ROSTER_TICK_MS);
				roster_advance(r, m.now_ms);
			}
		} else {
			do_one(r, &m, &rng);
		}
		compare(r, &m);
		unsigned n_changed = 0;
		for (int i = 0; i < N_NAMES; i++)
			n_changed += !view_eq(&m.records[i].view, &before.records[i].view);
		assert_int_equal(roster_version(r) - version, n_changed);
		for (unsigned w = 0; w < N_WATCHERS; w++)
			if (rng_below(&rng, 1 + 50 * w) == 0)
				catch_up(r, &watchers[w], &m);
	}
	for (unsigned w = 0; w < N_WATCHERS; w++) {
		catch_up(r, &watchers[w], &m);
		assert_int_equal(watchers[w].n_resets, 1); /* the first look */
	}
	roster_free(&r);
}

static void the_roster_does_what_the_model_does(void **state) {
	for (uint64_t seed = 1; seed <= 120; seed++)
		run(seed);
}

/* Thousands of names through growth and deletion of the table: nothing is lost in the probing. */
static void names_are_found_through_growth_and_deletion(void **state) {
	enum { N = 20000 };
	static bool exists[N];
	struct rng rng;
	char name[16];
	rng_init(&rng, 9);
	struct roster *r = roster_new(&(struct roster_options){ .seed = 9 }, 1);
	for (int round = 0; round < 200000; round++) {
		unsigned i = (unsigned)rng_below(&rng, round < 100000 ? N : N / 8);
		snprintf(name, sizeof(name), "%u", i);
		if (rng_below(&rng, 3) == 0)
			assert_int_equal(roster_delete(r, slice_of(name), 1), exists[i]);
		else
			assert_int_equal(roster_find(r, slice_of(name)) != NULL, exists[i]);
		if (exists[i] && !roster_find(r, slice_of(name)))
			exists[i] = false;
		if (!exists[i] && rng_below(&rng, 2)) {
			roster_put(r, record_of(name, "running", 0, 80), 1);
			exists[i] = true;
		}
	}
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(roster_find(r, slice_of(name)) != NULL, exists[i]);
	}
	roster_free(&r);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_roster_does_what_the_model_does),
		cmocka_unit_test(names_are_found_through_growth_and_deletion),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
