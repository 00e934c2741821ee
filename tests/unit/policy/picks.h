/*
 * picks: a snapshot, a load table of one worker and a policy at work on them.
 *
 * Row 0 is "a", row 1 "b" and so on; all are ready and serve model "m".
 */
#pragma once

#include "policy/policy.h"
#include "policy/session_table.h"
#include "policy/ticket.h"
#include "unit/fleet/scene.h"

#define PICKS_ROWS_MAX 26

struct picks {
	struct rng rng;
	struct load *load;
	struct session_table *sessions, *responses;
	struct snapshot *snap;
	struct policy_set set;
	struct policy_options options;
	struct demand demand; /* of what is picked for next */
};

static inline struct snapshot *picks_snapshot(const uint16_t *weights, uint32_t n) {
	static const char names[] = "abcdefghijklmnopqrstuvwxyz";
	struct sockaddr_storage address = scene_address("10.0.0.1", 80);
	struct snapshot_row rows[PICKS_ROWS_MAX];
	struct pair model = { SLICE("m"), { NULL, 0 } };

	assert_true(n <= PICKS_ROWS_MAX);
	for (uint32_t r = 0; r < n; r++) {
		struct instance_spec spec = scene_target("");

		spec.name = spec.authority = (struct slice){ names + r, 1 };
		rows[r] = (struct snapshot_row){
			.instance = instance_new(&spec),
			.state = INSTANCE_READY,
			.weight = weights[r],
			.are_models_known = true,
			.primary = r,
			.addresses = &address,
			.n_addresses = 1,
			.models = { &model, 1 },
		};
	}
	struct snapshot *snap = snapshot_new(1, rows, n, (struct pairs){ NULL, 0 });
	for (uint32_t r = 0; r < n; r++)
		instance_unref(&rows[r].instance);
	return snap;
}

static inline void picks_open_with(
    struct picks *p, const struct policy *policy, const uint16_t *weights, uint32_t n, uint64_t seed) {
	assert_non_null(policy);
	p->demand = (struct demand){ .session = 0 };
	rng_init(&p->rng, seed);
	p->load = load_new(1);
	p->sessions = session_table_new(1024, 7200);
	p->responses = session_table_new(1024, 7200);
	p->snap = picks_snapshot(weights, n);
	p->options = (struct policy_options){ POLICY_OPTIONS_DEFAULTS, .policy = policy };
	p->set = (struct policy_set){ .options = &p->options,
		.load = p->load,
		.rng = &p->rng,
		.sessions = p->sessions,
		.responses = p->responses };
	policy_set_init(&p->set);
	policy_set_adopt(&p->set, p->snap);
}

static inline void picks_open(
    struct picks *p, const char *policy, const uint16_t *weights, uint32_t n, uint64_t seed) {
	picks_open_with(p, policy_find(slice_of(policy)), weights, n, seed);
}

static inline void picks_close(struct picks *p) {
	policy_set_deinit(&p->set);
	snapshot_unref(&p->snap);
	session_table_free(&p->sessions);
	session_table_free(&p->responses);
	load_free(&p->load);
}

static inline struct instance *picks_instance(const struct picks *p, uint32_t row) {
	return p->snap->rows[row].instance;
}

static inline void picks_charge(struct picks *p, uint32_t row, unsigned n) {
	while (n-- > 0)
		load_charge(p->load, 0, picks_instance(p, row)->slot, 0);
}

/* This one made a stored response, at that time. */
static inline void picks_keep_response(struct picks *p, uint32_t row, uint64_t response, uint64_t now_s) {
	const struct ticket t = { .instance = picks_instance(p, row), .phase = TICKET_DECODE };

	ticket_keep_response(&t, &p->set, response, now_s * 1000000000);
}

/* The row that gets a request for "m" at time `now_ms`; `tried` is a row, or -1. */
static inline uint32_t picks_next(struct picks *p, int tried, uint64_t now_ms) {
	uint16_t slot = tried < 0 ? 0 : picks_instance(p, (uint32_t)tried)->slot;
	struct pick_input input = {
		.model = snapshot_model(p->set.snapshot, SLICE("m")),
		.tried = &slot,
		.n_tried = tried < 0 ? 0 : 1,
		.now_ns = now_ms * 1000000,
		.demand = &p->demand,
	};
	struct pick_result result;

	assert_int_equal(policy_pick(&p->set, &input, &result), 0);
	assert_ptr_equal(result.instance, p->set.snapshot->rows[result.row].instance);
	return result.row;
}

/* From now on from the rows of these names alone, as a later snapshot has them. */
static inline void picks_adopt(struct picks *p, const char *names) {
	struct snapshot_row rows[PICKS_ROWS_MAX];
	uint32_t n = 0;

	for (; names[n]; n++) {
		rows[n] = p->snap->rows[names[n] - 'a'];
		rows[n].primary = n;
	}
	struct snapshot *next =
	    snapshot_new(p->set.snapshot->version + 1, rows, n, (struct pairs){ NULL, 0 });
	policy_set_adopt(&p->set, next);
	snapshot_unref(&next);
}

/* From now on these are unhealthy. */
static inline void picks_ail(struct picks *p, const char *names) {
	struct snapshot_row rows[PICKS_ROWS_MAX];

	memcpy(rows, p->snap->rows, p->snap->n_rows * sizeof(*rows));
	for (; *names; names++)
		rows[*names - 'a'].state = INSTANCE_UNHEALTHY;
	struct snapshot *next =
	    snapshot_new(p->set.snapshot->version + 1, rows, p->snap->n_rows, (struct pairs){ NULL, 0 });
	policy_set_adopt(&p->set, next);
	snapshot_unref(&next);
}

/* The name of the one that is picked next. */
static inline char picks_name(struct picks *p) {
	return p->set.snapshot->rows[picks_next(p, -1, 0)].instance->spec.name.p[0];
}

/* Counts `n` picks by row. */
static inline void picks_count(struct picks *p, unsigned n, unsigned counts[static PICKS_ROWS_MAX]) {
	memset(counts, 0, PICKS_ROWS_MAX * sizeof(counts[0]));
	while (n-- > 0)
		counts[picks_next(p, -1, 0)]++;
}

/* From now on from the same rows after `change`. */
static inline void picks_change(struct picks *p, void (*change)(struct snapshot_row *rows)) {
	struct snapshot_row rows[PICKS_ROWS_MAX];

	memcpy(rows, p->snap->rows, p->snap->n_rows * sizeof(*rows));
	change(rows);
	struct snapshot *next =
	    snapshot_new(p->set.snapshot->version + 1, rows, p->snap->n_rows, (struct pairs){ NULL, 0 });
	policy_set_adopt(&p->set, next);
	snapshot_unref(&next);
}

/* From now on the first n count in full, the others as those who have just come. */
static inline void picks_give_shares(struct picks *p, uint32_t n) {
	struct snapshot_row rows[PICKS_ROWS_MAX];

	memcpy(rows, p->snap->rows, p->snap->n_rows * sizeof(*rows));
	for (uint32_t r = 0; r < p->snap->n_rows; r++)
		rows[r].share = r < n ? INSTANCE_SHARE_FULL : 1;
	struct snapshot *next =
	    snapshot_new(p->set.snapshot->version + 1, rows, p->snap->n_rows, (struct pairs){ NULL, 0 });
	policy_set_adopt(&p->set, next);
	snapshot_unref(&next);
}

/* The row that gets p->demand at that time, and its ticket. */
static inline uint32_t picks_send(struct picks *p, uint64_t now_ns, struct ticket *t) {
	struct pick_input input = {
		.model = snapshot_model(p->set.snapshot, SLICE("m")), .now_ns = now_ns, .demand = &p->demand
	};
	struct pick_result result;

	*t = (struct ticket){ .phase = TICKET_CLOSED };
	assert_int_equal(policy_pick(&p->set, &input, &result), 0);
	ticket_open(t, &p->set, &input, &result);
	return result.row;
}

/* The same, answered at once. */
static inline uint32_t picks_serve(struct picks *p, uint64_t now_ns) {
	struct ticket t;
	uint32_t row = picks_send(p, now_ns, &t);

	ticket_close(&t, &p->set, NULL);
	return row;
}
