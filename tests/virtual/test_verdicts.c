/*
 * Keys that are none of ours: who is asked about them, how often, what becomes of those who wait, and what is
 * remembered. The servers of keys are engines of the fake network that are not in the fleet.
 */
#include "virtual/expect.h"

#define FIRST  50 /* engines of the network that know keys */
#define SECOND 51

#define TIMEOUT_MS 300u
#define GOOD_MS    60000u
#define BAD_MS     10000u
#define GRACE_MS   20000u

#define VALID    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
#define INVALID  "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"
#define BROKEN   "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
#define QUESTION "GET /check?scope=a HTTP/1.1"

static const char *const urls[] = { "http://10.0.0.51:80/check?scope=a", "http://10.0.0.52:80" };

/* The tenant whose a configured key is, and the one of who is valid by the servers. */
enum { OURS = 1, THEIRS };

static const struct tenant tenants[] = { { .name = "ours", .weight = 1 },
	{ .name = "theirs", .weight = 1, .requests_per_minute = 2 } };

/* A world that asks so many servers. */
static struct world *asking(size_t n_urls) {
	struct world *w = WORLD("m");
	const struct verdict_options options = { { urls, n_urls }, { GOOD_MS, BAD_MS, GRACE_MS },
		TIMEOUT_MS };
	const char *url;

	w->config.validation.urls = options.urls;
	w->worker.digester = digester_new();
	w->router.verdicts = verdicts_new(&w->control, &options, &url);
	assert_non_null(w->router.verdicts);
	return w;
}

static struct peer *get_as(struct world *w, const char *fields) {
	char text[256];

	snprintf(text, sizeof(text), "GET /x HTTP/1.1\r\nhost: h\r\n%s\r\n", fields);
	return ask(w, text);
}

#define AS(key) "authorization: Bearer " key "\r\n"

/* The server's newest connection, which has this question. */
static struct peer *expect_question(int server, const char *line, const char *key) {
	struct peer *p = net_newest(server);
	struct parsed m = expect_request_head(p, line);
	char text[TENANT_KEY_MAX + 16];

	snprintf(text, sizeof(text), "Bearer %s", key);
	expect_field(&m, "authorization", text);
	parsed_deinit(&m);
	return p;
}

static void expect_served(struct world *w, struct peer *client) {
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
}

/* It is let in without a question. */
static void expect_known(struct world *w, const char *fields) {
	unsigned n_questions = net_n_connects(FIRST);

	expect_served(w, get_as(w, fields));
	assert_int_equal(net_n_connects(FIRST), n_questions);
}

static uint64_t n_waiting(const struct world *w) {
	return w->worker.inquiries.n_lent;
}

/* --- what servers say ---------------------------------------------------------------------- */

static void test_a_valid_key_is_asked_about_once(void **state) {
	struct world *w = asking(1);
	struct peer *client = get_as(w, AS("key-a"));
	struct peer *server = expect_question(FIRST, QUESTION, "key-a");

	expect_nothing(client);
	assert_null(net_newest(0)); /* no engine has heard of it yet */
	say(w, server, VALID);
	struct parsed m = expect_message(net_newest(0), PARSED_REQUEST);
	expect_no_field(&m, "authorization"); /* keys are for who checks them */
	parsed_deinit(&m);
	expect_served(w, client);
	expect_known(w, AS("key-a"));
	expect_known(w, "x-api-key: key-a\r\n");
	assert_int_equal(metric_read(&w->worker.metrics->verdicts_valid), 2);
	world_pass(w, GOOD_MS);
	client = get_as(w, AS("key-a"));
	say(w, expect_question(FIRST, QUESTION, "key-a"), VALID);
	expect_served(w, client);
	assert_int_equal(net_n_connects(FIRST), 2);
	assert_false(parsed_has(bytes_slice(&w->log), "key-"));
	expect_end(w, 4);
}

static void test_an_invalid_key_is_refused_and_remembered(void **state) {
	struct world *w = asking(1);
	struct peer *client = get_as(w, AS("key-b"));

	say(w, expect_question(FIRST, QUESTION, "key-b"), INVALID);
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 401, NULL);
	expect_field(&m, "www-authenticate", "Bearer");
	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"invalid_api_key\""));
	parsed_deinit(&m);
	expect_logged(w, 401, "invalid_key");
	expect_refusal(get_as(w, AS("key-b")), 401, "invalid_api_key");
	assert_int_equal(net_n_connects(FIRST), 1);
	assert_int_equal(metric_read(&w->worker.metrics->verdicts_invalid), 1);
	assert_int_equal(metric_read(&w->worker.metrics->keys_refused), 2);
	world_pass(w, BAD_MS);
	client = get_as(w, AS("key-b")); /* it may have become valid */
	say(w, expect_question(FIRST, QUESTION, "key-b"), VALID);
	expect_served(w, client);
	expect_end(w, 3);
}

static void test_what_is_no_key_is_asked_nobody(void **state) {
	static const char *const fields[] = { "", "authorization: Basic dTpw\r\n",
		"authorization: Bearer two words\r\n", "authorization: Bearer \xe9\r\n",
		AS("key-a") "x-api-key: key-b\r\n" };
	struct world *w = asking(1);

	for (unsigned i = 0; i < n_elems(fields); i++)
		expect_refusal(get_as(w, fields[i]), 401, "invalid_api_key");
	expect_refusal(get_as(w, AS("key-a") AS("key-a")), 400, "bad_request");
	expect_answer(ask(w, "GET /health HTTP/1.1\r\nhost: h\r\n\r\n"), 200, NULL); /* needs none */
	assert_null(net_newest(-1));
	expect_end(w, n_elems(fields) + 2);
}

static void test_one_of_several_is_enough(void **state) {
	struct world *w = asking(2);
	struct peer *client = get_as(w, AS("key-a"));

	say(w, expect_question(FIRST, QUESTION, "key-a"), INVALID);
	expect_nothing(client);
	say(w, expect_question(SECOND, "GET / HTTP/1.1", "key-a"), VALID);
	expect_served(w, client);

	client = get_as(w, AS("key-b")); /* who has not answered by then is not waited for */
	struct peer *silent = expect_question(FIRST, QUESTION, "key-b");
	say(w, expect_question(SECOND, "GET / HTTP/1.1", "key-b"), VALID);
	expect_served(w, client);
	expect_closed(silent);

	client = get_as(w, AS("key-c"));
	say(w, net_newest(SECOND), INVALID);
	say(w, net_newest(FIRST), INVALID);
	expect_refusal(client, 401, "invalid_api_key");
	expect_end(w, 3);
}

/* One that says no is not enough where another one says nothing: the key may be that one's. */
static void test_no_word_is_no_verdict(void **state) {
	static const char *const words[] = { BROKEN,
		"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n", "SSH-2.0-x\r\n" };
	struct world *w = asking(2);

	for (unsigned i = 0; i < n_elems(words); i++) {
		struct peer *client = get_as(w, AS("key-a"));

		say(w, expect_question(FIRST, QUESTION, "key-a"), words[i]);
		say(w, expect_question(SECOND, "GET / HTTP/1.1", "key-a"), INVALID);
		struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 503, NULL);
		assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"upstream_failed\""));
		expect_field(&m, "retry-after", "1");
		parsed_deinit(&m);
		expect_logged(w, 503, "key_unverified");
	}
	assert_int_equal(metric_read(&w->worker.metrics->keys_refused), 0);
	expect_end(w, n_elems(words));
}

static void test_an_endless_answer_is_an_answer(void **state) {
	struct world *w = asking(1);
	struct peer *client = get_as(w, AS("key-a"));
	struct peer *server = expect_question(FIRST, QUESTION, "key-a");

	say(w, server, "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n[");
	expect_served(w, client);
	expect_closed(server);
	expect_end(w, 1);
}

/* --- servers that are away ------------------------------------------------------------------- */

static void test_a_dead_server_is_told_as_such(void **state) {
	struct world *w = asking(1);

	net.moods[FIRST][0] = MOOD_REFUSE;
	expect_refusal(get_as(w, AS("key-a")), 503, "upstream_failed");
	net.moods[FIRST][0] = MOOD_SILENT;
	struct peer *client = get_as(w, AS("key-a"));
	world_pass(w, TIMEOUT_MS - 1);
	expect_nothing(client);
	world_pass(w, 2);
	expect_refusal(client, 503, "upstream_failed");
	net.moods[FIRST][0] = MOOD_ACCEPT; /* nothing of that is remembered */
	client = get_as(w, AS("key-a"));
	say(w, expect_question(FIRST, QUESTION, "key-a"), VALID);
	expect_served(w, client);
	expect_end(w, 3);
}

static void test_a_good_verdict_is_used_on_while_nobody_answers(void **state) {
	struct world *w = asking(1);
	struct peer *client = get_as(w, AS("key-a"));

	say(w, expect_question(FIRST, QUESTION, "key-a"), VALID);
	expect_served(w, client);
	net.moods[FIRST][0] = MOOD_REFUSE;
	world_pass(w, GOOD_MS);
	expect_served(w, get_as(w, AS("key-a")));
	assert_int_equal(metric_read(&w->worker.metrics->verdicts_stale), 1);
	expect_known(w, AS("key-a")); /* it is not tried again for each request */
	expect_refusal(get_as(w, AS("key-b")), 503, "upstream_failed");
	world_pass(w, GRACE_MS); /* from when it was over */
	expect_refusal(get_as(w, AS("key-a")), 503, "upstream_failed");
	expect_end(w, 5);
}

static void test_a_no_ends_the_grace(void **state) {
	struct world *w = asking(1);
	struct peer *client = get_as(w, AS("key-a"));

	say(w, expect_question(FIRST, QUESTION, "key-a"), VALID);
	expect_served(w, client);
	world_pass(w, GOOD_MS);
	client = get_as(w, AS("key-a"));
	say(w, expect_question(FIRST, QUESTION, "key-a"), INVALID);
	expect_refusal(client, 401, "invalid_api_key");
	world_pass(w, BAD_MS);
	net.moods[FIRST][0] = MOOD_REFUSE;
	expect_refusal(get_as(w, AS("key-a")), 503, "upstream_failed");
	expect_end(w, 3);
}

/* --- who waits -------------------------------------------------------------------------------- */

static void test_many_with_one_key_ask_once(void **state) {
	struct world *w = asking(1);
	struct peer *clients[20];

	for (unsigned i = 0; i < n_elems(clients); i++)
		clients[i] = get_as(w, AS("key-a"));
	assert_int_equal(net_n_connects(FIRST), 1);
	assert_int_equal(n_waiting(w), n_elems(clients));
	say(w, expect_question(FIRST, QUESTION, "key-a"), INVALID);
	for (unsigned i = 0; i < n_elems(clients); i++)
		expect_refusal(clients[i], 401, "invalid_api_key");
	assert_int_equal(n_waiting(w), 0);
	expect_end(w, n_elems(clients));
}

static void test_who_leaves_waits_no_longer(void **state) {
	struct world *w = asking(1);
	struct peer *a = get_as(w, AS("key-a")), *b = get_as(w, AS("key-a"));

	peer_break(a);
	world_settle(w);
	expect_closed(a);
	expect_logged(w, 499, "client_gone");
	assert_int_equal(n_waiting(w), 1);
	say(w, expect_question(FIRST, QUESTION, "key-a"), VALID);
	expect_served(w, b);

	a = get_as(w, AS("key-c")); /* the answer is of use even if nobody is there to hear it */
	peer_break(a);
	world_settle(w);
	assert_int_equal(n_waiting(w), 0);
	say(w, expect_question(FIRST, QUESTION, "key-c"), VALID);
	expect_known(w, AS("key-c"));
	expect_end(w, 4);
}

static void turn_worker(struct world *w) {
	net_poll();
	loop_turn(&w->worker.loop);
	w->worker.loop.is_in_turn = false;
	net_end_turn();
}

static void turn_control(struct world *w) {
	loop_deliver(&w->control);
	loop_turn(&w->control);
	w->control.is_in_turn = false;
}

/* In the turn in which it came, and with its verdict on its way back. */
static void test_who_leaves_at_any_moment(void **state) {
	struct world *w = asking(1);
	struct peer *a = net_client();

	peer_says(a, "GET /x HTTP/1.1\r\nhost: h\r\n" AS("key-a") "\r\n");
	turn_worker(w);
	turn_worker(w);
	assert_int_equal(n_waiting(w), 1);
	peer_break(a);
	turn_worker(w);
	expect_closed(a);
	world_settle(w);
	assert_int_equal(n_waiting(w), 0);
	assert_int_equal(net_n_connects(FIRST), 0); /* it was taken back before it was put */

	a = get_as(w, AS("key-a"));
	peer_says(net_newest(FIRST), VALID);
	net_poll();
	turn_control(w);
	assert_non_null(atomic_load(&w->worker.loop.inbox)); /* the verdict */
	peer_break(a);
	turn_worker(w);
	expect_closed(a);
	assert_int_equal(n_waiting(w), 1);
	world_settle(w);
	assert_int_equal(n_waiting(w), 0);
	expect_end(w, 2);
}

static void test_a_body_waits_in_the_socket(void **state) {
	struct world *w = asking(1);
	struct peer *client = ask(w,
	    "POST " CHAT " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n" AS(
		"key-a") "content-length: 13\r\n\r\n{\"mod");

	say(w, client, "el\":\"m\"}");
	expect_nothing(client);
	say(w, expect_question(FIRST, QUESTION, "key-a"), VALID);
	expect_request(net_newest(0), "POST " CHAT " HTTP/1.1", "{\"model\":\"m\"}");
	expect_served(w, client);
	expect_end(w, 1);
}

/* The control thread does nothing any more. */
static void test_nobody_waits_for_ever(void **state) {
	struct world *w = asking(1);
	struct peer *client = get_as(w, AS("key-a"));

	world_pause(2 * TIMEOUT_MS + 1);
	for (unsigned i = 0; i < 4; i++)
		turn_worker(w);
	expect_refusal(client, 503, "upstream_failed");
	world_settle(w);
	expect_end(w, 1);
}

static void test_a_flood_of_keys_is_bounded(void **state) {
	struct world *w = asking(1);
	struct peer *clients[VERDICT_QUESTIONS_MAX];
	char fields[64];

	struct peer *known = get_as(w, AS("known"));
	say(w, expect_question(FIRST, QUESTION, "known"), VALID);
	expect_served(w, known);
	known = get_as(w, AS("old"));
	say(w, expect_question(FIRST, QUESTION, "old"), VALID);
	expect_served(w, known);
	world_pass(w, GOOD_MS - 1000);
	known = get_as(w, AS("new"));
	say(w, expect_question(FIRST, QUESTION, "new"), VALID);
	expect_served(w, known);
	world_pass(w, 1000);
	for (unsigned i = 0; i < VERDICT_QUESTIONS_MAX; i++) {
		snprintf(fields, sizeof(fields), "x-api-key: flood-%u\r\n", i);
		clients[i] = get_as(w, fields);
	}
	assert_int_equal(net_n_connects(FIRST), 3 + VERDICT_QUESTIONS_MAX);
	struct peer *client = get_as(w, "x-api-key: one-more\r\n");
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 503, NULL);
	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"overloaded\""));
	expect_field(&m, "retry-after", "1");
	parsed_deinit(&m);
	expect_logged(w, 503, "keys_busy");
	expect_known(w, AS("new"));
	expect_known(w, AS("old")); /* it has expired, but was good */
	struct peer *joined = get_as(w, "x-api-key: flood-0\r\n");
	world_pass(w, TIMEOUT_MS + 1);
	for (unsigned i = 0; i < VERDICT_QUESTIONS_MAX; i++)
		expect_refusal(clients[i], 503, "upstream_failed");
	expect_refusal(joined, 503, "upstream_failed");
	client = get_as(w, "x-api-key: one-more\r\n"); /* there is room again */
	say(w, expect_question(FIRST, QUESTION, "one-more"), VALID);
	expect_served(w, client);
	expect_end(w, 8 + VERDICT_QUESTIONS_MAX);
}

static void test_a_stop_tells_who_waits(void **state) {
	struct world *w = asking(1);
	struct peer *client = get_as(w, AS("key-a"));

	list_each_safe (it, &w->worker.active)
		exchange_kill(container_of(it, struct exchange, link), CAUSE_STOPPING);
	expect_refusal(client, 503, "overloaded");
	verdicts_close(w->router.verdicts);
	world_settle(w);
	assert_int_equal(n_waiting(w), 0);
	expect_refusal(get_as(w, AS("key-b")), 503, "upstream_failed");
	assert_int_equal(net_n_connects(FIRST), 1);
	expect_end(w, 2);
}

/* --- whose they are --------------------------------------------------------------------------- */

static void test_our_keys_come_first(void **state) {
	struct world *w = asking(1);
	struct tenant_table *table = tenant_table_new(tenants, n_elems(tenants));
	uint8_t digest[DIGEST_BYTES];

	digester_sha256(w->worker.digester, SLICE("our-key"), digest);
	assert_int_equal(tenant_table_add(table, OURS, digest), 0);
	w->config.tenants = table;
	w->config.validation.tenant = THEIRS;
	world_reload(w);
	for (unsigned i = 0; i < 4; i++)
		expect_served(w, get_as(w, AS("our-key")));
	assert_int_equal(net_n_connects(FIRST), 0);
	assert_int_equal(metric_read(&w->worker.tenants[tenant_get(table, OURS)->label].n_requests), 4);

	struct peer *client = get_as(w, AS("their-key"));
	say(w, expect_question(FIRST, QUESTION, "their-key"), VALID);
	expect_served(w, client);
	expect_known(w, AS("their-key"));
	expect_refusal(get_as(w, AS("their-key")), 429, "rate_limit_exceeded"); /* of that tenant */
	assert_int_equal(metric_read(&w->worker.tenants[tenant_get(table, THEIRS)->label].n_requests), 3);
	expect_end(w, 7);
	tenant_table_free(&table);
}

static void test_keys_may_go_on(void **state) {
	struct world *w = asking(1);

	w->config.passes_keys = true;
	struct peer *client = get_as(w, AS("key-a"));
	say(w, expect_question(FIRST, QUESTION, "key-a"), VALID);
	struct parsed m = expect_message(net_newest(0), PARSED_REQUEST);
	expect_field(&m, "authorization", "Bearer key-a");
	parsed_deinit(&m);
	expect_served(w, client);
	expect_end(w, 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_valid_key_is_asked_about_once),
		cmocka_unit_test(test_an_invalid_key_is_refused_and_remembered),
		cmocka_unit_test(test_what_is_no_key_is_asked_nobody),
		cmocka_unit_test(test_one_of_several_is_enough),
		cmocka_unit_test(test_no_word_is_no_verdict),
		cmocka_unit_test(test_an_endless_answer_is_an_answer),
		cmocka_unit_test(test_a_dead_server_is_told_as_such),
		cmocka_unit_test(test_a_good_verdict_is_used_on_while_nobody_answers),
		cmocka_unit_test(test_a_no_ends_the_grace),
		cmocka_unit_test(test_many_with_one_key_ask_once),
		cmocka_unit_test(test_who_leaves_waits_no_longer),
		cmocka_unit_test(test_who_leaves_at_any_moment),
		cmocka_unit_test(test_a_body_waits_in_the_socket),
		cmocka_unit_test(test_nobody_waits_for_ever),
		cmocka_unit_test(test_a_flood_of_keys_is_bounded),
		cmocka_unit_test(test_a_stop_tells_who_waits),
		cmocka_unit_test(test_our_keys_come_first),
		cmocka_unit_test(test_keys_may_go_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
