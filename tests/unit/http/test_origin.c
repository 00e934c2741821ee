#include "unit/discovery/far_engine.h"

#include <arpa/inet.h>
#include <sys/resource.h>

#include "http/origin.h"

enum { TIMEOUT_MS = 8000, BODY_BYTES_MAX = 1000 };

#define GOOD SLICE("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

/* --- names: what the one name of these tests stands for -------------------------------- */

static struct {
	struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
	size_t n;
	unsigned n_lookups;
	bool is_slow;             /* answers when the test says so */
	struct resolver *waiting; /* for that */
} names;

struct resolver *resolver_new(resolver_fn done, void *context) {
	struct resolver *r = calloc(1, sizeof(*r));
	r->on_done = done;
	r->request.data = context;
	return r;
}

void resolver_free(struct resolver **r) {
	if (names.waiting == *r)
		names.waiting = NULL;
	free(*r);
	*r = NULL;
}

void resolver_start(struct resolver *r, struct loop *loop, const char *host, uint16_t port) {
	assert_string_equal(host, "origin");
	assert_null(names.waiting);
	names.n_lookups++;
	if (names.is_slow)
		names.waiting = r;
	else
		r->on_done(r, names.addresses, names.n);
}

bool resolver_is_address(const char *host, uint16_t port, struct sockaddr_storage *address_out) {
	struct in_addr in;
	struct in6_addr in6;
	memset(address_out, 0, sizeof(*address_out));
	if (inet_pton(AF_INET6, host, &in6) == 1) {
		*(struct sockaddr_in6 *)address_out = (struct sockaddr_in6){
			.sin6_family = AF_INET6, .sin6_addr = in6, .sin6_port = htons(port)
		};
		return true;
	}
	if (inet_pton(AF_INET, host, &in) != 1)
		return false;
	*(struct sockaddr_in *)address_out =
	    (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = in, .sin_port = htons(port) };
	return true;
}

static void names_answer(void) {
	struct resolver *r = names.waiting;
	names.waiting = NULL;
	r->on_done(r, names.addresses, names.n);
}

/* --- the scene --------------------------------------------------------------------------- */

struct asked {
	struct fetch fetch;
	struct scene *scene;
	unsigned n_calls, status;
	int outcome;
	bool frees_origin, cancels;
	size_t n_parts_bytes;
};

struct scene {
	struct rig rig;
	struct far_engine engines[3];
	struct origin *origin;
	struct asked asked[3];
};

static void on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct asked *a = container_of(f, struct asked, fetch);
	a->n_calls++;
	a->outcome = outcome;
	a->status = status;
	assert_false(fetch_is_busy(f));
	if (!outcome && !f->on_part)
		assert_true(slice_eq(body, SLICE("hello")));
	if (a->frees_origin)
		origin_free(&a->scene->origin);
}

static void on_part(struct fetch *f, struct slice part) {
	struct asked *a = container_of(f, struct asked, fetch);
	a->n_parts_bytes += part.n;
	if (a->cancels)
		origin_cancel(a->scene->origin, f);
}

/* `n` engines, and a name that stands for them in this order. */
static struct scene *scene_open(size_t n) {
	struct scene *s = calloc(1, sizeof(*s));
	far_clock_start();
	rig_open(&s->rig);
	memset(&names, 0, sizeof(names));
	for (size_t i = 0; i < n_elems(s->engines); i++) {
		far_open(&s->engines[i]);
		names.addresses[i] = s->engines[i].address;
		s->asked[i].scene = s;
		fetch_init(&s->asked[i].fetch, TIMEOUT_MS, BODY_BYTES_MAX, on_done);
	}
	names.n = n;
	s->origin = origin_new(&s->rig.loop, SLICE("http://origin:8081"));
	assert_non_null(s->origin);
	return s;
}

static void scene_close(struct scene *s) {
	origin_free(&s->origin);
	assert_null(s->origin);
	rig_close(&s->rig);
	for (size_t i = 0; i < n_elems(s->engines); i++)
		far_close(&s->engines[i]);
	clock_set_source(NULL);
	free(s);
}

static void scene_ask(struct scene *s, unsigned i) {
	const struct fetch_request request = { .path = SLICE("/services") };
	s->asked[i].n_calls = 0;
	origin_fetch(s->origin, &s->asked[i].fetch, &request);
	assert_int_equal(s->asked[i].n_calls, 0); /* never from within */
	assert_true(fetch_is_busy(&s->asked[i].fetch));
}

static void assert_done(struct scene *s, unsigned i, int outcome) {
	far_until(&s->rig, s->asked[i].n_calls);
	rig_spin(&s->rig, 4);
	assert_int_equal(s->asked[i].n_calls, 1);
	assert_int_equal(s->asked[i].outcome, outcome);
	assert_int_equal(s->asked[i].status, outcome ? 0 : 200);
}

/* The request that is under way comes to this engine, which answers. */
static void scene_serve(struct scene *s, unsigned i, struct far_engine *e) {
	far_answer(&s->rig, e, "/services", GOOD);
	assert_done(s, i, 0);
}

/* Comes to life again where it was. */
static void far_reopen(struct far_engine *e) {
	e->listening = listener_bind((struct sockaddr *)&e->address, false);
	assert_true(e->listening >= 0);
}

/* --- urls -------------------------------------------------------------------------------- */

static void a_url_says_where(void **state) {
	static const struct {
		const char *url, *shown, *line, *host;
	} rows[] = {
		{ "http://127.0.0.1:%u", "http://127.0.0.1:%u", "GET /services ", "127.0.0.1:%u" },
		{ "HTTP://127.0.0.1:%u/", "http://127.0.0.1:%u", "GET /services ", "127.0.0.1:%u" },
		{ "http://127.0.0.1:%u/api/v1//", "http://127.0.0.1:%u", "GET /api/v1/services ",
		    "127.0.0.1:%u" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open(0);
		struct heard heard;
		char url[128], shown[128], host[128];
		unsigned port = ntohs(((struct sockaddr_in *)&s->engines[0].address)->sin_port);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(url, sizeof(url), rows[i].url, port);
		snprintf(shown, sizeof(shown), rows[i].shown, port);
		snprintf(host, sizeof(host), rows[i].host, port);
#pragma GCC diagnostic pop
		origin_free(&s->origin);
		s->origin = origin_new(&s->rig.loop, slice_of(url));
		assert_string_equal(origin_url(s->origin), shown);
		scene_ask(s, 0);
		int fd = far_hear(&s->rig, &s->engines[0], &heard);
		assert_memory_equal(heard.p, rows[i].line, strlen(rows[i].line));
		char field[160];
		snprintf(field, sizeof(field), "\r\nhost: %s\r\n", host);
		assert_non_null(memmem(heard.p, heard.n, field, strlen(field)));
		far_say(&s->rig, fd, GOOD);
		assert_done(s, 0, 0);
		assert_int_equal(names.n_lookups, 0);
		heard_free(&heard);
		far_await_end(&s->rig, fd);
		scene_close(s);
	}
}

static void ports_and_brackets_are_shown(void **state) {
	struct origin *o = origin_new(NULL, SLICE("http://registry"));
	assert_string_equal(origin_url(o), "http://registry:80");
	origin_free(&o);
	o = origin_new(NULL, SLICE("http://[::1]:8081/x"));
	assert_string_equal(origin_url(o), "http://[::1]:8081");
	origin_free(&o);
	origin_free(&o);
}

static void what_is_no_url_is_no_origin(void **state) {
	static const char *const urls[] = { "", "registry", "registry:8081", "https://registry", "http://",
		"http://registry:0", "http://registry:65536", "http://registry/a?b", "http://a b/",
		"http://registry/\x01" };
	char large[ORIGIN_URL_MAX + 2];
	for (size_t i = 0; i < n_elems(urls); i++)
		assert_null(origin_new(NULL, slice_of(urls[i])));
	memset(large, 'a', sizeof(large));
	memcpy(large, "http://registry/", 16);
	struct origin *o = origin_new(NULL, (struct slice){ large, ORIGIN_URL_MAX });
	assert_non_null(o);
	origin_free(&o);
	assert_null(origin_new(NULL, (struct slice){ large, ORIGIN_URL_MAX + 1 }));
}

/* --- requests ------------------------------------------------------------------------------ */

/* The caller's texts are gone long before the last address is asked. */
static void a_request_is_remembered(void **state) {
	struct scene *s = scene_open(2);
	struct heard heard;
	char method[] = "POST", path[] = "/path", accept[] = "a/b", bearer[] = "secret", body[] = "{\"a\":1}";
	const struct fetch_request request = { .method = slice_of(method),
		.path = slice_of(path),
		.accept = slice_of(accept),
		.bearer = slice_of(bearer),
		.body = slice_of(body) };
	far_close(&s->engines[0]);
	names.is_slow = true;
	origin_fetch(s->origin, &s->asked[0].fetch, &request);
	memset(method, 'x', sizeof(method));
	memset(path, 'x', sizeof(path));
	memset(accept, 'x', sizeof(accept));
	memset(bearer, 'x', sizeof(bearer));
	memset(body, 'x', sizeof(body));
	far_until(&s->rig, names.waiting);
	names_answer();
	int fd = far_hear(&s->rig, &s->engines[1], &heard);
	static const char *const texts[] = { "POST /path HTTP/1.1\r\nhost: origin:8081\r\naccept: a/b\r\n",
		"\r\nauthorization: Bearer secret\r\n", "\r\n\r\n{\"a\":1}" };
	far_until(&s->rig, (rig_hear(fd, &heard, SIZE_MAX), memmem(heard.p, heard.n, "1}", 2)));
	for (size_t i = 0; i < n_elems(texts); i++)
		assert_non_null(memmem(heard.p, heard.n, texts[i], strlen(texts[i])));
	far_say(&s->rig, fd, GOOD);
	assert_done(s, 0, 0);
	heard_free(&heard);
	far_await_end(&s->rig, fd);
	far_reopen(&s->engines[0]);
	scene_close(s);
}

static void several_may_be_under_way(void **state) {
	struct scene *s = scene_open(1);
	int fds[3];
	for (unsigned i = 0; i < 3; i++) {
		struct heard heard;
		scene_ask(s, i);
		fds[i] = far_hear(&s->rig, &s->engines[0], &heard);
		heard_free(&heard);
	}
	for (unsigned i = 3; i-- > 0;) {
		far_say(&s->rig, fds[i], GOOD);
		assert_done(s, i, 0);
		far_await_end(&s->rig, fds[i]);
	}
	assert_int_equal(names.n_lookups, 1);
	scene_close(s);
}

static void events_come_through(void **state) {
	for (unsigned cancels = 0; cancels < 2; cancels++) {
		struct scene *s = scene_open(1);
		s->asked[0].fetch.on_part = on_part;
		s->asked[0].cancels = cancels;
		scene_ask(s, 0);
		far_answer(&s->rig, &s->engines[0], "/services", GOOD);
		assert_int_equal(s->asked[0].n_parts_bytes, 5);
		assert_int_equal(s->asked[0].n_calls, !cancels);
		assert_false(fetch_is_busy(&s->asked[0].fetch));
		scene_close(s);
	}
}

/* --- addresses ----------------------------------------------------------------------------- */

static void the_next_address_is_asked(void **state) {
	struct scene *s = scene_open(3);
	far_close(&s->engines[0]);
	/* And an address of the other family where nobody listens. */
	resolver_is_address("::1", 1, &names.addresses[1]);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[2]);
	far_reopen(&s->engines[0]); /* but the third has answered last */
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[2]);
	far_close(&s->engines[2]);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	far_reopen(&s->engines[2]);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	scene_close(s);
}

static void when_none_is_left_it_has_failed(void **state) {
	struct scene *s = scene_open(3);
	for (size_t i = 0; i < 3; i++)
		far_close(&s->engines[i]);
	for (unsigned n = 0; n < 3; n++) {
		scene_ask(s, 0);
		assert_done(s, 0, FETCH_E_CONNECT);
	}
	for (size_t i = 0; i < 3; i++)
		far_reopen(&s->engines[i]);
	scene_ask(s, 0);
	far_until(&s->rig, s->asked[0].fetch.link);
	origin_cancel(s->origin, &s->asked[0].fetch);
	scene_close(s);
}

/* Broken off, silent: it is not asked elsewhere, for it may have been done; the next request goes elsewhere.
 */
static void only_unsent_requests_go_elsewhere(void **state) {
	for (unsigned silent = 0; silent < 2; silent++) {
		struct scene *s = scene_open(2);
		struct heard heard;
		scene_ask(s, 0);
		int fd = far_hear(&s->rig, &s->engines[0], &heard);
		if (!silent)
			far_say(&s->rig, fd, SLICE("HTTP/1.1 200"));
		assert_done(s, 0, silent ? FETCH_E_TIMEOUT : FETCH_E_BROKEN);
		assert_int_equal(far_accept(&s->engines[1]), -1);
		far_await_end(&s->rig, fd);
		scene_ask(s, 0);
		scene_serve(s, 0, &s->engines[1]);
		heard_free(&heard);
		scene_close(s);
	}
}

/* --- lookups ------------------------------------------------------------------------------- */

static void names_are_looked_up_again(void **state) {
	struct scene *s = scene_open(1);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	far_pass(&s->rig, 29000);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	assert_int_equal(names.n_lookups, 1);
	far_pass(&s->rig, 1000);
	names.is_slow = true; /* nobody waits for it while there is an address */
	uint64_t since_ns = far_now_ns;
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	assert_in_range(far_now_ns - since_ns, 0, 3000000000);
	assert_int_equal(names.n_lookups, 2);
	names.addresses[0] = s->engines[1].address;
	names_answer();
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[1]);
	assert_int_equal(names.n_lookups, 2);
	scene_close(s);
}

/* The same addresses in another order: the one that answered last stays the first. */
static void the_order_of_addresses_is_no_news(void **state) {
	struct scene *s = scene_open(2);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	far_pass(&s->rig, 31000);
	names.addresses[0] = s->engines[1].address;
	names.addresses[1] = s->engines[0].address;
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	assert_int_equal(names.n_lookups, 2);
	scene_close(s);
}

static void a_failed_connect_has_the_name_looked_up(void **state) {
	struct scene *s = scene_open(1);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	far_pass(&s->rig, 2000);
	far_close(&s->engines[0]);
	names.addresses[0] = s->engines[1].address; /* it has moved */
	scene_ask(s, 0);
	assert_done(s, 0, FETCH_E_CONNECT);
	assert_int_equal(names.n_lookups, 2);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[1]);
	far_reopen(&s->engines[0]);
	scene_close(s);
}

/* Nor has it anything looked up. */
static void a_shortage_of_our_own_is_passed_on(void **state) {
	struct scene *s = scene_open(1);
	struct rlimit old, none;
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	far_pass(&s->rig, 2000);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	scene_ask(s, 0);
	assert_done(s, 0, FETCH_E_LOCAL);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	assert_int_equal(names.n_lookups, 1);
	scene_close(s);
}

static void lookups_are_a_second_apart(void **state) {
	for (unsigned resolves = 0; resolves < 2; resolves++) {
		struct scene *s = scene_open(resolves);
		far_close(&s->engines[0]);
		uint64_t since_ns = far_now_ns;
		unsigned n = 0;
		while (far_now_ns - since_ns < 5000000000) {
			scene_ask(s, 0);
			assert_done(s, 0, FETCH_E_CONNECT);
			far_pass(&s->rig, 100);
			n++;
		}
		assert_in_range(names.n_lookups, 4, 6);
		assert_true(n > 10);
		far_reopen(&s->engines[0]);
		scene_close(s);
	}
}

static void a_lookup_without_end_has_a_limit(void **state) {
	struct scene *s = scene_open(1);
	names.is_slow = true;
	scene_ask(s, 0);
	far_pass(&s->rig, FETCH_CONNECT_MS - 100);
	assert_int_equal(s->asked[0].n_calls, 0);
	assert_done(s, 0, FETCH_E_CONNECT);
	scene_ask(s, 0); /* it still runs: waits as well */
	rig_spin(&s->rig, 4);
	assert_int_equal(s->asked[0].n_calls, 0);
	names_answer();
	scene_serve(s, 0, &s->engines[0]);
	assert_int_equal(names.n_lookups, 1);
	scene_close(s);
}

static void a_lookups_limit_is_not_the_answers(void **state) {
	struct scene *s = scene_open(1);
	struct heard heard;
	names.is_slow = true;
	scene_ask(s, 0);
	far_pass(&s->rig, 1000);
	names_answer();
	int fd = far_hear(&s->rig, &s->engines[0], &heard);
	far_pass(&s->rig, TIMEOUT_MS - 1000);
	assert_int_equal(s->asked[0].n_calls, 0);
	far_say(&s->rig, fd, GOOD);
	assert_done(s, 0, 0);
	heard_free(&heard);
	far_await_end(&s->rig, fd);
	scene_close(s);
}

/* After a failed connect the name is asked first, but not for ever. */
static void a_known_address_is_better_than_none(void **state) {
	struct scene *s = scene_open(1);
	far_close(&s->engines[0]);
	scene_ask(s, 0);
	assert_done(s, 0, FETCH_E_CONNECT);
	far_pass(&s->rig, 2000);
	far_reopen(&s->engines[0]);
	names.is_slow = true;
	scene_ask(s, 0);
	far_pass(&s->rig, FETCH_CONNECT_MS - 100);
	assert_int_equal(far_accept(&s->engines[0]), -1);
	scene_serve(s, 0, &s->engines[0]);
	names.n = 0;
	names_answer(); /* the last good answer stays */
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[0]);
	scene_close(s);
}

static bool is_no_engine_of(void *context, const struct sockaddr_storage *address) {
	return memcmp(address, context, sizeof(*address)) != 0;
}

/* Each time a name is looked up. */
static void what_may_not_be_asked_is_not_there(void **state) {
	struct scene *s = scene_open(2);
	origin_restrict(s->origin, is_no_engine_of, &s->engines[0].address);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[1]);
	names.n = 1; /* only the one that may not; what was good before stays */
	far_pass(&s->rig, 31000);
	scene_ask(s, 0);
	scene_serve(s, 0, &s->engines[1]);
	assert_int_equal(far_accept(&s->engines[0]), -1);
	scene_close(s);

	s = scene_open(1);
	origin_restrict(s->origin, is_no_engine_of, &s->engines[0].address);
	scene_ask(s, 0);
	assert_done(s, 0, FETCH_E_CONNECT);
	assert_int_equal(far_accept(&s->engines[0]), -1);
	scene_close(s);
}

/* --- the end --------------------------------------------------------------------------------- */

static void what_is_cancelled_is_not_heard_of(void **state) {
	for (unsigned when = 0; when < 4; when++) {
		for (unsigned frees = 0; frees < 2; frees++) {
			struct scene *s = scene_open(1);
			struct heard heard = { .n = 0 };
			int fd = -1;
			names.is_slow = when == 1;
			scene_ask(s, 0);
			if (when == 1)
				far_until(&s->rig, names.waiting);
			if (when == 2)
				far_until(&s->rig, s->asked[0].fetch.link);
			if (when == 3)
				fd = far_hear(&s->rig, &s->engines[0], &heard);
			if (frees)
				origin_free(&s->origin);
			else
				origin_cancel(s->origin, &s->asked[0].fetch);
			assert_false(fetch_is_busy(&s->asked[0].fetch));
			if (!frees)
				origin_cancel(s->origin, &s->asked[0].fetch); /* there is none any more */
			if (names.waiting)
				names_answer();
			if (fd >= 0)
				far_await_end(&s->rig, fd);
			far_pass(&s->rig, 2 * TIMEOUT_MS);
			assert_int_equal(s->asked[0].n_calls, 0);
			assert_ptr_equal(s->asked[0].fetch.on_done, on_done);
			heard_free(&heard);
			scene_close(s);
		}
	}
}

static void who_is_called_may_free_the_origin(void **state) {
	for (unsigned fails = 0; fails < 3; fails++) {
		struct scene *s = scene_open(fails != 2);
		s->asked[0].frees_origin = true;
		if (fails == 1)
			far_close(&s->engines[0]);
		scene_ask(s, 0);
		scene_ask(s, 1);
		if (!fails)
			far_answer(&s->rig, &s->engines[0], "/services", GOOD);
		far_until(&s->rig, s->asked[0].n_calls);
		far_pass(&s->rig, 2 * TIMEOUT_MS);
		assert_null(s->origin);
		assert_int_equal(s->asked[0].outcome, fails ? FETCH_E_CONNECT : 0);
		assert_int_equal(s->asked[1].n_calls, 0);
		if (fails == 1)
			far_reopen(&s->engines[0]);
		scene_close(s);
	}
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_url_says_where),
		cmocka_unit_test(ports_and_brackets_are_shown),
		cmocka_unit_test(what_is_no_url_is_no_origin),
		cmocka_unit_test(a_request_is_remembered),
		cmocka_unit_test(several_may_be_under_way),
		cmocka_unit_test(events_come_through),
		cmocka_unit_test(the_next_address_is_asked),
		cmocka_unit_test(when_none_is_left_it_has_failed),
		cmocka_unit_test(only_unsent_requests_go_elsewhere),
		cmocka_unit_test(names_are_looked_up_again),
		cmocka_unit_test(the_order_of_addresses_is_no_news),
		cmocka_unit_test(a_failed_connect_has_the_name_looked_up),
		cmocka_unit_test(a_shortage_of_our_own_is_passed_on),
		cmocka_unit_test(lookups_are_a_second_apart),
		cmocka_unit_test(a_lookup_without_end_has_a_limit),
		cmocka_unit_test(a_lookups_limit_is_not_the_answers),
		cmocka_unit_test(a_known_address_is_better_than_none),
		cmocka_unit_test(what_may_not_be_asked_is_not_there),
		cmocka_unit_test(what_is_cancelled_is_not_heard_of),
		cmocka_unit_test(who_is_called_may_free_the_origin),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
