/* The endpoints over parts whose states the test sets, and an engine whose answers it gives. */
#include "unit/net/rig.h"

#include "babysitter/babysitter_routes.h"

enum { PORT = 8100, UPTIME_S = 120 };

/* --- the engine ------------------------------------------------------------------------ */

struct origin {
	char asked[2][64]; /* "/models with KEY" */
	unsigned n_asked;
	struct fetch *flying;
};

static struct origin engine;

struct origin *origin_new(struct loop *loop, struct slice url) {
	return &engine;
}

void origin_free(struct origin **o) {
	*o = NULL;
}

void origin_expect(struct origin *o, const char *name) {
	assert_non_null(name);
}

const char *origin_url(const struct origin *o) {
	return "http://engine";
}

void origin_fetch(struct origin *o, struct fetch *f, const struct fetch_request *q) {
	assert_true(!o->flying && o->n_asked < n_elems(o->asked));
	snprintf(o->asked[o->n_asked++], sizeof(o->asked[0]), "%.*s with %.*s", (int)q->path.n, q->path.p,
	    (int)q->bearer.n, q->bearer.p);
	o->flying = f;
}

void origin_cancel(struct origin *o, struct fetch *f) {
	assert_ptr_equal(o->flying, f);
	o->flying = NULL;
}

static void engine_answer(int outcome, unsigned status, const char *body) {
	struct fetch *f = engine.flying;
	assert_non_null(f);
	engine.flying = NULL;
	f->on_done(f, outcome, status, slice_of(body));
}

/* --- the babysitter -------------------------------------------------------------------- */

struct scene {
	struct rig rig;
	struct endpoint_server server;
	uint16_t port;
	struct babysitter_config config;
	struct keeper keeper;
	struct readiness readiness;
	struct registrar registrar;
	struct babysitter_routes routes;
	unsigned n_drains;
};

static void on_drain(struct babysitter_routes *routes) {
	struct scene *s = container_of(routes, struct scene, routes);
	s->n_drains++;
	s->keeper.child.state = CHILD_DRAINING;
}

static struct scene *scene_open(const char *token) {
	struct scene *s = calloc(1, sizeof(*s));
	rig_open(&s->rig);
	engine = (struct origin){ .n_asked = 0 };
	s->config = (struct babysitter_config){
		.name = "eng", .host = "localhost", .port = PORT, .token = token, .probe.api_key = "key"
	};
	s->readiness = (struct readiness){ .state = READINESS_IDLE, .origins = { &engine } };
	s->routes = (struct babysitter_routes){
		.config = &s->config,
		.keeper = &s->keeper,
		.readiness = &s->readiness,
		.host = "",
		.started_ns = clock_now_ns() - (uint64_t)UPTIME_S * 1000000000u,
		.on_drain = on_drain,
	};
	list_init(&s->routes.lists);
	int fd = rig_listen(&s->port);
	assert_int_equal(endpoint_server_open(&s->server, &s->rig.loop, fd, babysitter_routes_rows,
			     babysitter_routes_n_rows, &s->routes, token),
	    0);
	return s;
}

static void scene_close(struct scene *s) {
	endpoint_server_close(&s->server);
	assert_null(engine.flying);
	assert_true(list_is_empty(&s->routes.lists));
	rig_close(&s->rig);
	endpoint_server_deinit(&s->server);
	free(s);
}

static void engine_serves(struct scene *s) {
	s->keeper.child.state = CHILD_READY;
	s->readiness.state = READINESS_SERVING;
	s->readiness.port = PORT;
}

/* --- clients ----------------------------------------------------------------------------- */

struct answer {
	struct heard heard;
	unsigned status;
	json_t *json; /* NULL: its body is none */
};

static int ask(struct scene *s, const char *line, const char *fields) {
	char text[256];
	int fd = rig_connect(s->port);
	int n = snprintf(
	    text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", line, fields);
	rig_say(fd, (struct slice){ text, (size_t)n });
	return fd;
}

static struct answer hear(struct scene *s, int fd) {
	struct answer a = { .status = 0 };
	rig_listen_to(&s->rig, fd, &a.heard, SIZE_MAX);
	close(fd);
	char *end = memmem(a.heard.p, a.heard.n, "\r\n\r\n", 4);
	assert_non_null(end);
	a.status = (unsigned)strtoul(a.heard.p + strlen("HTTP/1.1 "), NULL, 10);
	a.json = json_loadb(end + 4, a.heard.n - (size_t)(end + 4 - a.heard.p), 0, NULL);
	return a;
}

static struct answer answer_to(struct scene *s, const char *line) {
	return hear(s, ask(s, line, ""));
}

static bool answer_has(const struct answer *a, const char *text) {
	return memmem(a->heard.p, a->heard.n, text, strlen(text));
}

static void answer_free(struct answer *a) {
	json_decref(a->json);
	heard_free(&a->heard);
}

/* All members, and no other; the answer ends here. */
static void assert_members(struct answer *a, unsigned status, json_t *members) {
	char *have = json_dumps(a->json, JSON_SORT_KEYS), *want = json_dumps(members, JSON_SORT_KEYS);
	assert_non_null(members);
	assert_int_equal(a->status, status);
	assert_string_equal(have, want);
	free(have);
	free(want);
	json_decref(members);
	answer_free(a);
}

/* --- /health ------------------------------------------------------------------------------ */

static const struct {
	enum child_state state;
	enum readiness_state readiness;
	uint32_t n_failed;
	bool is_leaving;
	unsigned status;
	const char *name;
	bool is_running;
} lives[] = {
	{ CHILD_STOPPED, READINESS_IDLE, 0, false, 503, "stopped", false },
	{ CHILD_CLAIMING, READINESS_IDLE, 0, false, 503, "claiming", false },
	{ CHILD_STARTING, READINESS_IDLE, 0, false, 503, "starting", true },
	{ CHILD_STARTING, READINESS_TRYING, 0, false, 503, "starting", true },
	{ CHILD_READY, READINESS_SERVING, 0, false, 200, "ready", true },
	{ CHILD_READY, READINESS_SERVING, 1, false, 200, "ready", true },
	{ CHILD_READY, READINESS_SERVING, 2, false, 503, "unresponsive", true },
	{ CHILD_READY, READINESS_SERVING, 0, true, 503, "stopping", true },
	{ CHILD_DRAINING, READINESS_SERVING, 0, false, 503, "draining", true },
	{ CHILD_STOPPING, READINESS_IDLE, 0, false, 503, "stopping", true },
	{ CHILD_KILLING, READINESS_IDLE, 0, false, 503, "killing", true },
	{ CHILD_BACKOFF, READINESS_IDLE, 0, false, 503, "backoff", false },
	{ CHILD_FAILED, READINESS_IDLE, 0, false, 503, "failed", false },
};

static void set_life(struct scene *s, size_t i) {
	s->keeper.child.state = lives[i].state;
	s->readiness.state = lives[i].readiness;
	s->readiness.n_failed = lives[i].n_failed;
	s->readiness.port = PORT;
	s->routes.is_leaving = lives[i].is_leaving;
}

static json_t *engine_port(size_t i) {
	return lives[i].readiness == READINESS_IDLE ? json_null() : json_integer(PORT);
}

static void health_in_every_state(void **state) {
	bool is_seen[CHILD_N_STATES] = { false };
	struct scene *s = scene_open("");
	for (size_t i = 0; i < n_elems(lives); i++) {
		set_life(s, i);
		is_seen[lives[i].state] = true;
		s->keeper.child.n_spawned = i;
		struct answer a = answer_to(s, "GET /health");
		json_t *timestamp = json_object_get(a.json, "timestamp");
		assert_true(json_integer_value(timestamp) > 1700000000);
		assert_int_equal(babysitter_routes_is_serving(&s->routes), lives[i].status == 200);
		assert_members(&a, lives[i].status,
		    json_pack("{s:s, s:s, s:s, s:b, s:o, s:O, s:s, s:i}", "status",
			lives[i].status == 200 ? "healthy" : "unhealthy", "service", "eng", "babysitter",
			"enhanced", "infinilm_server_running", lives[i].is_running, "infinilm_server_port",
			engine_port(i), "timestamp", timestamp, "state", lives[i].name, "restart_count",
			i ? (int)i - 1 : 0));
	}
	for (unsigned i = 0; i < CHILD_N_STATES; i++)
		assert_true(is_seen[i]);
	scene_close(s);
}

static void health_says_why(void **state) {
	static const char *const texts[CHILD_N_CAUSES] = {
		[CHILD_C_TOLD] = "told to stop",
		[CHILD_C_EXITED] = "ended by itself",
		[CHILD_C_START_LATE] = "not ready in time",
		[CHILD_C_UNRESPONSIVE] = "did not answer",
		[CHILD_C_NOT_SPAWNED] = "could not be started",
		[CHILD_C_REFUSED] = "another babysitter has it",
	};
	struct scene *s = scene_open("");
	for (unsigned i = 0; i < CHILD_N_CAUSES; i++) {
		s->keeper.child.cause = i;
		struct answer a = answer_to(s, "GET /health");
		const char *cause = json_string_value(json_object_get(a.json, "cause"));
		assert_int_equal(!cause, !texts[i]);
		if (cause)
			assert_string_equal(cause, texts[i]);
		answer_free(&a);
	}
	scene_close(s);
}

/* --- /info -------------------------------------------------------------------------------- */

static void info_whatever_the_engine_does(void **state) {
	struct scene *s = scene_open("");
	s->config.backend.type = BACKEND_VLLM;
	s->keeper.child.n_spawned = 3;
	for (size_t i = 0; i < n_elems(lives); i++) {
		set_life(s, i);
		struct answer a = answer_to(s, "GET /info");
		json_t *uptime = json_object_get(a.json, "uptime");
		assert_true(json_is_integer(uptime) && json_integer_value(uptime) >= UPTIME_S);
		assert_members(&a, 200,
		    json_pack("{s:s, s:s, s:i, s:s, s:s, s:o, s:O, s:i, s:s}", "name", "eng", "host",
			"localhost", "port", PORT + 1, "url", "http://localhost:8101", "service_type", "vLLM",
			"infinilm_server_port", engine_port(i), "uptime", uptime, "restart_count", 2, "state",
			lives[i].name));
	}
	scene_close(s);
}

static void info_has_the_address_that_is_registered(void **state) {
	static const char *const rows[][2] = {
		{ "10.0.0.5", "http://10.0.0.5:8101" },
		{ "fe80::1", "http://[fe80::1]:8101" },
	};
	struct scene *s = scene_open("");
	for (size_t i = 0; i < n_elems(rows); i++) {
		s->routes.host = rows[i][0];
		struct answer a = answer_to(s, "GET /info");
		assert_string_equal(json_string_value(json_object_get(a.json, "host")), rows[i][0]);
		assert_string_equal(json_string_value(json_object_get(a.json, "url")), rows[i][1]);
		answer_free(&a);
	}
	scene_close(s);
}

/* --- /models ------------------------------------------------------------------------------ */

/* An error of ours; the answer ends here. */
static void assert_error(struct answer *a, unsigned status, const char *code, const char *text) {
	assert_int_equal(answer_has(a, "\r\nretry-after: 1\r\n"), status == 503);
	assert_members(a, status, json_pack("{s:s, s:s}", "error", text, "code", code));
}

static void no_models_while_it_does_not_serve(void **state) {
	struct scene *s = scene_open("");
	for (size_t i = 0; i < n_elems(lives); i++) {
		set_life(s, i);
		if (lives[i].state == CHILD_READY)
			continue;
		struct answer a = answer_to(s, "GET /models");
		assert_error(&a, 503, "no_healthy_instance", "InfiniLM server not ready");
	}
	assert_int_equal(engine.n_asked, 0);
	scene_close(s);
}

#define LIST "{\"data\":[{\"id\":\"a\"}]}"

/* What the engine answers to /models and /v1/models, and what comes of it. */
static void models_are_the_engines(void **state) {
	static const struct {
		int outcome, later_outcome;
		unsigned status, later_status; /* 0: not asked */
		const char *body;
		unsigned answer;
	} rows[] = {
		{ 0, 0, 200, 0, LIST, 200 },
		{ 0, 0, 404, 200, LIST, 200 },
		{ 0, 0, 500, 200, "[]", 200 },
		{ 0, 0, 200, 0, "not JSON", 500 },
		{ 0, 0, 200, 0, "", 500 },
		{ 0, 0, 404, 200, "{", 500 },
		{ 0, 0, 404, 404, LIST, 503 },
		{ 0, 0, 404, 302, LIST, 503 },
		{ 0, FETCH_E_BROKEN, 404, 0, "", 503 },
		{ FETCH_E_TIMEOUT, 0, 0, 0, "", 503 },
		{ FETCH_E_CONNECT, 0, 0, 0, "", 503 },
		{ FETCH_E_TOO_LARGE, 0, 0, 0, "", 503 },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open("");
		bool is_second = rows[i].later_status || rows[i].later_outcome;
		engine_serves(s);
		int fd = ask(s, "GET /models", "");
		rig_until(&s->rig, engine.flying);
		assert_string_equal(engine.asked[0], "/models with key");
		engine_answer(rows[i].outcome, rows[i].status, rows[i].body);
		assert_int_equal(engine.n_asked, 1 + is_second);
		if (is_second) {
			assert_string_equal(engine.asked[1], "/v1/models with key");
			engine_answer(rows[i].later_outcome, rows[i].later_status, rows[i].body);
		}
		struct answer a = hear(s, fd);
		if (rows[i].answer == 200)
			assert_members(&a, 200, json_loads(rows[i].body, 0, NULL));
		else if (rows[i].answer == 500)
			assert_error(&a, 500, "upstream_failed", "Internal server error");
		else
			assert_error(&a, 503, "no_healthy_instance", "Service unavailable");
		scene_close(s);
	}
}

static void who_waits_for_models_is_answered_when_the_engine_ends(void **state) {
	struct scene *s = scene_open("");
	engine_serves(s);
	int fd = ask(s, "GET /models", "");
	rig_until(&s->rig, engine.flying);
	babysitter_routes_forget(&s->routes);
	struct answer a = hear(s, fd);
	assert_error(&a, 503, "no_healthy_instance", "Service unavailable");
	scene_close(s);
}

static void who_leaves_waits_for_no_models(void **state) {
	struct scene *s = scene_open("");
	engine_serves(s);
	int fd = ask(s, "GET /models", "");
	rig_until(&s->rig, engine.flying);
	rig_reset(fd);
	rig_until(&s->rig, !engine.flying);
	scene_close(s);
}

/* --- /drain ------------------------------------------------------------------------------- */

static void a_drain_is_handed_on(void **state) {
	struct scene *s = scene_open("");
	struct answer a = answer_to(s, "GET /drain");
	assert_int_equal(a.status, 405);
	answer_free(&a);
	assert_int_equal(s->n_drains, 0);
	engine_serves(s);
	for (unsigned i = 1; i < 3; i++) {
		a = answer_to(s, "POST /drain");
		assert_members(&a, 202, json_pack("{s:s, s:s}", "status", "draining", "state", "draining"));
		assert_int_equal(s->n_drains, i);
	}
	scene_close(s);
}

static void a_drain_needs_the_token(void **state) {
	static const struct {
		const char *fields;
		unsigned status;
	} rows[] = {
		{ "", 401 },
		{ "Authorization: Bearer wrong\r\n", 401 },
		{ "Authorization: Bearer t0k3n\r\n", 202 },
	};
	struct scene *s = scene_open("t0k3n");
	engine_serves(s);
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct answer a = hear(s, ask(s, "POST /drain", rows[i].fields));
		assert_int_equal(a.status, rows[i].status);
		assert_int_equal(s->n_drains, rows[i].status == 202);
		answer_free(&a);
	}
	struct answer a = answer_to(s, "GET /health"); /* changes nothing, needs none */
	assert_int_equal(a.status, 503);
	answer_free(&a);
	scene_close(s);
}

/* --- /metrics ----------------------------------------------------------------------------- */

static void metrics_in_every_state(void **state) {
	struct scene *s = scene_open("");
	for (size_t i = 0; i < n_elems(lives); i++) {
		char line[80];
		set_life(s, i);
		struct answer a = answer_to(s, "GET /metrics");
		assert_int_equal(a.status, 200);
		for (unsigned j = 0; j < CHILD_N_STATES; j++) {
			snprintf(line, sizeof(line), "\nheadrace_babysitter_state{state=\"%s\"} %u\n",
			    child_state_name(j), j == lives[i].state);
			assert_true(answer_has(&a, line));
		}
		snprintf(line, sizeof(line), "\nheadrace_babysitter_serving %u\n", lives[i].status == 200);
		assert_true(answer_has(&a, line));
		assert_false(answer_has(&a, "headrace_babysitter_registered"));
		answer_free(&a);
	}
	scene_close(s);
}

static void metrics_of_the_records(void **state) {
	struct scene *s = scene_open("");
	registrar_init(&s->registrar, &s->rig.loop, &engine, "eng", SLICE(""), 1000, NULL);
	s->routes.registrar = &s->registrar;
	s->registrar.records[REGISTRAR_SERVER].state = REGISTRAR_PRESENT;
	s->registrar.records[REGISTRAR_OWN].n_heartbeats = 7;
	struct answer a = answer_to(s, "GET /metrics");
	assert_true(answer_has(&a, "\nheadrace_babysitter_registered{record=\"own\"} 0\n"));
	assert_true(answer_has(&a, "\nheadrace_babysitter_registered{record=\"server\"} 1\n"));
	assert_true(answer_has(&a, "\nheadrace_babysitter_heartbeats_total{record=\"own\"} 7\n"));
	answer_free(&a);
	registrar_deinit(&s->registrar);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(health_in_every_state),
		cmocka_unit_test(health_says_why),
		cmocka_unit_test(info_whatever_the_engine_does),
		cmocka_unit_test(info_has_the_address_that_is_registered),
		cmocka_unit_test(no_models_while_it_does_not_serve),
		cmocka_unit_test(models_are_the_engines),
		cmocka_unit_test(who_waits_for_models_is_answered_when_the_engine_ends),
		cmocka_unit_test(who_leaves_waits_for_no_models),
		cmocka_unit_test(a_drain_is_handed_on),
		cmocka_unit_test(a_drain_needs_the_token),
		cmocka_unit_test(metrics_in_every_state),
		cmocka_unit_test(metrics_of_the_records),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
