/* What may be sent again, to whom, and what never. */
#include "virtual/expect.h"

static const char *const no_body_post = "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc";

static uint64_t n_retries(const struct world *w) {
	return metric_read(&w->worker.metrics->unsent_retries);
}

/* The engine's connection for which a first request was answered, idle in the pool. */
static struct peer *pooled(struct world *w) {
	struct peer *client = ask(w, GET), *engine = net_newest(-1);
	expect_request(engine, "GET /x HTTP/1.1", "");
	say(w, engine, ANSWER_OK);
	peer_close(client);
	world_settle(w);
	assert_false(engine->was_closed);
	return engine;
}

/* --- connects ---------------------------------------------------------------------------- */

static void test_refused_connect_moves_on_and_avoids(void **state) {
	struct world *w = WORLD("m", "m");
	net.moods[0][0] = MOOD_REFUSE;
	for (unsigned i = 0; i < 6; i++) {
		struct peer *client = post(w, CHAT, "{\"model\":\"m\"}"), *engine = net_newest(1);
		expect_request(engine, "POST " CHAT " HTTP/1.1", "{\"model\":\"m\"}");
		say(w, engine, ANSWER_OK);
		expect_answer(client, 200, "ok");
		expect_logged(w, 200, "none");
	}
	assert_int_equal(net_n_connects(0), 1);
	assert_int_equal(metric_read(&w->worker.metrics->connect_failures), 1);
	assert_int_equal(n_retries(w), 0); /* nothing was sent to it */
	expect_end(w, 6);
}

static void test_avoidance_ends_and_doubles(void **state) {
	struct world *w = WORLD("m", "m");
	net.moods[0][0] = MOOD_REFUSE;
	unsigned n_requests = 0, connects[8] = { 0 };
	for (unsigned second = 0; second < 8; second++) {
		for (unsigned i = 0; i < 4; i++, n_requests++) {
			struct peer *client = ask(w, GET);
			say(w, net_newest(1), ANSWER_OK);
			expect_answer(client, 200, "ok");
		}
		connects[second] = net_n_connects(0);
		world_pass(w, 1001);
	}
	/* Refused in the seconds 0, 1 and 3, and the fourth wait is of 8 s: (1, 2, 4). */
	static const unsigned expected[8] = { 1, 2, 2, 3, 3, 3, 3, 4 };
	assert_memory_equal(connects, expected, sizeof(expected));
	expect_end(w, n_requests);
}

static void test_all_refuse(void **state) {
	struct world *w = WORLD("m", "m", "m");
	for (unsigned i = 0; i < 3; i++)
		net.moods[i][0] = MOOD_REFUSE;
	for (unsigned i = 0; i < 2; i++) { /* the second time all are avoided, and tried all the same */
		struct peer *client = ask(w, GET);
		struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 502, NULL);
		assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"upstream_failed\""));
		expect_field(&m, "retry-after", "1");
		parsed_deinit(&m);
		expect_logged(w, 502, "connect_failed");
		assert_int_equal(net_n_connects(-1), 3 * (i + 1));
	}
	expect_end(w, 2);
}

/* Twelve engines, or more, may well be down: the one that is not is found. */
static void test_many_refuse(void **state) {
	struct world *w = WORLD("m");
	for (unsigned i = 1; i < 13; i++) {
		world_set_engine(w, i, "m", 1);
		net.moods[i][0] = MOOD_REFUSE;
	}
	for (unsigned i = 0; i < 13; i++) { /* whoever is first in turn */
		struct peer *client = ask(w, GET);
		say(w, net_newest(0), ANSWER_OK);
		expect_answer(client, 200, "ok");
	}
	assert_int_equal(net_n_connects(-1), 13);
	expect_end(w, 13);
}

static void test_tries_have_an_end(void **state) {
	struct world *w = WORLD("m");
	for (unsigned i = 1; i < 66; i++)
		world_set_engine(w, i, "m", 1);
	for (unsigned i = 0; i < 66; i++)
		net.moods[i][0] = MOOD_REFUSE;
	expect_refusal(ask(w, GET), 502, "upstream_failed");
	assert_int_equal(net_n_connects(-1), 64);
	expect_end(w, 1);
}

static void test_all_addresses_are_tried(void **state) {
	struct world *w = WORLD("m");
	world_set_engine(w, 0, "m", 2);
	net.moods[0][0] = MOOD_REFUSE;
	struct peer *client = ask(w, GET);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(net_n_connects(0), 2);

	peer_close(net_newest(0));
	net.moods[0][0] = MOOD_UNREACHABLE;
	say(w, client, GET);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");

	peer_close(net_newest(0));
	net.moods[0][1] = MOOD_UNREACHABLE;
	say(w, client, GET);
	expect_refusal(client, 502, "upstream_failed");
	expect_end(w, 3);
}

static void test_instance_without_an_address(void **state) {
	struct world *w = WORLD("m");
	world_set_engine(w, 0, "m", 0);
	struct peer *client = ask(w, GET);
	expect_last_word(client, 503, "no_healthy_instance", true);
	expect_end(w, 1);
}

static void test_silent_connect_moves_on(void **state) {
	struct world *w = WORLD("m", "m");
	net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
	struct peer *client = ask(w, GET), *first = net_newest(-1);
	world_pass(w, 499);
	assert_ptr_equal(net_newest(-1), first);
	world_pass(w, 2);
	expect_closed(first);
	struct peer *second = net_newest(-1);
	assert_int_not_equal(first->engine, second->engine);
	world_pass(w, 400);
	peer_answer_connect(second, true);
	say(w, second, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_all_silent(void **state) {
	struct world *w = WORLD("m", "m");
	net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
	struct peer *client = ask(w, GET);
	world_pass(w, 999);
	expect_nothing(client);
	world_pass(w, 10);
	expect_refusal(client, 504, "timeout");
	expect_logged(w, 504, "connect_timeout");
	expect_end(w, 1);
}

static void test_no_descriptor_is_nobodys_fault(void **state) {
	struct world *w = WORLD("m");
	net.socket_errno = EMFILE;
	struct peer *client = ask(w, GET);
	expect_last_word(client, 503, "overloaded", true);
	assert_int_equal(metric_read(&w->worker.metrics->connect_failures), 0);
	net.socket_errno = 0;
	say(w, client, GET);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

/* --- pooled connections --------------------------------------------------------------------- */

/* The engine closed while the request was on its way, and its kernel acknowledged nothing of that. */
/* Sent over a pooled connection that its engine had closed already, and then over another one. */
static struct peer *ask_over_stale(struct world *w, struct peer **client_out) {
	struct peer *stale = pooled(w);
	peer_deafen(stale);
	*client_out = ask(w, no_body_post);
	expect_request(stale, "POST /x HTTP/1.1", "abc");
	peer_finish(stale);
	world_settle(w);
	struct peer *fresh = net_newest(0);
	assert_ptr_not_equal(fresh, stale);
	expect_request(fresh, "POST /x HTTP/1.1", "abc");
	return fresh;
}

static void test_stale_connection_is_repeated(void **state) {
	struct world *w = WORLD("m");
	struct peer *client, *fresh = ask_over_stale(w, &client);
	say(w, fresh, ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(n_retries(w), 1);
	expect_end(w, 2);
}

/* What came while the first part was on its way is in the repetition, too. */
static void test_what_was_never_sent_is_no_attempt(void **state) {
	struct world *w = WORLD("m");
	w->config.retry.attempts = 2;
	struct peer *client, *busy = ask_over_stale(w, &client);
	say(w, busy, "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy");
	world_pass(w, 60);
	struct peer *again = net_newest(0);
	assert_ptr_not_equal(again, busy);
	expect_request(again, "POST /x HTTP/1.1", "abc");
	say(w, again, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

static void test_stale_connection_with_a_body_that_still_arrives(void **state) {
	struct world *w = WORLD("m");
	struct peer *stale = pooled(w);
	peer_deafen(stale);
	struct peer *client = post_part(w, "/x", 7, "[1,");
	say(w, client, "2,");
	peer_finish(stale);
	world_settle(w);
	say(w, client, "3]");
	expect_request(net_newest(0), "POST /x HTTP/1.1", "[1,2,3]");
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

static void expect_not_repeated(struct world *w, struct peer *client, unsigned n_connects) {
	expect_refusal(client, 502, "upstream_failed");
	expect_logged(w, 502, "upstream_closed");
	assert_int_equal(net_n_connects(-1), n_connects);
	assert_int_equal(n_retries(w), 0);
}

static void test_reset_proves_nothing(void **state) {
	struct world *w = WORLD("m", "m");
	struct peer *first = pooled(w), *second = pooled(w); /* one at each */
	peer_deafen(first);
	peer_deafen(second);
	struct peer *client = ask(w, no_body_post);
	peer_break(first);
	peer_break(second);
	world_settle(w);
	expect_not_repeated(w, client, 2);
	expect_end(w, 3);
}

static void test_acknowledged_is_sent(void **state) {
	struct world *w = WORLD("m");
	struct peer *engine = pooled(w), *client = ask(w, no_body_post);
	peer_close(engine);
	world_settle(w);
	expect_not_repeated(w, client, 1);
	expect_end(w, 2);
}

/* One byte is enough: the engine may have understood. */
static void test_acknowledged_in_part_is_sent(void **state) {
	struct world *w = WORLD("m");
	struct peer *engine = pooled(w);
	peer_stall(engine, 1);
	struct peer *client = ask(w, no_body_post);
	peer_deafen(engine);
	peer_stall(engine, SIZE_MAX);
	world_settle(w);
	assert_int_equal(engine->n_arrived + strlen(no_body_post) < engine->got.n, true);
	peer_finish(engine);
	world_settle(w);
	expect_not_repeated(w, client, 1);
	expect_end(w, 2);
}

static void test_close_that_was_seen_is_never_met(void **state) {
	struct world *w = WORLD("m");
	struct peer *engine = pooled(w);
	struct peer *client = net_client();
	peer_says(client, no_body_post);
	peer_close(engine); /* in the turn in which the request comes */
	world_settle(w);
	expect_nothing(engine);
	expect_request(net_newest(0), "POST /x HTTP/1.1", "abc");
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(n_retries(w), 0);
	expect_end(w, 2);
}

/* Whoever is asked next must serve the model, too. */
static void test_repeated_request_keeps_its_model(void **state) {
	struct world *w = WORLD("a", "b", "b");
	struct peer *client = post(w, CHAT, "{\"model\":\"b\"}"), *stale = net_newest(-1);
	say(w, stale, ANSWER_OK);
	expect_answer(client, 200, "ok");
	net.moods[stale->engine == 1 ? 2 : 1][0] = MOOD_REFUSE;
	peer_deafen(stale);
	say(w, client,
	    "POST /x HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n"
	    "{\"model\":\"b\"}");
	net.moods[stale->engine][0] = MOOD_REFUSE;
	peer_finish(stale);
	world_settle(w);
	expect_refusal(client, 502, "upstream_failed");
	assert_int_equal(net_n_connects(0), 0);
	assert_int_equal(net_n_connects(-1), 3);
	expect_end(w, 2);
}

/* A body that is too large to keep goes over a fresh connection, which is never stale. */
static void test_large_body_is_not_risked(void **state) {
	struct world *w = WORLD("m");
	w->config.body_limit_bytes = 8u << 20;
	struct peer *old = pooled(w);
	struct peer *client = post_part(w, "/x", (1u << 20) + 1, "[");
	struct peer *engine = net_newest(0);
	assert_ptr_not_equal(engine, old);
	peer_break(client);
	world_settle(w);
	expect_closed(engine);

	client = post_chunked(w, "/x");
	say_chunk(w, client, "[");
	assert_ptr_not_equal(net_newest(0), engine);
	assert_false(old->was_closed);
	expect_end(w, 3);
}

/* --- requests that were sent ------------------------------------------------------------------ */

static void test_post_is_not_repeated(void **state) {
	for (unsigned breaks = 0; breaks < 2; breaks++) {
		struct world *w = WORLD("m", "m");
		struct peer *client = ask(w, no_body_post), *engine = net_newest(-1);
		(breaks ? peer_break : peer_close)(engine);
		world_settle(w);
		expect_not_repeated(w, client, 1);
		expect_end(w, 1);
	}
}

/* Not even when nothing was acknowledged: a fresh connection is not stale. */
static void test_post_on_a_fresh_connection(void **state) {
	struct world *w = WORLD("m", "m");
	net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
	struct peer *client = ask(w, no_body_post), *engine = net_newest(-1);
	peer_deafen(engine);
	peer_answer_connect(engine, true);
	world_settle(w);
	peer_finish(engine);
	world_settle(w);
	expect_not_repeated(w, client, 1);
	expect_end(w, 1);
}

/* What may be sent more than once: as often as that, after a while each time. */
static struct world *world_that_repeats(uint32_t attempts, unsigned n_engines) {
	struct world *w = WORLD("m", "m");

	for (unsigned i = 2; i < n_engines; i++)
		world_set_engine(w, i, "m", 1);
	w->config.retry.attempts = attempts;
	return w;
}

/* The wait before it is over. */
static struct peer *next_engine(struct world *w, const struct peer *last) {
	world_settle(w);
	assert_ptr_equal(net_newest(-1), last); /* not at once */
	world_pass(w, 1001);
	assert_ptr_not_equal(net_newest(-1), last);
	return net_newest(-1);
}

static uint64_t n_paid(const struct world *w) {
	return metric_read(&w->worker.metrics->retries);
}

static void test_safe_methods_are_repeated_elsewhere(void **state) {
	static const char *const methods[] = { "GET", "HEAD", "OPTIONS" };
	for (size_t i = 0; i < 2 * n_elems(methods); i++) {
		struct world *w = world_that_repeats(2, 2);
		char text[64], line[32];
		snprintf(text, sizeof(text), "%s /x HTTP/1.1\r\nhost: h\r\n\r\n", methods[i / 2]);
		snprintf(line, sizeof(line), "%s /x HTTP/1.1", methods[i / 2]);
		struct peer *client = ask(w, text), *first = net_newest(-1);
		expect_request(first, line, "");
		(i & 1 ? peer_break : peer_close)(first);
		struct peer *second = next_engine(w, first);
		assert_int_not_equal(first->engine, second->engine);
		expect_request(second, line, "");
		say(w, second, "HTTP/1.1 204 No\r\n\r\n");
		expect_answer(client, 204, "");
		assert_int_equal(n_paid(w), 1);
		expect_end(w, 1);
	}
}

/* What each has failed at is told once, though the request ends after the last of them. */
static void test_an_attempt_is_tallied_once(void **state) {
	struct world *w = world_that_repeats(2, 2);
	struct peer *client = ask(w, GET);
	for (unsigned i = 0; i < 2; i++) {
		peer_close(net_newest(-1));
		world_pass(w, 1001);
	}
	expect_refusal(client, 502, "upstream_failed");
	for (unsigned slot = 0; slot < 2; slot++) {
		assert_int_equal(metric_read(&w->worker.tallies[slot].n_requests), 1);
		assert_int_equal(metric_read(&w->worker.tallies[slot].n_errors), 1);
		assert_int_equal(metric_read(&w->worker.tallies[slot].n_faults), 1);
	}
	expect_end(w, 1);
}

static void test_other_methods_are_not(void **state) {
	static const char *const methods[] = { "PUT", "DELETE", "PATCH", "PROPFIND" };
	for (size_t i = 0; i < n_elems(methods); i++) {
		struct world *w = WORLD("m", "m");
		char text[64];
		snprintf(text, sizeof(text), "%s /x HTTP/1.1\r\nhost: h\r\n\r\n", methods[i]);
		struct peer *client = ask(w, text);
		peer_close(net_newest(-1));
		world_settle(w);
		expect_not_repeated(w, client, 1);
		expect_end(w, 1);
	}
}

static void test_repetition_has_an_end(void **state) {
	struct world *w = world_that_repeats(4, 6);
	struct peer *client = ask(w, GET), *engine = net_newest(-1);
	bool was_asked[6] = { false };
	for (unsigned i = 0; i < 4; i++) {
		assert_false(was_asked[engine->engine]); /* each once */
		was_asked[engine->engine] = true;
		expect_nothing(client);
		peer_close(engine);
		if (i < 3)
			engine = next_engine(w, engine);
	}
	world_pass(w, 5000);
	assert_int_equal(net_n_connects(-1), 4);
	assert_int_equal(n_paid(w), 3);
	expect_refusal(client, 502, "upstream_failed");
	expect_end(w, 1);
}

/* Where nothing is sent twice, that is not either; what was never sent goes on as ever. */
static void test_safe_methods_without_retries(void **state) {
	struct world *w = world_that_repeats(1, 3);
	struct peer *client = ask(w, GET);
	peer_close(net_newest(-1));
	world_pass(w, 5000);
	expect_not_repeated(w, client, 1);
	net.moods[0][0] = net.moods[1][0] = MOOD_REFUSE;
	client = ask(w, GET);
	say(w, net_newest(2), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

/* A fleet that drops everything is not asked several times for each of the requests. */
static void test_repetition_has_a_budget(void **state) {
	struct world *w = world_that_repeats(4, 2);
	w->config.retry.budget = 0.2;
	for (unsigned i = 0; i < 20; i++) {
		struct peer *client = ask(w, GET), *engine = NULL;
		while (engine != net_newest(-1)) {
			engine = net_newest(-1);
			peer_close(engine);
			world_pass(w, 201);
		}
		expect_refusal(client, 502, "upstream_failed");
		peer_close(client);
		world_settle(w);
	}
	assert_in_range(n_paid(w), 3, 3 + 20 / 5 + 2); /* some of the time passes */
	assert_true(metric_read(&w->worker.metrics->retries_denied) >= 10);
	expect_end(w, 20);
}

static void test_nothing_is_repeated_once_an_answer_began(void **state) {
	static const char *const begun[] = { "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 103 Early\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n" };
	for (size_t i = 0; i < n_elems(begun); i++) {
		struct world *w = WORLD("m", "m");
		struct peer *client = ask(w, GET), *engine = net_newest(-1);
		say(w, engine, begun[i]);
		if (i == 2)
			expect_answer(client, 103, "");
		peer_close(engine);
		world_settle(w);
		expect_not_repeated(w, client, 1);
		expect_end(w, 1);
	}
}

/* A whole answer that came before the engine broke the upload counts. */
static void test_answer_before_the_break_is_passed(void **state) {
	struct world *w = WORLD("m", "m");
	struct peer *client = post_part(w, "/x", 1000, "["), *engine = net_newest(-1);
	peer_says(engine, "HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno");
	peer_close(engine);
	peer_says(client, "1");
	world_settle(w);
	expect_answer(client, 413, "no");
	expect_end(w, 1);
}

/* --- the waits between ----------------------------------------------------------------------- */

/* From now on, until another engine is asked. */
static uint64_t wait_of_next_ms(struct world *w, unsigned n_connects) {
	uint64_t began_ns = net.now_ns;

	while (net_n_connects(-1) == n_connects) {
		world_pass(w, 1);
		assert_in_range(net.now_ns - began_ns, 0, 10000000000u);
	}
	return (net.now_ns - began_ns) / 1000000u;
}

/* Each refuses, and the next is another one; waits double, give or take the jitter, to their limit. */
static void test_each_attempt_is_elsewhere_after_a_wait_within_its_bounds(void **state) {
	uint64_t least_ms[4] = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX }, most_ms[4] = { 0 };
	static const uint64_t nominal_ms[4] = { 50, 100, 200, 300 };

	for (unsigned n = 0; n < 40; n++) {
		struct world *w = WORLD("m", "m", "m", "m", "m");
		unsigned asked = 0;

		w->config.retry.attempts = 5;
		w->config.retry.jitter = 0.2;
		w->config.retry.backoff_max_ms = 300;
		w->config.explain.n_records = 7;
		rng_init(&w->worker.rng, n);
		struct peer *client = post(w, CHAT, "{\"model\":\"m\"}");
		for (unsigned i = 0; i < 5; i++) {
			struct peer *engine = net_newest(-1);
			assert_false(asked >> engine->engine & 1); /* not asked before */
			asked |= 1u << engine->engine;
			expect_request(engine, "POST " CHAT " HTTP/1.1", "{\"model\":\"m\"}");
			if (i == 4) {
				say(w, engine, ANSWER_OK);
				break;
			}
			say(w, engine, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
			uint64_t ms = wait_of_next_ms(w, i + 1);
			least_ms[i] = u64_min(least_ms[i], ms);
			most_ms[i] = u64_max(most_ms[i], ms);
		}
		expect_answer(client, 200, "ok");
		expect_end(w, 1);
	}
	for (unsigned i = 0; i < 4; i++) { /* a timer may be a millisecond late */
		assert_in_range(least_ms[i], nominal_ms[i] * 8 / 10, nominal_ms[i]);
		assert_in_range(most_ms[i], nominal_ms[i], nominal_ms[i] * 12 / 10 + 2);
		assert_true(most_ms[i] > least_ms[i]);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_attempt_is_elsewhere_after_a_wait_within_its_bounds),
		cmocka_unit_test(test_refused_connect_moves_on_and_avoids),
		cmocka_unit_test(test_avoidance_ends_and_doubles),
		cmocka_unit_test(test_all_refuse),
		cmocka_unit_test(test_many_refuse),
		cmocka_unit_test(test_tries_have_an_end),
		cmocka_unit_test(test_all_addresses_are_tried),
		cmocka_unit_test(test_instance_without_an_address),
		cmocka_unit_test(test_silent_connect_moves_on),
		cmocka_unit_test(test_all_silent),
		cmocka_unit_test(test_no_descriptor_is_nobodys_fault),
		cmocka_unit_test(test_stale_connection_is_repeated),
		cmocka_unit_test(test_what_was_never_sent_is_no_attempt),
		cmocka_unit_test(test_stale_connection_with_a_body_that_still_arrives),
		cmocka_unit_test(test_reset_proves_nothing),
		cmocka_unit_test(test_acknowledged_is_sent),
		cmocka_unit_test(test_acknowledged_in_part_is_sent),
		cmocka_unit_test(test_close_that_was_seen_is_never_met),
		cmocka_unit_test(test_repeated_request_keeps_its_model),
		cmocka_unit_test(test_large_body_is_not_risked),
		cmocka_unit_test(test_post_is_not_repeated),
		cmocka_unit_test(test_post_on_a_fresh_connection),
		cmocka_unit_test(test_safe_methods_are_repeated_elsewhere),
		cmocka_unit_test(test_an_attempt_is_tallied_once),
		cmocka_unit_test(test_other_methods_are_not),
		cmocka_unit_test(test_repetition_has_an_end),
		cmocka_unit_test(test_repetition_has_a_budget),
		cmocka_unit_test(test_safe_methods_without_retries),
		cmocka_unit_test(test_nothing_is_repeated_once_an_answer_began),
		cmocka_unit_test(test_answer_before_the_break_is_passed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
