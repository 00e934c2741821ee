/* News of the fleet: the first go out at once, what follows within CONTROL_PUBLISH_MS shares a snapshot. */
#include "unit/unit.h"

#include "base/clock.h"
#include "router/control_fleet.c"

struct scene {
	struct control control;
	uint64_t first; /* version of the snapshot that there was */
};

static uint64_t now_ns;

static uint64_t scene_clock(void) {
	return now_ns;
}

static struct scene *scene_open(void) {
	static const struct health_options options = {
		.interval_ms = 1000, .timeout_ms = 1000, .api_key = ""
	};
	static const struct watch_intervals every = {
		.models_ms = 60000, .models_timeout_ms = 1000, .resolve_ms = 60000
	};
	static struct router_config config;
	struct scene *s = calloc(1, sizeof(*s));
	struct control *c = &s->control;
	c->config = &config;
	c->router.settings = settings_new(&config, 1, NULL);
	now_ns = 1000000000;
	clock_set_source(scene_clock);
	c->router.budget.max_bytes = 1u << 20;
	c->fleet = fleet_new();
	timer_init(&c->publish, control_on_publish);
	assert_int_equal(loop_init(&c->loop, &c->router.budget), 0);
	c->snapshot = fleet_build(c->fleet);
	s->first = c->snapshot->version;
	control_open_gate(c);
	health_init(
	    &c->health, &c->loop, c->fleet, &options, control_evidence, &c->router, control_on_health);
	watcher_init(&c->watcher, &c->loop, c->fleet, &every, control_on_watch);
	kv_engines_init(&c->kv_engines, &c->loop, c->fleet, "nixl", control_on_kv_engines);
	control_open_recruits(c);
	c->is_started = true;
	return s;
}

static void scene_close(struct scene *s) {
	struct control *c = &s->control;
	timer_stop(&c->publish);
	control_close_recruits(c);
	kv_engines_deinit(&c->kv_engines);
	watcher_deinit(&c->watcher);
	health_deinit(&c->health);
	control_close_gate(c);
	settings_unref(&c->router.settings);
	loop_deinit(&c->loop);
	snapshot_unref(&c->snapshot);
	fleet_free(&c->fleet);
	clock_set_source(NULL);
	free(s);
}

static void pass(struct scene *s, uint64_t ms) {
	now_ns += ms * 1000000u;
	for (unsigned i = 0; i < 3; i++)
		uv_run(&s->control.loop.uv, UV_RUN_NOWAIT);
}

/* Another engine, with its models and address known, so that nothing is asked. */
static void news(struct scene *s) {
	static unsigned n;
	const struct pair model = { .key = SLICE("m") };
	char name[16];
	snprintf(name, sizeof(name), "n%u", n++);
	struct fleet_spec spec = { .instance = { .name = slice_of(name),
				       .url = SLICE("http://127.0.0.1:1"),
				       .authority = SLICE("127.0.0.1:1"),
				       .host = SLICE("127.0.0.1"),
				       .port = 1 },
		.weight = 1,
		.models = { &model, 1 } };
	assert_int_equal(fleet_upsert(s->control.fleet, SOURCE_STATIC, &spec), 0);
	control_publish(&s->control);
}

static uint64_t n_published(const struct scene *s) {
	return s->control.snapshot->version - s->first;
}

static void the_first_news_go_out_at_once(void **state) {
	struct scene *s = scene_open();
	news(s);
	assert_int_equal(n_published(s), 1);
	assert_int_equal(s->control.snapshot->n_rows, 1);
	pass(s, CONTROL_PUBLISH_MS); /* its address is news, too */
	pass(s, CONTROL_PUBLISH_MS);
	uint64_t n = n_published(s);
	news(s); /* after a pause, too */
	assert_int_equal(n_published(s), n + 1);
	scene_close(s);
}

static void what_follows_shares_a_snapshot(void **state) {
	struct scene *s = scene_open();
	news(s);
	for (unsigned i = 0; i < 50; i++)
		news(s);
	pass(s, CONTROL_PUBLISH_MS - 1);
	news(s);
	assert_int_equal(n_published(s), 1);
	pass(s, 1);
	assert_int_equal(n_published(s), 2);
	assert_int_equal(s->control.snapshot->n_rows, 52);
	scene_close(s);
}

static void a_steady_flow_is_published_in_steps(void **state) {
	struct scene *s = scene_open();
	for (unsigned ms = 0; ms < 10 * CONTROL_PUBLISH_MS; ms++) {
		news(s);
		pass(s, 1);
	}
	assert_in_range(n_published(s), 10, 11);
	scene_close(s);
}

static void nothing_new_is_no_snapshot(void **state) {
	struct scene *s = scene_open();
	news(s);
	pass(s, 10 * CONTROL_PUBLISH_MS);
	uint64_t n = n_published(s); /* that its address is known was news */
	control_publish(&s->control);
	pass(s, 10 * CONTROL_PUBLISH_MS);
	assert_int_equal(n_published(s), n);
	scene_close(s);
}

static void nothing_goes_out_before_the_workers_are_there(void **state) {
	struct scene *s = scene_open();
	s->control.is_started = false;
	news(s);
	pass(s, 10 * CONTROL_PUBLISH_MS);
	assert_int_equal(n_published(s), 0);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_news_go_out_at_once),
		cmocka_unit_test(what_follows_shares_a_snapshot),
		cmocka_unit_test(a_steady_flow_is_published_in_steps),
		cmocka_unit_test(nothing_new_is_no_snapshot),
		cmocka_unit_test(nothing_goes_out_before_the_workers_are_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
