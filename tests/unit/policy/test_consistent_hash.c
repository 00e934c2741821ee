#include "unit/policy/picks.h"

#include "policy/consistent_hash.c"

static const uint16_t equal[PICKS_ROWS_MAX] = { 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000,
	1000, 1000, 1000, 1000, 1000, 1000 };

/* Keys as like each other as can be. */
static uint32_t row_of(struct picks *p, uint64_t session) {
	p->demand = (struct demand){ .session = session };
	return picks_next(p, -1, 0);
}

static void a_session_has_one_home_in_every_router(void **state) {
	struct picks p, q;

	picks_open(&p, "consistent_hash", equal, 8, 1);
	picks_open(&q, "consistent_hash", equal, 8, 2);
	picks_adopt(&q, "abcdefg"); /* one was away */
	picks_adopt(&q, "abcdefgh");
	for (uint64_t session = 1; session < 1000; session++) {
		uint32_t home = row_of(&p, session);

		assert_int_equal(row_of(&p, session), home);
		assert_int_equal(row_of(&q, session), home);
	}
	picks_close(&p);
	picks_close(&q);
}

/* The standard deviation of a share is 8 % with 160 points each. */
static void equal_ones_have_nearly_equal_shares(void **state) {
	unsigned counts[16] = { 0 };
	double sum = 0;
	struct picks p;

	picks_open(&p, "consistent_hash", equal, 16, 1);
	for (uint64_t session = 1; session <= 64000; session++)
		counts[row_of(&p, session)]++;
	for (unsigned r = 0; r < 16; r++)
		sum += (counts[r] / 4000.0 - 1) * (counts[r] / 4000.0 - 1);
	assert_true(sum / 16 < 0.11 * 0.11);
	picks_close(&p);
}

static void shares_follow_the_weights(void **state) {
	const uint16_t weights[] = { 1000, 2000, 5000 };
	unsigned counts[3] = { 0 };
	struct picks p;

	picks_open(&p, "consistent_hash", weights, 3, 1);
	for (uint64_t session = 1; session <= 8000; session++)
		counts[row_of(&p, session)]++;
	for (uint32_t r = 0; r < 3; r++)
		assert_in_range(counts[r], weights[r] * 85u / 100, weights[r] * 115u / 100);
	picks_close(&p);
}

static void who_is_not_eligible_is_passed_over(void **state) {
	struct picks p;

	picks_open(&p, "consistent_hash", equal, 8, 1);
	for (uint64_t session = 1; session < 500; session++) {
		uint32_t home = row_of(&p, session), next = picks_next(&p, (int)home, 0);

		assert_int_not_equal(next, home);
		/* Others' sessions stay where they are meanwhile. */
		uint32_t other = home == 3 ? 4 : 3;
		assert_int_equal(picks_next(&p, (int)other, 0), home);
	}
	picks_close(&p);
}

/* One has answered, the others are new or come back; then they do one after the other. */
static void no_key_moves_with_the_health(void **state) {
	unsigned counts[8] = { 0 };
	uint32_t homes[4000];
	struct picks p;

	picks_open(&p, "consistent_hash", equal, 8, 1);
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

	picks_open(&p, "consistent_hash", equal, 8, 1);
	uint32_t home = row_of(&p, 7);
	uint32_t second = picks_next(&p, (int)home, 0);
	for (uint32_t r = 0; r < 8; r++)
		picks_charge(&p, r, r == home ? 12 : r == second ? 8 : 10);
	assert_int_equal(row_of(&p, 7), home);
	picks_charge(&p, home, 1);
	assert_int_equal(row_of(&p, 7), second);
	picks_charge(&p, home, 10);
	picks_charge(&p, second, 20);
	uint32_t third = row_of(&p, 7);
	assert_true(third != home && third != second);
	picks_close(&p);
}

/* Without a session the prompt is the key by its second block, or the only one; without that, it goes round.
 */
static void keys_have_an_order(void **state) {
	unsigned counts[PICKS_ROWS_MAX], n_others = 0;
	struct picks p;

	picks_open(&p, "consistent_hash", equal, 8, 1);
	for (uint64_t i = 1; i < 200; i++) {
		uint64_t keys[] = { 1000 + i, i };

		uint32_t home = row_of(&p, i);
		p.demand = (struct demand){ .keys = keys, .n_keys = 2 };
		assert_int_equal(picks_next(&p, -1, 0), home);
		keys[0] = i;
		p.demand.n_keys = 1;
		assert_int_equal(picks_next(&p, -1, 0), home);
		p.demand.session = 1000 + i;
		n_others += picks_next(&p, -1, 0) != home;
	}
	assert_in_range(n_others, 150, 198);
	p.demand = (struct demand){ .session = 0 };
	picks_count(&p, 800, counts);
	for (uint32_t r = 0; r < 8; r++)
		assert_int_equal(counts[r], 100);
	picks_close(&p);
}

/* A weight that would fill the ring has all the others' points thinned out, too. */
static void the_ring_has_a_ceiling(void **state) {
	const uint16_t weights[] = { 1000, 1000, 1000 };
	struct picks p;

	picks_open(&p, "consistent_hash", weights, 3, 1);
	const struct model *m = &p.snap->models[0];
	struct snapshot_row *rows = (struct snapshot_row *)(uintptr_t)p.snap->rows;
	struct ring *ring = consistent_hash_build(p.snap, m, &p.options);

	assert_int_equal(ring->n, 3 * POINTS);
	for (uint32_t i = 1; i < ring->n; i++)
		assert_true(ring->points[i - 1] >> POSITION_BITS <= ring->points[i] >> POSITION_BITS);
	free(ring);
	rows[1].weight = 1000000000;
	ring = consistent_hash_build(p.snap, m, &p.options);
	assert_in_range(ring->n, RING_POINTS_MAX / 2, RING_POINTS_MAX);
	free(ring);
	rows[1].weight = 1000;
	rows[2].share = 4; /* it is just coming back */
	ring = consistent_hash_build(p.snap, m, &p.options);
	assert_int_equal(ring->n, 3 * POINTS);
	free(ring);
	picks_close(&p);
}

/* The same candidates: the same block. Another share: another one. */
static void a_ring_is_kept_while_it_is_good(void **state) {
	struct picks p;

	picks_open(&p, "consistent_hash", equal, 4, 1);
	const void *ring = p.set.tables[0];
	picks_adopt(&p, "abcd");
	assert_ptr_equal(p.set.tables[0], ring);
	picks_adopt(&p, "abd");
	assert_ptr_not_equal(p.set.tables[0], ring);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_has_one_home_in_every_router),
		cmocka_unit_test(equal_ones_have_nearly_equal_shares),
		cmocka_unit_test(shares_follow_the_weights),
		cmocka_unit_test(who_is_not_eligible_is_passed_over),
		cmocka_unit_test(no_key_moves_with_the_health),
		cmocka_unit_test(a_drowning_home_is_passed_over),
		cmocka_unit_test(keys_have_an_order),
		cmocka_unit_test(the_ring_has_a_ceiling),
		cmocka_unit_test(a_ring_is_kept_while_it_is_good),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
