#include "unit/discovery/far_engine.h"

#include "discovery/health.h"

enum { INTERVAL_MS = 5000, TIMEOUT_MS = 2000, STALL_MS = 30000 };

/* A fleet whose engines are all at one address, and what the workers say of them. */
struct scene {
	struct rig rig;
	struct far_engine far;
	struct fleet *fleet;
	struct snapshot *snapshot;
	struct health health;
	struct health_evidence evidence; /* of all of them */
};

static void say_evidence(void *context, unsigned slot, struct health_evidence *evidence_out) {
	struct scene *s = context;

	*evidence_out = s->evidence;
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

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_of_the_one_before_do_not_count),
		cmocka_unit_test(a_canary_is_sent_only_while_there_is_suspicion),
		cmocka_unit_test(who_leaves_the_canary_unanswered_is_out_until_one_is_answered),
		cmocka_unit_test(an_answer_ends_the_suspicion),
		cmocka_unit_test(a_standstill_of_ours_takes_the_question_back),
		cmocka_unit_test(probes_at_once_are_bounded_and_all_get_theirs),
		cmocka_unit_test(who_comes_and_goes_is_out_from_the_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
