/* The registrar in virtual time: the test is the registry, and says when and what it answers. */
#include "unit/discovery/far_engine.h"

#include "babysitter/registrar.c"
#include "base/rng.h"

enum { HEARTBEAT_MS = 30000, N_ASKED = 512 };

struct asked {
	char *line; /* "POST /services" */
	char *body; /* NULL: none */
	uint64_t at_ms;
	struct fetch *fetch; /* NULL: answered or cancelled */
};

/* What was sent to the registry. */
static struct asked asked[N_ASKED];
static size_t n_asked, n_answers;
static char last_bearer[64];

void origin_fetch(struct origin *o, struct fetch *f, const struct fetch_request *q) {
	assert_true(n_asked < N_ASKED);
	struct asked *a = &asked[n_asked++];
	if (asprintf(&a->line, "%.*s %.*s", (int)q->method.n, q->method.p, (int)q->path.n, q->path.p) < 0)
		abort();
	a->body = q->body.p ? strndup(q->body.p, q->body.n) : NULL;
	a->at_ms = far_now_ns / 1000000;
	a->fetch = f;
	snprintf(last_bearer, sizeof(last_bearer), "%.*s", (int)q->bearer.n, q->bearer.p ? q->bearer.p : "");
	for (size_t i = 0; i + 1 < n_asked; i++)
		assert_ptr_not_equal(asked[i].fetch, f); /* one at a time for each record */
}

void origin_cancel(struct origin *o, struct fetch *f) {
	for (size_t i = 0; i < n_asked; i++)
		if (asked[i].fetch == f)
			asked[i].fetch = NULL;
}

const char *origin_url(const struct origin *o) {
	return "http://registry:8081";
}

struct scene {
	struct rig rig;
	struct registrar r;
};

static void on_answer(struct registrar *r) {
	n_answers++;
}

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));
	n_asked = n_answers = 0;
	far_clock_start();
	rig_open(&s->rig);
	rig_spin(&s->rig, 1);
	log_set_level(LOG_ERROR);
	registrar_init(&s->r, &s->rig.loop, NULL, "eng", SLICE("secret"), HEARTBEAT_MS, on_answer);
	return s;
}

static void scene_close(struct scene *s) {
	registrar_deinit(&s->r);
	rig_close(&s->rig);
	for (size_t i = 0; i < n_asked; i++) {
		free(asked[i].line);
		free(asked[i].body);
		asked[i] = (struct asked){ .line = NULL };
	}
	clock_set_source(NULL);
	free(s);
}

static void want(struct scene *s, unsigned which, const char *json) {
	registrar_want(&s->r, which, json ? json_loads(json, 0, NULL) : NULL);
}

/* The oldest request without an answer must be this one. */
static struct asked *expect(const char *line) {
	for (size_t i = 0; i < n_asked; i++)
		if (asked[i].fetch) {
			assert_string_equal(asked[i].line, line);
			return &asked[i];
		}
	fail_msg("nothing was asked, %s was expected", line);
	return NULL;
}

static void expect_nothing(void) {
	for (size_t i = 0; i < n_asked; i++)
		if (asked[i].fetch)
			fail_msg("%s was not expected", asked[i].line);
}

static void answer(struct asked *a, unsigned status) {
	struct fetch *f = a->fetch;
	a->fetch = NULL;
	f->on_done(f, 0, status, SLICE("{}"));
}

static void fail_with(struct asked *a, enum fetch_outcome outcome) {
	struct fetch *f = a->fetch;
	a->fetch = NULL;
	f->on_done(f, outcome, 0, (struct slice){ NULL, 0 });
}

/* A registered engine, between two heartbeats. */
static struct scene *scene_registered(void) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_SERVER, "{\"n\":1}");
	answer(expect("POST /services"), 201);
	expect_nothing();
	return s;
}

static void it_registers_at_once_and_says_what_it_was_given(void **state) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_OWN, "{\"name\":\"eng\",\"port\":1}");
	struct asked *a = expect("POST /services");
	assert_string_equal(a->body, "{\"name\":\"eng\",\"port\":1}");
	assert_string_equal(last_bearer, "secret");
	assert_false(registrar_is_present(&s->r, REGISTRAR_OWN));
	answer(a, 201);
	assert_true(registrar_is_present(&s->r, REGISTRAR_OWN));
	assert_true(registrar_is_settled(&s->r));
	assert_int_equal(n_answers, 1);
	scene_close(s);
}

static void heartbeats_follow_each_other_for_both(void **state) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_OWN, "{\"n\":0}");
	want(s, REGISTRAR_SERVER, "{\"n\":1}");
	answer(expect("POST /services"), 201);
	answer(expect("POST /services"), 200);
	for (unsigned round = 0; round < 3; round++) {
		far_pass(&s->rig, HEARTBEAT_MS - 2 * FAR_STEP_MS);
		expect_nothing();
		far_pass(&s->rig, 4 * FAR_STEP_MS);
		struct asked *a = expect("POST /services/eng/heartbeat");
		assert_null(a->body);
		answer(a, 200);
		answer(expect("POST /services/eng-server/heartbeat"), 200);
	}
	assert_int_equal(s->r.records[REGISTRAR_SERVER].n_heartbeats, 3);
	scene_close(s);
}

static void a_heartbeat_answered_404_registers_again_at_once(void **state) {
	struct scene *s = scene_registered();
	far_pass(&s->rig, HEARTBEAT_MS + FAR_STEP_MS);
	answer(expect("POST /services/eng-server/heartbeat"), 404);
	struct asked *a = expect("POST /services");
	assert_string_equal(a->body, "{\"n\":1}");
	assert_false(registrar_is_present(&s->r, REGISTRAR_SERVER));
	answer(a, 201);
	assert_true(registrar_is_present(&s->r, REGISTRAR_SERVER));
	scene_close(s);
}

/* The times between the tries of a registry that is away, whatever is tried. */
static void assert_backoff(struct scene *s, const char *line, enum fetch_outcome outcome) {
	static const uint64_t pauses_ms[] = { 500, 1000, 2000, 4000, 8000, 10000, 10000 };
	for (size_t i = 0; i < n_elems(pauses_ms); i++) {
		uint64_t before_ms = far_now_ns / 1000000;
		fail_with(expect(line), outcome);
		expect_nothing();
		far_until(&s->rig, asked[n_asked - 1].fetch);
		uint64_t passed_ms = far_now_ns / 1000000 - before_ms;
		assert_in_range(passed_ms, pauses_ms[i], pauses_ms[i] + 2 * FAR_STEP_MS);
	}
}

static void any_outage_ends_well(void **state) {
	static const enum fetch_outcome outcomes[] = { FETCH_E_CONNECT, FETCH_E_TIMEOUT, FETCH_E_BROKEN };
	for (size_t i = 0; i < n_elems(outcomes); i++) {
		struct scene *s = scene_open();
		want(s, REGISTRAR_OWN, "{}");
		assert_backoff(s, "POST /services", outcomes[i]);
		answer(expect("POST /services"), 201);
		far_pass(&s->rig, HEARTBEAT_MS + FAR_STEP_MS);
		assert_backoff(s, "POST /services/eng/heartbeat", outcomes[i]);
		answer(expect("POST /services/eng/heartbeat"), 200);
		assert_true(registrar_is_present(&s->r, REGISTRAR_OWN));
		scene_close(s);
	}
}

static void refusals_are_tried_again(void **state) {
	static const unsigned statuses[] = { 400, 401, 403, 404, 413, 422, 429, 500, 503 };
	for (size_t i = 0; i < n_elems(statuses); i++) {
		struct scene *s = scene_open();
		want(s, REGISTRAR_OWN, "{}");
		answer(expect("POST /services"), statuses[i]);
		expect_nothing();
		assert_false(registrar_is_settled(&s->r));
		far_pass(&s->rig, 500 + FAR_STEP_MS);
		answer(expect("POST /services"), 201);
		assert_true(registrar_is_settled(&s->r));
		scene_close(s);
	}
}

static void a_refused_heartbeat_leaves_the_record(void **state) {
	struct scene *s = scene_registered();
	far_pass(&s->rig, HEARTBEAT_MS + FAR_STEP_MS);
	answer(expect("POST /services/eng-server/heartbeat"), 500);
	assert_true(registrar_is_present(&s->r, REGISTRAR_SERVER));
	far_pass(&s->rig, 500 + FAR_STEP_MS);
	answer(expect("POST /services/eng-server/heartbeat"), 200);
	scene_close(s);
}

static void what_is_not_wanted_is_deleted_at_once(void **state) {
	struct scene *s = scene_registered();
	want(s, REGISTRAR_SERVER, NULL);
	assert_false(registrar_is_settled(&s->r));
	answer(expect("DELETE /services/eng-server"), 200);
	assert_true(registrar_is_settled(&s->r));
	assert_false(registrar_is_present(&s->r, REGISTRAR_SERVER));
	far_pass(&s->rig, 3 * HEARTBEAT_MS);
	expect_nothing();
	scene_close(s);
}

static void a_former_life_is_deleted(void **state) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_SERVER, NULL);
	answer(expect("DELETE /services/eng-server"), 404);
	assert_true(registrar_is_settled(&s->r));
	want(s, REGISTRAR_SERVER, NULL);
	expect_nothing();
	scene_close(s);
}

static void what_nobody_spoke_of_is_left_alone(void **state) {
	struct scene *s = scene_open();
	far_pass(&s->rig, 3 * HEARTBEAT_MS);
	expect_nothing();
	assert_true(registrar_is_settled(&s->r));
	scene_close(s);
}

static void a_delete_is_tried_until_it_is_answered(void **state) {
	struct scene *s = scene_registered();
	want(s, REGISTRAR_SERVER, NULL);
	assert_backoff(s, "DELETE /services/eng-server", FETCH_E_TIMEOUT);
	answer(expect("DELETE /services/eng-server"), 404);
	assert_true(registrar_is_settled(&s->r));
	scene_close(s);
}

static void another_list_of_models_updates_the_record(void **state) {
	struct scene *s = scene_registered();
	want(s, REGISTRAR_SERVER, "{\"n\":1}");
	expect_nothing();
	want(s, REGISTRAR_SERVER, "{\"n\":2}");
	struct asked *a = expect("POST /services");
	assert_string_equal(a->body, "{\"n\":2}");
	answer(a, 201);
	expect_nothing();
	scene_close(s);
}

static void changes_of_mind_in_flight_end_in_the_last_one(void **state) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_SERVER, "{\"n\":1}");
	want(s, REGISTRAR_SERVER, NULL);
	want(s, REGISTRAR_SERVER, "{\"n\":2}");
	want(s, REGISTRAR_SERVER, "{\"n\":3}");
	answer(expect("POST /services"), 201);
	struct asked *a = expect("POST /services");
	assert_string_equal(a->body, "{\"n\":3}");
	want(s, REGISTRAR_SERVER, NULL);
	answer(a, 201);
	a = expect("DELETE /services/eng-server");
	want(s, REGISTRAR_SERVER, "{\"n\":4}");
	answer(a, 200);
	answer(expect("POST /services"), 201);
	assert_true(registrar_is_settled(&s->r));
	scene_close(s);
}

/* It may have been acted upon although no answer came. */
static void a_registration_without_an_answer_is_deleted(void **state) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_SERVER, "{\"n\":1}");
	struct asked *a = expect("POST /services");
	want(s, REGISTRAR_SERVER, NULL);
	fail_with(a, FETCH_E_TIMEOUT);
	far_pass(&s->rig, 500 + FAR_STEP_MS);
	answer(expect("DELETE /services/eng-server"), 200);
	assert_true(registrar_is_settled(&s->r));
	scene_close(s);
}

static void news_do_not_wait_for_a_pause(void **state) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_SERVER, "{\"n\":1}");
	for (unsigned i = 0; i < 5; i++) {
		fail_with(expect("POST /services"), FETCH_E_CONNECT);
		far_until(&s->rig, asked[n_asked - 1].fetch);
	}
	fail_with(expect("POST /services"), FETCH_E_CONNECT);
	want(s, REGISTRAR_SERVER, "{\"n\":2}");
	answer(expect("POST /services"), 201);
	scene_close(s);
}

static void it_says_when_waiting_is_in_vain(void **state) {
	struct scene *s = scene_open();
	want(s, REGISTRAR_OWN, "{}");
	assert_false(registrar_is_in_vain(&s->r));
	fail_with(expect("POST /services"), FETCH_E_CONNECT);
	assert_true(registrar_is_in_vain(&s->r));
	assert_int_equal(n_answers, 1);
	want(s, REGISTRAR_OWN, NULL); /* it may be back: one try is waited for */
	assert_false(registrar_is_in_vain(&s->r));
	answer(expect("DELETE /services/eng"), 503);
	assert_false(registrar_is_in_vain(&s->r));
	scene_close(s);
}

static void names_are_encoded_in_paths(void **state) {
	struct scene *s = scene_open();
	registrar_deinit(&s->r);
	registrar_init(&s->r, &s->rig.loop, NULL, "a b/c%", SLICE(""), HEARTBEAT_MS, NULL);
	want(s, REGISTRAR_OWN, NULL);
	answer(expect("DELETE /services/a%20b%2Fc%25"), 200);
	assert_string_equal(registrar_name(&s->r, REGISTRAR_SERVER), "a b/c%-server");
	scene_close(s);
}

static void it_can_end_at_any_time(void **state) {
	for (unsigned i = 0; i < 3; i++) {
		struct scene *s = scene_open();
		want(s, REGISTRAR_OWN, "{}");
		if (i == 1)
			fail_with(expect("POST /services"), FETCH_E_CONNECT);
		if (i == 2)
			answer(expect("POST /services"), 201);
		scene_close(s);
	}
}

/* Thousands of orders of wishes, answers and failures: in the end the registry holds what is wanted. */
static void the_registry_ends_up_with_what_is_wanted(void **state) {
	for (unsigned seed = 0; seed < 300; seed++) {
		struct scene *s = scene_open();
		struct rng rng;
		char *there = NULL, wanted[32] = "";
		rng_init(&rng, seed);
		for (unsigned i = 0; i < 60 || !registrar_is_settled(&s->r) || asked[n_asked - 1].fetch;
		     i++) {
			struct asked *a = n_asked && asked[n_asked - 1].fetch ? &asked[n_asked - 1] : NULL;
			uint64_t luck = i < 60 ? rng_below(&rng, 100) : 99;
			assert_true(i < 1000);
			if (i == 0 || (i < 60 && rng_below(&rng, 4) == 0)) {
				snprintf(wanted, sizeof(wanted), "{\"n\":%u}", i);
				if (rng_below(&rng, 3) == 0)
					wanted[0] = '\0';
				want(s, REGISTRAR_SERVER, wanted[0] ? wanted : NULL);
			} else if (!a) {
				far_pass(&s->rig, i < 60 ? 100 + rng_below(&rng, 40000) : 11000);
			} else if (luck < 20) {
				fail_with(a, FETCH_E_CONNECT);
			} else { /* it is acted upon, whether the answer comes or not */
				bool is_known = there != NULL, is_delete = a->line[0] == 'D';
				if (luck >= 20 && luck < 30 && i < 60)
					is_known = false, free(there), there = NULL; /* restarted, empty */
				if (a->body || is_delete) {
					free(there);
					there = a->body ? strdup(a->body) : NULL;
				}
				if (luck >= 30 && luck < 50)
					fail_with(a, FETCH_E_TIMEOUT);
				else
					answer(a, a->body ? 201 : is_known ? 200 : 404);
			}
		}
		/* What was forgotten since is found by the next heartbeat. */
		for (unsigned i = 0; i < 8; i++) {
			far_pass(&s->rig, HEARTBEAT_MS);
			while (asked[n_asked - 1].fetch) {
				struct asked *a = &asked[n_asked - 1];
				if (a->body) {
					free(there);
					there = strdup(a->body);
				}
				answer(a, a->body ? 201 : there ? 200 : 404);
			}
		}
		assert_string_equal(there ? there : "", wanted);
		free(there);
		scene_close(s);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_registers_at_once_and_says_what_it_was_given),
		cmocka_unit_test(heartbeats_follow_each_other_for_both),
		cmocka_unit_test(a_heartbeat_answered_404_registers_again_at_once),
		cmocka_unit_test(any_outage_ends_well),
		cmocka_unit_test(refusals_are_tried_again),
		cmocka_unit_test(a_refused_heartbeat_leaves_the_record),
		cmocka_unit_test(what_is_not_wanted_is_deleted_at_once),
		cmocka_unit_test(a_former_life_is_deleted),
		cmocka_unit_test(what_nobody_spoke_of_is_left_alone),
		cmocka_unit_test(a_delete_is_tried_until_it_is_answered),
		cmocka_unit_test(another_list_of_models_updates_the_record),
		cmocka_unit_test(changes_of_mind_in_flight_end_in_the_last_one),
		cmocka_unit_test(a_registration_without_an_answer_is_deleted),
		cmocka_unit_test(news_do_not_wait_for_a_pause),
		cmocka_unit_test(it_says_when_waiting_is_in_vain),
		cmocka_unit_test(names_are_encoded_in_paths),
		cmocka_unit_test(it_can_end_at_any_time),
		cmocka_unit_test(the_registry_ends_up_with_what_is_wanted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
