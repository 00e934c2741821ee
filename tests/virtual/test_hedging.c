/* A second request for an answer that is late: who gets it, who has the answer, and what is left of the
 * other. */
#include "virtual/expect.h"

#include "fleet/guard.h"
#include "router/hedge.h"

#define BODY    "{\"model\":\"m\"}"
#define LATE_MS 100 /* from then on answers are, once the world has seen others */
#define REFUSED "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\nretry-after: 3\r\n\r\nbusy"
#define BROKEN  "HTTP/1.1 500 Broken\r\ncontent-length: 6\r\n\r\nbroken"
#define EVENT   "8\r\ndata: x\n\r\n"
#define END     "0\r\n\r\n"

static struct lateness_model *lateness(struct world *w) {
	return &w->worker.lateness[snapshot_model(w->worker.view->snapshot, SLICE("m"))->label];
}

/* Answers to come are late after LATE_MS; so many second requests are saved up. */
static void teach(struct world *w, unsigned n_saved) {
	for (unsigned i = 0; i < 2 * LATENESS_SIZES; i++)
		for (unsigned k = 0; k < 1000; k++)
			lateness_learn(&lateness(w)->of[i & 1][i / 2], 20);
	lateness(w)->saved = n_saved;
}

static struct world *hedging(struct world *w) {
	w->config.hedge = (struct hedge_options){
		.is_enabled = true, .percentile = 0.95, .wait_min_ms = LATE_MS, .budget = 0.05
	};
	teach(w, 2);
	return w;
}

#define HEDGING(...) hedging(WORLD(__VA_ARGS__))

/* One request, and who has it; the second is NULL until it was sent. */
struct race {
	struct world *w;
	struct peer *client, *first, *second;
};

static struct race ask_one(struct world *w, const char *body) {
	struct race r = { .w = w, .client = post(w, CHAT, body) };
	r.first = net_newest(-1);
	expect_request(r.first, "POST " CHAT " HTTP/1.1", body);
	return r;
}

/* Both have it. */
static struct race ask_two(struct world *w, const char *body) {
	struct race r = ask_one(w, body);
	world_pass(w, LATE_MS - 1);
	assert_ptr_equal(net_newest(-1), r.first);
	world_pass(w, 2);
	r.second = net_newest(-1);
	assert_int_not_equal(r.second->engine, r.first->engine);
	expect_request(r.second, "POST " CHAT " HTTP/1.1", body);
	assert_int_equal(world_load(w), 2);
	return r;
}

static void expect_counts(const struct world *w, unsigned n_sent, unsigned n_won, unsigned n_denied) {
	const struct metric_shard *m = w->worker.metrics;
	assert_int_equal(metric_read(&m->hedges), n_sent);
	assert_int_equal(metric_read(&m->hedges_won), n_won);
	assert_int_equal(metric_read(&m->hedges_denied), n_denied);
}

static void expect_outcomes(const struct world *w, unsigned n_good, unsigned n_bad, unsigned n_neutral) {
	uint64_t n[BREAKER_OUTCOMES] = { 0 };
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		for (enum breaker_outcome i = 0; i < BREAKER_OUTCOMES; i++)
			n[i] += metric_read(&w->worker.tallies[slot].n_outcomes[i]);
	assert_int_equal(n[BREAKER_GOOD], n_good);
	assert_int_equal(n[BREAKER_BAD], n_bad);
	assert_int_equal(n[BREAKER_NEUTRAL], n_neutral);
}

static void expect_instance(const struct world *w, const struct peer *engine, unsigned n_attempts) {
	char text[64];
	snprintf(text, sizeof(text), "\"instance\":\"e%d\"", engine->engine);
	assert_true(parsed_has(bytes_slice(&w->log), text));
	snprintf(text, sizeof(text), "\"attempts\":%u,", n_attempts);
	assert_true(parsed_has(bytes_slice(&w->log), text));
}

static const struct decision *newest(const struct world *w) {
	return decision_at(&w->worker.decisions, 0);
}

/* --- who wins -------------------------------------------------------------------------------- */

static void test_off_unless_asked_for(void **state) {
	struct world *w = HEDGING("m", "m");
	w->config.hedge.is_enabled = false;
	struct race r = ask_one(w, BODY);
	world_pass(w, 5000);
	assert_ptr_equal(net_newest(-1), r.first);
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	expect_counts(w, 0, 0, 0);
	expect_end(w, 1);
}

static void test_who_is_in_time_is_left_alone(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_one(w, BODY);
	world_pass(w, LATE_MS - 1);
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	world_pass(w, 1000);
	assert_int_equal(net_n_connects(-1), 1);
	expect_counts(w, 0, 0, 0);
	expect_end(w, 1);
}

static void test_the_second_wins(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, BODY);
	say(w, r.second, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	expect_closed(r.first);
	assert_false(r.second->was_closed);
	expect_logged(w, 200, "none");
	expect_instance(w, r.second, 2);
	expect_outcomes(w, 1, 0, 1);
	expect_counts(w, 1, 1, 0);
	const struct decision *d = newest(w);
	assert_true(d->n_attempts == 2 && d->attempts[0].cause == CAUSE_HEDGE_LOST && !d->attempts[1].cause);
	expect_end(w, 1);
}

static void test_the_first_wins_late(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, BODY);
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	expect_closed(r.second);
	assert_false(r.first->was_closed);
	expect_instance(w, r.first, 2);
	expect_outcomes(w, 1, 0, 1);
	expect_counts(w, 1, 0, 0);
	const struct decision *d = newest(w);
	assert_true(d->attempts[1].cause == CAUSE_HEDGE_LOST && !d->attempts[0].cause);
	assert_int_equal(d->chosen.label, d->attempts[0].label);
	expect_end(w, 1);
}

/* In the same turn the first is heard first; the second has not answered then. */
static void test_both_answer_at_once(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, BODY);
	peer_says(r.second, ANSWER_OK);
	peer_says(r.first, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst");
	world_settle(w);
	expect_answer(r.client, 200, "first");
	expect_closed(r.second);
	expect_outcomes(w, 1, 0, 1);
	expect_end(w, 1);
}

/* Its connection is used again; what the loser's was is not. */
static void test_the_winner_may_be_asked_again(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, BODY);
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	for (unsigned i = 0; i < 2; i++) { /* in turn */
		say(w, r.client,
		    "POST " CHAT " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
		    "content-length: 13\r\n\r\n" BODY);
		struct peer *engine = peer_unseen(r.first).n ? r.first : net_newest(-1);
		say(w, engine, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
	}
	assert_int_equal(net_n_connects(-1), 3);
	expect_end(w, 3);
}

static void test_a_head_in_pieces_is_waited_for(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, BODY);
	say(w, r.first, "HTTP/1.1 200 OK\r\ncont");
	say(w, r.second, "HTTP/1.1 200 OK\r\ncontent-le");
	expect_nothing(r.client);
	say(w, r.first, "ent-length: 2\r\n\r\no");
	expect_closed(r.second);
	say(w, r.first, "k");
	expect_answer(r.client, 200, "ok");
	expect_end(w, 1);
}

/* --- who fails ---------------------------------------------------------------------------------- */

static void test_the_first_is_cut(void **state) {
	for (unsigned breaks = 0; breaks < 2; breaks++) {
		struct world *w = HEDGING("m", "m");
		struct race r = ask_two(w, BODY);
		(breaks ? peer_break : peer_close)(r.first);
		world_settle(w);
		expect_nothing(r.client);
		expect_outcomes(w, 0, 1, 0);
		say(w, r.second, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		expect_outcomes(w, 1, 1, 0);
		expect_counts(w, 1, 1, 0);
		assert_int_equal(newest(w)->attempts[0].cause, CAUSE_UPSTREAM_CLOSED);
		assert_int_equal(newest(w)->attempts[1].cause, CAUSE_NONE);
		expect_end(w, 1);
	}
}

static void test_the_second_is_cut(void **state) {
	for (unsigned breaks = 0; breaks < 2; breaks++) {
		struct world *w = HEDGING("m", "m", "m");
		struct race r = ask_two(w, BODY);
		(breaks ? peer_break : peer_close)(r.second);
		world_pass(w, 1000);
		assert_ptr_equal(net_newest(-1), r.second); /* there is no third */
		say(w, r.first, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		expect_outcomes(w, 1, 1, 0);
		expect_counts(w, 1, 0, 0);
		expect_instance(w, r.first, 2);
		expect_end(w, 1);
	}
}

static void test_both_are_cut(void **state) {
	for (unsigned order = 0; order < 2; order++) {
		struct world *w = HEDGING("m", "m", "m");
		struct race r = ask_two(w, BODY);
		peer_close(order ? r.first : r.second);
		world_settle(w);
		expect_nothing(r.client);
		peer_close(order ? r.second : r.first);
		world_settle(w);
		expect_refusal(r.client, 502, "upstream_failed");
		expect_logged(w, 502, "upstream_closed");
		expect_outcomes(w, 0, 2, 0);
		assert_int_equal(net_n_connects(-1), 2);
		expect_end(w, 1);
	}
}

/* Either says no, in one way or another: that ends its part, whatever is allowed, and not the other's. */
static void test_a_refusal_does_not_win(void **state) {
	static const struct {
		const char *text;
		unsigned n_bad;
	} rows[] = { { REFUSED, 0 }, { BROKEN, 1 }, { "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", 0 },
		{ "what is this?\r\n\r\n", 1 } };

	for (unsigned i = 0; i < 2 * n_elems(rows); i++) {
		struct world *w = HEDGING("m", "m", "m");
		w->config.retry.attempts = 4;
		struct race r = ask_two(w, BODY);
		struct peer *bad = i & 1 ? r.first : r.second, *good = i & 1 ? r.second : r.first;
		say(w, bad, rows[i / 2].text);
		expect_closed(bad);
		world_pass(w, 1000);
		expect_nothing(r.client);
		assert_int_equal(world_load(w), 1);
		say(w, good, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		expect_outcomes(w, 1, rows[i / 2].n_bad, !rows[i / 2].n_bad);
		assert_int_equal(net_n_connects(-1), 2);
		expect_end(w, 1);
	}
}

/* Who says for how long gets nothing until then, aside or not. */
static void test_retry_after_is_kept(void **state) {
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = HEDGING("m", "m");
		struct race r = ask_two(w, BODY);
		struct peer *bad = i & 1 ? r.first : r.second, *good = i & 1 ? r.second : r.first;
		say(w, bad, REFUSED);
		say(w, good, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		for (unsigned k = 0; k < 4; k++) {
			struct peer *client = post(w, CHAT, BODY);
			assert_int_equal(peer_unseen(good).n > 0, true);
			good->n_seen = good->got.n;
			say(w, good, ANSWER_OK);
			expect_answer(client, 200, "ok");
			peer_close(client);
		}
		expect_end(w, 5);
	}
}

/* The last one who is left is treated as it would be alone. */
static void test_both_refuse(void **state) {
	for (unsigned attempts = 1; attempts < 4; attempts += 2) {
		struct world *w = HEDGING("m", "m");
		w->config.retry.attempts = attempts;
		struct race r = ask_two(w, BODY);
		say(w, r.second, REFUSED);
		say(w, r.first, "HTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\r\nfirst");
		if (attempts == 1) {
			expect_answer(r.client, 503, "first");
		} else {
			expect_nothing(r.client);
			world_pass(w, 200); /* both have been asked: one of them is again */
			say(w, net_newest(-1), ANSWER_OK);
			expect_answer(r.client, 200, "ok");
			assert_int_equal(net_n_connects(-1), 3);
		}
		expect_end(w, 1);
	}
}

static struct worker_tally *tally_of(struct world *w, const struct peer *engine) {
	const struct snapshot *snap = w->worker.view->snapshot;
	for (uint32_t row = 0; row < snap->n_rows; row++)
		if (snap->rows[row].instance->spec.name.p[1] == '0' + engine->engine)
			return &w->worker.tallies[snap->rows[row].instance->slot];
	return NULL;
}

static void expect_tally(struct worker_tally *t, unsigned n_requests, unsigned n_good, unsigned n_faults) {
	assert_non_null(t);
	assert_int_equal(metric_read(&t->n_requests), n_requests);
	assert_int_equal(metric_read(&t->n_good), n_good);
	assert_int_equal(metric_read(&t->n_faults), n_faults);
}

/* What health hears: of the loser nothing, of who failed once, of who answered once. */
static void test_each_is_told_once(void **state) {
	for (unsigned i = 0; i < 8; i++) {
		struct world *w = HEDGING("m", "m");
		struct race r = ask_two(w, BODY);
		struct peer *winner = i & 1 ? r.first : r.second, *loser = i & 1 ? r.second : r.first;
		bool is_cut = i & 2, is_lost = i & 4;
		if (is_cut)
			peer_close(loser);
		world_settle(w);
		say(w, winner, is_lost ? "what is this?\r\n\r\n" : ANSWER_OK);
		if (is_lost)
			peer_close(loser);
		world_settle(w);
		expect_answer(r.client, is_lost ? 502 : 200, NULL);
		expect_tally(tally_of(w, loser), is_cut || is_lost, 0, is_cut || is_lost);
		expect_tally(tally_of(w, winner), 1, !is_lost, is_lost);
		expect_end(w, 1);
	}
}

static void test_nobody_answers(void **state) {
	struct world *w = HEDGING("m", "m", "m");
	w->config.timeout.first_byte_all = true;
	struct race r = ask_two(w, BODY);
	world_pass(w, 5998);
	expect_nothing(r.client);
	world_pass(w, 20);
	expect_refusal(r.client, 504, "timeout");
	expect_logged(w, 504, "first_byte_timeout");
	expect_closed(r.first);
	expect_closed(r.second);
	expect_outcomes(w, 0, 2, 0);
	expect_end(w, 1);
}

/* The time of one that is taken back is what it was. */
static void test_who_is_left_has_its_own_time(void **state) {
	struct world *w = HEDGING("m", "m");
	w->config.timeout.first_byte_all = true;
	struct race r = ask_two(w, BODY);
	world_pass(w, 2000);
	peer_close(r.second);
	world_pass(w, 3890);
	expect_nothing(r.client);
	world_pass(w, 20);
	expect_refusal(r.client, 504, "timeout");
	expect_end(w, 1);
}

static void test_the_total_is_over(void **state) {
	struct world *w = HEDGING("m", "m");
	w->config.timeout.total_ms = 500;
	struct race r = ask_two(w, BODY);
	world_pass(w, 500);
	expect_refusal(r.client, 504, "timeout");
	expect_closed(r.first);
	expect_closed(r.second);
	expect_outcomes(w, 0, 0, 2);
	expect_end(w, 1);
}

/* Who hung is told to health as to its breaker, whichever of both it is. */
static void test_both_hang(void **state) {
	struct world *w = HEDGING("m", "m");
	w->config.timeout.total_ms = 2500;
	w->config.health.stall_timeout_ms = 1000;
	struct race r = ask_two(w, BODY);
	world_pass(w, 2500);
	expect_refusal(r.client, 504, "timeout");
	expect_outcomes(w, 0, 2, 0);
	assert_int_equal(metric_read(&tally_of(w, r.first)->n_faults), 1);
	assert_int_equal(metric_read(&tally_of(w, r.second)->n_faults), 1);
	expect_end(w, 1);
}

static void test_the_client_leaves(void **state) {
	for (unsigned breaks = 0; breaks < 2; breaks++) {
		struct world *w = HEDGING("m", "m");
		struct race r = ask_two(w, BODY);
		(breaks ? peer_break : peer_close)(r.client);
		world_settle(w);
		expect_closed(r.first);
		expect_closed(r.second);
		expect_outcomes(w, 0, 0, 2);
		expect_logged(w, 499, "client_gone");
		assert_int_equal(world_load(w), 0);
		expect_end(w, 1);
	}
}

static void test_a_stop_ends_both(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, BODY);
	list_each_safe (it, &w->worker.active)
		exchange_kill(container_of(it, struct exchange, link), CAUSE_STOPPING);
	world_settle(w);
	expect_refusal(r.client, 503, "overloaded");
	expect_closed(r.first);
	expect_closed(r.second);
	expect_end(w, 1);
}

/* The loser is as free as it was before: it may be asked for the rest of a stream that the winner cut. */
static void test_the_loser_may_go_on_with_the_stream(void **state) {
	static const char body[] =
	    "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
	static const char event[] = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
	struct world *w = HEDGING("m", "m");
	w->config.resume = (struct router_resume){ true, 2, 256u << 10 };
	struct race r = ask_two(w, body);
	say(w, r.second, SSE_HEAD);
	say_chunk(w, r.second, event);
	expect_closed(r.first);
	peer_close(r.second);
	world_settle(w);
	struct peer *third = net_newest(-1);
	assert_int_equal(third->engine, r.first->engine);
	assert_ptr_not_equal(third, r.first);
	say(w, third, SSE_HEAD);
	say_chunk(w, third, "data: [DONE]\n\n");
	say(w, third, END);
	expect_answer(r.client, 200, NULL);
	expect_logged(w, 200, "none");
	expect_end(w, 1);
}

/* --- connects -------------------------------------------------------------------------------------- */

/* Nobody else can be reached: the first one is waited for, and nothing was spent. */
static void test_second_connects_that_all_fail(void **state) {
	for (unsigned n_engines = 2; n_engines < 4; n_engines++) {
		struct world *w = n_engines == 2 ? HEDGING("m", "m") : HEDGING("m", "m", "m");
		struct race r = ask_one(w, BODY);
		for (unsigned i = 0; i < n_engines; i++)
			net.moods[i][0] = MOOD_REFUSE;
		world_pass(w, LATE_MS + 1);
		assert_int_equal(net_n_connects(-1), n_engines);
		expect_counts(w, 0, 0, 0);
		assert_true(lateness(w)->saved > 1.5);
		say(w, r.first, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		expect_instance(w, r.first, n_engines);
		expect_end(w, 1);
	}
}

static void test_a_second_connect_that_fails_is_passed_over(void **state) {
	unsigned n_refused = 0;
	for (unsigned i = 0; i < 20; i++) {
		struct world *w = HEDGING("m", "m", "m");
		struct race r = ask_one(w, BODY);
		unsigned dead = ((unsigned)r.first->engine + 1) % 3;
		unsigned alive = ((unsigned)r.first->engine + 2) % 3;
		net.moods[dead][0] = MOOD_REFUSE;
		world_pass(w, LATE_MS + 1);
		n_refused += net_n_connects((int)dead);
		say(w, net_newest((int)alive), ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		expect_counts(w, 1, 1, 0);
		expect_end(w, 1);
	}
	assert_in_range(n_refused, 1, 20); /* whose turn it was differs */
}

static void test_the_first_answers_while_the_second_connects(void **state) {
	struct world *w = HEDGING("m", "m");
	net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
	struct race r = { .w = w, .client = post(w, CHAT, BODY) };
	r.first = net_newest(-1);
	peer_answer_connect(r.first, true);
	world_pass(w, LATE_MS + 1);
	r.second = net_newest(-1);
	assert_ptr_not_equal(r.first, r.second);
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	expect_closed(r.second);
	expect_counts(w, 0, 0, 0);
	expect_end(w, 1);
}

/* Nobody else has the request: a refusal is what it is without a second. */
static void test_the_first_refuses_while_the_second_connects(void **state) {
	for (unsigned attempts = 1; attempts < 3; attempts++) {
		struct world *w = HEDGING("m", "m");
		w->config.retry.attempts = attempts;
		net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
		struct race r = { .w = w, .client = post(w, CHAT, BODY) };
		r.first = net_newest(-1);
		peer_answer_connect(r.first, true);
		world_pass(w, LATE_MS + 1);
		r.second = net_newest(-1);
		assert_ptr_not_equal(r.first, r.second);
		say(w, r.first, REFUSED);
		expect_closed(r.second);
		if (attempts == 1) {
			expect_answer(r.client, 503, "busy");
			expect_outcomes(w, 0, 0, 2);
		} else {
			expect_nothing(r.client);
			world_pass(w, 100);
			peer_answer_connect(net_newest(-1), true);
			world_settle(w);
			say(w, net_newest(-1), ANSWER_OK);
			expect_answer(r.client, 200, "ok");
			assert_int_equal(metric_read(&w->worker.metrics->retries), 1);
		}
		expect_counts(w, 0, 0, 0);
		expect_end(w, 1);
	}
}

static void test_no_descriptor_for_a_second(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_one(w, BODY);
	net.socket_errno = EMFILE;
	world_pass(w, LATE_MS + 1);
	expect_nothing(r.client);
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	expect_outcomes(w, 1, 0, 1);
	expect_end(w, 1);
}

/* A second one over a connection that was stale goes to the same engine again, as a first one does. */
static void test_a_stale_connection_of_the_second(void **state) {
	struct world *w = HEDGING("m", "m");
	struct peer *pooled[2];
	for (unsigned i = 0; i < 2; i++) {
		struct peer *client = post(w, CHAT, BODY);
		pooled[i] = net_newest(-1);
		expect_request(pooled[i], "POST " CHAT " HTTP/1.1", BODY);
		say(w, pooled[i], ANSWER_OK);
		expect_answer(client, 200, "ok");
	}
	struct peer *client = post(w, CHAT, BODY);
	struct peer *first = peer_unseen(pooled[0]).n ? pooled[0] : pooled[1];
	struct peer *stale = first == pooled[0] ? pooled[1] : pooled[0];
	peer_deafen(stale);
	world_pass(w, LATE_MS + 1);
	peer_finish(stale);
	world_settle(w);
	struct peer *fresh = net_newest(stale->engine);
	assert_ptr_not_equal(fresh, stale);
	say(w, fresh, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_closed(first);
	expect_counts(w, 1, 1, 0);
	expect_end(w, 3);
}

/* --- streams -------------------------------------------------------------------------------------- */

/* A head says nothing of the work: the first byte behind it does. */
static void test_a_stream_begins_behind_its_head(void **state) {
	for (unsigned second_wins = 0; second_wins < 2; second_wins++) {
		struct world *w = HEDGING("m", "m");
		struct race r = ask_one(w, STREAMED);
		say(w, r.first, SSE_HEAD);
		expect_nothing(r.client);
		world_pass(w, LATE_MS + 1);
		r.second = net_newest(-1);
		assert_ptr_not_equal(r.second, r.first);
		say(w, r.second, SSE_HEAD);
		expect_nothing(r.client);
		struct peer *winner = second_wins ? r.second : r.first;
		say(w, winner, EVENT);
		expect_closed(second_wins ? r.first : r.second);
		say(w, winner, EVENT END);
		expect_answer(r.client, 200, "data: x\ndata: x\n");
		expect_counts(w, 1, second_wins, 0);
		expect_outcomes(w, 1, 0, 1);
		expect_end(w, 1);
	}
}

static void test_a_head_that_came_alone_goes_on_when_there_is_no_second(void **state) {
	struct world *w = HEDGING("m", "m");
	lateness(w)->saved = 0;
	struct race r = ask_one(w, STREAMED);
	say(w, r.first, SSE_HEAD);
	world_pass(w, LATE_MS - 1);
	expect_nothing(r.client);
	world_pass(w, 2);
	assert_true(peer_unseen(r.client).n > 0);
	expect_counts(w, 0, 0, 1);
	say(w, r.first, EVENT END);
	expect_answer(r.client, 200, "data: x\n");
	expect_end(w, 1);
}

/* Nobody is late before something is known: heads go on at once. */
static void test_heads_pass_while_nothing_is_known(void **state) {
	struct world *w = HEDGING("m", "m");
	memset(lateness(w), 0, sizeof(*lateness(w)));
	struct race r = ask_one(w, STREAMED);
	say(w, r.first, SSE_HEAD);
	assert_true(peer_unseen(r.client).n > 0);
	say(w, r.first, EVENT END);
	expect_answer(r.client, 200, "data: x\n");
	expect_end(w, 1);
}

static void test_a_stream_that_ends_behind_its_head(void **state) {
	for (unsigned i = 0; i < 3; i++) {
		struct world *w = HEDGING("m", "m");
		struct race r = ask_one(w, STREAMED);
		say(w, r.first, SSE_HEAD);
		if (i) {
			world_pass(w, LATE_MS + 1);
			r.second = net_newest(-1);
		}
		if (i == 2) {
			say(w, r.second, SSE_HEAD);
			peer_close(r.second);
		} else {
			peer_close(r.first);
		}
		world_settle(w);
		if (i == 1)
			expect_nothing(r.client);
		if (i) { /* the head of one that is alone again goes on */
			say(w, i == 2 ? r.first : r.second, i == 2 ? EVENT END : SSE_HEAD EVENT END);
			expect_answer(r.client, 200, "data: x\n");
			expect_outcomes(w, 1, 1, 0);
		} else { /* nobody else has it: as without a second */
			expect_cut(r.client, NULL);
			expect_logged(w, 200, "stream_broken");
		}
		expect_end(w, 1);
	}
}

static void test_nothing_behind_a_head_that_is_held(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, STREAMED);
	say(w, r.first, SSE_HEAD);
	say(w, r.second, SSE_HEAD);
	world_pass(w, 6000);
	expect_refusal(r.client, 504, "timeout");
	expect_outcomes(w, 0, 2, 0);
	expect_end(w, 1);
}

/* An answer below 200 is of an answer that nobody has yet. */
static void test_interim_answers_end_here(void **state) {
	struct world *w = HEDGING("m", "m");
	struct race r = ask_two(w, BODY);
	say(w, r.first, "HTTP/1.1 103 Early\r\n\r\n");
	say(w, r.second, "HTTP/1.1 103 Early\r\n\r\n");
	expect_nothing(r.client);
	for (unsigned i = 0; i < 65; i++)
		say(w, r.first, "HTTP/1.1 103 Early\r\n\r\n");
	expect_closed(r.first);
	for (unsigned i = 0; i < 65; i++)
		say(w, r.second, "HTTP/1.1 103 Early\r\n\r\n");
	expect_closed(r.second);
	expect_outcomes(w, 0, 2, 0);
	world_settle(w);
	expect_end(w, 1);
}

/* --- what is not made twice ------------------------------------------------------------------------- */

static void expect_alone(struct world *w, struct peer *client) {
	struct peer *engine = net_newest(-1);
	unsigned n_connects = net_n_connects(-1);
	world_pass(w, 1500);
	assert_int_equal(net_n_connects(-1), n_connects);
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_counts(w, 0, 0, 0);
	expect_end(w, 1);
}

static void test_what_is_stored_or_unknown_is_not(void **state) {
	static const char *const paths[] = { "/v1/responses", "/x", "/v1/files", "/v1/batches",
		"/v1/images/generations", "/v1/responses/r1/cancel" };

	for (unsigned i = 0; i < n_elems(paths); i++) {
		struct world *w = HEDGING("m", "m");
		expect_alone(w, post(w, paths[i], BODY));
	}
	struct world *w = HEDGING("m", "m");
	expect_alone(w, ask(w, "GET /v1/models/m HTTP/1.1\r\nhost: h\r\n\r\n"));
}

static void test_what_is_computed_is(void **state) {
	static const char *const paths[] = { "/v1/chat/completions", "/v1/messages", "/v1/completions",
		"/v1/embeddings", "/v1/rerank", "/v1/score", "/tokenize" };

	for (unsigned i = 0; i < n_elems(paths); i++) {
		struct world *w = HEDGING("m", "m");
		struct peer *client = post(w, paths[i], BODY);
		world_pass(w, LATE_MS + 1);
		assert_int_equal(net_n_connects(-1), 2);
		say(w, net_newest(-1), ANSWER_OK);
		expect_answer(client, 200, "ok");
		expect_end(w, 1);
	}
}

/* What was due to the engine before is not to one that has not taken the request yet. */
static void test_who_does_not_read_is_not_late(void **state) {
	struct world *w = HEDGING("m", "m", "m");
	struct peer *engines[3], *client, *first = NULL;
	w->config.retry.attempts = 2;
	for (unsigned i = 0; i < 3; i++) { /* each has a connection that is kept */
		client = post(w, CHAT, BODY);
		engines[i] = net_newest(-1);
		expect_request(engines[i], "POST " CHAT " HTTP/1.1", BODY);
		say(w, engines[i], ANSWER_OK);
		peer_close(client);
		world_settle(w);
	}
	client = post(w, CHAT, BODY);
	for (unsigned i = 0; i < 3; i++)
		if (peer_unseen(engines[i]).n)
			first = engines[i];
	assert_non_null(first);
	for (unsigned i = 0; i < 3; i++)
		if (engines[i] != first)
			peer_stall(engines[i], 0);
	say(w, first, REFUSED);
	world_pass(w, 1000);
	expect_counts(w, 0, 0, 0);
	assert_int_equal(world_load(w), 1);
	for (unsigned i = 0; i < 3; i++)
		peer_stall(engines[i], SIZE_MAX);
	world_pass(w, LATE_MS + 1); /* now it has it */
	expect_counts(w, 1, 0, 0);
	peer_close(client);
	expect_end(w, 4);
}

static void test_large_bodies_are_not(void **state) {
	struct world *w = HEDGING("m", "m");
	w->config.body_limit_bytes = 8u << 20;
	size_t n = (1u << 20) + 100;
	char *body = malloc(n + 1);
	memset(body, ' ', n);
	body[n] = '\0';
	memcpy(body, BODY, sizeof(BODY) - 1);
	struct peer *client = post(w, CHAT, body);
	free(body);
	expect_alone(w, client);
}

/* While its body is on the way the engine is not the one that is late. */
static void test_a_body_that_is_on_its_way(void **state) {
	struct world *w = HEDGING("m", "m");
	struct peer *client = post_part(w, CHAT, sizeof(BODY) + 3, BODY);
	world_pass(w, 1000);
	assert_int_equal(net_n_connects(-1), 1);
	say(w, client, "    ");
	world_pass(w, LATE_MS - 1);
	assert_int_equal(net_n_connects(-1), 1);
	world_pass(w, 2);
	assert_int_equal(net_n_connects(-1), 2);
	expect_request(net_newest(-1), "POST " CHAT " HTTP/1.1", BODY "    ");
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_nobody_else_is_there(void **state) {
	struct world *w = HEDGING("m", "n");
	expect_alone(w, post(w, CHAT, BODY));

	w = HEDGING("m", "m");
	guard_trip(
	    w->worker.view->snapshot->rows[0].instance, &w->config.breaker.limits, net.now_ns / 1000000u);
	expect_alone(w, post(w, CHAT, BODY));
}

/* The second one would be the last at an engine that is full: the first goes on, and nobody waits in a queue.
 */
static void test_places_are_counted(void **state) {
	struct world *w = HEDGING("m", "m");
	struct pair label = { SLICE("capacity"), SLICE("1") };
	world_admit(w, (struct router_admission){ .queue_size = 10 });
	for (unsigned i = 0; i < 2; i++)
		world_set_labelled(w, i, "m", 1, (struct pairs){ &label, 1 });
	teach(w, 2);
	struct peer *a = post(w, CHAT, BODY), *at_a = net_newest(-1);
	struct peer *b = post(w, CHAT, BODY), *at_b = net_newest(-1);
	assert_int_not_equal(at_a->engine, at_b->engine);
	world_pass(w, LATE_MS + 1);
	assert_int_equal(net_n_connects(-1), 2);
	assert_int_equal(world_load(w), 2);
	assert_false(admission_is_awaited(w->router.admission));
	say(w, at_b, ANSWER_OK);
	expect_answer(b, 200, "ok");
	say(w, at_a, ANSWER_OK);
	expect_answer(a, 200, "ok");
	expect_counts(w, 0, 0, 0);

	struct race r = ask_one(w, BODY); /* now there is room, and it is taken */
	world_pass(w, LATE_MS + 1);
	assert_int_equal(world_load(w), 2);
	struct peer *c = post(w, CHAT, BODY);
	assert_true(admission_is_awaited(w->router.admission));
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	world_settle(w); /* both places are free */
	assert_false(admission_is_awaited(w->router.admission));
	assert_int_equal(world_load(w), 1);
	world_pass(w, 1);
	peer_close(c);
	expect_end(w, 4);
}

/* --- breakers, health and the fleet ----------------------------------------------------------------- */

/* A probe that loses gives its place back, whichever of both it is. */
static void test_a_probe_that_loses(void **state) {
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = HEDGING("m", "m");
		struct instance *probed = w->worker.view->snapshot->rows[0].instance;
		guard_trip(probed, &w->config.breaker.limits, net.now_ns / 1000000u);
		world_pass(w, 4100);
		struct race r = { .w = w };
		do { /* until the one that comes first is the other one's, or its own */
			r = ask_one(w, BODY);
			if ((r.first->engine == 0) == (i == 0))
				break;
			if (r.first->engine == 0)
				peer_close(r.client); /* that says nothing */
			else
				say(w, r.first, ANSWER_OK);
			peer_close(r.client);
			world_settle(w);
		} while (true);
		uint64_t now_ms = net.now_ns / 1000000u;
		assert_int_equal(breaker_peek(&probed->breaker, now_ms).is_probed, i == 0);
		world_pass(w, LATE_MS + 1);
		r.second = net_newest(i == 0 ? 1 : 0);
		assert_true(breaker_peek(&probed->breaker, now_ms).is_probed);
		say(w, i == 0 ? r.second : r.first, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		struct breaker_view view = breaker_peek(&probed->breaker, net.now_ns / 1000000u);
		assert_true(!view.is_probed && view.state == BREAKER_HALF_OPEN && view.n_successes == 0);
		expect_end(w, w->n_lines);
	}
}

static unsigned n_waiting(const struct world *w) {
	unsigned n = 0;
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		n += w->worker.tallies[slot].n_waiting;
	return n;
}

/* Both engines keep it waiting: each is to be seen for what it is. */
static void test_both_are_seen_to_be_waited_for(void **state) {
	struct world *w = HEDGING("m", "m");
	w->config.health.stall_timeout_ms = 1000;
	struct race r = ask_two(w, BODY);
	world_pass(w, 2600);
	assert_int_equal(n_waiting(w), 2);
	say(w, r.first, ANSWER_OK);
	expect_answer(r.client, 200, "ok");
	world_pass(w, 600);
	assert_int_equal(n_waiting(w), 0);
	expect_end(w, 1);
}

/* Who is aside keeps its view: its engine may leave the fleet and answers all the same. */
static void test_an_engine_that_left(void **state) {
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = HEDGING("m", "m");
		struct race r = ask_two(w, BODY);
		world_remove_engine(w, (unsigned)(i ? r.second : r.first)->engine);
		if (i)
			peer_close(r.second);
		world_settle(w);
		say(w, r.first, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		expect_end(w, 1);
	}
}

/* --- what is learned and paid ------------------------------------------------------------------------ */

static void test_what_is_late_is_learned(void **state) {
	struct world *w = HEDGING("m", "m");
	memset(lateness(w), 0, sizeof(*lateness(w)));
	w->config.hedge.wait_min_ms = 1;
	for (unsigned i = 0; i < 25; i++) {
		struct race r = ask_one(w, BODY);
		world_pass(w, i == 10 ? 3000 : 400); /* nothing is known: nobody is late */
		assert_ptr_equal(net_newest(-1), r.first);
		if (i >= 20)
			break;
		say(w, r.first, ANSWER_OK);
		expect_answer(r.client, 200, "ok");
		peer_close(r.first);
		peer_close(r.client);
		world_settle(w);
	}
	struct peer *first = net_newest(-1);
	world_pass(w, 130); /* 400 and a fifth of it */
	assert_ptr_not_equal(net_newest(-1), first);
	expect_counts(w, 1, 0, 0);
	say(w, first, ANSWER_OK);
	expect_end(w, 21);
}

/* The head of a stream comes at once, whoever passes it on: what is learned is when its first event does. */
static void test_heads_of_streams_are_not_learned(void **state) {
	struct world *w = HEDGING("m", "m");
	const struct lateness *l = &lateness(w)->of[1][0];
	memset(lateness(w), 0, sizeof(*lateness(w)));
	for (unsigned i = 0; i < 2 * LATENESS_MIN; i++) {
		struct race r = ask_one(w, STREAMED);
		say(w, r.first, SSE_HEAD);
		lateness(w)->saved = 0;
		world_pass(w, i < LATENESS_MIN ? 1000 : 2000); /* at first nobody can be late, then one is */
		assert_int_equal(l->n, i);
		say(w, r.first, EVENT);
		assert_int_equal(l->n, i + 1);
		say(w, r.first, EVENT END);
		expect_answer(r.client, 200, NULL);
		assert_int_equal(l->n, i + 1);
		peer_close(r.first);
		peer_close(r.client);
		world_settle(w);
	}
	assert_in_range(lateness_ms(l, &w->config.hedge), 2000, 2500);
	assert_int_equal(metric_read(&w->worker.metrics->hedges), 0);
	assert_true(metric_read(&w->worker.metrics->hedges_denied) > 0);
	expect_end(w, 2 * LATENESS_MIN);
}

/* All engines are slow all at once: the budget holds, and what is slow becomes what is usual. */
static void test_the_budget_holds(void **state) {
	struct world *w = HEDGING("m", "m");
	lateness(w)->saved = 0;
	for (unsigned i = 0; i < 400; i++) {
		struct peer *client = post(w, CHAT, BODY), *first = net_newest(-1);
		world_pass(w, 1000);
		struct peer *last = net_newest(-1);
		say(w, i & 1 ? first : last, ANSWER_OK);
		expect_answer(client, 200, "ok");
		peer_close(client);
		peer_close(first);
		peer_close(last);
		world_settle(w);
		net_reset();
		uint64_t n_sent = metric_read(&w->worker.metrics->hedges);
		assert_true(n_sent <= (i + 1) / 20);
	}
	uint64_t n_sent = metric_read(&w->worker.metrics->hedges);
	uint64_t n_denied = metric_read(&w->worker.metrics->hedges_denied);
	assert_true(n_sent > 0 && n_denied > 10 && n_sent + n_denied < 200);
	expect_end(w, 400);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_off_unless_asked_for),
		cmocka_unit_test(test_who_is_in_time_is_left_alone),
		cmocka_unit_test(test_the_second_wins),
		cmocka_unit_test(test_the_first_wins_late),
		cmocka_unit_test(test_both_answer_at_once),
		cmocka_unit_test(test_the_winner_may_be_asked_again),
		cmocka_unit_test(test_a_head_in_pieces_is_waited_for),
		cmocka_unit_test(test_the_first_is_cut),
		cmocka_unit_test(test_the_second_is_cut),
		cmocka_unit_test(test_both_are_cut),
		cmocka_unit_test(test_a_refusal_does_not_win),
		cmocka_unit_test(test_retry_after_is_kept),
		cmocka_unit_test(test_both_refuse),
		cmocka_unit_test(test_each_is_told_once),
		cmocka_unit_test(test_nobody_answers),
		cmocka_unit_test(test_who_is_left_has_its_own_time),
		cmocka_unit_test(test_the_total_is_over),
		cmocka_unit_test(test_both_hang),
		cmocka_unit_test(test_the_client_leaves),
		cmocka_unit_test(test_a_stop_ends_both),
		cmocka_unit_test(test_the_loser_may_go_on_with_the_stream),
		cmocka_unit_test(test_second_connects_that_all_fail),
		cmocka_unit_test(test_a_second_connect_that_fails_is_passed_over),
		cmocka_unit_test(test_the_first_answers_while_the_second_connects),
		cmocka_unit_test(test_the_first_refuses_while_the_second_connects),
		cmocka_unit_test(test_no_descriptor_for_a_second),
		cmocka_unit_test(test_a_stale_connection_of_the_second),
		cmocka_unit_test(test_a_stream_begins_behind_its_head),
		cmocka_unit_test(test_a_head_that_came_alone_goes_on_when_there_is_no_second),
		cmocka_unit_test(test_heads_pass_while_nothing_is_known),
		cmocka_unit_test(test_a_stream_that_ends_behind_its_head),
		cmocka_unit_test(test_nothing_behind_a_head_that_is_held),
		cmocka_unit_test(test_interim_answers_end_here),
		cmocka_unit_test(test_what_is_stored_or_unknown_is_not),
		cmocka_unit_test(test_what_is_computed_is),
		cmocka_unit_test(test_who_does_not_read_is_not_late),
		cmocka_unit_test(test_large_bodies_are_not),
		cmocka_unit_test(test_a_body_that_is_on_its_way),
		cmocka_unit_test(test_nobody_else_is_there),
		cmocka_unit_test(test_places_are_counted),
		cmocka_unit_test(test_a_probe_that_loses),
		cmocka_unit_test(test_both_are_seen_to_be_waited_for),
		cmocka_unit_test(test_an_engine_that_left),
		cmocka_unit_test(test_what_is_late_is_learned),
		cmocka_unit_test(test_heads_of_streams_are_not_learned),
		cmocka_unit_test(test_the_budget_holds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
