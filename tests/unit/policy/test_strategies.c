/*
 * What each policy is for, said as a property of it among at least three instances; and the proof
 * that the properties see something: a stand-in that has all of a policy but its choice, and
 * always takes the first, has none of them.
 */
#include "unit/policy/picks.h"

#include "policy/choice.h"

#define SECOND UINT64_C(1000000000)

static const uint16_t equal[PICKS_ROWS_MAX] = { 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000,
	1000, 1000, 1000, 1000, 1000, 1000 };

static uint64_t nth_key(uint64_t n) {
	return (n + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Counts against shares, over as many as there are counts. */
static double chi_square(const unsigned *counts, const double *shares, unsigned n) {
	double sum = 0, total = 0, of = 0;

	for (unsigned i = 0; i < n; i++) {
		total += counts[i];
		of += shares[i];
	}
	for (unsigned i = 0; i < n; i++) {
		double expected = total * shares[i] / of;

		sum += (counts[i] - expected) * (counts[i] - expected) / expected;
	}
	return sum;
}

/* Two degrees of freedom: one sample in a thousand is beyond. */
#define CHI_SQUARE_3 13.8

/* --- distributions -------------------------------------------------------------------------- */

/* Exact shares of 7000 picks, once the round in which it began is over; one that stays away leaves the others
 * theirs. */
static bool goes_round_by_weight(const struct policy *policy) {
	const uint16_t weights[] = { 5, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX], n_first = 0;
	struct picks p;

	picks_open_with(&p, policy, weights, 3, 1);
	picks_count(&p, 7, counts);
	picks_count(&p, 7000, counts);
	bool holds = counts[0] == 5000 && counts[1] == 1000 && counts[2] == 1000;
	for (unsigned i = 0; i < 600; i++)
		n_first += picks_next(&p, 2, 0) == 0;
	holds = holds && n_first >= 499 && n_first <= 501;
	picks_close(&p);
	return holds;
}

static bool is_uniform(const struct policy *policy) {
	const uint16_t weights[] = { 5, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open_with(&p, policy, weights, 3, 11);
	picks_count(&p, 100000, counts);
	picks_close(&p);
	return chi_square(counts, (double[]){ 1, 1, 1 }, 3) < CHI_SQUARE_3;
}

static bool follows_weights(const struct policy *policy) {
	const uint16_t weights[] = { 5, 3, 2 };
	unsigned plain[PICKS_ROWS_MAX], sharp[PICKS_ROWS_MAX];
	struct picks p;

	picks_open_with(&p, policy, weights, 3, 11);
	picks_count(&p, 100000, plain);
	p.options.random_sharpness = 2;
	picks_count(&p, 100000, sharp);
	picks_close(&p);
	return chi_square(plain, (double[]){ 5, 3, 2 }, 3) < CHI_SQUARE_3 &&
	    chi_square(sharp, (double[]){ 25, 9, 4 }, 3) < CHI_SQUARE_3;
}

/* 40 requests are always in flight; two do 10 in the time in which the third does 1. */
static bool a_slow_one_gets_a_tenth(const struct policy *policy) {
	enum { IN_FLIGHT = 40 };
	static const unsigned speeds[] = { 1, 10, 10 };
	struct ticket tickets[IN_FLIGHT] = { { .phase = TICKET_CLOSED } };
	uint32_t rows[IN_FLIGHT] = { 0 };
	unsigned n_got[3] = { 0 };
	struct picks p;

	picks_open_with(&p, policy, equal, 3, 3);
	for (unsigned turn = 0; turn < 400; turn++) {
		unsigned n_done[3] = { 0 };

		for (unsigned i = 0; i < IN_FLIGHT; i++)
			if (!ticket_is_open(&tickets[i]))
				n_got[rows[i] = picks_send(&p, 0, &tickets[i])]++;
		for (unsigned i = 0; i < IN_FLIGHT; i++)
			if (n_done[rows[i]]++ < speeds[rows[i]])
				ticket_close(&tickets[i], &p.set, NULL);
	}
	for (unsigned i = 0; i < IN_FLIGHT; i++)
		ticket_close(&tickets[i], &p.set, NULL);
	picks_close(&p);
	return n_got[0] * 8 < n_got[1] && n_got[0] * 12 > n_got[1] && n_got[1] < n_got[2] * 11 / 10 &&
	    n_got[2] < n_got[1] * 11 / 10;
}

/* Two different ones are drawn: the worst of three never wins, the best in two of three pairs. */
static bool the_better_of_two_wins(const struct policy *policy) {
	unsigned counts[PICKS_ROWS_MAX];
	struct picks p;

	picks_open_with(&p, policy, equal, 3, 7);
	picks_charge(&p, 0, 1);
	picks_charge(&p, 1, 2);
	picks_count(&p, 3000, counts);
	picks_close(&p);
	return counts[1] == 0 && counts[2] > 1900 && counts[2] < 2100;
}

/* --- minima --------------------------------------------------------------------------------- */

static bool the_quickest_is_taken(const struct policy *policy) {
	bool holds = true;

	for (uint32_t quickest = 0; quickest < 4; quickest++) {
		struct picks p;

		picks_open_with(&p, policy, equal, 4, quickest);
		for (uint32_t r = 0; r < 4; r++) {
			struct learned *learned = &picks_instance(&p, r)->learned;

			learned_write(&learned->first_token_s, r == quickest ? 0.1 : 0.35);
			atomic_store(&learned->first_ns, 100 * SECOND);
		}
		for (unsigned i = 0; i < 3; i++) {
			holds &= picks_next(&p, -1, 100000) == quickest;
			picks_charge(&p, quickest, 1);
		}
		holds &= picks_next(&p, -1, 100000) != quickest; /* 4 x 0.1 against 0.35 */
		picks_close(&p);
	}
	return holds;
}

static void degrade_the_idle_one(struct snapshot_row *rows) {
	rows[0].state = INSTANCE_DEGRADED;
}

/* By load among the ready ones; the idle one is in a lower tier. */
static bool the_best_of_the_best_tier_is_taken(const struct policy *policy) {
	struct picks p;

	picks_open_with(&p, policy, equal, 4, 1);
	picks_change(&p, degrade_the_idle_one);
	picks_charge(&p, 1, 4);
	picks_charge(&p, 2, 2);
	picks_charge(&p, 3, 3);
	bool holds = picks_next(&p, -1, 0) == 2;
	picks_charge(&p, 2, 3);
	holds &= picks_next(&p, -1, 0) == 3;
	picks_close(&p);
	return holds;
}

/* --- affinity ------------------------------------------------------------------------------- */

/* Of n instances one leaves: its keys move, about 1 in n, and no others. Each key had one home before. */
static bool one_of_n_moves_its_own(const struct policy *policy, uint32_t n) {
	enum { KEYS = 4000 };
	static const char names[] = "abcdefghijklmnop";
	char before[KEYS], others[PICKS_ROWS_MAX];
	unsigned n_moved = 0, n_astray = 0;
	struct picks p;

	picks_open_with(&p, policy, equal, n, n);
	for (unsigned i = 0; i < KEYS; i++) {
		p.demand.session = nth_key(i);
		before[i] = picks_name(&p);
		n_astray += picks_name(&p) != before[i];
	}
	snprintf(others, sizeof(others), "%.*s", (int)n - 1, names + 1); /* all but a, the first */
	picks_adopt(&p, others);
	for (unsigned i = 0; i < KEYS; i++) {
		p.demand.session = nth_key(i);
		bool has_moved = picks_name(&p) != before[i];

		n_moved += has_moved;
		n_astray += has_moved != (before[i] == 'a');
	}
	picks_close(&p);
	return n_astray == 0 && n_moved > KEYS / n * 2 / 3 && n_moved < KEYS / n * 4 / 3;
}

static bool who_leaves_moves_its_own(const struct policy *policy) {
	return one_of_n_moves_its_own(policy, 3) && one_of_n_moves_its_own(policy, 5) &&
	    one_of_n_moves_its_own(policy, 8) && one_of_n_moves_its_own(policy, 16);
}

/* 300 sessions, 100 to each, and there they stay. */
static bool sessions_are_spread_and_stay(const struct policy *policy) {
	unsigned counts[3] = { 0 }, n_moved = 0;
	uint32_t homes[300];
	struct picks p;

	picks_open_with(&p, policy, equal, 3, 1);
	for (unsigned i = 0; i < 300; i++) {
		p.demand.session = nth_key(i);
		counts[homes[i] = picks_serve(&p, SECOND)]++;
	}
	for (unsigned i = 0; i < 300; i++) {
		p.demand.session = nth_key(i);
		n_moved += picks_serve(&p, 2 * SECOND) != homes[i];
	}
	picks_close(&p);
	return counts[0] == 100 && counts[1] == 100 && counts[2] == 100 && n_moved == 0;
}

/* Prompts of nine lengths; in the end each instance has those next to each other, and a third of the tokens.
 */
static bool lengths_are_parted_evenly(const struct policy *policy) {
	double tokens[3] = { 0 }, total = 0;
	uint32_t row_of[9] = { 0 };
	struct picks p;

	picks_open_with(&p, policy, equal, 3, 1);
	for (unsigned i = 0; i < 9000; i++) {
		p.demand.prompt_tokens = 100u << (i % 9);
		uint32_t row = picks_serve(&p, (i + 1) * SECOND / 10);

		if (i < 4500)
			continue;
		row_of[i % 9] = row;
		tokens[row] += p.demand.prompt_tokens;
		total += p.demand.prompt_tokens;
	}
	bool holds = row_of[0] == 0 && row_of[8] == 2;
	for (unsigned i = 1; i < 9; i++)
		holds &= row_of[i] >= row_of[i - 1];
	for (unsigned r = 0; r < 3; r++)
		holds &= tokens[r] > total / 6;
	picks_close(&p);
	return holds;
}

static const struct pair paged_label[] = { { { "cache_type", 10 }, { "paged", 5 } } };

/* Rows 0 and 1 by their labels, 2 and 3 by their records. */
static void make_classes(struct snapshot_row *rows) {
	for (unsigned r = 0; r < 2; r++)
		rows[r].labels = (struct pairs){ paged_label, 1 };
	for (unsigned r = 2; r < 4; r++)
		rows[r].metadata = SLICE("{\"cache_type\":\"static\",\"gpus\":2}");
}

/* Long ones to row 2 or 3, short ones to row 0 or 1; within, where the cache is, both are used. */
static bool sizes_have_their_class(const struct policy *policy) {
	struct prefix_index *index = prefix_index_new(1 << 20);
	unsigned counts[4] = { 0 };
	uint32_t homes[40];
	bool holds = true;
	struct picks p;

	picks_open_with(&p, policy, equal, 4, 1);
	p.set.index = index;
	picks_change(&p, make_classes);
	for (unsigned i = 0; i < 80; i++) {
		uint64_t key = nth_key(i % 40);

		p.demand = (struct demand){ .keys = &key,
			.n_keys = 1,
			.prompt_tokens = 1000,
			.prompt_bytes = i % 2 ? 51201 : 51200 };
		uint32_t row = picks_serve(&p, SECOND);

		counts[row]++;
		holds &= row / 2 == i % 2;
		holds &= i < 40 || homes[i % 40] == row;
		homes[i % 40] = row;
	}
	for (unsigned r = 0; r < 4; r++)
		holds &= counts[r] > 4;
	picks_close(&p);
	prefix_index_free(&index);
	return holds;
}

/* Prompts of 40 conversations are spread, and each comes back to where its cache is. */
static bool prompts_return_to_their_cache(const struct policy *policy) {
	struct prefix_index *index = prefix_index_new(1 << 20);
	uint64_t keys[40][4];
	uint32_t homes[40];
	unsigned counts[4] = { 0 };
	bool holds = true;
	struct picks p;

	picks_open_with(&p, policy, equal, 4, 1);
	p.set.index = index;
	policy_set_adopt(&p.set, p.snap);
	for (unsigned i = 0; i < 80; i++) {
		for (unsigned k = 0; k < 4; k++)
			keys[i % 40][k] = nth_key(i % 40 * 4 + k);
		p.demand = (struct demand){
			.keys = keys[i % 40], .n_keys = 4, .prompt_tokens = 2000, .prompt_bytes = 8192
		};
		uint32_t row = picks_serve(&p, SECOND);

		counts[row]++;
		holds &= i < 40 || homes[i % 40] == row;
		homes[i % 40] = row;
	}
	for (unsigned r = 0; r < 4; r++)
		holds &= counts[r] > 4;
	picks_close(&p);
	prefix_index_free(&index);
	return holds;
}

/* --- the table ------------------------------------------------------------------------------ */

static const struct {
	const struct policy *policy;
	bool (*holds)(const struct policy *policy);
} claims[] = {
	{ &cache_aware_policy, prompts_return_to_their_cache },
	{ &round_robin_policy, goes_round_by_weight },
	{ &least_load_policy, a_slow_one_gets_a_tenth },
	{ &power_of_two_policy, the_better_of_two_wins },
	{ &random_pick_policy, is_uniform },
	{ &weighted_random_policy, follows_weights },
	{ &least_latency_policy, the_quickest_is_taken },
	{ &consistent_hash_policy, who_leaves_moves_its_own },
	{ &rendezvous_hash_policy, who_leaves_moves_its_own },
	{ &session_policy, sessions_are_spread_and_stay },
	{ &bucket_policy, lengths_are_parted_evenly },
	{ &size_class_policy, sizes_have_their_class },
	{ &composite_policy, the_best_of_the_best_tier_is_taken },
};

static void each_policy_does_what_it_is_for(void **state) {
	unsigned n_failed = 0;

	for (size_t i = 0; i < n_elems(claims); i++)
		if (!claims[i].holds(claims[i].policy)) {
			print_error("not so of %s\n", claims[i].policy->name);
			n_failed++;
		}
	assert_int_equal(n_failed, 0);
}

static uint32_t take_the_first(struct choice *choice) {
	return 0;
}

static void none_holds_of_taking_the_first(void **state) {
	for (size_t i = 0; i < n_elems(claims); i++) {
		struct policy first = *claims[i].policy;

		first.pick = take_the_first;
		if (claims[i].holds(&first))
			fail_msg("the property of %s is nothing special", first.name);
	}
}

static void each_policy_has_a_claim(void **state) {
	for (size_t p = 0; policy_table[p]; p++) {
		size_t i = 0;

		while (i < n_elems(claims) && claims[i].policy != policy_table[p])
			i++;
		assert_true(i < n_elems(claims));
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_policy_does_what_it_is_for),
		cmocka_unit_test(none_holds_of_taking_the_first),
		cmocka_unit_test(each_policy_has_a_claim),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
