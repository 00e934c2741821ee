#include "discovery/kv_engine.h"

#include <stdlib.h>

#include <jansson.h>
#include <netinet/in.h>

#include "base/log.h"
#include "base/text.h"
#include "http/fetch.h"

#define TICK_MS        100u
#define TIMEOUT_MS     5000u
#define WAIT_MIN_MS    1000u
#define WAIT_MAX_MS    10000u
#define AGAIN_MS       60000u
#define BODY_BYTES_MAX (256u << 10)
#define UNDER_WAY_MAX  64u

struct kv_engine {
	struct kv_engines *all;
	struct instance *instance;
	struct fetch fetch;
	uint64_t ask_at_ms, wait_ms;   /* after the next failure */
	uint64_t asked_ms;             /* last */
	uint32_t n_restarts, n_doubts; /* as seen last */
	uint32_t n_refused;            /* connects, ever: which address is next */
	bool was_unhealthy;            /* when seen last */
	bool is_silence_said;          /* in the log */
	bool is_listed;
};

static uint64_t engine_now(const struct kv_engine *e) {
	return loop_now_ms(e->all->loop);
}

static uint32_t engine_restarts(const struct kv_engine *e) {
	return atomic_load_explicit(&e->instance->learned.n_restarts, memory_order_relaxed);
}

static uint32_t engine_doubts(const struct kv_engine *e) {
	return atomic_load_explicit(&e->instance->learned.n_doubts, memory_order_relaxed);
}

static void engine_log(const struct kv_engine *e, enum log_level level, const char *event, const char *why) {
	struct log_event line;

	log_begin(&line, level, event);
	line_text(&line.line, SLICE("instance"), e->instance->spec.name);
	if (why)
		line_text(&line.line, SLICE("reason"), slice_of(why));
	log_end(&line);
}

/* --- its answer ---------------------------------------------------------------------------- */

static struct slice id_of(const json_t *rank) {
	const json_t *id = json_object_get(rank, "engine_id");

	return (struct slice){ json_string_value(id), json_string_length(id) };
}

/* Points into the answer; empty: there is none. */
static struct slice find_id(json_t *answer, uint16_t rank) {
	char key[16];
	const char *other;
	json_t *value;

	snprintf(key, sizeof(key), "%u", rank);
	struct slice id = id_of(json_object_get(answer, key));
	json_object_foreach(answer, other, value) {
		if (id.n)
			break;
		id = id_of(value);
	}
	return id;
}

/* Empty: not known any more. False: that is no name. */
static bool engine_name(struct kv_engine *e, struct slice id) {
	struct kv_engines *k = e->all;
	uint32_t n_restarts = engine_restarts(e);
	int r = fleet_set_kv_engine(k->fleet, e->instance, id);

	loop_wake(k->loop, &k->change);
	e->n_restarts += engine_restarts(e) - n_restarts; /* that one is no news */
	return r == 0;
}

static bool engine_learn(struct kv_engine *e, struct slice body) {
	json_t *answer = json_loadb(body.p, body.n, 0, NULL);
	struct slice id = find_id(answer, e->instance->spec.rank);
	bool is_good = id.n && engine_name(e, id);

	json_decref(answer);
	return is_good;
}

static void engine_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct kv_engine *e = container_of(f, struct kv_engine, fetch);

	if (status == 200 && engine_learn(e, body)) {
		if (e->is_silence_said)
			engine_log(e, LOG_INFO, "the engine says what its connector calls it", NULL);
		e->is_silence_said = false;
		e->wait_ms = WAIT_MIN_MS;
		e->ask_at_ms = engine_now(e) + AGAIN_MS;
		return;
	}
	if (!e->is_silence_said)
		engine_log(e, LOG_WARN, "the engine does not say what its connector calls it",
		    outcome ? fetch_outcome_text(outcome) : "no engine_id in the answer");
	e->is_silence_said = true;
	e->n_refused += outcome == FETCH_E_CONNECT;
	e->ask_at_ms = engine_now(e) + e->wait_ms;
	e->wait_ms = u64_min(2 * e->wait_ms, WAIT_MAX_MS);
}

/* --- the question -------------------------------------------------------------------------- */

/* Of the target's first row that has the label. */
static struct slice target_label(const struct snapshot *snap, uint32_t row, struct slice key) {
	struct slice value = { NULL, 0 };

	for (uint32_t r = row; r != SNAPSHOT_NO_ROW && !value.p; r = snap->rows[r].next_peer)
		value = pairs_value(snap->rows[r].labels, key);
	return value;
}

static uint16_t bootstrap_port(const struct snapshot *snap, uint32_t row) {
	uint64_t port;

	return text_uint(target_label(snap, row, SLICE("bootstrap_port")), UINT16_MAX, &port) && port
	    ? (uint16_t)port
	    : KV_ENGINE_PORT;
}

static void set_port(struct sockaddr_storage *address, uint16_t port) {
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)address)->sin_port = htons(port);
}

static void engine_ask(struct kv_engine *e, uint32_t row) {
	const struct snapshot *snap = e->all->snapshot;
	uint32_t n = snap->rows[row].n_addresses;
	struct sockaddr_storage address =
	    snap->rows[row].addresses[(instance_good_address(e->instance, n) + e->n_refused) % n];
	uint16_t port = bootstrap_port(snap, row);
	char url[TEXT_URL_BYTES];

	text_print_url(url, sizeof(url), e->instance->spec.host.p, port);
	const struct fetch_request request = {
		.authority = slice_skip(slice_of(url), strlen("http://")),
		.path = SLICE("/query"),
	};
	set_port(&address, port);
	e->asked_ms = engine_now(e);
	fetch_start(&e->fetch, e->all->loop, &address, &request);
}

/* Who was away may be another one now. */
static void engine_look(struct kv_engine *e, const struct snapshot_row *row) {
	uint32_t n_restarts = engine_restarts(e), n_doubts = engine_doubts(e);
	bool is_unhealthy = row->state == INSTANCE_UNHEALTHY, is_restarted = n_restarts != e->n_restarts;

	if (is_restarted || (is_unhealthy && !e->was_unhealthy))
		(void)engine_name(e, (struct slice){ NULL, 0 });
	if (is_restarted || (e->was_unhealthy && !is_unhealthy)) {
		fetch_cancel(&e->fetch); /* it may be the one of before that answers */
		e->ask_at_ms = 0;
		e->wait_ms = WAIT_MIN_MS;
	}
	if (n_doubts != e->n_doubts)
		e->ask_at_ms = u64_min(e->ask_at_ms, e->asked_ms + WAIT_MIN_MS);
	e->n_restarts = n_restarts;
	e->n_doubts = n_doubts;
	e->was_unhealthy = is_unhealthy;
}

/* --- the table ----------------------------------------------------------------------------- */

static struct kv_engine *engines_of_row(const struct kv_engines *k, uint32_t row) {
	return k->by_slot[k->snapshot->rows[row].instance->slot];
}

static void engines_on_tick(struct timer *t) {
	struct kv_engines *k = container_of(t, struct kv_engines, tick);
	unsigned n_under_way = 0;

	loop_timer(k->loop, &k->tick, TICK_MS);
	for (uint32_t i = 0; i < k->snapshot->n_rows; i++) {
		const struct kv_engine *e = engines_of_row(k, i);

		n_under_way += e && fetch_is_busy(&e->fetch);
	}
	for (uint32_t i = 0; i < k->snapshot->n_rows; i++) {
		struct kv_engine *e = engines_of_row(k, i);

		if (!e)
			continue;
		engine_look(e, &k->snapshot->rows[i]);
		if (!k->snapshot->rows[i].n_addresses || fetch_is_busy(&e->fetch) ||
		    engine_now(e) < e->ask_at_ms || n_under_way >= UNDER_WAY_MAX)
			continue;
		engine_ask(e, i);
		n_under_way += fetch_is_busy(&e->fetch);
	}
}

static struct kv_engine *engine_new(struct kv_engines *k, struct instance *instance) {
	struct kv_engine *e = calloc(1, sizeof(*e));

	e->all = k;
	e->instance = instance_ref(instance);
	e->wait_ms = WAIT_MIN_MS;
	e->n_restarts = engine_restarts(e);
	e->n_doubts = engine_doubts(e);
	fetch_init(&e->fetch, TIMEOUT_MS, BODY_BYTES_MAX, engine_on_done);
	return e;
}

static void engine_free(struct kv_engine **ep) {
	struct kv_engine *e = *ep;

	*ep = NULL;
	fetch_cancel(&e->fetch);
	instance_unref(&e->instance);
	free(e);
}

static void engines_on_change(struct job *job) {
	struct kv_engines *k = container_of(job, struct kv_engines, change);

	k->on_change(k);
}

void kv_engines_init(struct kv_engines *k, struct loop *loop, struct fleet *fleet, const char *connector,
    void (*on_change)(struct kv_engines *k)) {
	memset(k, 0, sizeof(*k));
	k->loop = loop;
	k->fleet = fleet;
	k->is_default = strcmp(connector, "mooncake") == 0;
	k->on_change = on_change;
	timer_init(&k->tick, engines_on_tick);
	job_init(&k->change, engines_on_change);
}

/* All of them, or those that the snapshot does not list. Returns how many are left. */
static unsigned engines_let_go(struct kv_engines *k, bool all) {
	unsigned n = 0;

	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++) {
		if (k->by_slot[slot] && (all || !k->by_slot[slot]->is_listed))
			engine_free(&k->by_slot[slot]);
		n += k->by_slot[slot] != NULL;
	}
	return n;
}

void kv_engines_deinit(struct kv_engines *k) {
	timer_stop(&k->tick);
	job_cancel(&k->change);
	engines_let_go(k, true);
	snapshot_unref(&k->snapshot);
}

/* One row stands for its target. */
static bool engines_wants(const struct kv_engines *k, uint32_t row) {
	const struct snapshot *snap = k->snapshot;
	struct slice connector = target_label(snap, row, SLICE("kv_connector"));

	return snap->rows[row].primary == row &&
	    slice_eq(target_label(snap, row, SLICE("role")), SLICE("prefill")) &&
	    (connector.p ? slice_eq(connector, SLICE("mooncake")) : k->is_default);
}

static void engines_list(struct kv_engines *k, struct instance *instance) {
	struct kv_engine **e = &k->by_slot[instance->slot];

	if (!*e)
		*e = engine_new(k, instance);
	/* A slot is taken again only when nobody holds its last instance, and this one did. */
	assert((*e)->instance == instance);
	(*e)->is_listed = true;
}

void kv_engines_sync(struct kv_engines *k, struct snapshot *snapshot) {
	snapshot_unref(&k->snapshot);
	k->snapshot = snapshot_ref(snapshot);
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++)
		if (k->by_slot[slot])
			k->by_slot[slot]->is_listed = false;
	for (uint32_t i = 0; i < snapshot->n_rows; i++)
		if (engines_wants(k, i))
			engines_list(k, snapshot->rows[i].instance);
	if (!engines_let_go(k, false))
		timer_stop(&k->tick);
	else if (!timer_is_running(&k->tick))
		loop_timer(k->loop, &k->tick, 0);
}
