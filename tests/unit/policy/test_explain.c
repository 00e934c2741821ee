#include "unit/policy/stands.h"

#include <math.h>

#include "policy/explain.h"
#include "policy/session_table.h"
#include "policy/ticket.h"

#define N_KEYS     40
#define N_SESSIONS 20

/* A fleet with a past: some of it weighs more, has load, failed lately or holds prompts. */
struct scene {
	struct picks p;
	struct rng dice;
	uint64_t keys[N_KEYS];
	struct ticket tickets[200];
	size_t n_tickets;
	uint16_t tried[3];
	uint32_t n_tried;
};

static uint64_t dice(struct scene *s, uint64_t n) {
	return rng_below(&s->dice, n);
}

static void scene_demand(struct scene *s) {
	uint32_t n_shared = (uint32_t)dice(s, N_KEYS),
		 n = n_shared + (uint32_t)dice(s, N_KEYS - n_shared + 1);

	for (uint32_t i = 0; i < N_KEYS; i++)
		s->keys[i] =
		    (i + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ (i < n_shared ? 0 : rng_next(&s->dice) << 20);
	s->p.demand = (struct demand){
		.session = dice(s, 3) ? dice(s, N_SESSIONS) + 1 : 0,
		.keys = s->keys,
		.n_keys = n,
		.prompt_bytes = n * PROMPT_BLOCK_BYTES,
		.prompt_tokens = n * PROMPT_BLOCK_BYTES / 4,
		.output_tokens = 100,
		.seed = rng_next(&s->dice),
	};
	if (!s->p.demand.session && n == 0) /* nothing to go by: that pick is drawn */
		s->p.demand.session = 7;
}

static struct pick_input scene_input(struct scene *s) {
	return (struct pick_input){
		.model = snapshot_model(s->p.set.snapshot, SLICE("m")),
		.demand = &s->p.demand,
		.tried = s->tried,
		.n_tried = s->n_tried,
		.now_ns = UINT64_C(5000000000),
	};
}

static void scene_work(struct scene *s, unsigned n) {
	while (n-- > 0 && s->n_tickets < n_elems(s->tickets)) {
		struct ticket *t = &s->tickets[s->n_tickets++];
		struct pick_input input = scene_input(s);
		struct pick_result pick;

		scene_demand(s);
		assert_int_equal(policy_pick(&s->p.set, &input, &pick), 0);
		ticket_open(t, &s->p.set, &input, &pick);
		if (dice(s, 2))
			ticket_first(t, &s->p.set, input.now_ns + dice(s, 1000000000));
		if (dice(s, 3) == 0)
			ticket_close(t, &s->p.set, NULL);
	}
}

static void scene_open(struct scene *s, const char *policy, uint64_t seed) {
	uint16_t weights[PICKS_ROWS_MAX];

	*s = (struct scene){ .n_tickets = 0 };
	rng_init(&s->dice, seed);
	uint32_t n = 1 + (uint32_t)dice(s, PICKS_ROWS_MAX);
	for (uint32_t i = 0; i < n; i++)
		weights[i] = (uint16_t)(dice(s, 5) ? 1 + dice(s, 4) : 0);
	picks_open(&s->p, policy, weights, n, seed);
	s->p.set.index = prefix_index_new(1u << 20);
	s->p.set.sessions = session_table_new(1000, 600);
	policy_set_adopt(&s->p.set, s->p.set.snapshot);
	for (uint32_t i = 0; i < n; i++)
		if (dice(s, 6) == 0)
			instance_avoid(picks_instance(&s->p, i), 4900 - dice(s, 3000));
	scene_work(s, 1 + (unsigned)dice(s, 100));
	for (uint32_t i = 0; i + 1 < n && s->n_tried < n_elems(s->tried); i++)
		if (dice(s, 6) == 0)
			s->tried[s->n_tried++] = picks_instance(&s->p, i)->slot;
	scene_demand(s);
}

static void scene_close(struct scene *s) {
	for (size_t i = 0; i < s->n_tickets; i++)
		ticket_close(&s->tickets[i], &s->p.set, NULL);
	prefix_index_free(&s->p.set.index);
	session_table_free(&s->p.set.sessions);
	picks_close(&s->p);
}

/* All that a pick or a ticket moves, as bytes. */
struct state {
	struct rng rng;
	struct load_cell load[INSTANCE_SLOTS_MAX];
	struct prefix_index_stats index;
	struct learned learned[PICKS_ROWS_MAX];
	struct session_home homes[N_SESSIONS];
	bool is_home[N_SESSIONS];
	char cells[4096];
	size_t cell_bytes;
};

static void state_of(const struct scene *s, struct state *out) {
	const struct policy_set *set = &s->p.set;

	memset(out, 0, sizeof(*out));
	out->rng = *set->rng;
	memcpy(out->load, set->load->shards[0].cells, sizeof(out->load));
	out->index = prefix_index_stats(set->index);
	for (uint32_t i = 0; i < set->snapshot->n_rows; i++)
		memcpy(&out->learned[i], &set->snapshot->rows[i].instance->learned, sizeof(struct learned));
	for (uint32_t i = 0; i < N_SESSIONS; i++)
		out->is_home[i] = session_table_find(set->sessions, i + 1, 5, &out->homes[i]);
	out->cell_bytes = set->snapshot->n_candidates * set->cell_bytes;
	assert_in_range(out->cell_bytes, 0, sizeof(out->cells));
	memcpy(out->cells, set->cells, out->cell_bytes);
}

static void assert_rows_are_all(const struct explanation *e, uint32_t n_rows) {
	bool is_seen[PICKS_ROWS_MAX] = { false };

	assert_int_equal(e->n_rows, n_rows);
	for (uint32_t i = 0; i < e->n_rows; i++) {
		assert_false(is_seen[e->rows[i].row]);
		is_seen[e->rows[i].row] = true;
		if (i < e->n_eligible)
			assert_int_equal(e->rows[i].codes, 0);
	}
}

static void assert_scores_are_in_order(const struct explanation *e) {
	for (uint32_t i = 2; e->has_scores && i < e->n_eligible; i++)
		assert_false(explain_is_better(e->scorer, &e->rows[i].score, &e->rows[i - 1].score));
}

/* For one that draws, too: with the same random numbers it draws the same. */
static void the_first_row_is_what_a_pick_then_does(void **state) {
	static struct state before, after;
	static struct scene s;
	unsigned n_ranked = 0, n_rejected = 0;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		for (uint64_t seed = 1; seed <= 120; seed++) {
			struct explanation e;
			struct pick_result pick;

			scene_open(&s, policy_name(*policy), seed);
			struct pick_input input = scene_input(&s);
			for (unsigned round = 0; round < 5; round++) {
				state_of(&s, &before);
				policy_explain(&s.p.set, &input, &e);
				state_of(&s, &after);
				assert_memory_equal(&before, &after, sizeof(before));
				assert_int_equal(e.outcome, policy_pick(&s.p.set, &input, &pick));
				assert_rows_are_all(&e, s.p.set.snapshot->n_rows);
				if (!e.outcome) {
					assert_int_equal(e.rows[0].row, pick.row);
					assert_int_equal(e.reason, pick.reason);
					assert_int_equal(e.n_scored, pick.n_eligible);
					assert_in_range(e.n_eligible, 1, e.n_scored);
					assert_scores_are_in_order(&e);
				}
				n_ranked += e.n_eligible > 1;
				n_rejected += e.n_rows > e.n_eligible;
				policy_explanation_free(&e);
			}
			scene_close(&s);
		}
	}
	assert_in_range(n_ranked, 1000, UINT32_MAX); /* or this would prove little */
	assert_in_range(n_rejected, 1000, UINT32_MAX);
}

/* The order of a policy without scores: who is picked when those before are out. */
static void the_order_is_that_of_picks(void **state) {
	static const uint16_t weights[] = { 1, 4, 2, 7, 3 };
	static const char *const names[] = { "round_robin", "rendezvous_hash", "random" };

	for (size_t k = 0; k < n_elems(names) * 20; k++) {
		struct explanation e;
		struct picks p;
		uint16_t tried[5];

		picks_open(&p, names[k / 20], weights, 5, k);
		p.demand.session = 11;
		struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
			.demand = &p.demand,
			.tried = tried };
		policy_explain(&p.set, &input, &e);
		for (uint32_t i = 0; i < 5; i++) {
			struct explanation next;

			policy_explain(&p.set, &input, &next);
			assert_int_equal(next.rows[0].row, e.rows[i].row);
			policy_explanation_free(&next);
			tried[input.n_tried++] = e.rows[i].instance->slot;
		}
		policy_explanation_free(&e);
		picks_close(&p);
	}
}

static void what_is_out_says_why(void **state) {
	static const uint16_t equal[] = { 1, 1, 1, 1, 1 };
	struct explanation e;
	struct picks p;
	uint16_t tried[1];

	picks_open(&p, "least_load", equal, 5, 3);
	picks_ail(&p, "cd");
	tried[0] = picks_instance(&p, 1)->slot;
	instance_avoid(picks_instance(&p, 3), 100);
	instance_avoid(picks_instance(&p, 4), 100);
	struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
		.demand = &p.demand,
		.tried = tried,
		.n_tried = 1,
		.now_ns = 200000000 };
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.n_eligible, 1);
	assert_int_equal(e.rows[0].row, 0);
	assert_int_equal(e.reason, PICK_ONLY_CANDIDATE);
	const uint32_t codes[] = { 0, 1u << FILTER_ALREADY_TRIED, 1u << FILTER_UNHEALTHY,
		1u << FILTER_UNHEALTHY | 1u << FILTER_AVOIDED, 1u << FILTER_AVOIDED };
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(e.rows[i].row, i);
		assert_int_equal(e.rows[i].codes, codes[i]);
		if (codes[i] & 1u << FILTER_AVOIDED)
			assert_true(e.rows[i].details[FILTER_AVOIDED].value > 0);
	}
	assert_int_equal(explain_first(codes[3]), FILTER_UNHEALTHY);
	assert_int_equal(explain_first(0), FILTER_NONE);
	policy_explanation_free(&e);
	picks_close(&p);
}

/* So many of the best are candidates, and none whose score is too low beside one that is not. */
static void composite_leaves_out_the_worst(void **state) {
	static const uint16_t equal[] = { 1, 1, 1, 1, 1, 1 };
	struct explanation e;
	struct picks p;

	picks_open(&p, "composite", equal, 6, 3);
	for (uint32_t r = 0; r < 6; r++)
		picks_charge(&p, r, 5 - r); /* f is the best, then e and so on; a, the first, is the worst */
	p.options.composite_min_score = 0.72; /* 2 / (1 + n in flight) + 3, of 5: .67 .68 .7 .73 .8 1 */
	struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
		.demand = &p.demand };
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.n_rows, 6);
	assert_int_equal(e.n_scored, 6);
	assert_int_equal(e.n_eligible, 3);
	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(e.rows[i].row, 5 - i);
		const struct filter_detail *below = &e.rows[i].details[FILTER_BELOW_MIN_SCORE];

		assert_int_equal(e.rows[i].codes, i < 3 ? 0 : 1u << FILTER_BELOW_MIN_SCORE);
		if (i >= 3)
			assert_true(below->value == e.rows[i].score.total && below->limit == 0.72);
	}
	policy_explanation_free(&e);

	p.options.composite_candidates_max = 2;
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.n_eligible, 2);
	assert_int_equal(e.rows[0].row, 5);
	assert_int_equal(e.rows[2].row, 3);
	assert_int_equal(e.rows[2].codes, 0);
	assert_int_equal(e.rows[5].codes, 1u << FILTER_BELOW_MIN_SCORE);
	policy_explanation_free(&e);

	picks_charge(&p, 5, 9);
	p.options.composite_min_score = 2;
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.n_eligible, 2); /* nobody reaches it: it is not in force */
	assert_int_equal(e.rows[0].row, 4);
	assert_int_equal(e.rows[5].codes, 0);
	policy_explanation_free(&e);
	picks_close(&p);
}

/* Leaving one of the zone out makes the other too busy: the next pick goes to the region, who is no row. */
static void an_order_stays_among_the_eligible(void **state) {
	struct stand stands[12] = { { .labels = NULL } };
	struct picks p;

	for (uint32_t r = 0; r < 12; r++)
		stands[r].labels =
		    r < 2 ? "zone=z1 region=r1 capacity=100" : "zone=z2 region=r1 capacity=100";
	stands_open(&p, "round_robin", stands, 12);
	p.options.locality = (struct locality_options){ LOCALITY_PREFER, traits_word(SLICE("z1")),
		traits_word(SLICE("r1")), 0.8, 64 };
	picks_charge(&p, 1, 90);
	for (unsigned i = 0; i < 6; i++) {
		uint16_t slots[PICKS_ROWS_MAX];
		struct pick_input input = stands_input(&p, "", slots);
		struct pick_result pick;
		struct explanation e;

		policy_explain(&p.set, &input, &e);
		assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
		assert_int_equal(e.n_eligible, 2);
		assert_int_equal(e.rows[0].row, pick.row);
		assert_int_equal(e.rows[1].row, 1 - pick.row);
		for (uint32_t r = 2; r < 12; r++)
			assert_int_equal(e.rows[r].row, r);
		policy_explanation_free(&e);
	}
	picks_close(&p);
}

/* Of five who weigh the same, with 3, 1, 4, 0 and 2 requests in flight. */
static void open_busy(struct picks *p, const char *policy, uint64_t seed) {
	static const uint16_t equal[] = { 1, 1, 1, 1, 1 };
	static const unsigned busy[] = { 3, 1, 4, 0, 2 };

	picks_open(p, policy, equal, 5, seed);
	for (uint32_t r = 0; r < 5; r++)
		picks_charge(p, r, busy[r]);
}

static void explain_now(struct picks *p, struct explanation *e) {
	struct pick_input input = { .model = snapshot_model(p->set.snapshot, SLICE("m")),
		.demand = &p->demand };

	policy_explain(&p->set, &input, e);
	assert_int_equal(e->outcome, 0);
}

/* Two are drawn and compared; who was not drawn has no score, and is behind them. */
static void who_was_not_compared_comes_last(void **state) {
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct explanation e;
		struct picks p;

		open_busy(&p, "power_of_two", seed);
		explain_now(&p, &e);
		assert_true(e.has_scores);
		assert_true(e.rows[0].score.total < e.rows[1].score.total);
		for (uint32_t i = 2; i < 5; i++)
			assert_true(isnan(e.rows[i].score.total));
		assert_true(e.rows[2].row < e.rows[3].row && e.rows[3].row < e.rows[4].row);
		policy_explanation_free(&e);
		picks_close(&p);
	}
}

/* The home of a session is not compared with anybody: the others are whom it would leave it for. */
static void a_home_has_no_scores(void **state) {
	struct explanation e;
	struct picks p;

	open_busy(&p, "session", 1);
	p.demand.session = 7;
	uint32_t home = picks_serve(&p, 0);
	explain_now(&p, &e);
	assert_int_equal(e.reason, PICK_STICKY_HIT);
	assert_false(e.has_scores);
	assert_int_equal(e.rows[0].row, home);
	for (uint32_t i = 0; i < 5; i++)
		assert_true(isnan(e.rows[i].score.total));
	policy_explanation_free(&e);
	picks_close(&p);
}

static void classify(struct snapshot_row *rows) {
	static const struct pair labels[] = { { { "cache_type", 10 }, { "paged", 5 } },
		{ { "cache_type", 10 }, { "static", 6 } } };

	for (uint32_t r = 0; r < 5; r++)
		rows[r].labels = (struct pairs){ &labels[r == 3], 1 };
}

/* The scores are costs of another policy; row 3, idle, is not of the class. */
static void a_class_is_in_the_order_of_its_scorer(void **state) {
	static const uint32_t expected[] = { 1, 4, 0, 2, 3 };
	struct explanation e;
	struct picks p;

	open_busy(&p, "size_class", 1);
	p.options.size_class_then = policy_find(SLICE("least_load"));
	picks_change(&p, classify);
	explain_now(&p, &e);
	assert_ptr_equal(e.scorer, p.options.size_class_then);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(e.rows[i].row, expected[i]);
		assert_int_equal(isnan(e.rows[i].score.total) != 0, i == 4);
	}
	policy_explanation_free(&e);
	picks_close(&p);
}

/* Weights 1, 2 and 5, and how often each would be drawn. */
static void assert_drawn(struct picks *p, const double *parts) {
	unsigned counts[PICKS_ROWS_MAX];
	struct explanation e;

	explain_now(p, &e);
	picks_count(p, 20000, counts);
	for (uint32_t i = 0; i < 3; i++) {
		assert_float_equal(e.rows[i].probability, parts[e.rows[i].row], 1e-6);
		assert_float_equal(counts[e.rows[i].row] / 20000.0, e.rows[i].probability, 0.02);
	}
	policy_explanation_free(&e);
}

static void a_draw_has_probabilities(void **state) {
	static const uint16_t weights[] = { 1, 2, 5 };
	struct explanation e;
	struct picks p;

	picks_open(&p, "random", weights, 3, 3);
	assert_drawn(&p, (double[]){ 1 / 3.0, 1 / 3.0, 1 / 3.0 });
	picks_close(&p);
	picks_open(&p, "weighted_random", weights, 3, 3);
	assert_drawn(&p, (double[]){ 1 / 8.0, 2 / 8.0, 5 / 8.0 });
	p.options.random_sharpness = 2;
	assert_drawn(&p, (double[]){ 1 / 30.0, 4 / 30.0, 25 / 30.0 });
	picks_close(&p);
	picks_open(&p, "power_of_two", weights, 3, 3);
	explain_now(&p, &e);
	assert_true(e.rows[0].probability < 0);
	policy_explanation_free(&e);
	picks_close(&p);
}

/* Whatever the policy, the last resort is drawn by weight. */
static void a_last_resort_has_probabilities(void **state) {
	static const uint16_t weights[] = { 1, 2, 5, 1, 1, 1, 1 };
	struct explanation e;
	struct picks p;

	picks_open(&p, "random", weights, 7, 3);
	picks_ail(&p, "abc");
	uint16_t tried[4];
	for (uint32_t r = 3; r < 7; r++)
		tried[r - 3] = picks_instance(&p, r)->slot;
	struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
		.demand = &p.demand,
		.tried = tried,
		.n_tried = 4 };
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.reason, PICK_LAST_RESORT);
	assert_int_equal(e.n_eligible, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_float_equal(e.rows[i].probability, weights[e.rows[i].row] / 8.0, 1e-9);
	policy_explanation_free(&e);
	picks_close(&p);
}

static void nobody_is_explained_too(void **state) {
	static const uint16_t equal[] = { 1, 1 };
	struct explanation e;
	struct picks p;

	picks_open(&p, "round_robin", equal, 2, 3);
	uint16_t tried[] = { picks_instance(&p, 0)->slot, picks_instance(&p, 1)->slot };
	struct pick_input input = { .model = snapshot_model(p.set.snapshot, SLICE("m")),
		.demand = &p.demand,
		.tried = tried,
		.n_tried = 2 };
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.outcome, PICK_E_NONE_LEFT);
	assert_int_equal(e.n_eligible, 0);
	assert_int_equal(e.n_rows, 2);
	assert_int_equal(e.rows[0].codes & e.rows[1].codes, 1u << FILTER_ALREADY_TRIED);
	policy_explanation_free(&e);
	picks_close(&p);
}

static void a_stored_response_is_explained(void **state) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct explanation e;
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		stands_open(&p, policy_name(*policy), (const struct stand[3]){ { .labels = NULL } }, 3);
		picks_keep_response(&p, 1, 0x1234567, 0);
		p.demand.response = 0x1234567;
		struct pick_input input = stands_input(&p, "", slots);
		policy_explain(&p.set, &input, &e);
		assert_int_equal(e.outcome, 0);
		assert_int_equal(e.reason, PICK_RESPONSE_OWNER);
		assert_int_equal(e.n_eligible, 1);
		assert_int_equal(e.n_rows, 3);
		assert_ptr_equal(e.rows[0].instance, picks_instance(&p, 1));
		for (uint32_t i = 1; i < 3; i++)
			assert_int_equal(e.rows[i].codes, 0); /* the owner comes before them */
		policy_explanation_free(&e);
		/* Nothing was bound by looking: it goes as idle as it did. */
		input.now_ns = (7200 + 2 * SESSION_TICK_S) * UINT64_C(1000000000);
		policy_explain(&p.set, &input, &e);
		assert_int_not_equal(e.reason, PICK_RESPONSE_OWNER);
		policy_explanation_free(&e);
		picks_close(&p);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_row_is_what_a_pick_then_does),
		cmocka_unit_test(the_order_is_that_of_picks),
		cmocka_unit_test(what_is_out_says_why),
		cmocka_unit_test(composite_leaves_out_the_worst),
		cmocka_unit_test(an_order_stays_among_the_eligible),
		cmocka_unit_test(who_was_not_compared_comes_last),
		cmocka_unit_test(a_home_has_no_scores),
		cmocka_unit_test(a_class_is_in_the_order_of_its_scorer),
		cmocka_unit_test(a_draw_has_probabilities),
		cmocka_unit_test(a_last_resort_has_probabilities),
		cmocka_unit_test(nobody_is_explained_too),
		cmocka_unit_test(a_stored_response_is_explained),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
