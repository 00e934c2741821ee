/* A request of two engines, peer to peer: what each is sent, and what is done about either that is lost at
 * any byte. */
#include "virtual/expect.h"
#include "virtual/pairs.h"

#define ASKED       "{\"model\":\"m\",\"messages\":[]}"
#define REST        "\"model\":\"m\",\"messages\":[]}"
#define SPOKEN      "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
#define DELTA(text) "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define POSTED      "POST " CHAT " HTTP/1.1"
#define WAIT_MS     1100 /* more than a retry waits */

/* A prefill's answer, of which the decode is told `block`. */
#define PREFILLED(block)                                                                                     \
	"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 47\r\n\r\n"                    \
	"{\"kv_transfer_params\":{\"remote_block_ids\":[" block "]}}"
#define GIVEN(block) "{\"kv_transfer_params\":{\"remote_block_ids\":[" block "]}," REST

static const struct pairs_how *const hows[] = { &pairs_nixl, &pairs_moriio, &pairs_sglang };

/* The next request there is a leg's. */
static void expect_leg(struct peer *engine, const char *text) {
	assert_non_null(engine);
	struct parsed m = expect_request_head(engine, POSTED);

	assert_true(m.is_whole);
	if (!parsed_has(bytes_slice(&m.body), text))
		fail_msg("the body is \"%.*s\"", (int)m.body.n, m.body.p);
	parsed_deinit(&m);
}

/* Of two engines the one that was asked first. */
static struct peer *either(int a, int b) {
	return net_newest(a) ? net_newest(a) : net_newest(b);
}

/* The newest connection to the other one; NULL: there is none. */
static struct peer *other(const struct peer *p, int a, int b) {
	return net_newest(a + b - p->engine);
}

static void expect_idle(const struct world *w) {
	assert_true(world_is_unloaded(w));
	assert_int_equal(w->worker.splits.n_lent, 0);
}

/* Who decodes answers, and nothing is left. */
static void finish(struct world *w, struct peer *decode, struct peer *client) {
	say(w, decode, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_idle(w);
	expect_end(w, 1);
}

/* --- when all goes well ---------------------------------------------------------------------- */

static void test_one_after_the_other(void **state) {
	struct world *w = pairs_world(&pairs_nixl, 1, 1);
	struct peer *client = post(w, CHAT, ASKED), *prefill = net_newest(0);

	assert_int_equal(net_n_connects(1), 0);
	assert_int_equal(world_load(w), 2); /* who decodes is expected to */
	expect_leg(prefill, "{\"kv_transfer_params\":{\"do_remote_decode\":true,");
	say(w, prefill, PREFILLED("7"));
	expect_nothing(client);
	expect_request(net_newest(1), POSTED, GIVEN("7"));
	assert_int_equal(world_load(w), 1);
	finish(w, net_newest(1), client);
}

static void test_both_at_once(void **state) {
	for (unsigned i = 1; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 1, 1);
		struct peer *client = post(w, CHAT, ASKED), *prefill = net_newest(0), *decode = net_newest(1);

		expect_leg(prefill, REST);
		expect_leg(decode, REST);
		say(w, decode, SSE_HEAD);
		say_chunk(w, decode, "data: {}\n\n");
		assert_int_equal(world_load(w), 2); /* the prefill is not over */
		say(w, prefill, PREFILLED("7"));
		assert_int_equal(world_load(w), 1);
		say(w, decode, "0\r\n\r\n");
		expect_answer(client, 200, "data: {}\n\n");
		expect_idle(w);
		expect_end(w, 1);
	}
}

static void test_byte_by_byte(void **state) {
	for (unsigned i = 0; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 1, 1);

		net.read_max = net.write_max = 1;
		struct peer *client = post(w, CHAT, ASKED);
		expect_leg(net_newest(0), REST);
		say(w, net_newest(0), PREFILLED("7"));
		expect_leg(net_newest(1), REST);
		finish(w, net_newest(1), client);
	}
}

/* What says what may be merged is held until it is whole, but not for ever: then it goes on as it is. */
static void test_an_event_that_is_too_large_comes_once(void **state) {
	static const char prefilled[] = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
					"content-length: 55\r\n\r\n"
					"{\"usage\":{\"prompt_tokens_details\":{\"cached"
					"_tokens\":3}}}";
	struct world *w = pairs_world(&pairs_sglang, 1, 1);
	struct peer *client = post(w, CHAT, SPOKEN), *decode = net_newest(1);
	static char event[80001];

	say(w, net_newest(0), prefilled);
	memset(event, 'a', sizeof(event) - 1);
	memcpy(event, "data: ", 6);
	memcpy(event + sizeof(event) - 3, "\n\n", 2);
	say(w, decode, SSE_HEAD "4e20\r\n");
	peer_say(decode, slice_head(slice_of(event), 20000));
	say(w, decode, "\r\n");
	peer_says(decode, "ea60\r\n");
	peer_says(decode, event + 20000);
	say(w, decode, "\r\n0\r\n\r\n");
	expect_answer(client, 200, event);
	expect_idle(w);
	expect_end(w, 1);
}

/* --- a prefill is lost ------------------------------------------------------------------------- */

/* Its connection ends behind so many bytes of its answer, before the decode has said anything. */
static void lose_prefill(const struct pairs_how *how, size_t at, void (*end)(struct peer *)) {
	struct world *w = pairs_world(how, 2, 1);
	struct peer *client = post(w, CHAT, ASKED), *first = either(0, 1);

	peer_say(first, slice_head(SLICE(PREFILLED("7")), at));
	world_settle(w);
	end(first);
	world_pass(w, WAIT_MS);
	expect_closed(first);
	expect_leg(other(first, 0, 1), REST);
	say(w, other(first, 0, 1), PREFILLED("8"));
	if (how->is_concurrent)
		expect_leg(net_newest(2), REST);
	else
		expect_request(net_newest(2), POSTED, GIVEN("8"));
	assert_int_equal(w->worker.metrics->prefills, 1);
	finish(w, net_newest(2), client);
}

static void test_a_prefill_is_lost_at_every_byte(void **state) {
	for (unsigned i = 0; i < n_elems(hows); i++)
		for (size_t at = 0; at < strlen(PREFILLED("7")); at++) {
			lose_prefill(hows[i], at, peer_close);
			lose_prefill(hows[i], at, peer_break);
		}
}

/* What the client has had stays: who decodes may have all it needs. */
static void test_a_prefill_is_lost_behind_the_first_event(void **state) {
	for (unsigned i = 1; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 2, 1);
		struct peer *client = post(w, CHAT, ASKED), *decode = net_newest(2), *prefill = either(0, 1);

		say(w, decode, SSE_HEAD);
		say_chunk(w, decode, "data: {}\n\n");
		peer_break(prefill);
		world_pass(w, WAIT_MS);
		assert_null(other(prefill, 0, 1));
		assert_int_equal(world_load(w), 1);
		say(w, decode, "0\r\n\r\n");
		expect_answer(client, 200, "data: {}\n\n");
		expect_idle(w);
		expect_end(w, 1);
	}
}

/* The head of a stream alone says nothing: the client gets it when the prefill is over. */
static void test_a_streams_head_is_held_back_for_the_prefill(void **state) {
	for (unsigned i = 1; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 1, 1);
		struct peer *client = post(w, CHAT, ASKED), *decode = net_newest(1);

		say(w, decode, SSE_HEAD);
		expect_nothing(client);
		say(w, net_newest(0), PREFILLED("7"));
		say_chunk(w, decode, "data: {}\n\n");
		say(w, decode, "0\r\n\r\n");
		expect_answer(client, 200, "data: {}\n\n");
		expect_idle(w);
		expect_end(w, 1);
	}
}

/* Either is lost then, and the client sees nothing of that. */
static void test_what_is_lost_behind_a_streams_head_is_had_again(void **state) {
	for (unsigned i = 1; i < n_elems(hows); i++)
		for (unsigned is_silent = 0; is_silent < 2; is_silent++) {
			struct world *w = pairs_world(hows[i], 2, 1);
			struct peer *client = post(w, CHAT, ASKED), *prefill = either(0, 1);

			say(w, net_newest(2), SSE_HEAD);
			if (!is_silent)
				peer_break(prefill);
			world_pass(w, is_silent * 7000 + WAIT_MS);
			expect_closed(prefill);
			expect_nothing(client);
			expect_leg(other(prefill, 0, 1), REST);
			finish(w, net_newest(2), client);
		}
	for (unsigned i = 1; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 1, 2);
		struct peer *client = post(w, CHAT, ASKED), *decode = either(1, 2);

		say(w, decode, SSE_HEAD);
		peer_close(decode);
		world_pass(w, WAIT_MS);
		expect_nothing(client);
		finish(w, other(decode, 1, 2), client);
	}
}

/* Its connection had ended before: it gets the request again at once, and the decode with it. */
static void test_a_prefill_that_was_never_sent(void **state) {
	struct world *w = pairs_world(&pairs_moriio, 1, 1);
	struct peer *client = post(w, CHAT, ASKED), *prefill = net_newest(0), *decode = net_newest(1);

	expect_leg(decode, REST);
	say(w, prefill, PREFILLED("7"));
	say(w, decode, ANSWER_OK);
	expect_answer(client, 200, "ok");
	peer_deafen(prefill);
	client = post(w, CHAT, ASKED);
	expect_leg(decode, REST);
	peer_finish(prefill);
	world_settle(w);
	expect_closed(decode);
	assert_ptr_not_equal(net_newest(0), prefill);
	say(w, net_newest(0), PREFILLED("8"));
	expect_leg(net_newest(1), REST);
	say(w, net_newest(1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

/* Its address says nothing: the next one is not judged by that wait. */
static void test_a_prefill_that_takes_no_connection(void **state) {
	for (unsigned i = 0; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 2, 1);

		net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
		struct peer *client = post(w, CHAT, ASKED), *first = either(0, 1);
		world_pass(w, 500);
		expect_closed(first);
		peer_answer_connect(other(first, 0, 1), true);
		world_settle(w);
		expect_leg(other(first, 0, 1), REST);
		say(w, other(first, 0, 1), PREFILLED("7"));
		expect_leg(net_newest(2), REST);
		assert_int_equal(metric_read(&w->worker.metrics->connect_failures), 1);
		finish(w, net_newest(2), client);
	}
}

/* It is us who cannot keep what it says: who decodes needs none of it, and nobody is to blame. */
static void test_a_prefill_that_there_is_no_memory_for(void **state) {
	for (unsigned i = 1; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 1, 1);
		uint64_t max_bytes = w->router.budget.max_bytes;

		w->config.breaker.limits.failures = 1;
		struct peer *client = post(w, CHAT, ASKED), *prefill = net_newest(0), *decode = net_newest(1);
		expect_leg(prefill, REST);
		expect_leg(decode, REST);
		w->router.budget.max_bytes = 1;
		say(w, prefill, PREFILLED("7"));
		w->router.budget.max_bytes = max_bytes;
		say(w, decode, ANSWER_OK);
		expect_answer(client, 200, "ok");
		client = post(w, CHAT, ASKED);
		expect_leg(prefill, REST);
		say(w, prefill, PREFILLED("8"));
		expect_leg(decode, REST);
		say(w, decode, ANSWER_OK);
		expect_answer(client, 200, "ok");
		expect_idle(w);
		expect_end(w, 2);
	}
}

/* The answer is complete, and not yet read. */
static void test_a_prefill_ends_with_the_answer(void **state) {
	struct world *w = pairs_world(&pairs_moriio, 1, 1);
	struct peer *client = post(w, CHAT, ASKED);

	peer_stall(client, 10);
	say(w, net_newest(1), ANSWER_OK);
	expect_closed(net_newest(0));
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* It alone is to blame: who decodes, and waits for it, may be asked again. */
static void fall_silent(const struct pairs_how *how, size_t at) {
	struct world *w = pairs_world(how, 2, 1);

	w->config.breaker.limits.failures = 1;
	struct peer *client = post(w, CHAT, ASKED), *first = either(0, 1);
	peer_say(first, slice_head(SLICE(PREFILLED("7")), at));
	world_pass(w, 7000 + WAIT_MS);
	expect_closed(first);
	say(w, other(first, 0, 1), PREFILLED("8"));
	if (how->is_concurrent)
		expect_leg(net_newest(2), REST);
	else
		expect_request(net_newest(2), POSTED, GIVEN("8"));
	finish(w, net_newest(2), client);
}

static void test_a_prefill_that_falls_silent_is_given_up(void **state) {
	static const size_t places[] = { 0, 20, 90 };

	for (unsigned i = 0; i < n_elems(hows); i++)
		for (unsigned k = 0; k < n_elems(places); k++)
			fall_silent(hows[i], places[k]);
}

/* Each of its bytes is a sign of life. */
static void test_a_prefills_head_in_time_is_enough(void **state) {
	const size_t n =
	    strlen(PREFILLED("7")) - strlen("{\"kv_transfer_params\":{\"remote_block_ids\":[7]}}");

	for (unsigned i = 0; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 1, 1);
		struct peer *client = post(w, CHAT, ASKED), *prefill = net_newest(0);

		world_pass(w, 5500);
		peer_say(prefill, slice_head(SLICE(PREFILLED("7")), n));
		world_pass(w, 2000);
		say(w, prefill, &PREFILLED("7")[n]);
		assert_int_equal(net_n_connects(0), 1);
		finish(w, net_newest(1), client);
	}
}

/* --- a decode is lost ---------------------------------------------------------------------------- */

/* Nothing of its answer has come: all is done anew. */
static void lose_decode(const struct pairs_how *how, bool is_prefilled) {
	struct world *w = pairs_world(how, 1, 2);
	struct peer *client = post(w, CHAT, ASKED), *first = net_newest(0);

	if (is_prefilled)
		say(w, first, PREFILLED("7"));
	struct peer *second = either(1, 2);
	peer_close(second);
	world_pass(w, WAIT_MS);
	assert_int_equal(first->was_closed, !is_prefilled);
	if (is_prefilled)
		expect_leg(first, REST);
	expect_leg(net_newest(0), REST);
	say(w, net_newest(0), PREFILLED("8"));
	expect_leg(other(second, 1, 2), REST);
	finish(w, other(second, 1, 2), client);
}

static void test_a_decode_is_lost(void **state) {
	for (unsigned i = 0; i < n_elems(hows); i++)
		for (unsigned is_prefilled = !hows[i]->is_concurrent; is_prefilled < 2; is_prefilled++)
			lose_decode(hows[i], is_prefilled);
}

/* It has fetched nothing: what was prefilled is for the other one. */
static void test_a_decode_refuses(void **state) {
	struct world *w = pairs_world(&pairs_nixl, 1, 2);
	struct peer *client = post(w, CHAT, ASKED);

	say(w, net_newest(0), PREFILLED("7"));
	struct peer *second = either(1, 2);
	say(w, second, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
	world_pass(w, WAIT_MS);
	expect_request(other(second, 1, 2), POSTED, GIVEN("7"));
	assert_int_equal(w->worker.metrics->prefills, 1);
	finish(w, other(second, 1, 2), client);
}

/* Who prefilled may be the one to blame: both are others then, or one engine does it all. */
static void fail_to_fetch(unsigned n_prefills) {
	struct world *w = pairs_world(&pairs_nixl, n_prefills, 2);
	int n = (int)n_prefills;
	w->config.retry.refusals |= 1u << RETRY_500;
	struct peer *client = post(w, CHAT, ASKED), *first = n_prefills == 2 ? either(0, 1) : net_newest(0);

	say(w, first, PREFILLED("7"));
	struct peer *second = either(n, n + 1);
	say(w, second, "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
	world_pass(w, WAIT_MS);
	assert_int_equal(w->worker.metrics->prefills, 1);
	if (n_prefills == 2) {
		expect_leg(other(first, 0, 1), REST);
		say(w, other(first, 0, 1), PREFILLED("8"));
	}
	expect_leg(other(second, n, n + 1), n_prefills == 2 ? GIVEN("8") : ASKED);
	finish(w, other(second, n, n + 1), client);
}

static void test_a_decode_fails_to_fetch(void **state) {
	fail_to_fetch(2);
	fail_to_fetch(1);
}

static struct instance *instance_at(struct world *w, uint16_t slot) {
	const struct snapshot *snap = w->worker.view->snapshot;
	uint32_t row = 0;

	while (snap->rows[row].instance->slot != slot)
		row++;
	return snap->rows[row].instance;
}

/* The request itself may be what they fail with. */
static void test_one_request_breaks_no_pair(void **state) {
	struct world *w = pairs_world(&pairs_sglang, 1, 1);

	w->config.retry.refusals |= 1u << RETRY_500;
	struct peer *client = post(w, CHAT, ASKED);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(net_n_connects(1), i);
		say(w, net_newest(1), "HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno");
		world_pass(w, WAIT_MS);
	}
	expect_answer(client, 500, "no");
	assert_false(split_breaker_is_open(&w->split_breaker, instance_life(instance_at(w, 0)),
	    instance_life(instance_at(w, 1)), loop_now_ms(&w->worker.loop) / 1000));
	expect_idle(w);
	expect_end(w, 1);
}

static void set_at_odds(struct world *w, uint16_t prefill, uint16_t decode) {
	for (unsigned i = 0; i < SPLIT_BREAKER_FAILURES; i++)
		split_breaker_fail(&w->split_breaker, instance_life(instance_at(w, prefill)),
		    instance_life(instance_at(w, decode)), loop_now_ms(&w->worker.loop) / 1000);
}

/* Another prefill does, before nobody does. */
static void test_who_gets_on_with_no_decode_is_passed_over(void **state) {
	struct world *w = pairs_world(&pairs_nixl, 2, 1);

	set_at_odds(w, 0, 2);
	for (unsigned i = 1; i <= 4; i++) {
		struct peer *client = post(w, CHAT, ASKED);

		assert_null(net_newest(0));
		say(w, net_newest(1), PREFILLED("7"));
		expect_leg(net_newest(2), GIVEN("7"));
		say(w, net_newest(2), ANSWER_OK);
		expect_answer(client, 200, "ok");
		expect_idle(w);
	}
	expect_end(w, 4);
}

/* Nobody else is there, and none of these does it all. */
static void test_who_does_not_get_on_is_better_than_nobody(void **state) {
	struct world *w = pairs_world(&pairs_sglang, 2, 1);

	set_at_odds(w, 0, 2);
	set_at_odds(w, 1, 2);
	struct peer *client = post(w, CHAT, ASKED);

	say(w, either(0, 1), PREFILLED("7"));
	finish(w, net_newest(2), client);
}

/* It is not shared: a unified engine comes first, also where only a decode may have what nobody can do alone.
 */
static void test_what_is_not_shared_goes_to_who_does_it_all(void **state) {
	static const char *const paths[] = { "/v1/messages", "/v1/embeddings", "/tokenize" };

	for (size_t i = 0; i < n_elems(paths); i++)
		for (int n_unified = 0; n_unified < 2; n_unified++) {
			struct world *w = pairs_world(&pairs_sglang, 1, 1);
			if (n_unified)
				world_set_engine(w, 2, "m", 1);
			for (unsigned k = 1; k <= 4; k++) {
				struct peer *client = post(w, paths[i], "{\"model\":\"m\"}");

				say(w, net_newest(1 + n_unified), ANSWER_OK);
				expect_answer(client, 200, "ok");
			}
			assert_int_equal(net_n_connects(-1), net_n_connects(1 + n_unified));
			expect_end(w, 4);
		}
}

/* One that nobody decodes is none for both. */
static void test_a_pair_without_a_name_is_of_a_model_that_both_have(void **state) {
	struct pair labels[] = { { SLICE("role"), SLICE("prefill") },
		{ SLICE("kv_connector"), SLICE("sglang") } };
	struct world *w = pairs_world(&pairs_sglang, 1, 1);

	world_set_labelled(w, 0, "a,m", 1, (struct pairs){ labels, 2 });
	struct peer *client = post(w, CHAT, "{\"messages\":[]}");
	say(w, net_newest(0), PREFILLED("7"));
	finish(w, net_newest(1), client);
}

/* Who is to be told that it is waited for is told. */
static void test_heartbeats_need_the_streams_head(void **state) {
	struct world *w = pairs_world(&pairs_sglang, 1, 1);

	w->config.heartbeat_ms = 1000;
	struct peer *client = post(w, CHAT, SPOKEN), *decode = net_newest(1);
	say(w, decode, SSE_HEAD);
	world_pass(w, 1500);
	say_chunk(w, decode, "data: {}\n\n");
	say(w, decode, "0\r\n\r\n");
	expect_answer(client, 200, ": heartbeat\n\ndata: {}\n\n");
	expect_idle(w);
	expect_end(w, 1);
}

/* Where both are asked at once the prefill ends with it, and not when the wait for another one is over. */
static void test_a_decode_refuses_while_it_is_prefilled(void **state) {
	struct world *w = pairs_world(&pairs_sglang, 1, 2);
	struct peer *client = post(w, CHAT, ASKED), *second = either(1, 2);

	say(w, second, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
	expect_closed(net_newest(0));
	assert_int_equal(world_load(w), 0);
	world_pass(w, WAIT_MS);
	say(w, net_newest(0), PREFILLED("7"));
	finish(w, other(second, 1, 2), client);
}

static void test_a_retry_is_denied_once(void **state) {
	struct world *w = pairs_world(&pairs_sglang, 1, 2);

	w->config.retry.budget = 0;
	struct peer *client = post(w, CHAT, ASKED);
	say(w, either(1, 2), "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
	expect_answer(client, 503, "");
	assert_int_equal(w->worker.metrics->retries_denied, 1);
	expect_end(w, 1);
}

/* Behind its first words: one engine does the rest, and the prefill, which may be at work, is of no use. */
static void test_a_stream_that_is_cut_goes_on_at_one(void **state) {
	for (unsigned i = 0; i < n_elems(hows); i++) {
		struct world *w = pairs_world(hows[i], 1, 1);

		w->config.resume = (struct router_resume){ true, 2, 256u << 10 };
		struct peer *client = post(w, CHAT, SPOKEN), *prefill = net_newest(0);
		if (!hows[i]->is_concurrent)
			say(w, prefill, PREFILLED("7"));
		struct peer *decode = net_newest(1);
		say(w, decode, SSE_HEAD);
		say_chunk(w, decode, DELTA("a"));
		world_set_engine(w, 2, "m", 1);
		peer_close(decode);
		world_settle(w);
		assert_int_equal(prefill->was_closed, hows[i]->is_concurrent);
		assert_int_equal(world_load(w), 1);
		expect_leg(net_newest(2), "\"continue_final_message\":true");
		say(w, net_newest(2), SSE_HEAD);
		say_chunk(w, net_newest(2), DELTA("b") "data: [DONE]\n\n");
		say(w, net_newest(2), "0\r\n\r\n");
		expect_answer(client, 200, DELTA("a") DELTA("b") "data: [DONE]\n\n");
		expect_idle(w);
		expect_end(w, 1);
	}
}

/* --- the client leaves ----------------------------------------------------------------------------- */

/* What both have said until then. */
static void leave(const struct pairs_how *how, const char *prefill, const char *decode) {
	struct world *w = pairs_world(how, 1, 1);
	struct peer *client = post(w, CHAT, ASKED);

	if (prefill)
		say(w, net_newest(0), prefill);
	if (decode)
		say(w, net_newest(1), decode);
	bool is_prefilled = prefill && slice_eq(slice_of(prefill), SLICE(PREFILLED("7")));
	peer_close(client);
	world_turn(w);
	world_turn(w);
	assert_int_equal(net_newest(0)->was_closed, !is_prefilled);
	if (net_newest(1))
		expect_closed(net_newest(1));
	expect_idle(w);
	expect_end(w, 1);
}

static void test_the_client_leaves(void **state) {
	static const char *const parts[] = { NULL, "HTTP/1.1 2",
		"HTTP/1.1 200 OK\r\ncontent-length: 47\r\n\r\n{\"kv", PREFILLED("7") };
	for (unsigned i = 0; i < n_elems(hows); i++)
		for (unsigned k = 0; k < n_elems(parts); k++) {
			leave(hows[i], parts[k], NULL);
			if (hows[i]->is_concurrent || k + 1 == n_elems(parts))
				leave(hows[i], parts[k], SSE_HEAD);
		}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_after_the_other),
		cmocka_unit_test(test_both_at_once),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_an_event_that_is_too_large_comes_once),
		cmocka_unit_test(test_a_prefill_is_lost_at_every_byte),
		cmocka_unit_test(test_a_prefill_is_lost_behind_the_first_event),
		cmocka_unit_test(test_a_streams_head_is_held_back_for_the_prefill),
		cmocka_unit_test(test_what_is_lost_behind_a_streams_head_is_had_again),
		cmocka_unit_test(test_a_prefill_that_was_never_sent),
		cmocka_unit_test(test_a_prefill_that_takes_no_connection),
		cmocka_unit_test(test_a_prefill_that_there_is_no_memory_for),
		cmocka_unit_test(test_a_prefill_ends_with_the_answer),
		cmocka_unit_test(test_a_prefill_that_falls_silent_is_given_up),
		cmocka_unit_test(test_a_prefills_head_in_time_is_enough),
		cmocka_unit_test(test_a_decode_is_lost),
		cmocka_unit_test(test_a_decode_refuses),
		cmocka_unit_test(test_a_decode_fails_to_fetch),
		cmocka_unit_test(test_one_request_breaks_no_pair),
		cmocka_unit_test(test_who_gets_on_with_no_decode_is_passed_over),
		cmocka_unit_test(test_who_does_not_get_on_is_better_than_nobody),
		cmocka_unit_test(test_what_is_not_shared_goes_to_who_does_it_all),
		cmocka_unit_test(test_a_pair_without_a_name_is_of_a_model_that_both_have),
		cmocka_unit_test(test_heartbeats_need_the_streams_head),
		cmocka_unit_test(test_a_decode_refuses_while_it_is_prefilled),
		cmocka_unit_test(test_a_retry_is_denied_once),
		cmocka_unit_test(test_a_stream_that_is_cut_goes_on_at_one),
		cmocka_unit_test(test_the_client_leaves),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
