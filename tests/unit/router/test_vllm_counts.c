#include "unit/fleet/scene.h"
#include "unit/unit.h"

#include "router/vllm_counts.h"

static struct vllm_counts *counts;

static int counts_make(void **state) {
	counts = vllm_counts_new();
	return counts ? 0 : -1;
}

static int counts_drop(void **state) {
	vllm_counts_free(&counts);
	assert_null(counts);
	vllm_counts_free(&counts);
	return 0;
}

static const char *route_of(const char *path) {
	return vllm_route_text(vllm_route_of(slice_of(path)));
}

static void paths_have_routes(void **state) {
	for (unsigned i = 1; i < VLLM_ROUTES; i++)
		assert_int_equal(vllm_route_of(slice_of(vllm_route_text(i))), i);
	assert_string_equal(route_of("/v1/responses/resp_1"), "/v1/responses/{id}");
	assert_string_equal(route_of("/v1/responses/resp_1/cancel"), "/v1/responses/{id}/cancel");
	assert_string_equal(route_of("/workers/http%3A%2F%2Fa%3A1"), "/workers/{url}");
}

static void all_else_is_other(void **state) {
	static const char *const paths[] = { "", "/", "/v1", "/v1/chat/completions/", "/v1/chat/completion",
		"/v1/responses/", "/v1/responses/a/b", "/v1/responses//cancel", "/workers/http://a:1",
		"other", "/v1/chat/completions\n", "/score" };

	for (size_t i = 0; i < n_elems(paths); i++)
		assert_string_equal(route_of(paths[i]), "other");
}

static void probes_are_no_requests(void **state) {
	static const char *const paths[] = { "/liveness", "/readiness", "/health" };

	for (size_t i = 0; i < n_elems(paths); i++) {
		struct vllm_request request = { .path = slice_of(paths[i]), .status = 503 };

		vllm_counts_request(counts, &request);
		vllm_counts_retry(counts, request.path, 1, 50);
	}
	for (unsigned i = 0; i < VLLM_ROUTES; i++) {
		assert_int_equal(metric_read(&counts->routes[i].n_requests), 0);
		assert_int_equal(metric_read(&counts->routes[i].n_retries), 0);
	}
	assert_int_equal(metric_read(&counts->backoffs[1].sum_ns), 0);
}

static void errors_have_a_word(void **state) {
	assert_int_equal(vllm_error_of(CAUSE_NONE, 200), VLLM_ERRORS);
	assert_int_equal(vllm_error_of(CAUSE_NONE, 399), VLLM_ERRORS);
	assert_string_equal(vllm_error_text(vllm_error_of(CAUSE_NONE, 400)), "status_4xx");
	assert_string_equal(vllm_error_text(vllm_error_of(CAUSE_NONE, 503)), "status_5xx");
	assert_string_equal(vllm_error_text(vllm_error_of(CAUSE_STREAM_BROKEN, 200)), "stream_broken");
}

static void a_bound_belongs_to_its_bucket(void **state) {
	struct vllm_histogram h = { .sum_ns = 0 };

	vllm_histogram_observe(&h, 0);
	vllm_histogram_observe(&h, 1000000);
	vllm_histogram_observe(&h, 1000001);
	vllm_histogram_observe(&h, 240000000000);
	vllm_histogram_observe(&h, 240000000001);
	assert_int_equal(metric_read(&h.buckets[0]), 2);
	assert_int_equal(metric_read(&h.buckets[1]), 1);
	assert_int_equal(metric_read(&h.buckets[VLLM_EDGES - 1]), 1);
	assert_int_equal(metric_read(&h.buckets[VLLM_EDGES]), 1);
	assert_int_equal(metric_read(&h.sum_ns), 480002000002);
}

static void requests_are_counted_by_route(void **state) {
	struct vllm_request request = { .path = SLICE("/v1/embeddings"), .status = 200, .total_ns = 5 };
	struct vllm_route_counts *route = &counts->routes[vllm_route_of(request.path)];

	vllm_counts_request(counts, &request);
	request.status = 503;
	request.is_exhausted = true;
	vllm_counts_request(counts, &request);
	assert_int_equal(metric_read(&route->n_requests), 2);
	assert_int_equal(metric_read(&route->n_exhausted), 1);
	assert_int_equal(metric_read(&route->n_errors[VLLM_ERROR_5XX]), 1);
	assert_int_equal(metric_read(&route->duration.sum_ns), 10);
	assert_int_equal(metric_read(&route->n_split), 0);
	request.was_split = true;
	vllm_counts_request(counts, &request);
	assert_int_equal(metric_read(&route->n_split), 1);
	assert_int_equal(metric_read(&counts->n_split_errors[VLLM_ERROR_5XX]), 1);
	assert_int_equal(metric_read(&route->split_duration.buckets[0]), 1);
}

static void retries_are_told_apart_up_to_a_limit(void **state) {
	vllm_counts_retry(counts, SLICE("/generate"), 1, 50);
	vllm_counts_retry(counts, SLICE("/generate"), VLLM_BACKOFFS - 1, 50);
	vllm_counts_retry(counts, SLICE("/generate"), VLLM_BACKOFFS, 50);
	vllm_counts_retry(counts, SLICE("/generate"), 64, 50);
	assert_int_equal(metric_read(&counts->routes[vllm_route_of(SLICE("/generate"))].n_retries), 4);
	assert_int_equal(metric_read(&counts->backoffs[1].sum_ns), 50000000);
	assert_int_equal(metric_read(&counts->backoffs[VLLM_BACKOFFS - 1].sum_ns), 50000000);
	assert_int_equal(metric_read(&counts->backoffs[0].sum_ns), 100000000);
}

static void picks_say_what_they_went_by(void **state) {
	struct instance *inst = scene_instance("a");
	struct vllm_pick pick = {
		.instance = inst, .policy = policy_table[0], .reason = PICK_PREFIX_HIT, .is_looked_up = true
	};

	vllm_counts_pick(counts, &pick);
	pick.is_cached = true;
	vllm_counts_pick(counts, &pick);
	pick = (struct vllm_pick){ .instance = inst, .policy = policy_table[1], .reason = PICK_LEAST_LOAD };
	vllm_counts_pick(counts, &pick);
	const struct vllm_instance_counts *c = vllm_counts_of(counts, inst);
	assert_int_equal(metric_read(&c->n_picks[0]), 2);
	assert_int_equal(metric_read(&c->n_picks[1]), 1);
	assert_int_equal(metric_read(&counts->n_hits), 1);
	assert_int_equal(metric_read(&counts->n_misses), 1);
	assert_int_equal(metric_read(&counts->n_balanced), 1);
	instance_unref(&inst);
}

static void a_slot_begins_anew_with_its_next_instance(void **state) {
	struct instance *inst = scene_instance("a");
	uint16_t slot = inst->slot;

	assert_null(vllm_counts_of(counts, inst));
	vllm_counts_leg(counts, inst, VLLM_PREFILL, true);
	vllm_counts_leg(counts, inst, VLLM_PREFILL, false);
	vllm_counts_broken_stream(counts, inst);
	const struct vllm_instance_counts *c = vllm_counts_of(counts, inst);
	assert_int_equal(metric_read(&c->n_legs[VLLM_PREFILL]), 2);
	assert_int_equal(metric_read(&c->n_leg_errors[VLLM_PREFILL]), 1);
	assert_int_equal(metric_read(&c->n_stream_errors), 1);
	instance_unref(&inst);

	inst = scene_instance("b");
	assert_int_equal(inst->slot, slot);
	assert_null(vllm_counts_of(counts, inst));
	vllm_counts_leg(counts, inst, VLLM_DECODE, false);
	c = vllm_counts_of(counts, inst);
	assert_int_equal(metric_read(&c->n_legs[VLLM_PREFILL]), 0);
	assert_int_equal(metric_read(&c->n_leg_errors[VLLM_PREFILL]), 0);
	assert_int_equal(metric_read(&c->n_stream_errors), 0);
	assert_int_equal(metric_read(&c->n_legs[VLLM_DECODE]), 1);
	instance_unref(&inst);
}

static void every_policy_has_a_place(void **state) {
	unsigned n = 0;

	while (policy_table[n])
		n++;
	assert_in_range(n, 1, VLLM_POLICIES);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_have_routes),
		cmocka_unit_test(all_else_is_other),
		cmocka_unit_test_setup_teardown(probes_are_no_requests, counts_make, counts_drop),
		cmocka_unit_test(errors_have_a_word),
		cmocka_unit_test(a_bound_belongs_to_its_bucket),
		cmocka_unit_test_setup_teardown(requests_are_counted_by_route, counts_make, counts_drop),
		cmocka_unit_test_setup_teardown(
		    retries_are_told_apart_up_to_a_limit, counts_make, counts_drop),
		cmocka_unit_test_setup_teardown(picks_say_what_they_went_by, counts_make, counts_drop),
		cmocka_unit_test_setup_teardown(
		    a_slot_begins_anew_with_its_next_instance, counts_make, counts_drop),
		cmocka_unit_test(every_policy_has_a_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
