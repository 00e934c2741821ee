#include "unit/registry/still_time.h"

#include "registry/prober.h"

enum { INTERVAL_MS = 30000, TIMEOUT_MS = 5000, MANY = 1000 };

struct scene {
	struct rig rig;
	struct prober prober;
	unsigned n_results, n_healthy;
	char last[64];
	in_addr_t denied;
	int listening; /* takes connections and says nothing, unless the test does */
	uint16_t port, closed_port;
};

struct asked {
	struct prober_wish wish;
	unsigned n_calls;
	bool is_healthy;
};

static void on_result(struct prober *p, struct slice name, bool is_healthy) {
	struct scene *s = container_of(p, struct scene, prober);

	s->n_results++;
	s->n_healthy += is_healthy;
	snprintf(s->last, sizeof(s->last), "%.*s", (int)name.n, name.p);
}

static bool may_ask(struct prober *p, const struct sockaddr_storage *address) {
	const struct scene *s = container_of(p, struct scene, prober);

	return address->ss_family != AF_INET ||
	    ((const struct sockaddr_in *)address)->sin_addr.s_addr != s->denied;
}

static void on_done(struct prober_wish *wish, bool is_healthy) {
	struct asked *a = container_of(wish, struct asked, wish);

	a->n_calls++;
	a->is_healthy = is_healthy;
}

static struct scene *scene_open(uint64_t interval_ms) {
	struct scene *s = calloc(1, sizeof(*s));

	still_open(&s->rig);
	s->listening = rig_listen(&s->port);
	close(rig_listen(&s->closed_port));
	prober_init(&s->prober, &s->rig.loop, interval_ms, TIMEOUT_MS, on_result, may_ask);
	return s;
}

static void scene_close(struct scene *s) {
	prober_deinit(&s->prober);
	assert_int_equal(s->prober.n_active, 0);
	rig_spin(&s->rig, 5);
	still_close(&s->rig);
	close(s->listening);
	free(s);
}

static void put(struct scene *s, const char *name, uint16_t port) {
	char url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%u", port);
	struct prober_target target = { .host = SLICE("127.0.0.1"), .port = port, .url = slice_of(url) };
	prober_put(&s->prober, slice_of(name), &target);
}

static void put_many(struct scene *s, unsigned n, uint16_t port) {
	char name[16];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		put(s, name, port);
	}
}

static bool ask(struct scene *s, const char *name, struct asked *a) {
	*a = (struct asked){ .wish.on_done = on_done };
	return prober_ask(&s->prober, slice_of(name), &a->wish);
}

/* Whoever connected is answered. */
static unsigned answer_all(struct scene *s, const char *text) {
	unsigned n = 0;

	for (int fd; (fd = accept4(s->listening, NULL, NULL, SOCK_CLOEXEC)) >= 0; n++) {
		char head[1024];
		assert_true(recv(fd, head, sizeof(head), 0) > 0);
		assert_memory_equal(head, "GET /health HTTP/1.1\r\n", 22);
		rig_say(fd, slice_of(text));
		close(fd);
	}
	rig_spin(&s->rig, 5);
	return n;
}

static void where_it_asks(void **state) {
	static const struct {
		struct prober_target target;
		const char *url;
	} rows[] = {
		{ { .host = { "10.0.0.1", 8 }, .url = { "http://e:1", 10 }, .port = 80 }, "http://e:1" },
		{ { .host = { "10.0.0.1", 8 }, .url = { "http://e:1", 10 }, .port = 80, .is_openai = true },
		    "http://10.0.0.1:81" },
		{ { .host = { "h", 1 }, .url = { "http://e:1", 10 }, .port = 65534, .is_openai = true },
		    "http://h:65535" },
		{ { .host = { "h", 1 }, .url = { "http://e:1", 10 }, .port = 65535, .is_openai = true },
		    "http://e:1" },
		{ { .host = { "::1", 3 }, .url = { "x", 1 }, .port = 1, .is_openai = true },
		    "http://[::1]:2" },
		{ { .host = { "[::1]", 5 }, .url = { "x", 1 }, .port = 1, .is_openai = true },
		    "http://[::1]:2" },
		{ { .host = { "h", 1 }, .url = { "https://e:1", 11 }, .port = 1, .is_openai = true },
		    "https://h:2" },
		{ { .host = { "h", 1 }, .url = { "https://e:1", 11 }, .port = 1 }, "https://e:1" },
	};
	char url[PROBER_URL_MAX], long_url[PROBER_URL_MAX + 1];

	for (size_t i = 0; i < n_elems(rows); i++) {
		assert_true(prober_target_url(&rows[i].target, url));
		assert_string_equal(url, rows[i].url);
	}
	memset(long_url, 'x', sizeof(long_url));
	assert_false(prober_target_url(&(struct prober_target){ .url = { long_url, PROBER_URL_MAX } }, url));
}

static void many_are_spread_over_the_interval(void **state) {
	struct scene *s = scene_open(INTERVAL_MS);

	put_many(s, MANY, s->closed_port);
	still_pass(&s->rig, INTERVAL_MS / 2);
	assert_in_range(s->n_results, MANY / 2 - 120, MANY / 2 + 120); /* more than 7 standard deviations */
	still_pass(&s->rig, INTERVAL_MS / 2 + 1000);
	assert_true(s->n_results >= MANY);
	assert_int_equal(s->n_healthy, 0);
	unsigned n = s->n_results;
	still_pass(&s->rig, 10 * INTERVAL_MS);
	assert_in_range(s->n_results - n, 9 * MANY, 11 * MANY);
	scene_close(s);
}

static void only_so_many_at_once(void **state) {
	struct scene *s = scene_open(1000);

	put_many(s, PROBER_ACTIVE_MAX + 10, s->port);
	still_pass(&s->rig, 1100);
	assert_int_equal(s->prober.n_active, PROBER_ACTIVE_MAX);
	assert_int_equal(s->n_results, 0);
	still_pass(&s->rig, TIMEOUT_MS);
	assert_int_equal(s->n_results, PROBER_ACTIVE_MAX);
	assert_true(s->prober.n_active >= 10);
	scene_close(s);
}

static void any_2xx_is_healthy(void **state) {
	static const struct {
		const char *text;
		bool is_healthy;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true },
		{ "HTTP/1.1 204 No Content\r\n\r\n", true },
		{ "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", false },
		{ "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", false },
		{ "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", false },
		{ "garbage\r\n\r\n", false },
	};
	struct scene *s = scene_open(0);
	struct asked a;

	put(s, "a", s->port);
	for (size_t i = 0; i < n_elems(rows); i++) {
		assert_true(ask(s, "a", &a));
		rig_until(&s->rig, answer_all(s, rows[i].text));
		rig_until(&s->rig, a.n_calls == 1);
		assert_int_equal(a.is_healthy, rows[i].is_healthy);
		assert_int_equal(s->n_results, i + 1);
		assert_string_equal(s->last, "a");
	}
	scene_close(s);
}

static void who_asks_waits_for_the_probe_under_way(void **state) {
	struct scene *s = scene_open(0);
	struct asked a, b, c;

	put(s, "a", s->port);
	assert_true(ask(s, "a", &a));
	rig_spin(&s->rig, 5);
	assert_true(ask(s, "a", &b));
	assert_true(ask(s, "a", &c));
	list_remove(&c.wish.link); /* it has left */
	rig_spin(&s->rig, 5);
	assert_int_equal(s->prober.n_active, 1);
	rig_until(&s->rig, answer_all(s, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
	rig_until(&s->rig, a.n_calls);
	assert_int_equal(a.n_calls + b.n_calls, 2);
	assert_true(a.is_healthy && b.is_healthy);
	assert_int_equal(c.n_calls, 0);
	assert_int_equal(s->n_results, 1);
	assert_false(ask(s, "nobody", &a));
	scene_close(s);
}

static void without_an_interval_nobody_is_asked(void **state) {
	struct scene *s = scene_open(0);

	put(s, "a", s->port);
	still_pass(&s->rig, 2 * INTERVAL_MS);
	assert_int_equal(s->n_results + s->prober.n_active, 0);
	scene_close(s);
}

static void what_is_removed_has_no_result(void **state) {
	struct scene *s = scene_open(0);
	struct asked a;

	put(s, "a", s->port);
	assert_true(ask(s, "a", &a));
	rig_spin(&s->rig, 5);
	assert_int_equal(s->prober.n_active, 1);
	prober_remove(&s->prober, SLICE("a"));
	prober_remove(&s->prober, SLICE("a"));
	assert_int_equal(a.n_calls, 1);
	assert_false(a.is_healthy);
	still_pass(&s->rig, 2 * TIMEOUT_MS);
	assert_int_equal(s->n_results + s->prober.n_active, 0);
	assert_false(ask(s, "a", &a));
	scene_close(s);
}

static void another_place_is_asked_afresh(void **state) {
	struct scene *s = scene_open(0);
	struct asked a;

	put(s, "a", s->closed_port);
	put(s, "a", s->port);
	assert_true(ask(s, "a", &a));
	rig_spin(&s->rig, 5);
	put(s, "a", s->port); /* the same: goes on */
	assert_int_equal(s->prober.n_active, 1);
	put(s, "a", s->closed_port);
	rig_until(&s->rig, a.n_calls);
	assert_false(a.is_healthy);
	assert_int_equal(s->n_results, 1);
	scene_close(s);
}

static void what_cannot_be_asked_keeps_its_health(void **state) {
	static const char *const urls[] = { "https://127.0.0.1", "", "nonsense" };
	struct scene *s = scene_open(1000);
	struct asked a;

	for (size_t i = 0; i < n_elems(urls); i++) {
		prober_put(
		    &s->prober, SLICE("a"), &(struct prober_target){ .url = slice_of(urls[i]), .port = 1 });
		assert_true(ask(s, "a", &a));
		rig_until(&s->rig, a.n_calls);
		assert_false(a.is_healthy);
	}
	still_pass(&s->rig, 10000);
	assert_int_equal(s->n_results, 0);
	scene_close(s);
}

/* Whether a name led to it or it was written: the connection is not made. */
static void an_address_that_is_denied_is_never_connected_to(void **state) {
	static const char *const hosts[] = { "127.0.0.1", "localhost" };
	struct scene *s = scene_open(0);
	struct asked a;

	s->denied = htonl(INADDR_LOOPBACK);
	for (size_t i = 0; i < n_elems(hosts); i++) {
		char url[64];
		snprintf(url, sizeof(url), "http://%s:%u", hosts[i], s->port);
		prober_put(
		    &s->prober, SLICE("a"), &(struct prober_target){ .url = slice_of(url), .port = s->port });
		assert_true(ask(s, "a", &a));
		rig_until(&s->rig, a.n_calls);
		assert_false(a.is_healthy);
		assert_int_equal(accept4(s->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), -1);
		assert_int_equal(s->n_results, i + 1); /* unhealthy */
	}
	s->denied = 0;
	assert_true(ask(s, "a", &a));
	rig_until(&s->rig, answer_all(s, "HTTP/1.1 204 No Content\r\n\r\n"));
	rig_until(&s->rig, a.n_calls);
	assert_true(a.is_healthy);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_it_asks),
		cmocka_unit_test(many_are_spread_over_the_interval),
		cmocka_unit_test(only_so_many_at_once),
		cmocka_unit_test(any_2xx_is_healthy),
		cmocka_unit_test(who_asks_waits_for_the_probe_under_way),
		cmocka_unit_test(without_an_interval_nobody_is_asked),
		cmocka_unit_test(what_is_removed_has_no_result),
		cmocka_unit_test(another_place_is_asked_afresh),
		cmocka_unit_test(what_cannot_be_asked_keeps_its_health),
		cmocka_unit_test(an_address_that_is_denied_is_never_connected_to),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
