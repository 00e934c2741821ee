#include "unit/discovery/far_engine.h"

#include "discovery/health.h"
#include "policy/policy.h"

enum { INTERVAL_MS = 5000, TIMEOUT_MS = 2000, STALL_MS = 30000 };

/* A fleet whose engines are all at one address, and what the workers say of them. */
struct scene {
	struct rig rig;
	struct far_engine far;
	struct fleet *fleet;
	struct snapshot *snapshot;
	struct health health;
	struct health_evidence evidence; /* of all of them */
	uint64_t n_good[3];              /* more of these, by slot */
	const struct instance *hung;     /* whose the streams are; NULL: everybody's */
};

static void say_evidence(void *context, unsigned slot, struct health_evidence *evidence_out) {
	struct scene *s = context;

	*evidence_out = s->evidence;
	if (s->hung && s->hung->slot != slot)
		evidence_out->n_streams = evidence_out->n_stalled = 0;
	if (slot < n_elems(s->n_good))
		evidence_out->n_good += s->n_good[slot];
}

static void on_change(struct health *h) {
	struct scene *s = container_of(h, struct scene, health);
	struct snapshot *next = fleet_build(s->fleet);

	if (!next)
		return;
	health_sync(h, next);
	snapshot_unref(&s->snapshot);
	s->snapshot = next;
}

static void add(struct scene *s, unsigned i, uint64_t held_until_ms) {
	static const struct pair model = { SLICE("m"), { NULL, 0 } };
	char name[16];

	snprintf(name, sizeof(name), "e%u", i);
	struct fleet_spec spec = { .weight = 1, .models = { &model, 1 }, .held_until_ms = held_until_ms };
	spec.instance = (struct instance_spec){ .name = slice_of(name),
		.url = SLICE("http://e:1"),
		.authority = SLICE("e:1"),
		.host = SLICE("e"),
		.port = 1 };
	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
}

static struct scene *scene_open(unsigned n, bool has_probes) {
	struct scene *s = calloc(1, sizeof(*s));
	struct health_options options = { .has_probes = has_probes,
		.is_passive = true,
		.has_canary = true,
		.interval_ms = INTERVAL_MS,
		.timeout_ms = TIMEOUT_MS,
		.stall_ms = STALL_MS,
		.errors_max = 3,
		.api_key = "" };

	far_clock_start();
	rig_open(&s->rig);
	far_open(&s->far);
	s->fleet = fleet_new();
	for (unsigned i = 0; i < n; i++)
		add(s, i, 0);
	s->snapshot = fleet_build(s->fleet);
	for (uint32_t i = 0; i < n; i++)
		fleet_set_addresses(s->fleet, s->snapshot->rows[i].instance, &s->far.address, 1);
	health_init(&s->health, &s->rig.loop, s->fleet, &options, say_evidence, s, on_change);
	on_change(&s->health);
	return s;
}

static void scene_close(struct scene *s) {
	health_deinit(&s->health);
	rig_close(&s->rig);
	far_close(&s->far);
	snapshot_unref(&s->snapshot);
	fleet_free(&s->fleet);
	clock_set_source(NULL);
	free(s);
}

static enum instance_state state_of_first(const struct scene *s) {
	return s->snapshot->rows[0].state;
}

/* The slot had another instance, and the workers have not counted since. */
static void streams_of_the_one_before_do_not_count(void **state) {
	struct scene *s = scene_open(1, false);

	s->evidence.n_streams = s->evidence.n_stalled = 3;
	far_pass(&s->rig, 900);
	assert_int_equal(state_of_first(s), INSTANCE_READY);
	far_pass(&s->rig, 300);
	assert_int_equal(state_of_first(s), INSTANCE_UNHEALTHY);
	scene_close(s);
}

/* How many of 990 picks each row gets. */
static void count_picks(const struct scene *s, unsigned counts[static 3]) {
	struct policy_options options = { POLICY_OPTIONS_DEFAULTS,
		.policy = policy_find(SLICE("round_robin")) };
	struct demand demand = { .seed = 1 };
	struct load *load = load_new(1);
	struct rng rng;

	rng_init(&rng, 1);
	struct policy_set set = { .options = &options, .load = load, .rng = &rng };
	policy_set_init(&set);
	policy_set_adopt(&set, s->snapshot);
	struct pick_input input = { .model = snapshot_model(s->snapshot, SLICE("m")), .demand = &demand };
	memset(counts, 0, 3 * sizeof(counts[0]));
	for (unsigned i = 0; i < 990; i++) {
		struct pick_result result;

		assert_int_equal(policy_pick(&set, &input, &result), 0);
		counts[result.row]++;
	}
	policy_set_deinit(&set);
	load_free(&load);
}

/* For so long, while all but the row in the middle answer requests well. */
static void pass_without_probes(struct scene *s, uint64_t ms) {
	for (uint64_t passed = 0; passed < ms; passed += FAR_STEP_MS) {
		s->n_good[s->snapshot->rows[0].instance->slot]++;
		s->n_good[s->snapshot->rows[2].instance->slot]++;
		far_pass(&s->rig, FAR_STEP_MS);
	}
}

static void answer_probes(struct scene *s, struct far_engine *engines) {
	for (unsigned i = 0; i < 3; i++)
		far_answer(
		    &s->rig, &engines[i], "/health", SLICE("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
}

/* The prober has stopped: who is not heard of otherwise is unknown after three intervals, and on trial. */
static void who_is_not_heard_of_gets_trial_traffic_alone(void **state) {
	struct scene *s = scene_open(3, true);
	struct far_engine engines[3];
	unsigned counts[3];

	for (uint32_t i = 0; i < 3; i++) {
		far_open(&engines[i]);
		fleet_set_addresses(s->fleet, s->snapshot->rows[i].instance, &engines[i].address, 1);
	}
	on_change(&s->health);
	answer_probes(s, engines);
	far_until(&s->rig, s->health.n_transitions[INSTANCE_READY] == 3);
	s->health.options.has_probes = false; /* and no more than that: they are still to be probed */
	pass_without_probes(s, 3 * INTERVAL_MS - 500);
	assert_int_equal(s->health.n_transitions[INSTANCE_UNKNOWN], 0);
	count_picks(s, counts);
	assert_in_range(counts[1], 329, 331);
	pass_without_probes(s, 1000);
	assert_int_equal(s->snapshot->rows[0].state, INSTANCE_READY);
	assert_int_equal(s->snapshot->rows[1].state, INSTANCE_UNKNOWN);
	assert_int_equal(s->snapshot->rows[2].state, INSTANCE_READY);
	count_picks(s, counts);
	assert_in_range(counts[1], 29, 31); /* a sixteenth of what the others get: 990 / 33 */
	assert_in_range(counts[0], 479, 481);
	s->health.options.has_probes = true;
	answer_probes(s, engines);
	far_until(&s->rig, s->snapshot->rows[1].state == INSTANCE_READY);
	count_picks(s, counts);
	assert_in_range(counts[1], 329, 331);
	for (unsigned i = 0; i < 3; i++)
		far_close(&engines[i]);
	scene_close(s);
}

/* By its health page: its probes and an outage of requests say nothing then; probes that are good bring it
 * back. */
static void an_engine_may_say_that_it_drains(void **state) {
	struct scene *s = scene_open(1, true);

	far_answer(&s->rig, &s->far, "/health", SLICE("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
	far_until(&s->rig, state_of_first(s) == INSTANCE_READY);
	far_answer(&s->rig, &s->far, "/health",
	    SLICE("HTTP/1.1 503 Busy\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"));
	far_until(&s->rig, state_of_first(s) == INSTANCE_DRAINING);
	for (unsigned i = 0; i < 4; i++)
		far_answer(
		    &s->rig, &s->far, "/health", SLICE("HTTP/1.1 503 Gone\r\ncontent-length: 0\r\n\r\n"));
	s->evidence.n_faults = 100;
	far_pass(&s->rig, 1000);
	assert_int_equal(state_of_first(s), INSTANCE_DRAINING);
	assert_int_equal(s->health.n_transitions[INSTANCE_UNHEALTHY], 0);
	assert_false(s->snapshot->any.is_panic);
	assert_int_equal(s->snapshot->any.n_candidates + s->snapshot->any.n_reserve, 0);
	far_answer(&s->rig, &s->far, "/health", SLICE("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
	far_until(&s->rig, state_of_first(s) == INSTANCE_READY);
	scene_close(s);
}

/* The operator's word, also about one that comes after it; it is probed at once when it may serve again. */
/* The texts of the options go away with them: what is asked next is asked under the new ones. */
static void a_question_under_way_takes_the_new_key(void **state) {
	struct scene *s = scene_open(1, true);
	struct health_options options = s->health.options;
	struct heard heard;
	char *key = strdup("first");

	options.api_key = key;
	health_retune(&s->health, &options);
	int fd = far_hear(&s->rig, &s->far, &heard);
	assert_true(memmem(heard.p, heard.n, "Bearer first", strlen("Bearer first")));
	heard_free(&heard);
	options.api_key = "second";
	health_retune(&s->health, &options);
	memset(key, 'x', strlen(key));
	free(key);
	far_say(&s->rig, fd, SLICE("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"));
	far_await_end(&s->rig, fd);
	fd = far_hear(&s->rig, &s->far, &heard);
	assert_memory_equal(heard.p, "GET /v1/models ", strlen("GET /v1/models "));
	assert_true(memmem(heard.p, heard.n, "Bearer second", strlen("Bearer second")));
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

static void what_is_wished_is_heeded(void **state) {
	struct fleet_wish wish = { .state = INSTANCE_DRAINING };
	struct scene *s = scene_open(1, true);

	far_answer(&s->rig, &s->far, "/health", SLICE("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
	far_until(&s->rig, state_of_first(s) == INSTANCE_READY);
	fleet_set_wish(s->fleet, SLICE("e0"), &wish);
	health_heed(&s->health);
	far_pass(&s->rig, 100);
	assert_int_equal(state_of_first(s), INSTANCE_DRAINING);
	assert_int_equal(s->health.n_transitions[INSTANCE_DRAINING], 1);
	fleet_remove(s->fleet, SOURCE_STATIC, SLICE("e0"));
	on_change(&s->health);
	add(s, 0, 0);
	on_change(&s->health);
	assert_int_equal(state_of_first(s), INSTANCE_DRAINING);
	fleet_set_addresses(s->fleet, s->snapshot->rows[0].instance, &s->far.address, 1);
	on_change(&s->health);
	wish.state = INSTANCE_UNKNOWN;
	fleet_set_wish(s->fleet, SLICE("e0"), &wish);
	health_heed(&s->health);
	uint64_t asked_ns = far_now_ns;
	far_answer(&s->rig, &s->far, "/health", SLICE("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
	far_until(&s->rig, state_of_first(s) == INSTANCE_READY);
	assert_in_range(far_now_ns - asked_ns, 0, UINT64_C(1000000) * INTERVAL_MS / 4);
	scene_close(s);
}

/* Nobody answers: each keeps a connection until its deadline. */
static void probes_at_once_are_bounded_and_all_get_theirs(void **state) {
	enum { N = 600 };
	struct scene *s = scene_open(N, true);
	unsigned n_most = 0;

	for (unsigned i = 0; i < 2 * INTERVAL_MS / FAR_STEP_MS; i++) {
		far_pass(&s->rig, FAR_STEP_MS);
		n_most = (unsigned)size_max(n_most, s->health.n_probing);
	}
	assert_in_range(n_most, 200, 256);
	far_until(&s->rig, s->health.n_transitions[INSTANCE_UNHEALTHY] == N);
	scene_close(s);
}

static void answer_no_metrics(struct scene *s) {
	far_answer(
	    &s->rig, &s->far, "/metrics", SLICE("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"));
}

/* The next connection, which asks for one token. */
static int hear_canary(struct scene *s) {
	struct heard heard;
	int fd = far_hear(&s->rig, &s->far, &heard);

	assert_true(slice_has_prefix(rig_heard(&heard), SLICE("POST /v1/completions ")));
	heard_free(&heard);
	return fd;
}

/* Without suspicion nobody is asked; with it one canary, which is taken back when it is gone. */
static void a_canary_is_sent_only_while_there_is_suspicion(void **state) {
	struct scene *s = scene_open(1, false);

	far_pass(&s->rig, 2 * STALL_MS);
	assert_int_equal(far_accept(&s->far), -1);
	s->evidence.n_waiting = 3;
	answer_no_metrics(s);
	int fd = hear_canary(s);
	far_pass(&s->rig, STALL_MS / 2);
	assert_int_equal(far_accept(&s->far), -1);
	s->evidence.n_waiting = 0;
	far_await_end(&s->rig, fd);
	far_pass(&s->rig, 2 * STALL_MS);
	assert_int_equal(far_accept(&s->far), -1);
	assert_int_equal(state_of_first(s), INSTANCE_READY);
	scene_close(s);
}

static void who_leaves_the_canary_unanswered_is_out_until_one_is_answered(void **state) {
	struct scene *s = scene_open(1, false);

	s->evidence.n_waiting = 1;
	answer_no_metrics(s);
	far_await_end(&s->rig, hear_canary(s));
	far_until(&s->rig, state_of_first(s) == INSTANCE_UNHEALTHY);
	s->evidence.n_waiting = 0;
	answer_no_metrics(s);
	int fd = hear_canary(s);
	assert_int_equal(state_of_first(s), INSTANCE_UNHEALTHY);
	far_say(&s->rig, fd, SLICE("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"));
	far_await_end(&s->rig, fd);
	far_until(&s->rig, state_of_first(s) == INSTANCE_READY);
	far_pass(&s->rig, 2 * STALL_MS);
	assert_int_equal(far_accept(&s->far), -1);
	scene_close(s);
}

/* It has answered somebody: whoever waits is to be patient. */
static void an_answer_ends_the_suspicion(void **state) {
	struct scene *s = scene_open(1, false);

	s->evidence.n_waiting = 1;
	answer_no_metrics(s);
	int fd = hear_canary(s);
	s->evidence.answered_ms = loop_now_ms(&s->rig.loop);
	far_await_end(&s->rig, fd);
	far_pass(&s->rig, STALL_MS - 2000);
	assert_int_equal(far_accept(&s->far), -1);
	answer_no_metrics(s);
	assert_int_equal(state_of_first(s), INSTANCE_READY);
	scene_close(s);
}

static void who_comes_and_goes_is_out_from_the_first(void **state) {
	struct scene *s = scene_open(0, false);

	add(s, 0, loop_now_ms(&s->rig.loop) + 2000);
	on_change(&s->health);
	far_pass(&s->rig, 100);
	assert_int_equal(state_of_first(s), INSTANCE_UNHEALTHY);
	far_pass(&s->rig, 1700);
	assert_int_equal(state_of_first(s), INSTANCE_UNHEALTHY);
	far_pass(&s->rig, 400);
	assert_int_equal(state_of_first(s), INSTANCE_READY);
	scene_close(s);
}

/* The process stood still, and perhaps the engine with it: it begins anew. */
static void a_standstill_of_ours_takes_the_question_back(void **state) {
	struct scene *s = scene_open(1, false);

	s->evidence.n_waiting = 1;
	answer_no_metrics(s);
	int fd = hear_canary(s);
	far_now_ns += 2 * STALL_MS * UINT64_C(1000000);
	far_await_end(&s->rig, fd);
	assert_int_equal(state_of_first(s), INSTANCE_READY);
	answer_no_metrics(s);
	far_await_end(&s->rig, hear_canary(s));
	far_until(&s->rig, state_of_first(s) == INSTANCE_UNHEALTHY);
	scene_close(s);
}

static struct fleet_spec engine_of(uint16_t n_ranks) {
	static const struct pair model = { SLICE("m"), { NULL, 0 } };

	return (struct fleet_spec){ .weight = 1,
		.models = { &model, 1 },
		.n_ranks = n_ranks,
		.instance = { .name = SLICE("e"),
		    .url = SLICE("http://e:1"),
		    .authority = SLICE("e:1"),
		    .host = SLICE("e"),
		    .port = 1 } };
}

/* An engine of three ranks. */
static struct scene *scene_open_ranks(bool has_probes) {
	struct scene *s = scene_open(0, has_probes);
	struct fleet_spec spec = engine_of(3);

	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
	on_change(&s->health);
	fleet_set_addresses(s->fleet, s->snapshot->rows[0].instance, &s->far.address, 1);
	on_change(&s->health);
	return s;
}

static void assert_states(const struct scene *s, enum instance_state state) {
	for (uint32_t r = 0; r < s->snapshot->n_rows; r++)
		assert_int_equal(s->snapshot->rows[r].state, state);
}

static void say_well(struct scene *s) {
	far_answer(&s->rig, &s->far, "/health", SLICE("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
}

static void ranks_share_one_probe(void **state) {
	struct scene *s = scene_open_ranks(true);

	say_well(s);
	far_until(&s->rig, s->health.n_transitions[INSTANCE_READY] == 3);
	assert_int_equal(s->health.n_probes, 1);
	uint64_t begin_ns = far_now_ns;
	say_well(s);
	assert_in_range((far_now_ns - begin_ns) / 1000000, INTERVAL_MS * 8 / 10, INTERVAL_MS * 12 / 10);
	assert_int_equal(s->health.n_probes, 2);
	for (unsigned i = 0; i < 3; i++) {
		assert_states(s, i ? INSTANCE_DEGRADED : INSTANCE_READY);
		far_answer(
		    &s->rig, &s->far, "/health", SLICE("HTTP/1.1 500 Ill\r\ncontent-length: 0\r\n\r\n"));
		far_pass(&s->rig, 100);
	}
	assert_states(s, INSTANCE_UNHEALTHY);
	say_well(s);
	far_until(&s->rig, s->health.n_transitions[INSTANCE_READY] == 6);
	scene_close(s);
}

/* A worker saw it of one: nobody listens for the others, either. */
static void who_refuses_does_so_for_all_ranks(void **state) {
	struct scene *s = scene_open_ranks(true);

	say_well(s);
	far_until(&s->rig, s->health.n_transitions[INSTANCE_READY] == 3);
	instance_avoid(s->snapshot->rows[1].instance, far_now_ns / 1000000);
	far_pass(&s->rig, 200);
	assert_states(s, INSTANCE_UNHEALTHY);
	for (uint32_t r = 0; r < 3; r++)
		assert_true(s->snapshot->rows[r].is_refusing);
	say_well(s);
	far_until(&s->rig, s->health.n_transitions[INSTANCE_READY] == 6);
	assert_false(instance_is_avoided(s->snapshot->rows[1].instance, far_now_ns / 1000000));
	scene_close(s);
}

static void stall_the_second(struct scene *s) {
	s->hung = s->snapshot->rows[1].instance;
	s->evidence.n_streams = s->evidence.n_stalled = 3;
	far_pass(&s->rig, 200);
}

static void a_rank_that_hangs_takes_idle_ones_along(void **state) {
	struct scene *s = scene_open_ranks(false);

	far_pass(&s->rig, STALL_MS + 2000);
	s->evidence.answered_ms = far_now_ns / 1000000; /* all have just worked */
	far_pass(&s->rig, 200);
	stall_the_second(s);
	assert_int_equal(s->snapshot->rows[0].state, INSTANCE_READY);
	assert_int_equal(s->snapshot->rows[1].state, INSTANCE_UNHEALTHY);
	assert_int_equal(s->snapshot->rows[2].state, INSTANCE_READY);
	scene_close(s);

	s = scene_open_ranks(false);
	far_pass(&s->rig, STALL_MS + 2000);
	stall_the_second(s);
	assert_states(s, INSTANCE_UNHEALTHY);
	scene_close(s);
}

/* Without a probe of its own. */
static void a_rank_that_comes_later_is_as_the_others_are(void **state) {
	struct scene *s = scene_open_ranks(true);
	struct fleet_spec spec = engine_of(5);

	say_well(s);
	far_until(&s->rig, s->health.n_transitions[INSTANCE_READY] == 3);
	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
	on_change(&s->health);
	far_pass(&s->rig, 200);
	assert_int_equal(s->snapshot->n_rows, 5);
	assert_states(s, INSTANCE_READY);
	assert_int_equal(s->health.n_probes, 1);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_of_the_one_before_do_not_count),
		cmocka_unit_test(a_canary_is_sent_only_while_there_is_suspicion),
		cmocka_unit_test(who_leaves_the_canary_unanswered_is_out_until_one_is_answered),
		cmocka_unit_test(an_answer_ends_the_suspicion),
		cmocka_unit_test(a_standstill_of_ours_takes_the_question_back),
		cmocka_unit_test(probes_at_once_are_bounded_and_all_get_theirs),
		cmocka_unit_test(who_is_not_heard_of_gets_trial_traffic_alone),
		cmocka_unit_test(who_comes_and_goes_is_out_from_the_first),
		cmocka_unit_test(an_engine_may_say_that_it_drains),
		cmocka_unit_test(what_is_wished_is_heeded),
		cmocka_unit_test(a_question_under_way_takes_the_new_key),
		cmocka_unit_test(ranks_share_one_probe),
		cmocka_unit_test(who_refuses_does_so_for_all_ranks),
		cmocka_unit_test(a_rank_that_hangs_takes_idle_ones_along),
		cmocka_unit_test(a_rank_that_comes_later_is_as_the_others_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
