#include "unit/policy/picks.h"

#include "policy/ticket.h"

#define SECOND UINT64_C(1000000000)

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };

/* Prompts of 8 blocks and 4096 tokens, each its own; every instance does 4096 tokens a second. */
#define N_KEYS 8

struct house {
	struct picks p;
	struct prefix_index *index;
	uint64_t keys[N_KEYS];
	uint32_t n_rows;
};

static void house_prompt(struct house *h, uint64_t which) {
	for (unsigned i = 0; i < N_KEYS; i++)
		h->keys[i] = (which * N_KEYS + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void house_open(struct house *h, const uint16_t *weights, uint32_t n, uint64_t seed) {
	*h = (struct house){ .index = prefix_index_new(1 << 20), .n_rows = n };
	picks_open(&h->p, "cache_aware", weights, n, seed);
	h->p.set.index = h->index;
	policy_set_adopt(&h->p.set, h->p.snap);
	for (uint32_t r = 0; r < n; r++)
		learned_write(&picks_instance(&h->p, r)->learned.prefill_rate, 4096);
	h->p.demand = (struct demand){ .prompt_bytes = N_KEYS * PROMPT_BLOCK_BYTES,
		.prompt_tokens = 4096,
		.keys = h->keys,
		.n_keys = N_KEYS };
	house_prompt(h, 0);
}

static void house_close(struct house *h) {
	picks_close(&h->p);
	prefix_index_free(&h->index);
}

/* The first n blocks of the prompt are in this row's cache. */
static void house_cache(struct house *h, uint32_t row, uint32_t n) {
	prefix_index_put(h->index, picks_instance(&h->p, row)->slot, h->keys, n);
}

/* So many seconds of prefill wait there. */
static void house_queue(struct house *h, uint32_t row, double seconds) {
	load_charge(h->p.load, 0, picks_instance(&h->p, row)->slot, (uint64_t)(seconds * 4096));
}

static uint32_t house_pick(struct house *h, enum pick_reason *reason_out) {
	struct pick_input input = { .model = snapshot_model(h->p.set.snapshot, SLICE("m")),
		.demand = &h->p.demand,
		.now_ns = 100 * SECOND };
	struct pick_result pick;

	assert_int_equal(policy_pick(&h->p.set, &input, &pick), 0);
	*reason_out = pick.reason;
	return pick.row;
}

static void a_prompt_goes_where_it_is_cached(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 4, 1);
	for (uint64_t i = 0; i < 40; i++) {
		house_prompt(&h, i);
		house_cache(&h, (uint32_t)(i * 7 % 4), N_KEYS);
		assert_int_equal(house_pick(&h, &reason), i * 7 % 4);
		assert_int_equal(reason, PICK_PREFIX_HIT);
	}
	house_close(&h);
}

static void the_longer_hit_wins(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	house_cache(&h, 0, 2);
	house_cache(&h, 1, 6);
	house_cache(&h, 2, 4);
	assert_int_equal(house_pick(&h, &reason), 1);
	house_close(&h);
}

/* A hit saves a second: for half a second's queue it is worth waiting, for two it is not. */
static void a_drowning_instance_is_left(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	house_cache(&h, 1, N_KEYS);
	house_queue(&h, 1, 0.5);
	assert_int_equal(house_pick(&h, &reason), 1);
	house_queue(&h, 1, 1.5);
	assert_int_not_equal(house_pick(&h, &reason), 1);
	assert_int_equal(reason, PICK_LOWEST_TTFT);
	house_close(&h);
}

/* Of two fleets with the same difference, the busy one stays with its cache. */
static void a_miss_weighs_more_in_a_busy_fleet(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	house_cache(&h, 1, N_KEYS);
	house_queue(&h, 1, 2);
	assert_int_not_equal(house_pick(&h, &reason), 1);
	for (uint32_t r = 0; r < 3; r++)
		house_queue(&h, r, 3);
	assert_int_equal(house_pick(&h, &reason), 1);
	house_close(&h);
}

static void without_a_cache_the_shortest_queue_wins(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 4, 1);
	for (uint32_t r = 0; r < 4; r++)
		house_queue(&h, r, r == 2 ? 0.2 : 0.5 + r);
	assert_int_equal(house_pick(&h, &reason), 2);
	assert_int_equal(reason, PICK_LOWEST_TTFT);
	house_close(&h);
}

/* Queues are seconds, not tokens: the one that is four times as fast may hold more. */
static void a_fast_instance_takes_more(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	learned_write(&picks_instance(&h.p, 2)->learned.prefill_rate, 4 * 4096);
	for (uint32_t r = 0; r < 3; r++)
		house_queue(&h, r, r == 2 ? 2 : 1); /* of tokens; in time half a second */
	assert_int_equal(house_pick(&h, &reason), 2);
	house_close(&h);
}

/* Equal queues, but one instance has been at its first prompt for most of a second. */
static void what_is_nearly_done_counts_less(void **state) {
	uint16_t slots[3];
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	for (uint32_t r = 0; r < 3; r++) {
		slots[r] = picks_instance(&h.p, r)->slot;
		house_queue(&h, r, 2);
		load_set_head(h.p.load, 0, slots[r], 100 * SECOND - (r == 1 ? 9 : 1) * SECOND / 10, 4096);
	}
	assert_int_equal(house_pick(&h, &reason), 1);
	/* It began when the one before it was done, not when it came. */
	picks_instance(&h.p, 1)->learned.first_ns = 100 * SECOND - 1;
	assert_int_not_equal(house_pick(&h, &reason), 1);
	/* No more of it can be done than there is. */
	load_set_head(h.p.load, 0, slots[1], 1, 100);
	picks_instance(&h.p, 1)->learned.first_ns = 0;
	assert_int_not_equal(house_pick(&h, &reason), 1);
	house_close(&h);
}

static void decode_and_weights_count(void **state) {
	static const uint16_t weights[] = { 1, 1, 4 };
	enum pick_reason reason;
	struct house h;

	house_open(&h, weights, 3, 1);
	for (uint32_t r = 0; r < 3; r++)
		house_queue(&h, r, 1);
	assert_int_equal(house_pick(&h, &reason), 2);
	house_close(&h);

	house_open(&h, equal, 3, 1);
	for (uint32_t r = 0; r < 3; r++) {
		unsigned slot = picks_instance(&h.p, r)->slot;

		load_charge(h.p.load, 0, slot, 0);
		load_move(h.p.load, 0, slot, 0, r == 1 ? 1000 : 1000000);
	}
	assert_int_equal(house_pick(&h, &reason), 1);
	house_close(&h);
}

/* Routers that know nothing of each other: equal prompts meet, different ones spread. */
static void ties_are_broken_alike_everywhere(void **state) {
	enum pick_reason reason;
	unsigned n[4] = { 0 };
	struct house a, b;

	house_open(&a, equal, 4, 1);
	house_open(&b, equal, 4, 77);
	for (uint64_t i = 0; i < 400; i++) {
		house_prompt(&a, i);
		house_prompt(&b, i);
		uint32_t row = house_pick(&a, &reason);

		assert_int_equal(house_pick(&b, &reason), row);
		n[row]++;
	}
	for (unsigned r = 0; r < 4; r++)
		assert_in_range(n[r], 60, 140);
	house_close(&a);
	house_close(&b);
}

/* Prompts of less than a block have nothing in common: they spread. */
static void short_prompts_spread(void **state) {
	enum pick_reason reason;
	unsigned n[4] = { 0 };
	struct house h;

	house_open(&h, equal, 4, 1);
	h.p.demand = (struct demand){ .prompt_bytes = 200, .prompt_tokens = 50 };
	for (unsigned i = 0; i < 400; i++)
		n[house_pick(&h, &reason)]++;
	for (unsigned r = 0; r < 4; r++)
		assert_in_range(n[r], 60, 140);
	house_close(&h);
}

static void the_engines_own_figures_are_heard(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	for (uint32_t r = 0; r < 3; r++) {
		struct learned *learned = &picks_instance(&h.p, r)->learned;

		learned_hear_requests(learned, 1, r == 1 ? 0 : 5, 0);
		learned->scraped_ms = 99000;
	}
	assert_int_equal(house_pick(&h, &reason), 1);
	for (uint32_t r = 0; r < 3; r++) {
		learned_write(&picks_instance(&h.p, r)->learned.n_waiting, 0);
		learned_write(&picks_instance(&h.p, r)->learned.kv_usage, r == 2 ? 0.3 : 0.95);
	}
	assert_int_equal(house_pick(&h, &reason), 2);
	house_close(&h);
}

/* Where each prompt goes while nothing is known of it and all have the same to do: its home. */
static void find_homes(struct house *h, uint32_t *homes, uint32_t n) {
	enum pick_reason reason;

	for (uint32_t i = 0; i < n; i++) {
		house_prompt(h, i);
		homes[i] = house_pick(h, &reason);
	}
}

/* How many of those that are cached elsewhere in our eyes go home all the same. */
static uint32_t count_home(struct house *h, const uint32_t *homes, uint32_t n) {
	enum pick_reason reason;
	uint32_t n_home = 0;

	for (uint32_t i = 0; i < n; i++) {
		house_prompt(h, i);
		n_home += house_pick(h, &reason) == homes[i];
	}
	return n_home;
}

static void hear(struct house *h, uint64_t n_own) {
	for (uint32_t r = 0; r < h->n_rows; r++) {
		struct learned *learned = &picks_instance(&h->p, r)->learned;

		for (int i = 0; i < 50; i++)
			learned_hear_requests(learned, 100, 0, n_own);
		learned->scraped_ms = 99000;
	}
}

/* In a busy fleet, among strangers: all that routers can agree on is the home. */
static void strangers_meet_at_the_home(void **state) {
	uint32_t homes[40];
	struct house h;

	house_open(&h, equal, 8, 1);
	find_homes(&h, homes, 40);
	for (uint32_t i = 0; i < 40; i++) {
		house_prompt(&h, i);
		house_cache(&h, (homes[i] + 1) % 8, N_KEYS / 2);
	}
	hear(&h, 50);
	assert_int_equal(count_home(&h, homes, 40), 0); /* at leisure a hit is a hit */
	for (uint32_t r = 0; r < 8; r++)
		house_queue(&h, r, 3);
	hear(&h, 100);
	assert_int_equal(count_home(&h, homes, 40), 0); /* nobody else is there */
	learned_hear_requests(&picks_instance(&h.p, 0)->learned, 1e6, 0, 100);
	assert_int_equal(count_home(&h, homes, 40), 0); /* one engine with an absurd figure is no crowd */
	hear(&h, 50);
	assert_int_equal(count_home(&h, homes, 40), 40);
	for (uint32_t r = 0; r < 8; r++)
		picks_instance(&h.p, r)->learned.scraped_ms = 1000;
	assert_int_equal(count_home(&h, homes, 40), 0); /* that is long ago */
	house_close(&h);
}

/* Old figures are nobody's: the tie is broken as if they were not there. */
static void old_figures_are_not_heard(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	uint32_t row = house_pick(&h, &reason);
	learned_hear_requests(&picks_instance(&h.p, row)->learned, 0, 50, 0);
	picks_instance(&h.p, row)->learned.scraped_ms = 1000;
	assert_int_equal(house_pick(&h, &reason), row);
	house_close(&h);
}

static void scores_add_up(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 3, 1);
	house_cache(&h, 1, 4);
	house_queue(&h, 0, 1);
	uint32_t best = house_pick(&h, &reason);
	for (uint32_t i = 0; i < 3; i++) {
		const struct policy_score *score = &h.p.set.scores[i];
		float sum = 0;

		for (unsigned part = 0; part < POLICY_PARTS; part++)
			sum += score->parts[part];
		assert_float_equal(score->total, sum, 1e-5F);
		assert_true(score->total >= h.p.set.scores[best].total);
	}
	assert_float_equal(h.p.set.scores[1].parts[1], 0.5F, 1e-3F);
	assert_float_equal(h.p.set.scores[0].parts[0], 1.0F, 1e-3F);
	house_close(&h);
}

/* 3 of 8 blocks: more than 0.3 of the prompt, no more than 0.4. Then it is as if nothing were there. */
static void a_small_hit_counts_for_nothing_if_asked_for(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 4, 1);
	house_cache(&h, 2, 3);
	house_queue(&h, 2, 0.1);
	h.p.options.cache_threshold = 0.3;
	assert_int_equal(house_pick(&h, &reason), 2);
	assert_int_equal(reason, PICK_PREFIX_HIT);
	h.p.options.cache_threshold = 0.4;
	assert_int_not_equal(house_pick(&h, &reason), 2);
	assert_int_equal(reason, PICK_LOWEST_TTFT);
	house_close(&h);
}

/* 64 and 1.5 times, both strictly; then the least loaded is taken, whoever has the prompt. */
static void out_of_balance_the_least_loaded_is_taken_if_asked_for(void **state) {
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 4, 1);
	house_cache(&h, 2, N_KEYS);
	for (uint32_t r = 0; r < 4; r++)
		picks_charge(&h.p, r, r == 3 ? 40 : r == 2 ? 104 : 50);
	assert_int_equal(house_pick(&h, &reason), 2);
	h.p.options.balance_abs_threshold = 64;
	h.p.options.balance_rel_threshold = 1.5;
	assert_int_equal(house_pick(&h, &reason), 2);
	picks_charge(&h.p, 2, 1);
	assert_int_equal(house_pick(&h, &reason), 3);
	assert_int_equal(reason, PICK_LEAST_LOAD);
	h.p.options.balance_rel_threshold = 2.7;
	assert_int_equal(house_pick(&h, &reason), 2); /* 105 of 40 */
	house_close(&h);
}

/* Whoever is faster, until more than it would take to compute them anew waits there. */
static void short_prompts_have_a_home_if_asked_for(void **state) {
	uint32_t n_homes[4] = { 0 };
	enum pick_reason reason;
	struct house h;

	house_open(&h, equal, 4, 1);
	h.p.options.balance_abs_threshold = 64;
	h.p.demand = (struct demand){ .prompt_bytes = 1000, .prompt_tokens = 256 };
	for (uint32_t i = 0; i < 4; i++)
		learned_write(&picks_instance(&h.p, i)->learned.prefill_rate, 2000 + 2000 * i);
	for (uint64_t n = 1; n <= 400; n++) {
		h.p.demand.whole = n * UINT64_C(0x9e3779b97f4a7c15);
		uint32_t home = house_pick(&h, &reason);
		assert_int_equal(house_pick(&h, &reason), home);
		n_homes[home]++;
	}
	for (uint32_t i = 0; i < 4; i++)
		assert_in_range(n_homes[i], 60, 140);
	h.p.demand.session = 7;
	uint32_t home = house_pick(&h, &reason);
	h.p.demand.whole++;
	assert_int_equal(house_pick(&h, &reason), home);
	house_queue(&h, home, 1);
	assert_int_not_equal(house_pick(&h, &reason), home);
	house_close(&h);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prompt_goes_where_it_is_cached),
		cmocka_unit_test(the_longer_hit_wins),
		cmocka_unit_test(a_drowning_instance_is_left),
		cmocka_unit_test(a_miss_weighs_more_in_a_busy_fleet),
		cmocka_unit_test(without_a_cache_the_shortest_queue_wins),
		cmocka_unit_test(a_fast_instance_takes_more),
		cmocka_unit_test(what_is_nearly_done_counts_less),
		cmocka_unit_test(decode_and_weights_count),
		cmocka_unit_test(ties_are_broken_alike_everywhere),
		cmocka_unit_test(short_prompts_spread),
		cmocka_unit_test(the_engines_own_figures_are_heard),
		cmocka_unit_test(strangers_meet_at_the_home),
		cmocka_unit_test(old_figures_are_not_heard),
		cmocka_unit_test(scores_add_up),
		cmocka_unit_test(a_small_hit_counts_for_nothing_if_asked_for),
		cmocka_unit_test(out_of_balance_the_least_loaded_is_taken_if_asked_for),
		cmocka_unit_test(short_prompts_have_a_home_if_asked_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
