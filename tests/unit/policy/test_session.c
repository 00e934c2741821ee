#include "unit/policy/stands.h"

#define SECOND UINT64_C(1000000000)

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };

/* The row that a request of this session goes to, of those who serve this, and why; answered at once. */
static uint32_t serve_of(struct picks *p, const struct model *model, uint64_t session, uint64_t now_s,
    enum pick_reason *reason_out) {
	struct pick_input input = { .model = model, .now_ns = now_s * SECOND, .demand = &p->demand };
	struct ticket t = { .phase = TICKET_CLOSED };
	struct pick_result result;

	p->demand.session = session * UINT64_C(0x9e3779b97f4a7c15);
	assert_int_equal(policy_pick(&p->set, &input, &result), 0);
	ticket_open(&t, &p->set, &input, &result);
	ticket_close(&t, &p->set, NULL);
	*reason_out = result.reason;
	return result.row;
}

static uint32_t serve(struct picks *p, uint64_t session, uint64_t now_s, enum pick_reason *reason_out) {
	return serve_of(p, snapshot_model(p->set.snapshot, SLICE("m")), session, now_s, reason_out);
}

static uint32_t n_sessions(const struct picks *p, uint32_t row) {
	return session_table_count(p->sessions, session_home_of(picks_instance(p, row)));
}

static void a_pick_binds_nothing(void **state) {
	struct picks p;

	picks_open(&p, "session", equal, 3, 1);
	p.demand.session = 7;
	for (unsigned i = 0; i < 10; i++)
		(void)picks_next(&p, -1, 1000);
	for (uint32_t r = 0; r < 3; r++)
		assert_int_equal(n_sessions(&p, r), 0);
	picks_close(&p);
}

/* A second request of the same is none of the session's: it stays where it lives. */
static void a_hedge_moves_nobody(void **state) {
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 3, 1);
	uint32_t home = serve(&p, 7, 1, &reason);
	struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
		.tried = &picks_instance(&p, home)->slot,
		.n_tried = 1,
		.now_ns = SECOND,
		.demand = &p.demand,
		.is_hedge = true };
	struct ticket t = { .phase = TICKET_CLOSED };
	struct pick_result result;
	assert_int_equal(policy_pick(&p.set, &input, &result), 0);
	assert_int_not_equal(result.row, home);
	ticket_open(&t, &p.set, &input, &result);
	ticket_close(&t, &p.set, NULL);
	assert_int_equal(serve(&p, 7, 1, &reason), home);
	assert_int_equal(reason, PICK_STICKY_HIT);
	picks_close(&p);
}

static void new_ones_go_where_the_fewest_live(void **state) {
	const uint16_t weights[] = { 1, 2, 3 };
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", weights, 3, 1);
	for (uint64_t i = 1; i <= 60; i++) {
		serve(&p, i, 1, &reason);
		assert_int_equal(reason, PICK_STICKY_NEW);
	}
	for (uint32_t r = 0; r < 3; r++)
		assert_int_equal(n_sessions(&p, r), 10 * weights[r]);

	/* Ten of the second end: the next ten are its. */
	unsigned n_ended = 0;
	for (uint64_t i = 1; n_ended < 10; i++) {
		struct session_home home;
		uint64_t key = i * UINT64_C(0x9e3779b97f4a7c15);

		assert_true(session_table_find(p.sessions, key, 1, &home));
		if (session_home_is(home, picks_instance(&p, 1)))
			n_ended += session_table_end(p.sessions, key);
	}
	for (uint64_t i = 100; i < 110; i++)
		assert_int_equal(serve(&p, i, 1, &reason), 1);
	picks_close(&p);
}

/* As many sessions everywhere: the load decides, and among equals a hash, not the first. */
static void ties_are_broken(void **state) {
	unsigned counts[4] = { 0 };
	enum pick_reason reason;

	for (uint64_t i = 1; i <= 200; i++) {
		struct picks p;

		picks_open(&p, "session", equal, 4, 1);
		counts[serve(&p, i, 1, &reason)]++;
		picks_close(&p);
	}
	for (unsigned r = 0; r < 4; r++)
		assert_in_range(counts[r], 30, 70);
	struct picks p;

	picks_open(&p, "session", equal, 4, 1);
	picks_charge(&p, 0, 3);
	picks_charge(&p, 1, 2);
	picks_charge(&p, 3, 2);
	assert_int_equal(serve(&p, 1, 1, &reason), 2);
	picks_close(&p);
}

static void a_home_that_drowns_is_left_for_good(void **state) {
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 4, 1);
	uint32_t home = serve(&p, 1, 1, &reason);
	picks_charge(&p, home, 8);
	assert_int_equal(serve(&p, 1, 1, &reason), home); /* 8 are few */
	assert_int_equal(reason, PICK_STICKY_HIT);
	picks_charge(&p, home, 1);
	uint32_t next = serve(&p, 1, 1, &reason); /* 9 of 9 */
	assert_int_not_equal(next, home);
	assert_int_equal(reason, PICK_STICKY_SPILL);
	assert_int_equal(n_sessions(&p, home), 0);
	assert_int_equal(n_sessions(&p, next), 1);
	for (uint32_t r = 0; r < 4; r++)
		picks_charge(&p, r, r == home ? 0 : 9);
	assert_int_equal(serve(&p, 1, 1, &reason), next); /* the old one is well again, but it lives here */
	assert_int_equal(reason, PICK_STICKY_HIT);
	picks_charge(&p, next, 9); /* 18 are not more than twice the others' 9 */
	assert_int_equal(serve(&p, 1, 1, &reason), next);
	picks_charge(&p, next, 1);
	assert_int_not_equal(serve(&p, 1, 1, &reason), next);
	picks_close(&p);
}

static void how_soft_it_is_can_be_said(void **state) {
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 4, 1);
	p.options.session_overload = 100;
	uint32_t home = serve(&p, 1, 1, &reason);
	for (uint32_t r = 0; r < 4; r++)
		picks_charge(&p, r, r == home ? 1000 : 10);
	assert_int_equal(serve(&p, 1, 1, &reason), home);
	picks_charge(&p, home, 1);
	assert_int_not_equal(serve(&p, 1, 1, &reason), home);
	picks_close(&p);
}

/* Of two, one is half of the mean itself: it is the other that it is measured by. */
static void one_of_two_can_drown(void **state) {
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 2, 1);
	uint32_t home = serve(&p, 1, 1, &reason);
	picks_charge(&p, home, 20);
	assert_int_not_equal(serve(&p, 1, 1, &reason), home);
	picks_close(&p);
}

static void the_idle_begin_anew(void **state) {
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 3, 1);
	serve(&p, 1, 1000, &reason);
	serve(&p, 1, 1000 + 7200, &reason);
	assert_int_equal(reason, PICK_STICKY_HIT);
	serve(&p, 1, 1000 + 7200 + 7200 + 2 * SESSION_TICK_S, &reason);
	assert_int_equal(reason, PICK_STICKY_NEW);
	picks_close(&p);
}

/* Its home leaves the fleet, or just failed: it moves, and stays. */
static void who_loses_its_home_moves(void **state) {
	char names[] = "abcd";
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 4, 1);
	uint32_t home = serve(&p, 1, 1, &reason);
	memmove(names + home, names + home + 1, strlen(names + home));
	picks_adopt(&p, names);
	uint32_t next = serve(&p, 1, 1, &reason);
	assert_int_equal(reason, PICK_STICKY_SPILL);
	assert_int_equal(serve(&p, 1, 1, &reason), next);
	assert_int_equal(reason, PICK_STICKY_HIT);
	picks_close(&p);
}

/* Who computes its prompts, and who decodes them: each stays, whoever has less to do. */
static void a_session_of_a_pair_has_two_homes(void **state) {
	static const struct stand stands[] = { { .labels = "role=prefill" }, { .labels = "role=prefill" },
		{ .labels = "role=decode" }, { .labels = "role=decode" } };
	enum pick_reason reason;
	struct picks p;

	stands_open(&p, "session", stands, n_elems(stands));
	const struct model *m = snapshot_model(p.set.snapshot, SLICE("m"));
	uint32_t first = serve_of(&p, m->first, 1, 1, &reason);
	uint32_t second = serve_of(&p, m->decode, 1, 1, &reason);
	assert_in_range(first, 0, 1);
	assert_in_range(second, 2, 3);
	picks_charge(&p, first, 1);
	picks_charge(&p, second, 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(serve_of(&p, m->first, 1, 1, &reason), first);
		assert_int_equal(reason, PICK_STICKY_HIT);
		assert_int_equal(serve_of(&p, m->decode, 1, 1, &reason), second);
		assert_int_equal(reason, PICK_STICKY_HIT);
	}
	assert_int_equal(n_sessions(&p, first), 1);
	assert_int_equal(n_sessions(&p, second), 1);
	picks_close(&p);
}

static void without_a_table_or_a_session_it_is_least_load(void **state) {
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 3, 1);
	picks_charge(&p, 0, 1);
	picks_charge(&p, 1, 1);
	assert_int_equal(serve(&p, 0, 1, &reason), 2);
	assert_int_equal(reason, PICK_LEAST_LOAD);
	p.set.sessions = NULL;
	assert_int_equal(serve(&p, 1, 1, &reason), 2);
	assert_int_equal(reason, PICK_LEAST_LOAD);
	picks_close(&p);
}

/* The first to answer is not given them all: who is in its first second will be as good. */
static void new_ones_mind_no_health(void **state) {
	enum pick_reason reason;
	struct picks p;

	picks_open(&p, "session", equal, 4, 1);
	picks_give_shares(&p, 1);
	for (uint64_t i = 1; i <= 16; i++)
		serve(&p, i, 1, &reason);
	for (uint32_t r = 0; r < 4; r++)
		assert_int_equal(n_sessions(&p, r), 4);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pick_binds_nothing),
		cmocka_unit_test(a_hedge_moves_nobody),
		cmocka_unit_test(new_ones_go_where_the_fewest_live),
		cmocka_unit_test(new_ones_mind_no_health),
		cmocka_unit_test(ties_are_broken),
		cmocka_unit_test(a_home_that_drowns_is_left_for_good),
		cmocka_unit_test(how_soft_it_is_can_be_said),
		cmocka_unit_test(one_of_two_can_drown),
		cmocka_unit_test(the_idle_begin_anew),
		cmocka_unit_test(who_loses_its_home_moves),
		cmocka_unit_test(a_session_of_a_pair_has_two_homes),
		cmocka_unit_test(without_a_table_or_a_session_it_is_least_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
