#include "unit/registry/still_time.h"

#include "registry/watchers.h"

enum { CLIENTS_MAX = 4 };

struct scene {
	struct rig rig;
	struct roster *roster;
	struct watchers watchers;
	struct endpoint_server server;
	uint16_t port;
	int fds[CLIENTS_MAX];
	struct heard heard[CLIENTS_MAX];
};

static void run_watch(struct endpoint_call *c) {
	watchers_add(endpoint_context(c), c);
}

static const struct endpoint rows[] = { { METHOD_GET, "/services", .run = run_watch } };

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));
	const struct roster_options options = { .epoch = "0123456789abcdef", .version = 7 };

	still_open(&s->rig);
	s->roster = roster_new(&options, still_now_ms());
	watchers_init(&s->watchers, &s->rig.loop, s->roster);
	int fd = rig_listen(&s->port);
	assert_int_equal(endpoint_server_open(&s->server, &s->rig.loop, fd, rows, 1, &s->watchers, NULL), 0);
	return s;
}

static void scene_close(struct scene *s) {
	watchers_close(&s->watchers);
	endpoint_server_close(&s->server);
	rig_spin(&s->rig, 5);
	still_close(&s->rig);
	endpoint_server_deinit(&s->server);
	watchers_deinit(&s->watchers);
	roster_free(&s->roster);
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		heard_free(&s->heard[i]);
		if (s->fds[i])
			close(s->fds[i]);
	}
	free(s);
}

static void put(struct scene *s, const char *name) {
	static unsigned n_puts; /* each is another one: the same again is no change */
	char body[256];
	struct record_refusal refusal;
	int n = snprintf(body, sizeof(body),
	    "{\"name\":\"%s\",\"host\":\"h\",\"port\":%u,\"hostname\":\"h\",\"url\":\"http://"
	    "h:1\",\"status\":\"running\"}",
	    name, ++n_puts % 65536);
	struct record *record = record_parse((struct slice){ body, (size_t)n }, NULL, 0, &refusal);

	assert_non_null(record);
	roster_put(s->roster, record, still_now_ms());
	watchers_wake(&s->watchers);
}

static void take_out(struct scene *s, const char *name) {
	assert_true(roster_delete(s->roster, slice_of(name), still_now_ms()));
	watchers_wake(&s->watchers);
}

/* So long after, whoever was not heard is swept out. */
static void sweep_out(struct scene *s, const char *name) {
	uint64_t now_ms = still_now_ms();

	for (unsigned i = 0; i < 4000; i++)
		roster_advance(s->roster, now_ms += ROSTER_TICK_MS);
	assert_true(roster_sweep_one(s->roster, slice_of(name), now_ms));
	watchers_wake(&s->watchers);
}

static void ask(struct scene *s, unsigned client, const char *since, bool is_stream) {
	char request[256];

	snprintf(request, sizeof(request), "GET /services?watch=1%s%s HTTP/1.1\r\nhost: r\r\n%s\r\n",
	    since ? "&since=" : "", since ? since : "", is_stream ? "accept: text/event-stream\r\n" : "");
	if (!s->fds[client])
		s->fds[client] = rig_connect(s->port);
	rig_say(s->fds[client], slice_of(request));
	rig_spin(&s->rig, 5);
}

static size_t count(struct scene *s, unsigned client, const char *text) {
	struct heard *h = &s->heard[client];
	size_t n = 0;

	rig_spin(&s->rig, 5);
	rig_hear(s->fds[client], h, SIZE_MAX);
	for (const char *p = h->p, *end = p + h->n;
	     h->n && (p = memmem(p, (size_t)(end - p), text, strlen(text))); p++)
		n++;
	return n;
}

static void assert_heard(struct scene *s, unsigned client, const char *text) {
	if (!count(s, client, text))
		fail_msg("no \"%s\" in \"%.*s\"", text, (int)s->heard[client].n, s->heard[client].p);
}

static void who_is_swept_out_is_not_who_was_deleted(void **state) {
	struct scene *s = scene_open();

	put(s, "a");
	put(s, "b");
	ask(s, 0, NULL, true);
	take_out(s, "a");
	assert_heard(s, 0, "{\"op\":\"delete\",\"name\":\"a\"}]}\n\n");
	sweep_out(s, "b");
	assert_heard(s, 0, "{\"op\":\"delete\",\"name\":\"b\",\"reason\":\"expired\"}]}\n\n");
	scene_close(s);
}

static void the_changes_of_a_turn_are_one_event_printed_once(void **state) {
	struct scene *s = scene_open();

	ask(s, 0, NULL, true);
	ask(s, 1, NULL, true);
	put(s, "a");
	put(s, "b");
	put(s, "a");
	take_out(s, "b");
	for (unsigned i = 0; i < 2; i++) {
		assert_heard(s, i,
		    "data: "
		    "{\"reset\":true,\"epoch\":\"0123456789abcdef\",\"version\":7,\"services\":[]}\n\n");
		assert_heard(s, i,
		    "data: "
		    "{\"epoch\":\"0123456789abcdef\",\"version\":11,\"changes\":[{\"op\":\"put\",\"name\":"
		    "\"a\",");
		assert_heard(s, i, "},{\"op\":\"delete\",\"name\":\"b\"}]}\n\n");
		assert_int_equal(count(s, i, "data: "), 2);
	}
	assert_int_equal(s->watchers.n_printed, 3); /* a reset a turn, the change for both */
	put(s, "c");
	assert_int_equal(count(s, 0, "data: "), 3);
	assert_int_equal(count(s, 1, "data: "), 3);
	assert_int_equal(s->watchers.n_printed, 4);
	assert_int_equal(s->watchers.n_events, 4);
	scene_close(s);
}

/* Records of a kilobyte: more than sockets take. */
static void put_large(struct scene *s, unsigned n) {
	char body[2048], pad[1024];
	struct record_refusal refusal;

	memset(pad, 'x', sizeof(pad));
	for (unsigned i = 0; i < n; i++) {
		int length = snprintf(body, sizeof(body),
		    "{\"name\":\"s%u\",\"host\":\"h\",\"port\":1,\"hostname\":\"h\",\"url\":\"http://h:1\","
		    "\"status\":\"running\",\"metadata\":{\"pad\":\"%.1000s\"}}",
		    i, pad);
		struct record *record =
		    record_parse((struct slice){ body, (size_t)length }, NULL, 0, &refusal);
		assert_non_null(record);
		roster_put(s->roster, record, still_now_ms());
	}
}

/* Streams and long polls that do not read hold one text together, until the last of them has it. */
static void a_reset_is_kept_once_however_many_wait_for_it(void **state) {
	enum { N_RECORDS = 10000, N_WATCHERS = 100 };
	struct scene *s = scene_open();
	int fds[N_WATCHERS];
	uint64_t before = rig_lent(&s->rig), most = 0;

	put_large(s, N_RECORDS);
	for (unsigned i = 0; i < N_WATCHERS; i++) {
		fds[i] = rig_connect(s->port);
		rig_say(fds[i],
		    i % 2 ? SLICE("GET /services?watch=1 HTTP/1.1\r\nhost: r\r\n\r\n")
			  : SLICE("GET /services?watch=1 HTTP/1.1\r\nhost: r\r\n"
				  "accept: text/event-stream\r\n\r\n"));
	}
	rig_until(&s->rig, s->watchers.n_resets == N_WATCHERS);
	for (unsigned i = 0; i < 10; i++) {
		most = u64_max(most, rig_lent(&s->rig) - before);
		rig_spin(&s->rig, 1);
	}
	assert_true(s->watchers.n_printed < 5);
	assert_in_range(most, N_RECORDS * 1000, 5 * N_RECORDS * 1500);
	for (unsigned i = 0; i < N_WATCHERS; i++)
		rig_reset(fds[i]);
	rig_until(&s->rig, s->watchers.n == 0);
	still_pass(&s->rig, WATCHERS_ALIVE_MS);
	assert_true(rig_lent(&s->rig) < before + N_RECORDS);
	scene_close(s);
}

static void a_silent_stream_says_that_it_lives(void **state) {
	struct scene *s = scene_open();

	ask(s, 0, NULL, true);
	still_pass(&s->rig, WATCHERS_ALIVE_MS - 1000);
	assert_int_equal(count(s, 0, "\r\n:\n\n\r\n"), 0);
	still_pass(&s->rig, 2000);
	assert_int_equal(count(s, 0, "\r\n:\n\n\r\n"), 1);
	still_pass(&s->rig, 3 * WATCHERS_ALIVE_MS);
	assert_int_equal(count(s, 0, "\r\n:\n\n\r\n"), 4);
	assert_int_equal(s->watchers.n, 1);
	scene_close(s);
}

static void nobody_new_is_told_without_memory(void **state) {
	struct scene *s = scene_open();

	ask(s, 0, NULL, true);
	s->rig.budget.max_bytes = 0;
	ask(s, 1, NULL, true);
	assert_heard(s, 1, "HTTP/1.1 503 ");
	assert_int_equal(s->watchers.n, 1);
	s->rig.budget.max_bytes = 64u << 20;
	ask(s, 1, NULL, true);
	assert_int_equal(s->watchers.n, 2);
	scene_close(s);
}

static void a_long_poll_ends_without_news(void **state) {
	struct scene *s = scene_open();

	ask(s, 0, "0123456789abcdef:7", false);
	still_pass(&s->rig, WATCHERS_POLL_MS - 1000);
	assert_int_equal(count(s, 0, "HTTP"), 0);
	still_pass(&s->rig, 2000);
	assert_heard(s, 0, "content-type: application/json\r\n");
	assert_heard(s, 0, "\r\n\r\n{\"epoch\":\"0123456789abcdef\",\"version\":7,\"changes\":[]}");
	assert_int_equal(s->watchers.n, 0);
	ask(s, 0, "0123456789abcdef:7", false); /* the connection is still good */
	put(s, "a");
	assert_heard(s, 0, "\"version\":8,\"changes\":[{\"op\":\"put\",\"name\":\"a\",");
	scene_close(s);
}

static void what_was_overtaken_is_no_news(void **state) {
	struct scene *s = scene_open();

	put(s, "a");
	ask(s, 0, "0123456789abcdef:8", false);
	ask(s, 1, "0123456789abcdef:7", false);
	assert_heard(s, 1, "\"version\":8");
	assert_int_equal(count(s, 0, "HTTP"), 0);
	put(s, "b");
	assert_heard(s, 0, "\"version\":9,\"changes\":[{\"op\":\"put\",\"name\":\"b\",");
	assert_int_equal(count(s, 0, "\"name\":\"a\""), 0);
	scene_close(s);
}

static void who_is_too_far_behind_begins_anew(void **state) {
	struct scene *s = scene_open();

	for (unsigned i = 0; i < ROSTER_RING + 1; i++)
		put(s, "a");
	ask(s, 0, "0123456789abcdef:7", false);
	assert_heard(s, 0, "{\"reset\":true,");
	ask(s, 1, "0123456789abcdef:9", false);
	assert_heard(s, 1, "\"changes\":[{\"op\":\"put\",\"name\":\"a\",");
	assert_int_equal(count(s, 1, "\"name\""), 2); /* once: the change and its record */
	scene_close(s);
}

static void who_leaves_is_forgotten(void **state) {
	struct scene *s = scene_open();

	ask(s, 0, NULL, true);
	ask(s, 1, "0123456789abcdef:7", false);
	assert_int_equal(s->watchers.n, 2);
	for (unsigned i = 0; i < 2; i++) {
		rig_reset(s->fds[i]);
		s->fds[i] = 0;
	}
	rig_until(&s->rig, s->watchers.n == 0);
	put(s, "a");
	still_pass(&s->rig, 2 * WATCHERS_POLL_MS);
	assert_int_equal(s->watchers.n_events, 0);
	scene_close(s);
}

static void at_the_end_all_hear_the_last_news(void **state) {
	struct scene *s = scene_open();

	ask(s, 0, NULL, true);
	ask(s, 1, "0123456789abcdef:7", false);
	ask(s, 2, "0123456789abcdef:7", true);
	put(s, "a"); /* its job has not run yet */
	watchers_close(&s->watchers);
	for (unsigned i = 0; i < 3; i++)
		assert_heard(s, i, "\"version\":8,\"changes\":[{\"op\":\"put\",\"name\":\"a\",");
	assert_heard(s, 0, "\r\n0\r\n\r\n");
	assert_heard(s, 2, "\r\n0\r\n\r\n");
	ask(s, 3, NULL, true);
	assert_heard(s, 3, "HTTP/1.1 503 ");
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_changes_of_a_turn_are_one_event_printed_once),
		cmocka_unit_test(a_reset_is_kept_once_however_many_wait_for_it),
		cmocka_unit_test(who_is_swept_out_is_not_who_was_deleted),
		cmocka_unit_test(a_silent_stream_says_that_it_lives),
		cmocka_unit_test(nobody_new_is_told_without_memory),
		cmocka_unit_test(a_long_poll_ends_without_news),
		cmocka_unit_test(what_was_overtaken_is_no_news),
		cmocka_unit_test(who_is_too_far_behind_begins_anew),
		cmocka_unit_test(who_leaves_is_forgotten),
		cmocka_unit_test(at_the_end_all_hear_the_last_news),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
