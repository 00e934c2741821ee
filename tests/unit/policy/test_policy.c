#include "unit/policy/picks.h"

#include <pthread.h>

#include "base/heap.h"
#include "policy/choice.h"
#include "policy/ticket.h"

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };

static void policies_are_found_by_name(void **state) {
	static const char *const names[] = { "cache_aware", "round_robin", "least_load", "power_of_two",
		"random", "weighted_random", "least_latency", "consistent_hash", "rendezvous_hash", "session",
		"bucket", "size_class", "composite" };

	for (size_t i = 0; i < n_elems(names); i++) {
		assert_non_null(policy_find(slice_of(names[i])));
		assert_string_equal(policy_find(slice_of(names[i]))->name, names[i]);
		assert_ptr_equal(policy_table[i], policy_find(slice_of(names[i])));
	}
	assert_null(policy_table[n_elems(names)]);
	assert_ptr_equal(policy_find(SLICE("least_connections")), &least_load_policy);
	assert_null(policy_find(SLICE("rounds")));
	assert_null(policy_find((struct slice){ NULL, 0 }));
	for (enum pick_reason r = 0; r < PICK_REASONS; r++)
		assert_non_null(pick_reason_text(r));
}

/* Picks with these rows tried; what came of it, and in *result_out how. */
static int pick(
    struct picks *p, const uint32_t *rows, uint32_t n, uint64_t now_ms, struct pick_result *result_out) {
	uint16_t tried[PICKS_ROWS_MAX];
	struct pick_input input = { .model = snapshot_model(p->set.snapshot, SLICE("m")),
		.demand = &p->demand,
		.tried = tried,
		.n_tried = n,
		.now_ns = now_ms * 1000000 };

	for (uint32_t i = 0; i < n; i++)
		tried[i] = picks_instance(p, rows[i])->slot;
	return policy_pick(&p->set, &input, result_out);
}

/* Of a pick for a request of which nothing is known. */
static enum pick_reason plain_reason(const struct policy *policy) {
	if (policy == &rendezvous_hash_policy || policy == &consistent_hash_policy)
		return PICK_ROUND_ROBIN;
	if (policy == &session_policy || policy == &bucket_policy)
		return PICK_LEAST_LOAD;
	return policy == &size_class_policy ? PICK_LOWEST_TTFT : policy->reason;
}

static void what_was_tried_is_out(void **state) {
	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		enum pick_reason reason = plain_reason(*policy);
		struct pick_result result;
		struct picks p;

		picks_open(&p, (*policy)->name, equal, 3, 1);
		for (unsigned i = 0; i < 100; i++) {
			assert_int_equal(pick(&p, (uint32_t[]){ 1 }, 1, 0, &result), 0);
			assert_int_not_equal(result.row, 1);
			assert_int_equal(result.n_candidates, 3);
			assert_int_equal(result.n_eligible, 2);
			assert_int_equal(result.reason, reason);
		}
		assert_int_equal(pick(&p, (uint32_t[]){ 2, 0 }, 2, 0, &result), 0);
		assert_int_equal(result.row, 1);
		assert_int_equal(result.reason, PICK_ONLY_CANDIDATE);
		assert_int_equal(pick(&p, (uint32_t[]){ 2, 0, 1 }, 3, 0, &result), PICK_E_NONE_LEFT);
		picks_close(&p);
	}
}

static void what_just_failed_is_out_for_a_while(void **state) {
	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		bool is_back = false;
		struct picks p;

		picks_open(&p, (*policy)->name, equal, 3, 1);
		instance_avoid(picks_instance(&p, 2), 5000);
		for (unsigned i = 0; i < 100; i++)
			assert_int_not_equal(picks_next(&p, -1, 5999), 2);
		for (unsigned i = 0; i < 100; i++)
			is_back |= picks_next(&p, -1, 6000) == 2;
		assert_true(is_back);
		picks_close(&p);
	}
}

static void the_only_one_left_is_tried_though_avoided(void **state) {
	struct pick_result result;
	struct picks p;

	picks_open(&p, "round_robin", equal, 2, 1);
	instance_avoid(picks_instance(&p, 0), 5000);
	assert_int_equal(pick(&p, (uint32_t[]){ 1 }, 1, 5001, &result), 0);
	assert_int_equal(result.row, 0);
	assert_int_equal(result.reason, PICK_ALL_AVOIDED);
	assert_int_equal(result.n_eligible, 1);
	assert_int_equal(pick(&p, (uint32_t[]){ 1, 0 }, 2, 5001, &result), PICK_E_NONE_LEFT);

	/* All avoided: all are in again. */
	bool is_seen[2] = { false };
	instance_avoid(picks_instance(&p, 1), 5000);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(pick(&p, NULL, 0, 5001, &result), 0);
		assert_int_equal(result.reason, PICK_ALL_AVOIDED);
		assert_int_equal(result.n_eligible, 2);
		is_seen[result.row] = true;
	}
	assert_true(is_seen[0] && is_seen[1]);
	picks_close(&p);
}

/* Rows 1 and 2 are unhealthy: nobody goes there before row 0, avoided or not, was tried. */
static void the_reserve_comes_last(void **state) {
	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		struct pick_result result;
		bool is_seen[4] = { false };
		struct picks p;

		picks_open(&p, (*policy)->name, equal, 4, 1);
		picks_ail(&p, "bc");
		for (uint64_t now_ms = 0; now_ms < 100; now_ms++) {
			assert_true(picks_next(&p, -1, now_ms) % 3 == 0);
			assert_int_equal(pick(&p, (uint32_t[]){ 0 }, 1, now_ms, &result), 0);
			assert_int_equal(result.row, 3);
			assert_int_equal(result.n_candidates, 2);
			assert_int_equal(pick(&p, (uint32_t[]){ 0, 3 }, 2, now_ms, &result), 0);
			assert_int_equal(result.reason, PICK_LAST_RESORT);
			is_seen[result.row] = true;
		}
		assert_true(!is_seen[0] && is_seen[1] && is_seen[2] && !is_seen[3]);
		instance_avoid(picks_instance(&p, 0), 5000);
		instance_avoid(picks_instance(&p, 1), 5000);
		assert_int_equal(pick(&p, (uint32_t[]){ 3 }, 1, 5001, &result), 0);
		assert_int_equal(result.row, 0);
		assert_int_equal(pick(&p, (uint32_t[]){ 3, 0 }, 2, 5001, &result), 0);
		assert_int_equal(result.row, 2);
		assert_int_equal(pick(&p, (uint32_t[]){ 3, 0, 2 }, 3, 5001, &result), 0);
		assert_int_equal(result.row, 1);
		assert_int_equal(pick(&p, (uint32_t[]){ 3, 0, 2, 1 }, 4, 5001, &result), PICK_E_NONE_LEFT);
		picks_close(&p);
	}
}

/* Among others it is the last resort; alone, it is as good as any. */
static void weight_0_is_no_traffic_while_others_serve(void **state) {
	const uint16_t weights[] = { 3, 0, 1, 0 };

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		unsigned counts[PICKS_ROWS_MAX];
		struct pick_result result;
		struct picks p;

		picks_open(&p, (*policy)->name, weights, 4, 1);
		picks_count(&p, 400, counts);
		assert_int_equal(counts[1] + counts[3], 0);
		assert_int_equal(pick(&p, (uint32_t[]){ 0, 2, 3 }, 3, 0, &result), 0);
		assert_int_equal(result.row, 1);
		assert_int_equal(result.reason, PICK_LAST_RESORT);
		picks_adopt(&p, "bd");
		picks_count(&p, 400, counts);
		assert_in_range(counts[0], 150, 250);
		assert_in_range(counts[1], 150, 250);
		picks_close(&p);
	}
}

static void a_model_that_nobody_serves_has_none(void **state) {
	struct snapshot_row row = {
		.instance = scene_instance("a"), .weight = 1, .state = INSTANCE_DRAINING
	};
	struct pair model = { SLICE("m"), { NULL, 0 } };
	struct pick_result result;
	struct picks p;

	picks_open(&p, "round_robin", equal, 1, 1);
	row.models = (struct pairs){ &model, 1 };
	struct snapshot *snap = snapshot_new(2, &row, 1, (struct pairs){ NULL, 0 });
	policy_set_adopt(&p.set, snap);
	struct pick_input input = { .model = snapshot_model(snap, SLICE("m")) };
	assert_int_equal(policy_pick(&p.set, &input, &result), PICK_E_NONE_EXIST);
	input.model = &snap->any;
	assert_int_equal(policy_pick(&p.set, &input, &result), PICK_E_NONE_EXIST);
	snapshot_unref(&snap);
	instance_unref(&row.instance);
	picks_close(&p);
}

/* Two models on the same two engines, asked for in turn: one counter for both would pin each to one engine.
 */
static void each_model_has_its_own_turn(void **state) {
	struct sockaddr_storage address = scene_address("10.0.0.1", 80);
	const struct pair models[] = { { SLICE("m"), { NULL, 0 } }, { SLICE("n"), { NULL, 0 } } };
	struct snapshot_row rows[2];
	unsigned counts[3][2] = { { 0 } };
	struct picks p;

	for (uint32_t r = 0; r < 2; r++)
		rows[r] = (struct snapshot_row){ .instance = scene_instance("x"),
			.weight = 1,
			.are_models_known = true,
			.primary = r,
			.addresses = &address,
			.n_addresses = 1,
			.models = { models, 2 } };
	struct snapshot *snap = snapshot_new(1, rows, 2, (struct pairs){ NULL, 0 });
	picks_open(&p, "round_robin", equal, 2, 1);
	policy_set_adopt(&p.set, snap);
	const struct model *asked[] = { &snap->models[0], &snap->models[1], &snap->any };

	for (unsigned i = 0; i < 300; i++) {
		struct pick_input input = { .model = asked[i % 3], .demand = &p.demand };
		struct pick_result result;

		assert_int_equal(policy_pick(&p.set, &input, &result), 0);
		counts[i % 3][result.row]++;
	}
	for (unsigned m = 0; m < 3; m++)
		assert_int_equal(counts[m][0], 50);
	for (uint32_t r = 0; r < 2; r++)
		instance_unref(&rows[r].instance);
	snapshot_unref(&snap);
	picks_close(&p);
}

/* The same rows with other weights or labels, as a later snapshot has them. */
static struct snapshot *next_snapshot(const struct snapshot *snap, uint16_t weight_of_row_0) {
	struct snapshot_row rows[PICKS_ROWS_MAX];

	memcpy(rows, snap->rows, snap->n_rows * sizeof(rows[0]));
	rows[0].weight = weight_of_row_0;
	return snapshot_new(snap->version + 1, rows, snap->n_rows, (struct pairs){ NULL, 0 });
}

static void a_new_snapshot_goes_on_where_it_was(void **state) {
	const uint16_t weights[] = { 5, 2, 2, 1 };
	struct picks plain, changing;

	picks_open(&plain, "round_robin", weights, 4, 1);
	picks_open(&changing, "round_robin", weights, 4, 1);
	for (unsigned i = 0; i < 100; i++) {
		struct snapshot *next = next_snapshot(changing.set.snapshot, 5);

		policy_set_adopt(&changing.set, next);
		snapshot_unref(&next);
		assert_int_equal(picks_next(&plain, -1, 0), picks_next(&changing, -1, 0));
	}
	assert_int_equal(changing.set.snapshot->version, 101);
	picks_close(&plain);
	picks_close(&changing);
}

/* Credit in units of the old weights would keep row 0 away, or alone, for hundreds of picks. */
static void other_weights_start_a_new_round(void **state) {
	const uint16_t weights[] = { 1000, 1, 1, 1 };
	unsigned counts[PICKS_ROWS_MAX];

	for (uint64_t seed = 0; seed < 10; seed++) {
		struct picks p;

		picks_open(&p, "round_robin", weights, 4, seed);
		picks_count(&p, 3, counts);
		struct snapshot *next = next_snapshot(p.snap, 1);
		policy_set_adopt(&p.set, next);
		snapshot_unref(&next);
		picks_count(&p, 4, counts);
		picks_count(&p, 40, counts);
		for (uint32_t r = 0; r < 4; r++)
			assert_int_equal(counts[r], 10);
		picks_close(&p);
	}
}

static void the_set_holds_its_snapshot_alone(void **state) {
	struct picks p;

	picks_open(&p, "least_load", equal, 2, 1);
	struct snapshot *first = p.snap, *next = next_snapshot(first, 1);

	assert_int_equal(first->refs, 2);
	policy_set_adopt(&p.set, next);
	assert_int_equal(first->refs, 1);
	assert_int_equal(next->refs, 2);
	policy_set_deinit(&p.set);
	assert_int_equal(next->refs, 1);
	snapshot_unref(&next);
	picks_close(&p);
}

/* All that a request can bring, so that every policy has something to go by. */
static void demand_much(struct demand *demand, uint64_t *keys, uint64_t i) {
	keys[0] = (i % 7 + 1) * UINT64_C(0x9e3779b97f4a7c15);
	keys[1] = (i + 1) * UINT64_C(0xff51afd7ed558ccd);
	*demand = (struct demand){ .prompt_bytes = 100 << i % 12,
		.prompt_tokens = 25 << i % 12,
		.keys = keys,
		.n_keys = 2,
		.session = keys[i % 2],
		.seed = i };
}

/* Picks with copies of the cells and of the generator, as an explanation makes them. */
static void pick_aside(struct picks *p, uint64_t now_ms) {
	size_t n_bytes = p->set.snapshot->n_candidates * p->set.cell_bytes;
	void *cells = p->set.cells, *copy = malloc(n_bytes + 1);
	struct rng rng = p->rng;

	memcpy(copy, cells, n_bytes);
	p->set.cells = copy;
	p->set.rng = &rng;
	for (unsigned i = 0; i < 10; i++)
		picks_next(p, -1, now_ms + 10000);
	p->set.cells = cells;
	p->set.rng = &p->rng;
	free(copy);
}

/* Twins with the same requests: one is asked much besides, and does as the other. */
static void a_pick_aside_leaves_no_trace(void **state) {
	static struct ticket tickets[2][200];

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		struct picks p, q;

		picks_open(&p, (*policy)->name, equal, 5, 1);
		picks_open(&q, (*policy)->name, equal, 5, 1);
		for (uint64_t i = 0; i < 200; i++) {
			uint64_t keys[2], now_ms = 1000 + 500 * i;
			struct ticket *t = &tickets[0][i], *u = &tickets[1][i];

			demand_much(&p.demand, keys, i);
			pick_aside(&p, now_ms);
			q.demand = p.demand;
			assert_int_equal(
			    picks_send(&p, now_ms * 1000000, t), picks_send(&q, now_ms * 1000000, u));
			if (i % 3) {
				ticket_close(t, &p.set, NULL);
				ticket_close(u, &q.set, NULL);
			}
		}
		for (unsigned i = 0; i < 200; i++) {
			ticket_close(&tickets[0][i], &p.set, NULL);
			ticket_close(&tickets[1][i], &q.set, NULL);
		}
		picks_close(&p);
		picks_close(&q);
	}
}

static void a_pick_allocates_nothing(void **state) {
	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		unsigned counts[PICKS_ROWS_MAX];
		struct picks p;

		picks_open(&p, (*policy)->name, equal, 8, 1);
		uint64_t before = heap_allocations();
		picks_count(&p, 100, counts);
		for (uint64_t i = 0; i < 100; i++) {
			uint64_t keys[2];

			demand_much(&p.demand, keys, i);
			picks_serve(&p, i * 1000000000);
		}
		assert_int_equal(heap_allocations(), before);
		picks_close(&p);
		assert_true(heap_allocations() > 0);
	}
}

struct worker {
	struct snapshot *snap;
	struct load *load;
	unsigned index;
};

/* Picks, charges, releases, and now and then blames the one it got. */
static void *work(void *object) {
	const struct worker *worker = object;
	struct policy_options options = { .policy = policy_find(SLICE("least_load")) };
	struct demand demand = { .session = 0 };
	struct rng rng;
	struct policy_set set = {
		.options = &options, .load = worker->load, .worker = worker->index, .rng = &rng
	};

	rng_init(&rng, worker->index);
	policy_set_init(&set);
	policy_set_adopt(&set, worker->snap);
	for (uint64_t i = 0; i < 5000; i++) {
		struct pick_input input = {
			.model = &set.snapshot->any, .demand = &demand, .now_ns = i * 1000000
		};
		struct ticket ticket = { .phase = TICKET_CLOSED };
		struct pick_result result;

		if (policy_pick(&set, &input, &result) != 0)
			return "no pick";
		ticket_open(&ticket, &set, &input, &result);
		if (i % 100 == worker->index)
			instance_avoid(result.instance, i);
		else
			instance_succeeded(result.instance);
		ticket_close(&ticket, &set, NULL);
	}
	policy_set_deinit(&set);
	return NULL;
}

static void workers_pick_side_by_side(void **state) {
	struct snapshot *snap = picks_snapshot(equal, 4);
	struct load *load = load_new(3);
	struct worker workers[3];
	pthread_t threads[3];
	void *complaint;

	for (unsigned i = 0; i < 3; i++) {
		workers[i] = (struct worker){ snap, load, i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(pthread_join(threads[i], &complaint), 0);
		assert_null(complaint);
	}
	for (uint32_t r = 0; r < 4; r++)
		assert_int_equal(load_requests(load, snap->rows[r].instance->slot), 0);
	assert_int_equal(snap->refs, 1);
	snapshot_unref(&snap);
	load_free(&load);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(policies_are_found_by_name),
		cmocka_unit_test(what_was_tried_is_out),
		cmocka_unit_test(what_just_failed_is_out_for_a_while),
		cmocka_unit_test(the_only_one_left_is_tried_though_avoided),
		cmocka_unit_test(the_reserve_comes_last),
		cmocka_unit_test(weight_0_is_no_traffic_while_others_serve),
		cmocka_unit_test(a_model_that_nobody_serves_has_none),
		cmocka_unit_test(each_model_has_its_own_turn),
		cmocka_unit_test(a_new_snapshot_goes_on_where_it_was),
		cmocka_unit_test(other_weights_start_a_new_round),
		cmocka_unit_test(the_set_holds_its_snapshot_alone),
		cmocka_unit_test(a_pick_aside_leaves_no_trace),
		cmocka_unit_test(a_pick_allocates_nothing),
		cmocka_unit_test(workers_pick_side_by_side),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
