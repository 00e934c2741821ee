/* Each attempt is settled with its instance's breaker once, by how it ended; what is open is left alone. */
#include "virtual/expect.h"

#include "fleet/guard.h"

#define BODY   "{\"model\":\"m\"}"
#define BROKEN "HTTP/1.1 500 Broken\r\ncontent-length: 6\r\n\r\nbroken"
#define BUSY   "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"

static struct instance *instance_at(const struct world *w, uint32_t row) {
	return w->worker.view->snapshot->rows[row].instance;
}

static struct breaker_view view_of(const struct world *w, uint32_t row) {
	return breaker_peek(&instance_at(w, row)->breaker, net.now_ns / 1000000u);
}

static uint64_t n_ended(const struct world *w, enum breaker_outcome outcome) {
	uint64_t n = 0;
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		n += metric_read(&w->worker.tallies[slot].n_outcomes[outcome]);
	return n;
}

/* Its connection is not used again, so that the next request is the newest one's. */
static void answer(struct world *w, struct peer *client, const char *text, unsigned status) {
	struct peer *engine = net_newest(-1);
	say(w, engine, text);
	expect_answer(client, status, NULL);
	peer_close(engine);
	peer_close(client);
	world_settle(w);
}

static void ask_once(struct world *w, const char *text, unsigned status) {
	answer(w, post(w, CHAT, BODY), text, status);
}

/* One engine whose breaker has opened, of a second. */
static struct world *world_opened(void) {
	struct world *w = WORLD("m");
	w->config.breaker.limits.failures = 2;
	for (unsigned i = 0; i < 2; i++)
		ask_once(w, BROKEN, 500);
	assert_int_equal(view_of(w, 0).state, BREAKER_OPEN);
	return w;
}

/* --- what counts -------------------------------------------------------------------------- */

static void end_by_answer(struct world *w, struct peer *client, const char *text) {
	say(w, net_newest(-1), text);
}

static void end_by_close(struct world *w, struct peer *client, const char *text) {
	say(w, net_newest(-1), text);
	peer_finish(net_newest(-1));
}

static void end_by_reset(struct world *w, struct peer *client, const char *text) {
	say(w, net_newest(-1), text);
	peer_break(net_newest(-1));
}

static void end_by_silence(struct world *w, struct peer *client, const char *text) {
	say(w, net_newest(-1), text);
	world_pass(w, 8000);
}

static void end_by_client(struct world *w, struct peer *client, const char *text) {
	say(w, net_newest(-1), text);
	peer_close(client);
}

#define CHUNK "5\r\ndata:\r\n"

static void test_each_end_has_its_meaning(void **state) {
	static const struct {
		void (*end)(struct world *w, struct peer *client, const char *text);
		const char *text;
		enum breaker_outcome outcome;
		enum net_mood mood;
	} rows[] = {
		{ end_by_answer, ANSWER_OK, BREAKER_GOOD, MOOD_ACCEPT },
		{ end_by_answer, SSE_HEAD CHUNK "0\r\n\r\n", BREAKER_GOOD, MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", BREAKER_GOOD,
		    MOOD_ACCEPT },
		{ end_by_answer, BROKEN, BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n", BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 504 No\r\ncontent-length: 0\r\n\r\n", BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_answer, BUSY, BREAKER_NEUTRAL, MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 501 No\r\ncontent-length: 0\r\n\r\n", BREAKER_NEUTRAL,
		    MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n", BREAKER_NEUTRAL,
		    MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", BREAKER_NEUTRAL,
		    MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 408 No\r\ncontent-length: 0\r\n\r\n", BREAKER_NEUTRAL,
		    MOOD_ACCEPT },
		{ end_by_answer, "HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n", BREAKER_NEUTRAL,
		    MOOD_ACCEPT },
		{ end_by_answer, "what is this?\r\n\r\n", BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_close, "", BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_close, SSE_HEAD CHUNK, BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_reset, "", BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_reset, SSE_HEAD CHUNK, BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_silence, "", BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_silence, SSE_HEAD CHUNK, BREAKER_BAD, MOOD_ACCEPT },
		{ end_by_client, "", BREAKER_NEUTRAL, MOOD_ACCEPT },
		{ end_by_client, SSE_HEAD CHUNK, BREAKER_NEUTRAL, MOOD_ACCEPT },
		{ end_by_silence, NULL, BREAKER_BAD, MOOD_REFUSE },
		{ end_by_silence, NULL, BREAKER_BAD, MOOD_SILENT },
	};

	for (unsigned i = 0; i < n_elems(rows); i++) {
		struct world *w = WORLD("m");
		net.moods[0][0] = rows[i].mood;
		struct peer *client = post(w, CHAT, STREAMED);
		if (rows[i].text)
			rows[i].end(w, client, rows[i].text);
		world_pass(w, 600);
		for (enum breaker_outcome k = 0; k < BREAKER_OUTCOMES; k++)
			if (n_ended(w, k) != (k == rows[i].outcome))
				fail_msg("row %u: %llu ends are %s", i, (unsigned long long)n_ended(w, k),
				    breaker_outcome_text(k));
		expect_end(w, 1);
	}
}

/* The 504 is our own word, not the engine's. */
static void test_our_own_limits_are_no_failures(void **state) {
	struct world *w = WORLD("m");
	w->config.timeout.total_ms = 300;
	struct peer *client = post(w, CHAT, BODY);

	world_pass(w, 301);
	expect_refusal(client, 504, "timeout");
	assert_true(n_ended(w, BREAKER_NEUTRAL) == 1 && n_ended(w, BREAKER_BAD) == 0);
	expect_end(w, 1);
}

/* A retry is an attempt of its own. */
static void test_each_attempt_counts(void **state) {
	struct world *w = WORLD("m", "m", "m");
	w->config.retry.attempts = 3;
	w->config.retry.refusals |= 1u << RETRY_502;
	struct peer *client = post(w, CHAT, BODY);

	say(w, net_newest(-1), "HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n");
	world_pass(w, 51);
	say(w, net_newest(-1), BUSY);
	world_pass(w, 101);
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_true(n_ended(w, BREAKER_BAD) == 1 && n_ended(w, BREAKER_NEUTRAL) == 1 &&
	    n_ended(w, BREAKER_GOOD) == 1);
	expect_end(w, 1);
}

/* --- what opens, and what that means ------------------------------------------------------- */

static void test_who_fails_in_a_row_is_left_alone(void **state) {
	struct world *w = WORLD("m", "m");
	w->config.breaker.limits.failures = 3;
	unsigned n_asked[2] = { 0 }, n_requests = 0;

	for (; n_requests < 20; n_requests++) {
		struct peer *client = post(w, CHAT, BODY);
		int engine = net_newest(-1)->engine;
		n_asked[engine]++;
		answer(w, client, engine ? ANSWER_OK : BROKEN, engine ? 200 : 500);
	}
	assert_true(n_asked[0] == 3 && n_asked[1] == 17);
	world_pass(w, 1200); /* one may see now, and it is worse than before */
	for (; n_requests < 30; n_requests++) {
		struct peer *client = post(w, CHAT, BODY);
		int engine = net_newest(-1)->engine;
		n_asked[engine]++;
		answer(w, client, engine ? ANSWER_OK : BROKEN, engine ? 200 : 500);
	}
	assert_int_equal(n_asked[0], 4);
	assert_in_range(view_of(w, 0).remaining_ms, 1700, 2200);
	expect_end(w, n_requests);
}

static void test_nobody_is_left(void **state) {
	struct world *w = world_opened();
	struct peer *client = post(w, CHAT, BODY);
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 503, NULL);

	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"no_healthy_instance\""));
	assert_in_range(parsed_number(parsed_field(&m, "retry-after"), 10), 1, 2);
	parsed_deinit(&m);
	expect_logged(w, 503, "breakers_open");
	assert_int_equal(net_n_connects(-1), 2);
	world_pass(w, 1200);
	ask_once(w, ANSWER_OK, 200);
	assert_int_equal(view_of(w, 0).n_successes, 1);
	ask_once(w, ANSWER_OK, 200);
	assert_int_equal(view_of(w, 0).state, BREAKER_CLOSED);
	expect_end(w, 5);
}

/* How long a client is to wait follows from the time that is left. */
static void test_what_clients_are_told_to_wait(void **state) {
	struct world *w = WORLD("m", "m");
	struct breaker_limits longer = w->config.breaker.limits;

	longer.open_max_ms = 40000;
	guard_trip(instance_at(w, 0), &longer, net.now_ns / 1000000u);
	longer.open_max_ms = 80000;
	guard_trip(instance_at(w, 1), &longer, net.now_ns / 1000000u);
	for (unsigned i = 0; i < 40; i++) {
		struct parsed m = expect_answer_kind(post(w, CHAT, BODY), PARSED_RESPONSE, 503, NULL);
		struct slice after = parsed_field(&m, "retry-after");
		assert_in_range(parsed_number(after, 10), 41, 51);
		parsed_deinit(&m);
	}
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 40);
}

/* --- half-open ---------------------------------------------------------------------------- */

static void test_of_64_requests_one_probes(void **state) {
	struct world *w = world_opened();
	struct peer *clients[64];
	unsigned n_refused = 0;

	world_pass(w, 1200);
	for (unsigned i = 0; i < n_elems(clients); i++) {
		clients[i] = net_client();
		peer_says(clients[i], "POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}");
	}
	world_settle(w);
	assert_int_equal(net_n_connects(-1), 3);
	assert_true(view_of(w, 0).is_probed);
	for (unsigned i = 0; i < n_elems(clients); i++)
		if (peer_unseen(clients[i]).n) {
			expect_refusal(clients[i], 503, "no_healthy_instance");
			n_refused++;
		}
	assert_int_equal(n_refused, 63);
	say(w, net_newest(-1), ANSWER_OK);
	assert_int_equal(view_of(w, 0).n_successes, 1);
	assert_int_equal(n_ended(w, BREAKER_GOOD), 1);
	expect_end(w, 66);
}

/* The others go elsewhere meanwhile. */
static void test_a_probe_keeps_nobody_waiting(void **state) {
	struct world *w = WORLD("m", "m");
	struct peer *clients[32];
	unsigned n_probes = 0;

	guard_trip(instance_at(w, 0), &w->config.breaker.limits, net.now_ns / 1000000u);
	world_pass(w, 4100);
	for (unsigned i = 0; i < n_elems(clients); i++)
		clients[i] = post(w, CHAT, BODY);
	for (unsigned i = 1; i < net.n_peers; i++)
		n_probes += net.peers[i].engine == 0;
	assert_int_equal(n_probes, 1);
	assert_int_equal(net_n_connects(1), 31);
	expect_end(w, 32);
}

static void test_a_probe_whose_client_leaves_gives_way(void **state) {
	struct world *w = world_opened();

	world_pass(w, 1200);
	struct peer *client = post(w, CHAT, BODY);
	expect_last_word(post(w, CHAT, BODY), 503, "no_healthy_instance", true);
	peer_close(client);
	world_settle(w);
	assert_true(view_of(w, 0).state == BREAKER_HALF_OPEN && !view_of(w, 0).is_probed);
	ask_once(w, ANSWER_OK, 200);
	ask_once(w, BUSY, 503); /* it has no room: that is no sign of anything */
	assert_int_equal(view_of(w, 0).n_successes, 1);
	ask_once(w, ANSWER_OK, 200);
	assert_int_equal(view_of(w, 0).state, BREAKER_CLOSED);
	expect_end(w, 7);
}

/* Who does not read that it failed must not keep the next one away. */
static void test_a_probe_ends_with_the_attempt(void **state) {
	struct world *w = world_opened();

	world_pass(w, 1200);
	struct peer *client = post(w, CHAT, BODY);
	peer_stall(client, 0);
	peer_finish(net_newest(-1));
	world_settle(w);
	assert_int_equal(view_of(w, 0).state, BREAKER_OPEN);
	assert_int_equal(world_load(w), 0);
	expect_nothing(client);
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	expect_refusal(client, 502, "upstream_failed");
	expect_end(w, 3);
}

static void say_last(struct world *w, struct peer *engine, const char *text) {
	say(w, engine, text);
	peer_close(engine);
	world_settle(w);
}

/* They were under way when it opened: nothing of theirs counts any more. */
static void test_late_ends_do_not_lengthen_the_wait(void **state) {
	struct world *w = WORLD("m");
	struct peer *clients[6], *engines[6];

	w->config.breaker.limits.failures = 2;
	for (unsigned i = 0; i < n_elems(clients); i++) {
		clients[i] = post(w, CHAT, BODY);
		engines[i] = net_newest(-1);
	}
	for (unsigned i = 0; i < 2; i++)
		say_last(w, engines[i], BROKEN);
	uint64_t left_ms = view_of(w, 0).remaining_ms;
	assert_in_range(left_ms, 900, 1100);
	world_pass(w, 500);
	say_last(w, engines[2], BROKEN);
	say_last(w, engines[3], ANSWER_OK);
	assert_int_equal(view_of(w, 0).remaining_ms, left_ms - 500);
	world_pass(w, left_ms - 500);
	struct peer *probe = post(w, CHAT, BODY), *at = net_newest(-1);
	say_last(w, engines[4], BROKEN);
	assert_true(view_of(w, 0).is_probed);
	say(w, at, ANSWER_OK);
	expect_answer(probe, 200, "ok");
	say_last(w, engines[5], BROKEN);
	assert_true(view_of(w, 0).state == BREAKER_HALF_OPEN && view_of(w, 0).n_successes == 1);
	assert_int_equal(n_ended(w, BREAKER_BAD), 5);
	expect_end(w, 7);
}

/* The flag may come late: then the pick is made again. */
static void test_who_gets_no_permit_goes_elsewhere(void **state) {
	struct world *w = WORLD("m", "m");

	for (unsigned i = 0; i < 4; i++) {
		guard_trip(instance_at(w, 0), &w->config.breaker.limits, net.now_ns / 1000000u);
		instance_at(w, 0)->avoid_until_ms = 0;
		struct peer *client = post(w, CHAT, BODY);
		assert_int_equal(net_newest(-1)->engine, 1);
		answer(w, client, ANSWER_OK, 200);
	}
	assert_int_equal(metric_read(&w->worker.metrics->picks), 4);
	expect_end(w, 4);
}

static void test_without_breakers_none_opens(void **state) {
	struct world *w = WORLD("m");

	for (unsigned i = 0; i < 300; i++)
		ask_once(w, BROKEN, 500);
	assert_int_equal(view_of(w, 0).state, BREAKER_CLOSED);
	assert_int_equal(n_ended(w, BREAKER_BAD), 300);
	expect_end(w, 300);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_end_has_its_meaning),
		cmocka_unit_test(test_our_own_limits_are_no_failures),
		cmocka_unit_test(test_each_attempt_counts),
		cmocka_unit_test(test_who_fails_in_a_row_is_left_alone),
		cmocka_unit_test(test_nobody_is_left),
		cmocka_unit_test(test_what_clients_are_told_to_wait),
		cmocka_unit_test(test_of_64_requests_one_probes),
		cmocka_unit_test(test_a_probe_keeps_nobody_waiting),
		cmocka_unit_test(test_a_probe_whose_client_leaves_gives_way),
		cmocka_unit_test(test_a_probe_ends_with_the_attempt),
		cmocka_unit_test(test_late_ends_do_not_lengthen_the_wait),
		cmocka_unit_test(test_who_gets_no_permit_goes_elsewhere),
		cmocka_unit_test(test_without_breakers_none_opens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
