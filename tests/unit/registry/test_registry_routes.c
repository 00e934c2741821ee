/*
 * The registry's endpoints over a store, a roster and a prober, without the program around
 * them: time is the test's, the wall clock is, and so is the disk.
 */
#include "unit/registry/disk.h"
#include "unit/registry/shelf.h"
#include "unit/registry/still_time.h"

#include <poll.h>

#include "net/route.h"
#include "registry/registry_change.h"
#include "registry/registry_routes.h"

enum { TTL_MS = 120000, HEALTH_INTERVAL_MS = 30000, DAY_MS = 86400000 };

/* --- the wall clock ----------------------------------------------------------------------------- */

static uint64_t wall_ms;
static unsigned n_jumps;

static uint64_t wall_clock(void) {
	return wall_ms;
}

/* A day or a second to and fro, again and again. */
static void wall_jump(void) {
	static const int64_t jumps[] = { DAY_MS, -DAY_MS, -DAY_MS, DAY_MS, 1000, -1000, -1000, 1000 };
	wall_ms = (uint64_t)((int64_t)wall_ms + jumps[n_jumps++ % n_elems(jumps)]);
}

/* --- a registry ---------------------------------------------------------------------------------- */

struct scene {
	struct shelf shelf;
	struct registry_config config;
	struct registry_core core;
	struct registry_routes routes;
	struct prober prober;
	struct watchers watchers;
	uint16_t port, engine_port;
	int engine; /* where probes arrive */
	unsigned n_probes;
	uint64_t opened_ms;
};

static void on_probed(struct prober *p, struct slice name, bool is_healthy) {
	registry_core_set_health(&container_of(p, struct scene, prober)->core, name, is_healthy);
}

static bool may_ask(struct prober *p, const struct sockaddr_storage *address) {
	return true;
}

static bool each_restored(void *context, struct slice name, struct slice json) {
	struct record *record = record_new_stored(json, clock_wall_ms());
	roster_restore(context, record, still_now_ms());
	return record;
}

/* From what is in the folder. */
static void scene_begin(struct scene *s) {
	struct rig *rig = &s->shelf.rig;
	struct roster *roster = roster_new(
	    &(struct roster_options){ .epoch = "0123456789abcdef", .ttl_ms = TTL_MS }, still_now_ms());
	const struct roster_entry *e = NULL;

	shelf_open(&s->shelf, false, each_restored, roster);
	watchers_init(&s->watchers, &rig->loop, roster);
	prober_init(&s->prober, &rig->loop, HEALTH_INTERVAL_MS, 5000, on_probed, may_ask);
	s->config = (struct registry_config){
		.host = "127.0.0.1", .token = "", .body_limit_bytes = 1 << 20, .n_records_max = 100
	};
	s->core = (struct registry_core){ .loop = &rig->loop,
		.config = &s->config,
		.roster = roster,
		.store = s->shelf.store,
		.prober = &s->prober,
		.watchers = &s->watchers };
	s->routes = (struct registry_routes){ .core = &s->core };
	while ((e = roster_next(roster, e, NULL)))
		registry_core_probe(&s->core, e->record);
	assert_int_equal(registry_routes_open(&s->routes, rig_listen(&s->port)), 0);
	s->opened_ms = still_now_ms();
}

static void scene_end(struct scene *s) {
	store_close(s->shelf.store);
	prober_deinit(&s->prober);
	watchers_close(&s->watchers);
	registry_routes_close(&s->routes);
	rig_spin(&s->shelf.rig, 5);
	rig_close(&s->shelf.rig);
	registry_routes_deinit(&s->routes);
	watchers_deinit(&s->watchers);
	store_free(&s->shelf.store);
	roster_free(&s->core.roster);
}

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));

	still_now_ns = 1000000000;
	clock_set_source(still_clock);
	wall_ms = 1700000000000;
	clock_set_wall_source(wall_clock);
	shelf_dir(&s->shelf, quick_base());
	s->engine = rig_listen(&s->engine_port);
	scene_begin(s);
	return s;
}

static void scene_close(struct scene *s) {
	scene_end(s);
	close(s->engine);
	dir_remove(s->shelf.dir);
	clock_set_wall_source(NULL);
	clock_set_source(NULL);
	free(s);
}

/* --- what is asked, and what time does ------------------------------------------------------------- */

/* A request whose answer is waited for later. */
static int begin(struct scene *s, const char *method, const char *path, const char *body) {
	char request[1024];
	int fd = rig_connect(s->port);
	int n = snprintf(request, sizeof(request),
	    "%s %s HTTP/1.1\r\nhost: r\r\nconnection: close\r\ncontent-length: %zu\r\n\r\n%s", method, path,
	    strlen(body), body);

	rig_say(fd, (struct slice){ request, (size_t)n });
	return fd;
}

/* The answer, valid until the next one. */
static const char *finish(struct scene *s, int fd) {
	static struct heard h;

	heard_free(&h);
	rig_until(&s->shelf.rig, (rig_hear(fd, &h, SIZE_MAX), h.is_ended));
	close(fd);
	h.p = realloc(h.p, h.n + 1);
	h.p[h.n] = '\0';
	return h.p;
}

/* The answer, valid until the next one. */
static const char *ask(struct scene *s, const char *method, const char *path, const char *body) {
	return finish(s, begin(s, method, path, body));
}

static unsigned status_of(const char *answer) {
	return (unsigned)strtoul(answer + strlen("HTTP/1.1 "), NULL, 10);
}

static unsigned put(struct scene *s, const char *name, unsigned ttl_s) {
	char body[512], ttl[32] = "";

	if (ttl_s)
		snprintf(ttl, sizeof(ttl), ",\"ttl\":%u", ttl_s);
	snprintf(body, sizeof(body),
	    "{\"name\":\"%s\",\"host\":\"127.0.0.1\",\"port\":1,\"hostname\":\"h\",\"url\":\"http://"
	    "127.0.0.1:%u\",\"status\":\"running\"%s}",
	    name, s->engine_port, ttl);
	return status_of(ask(s, "POST", "/services", body));
}

static bool is_alive(struct scene *s, const char *name) {
	char path[64];

	snprintf(path, sizeof(path), "/services/%s", name);
	const char *answer = ask(s, "GET", path, "");
	assert_int_equal(status_of(answer), 200);
	return strstr(answer, "\"is_healthy\":true");
}

/* Probes are good, a connection each. */
static void answer_probes(struct scene *s) {
	static const char ok[] = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
	struct pollfd ready = { .fd = s->engine, .events = POLLIN };

	while (poll(&ready, 1, 0) == 1) {
		int fd = accept4(s->engine, NULL, NULL, SOCK_CLOEXEC);
		rig_say(fd, (struct slice){ ok, sizeof(ok) - 1 });
		s->n_probes++;
		rig_spin(&s->shelf.rig, 5);
		close(fd);
	}
}

/* As the program does it, while the wall clock goes mad. */
static void pass(struct scene *s, uint64_t ms) {
	for (uint64_t passed = 0; passed < ms; passed += STILL_STEP_MS) {
		wall_ms += STILL_STEP_MS;
		wall_jump();
		still_pass(&s->shelf.rig, STILL_STEP_MS);
		answer_probes(s);
		registry_core_tick(&s->core);
	}
}

/* No duration in an answer knows of the wall clock. */
static void assert_durations(struct scene *s) {
	char uptime[64];

	snprintf(uptime, sizeof(uptime), "\"uptime\":%llu,",
	    (unsigned long long)((still_now_ms() - s->opened_ms) / 1000));
	const char *answer = ask(s, "GET", "/stats", "");
	if (!strstr(answer, uptime))
		fail_msg("no %s in %s", uptime, answer);
	answer = ask(s, "GET", "/metrics", "");
	if (strstr(answer, " -"))
		fail_msg("something negative in %s", answer);
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void jumps_of_the_wall_clock_end_no_lease_and_no_wait(void **state) {
	struct scene *s = scene_open();

	assert_int_equal(put(s, "a", 0), 201);
	wall_jump();
	assert_int_equal(put(s, "b", 10), 201);
	pass(s, 9950);
	assert_true(is_alive(s, "b"));
	pass(s, 50);
	assert_false(is_alive(s, "b"));
	wall_jump();
	assert_int_equal(status_of(ask(s, "POST", "/services/b/heartbeat", "")), 200);
	assert_true(is_alive(s, "b"));
	pass(s, TTL_MS - 10000 - 50);
	assert_true(is_alive(s, "a"));
	assert_durations(s);
	/* In two minutes, each by chance a tenth more or less apart, the first within half a minute: */
	assert_in_range(s->n_probes, 2 * 3, 2 * 5);
	pass(s, 50);
	assert_false(is_alive(s, "a"));
	registry_change_sweep(&s->core);
	assert_false(is_alive(s, "a")); /* it is still there */
	pass(s, 180000 + 50);
	registry_change_sweep(&s->core);
	rig_until(&s->shelf.rig, s->core.n_writing == 0);
	assert_int_equal(status_of(ask(s, "GET", "/services/a", "")), 404);
	assert_int_equal(status_of(ask(s, "GET", "/services/b", "")), 200);
	assert_durations(s);
	scene_close(s);
}

static void a_restart_in_another_year_gives_full_leases(void **state) {
	struct scene *s = scene_open();

	for (int years = -1; years < 2; years += 2) {
		assert_int_equal(put(s, "a", 0), 201);
		scene_end(s);
		wall_ms = (uint64_t)((int64_t)wall_ms + (int64_t)years * 365 * DAY_MS);
		scene_begin(s);
		assert_true(is_alive(s, "a"));
		assert_durations(s);
		pass(s, TTL_MS - 50);
		assert_true(is_alive(s, "a"));
		pass(s, TTL_MS / 2 + 50); /* up to half of it was added */
		assert_false(is_alive(s, "a"));
		assert_durations(s);
	}
	scene_close(s);
}

static void a_disk_that_turns_read_only_refuses_changes_and_nothing_else(void **state) {
	struct scene *s = scene_open();

	assert_int_equal(put(s, "a", 0), 201);
	disk.is_read_only = true;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(put(s, "b", 0), 503);
		assert_non_null(strstr(ask(s, "PUT", "/services/a", "{\"port\":2}"), "\"overloaded\""));
		assert_int_equal(status_of(ask(s, "DELETE", "/services/a", "")), 503);
		assert_int_equal(
		    status_of(ask(s, "POST", "/services/a/heartbeat", "{\"status\":\"stopping\"}")), 503);
		assert_int_equal(status_of(ask(s, "POST", "/services/a/heartbeat", "")), 200);
		assert_int_equal(status_of(ask(s, "GET", "/services/b", "")), 404);
		assert_non_null(strstr(ask(s, "GET", "/services", ""), "\"total\":1"));
		pass(s, TTL_MS - 50);
		assert_true(is_alive(s, "a"));
	}
	disk.is_read_only = false;
	assert_int_equal(put(s, "b", 0), 201);
	scene_end(s);
	scene_begin(s);
	assert_true(is_alive(s, "a") && is_alive(s, "b"));
	scene_close(s);
}

/* While the store takes "a" out it is heard again, and then somebody changes it. */
static void sweep_and_change(struct scene *s, const char *method, const char *body) {
	assert_int_equal(put(s, "a", 0), 201);
	pass(s, 300000 + 50);
	pthread_mutex_lock(&disk.mutex); /* nothing is written */
	registry_change_sweep(&s->core);
	assert_int_equal(status_of(ask(s, "POST", "/services/a/heartbeat", "")), 200);
	assert_int_equal(s->core.n_writing, 1);
	int fd = begin(s, method, "/services/a", body);
	rig_until(&s->shelf.rig, s->core.n_writing == 2);
	pthread_mutex_unlock(&disk.mutex);
	assert_int_equal(status_of(finish(s, fd)), 200);
	rig_until(&s->shelf.rig, s->core.n_writing == 0);
	assert_int_equal(s->core.n_sweeping, 0);
}

static void a_sweep_that_comes_too_late_undoes_nothing(void **state) {
	struct scene *s = scene_open();

	for (int i = 0; i < 2; i++) {
		sweep_and_change(s, "DELETE", "");
		assert_int_equal(status_of(ask(s, "GET", "/services/a", "")), 404);
		sweep_and_change(s, "PUT", "{\"port\":4711}");
		assert_non_null(strstr(ask(s, "GET", "/services/a", ""), "\"port\":4711,"));
		scene_end(s);
		scene_begin(s);
		assert_non_null(strstr(ask(s, "GET", "/services/a", ""), "\"port\":4711,"));
	}
	scene_close(s);
}

/* Says where "a" is; its answer shows where that was taken to be. */
static void assert_placed(
    struct scene *s, const char *method, const char *body, const char *host, const char *url) {
	const char *answer = ask(s, method, strcmp(method, "POST") ? "/services/a" : "/services", body);
	char wanted[128];

	snprintf(wanted, sizeof(wanted), "\"host\":\"%s\"", host);
	if (!strstr(answer, wanted))
		fail_msg("no %s in %s", wanted, answer);
	snprintf(wanted, sizeof(wanted), "\"url\":\"%s\"", url);
	if (!strstr(answer, wanted))
		fail_msg("no %s in %s", wanted, answer);
}

/* To routers elsewhere 127.0.0.1 is themselves; a wildcard they skip. */
static void a_wildcard_from_this_machine_is_its_address_where_others_may_ask(void **state) {
	static const char *const far[] = { "0.0.0.0", "::", "10.0.0.1", "a.name", "1270.0.0.1" };
	static const char *const near[] = { "127.0.0.1", "127.9", "localhost", "::1" };
	static const char body[] = "{\"name\":\"a\",\"host\":\"0.0.0.0\",\"port\":1,\"hostname\":\"h\","
				   "\"url\":\"http://*:1\",\"status\":\"running\"}";
	struct scene *s = scene_open();
	char own[ROUTE_BYTES], url[ROUTE_BYTES + 16];
	bool has_own = route_source_default(own);

	snprintf(url, sizeof(url), "http://%s:1", has_own ? own : "*");
	for (size_t i = 0; i < n_elems(far); i++) {
		s->config.host = far[i];
		assert_placed(s, "POST", body, has_own ? own : "0.0.0.0", url);
		assert_placed(s, "PUT", body, has_own ? own : "0.0.0.0", url);
	}
	for (size_t i = 0; i < n_elems(near); i++) {
		s->config.host = near[i];
		assert_placed(s, "POST", body, "127.0.0.1", "http://127.0.0.1:1");
		assert_placed(s, "PUT", body, "127.0.0.1", "http://127.0.0.1:1");
	}
	scene_close(s);
}

/* Who changes something else need not be where the engine is. */
static void an_update_places_only_the_wildcards_that_it_brings(void **state) {
	static const char body[] = "{\"name\":\"a\",\"host\":\"0.0.0.0\",\"port\":1,\"hostname\":\"h\","
				   "\"url\":\"http://*:1\",\"status\":\"running\"}";
	struct record_refusal refusal;
	struct scene *s = scene_open();

	/* From a store of before wildcards were placed. */
	roster_restore(s->core.roster, record_parse(slice_of(body), NULL, wall_ms, &refusal), still_now_ms());
	assert_placed(s, "PUT", "{\"port\":2}", "0.0.0.0", "http://*:1");
	assert_placed(s, "PUT", "{\"host\":null,\"url\":null}", "0.0.0.0", "http://*:1");
	assert_placed(s, "PUT", "{\"host\":\"0.0.0.0\"}", "127.0.0.1", "http://*:1");
	assert_placed(
	    s, "PUT", "{\"host\":\"0.0.0.0\",\"url\":\"http://[::]:2\"}", "127.0.0.1", "http://127.0.0.1:2");
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jumps_of_the_wall_clock_end_no_lease_and_no_wait),
		cmocka_unit_test(a_restart_in_another_year_gives_full_leases),
		cmocka_unit_test(a_disk_that_turns_read_only_refuses_changes_and_nothing_else),
		cmocka_unit_test(a_sweep_that_comes_too_late_undoes_nothing),
		cmocka_unit_test(a_wildcard_from_this_machine_is_its_address_where_others_may_ask),
		cmocka_unit_test(an_update_places_only_the_wildcards_that_it_brings),
	};
	disk_install(23);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
