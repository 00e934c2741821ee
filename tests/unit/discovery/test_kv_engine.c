#include "unit/discovery/far_engine.h"

#include "discovery/kv_engine.h"

enum { MINUTE_MS = 60000 };

/* Prefill engines at the addresses that a test gives them; one bootstrap server, the far engine. */
struct scene {
	struct rig rig;
	struct far_engine far;
	char port[8];
	struct fleet *fleet;
	struct snapshot *snapshot;
	struct kv_engines engines;
};

static void scene_sync(struct scene *s) {
	struct snapshot *next = fleet_build(s->fleet);

	if (!next)
		return;
	snapshot_unref(&s->snapshot);
	s->snapshot = next;
	kv_engines_sync(&s->engines, next);
}

static void on_change(struct kv_engines *k) {
	scene_sync(container_of(k, struct scene, engines));
}

static struct scene *scene_open_of(const char *connector) {
	struct scene *s = calloc(1, sizeof(*s));
	const struct sockaddr_in *at = (const struct sockaddr_in *)&s->far.address;

	far_clock_start();
	rig_open(&s->rig);
	far_open(&s->far);
	snprintf(s->port, sizeof(s->port), "%u", ntohs(at->sin_port));
	s->fleet = fleet_new();
	kv_engines_init(&s->engines, &s->rig.loop, s->fleet, connector, on_change);
	return s;
}

/* An instance that nobody knows an address of. */
static void scene_add(struct scene *s, const char *name, uint16_t rank, struct pairs labels) {
	const struct fleet_spec spec = { .instance = { .name = slice_of(name),
					     .url = SLICE("http://e:8000"),
					     .authority = SLICE("e:8000"),
					     .host = SLICE("e"),
					     .port = 8000,
					     .rank = rank },
		.weight = INSTANCE_WEIGHT_ONE,
		.labels = labels };

	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
	scene_sync(s);
}

static struct instance *first(const struct scene *s) {
	return s->snapshot->rows[0].instance;
}

/* Its engine listens elsewhere: at the bootstrap port alone somebody answers. */
static void resolve(struct scene *s) {
	struct sockaddr_storage address = rig_loopback(1);

	fleet_set_addresses(s->fleet, first(s), &address, 1);
	scene_sync(s);
}

/* One prefill engine of Mooncake's connector. */
static struct scene *scene_open(uint16_t rank) {
	struct scene *s = scene_open_of("nixl");
	struct pair labels[] = { { SLICE("role"), SLICE("prefill") },
		{ SLICE("kv_connector"), SLICE("mooncake") },
		{ SLICE("bootstrap_port"), slice_of(s->port) } };

	scene_add(s, "e", rank, (struct pairs){ labels, 3 });
	resolve(s);
	return s;
}

static void scene_close(struct scene *s) {
	kv_engines_deinit(&s->engines);
	rig_close(&s->rig);
	far_close(&s->far);
	snapshot_unref(&s->snapshot);
	fleet_free(&s->fleet);
	clock_set_source(NULL);
	free(s);
}

static void say(struct scene *s, const char *body) {
	char text[1024];

	snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body);
	far_answer(&s->rig, &s->far, "/query", slice_of(text));
}

static uint64_t now_ms(void) {
	return far_now_ns / 1000000;
}

/* How long it takes until it is asked; the question is answered. */
static uint64_t asked_after_ms(struct scene *s, const char *body) {
	uint64_t since_ms = now_ms();

	say(s, body);
	return now_ms() - since_ms;
}

static const char *name_of(const struct scene *s) {
	return s->snapshot->rows[0].kv_engine.p;
}

static bool is_asked(struct scene *s) {
	int fd = far_accept(&s->far);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

#define ENGINES "{\"0\":{\"engine_id\":\"zero\",\"worker_addr\":{}},\"2\":{\"engine_id\":\"two\"}}"

static void the_engine_of_a_rank_is_named(void **state) {
	static const struct {
		uint16_t rank;
		const char *body, *name;
	} rows[] = { { 0, ENGINES, "zero" }, { 2, ENGINES, "two" }, { 1, ENGINES, "zero" },
		{ 0, "{\"0\":7,\"5\":{\"engine_id\":\"five\"}}", "five" } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open(rows[i].rank);

		assert_in_range(asked_after_ms(s, rows[i].body), 0, 500);
		assert_string_equal(name_of(s), rows[i].name);
		scene_close(s);
	}
}

static void the_question_names_the_bootstrap_server(void **state) {
	struct scene *s = scene_open(0);
	struct heard heard;
	char host[32];
	int fd = far_hear(&s->rig, &s->far, &heard);

	snprintf(host, sizeof(host), "\r\nhost: e:%s\r\n", s->port);
	assert_non_null(memmem(heard.p, heard.n, host, strlen(host)));
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

static void who_does_not_say_it_is_asked_less_and_less_often(void **state) {
	static const char *const bodies[] = { "", "[]", "{}", "{\"0\":{}}", "{\"0\":{\"engine_id\":7}}",
		"{\"0\":{\"engine_id\":\"\"}}", "{\"0\":{\"engine_id\":\"a\\nb\"}}" };
	static const uint64_t waits_ms[] = { 0, 1000, 2000, 4000, 8000, 10000, 10000 };
	struct scene *s = scene_open(0);

	for (size_t i = 0; i < n_elems(bodies); i++) {
		assert_in_range(asked_after_ms(s, bodies[i]), waits_ms[i], waits_ms[i] + 500);
		assert_string_equal(name_of(s), "");
	}
	assert_in_range(asked_after_ms(s, ENGINES), 10000, 10500);
	assert_string_equal(name_of(s), "zero");
	/* Then once a minute; what fails leaves it as it is, and is tried again soon. */
	assert_in_range(asked_after_ms(s, "{}"), MINUTE_MS, MINUTE_MS + 500);
	assert_string_equal(name_of(s), "zero");
	assert_in_range(asked_after_ms(s, "{\"0\":{\"engine_id\":\"other\"}}"), 1000, 1500);
	assert_string_equal(name_of(s), "other");
	scene_close(s);
}

static void a_restart_makes_the_name_void(void **state) {
	struct scene *s = scene_open(0);

	say(s, ENGINES);
	atomic_fetch_add(&first(s)->learned.n_restarts, 1);
	far_until(&s->rig, !name_of(s)[0]);
	assert_in_range(asked_after_ms(s, "{\"0\":{\"engine_id\":\"new\"}}"), 0, 500);
	assert_string_equal(name_of(s), "new");
	scene_close(s);
}

static void who_is_in_doubt_is_asked_again(void **state) {
	struct scene *s = scene_open(0);

	say(s, ENGINES);
	far_pass(&s->rig, 5000);
	for (unsigned i = 0; i < 2; i++) {
		atomic_fetch_add(&first(s)->learned.n_doubts, 1);
		assert_string_not_equal(name_of(s), "");
		assert_in_range(asked_after_ms(s, "{\"0\":{\"engine_id\":\"new\"}}"), i * 900, i * 900 + 500);
		assert_string_equal(name_of(s), "new");
	}
	assert_int_equal(first(s)->learned.n_restarts, 1); /* which nobody else had seen */
	assert_false(is_asked(s));
	scene_close(s);
}

static void who_was_unhealthy_is_asked_when_it_is_back(void **state) {
	struct scene *s = scene_open(0);

	say(s, ENGINES);
	fleet_set_state(s->fleet, first(s), INSTANCE_UNHEALTHY);
	scene_sync(s);
	far_pass(&s->rig, 5000);
	assert_false(is_asked(s));
	assert_string_equal(name_of(s), "");
	fleet_set_state(s->fleet, first(s), INSTANCE_READY);
	scene_sync(s);
	assert_in_range(asked_after_ms(s, "{\"0\":{\"engine_id\":\"new\"}}"), 0, 500);
	assert_string_equal(name_of(s), "new");
	scene_close(s);
}

static void prefill_engines_of_mooncake_alone_are_asked(void **state) {
	static const struct {
		const char *connector, *role, *label;
		bool is_asked;
	} rows[] = { { "mooncake", "prefill", NULL, true }, { "nixl", "prefill", "mooncake", true },
		{ "mooncake", "prefill", "nixl", false }, { "nixl", "prefill", NULL, false },
		{ "mooncake", "decode", NULL, false }, { "mooncake", "unified", "mooncake", false } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open_of(rows[i].connector);
		struct pair labels[] = { { SLICE("bootstrap_port"), slice_of(s->port) },
			{ SLICE("role"), slice_of(rows[i].role) },
			{ SLICE("kv_connector"), slice_of(rows[i].label) } };

		scene_add(s, "e", 0, (struct pairs){ labels, rows[i].label ? 3 : 2 });
		resolve(s);
		far_pass(&s->rig, 500);
		assert_int_equal(is_asked(s), rows[i].is_asked);
		scene_close(s);
	}
}

static void who_leaves_is_let_go(void **state) {
	struct scene *s = scene_open(0);

	far_until(&s->rig, is_asked(s)); /* without an answer */
	assert_int_equal(fleet_remove(s->fleet, SOURCE_STATIC, SLICE("e")), 0);
	scene_sync(s);
	far_pass(&s->rig, 2 * MINUTE_MS);
	assert_false(is_asked(s));
	assert_false(timer_is_running(&s->engines.tick));
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_engine_of_a_rank_is_named),
		cmocka_unit_test(the_question_names_the_bootstrap_server),
		cmocka_unit_test(who_does_not_say_it_is_asked_less_and_less_often),
		cmocka_unit_test(a_restart_makes_the_name_void),
		cmocka_unit_test(who_is_in_doubt_is_asked_again),
		cmocka_unit_test(who_was_unhealthy_is_asked_when_it_is_back),
		cmocka_unit_test(prefill_engines_of_mooncake_alone_are_asked),
		cmocka_unit_test(who_leaves_is_let_go),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
