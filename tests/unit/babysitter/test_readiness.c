/* Readiness before an engine whose answers the test gives, in time that the test makes pass. */
#include "unit/discovery/far_engine.h"

#include "babysitter/readiness.c"

enum { INTERVAL_MS = 5000, TIMEOUT_MS = 5000, N_ASKED = 128, PORT = 8100 };

static char asked[N_ASKED][128]; /* "first: GET /v1/models", by the origin */
static char bodies[N_ASKED][256];
static size_t n_asked;
static struct fetch *flying;

/* An origin is its url here. */
struct origin {
	char url[ORIGIN_URL_MAX];
	const char *name;
};

struct origin *origin_new(struct loop *loop, struct slice url) {
	struct origin *o = calloc(1, sizeof(*o));
	memcpy(o->url, url.p, url.n);
	return o;
}

void origin_free(struct origin **o) {
	free(*o);
	*o = NULL;
}

void origin_expect(struct origin *o, const char *name) {
	o->name = name;
}

void origin_fetch(struct origin *o, struct fetch *f, const struct fetch_request *q) {
	assert_true(n_asked < N_ASKED && !flying);
	const char *where = o->name ? o->url : o->url + strlen("http://");
	snprintf(asked[n_asked], sizeof(asked[0]), "%.*s %.20s%.60s%.*s", (int)q->method.n, q->method.p,
	    o->name ? o->name : "", where, (int)q->path.n, q->path.p);
	snprintf(bodies[n_asked], sizeof(bodies[0]), "%.*s", (int)q->body.n, q->body.p ? q->body.p : "");
	n_asked++;
	flying = f;
}

void origin_cancel(struct origin *o, struct fetch *f) {
	if (flying == f)
		flying = NULL;
}

struct scene {
	struct rig rig;
	struct readiness_rules rules;
	struct readiness r;
	unsigned n_ready, n_good, n_bad, n_lists;
};

static void on_ready(struct readiness *r) {
	container_of(r, struct scene, r)->n_ready++;
}
static void on_look(struct readiness *r, bool is_good) {
	struct scene *s = container_of(r, struct scene, r);
	s->n_good += is_good;
	s->n_bad += !is_good;
}
static void on_models(struct readiness *r) {
	container_of(r, struct scene, r)->n_lists++;
}

static const struct readiness_ops ops = { on_ready, on_look, on_models };

static struct scene *scene_open(const char *host, bool completion) {
	struct scene *s = calloc(1, sizeof(*s));
	n_asked = 0;
	flying = NULL;
	far_clock_start();
	rig_open(&s->rig);
	rig_spin(&s->rig, 1);
	s->rules = (struct readiness_rules){
		.host = host,
		.interval_ms = INTERVAL_MS,
		.timeout_ms = TIMEOUT_MS,
		.completion = completion,
	};
	readiness_init(&s->r, &s->rig.loop, &s->rules, &ops);
	return s;
}

static void scene_close(struct scene *s) {
	readiness_deinit(&s->r);
	assert_null(flying);
	rig_close(&s->rig);
	clock_set_source(NULL);
	free(s);
}

static void expect(struct scene *s, const char *line) {
	far_until(&s->rig, flying);
	assert_string_equal(asked[n_asked - 1], line);
}

static void answer(unsigned status, const char *body) {
	struct fetch *f = flying;
	assert_non_null(f);
	flying = NULL;
	f->on_done(f, 0, status, slice_of(body));
}

static void fail_with(enum fetch_outcome outcome) {
	struct fetch *f = flying;
	assert_non_null(f);
	flying = NULL;
	f->on_done(f, outcome, 0, (struct slice){ NULL, 0 });
}

#define LIST "{\"object\":\"list\",\"data\":[{\"id\":\"a\"},{\"id\":\"b\"}]}"
#define AT   "127.0.0.1:8100"

static void tries_double_up_to_a_second(void **state) {
	static const uint64_t pauses_ms[] = { 100, 100, 200, 400, 800, 1000, 1000, 1000 };
	struct scene *s = scene_open("127.0.0.1", false);
	readiness_start(&s->r, PORT);
	assert_null(readiness_origin(&s->r));
	for (size_t i = 0; i < n_elems(pauses_ms); i++) {
		uint64_t before_ms = far_now_ns / 1000000;
		expect(s, "GET " AT "/v1/models");
		assert_in_range(
		    far_now_ns / 1000000 - before_ms, pauses_ms[i], pauses_ms[i] + 2 * FAR_STEP_MS);
		if (i % 3 == 0)
			fail_with(FETCH_E_CONNECT);
		else if (i % 3 == 1)
			fail_with(FETCH_E_TIMEOUT);
		else
			answer(503, "loading");
	}
	assert_int_equal(s->n_ready + s->n_good + s->n_bad, 0);
	assert_false(readiness_is_good(&s->r));
	expect(s, "GET " AT "/v1/models");
	answer(200, LIST);
	assert_int_equal(s->n_ready, 1);
	assert_int_equal(json_array_size(s->r.models), 2);
	assert_true(readiness_is_good(&s->r) && readiness_origin(&s->r));
	scene_close(s);
}

/* What the two lists answer, and what comes of it. */
static void lists_may_be_anywhere_or_nowhere(void **state) {
	static const struct {
		unsigned first, second; /* 0: not asked */
		const char *body;
		bool is_ready, has_list;
		size_t n;
	} rows[] = {
		{ 200, 0, LIST, true, true, 2 },
		{ 200, 0, "[{\"id\":\"a\"}]", true, true, 1 },
		{ 200, 0, "[\"a\",\"b\"]", true, true, 2 },
		{ 200, 0, "{\"data\":[{\"id\":\"a\"},{\"id\":1},{},3]}", true, true, 1 },
		{ 404, 200, LIST, true, true, 2 },
		{ 404, 404, "", true, false, 0 },
		{ 404, 401, "", true, false, 0 },
		{ 401, 0, "", true, false, 0 },
		{ 403, 0, "", true, false, 0 },
		{ 200, 200, "not JSON", true, false, 0 },
		{ 200, 200, "{\"data\":[]}", true, true, 0 },
		{ 404, 503, "", false, false, 0 },
		{ 500, 0, "", false, false, 0 },
		{ 429, 0, "", false, false, 0 },
		{ 302, 0, "", false, false, 0 },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open("127.0.0.1", false);
		readiness_start(&s->r, PORT);
		expect(s, "GET " AT "/v1/models");
		answer(rows[i].first, rows[i].body);
		if (rows[i].second) {
			expect(s, "GET " AT "/models");
			answer(rows[i].second, rows[i].body);
		}
		assert_null(flying);
		if (s->n_ready != rows[i].is_ready || s->r.has_list != rows[i].has_list ||
		    json_array_size(s->r.models) != rows[i].n)
			fail_msg("row %zu", i);
		scene_close(s);
	}
}

static void a_completion_may_be_wanted(void **state) {
	struct scene *s = scene_open("127.0.0.1", true);
	readiness_start(&s->r, PORT);
	expect(s, "GET " AT "/v1/models");
	answer(200, LIST);
	expect(s, "POST " AT "/v1/completions");
	assert_string_equal(bodies[n_asked - 1], "{\"max_tokens\":1,\"model\":\"a\",\"prompt\":\"Hi\"}");
	answer(500, "");
	assert_int_equal(s->n_ready, 0);
	expect(s, "GET " AT "/v1/models");
	answer(200, LIST);
	answer(404, "");
	expect(s, "POST " AT "/v1/chat/completions");
	assert_string_equal(bodies[n_asked - 1],
	    "{\"max_tokens\":1,\"model\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}");
	answer(200, "{}");
	assert_int_equal(s->n_ready, 1);
	expect(s, "GET " AT "/v1/models"); /* the sign of life is the list alone */
	answer(200, LIST);
	assert_int_equal(s->n_good, 1);
	scene_close(s);
}

static struct scene *scene_serving(void) {
	struct scene *s = scene_open("127.0.0.1", false);
	readiness_start(&s->r, PORT);
	expect(s, "GET " AT "/v1/models");
	answer(200, LIST);
	return s;
}

static void a_serving_engine_is_looked_at_every_interval(void **state) {
	struct scene *s = scene_serving();
	for (unsigned i = 1; i < 4; i++) { /* the second comes soon: is it so? */
		far_pass(&s->rig, (i == 2 ? PAUSE_MAX_MS : INTERVAL_MS) - 4 * FAR_STEP_MS);
		assert_null(flying);
		far_pass(&s->rig, 6 * FAR_STEP_MS);
		assert_non_null(flying);
		fail_with(FETCH_E_TIMEOUT);
		assert_int_equal(s->n_bad, i);
		assert_int_equal(readiness_is_good(&s->r), i < N_SUSPECT);
	}
	expect(s, "GET " AT "/v1/models");
	answer(200, LIST);
	assert_int_equal(s->n_good, 1);
	assert_true(readiness_is_good(&s->r));
	assert_int_equal(s->n_ready, 1);
	scene_close(s);
}

static void a_shortage_of_our_own_says_nothing(void **state) {
	struct scene *s = scene_serving();
	for (unsigned i = 0; i < 5; i++) {
		expect(s, "GET " AT "/v1/models");
		fail_with(FETCH_E_LOCAL);
	}
	assert_int_equal(s->n_bad + s->n_good, 0);
	assert_true(readiness_is_good(&s->r));
	expect(s, "GET " AT "/v1/models");
	fail_with(FETCH_E_CONNECT);
	assert_int_equal(s->n_bad, 1);
	scene_close(s);
}

static void models_that_come_later_are_learned(void **state) {
	struct scene *s = scene_serving();
	assert_int_equal(s->n_lists, 1);
	expect(s, "GET " AT "/v1/models");
	answer(200, "{\"data\":[{\"id\":\"a\",\"created\":7},{\"id\":\"b\"}]}"); /* the same ids */
	assert_int_equal(s->n_lists, 1);
	expect(s, "GET " AT "/v1/models");
	answer(200, "{\"data\":[{\"id\":\"a\"},{\"id\":\"c\"}]}");
	assert_int_equal(s->n_lists, 2);
	expect(s, "GET " AT "/v1/models");
	answer(503, ""); /* keeps what it knows */
	assert_int_equal(json_array_size(s->r.models), 2);
	scene_close(s);
}

static void a_host_where_nothing_listens_is_not_the_last_word(void **state) {
	struct scene *s = scene_open("10.1.2.3", false);
	readiness_start(&s->r, PORT);
	expect(s, "GET 10.1.2.3:8100/v1/models");
	fail_with(FETCH_E_CONNECT);
	expect(s, "GET " AT "/v1/models");
	fail_with(FETCH_E_CONNECT);
	assert_null(flying);
	expect(s, "GET " AT "/v1/models");
	fail_with(FETCH_E_CONNECT);
	expect(s, "GET 10.1.2.3:8100/v1/models");
	answer(200, LIST);
	assert_string_equal(readiness_origin(&s->r)->url, "http://10.1.2.3:8100");
	expect(s, "GET 10.1.2.3:8100/v1/models"); /* and there it stays */
	fail_with(FETCH_E_CONNECT);
	assert_int_equal(s->n_bad, 1);
	scene_close(s);
}

static void hosts_that_stand_for_all_are_looked_for_here(void **state) {
	static const char *const rows[][2] = {
		{ "0.0.0.0", "http://127.0.0.1:8100" },
		{ "::", "http://[::1]:8100" },
		{ "fe80::1", "http://[fe80::1]:8100" },
		{ "localhost", "http://localhost:8100" },
	};
	char url[ORIGIN_URL_MAX];
	for (size_t i = 0; i < n_elems(rows); i++) {
		readiness_url(url, rows[i][0], PORT, false);
		assert_string_equal(url, rows[i][1]);
	}
	readiness_url(url, "::", PORT, true);
	assert_string_equal(url, "https://[::1]:8100");
}

/* At this machine it has another name. */
static void an_engine_with_tls_must_be_the_one_that_is_advertised(void **state) {
	struct scene *s = scene_open("0.0.0.0", false);
	s->rules.tls_name = "e.example";
	readiness_start(&s->r, PORT);
	expect(s, "GET e.examplehttps://127.0.0.1:8100/v1/models");
	answer(200, "{\"data\":[{\"id\":\"m\"}]}");
	assert_int_equal(s->n_ready, 1);
	scene_close(s);
}

static void it_can_be_stopped_and_started_at_any_time(void **state) {
	struct scene *s = scene_serving();
	readiness_stop(&s->r);
	assert_int_equal(json_array_size(s->r.models), 0);
	assert_null(readiness_origin(&s->r));
	far_pass(&s->rig, 2 * INTERVAL_MS);
	assert_null(flying);
	readiness_start(&s->r, PORT + 1);
	expect(s, "GET 127.0.0.1:8101/v1/models");
	readiness_stop(&s->r); /* with a request under way */
	assert_null(flying);
	readiness_start(&s->r, PORT);
	readiness_start(&s->r, PORT);
	expect(s, "GET " AT "/v1/models");
	answer(404, "");
	expect(s, "GET " AT "/models");
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tries_double_up_to_a_second),
		cmocka_unit_test(lists_may_be_anywhere_or_nowhere),
		cmocka_unit_test(a_completion_may_be_wanted),
		cmocka_unit_test(a_serving_engine_is_looked_at_every_interval),
		cmocka_unit_test(a_shortage_of_our_own_says_nothing),
		cmocka_unit_test(models_that_come_later_are_learned),
		cmocka_unit_test(a_host_where_nothing_listens_is_not_the_last_word),
		cmocka_unit_test(hosts_that_stand_for_all_are_looked_for_here),
		cmocka_unit_test(an_engine_with_tls_must_be_the_one_that_is_advertised),
		cmocka_unit_test(it_can_be_stopped_and_started_at_any_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
