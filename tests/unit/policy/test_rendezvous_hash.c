#include "unit/policy/picks.h"

static const uint16_t equal[] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static uint32_t row_of(struct picks *p, uint64_t session) {
	p->demand.session = session;
	return picks_next(p, -1, 0);
}

static void a_session_has_one_home_in_every_router(void **state) {
	struct picks p, q;

	picks_open(&p, "rendezvous_hash", equal, 8, 1);
	picks_open(&q, "rendezvous_hash", equal, 8, 2);
	for (uint64_t session = 1; session < 1000; session++) {
		uint32_t home = row_of(&p, session);

		assert_int_equal(row_of(&p, session), home);
		assert_int_equal(row_of(&q, session), home);
	}
	picks_close(&p);
	picks_close(&q);
}

static void who_leaves_moves_its_own_sessions_only(void **state) {
	char before[4000];
	unsigned n_moved = 0;
	struct picks p;

	picks_open(&p, "rendezvous_hash", equal, 8, 1);
	for (uint64_t session = 1; session < n_elems(before); session++)
		before[session] = (char)('a' + row_of(&p, session));
	picks_adopt(&p, "hgfeca"); /* without b and d, and in another order */
	for (uint64_t session = 1; session < n_elems(before); session++) {
		p.demand.session = session;
		char now = picks_name(&p);

		n_moved += now != before[session];
		if (before[session] != 'b' && before[session] != 'd')
			assert_int_equal(now, before[session]);
		assert_true(now != 'b' && now != 'd');
	}
	assert_in_range(n_moved, 900, 1100); /* a quarter */
	picks_close(&p);
}

static void sessions_follow_the_weights(void **state) {
	const uint16_t weights[] = { 1, 2, 5 };
	unsigned counts[3] = { 0 };
	struct picks p;

	picks_open(&p, "rendezvous_hash", weights, 3, 1);
	for (uint64_t session = 1; session <= 8000; session++)
		counts[row_of(&p, session)]++;
	for (uint32_t r = 0; r < 3; r++)
		assert_in_range(counts[r], weights[r] * 930u, weights[r] * 1070u);
	picks_close(&p);
}

/* One has answered, the others are new or come back; then they do one after the other. */
static void no_key_moves_with_the_health(void **state) {
	unsigned counts[8] = { 0 };
	uint32_t homes[4000];
	struct picks p;

	picks_open(&p, "rendezvous_hash", equal, 8, 1);
	for (uint64_t session = 1; session < n_elems(homes); session++)
		homes[session] = row_of(&p, session);
	for (unsigned n_well = 1; n_well <= 8; n_well++) {
		picks_give_shares(&p, n_well);
		for (uint64_t session = 1; session < n_elems(homes); session++) {
			assert_int_equal(row_of(&p, session), homes[session]);
			counts[homes[session]] += n_well == 1;
		}
	}
	for (uint32_t r = 0; r < 8; r++)
		assert_in_range(counts[r], 350, 650);
	/* What it takes of them at a time is another matter. */
	picks_give_shares(&p, 1);
	for (uint32_t r = 0; r < 8; r++)
		picks_charge(&p, r, 10);
	for (uint64_t session = 1; session < n_elems(homes); session++)
		assert_int_equal(row_of(&p, session), 0);
	picks_close(&p);
}

/* 80 in flight on 8 equal ones: none may have more than 13. */
static void a_drowning_home_is_passed_over(void **state) {
	struct picks p;

	picks_open(&p, "rendezvous_hash", equal, 8, 1);
	uint32_t home = row_of(&p, 7);
	p.demand.session = 7;
	uint32_t second = picks_next(&p, (int)home, 0);
	for (uint32_t r = 0; r < 8; r++)
		picks_charge(&p, r, r == home ? 12 : r == second ? 8 : 10);
	assert_int_equal(row_of(&p, 7), home); /* it would be its 13th */
	picks_charge(&p, home, 1);
	assert_int_equal(row_of(&p, 7), second);
	picks_charge(&p, home, 10);
	picks_charge(&p, second, 20);
	uint32_t third = row_of(&p, 7);
	assert_true(third != home && third != second);
	picks_close(&p);
}

static void few_requests_drown_nobody(void **state) {
	struct picks p;

	picks_open(&p, "rendezvous_hash", equal, 8, 1);
	uint32_t home = row_of(&p, 7);
	picks_charge(&p, home, 7);
	assert_int_equal(row_of(&p, 7), home);
	picks_charge(&p, home, 1);
	assert_int_not_equal(row_of(&p, 7), home);
	picks_close(&p);
}

static void without_a_session_it_goes_round(void **state) {
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open(&p, "rendezvous_hash", equal, 8, 1);
	picks_count(&p, 800, counts);
	for (uint32_t r = 0; r < 8; r++)
		assert_int_equal(counts[r], 100);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_has_one_home_in_every_router),
		cmocka_unit_test(who_leaves_moves_its_own_sessions_only),
		cmocka_unit_test(sessions_follow_the_weights),
		cmocka_unit_test(no_key_moves_with_the_health),
		cmocka_unit_test(a_drowning_home_is_passed_over),
		cmocka_unit_test(few_requests_drown_nobody),
		cmocka_unit_test(without_a_session_it_goes_round),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
