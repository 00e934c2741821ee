/*
 * The gatekeeper with its own loop and thread, beside two workers that do nothing but what concerns it:
 * they take places, hold them, ask, cancel and release, at random. What workers do of it in earnest is played
 * by tests/virtual/test_queue.c.
 */
#include "unit/unit.h"

#include <pthread.h>

#include "base/rng.h"
#include "router/gatekeeper.h"

#define WORKERS 2
#define GUESTS  16   /* of each */
#define ACTS    5000 /* of each: one came, left or cancelled */
#define MOST    3
#define ROOM    12

enum guest_state { GUEST_AWAY, GUEST_WAITING, GUEST_IN, GUEST_CANCELLED };

struct guest {
	struct waiter waiter;
	struct host *host;
	struct place place;
	enum guest_state state;
};

struct house {
	struct loop control;
	struct buf_budget budget;
	struct admission *admission;
	struct gatekeeper *gate;
	struct load *load;
	_Atomic uint32_t n_in;
	pthread_barrier_t begin;
};

/* A worker. */
struct host {
	struct loop loop;
	struct house *house;
	struct rng rng;
	struct job job;
	struct gate_bell bell;
	struct guest guests[GUESTS];
	unsigned n_acts, n_asked, n_verdicts[GATE_LATE + 1], n_cancelled;
	pthread_t thread;
};

static const struct admission_tenant tenants[] = { { .weight = 1 }, { .max_requests = 2, .weight = 3 } };

static void tell(struct host *h) {
	if (admission_is_awaited(h->house->admission))
		gatekeeper_tell(h->house->gate, &h->bell);
}

static void go_in(struct guest *g) {
	uint32_t n_before = atomic_fetch_add(&g->host->house->n_in, 1);

	assert(n_before < MOST);
	g->state = GUEST_IN;
}

static void go_out(struct guest *g) {
	atomic_fetch_sub(&g->host->house->n_in, 1);
	admission_release(g->host->house->admission, &g->place);
	g->state = GUEST_AWAY;
	tell(g->host);
}

static void on_verdict(struct mail *mail) {
	struct waiter *w = container_of(mail, struct waiter, mail);
	struct guest *g = container_of(w, struct guest, waiter);
	struct admission *a = g->host->house->admission;

	g->host->n_verdicts[w->verdict]++;
	if (w->verdict == GATE_CALLED)
		atomic_fetch_sub(&a->n_promised[w->place.label], 1);
	if (g->state == GUEST_CANCELLED) {
		admission_release(a, &w->place);
		tell(g->host);
		return;
	}
	assert(g->state == GUEST_WAITING);
	g->place = w->place;
	w->place.held = 0;
	admission_unwait(a, &w->place);
	g->state = GUEST_AWAY;
	if (w->verdict == GATE_CALLED)
		go_in(g);
}

static void on_cancelled(struct mail *mail) {
	struct guest *g = container_of(container_of(mail, struct waiter, cancel), struct guest, waiter);

	assert(g->state == GUEST_CANCELLED);
	g->host->n_cancelled++;
	admission_unwait(g->host->house->admission, &g->waiter.place);
	g->state = GUEST_AWAY;
}

static void come(struct guest *g) {
	struct host *h = g->host;
	struct admission *a = h->house->admission;

	g->place = (struct place){ .tenant = (uint16_t)rng_below(&h->rng, 2), .label = LABEL_OTHER };
	if (!admission_is_contended(a, &g->place) && admission_take(a, &g->place)) {
		go_in(g);
		return;
	}
	g->waiter = (struct waiter){ .place = g->place,
		.fair = { .tenant = g->place.tenant,
		    .class = (uint8_t)rng_below(&h->rng, FAIR_CLASSES),
		    .ends_ms = UINT64_MAX },
		.gate = h->house->gate,
		.home = &h->loop,
		.on_verdict = on_verdict,
		.on_cancelled = on_cancelled };
	g->state = GUEST_WAITING;
	h->n_asked++;
	admission_wait(a, &g->place);
	gatekeeper_ask(&g->waiter);
}

static bool is_empty(const struct host *h) {
	for (unsigned i = 0; i < GUESTS; i++)
		if (h->guests[i].state != GUEST_AWAY)
			return false;
	return true;
}

/* When the acts are over all who wait are let in and sent out. */
static void act(struct job *job) {
	struct host *h = container_of(job, struct host, job);
	bool is_over = h->n_acts >= ACTS;
	struct guest *g = &h->guests[rng_below(&h->rng, GUESTS)];

	if (g->state == GUEST_IN) {
		go_out(g);
		h->n_acts++;
	} else if (!is_over && g->state == GUEST_AWAY) {
		come(g);
		h->n_acts++;
	} else if (!is_over && g->state == GUEST_WAITING && rng_below(&h->rng, 2000) == 0) {
		g->state = GUEST_CANCELLED;
		gatekeeper_cancel(&g->waiter);
		h->n_acts++;
	}
	if (is_over && is_empty(h))
		loop_stop(&h->loop);
	else
		loop_wake(&h->loop, &h->job);
}

static void *run(void *loop) {
	loop_run(loop);
	return NULL;
}

static void *run_host(void *object) {
	struct host *h = object;

	pthread_barrier_wait(&h->house->begin);
	loop_run(&h->loop);
	return NULL;
}

struct stop {
	struct mail mail;
	struct loop *loop;
};

static void on_stop(struct mail *mail) {
	loop_stop(container_of(mail, struct stop, mail)->loop);
}

static void house_open(struct house *house, uint32_t n_max) {
	const struct admission_limits limits = { .max_requests = MOST, .tenants = tenants, .n_tenants = 2 };

	*house = (struct house){ .budget.max_bytes = 1 << 20, .load = load_new(WORKERS) };
	assert_int_equal(loop_init(&house->control, &house->budget), 0);
	assert_int_equal(pthread_barrier_init(&house->begin, NULL, WORKERS), 0);
	house->admission = admission_new(&limits);
	house->gate = gatekeeper_new(&(struct gatekeeper_options){ .loop = &house->control,
	    .admission = house->admission,
	    .load = house->load,
	    .tenants = tenants,
	    .n_tenants = 2,
	    .n_max = n_max });
}

static void house_close(struct house *house) {
	gatekeeper_free(&house->gate);
	admission_free(&house->admission);
	loop_deinit(&house->control);
	pthread_barrier_destroy(&house->begin);
	load_free(&house->load);
}

static void host_start(struct host *h, struct house *house, uint64_t seed) {
	*h = (struct host){ .house = house };
	rng_init(&h->rng, seed);
	assert_int_equal(loop_init(&h->loop, &house->budget), 0);
	for (unsigned i = 0; i < GUESTS; i++)
		h->guests[i].host = h;
	job_init(&h->job, act);
	loop_wake(&h->loop, &h->job);
	assert_int_equal(pthread_create(&h->thread, NULL, run_host, h), 0);
}

/* Exactly one answer to all that was asked, in time: who waits is let in by what others release. */
static void workers_and_gatekeeper(void **state) {
	static struct host hosts[WORKERS];
	static struct house house;
	pthread_t control;
	unsigned n_called = 0;
	struct stop stop = { .loop = &house.control };

	house_open(&house, ROOM);
	assert_int_equal(pthread_create(&control, NULL, run, &house.control), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		host_start(&hosts[i], &house, i + 1);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(hosts[i].thread, NULL), 0);
	loop_post(&house.control, &stop.mail, on_stop);
	assert_int_equal(pthread_join(control, NULL), 0);
	loop_deliver(&house.control);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct host *h = &hosts[i];
		unsigned n_verdicts = 0;

		for (unsigned v = GATE_CALLED; v <= GATE_LATE; v++)
			n_verdicts += h->n_verdicts[v];
		assert_in_range(n_verdicts, h->n_asked - h->n_cancelled, h->n_asked);
		n_called += h->n_verdicts[GATE_CALLED];
		assert_int_equal(h->n_verdicts[GATE_EXPIRED] + h->n_verdicts[GATE_LATE], 0);
		loop_deinit(&h->loop);
	}
	assert_true(n_called > 0);
	house_close(&house);
}

/* --- in step ------------------------------------------------------------------------------- */

static void turn(struct house *house) {
	loop_deliver(&house->control);
	loop_turn(&house->control);
	house->control.is_in_turn = false;
}

static void never(struct mail *mail) {
	fail();
}

static struct {
	struct house house;
	struct loop home;
	struct guest guests[GUESTS];
	uint16_t called[GUESTS]; /* tenants, in order */
	unsigned n_called;
} scene;

static void on_called(struct mail *mail) {
	struct waiter *w = container_of(mail, struct waiter, mail);

	assert_int_equal(w->verdict, GATE_CALLED);
	scene.called[scene.n_called++] = w->place.tenant;
	atomic_fetch_sub(&scene.house.admission->n_promised[w->place.label], 1);
	admission_unwait(scene.house.admission, &w->place);
	container_of(w, struct guest, waiter)->place = w->place;
}

/* Two tenants without caps of their own, six places. */
static void open_scene(void) {
	static const struct admission_tenant equal[] = { { .weight = 1 }, { .weight = 1 } };
	const struct admission_limits limits = { .max_requests = 6, .tenants = equal, .n_tenants = 2 };

	house_open(&scene.house, ROOM);
	admission_free(&scene.house.admission);
	gatekeeper_free(&scene.house.gate);
	scene.house.admission = admission_new(&limits);
	scene.house.gate = gatekeeper_new(&(struct gatekeeper_options){ .loop = &scene.house.control,
	    .admission = scene.house.admission,
	    .load = scene.house.load,
	    .tenants = equal,
	    .n_tenants = 2,
	    .n_max = ROOM });
	assert_int_equal(loop_init(&scene.home, &scene.house.budget), 0);
}

static void ask_all(void) {
	for (unsigned i = 0; i < ROOM; i++) { /* all of the one, then all of the other */
		struct waiter *w = &scene.guests[i].waiter;

		*w = (struct waiter){ .place = { .tenant = i >= ROOM / 2 },
			.fair = { .tenant = i >= ROOM / 2, .class = 4, .ends_ms = UINT64_MAX },
			.gate = scene.house.gate,
			.home = &scene.home,
			.on_verdict = on_called,
			.on_cancelled = never,
			.cost_tokens = 100 };
		admission_wait(scene.house.admission, &w->place);
		gatekeeper_ask(w);
	}
}

/* Places that become free at once are shared as if what they cost had been spent already. */
static void tenants_share_what_is_free_at_once(void **state) {
	struct place held[6] = { { .tenant = 0 } };
	unsigned n[2] = { 0, 0 };

	open_scene();
	for (unsigned i = 0; i < 6; i++)
		assert_true(admission_take(scene.house.admission, &held[i]));
	ask_all();
	turn(&scene.house);
	assert_int_equal(gatekeeper_n_waiting(scene.house.gate, 4), ROOM);
	struct gate_bell bell = { .is_rung = false };
	for (unsigned i = 0; i < 6; i++)
		admission_release(scene.house.admission, &held[i]);
	gatekeeper_tell(scene.house.gate, &bell);
	gatekeeper_tell(scene.house.gate, &bell); /* rung once */
	turn(&scene.house);
	loop_deliver(&scene.home);
	assert_int_equal(scene.n_called, 6);
	for (unsigned i = 0; i < 6; i++)
		n[scene.called[i]]++;
	assert_true(n[0] == 3 && n[1] == 3);
	for (unsigned i = 0; i < ROOM; i++)
		admission_release(scene.house.admission, &scene.guests[i].place);
	gatekeeper_tell(scene.house.gate, &bell);
	turn(&scene.house);
	loop_deliver(&scene.home);
	assert_int_equal(scene.n_called, ROOM);
	for (unsigned i = 0; i < ROOM; i++)
		admission_release(scene.house.admission, &scene.guests[i].place);
	loop_deinit(&scene.home);
	house_close(&scene.house);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_and_gatekeeper),
		cmocka_unit_test(tenants_share_what_is_free_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
