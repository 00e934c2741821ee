#include "unit/policy/picks.h"

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
		assert_false(explain_is_better(e->policy, &e->rows[i].score, &e->rows[i - 1].score));
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
		struct pick_input input = { snapshot_model(p.set.snapshot, SLICE("m")), &p.demand, tried, 0,
			0 };
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
	struct pick_input input = { snapshot_model(p.set.snapshot, SLICE("m")), &p.demand, tried, 1,
		200000000 };
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.n_eligible, 1);
	assert_int_equal(e.rows[0].row, 0);
	assert_int_equal(e.reason, PICK_ONLY_CANDIDATE);
	const uint32_t codes[] = { 0, 1u << FILTER_ALREADY_TRIED, 1u << FILTER_UNHEALTHY,
		1u << FILTER_UNHEALTHY | 1u << FILTER_AVOIDED, 1u << FILTER_AVOIDED };
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(e.rows[i].row, i);
		assert_int_equal(e.rows[i].codes, codes[i]);
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
	struct pick_input input = { snapshot_model(p.set.snapshot, SLICE("m")), &p.demand, NULL, 0, 0 };
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.n_rows, 6);
	assert_int_equal(e.n_scored, 6);
	assert_int_equal(e.n_eligible, 3);
	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(e.rows[i].row, 5 - i);
		assert_int_equal(e.rows[i].codes, i < 3 ? 0 : 1u << FILTER_BELOW_MIN_SCORE);
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

static void a_draw_has_probabilities(void **state) {
	static const uint16_t weights[] = { 1, 2, 5 };
	struct explanation e;
	struct picks p;
	double sum = 0;

	picks_open(&p, "random", weights, 3, 3);
	struct pick_input input = { snapshot_model(p.set.snapshot, SLICE("m")), &p.demand, NULL, 0, 0 };
	policy_explain(&p.set, &input, &e);
	for (uint32_t i = 0; i < 3; i++) {
		assert_float_equal(e.rows[i].probability, weights[e.rows[i].row] / 8.0, 1e-9);
		sum += e.rows[i].probability;
	}
	assert_float_equal(sum, 1, 1e-9);
	policy_explanation_free(&e);
	picks_close(&p);
}

static void nobody_is_explained_too(void **state) {
	static const uint16_t equal[] = { 1, 1 };
	struct explanation e;
	struct picks p;

	picks_open(&p, "round_robin", equal, 2, 3);
	uint16_t tried[] = { picks_instance(&p, 0)->slot, picks_instance(&p, 1)->slot };
	struct pick_input input = { snapshot_model(p.set.snapshot, SLICE("m")), &p.demand, tried, 2, 0 };
	policy_explain(&p.set, &input, &e);
	assert_int_equal(e.outcome, PICK_E_NONE_LEFT);
	assert_int_equal(e.n_eligible, 0);
	assert_int_equal(e.n_rows, 2);
	assert_int_equal(e.rows[0].codes & e.rows[1].codes, 1u << FILTER_ALREADY_TRIED);
	policy_explanation_free(&e);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_row_is_what_a_pick_then_does),
		cmocka_unit_test(the_order_is_that_of_picks),
		cmocka_unit_test(what_is_out_says_why),
		cmocka_unit_test(composite_leaves_out_the_worst),
		cmocka_unit_test(a_draw_has_probabilities),
		cmocka_unit_test(nobody_is_explained_too),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
