/* What engines refuse goes to others, after a while, and as often as the budget allows. */
#include "virtual/expect.h"

#define BODY    "{\"model\":\"m\"}"
#define BUSY    "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"
#define BUSY_5S "HTTP/1.1 503 Busy\r\nretry-after: 5\r\ncontent-length: 4\r\n\r\nbusy"
#define BUSY_1S "HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\nbusy"

static struct world *world_of(uint32_t attempts) {
	struct world *w = WORLD("m", "m", "m");

	w->config.retry.attempts = attempts;
	return w;
}

/* The end of the last line of the log. */
static void expect_logged_no_retry(const struct world *w, const char *why) {
	const char *end = w->log.p + w->log.n, *begin = memrchr(w->log.p, '{', w->log.n);
	char text[64];

	snprintf(text, sizeof(text), "\"no_retry\":\"%s\"", why ? why : "");
	assert_int_equal(
	    parsed_has((struct slice){ begin, (size_t)(end - begin) }, why ? text : "\"no_retry\""),
	    why != NULL);
}

static uint64_t n_retried(const struct world *w) {
	return metric_read(&w->worker.metrics->retries);
}

/* The wait before a retry is over; who has the request now? */
static struct peer *next_engine(struct world *w, const struct peer *last, uint64_t ms) {
	world_pass(w, ms);
	struct peer *engine = net_newest(-1);
	assert_ptr_not_equal(engine, last);
	return engine;
}

static void test_a_refusal_goes_to_another(void **state) {
	struct world *w = world_of(3);
	struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);

	say(w, first, BUSY);
	expect_nothing(client);
	world_pass(w, 49);
	assert_ptr_equal(net_newest(-1), first); /* not at once */
	struct peer *second = next_engine(w, first, 2);
	assert_int_not_equal(second->engine, first->engine);
	expect_request(second, "POST " CHAT " HTTP/1.1", BODY);
	say(w, second, BUSY);
	struct peer *third = next_engine(w, second, 101);
	assert_true(third->engine != first->engine && third->engine != second->engine);
	say(w, third, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_logged(w, 200, "none");
	assert_int_equal(n_retried(w), 2);
	expect_end(w, 1);
}

static void test_the_last_refusal_is_the_clients(void **state) {
	struct world *w = world_of(2);
	struct peer *client = post(w, CHAT, BODY);

	say(w, net_newest(-1), BUSY);
	world_pass(w, 51);
	say(w, net_newest(-1), BUSY_5S);
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 503, "busy");
	expect_field(&m, "retry-after", "5");
	parsed_deinit(&m);
	assert_int_equal(net_n_connects(-1), 2);
	expect_end(w, 1);
}

static void test_none_without_attempts(void **state) {
	struct world *w = world_of(1);
	struct peer *client = post(w, CHAT, BODY);

	say(w, net_newest(-1), BUSY);
	expect_answer(client, 503, "busy");
	assert_int_equal(n_retried(w), 0);
	expect_end(w, 1);
}

/* Only what says that nothing was done. */
static void test_other_answers_are_no_refusals(void **state) {
	static const char *const answers[] = { "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno",
		"HTTP/1.1 502 No\r\ncontent-length: 2\r\n\r\nno",
		"HTTP/1.1 504 No\r\ncontent-length: 2\r\n\r\nno",
		"HTTP/1.1 408 No\r\ncontent-length: 2\r\n\r\nno",
		"HTTP/1.1 400 No\r\ncontent-length: 2\r\n\r\nno" };
	struct world *w = world_of(3);

	for (unsigned i = 0; i < n_elems(answers); i++) {
		struct peer *client = post(w, CHAT, BODY), *engine = net_newest(-1);
		say(w, engine, answers[i]);
		expect_answer(client, (unsigned)strtoul(answers[i] + 9, NULL, 10), "no");
		peer_close(engine);
		peer_close(client);
		world_settle(w);
	}
	assert_int_equal(n_retried(w), 0);
	expect_end(w, n_elems(answers));
}

/* Of two engines both have refused: the first may be asked again. */
static void test_who_refused_is_asked_again_when_nobody_else_is_left(void **state) {
	struct world *w = WORLD("m", "m");
	w->config.retry.attempts = 3;
	struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);

	say(w, first, BUSY);
	struct peer *second = next_engine(w, first, 51);
	say(w, second, BUSY);
	struct peer *third = next_engine(w, second, 101);
	assert_int_equal(third->engine == first->engine || third->engine == second->engine, true);
	say(w, third, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static struct peer *post_much(struct world *w, size_t n) {
	char *text = malloc(n + 1);

	memset(text, ' ', n);
	memcpy(text, BODY, strlen(BODY));
	text[n] = '\0';
	w->config.body_limit_bytes = 8u << 20;
	struct peer *client = post(w, CHAT, text);
	free(text);
	return client;
}

static void test_a_large_body_is_not_sent_again(void **state) {
	struct world *w = world_of(3);
	struct peer *client = post_much(w, 1600000);

	say(w, net_newest(-1), BUSY);
	expect_answer(client, 503, "busy");
	expect_logged_no_retry(w, "not_replayable");
	assert_int_equal(n_retried(w), 0);
	expect_end(w, 1);
}

static void test_why_it_is_not_sent_again_is_said(void **state) {
	for (unsigned i = 0; i < 4; i++) {
		static const char *const words[] = { NULL, "attempts", "may_have_begun", "answer_began" };
		struct world *w = world_of(2);
		struct peer *client = post(w, CHAT, BODY), *engine = net_newest(-1);

		if (i < 2) {
			say(w, engine, BUSY);
			say(w, next_engine(w, engine, 51), i ? BUSY : ANSWER_OK);
			expect_answer(client, i ? 503 : 200, i ? "busy" : "ok");
		} else {
			peer_says(engine, i == 2 ? "" : "HTTP/1.1 ");
			peer_close(engine);
			world_settle(w);
			expect_refusal(client, 502, "upstream_failed");
		}
		expect_logged_no_retry(w, words[i]);
		expect_end(w, 1);
	}
}

static void test_why_it_is_not_waited_for_is_said(void **state) {
	struct world *w = WORLD("m");
	w->config.retry.attempts = 3;
	struct peer *client = post(w, CHAT, BODY);

	say(w, net_newest(-1), BUSY_5S);
	expect_answer(client, 503, "busy");
	expect_logged_no_retry(w, "retry_after");
	expect_end(w, 1);
}

/* It asked for time: others do not go there meanwhile, and that is no failure of it. */
static void test_retry_after_is_honoured(void **state) {
	struct world *w = world_of(2);
	struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);
	int rests = first->engine;

	say(w, first, BUSY_5S);
	say(w, next_engine(w, first, 51), ANSWER_OK);
	expect_answer(client, 200, "ok");
	peer_close(net_newest(-1));
	world_settle(w);
	for (unsigned i = 0; i < 6; i++) {
		client = post(w, CHAT, BODY);
		assert_int_not_equal(net_newest(-1)->engine, rests);
		say(w, net_newest(-1), ANSWER_OK);
		expect_answer(client, 200, "ok");
		peer_close(net_newest(-1));
		world_settle(w);
	}
	world_pass(w, 5000);
	unsigned n_back = 0;
	for (unsigned i = 0; i < 6; i++) {
		client = post(w, CHAT, BODY);
		n_back += net_newest(-1)->engine == rests;
		say(w, net_newest(-1), ANSWER_OK);
		expect_answer(client, 200, "ok");
		peer_close(net_newest(-1));
		world_settle(w);
	}
	assert_in_range(n_back, 1, 3);
	assert_int_equal(metric_read(&w->worker.metrics->connect_failures), 0);
	expect_end(w, 13);
}

#define BUSY_SAYS "HTTP/1.1 503 Busy\r\nX-Should-Retry: true\r\ncontent-length: 4\r\n\r\nbusy"

/* What we have tried again, or may not for the budget, clients are not to try as often once more. */
static void test_clients_do_not_repeat_what_was_retried(void **state) {
	static const struct {
		uint32_t attempts;
		double budget;
		const char *answer, *field; /* of the last one */
	} rows[] = {
		{ 2, 1, BUSY, "false" }, { 2, 1, BUSY_SAYS, "true" }, /* the engine knows */
		{ 2, 1, "HTTP/1.1 500 Busy\r\ncontent-length: 4\r\n\r\nbusy", NULL }, { 2, 0, BUSY, "false" },
		{ 1, 1, BUSY, NULL }, /* nothing was multiplied, and nobody forbids it */
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct world *w = world_of(rows[i].attempts);
		w->config.retry.budget = rows[i].budget;
		struct peer *client = post(w, CHAT, BODY), *engine = net_newest(-1);

		say(w, engine, BUSY);
		if (rows[i].attempts > 1 && rows[i].budget > 0)
			say(w, next_engine(w, engine, 51), rows[i].answer);
		struct parsed m = expect_message(client, PARSED_RESPONSE);
		assert_true(m.is_whole);
		expect_body(&m, "busy");
		if (rows[i].field)
			expect_field(&m, "x-should-retry", rows[i].field);
		else
			expect_no_field(&m, "x-should-retry");
		parsed_deinit(&m);
		expect_end(w, 1);
	}
}

/* The only engine wants a second: that is waited for; five are the client's to wait. */
static void test_the_only_engine_is_given_its_time(void **state) {
	struct world *w = WORLD("m");
	w->config.retry.attempts = 3;
	struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);

	say(w, first, BUSY_1S);
	world_pass(w, 999);
	assert_ptr_equal(net_newest(-1), first);
	struct peer *second = next_engine(w, first, 2);
	say(w, second, BUSY_5S);
	expect_answer(client, 503, "busy");
	expect_end(w, 1);
}

static void test_a_client_that_leaves_ends_the_wait(void **state) {
	struct world *w = world_of(3);
	struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);

	say(w, first, BUSY);
	peer_close(client);
	world_pass(w, 200);
	assert_ptr_equal(net_newest(-1), first);
	expect_logged(w, 499, "client_gone");
	expect_end(w, 1);
}

/* What was waited for may not be paid twice over: ten requests that fail are two retries, and the free ones.
 */
static void test_the_budget_bounds_them(void **state) {
	struct world *w = world_of(4);
	w->config.retry.budget = 0.2;
	unsigned n_free = 3;

	for (unsigned i = 0; i < 10; i++) {
		struct peer *client = post(w, CHAT, BODY), *engine = net_newest(-1), *last = NULL;
		while (engine != last) {
			last = engine;
			say(w, engine, BUSY);
			world_pass(w, 500);
			engine = net_newest(-1);
		}
		expect_answer(client, 503, "busy");
		if (i == 9)
			expect_logged_no_retry(w, "budget");
		peer_close(client);
		peer_close(engine);
		world_settle(w);
	}
	assert_in_range(n_retried(w), n_free, n_free + 4); /* some of the time passes */
	assert_true(metric_read(&w->worker.metrics->retries_denied) >= 4);
	expect_end(w, 10);
}

/* A body that is still arriving goes on to where the request goes. */
static void test_a_body_that_arrives_meanwhile_is_whole(void **state) {
	struct world *w = world_of(3);
	struct peer *client = post_part(w, "/x", 7, "[1,"), *first = net_newest(-1);

	say(w, first, BUSY);
	say(w, client, "2,");
	struct peer *second = next_engine(w, first, 51);
	say(w, client, "3]");
	expect_request(second, "POST /x HTTP/1.1", "[1,2,3]");
	say(w, second, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* What the engine may have begun is repeated only where that is allowed. */
static void test_sent_requests_are_repeated_if_allowed(void **state) {
	for (unsigned allowed = 0; allowed < 2; allowed++) {
		struct world *w = world_of(2);
		w->config.retry.sent = allowed;
		struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);

		peer_finish(first);
		world_settle(w);
		if (allowed) {
			struct peer *second = next_engine(w, first, 51);
			assert_int_not_equal(second->engine, first->engine);
			say(w, second, ANSWER_OK);
			expect_answer(client, 200, "ok");
		} else {
			expect_refusal(client, 502, "upstream_failed");
		}
		assert_int_equal(n_retried(w), allowed);
		expect_end(w, 1);
	}
}

/* Each attempt says something of its engine: a 502 that was moved on is its fault all the same. */
static void test_each_attempt_is_settled(void **state) {
	struct world *w = world_of(2);
	w->config.retry.refusals |= 1u << RETRY_502;
	struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);
	uint64_t n_faults = 0, n_good = 0, n_requests = 0;

	say(w, first, "HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n");
	say(w, next_engine(w, first, 51), ANSWER_OK);
	expect_answer(client, 200, "ok");
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++) {
		n_faults += metric_read(&w->worker.tallies[slot].n_faults);
		n_good += metric_read(&w->worker.tallies[slot].n_good);
		n_requests += metric_read(&w->worker.tallies[slot].n_requests);
	}
	assert_true(n_faults == 1 && n_good == 1 && n_requests == 2);
	expect_end(w, 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_refusal_goes_to_another),
		cmocka_unit_test(test_the_last_refusal_is_the_clients),
		cmocka_unit_test(test_none_without_attempts),
		cmocka_unit_test(test_other_answers_are_no_refusals),
		cmocka_unit_test(test_who_refused_is_asked_again_when_nobody_else_is_left),
		cmocka_unit_test(test_a_large_body_is_not_sent_again),
		cmocka_unit_test(test_why_it_is_not_sent_again_is_said),
		cmocka_unit_test(test_why_it_is_not_waited_for_is_said),
		cmocka_unit_test(test_retry_after_is_honoured),
		cmocka_unit_test(test_clients_do_not_repeat_what_was_retried),
		cmocka_unit_test(test_the_only_engine_is_given_its_time),
		cmocka_unit_test(test_a_client_that_leaves_ends_the_wait),
		cmocka_unit_test(test_the_budget_bounds_them),
		cmocka_unit_test(test_a_body_that_arrives_meanwhile_is_whole),
		cmocka_unit_test(test_sent_requests_are_repeated_if_allowed),
		cmocka_unit_test(test_each_attempt_is_settled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
