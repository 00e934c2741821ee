/* A stream that an engine cuts goes on at another one, and the client sees one stream. */
#include "virtual/expect.h"

#define REQUEST                                                                                              \
	"{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_"       \
	"tokens\":9}"
#define REST(text, left)                                                                                     \
	"{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"},"              \
	"{\"role\":\"assistant\",\"content\":\"" text "\"}],\"max_tokens\":" left                            \
	",\"continue_final_message\":true,\"add_generation_prompt\":false}"
#define ROLE(id)                                                                                             \
	"data: {\"id\":\"" id "\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define DELTA(id, text) "data: {\"id\":\"" id "\",\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define FINISH(id)      "data: {\"id\":\"" id "\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE(id, in, out, all)                                                                              \
	"data: {\"id\":\"" id "\",\"choices\":[],\"usage\":{\"prompt_tokens\":" in                           \
	",\"completion_tokens\":" out ",\"total_tokens\":" all "}}\n\n"
#define DONE "data: [DONE]\n\n"

static struct world *world(const char *const *models) {
	struct world *w = world_new(models);
	w->config.resume = (struct router_resume){ true, 2, 256u << 10 };
	return w;
}

#define RESUMING(...) world((const char *const[]){ __VA_ARGS__, NULL })

static uint64_t n_resumes(const struct world *w) {
	return metric_read(&w->worker.metrics->resumes);
}

static uint64_t n_good(const struct world *w) {
	return metric_read(&w->worker.metrics->resumes_good);
}

static struct worker_tally *tally(struct world *w, const struct peer *engine) {
	char name[16];
	const struct snapshot *snap = w->worker.view->snapshot;
	snprintf(name, sizeof(name), "e%d", engine->engine);
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (slice_eq(snap->rows[i].instance->spec.name, slice_of(name)))
			return &w->worker.tallies[snap->rows[i].instance->slot];
	fail_msg("no engine %s", name);
	return NULL;
}

/* Its stream begins and is cut behind "a b". */
static struct peer *cut(struct world *w, struct peer **client_out) {
	struct peer *client = *client_out = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	expect_request(engine, "POST " CHAT " HTTP/1.1", REQUEST);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, ROLE("1") DELTA("1", "a"));
	say_chunk(w, engine, DELTA("1", " b"));
	peer_close(engine);
	world_settle(w);
	(void)client;
	return engine;
}

#define SO_FAR ROLE("1") DELTA("1", "a") DELTA("1", " b")

static void expect_one_line(const struct world *w, const char *text) {
	assert_int_equal(w->n_lines, 1);
	if (!parsed_has(bytes_slice(&w->log), text))
		fail_msg("no %s in %.*s", text, (int)w->log.n, w->log.p);
}

static void test_goes_on(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client, *first = cut(w, &client), *second = net_newest(-1);
	assert_int_not_equal(first->engine, second->engine);
	expect_closed(first);
	expect_request(second, "POST " CHAT " HTTP/1.1", REST("a b", "7"));
	say(w, second, SSE_HEAD);
	say_chunk(w, second, ROLE("77") DELTA("77", " c"));
	say_chunk(w, second, FINISH("77"));
	say_chunk(w, second, USAGE("77", "6", "1", "7") DONE);
	say(w, second, "0\r\n\r\n");
	expect_answer(client, 200, SO_FAR DELTA("1", " c") FINISH("1") USAGE("1", "4", "3", "7") DONE);
	expect_logged(w, 200, "none");
	expect_one_line(w, "\"tokens_in\":4,\"tokens_out\":3");
	expect_one_line(w, "\"attempts\":2,\"cause\":\"none\",\"resumed\":1");
	assert_int_equal(n_resumes(w), 1);
	assert_int_equal(n_good(w), 1);
	assert_int_equal(metric_read(&w->worker.metrics->streams_broken), 0);
	assert_int_equal(metric_read(&tally(w, first)->n_faults), 1);
	assert_int_equal(metric_read(&tally(w, first)->n_requests), 1);
	assert_int_equal(metric_read(&tally(w, second)->n_faults), 0);
	assert_int_equal(metric_read(&tally(w, second)->n_good), 1);
	expect_end(w, 1);
}

/* Wherever the first one is cut: in events, between them, by FIN or by reset. What was whole is gone on from.
 */
static void test_cut_at_every_byte(void **state) {
	static const char events[] = ROLE("1") DELTA("1", "a") DELTA("1", "\\n\\u00e9");
	const size_t one = strlen(ROLE("1") DELTA("1", "a")), all = strlen(events);
	for (size_t n = one; n <= all; n++)
		for (unsigned breaks = 0; breaks < 2; breaks++) {
			struct world *w = RESUMING("m", "m");
			struct peer *client = post(w, CHAT, REQUEST), *first = net_newest(-1), *second;
			char line[24];
			say(w, first, SSE_HEAD);
			snprintf(line, sizeof(line), "%zx\r\n", strlen(events));
			peer_says(first, line);
			peer_say(first, slice_head(slice_of(events), n));
			world_settle(w);
			(breaks ? peer_break : peer_close)(first);
			world_settle(w);
			second = net_newest(-1);
			struct parsed m = expect_request_head(second, "POST " CHAT " HTTP/1.1");
			expect_body(&m, n < all ? REST("a", "8") : REST("a\\n\\u00e9", "7"));
			parsed_deinit(&m);
			say(w, second, SSE_HEAD);
			say_chunk(w, second, DELTA("2", "z") FINISH("2") DONE);
			say(w, second, "0\r\n\r\n");
			m = expect_answer_kind(client, PARSED_RESPONSE, 200, NULL);
			struct slice body = bytes_slice(&m.body);
			size_t n_first = n < all ? one : all;
			assert_true(
			    slice_eq(slice_head(body, n_first), slice_head(slice_of(events), n_first)));
			assert_true(
			    slice_eq(slice_skip(body, n_first), SLICE(DELTA("1", "z") FINISH("1") DONE)));
			parsed_deinit(&m);
			expect_end(w, 1);
		}
}

/* The same, byte by byte: only whole events go on, at once. */
static void test_events_wait_until_they_are_whole(void **state) {
	static const char event[] = DELTA("1", "a");
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	parsed_deinit(&m);
	for (size_t i = 0; i < sizeof(event) - 1; i++) {
		char chunk[] = "1\r\nx\r\n";
		size_t before = client->got.n;
		chunk[3] = event[i];
		say(w, engine, chunk);
		assert_int_equal(client->got.n > before, i == sizeof(event) - 2);
	}
	say_chunk(w, engine, FINISH("1") DONE);
	say(w, engine, "0\r\n\r\n");
	assert_int_equal(n_resumes(w), 0);
	expect_end(w, 1);
}

static void test_completion(void **state) {
	static const char request[] = "{\"model\":\"m\",\"prompt\":\"Say\",\"max_tokens\":5,\"stream\":true}";
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, "/v1/completions", request), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, "data: {\"id\":\"1\",\"choices\":[{\"text\":\" \\\"it\"}]}\n\n");
	peer_break(engine);
	world_settle(w);
	engine = net_newest(-1);
	expect_request(engine, "POST /v1/completions HTTP/1.1",
	    "{\"model\":\"m\",\"prompt\":\"Say \\\"it\",\"max_tokens\":4,\"stream\":true}");
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, "data: {\"id\":\"2\",\"choices\":[{\"text\":\"\\\"\"}]}\n\n" DONE);
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200,
	    "data: {\"id\":\"1\",\"choices\":[{\"text\":\" \\\"it\"}]}\n\n"
	    "data: {\"id\":\"1\",\"choices\":[{\"text\":\"\\\"\"}]}\n\n" DONE);
	assert_int_equal(n_good(w), 1);
	expect_end(w, 1);
}

/* A stream that is silent for too long counts as cut. */
static void test_silence(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *first = net_newest(-1), *second;
	say(w, first, SSE_HEAD);
	say_chunk(w, first, DELTA("1", "a"));
	world_pass(w, 6999);
	assert_int_equal(n_resumes(w), 0);
	world_pass(w, 2);
	expect_closed(first);
	second = net_newest(-1);
	expect_request(second, "POST " CHAT " HTTP/1.1", REST("a", "8"));
	say(w, second, SSE_HEAD);
	world_pass(w, 6998); /* its own silence */
	say_chunk(w, second, DELTA("2", "b") FINISH("2") DONE);
	say(w, second, "0\r\n\r\n");
	expect_answer(client, 200, DELTA("1", "a") DELTA("1", "b") FINISH("1") DONE);
	expect_end(w, 1);
}

/* Who was asked for the rest and has said nothing yet is waited for; no stream of its own is silent. */
static void test_who_goes_on_is_waited_for(void **state) {
	struct world *w = RESUMING("m", "m");
	w->config.health.stall_timeout_ms = 1000;
	struct peer *client, *second;
	cut(w, &client);
	second = net_newest(-1);
	say(w, second, SSE_HEAD);
	say_chunk(w, second, ROLE("2"));
	world_pass(w, 2600);
	assert_int_equal(tally(w, second)->n_waiting, 1);
	assert_int_equal(tally(w, second)->n_stalled, 0);
	say_chunk(w, second, DELTA("2", "c"));
	world_pass(w, 2600);
	assert_int_equal(tally(w, second)->n_waiting, 0);
	assert_int_equal(tally(w, second)->n_stalled, 1);
	peer_close(client);
	expect_end(w, 1);
}

/* Bytes that are no HTTP behind good events. */
static void test_malformed(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, DELTA("1", "a"));
	say(w, engine, "xyz\r\n");
	engine = net_newest(-1);
	expect_request(engine, "POST " CHAT " HTTP/1.1", REST("a", "8"));
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, FINISH("2") DONE);
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, DELTA("1", "a") FINISH("1") DONE);
	expect_end(w, 1);
}

static void test_goes_on_twice_and_no_more(void **state) {
	struct world *w = RESUMING("m", "m", "m", "m");
	struct peer *client, *engine = cut(w, &client);
	for (unsigned i = 0; i < 2; i++) {
		engine = net_newest(-1);
		say(w, engine, SSE_HEAD);
		say_chunk(w, engine, ROLE("2") DELTA("2", "+"));
		peer_close(engine);
		world_settle(w);
	}
	assert_ptr_equal(net_newest(-1), engine);
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	assert_false(m.is_whole);
	assert_true(slice_has_prefix(
	    bytes_slice(&m.body), SLICE(SO_FAR DELTA("1", "+") DELTA("1", "+") "data: {\"error\":")));
	parsed_deinit(&m);
	expect_logged(w, 200, "stream_broken");
	expect_one_line(w, "\"resumed\":2");
	assert_int_equal(n_resumes(w), 2);
	assert_int_equal(n_good(w), 0);
	assert_int_equal(metric_read(&w->worker.metrics->streams_broken), 1);
	expect_end(w, 1);
}

/* --- those that do not go on --------------------------------------------------------------- */

/* The client is told, as without all this, and nobody else was asked. */
static void expect_told(struct world *w, struct peer *client, const char *body, unsigned n_connects) {
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	assert_false(m.is_whole);
	if (!slice_has_prefix(bytes_slice(&m.body), slice_of(body)) ||
	    !slice_has_prefix(slice_skip(bytes_slice(&m.body), strlen(body)), SLICE("data: {\"error\":")))
		fail_msg("\"%.*s\"", (int)m.body.n, m.body.p);
	parsed_deinit(&m);
	assert_int_equal(net_n_connects(-1), n_connects);
	assert_int_equal(n_good(w), 0);
}

static void cut_behind(const char *request, const char *events) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, request), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	if (events[0])
		say_chunk(w, engine, events);
	peer_close(engine);
	world_settle(w);
	expect_told(w, client, events, 1);
	expect_logged(w, 200, "stream_broken");
	assert_int_equal(n_resumes(w), 0);
	assert_int_equal(metric_read(&tally(w, engine)->n_faults), 1);
	expect_end(w, 1);
}

static void test_nothing_to_go_on_from(void **state) {
	cut_behind(REQUEST, "");
	cut_behind(REQUEST, ROLE("1"));
	cut_behind(REQUEST, DELTA("1", "a") FINISH("1"));
	cut_behind(REQUEST, DELTA("1", "a") FINISH("1") DONE);
	cut_behind(REQUEST, DELTA("1", "a\\ud83d"));
	cut_behind(REQUEST, DELTA("1", "a\xc3"));
	cut_behind(REQUEST, DELTA("1", "a\xc3") DELTA("1", "\xa9"));
	cut_behind(REQUEST, DELTA("1", "\xff") DELTA("1", "a"));
	cut_behind(
	    REQUEST, "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n" DELTA("1", "a"));
	cut_behind(REQUEST, DELTA("1", "a") "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}\n\n");
	cut_behind(REQUEST, DELTA("1", "a") "data: {\"a\":\ndata: 1}\n\n");
	cut_behind("{\"stream\":true,\"n\":2,\"messages\":[{}]}", DELTA("1", "a"));
	cut_behind("{\"stream\":true,\"logprobs\":true,\"messages\":[{}]}", DELTA("1", "a"));
	cut_behind("{\"stream\":true,\"max_tokens\":1,\"messages\":[{}]}", DELTA("1", "a"));
	cut_behind("{\"messages\":[{}]}", DELTA("1", "a")); /* not asked for as a stream */
}

static void test_off(void **state) {
	struct world *w = WORLD("m", "m");
	struct peer *client;
	cut(w, &client);
	expect_told(w, client, SO_FAR, 1);
	expect_end(w, 1);
}

static void test_nobody_is_left(void **state) {
	struct world *w = RESUMING("m");
	struct peer *client, *engine = cut(w, &client);
	expect_told(w, client, SO_FAR, 1);
	expect_logged(w, 200, "stream_broken");
	assert_int_equal(n_resumes(w), 1);
	assert_int_equal(metric_read(&tally(w, engine)->n_faults), 1);
	assert_int_equal(metric_read(&tally(w, engine)->n_requests), 1);
	expect_end(w, 1);
}

static void test_nobody_can_be_reached(void **state) {
	struct world *w = RESUMING("m", "m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *first = net_newest(-1);
	for (int i = 0; i < 3; i++)
		if (i != first->engine)
			net.moods[i][0] = MOOD_REFUSE;
	say(w, first, SSE_HEAD);
	say_chunk(w, first, DELTA("1", "a"));
	peer_close(first);
	world_settle(w);
	expect_told(w, client, DELTA("1", "a"), 3);
	expect_logged(w, 200, "stream_broken");
	for (unsigned slot = 0; slot < 3; slot++)
		assert_true(metric_read(&w->worker.tallies[slot].n_faults) <= 1);
	assert_int_equal(metric_read(&tally(w, first)->n_faults), 1);
	expect_end(w, 1);
}

static void test_budget_is_used_up(void **state) {
	struct world *w = RESUMING("m", "m");
	w->config.retry.budget = 0;
	struct peer *client;
	cut(w, &client);
	expect_told(w, client, SO_FAR, 1);
	assert_int_equal(metric_read(&w->worker.metrics->retries_denied), 1);
	expect_end(w, 1);
}

/* The one that is asked to go on says no, or something else. */
static void second_says(const char *answer, bool is_fault) {
	struct world *w = RESUMING("m", "m");
	struct peer *client, *second;
	cut(w, &client);
	second = net_newest(-1);
	say(w, second, answer);
	expect_closed(second);
	expect_told(w, client, SO_FAR, 2);
	expect_logged(w, 200, "stream_broken");
	assert_int_equal(metric_read(&tally(w, second)->n_requests), 1);
	assert_int_equal(metric_read(&tally(w, second)->n_faults), is_fault);
	expect_end(w, 1);
}

static void test_second_refuses(void **state) {
	second_says("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}", false);
	second_says("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}", false);
	second_says("HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}", true);
	second_says(ANSWER_OK, false);
	second_says(
	    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\n", false);
}

/* With retries a third one is asked. */
static void test_second_is_busy(void **state) {
	struct world *w = RESUMING("m", "m", "m");
	w->config.retry.attempts = 3;
	struct peer *client, *engine;
	cut(w, &client);
	say(w, net_newest(-1), "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}");
	world_pass(w, 1000);
	engine = net_newest(-1);
	expect_request(engine, "POST " CHAT " HTTP/1.1", REST("a b", "7"));
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, ROLE("2") FINISH("2") DONE);
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, SO_FAR FINISH("1") DONE);
	assert_int_equal(n_good(w), 1);
	expect_end(w, 1);
}

/* Who cut the stream is not asked for its rest, whatever may be retried. */
static void test_who_cut_it_is_not_asked_again(void **state) {
	struct world *w = RESUMING("m", "m");
	w->config.retry.attempts = 4;
	struct peer *client;
	cut(w, &client);
	say(w, net_newest(-1), "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}");
	world_pass(w, 1000);
	expect_told(w, client, SO_FAR, 2);
	expect_logged(w, 200, "stream_broken");
	expect_end(w, 1);
}

/* It dies, too, before it says anything: the next one gets the same. */
static void test_second_dies_at_once(void **state) {
	struct world *w = RESUMING("m", "m", "m");
	struct peer *client, *engine;
	cut(w, &client);
	peer_close(net_newest(-1));
	world_settle(w);
	engine = net_newest(-1);
	expect_request(engine, "POST " CHAT " HTTP/1.1", REST("a b", "7"));
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, FINISH("2") DONE);
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, SO_FAR FINISH("1") DONE);
	assert_int_equal(n_resumes(w), 2);
	assert_int_equal(n_good(w), 1);
	expect_end(w, 1);
}

/* Its events cannot be made to look like the first one's. */
static void test_second_is_not_understood(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client, *engine;
	cut(w, &client);
	engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, DELTA("2", "c") "data: nonsense\n\n" DELTA("2", "d"));
	expect_closed(engine);
	expect_told(w, client, SO_FAR DELTA("1", "c"), 2);
	expect_logged(w, 200, "stream_broken");
	expect_end(w, 1);
}

/* The same where the end has come with it: what was left out is no end. */
static void test_second_ends_behind_what_is_not_understood(void **state) {
	static const char events[] = DELTA("2", "c") "data: nonsense\n\n" FINISH("2") DONE;
	for (unsigned early = 0; early < 2; early++) {
		struct world *w = RESUMING("m", "m");
		struct peer *client, *engine;
		char text[sizeof(events) + 32];
		cut(w, &client);
		engine = net_newest(-1);
		snprintf(text, sizeof(text), "%zx\r\n%s\r\n0\r\n\r\n", strlen(events), events);
		peer_says(engine, SSE_HEAD);
		if (!early)
			world_settle(w);
		say(w, engine, text);
		expect_closed(engine);
		expect_told(w, client, SO_FAR DELTA("1", "c"), 2);
		expect_logged(w, 200, "stream_broken");
		expect_end(w, 1);
	}
}

/* At each point of the second attempt. */
static void test_client_leaves_meanwhile(void **state) {
	for (unsigned when = 0; when < 3; when++) {
		struct world *w = RESUMING("m", "m");
		struct peer *client = post(w, CHAT, REQUEST), *first = net_newest(-1), *second;
		net.moods[1 - first->engine][0] = MOOD_SILENT;
		say(w, first, SSE_HEAD);
		say_chunk(w, first, DELTA("1", "a"));
		peer_close(first);
		world_settle(w);
		second = net_newest(-1);
		assert_ptr_not_equal(first, second);
		if (when > 0) {
			peer_answer_connect(second, true);
			world_settle(w);
		}
		if (when > 1)
			say(w, second, SSE_HEAD);
		peer_close(client);
		world_settle(w);
		expect_closed(second);
		expect_logged(w, 499, "client_gone");
		assert_int_equal(metric_read(&w->worker.metrics->cancelled), 1);
		assert_int_equal(metric_read(&tally(w, second)->n_faults), 0);
		expect_end(w, 1);
	}
}

static void test_total_time_goes_on(void **state) {
	struct world *w = RESUMING("m", "m");
	w->config.timeout.total_ms = 5000;
	struct peer *client = post(w, CHAT, REQUEST), *first = net_newest(-1);
	say(w, first, SSE_HEAD);
	world_pass(w, 3000);
	say_chunk(w, first, DELTA("1", "a"));
	peer_close(first);
	world_settle(w);
	world_pass(w, 1999);
	assert_int_equal(w->n_lines, 0);
	world_pass(w, 2);
	expect_cut(client, NULL);
	expect_logged(w, 200, "total_timeout");
	expect_end(w, 1);
}

/* What is kept has a limit; beyond it all passes as it comes. */
static void test_too_large(void **state) {
	struct world *w = RESUMING("m", "m");
	w->config.resume.max_bytes = sizeof(REQUEST) - 1 + 2;
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, DELTA("1", "ab"));
	uint64_t kept = world_held(w);
	say_chunk(w, engine, DELTA("1", "c"));
	assert_true(world_held(w) < kept);
	peer_close(engine);
	world_settle(w);
	expect_told(w, client, DELTA("1", "ab") DELTA("1", "c"), 1);
	expect_end(w, 1);

	w = RESUMING("m", "m");
	w->config.resume.max_bytes = sizeof(REQUEST) - 2; /* the body alone */
	cut(w, &client);
	expect_told(w, client, SO_FAR, 1);
	expect_end(w, 1);
}

/* An event that is too large to wait for is passed in parts. */
static void test_large_event(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	struct bytes body = { .n_max = SIZE_MAX };
	say(w, engine, SSE_HEAD);
	bytes_printf(&body, DELTA("1", "a") "data: {\"id\":\"");
	for (unsigned i = 0; i < 70000; i++)
		bytes_add(&body, SLICE("x"));
	bytes_printf(&body, "\"}\n\n" FINISH("1") DONE);
	bytes_add(&body, (struct slice){ "", 1 });
	for (size_t at = 0; at < body.n - 1; at += 1000) {
		char part[1001];
		snprintf(part, sizeof(part), "%s", body.p + at);
		say_chunk(w, engine, part);
	}
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, body.p);
	bytes_deinit(&body);
	assert_int_equal(w->worker.resumes.n_lent, 0);
	expect_end(w, 1);
}

/* What waits for the end of an event is no more than what such a one may have. */
static void test_an_event_without_end(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	char part[1001];
	memset(part, 'x', 1000);
	part[1000] = '\0';
	say(w, engine, SSE_HEAD);
	uint64_t before = world_held(w);
	say_chunk(w, engine, "data: ");
	for (unsigned i = 0; i < 65; i++) {
		say_chunk(w, engine, part);
		assert_true(world_held(w) <= before + 65536);
	}
	assert_int_equal(w->worker.resumes.n_lent, 1);
	part[510] = '\0'; /* less than 65536 in all, and more than a buf of that many has */
	say_chunk(w, engine, part);
	assert_true(world_held(w) <= before);
	assert_int_equal(w->worker.resumes.n_lent, 0);
	peer_close(client);
	expect_end(w, 1);
}

/* Nor is it held when memory is short: it goes on in parts. */
static void test_no_memory_for_an_event(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	uint64_t max = w->router.budget.max_bytes;
	w->router.budget.max_bytes = 1;
	say_chunk(w, engine, "data: {\"id\"");
	assert_int_equal(w->worker.resumes.n_lent, 0);
	say_chunk(w, engine, ":1}\n\n");
	w->router.budget.max_bytes = max;
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, "data: {\"id\":1}\n\n");
	expect_end(w, 1);
}

/* What the first one's identity makes of another one's events has a limit. */
static void test_an_identity_that_swells_events(void **state) {
	static const char small[] = "data:{\"id\":1}\n\n";
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *first = net_newest(-1), *second;
	struct bytes events = { .n_max = SIZE_MAX };
	char text[800], id[601];
	memset(id, '1', 600);
	id[600] = '\0';
	snprintf(text, sizeof(text), DELTA("%s", "a"), id);
	say(w, first, SSE_HEAD);
	say_chunk(w, first, text);
	peer_close(first);
	world_settle(w);
	second = net_newest(-1);
	assert_ptr_not_equal(first, second);
	for (unsigned i = 0; i < 4000; i++)
		bytes_add(&events, slice_of(small));
	bytes_add(&events, (struct slice){ "", 1 });
	say(w, second, SSE_HEAD);
	say_chunk(w, second, events.p);
	bytes_deinit(&events);
	expect_closed(second);
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	assert_false(m.is_whole);
	assert_in_range(m.body.n, 1u << 20, (1u << 20) + 2000);
	parsed_deinit(&m);
	expect_end(w, 1);
}

/* What is of no use any more is given back while the stream goes on. */
static void test_memory_is_given_back(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	assert_int_equal(w->worker.resumes.n_lent, 1);
	say_chunk(w, engine, DELTA("1", "a"));
	say_chunk(w, engine, FINISH("1"));
	assert_int_equal(w->worker.resumes.n_lent, 0);
	say_chunk(w, engine, DONE);
	say(w, engine, "0\r\n\r\n");
	expect_answer(client, 200, DELTA("1", "a") FINISH("1") DONE);
	expect_end(w, 1);
}

/* No memory: it is not kept, and the answer goes on. */
static void test_out_of_memory(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client = post(w, CHAT, REQUEST), *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	uint64_t max = w->router.budget.max_bytes;
	w->router.budget.max_bytes = 1;
	say_chunk(w, engine, DELTA("1", "a"));
	say_chunk(w, engine, DELTA("1", "b"));
	w->router.budget.max_bytes = max;
	peer_close(engine);
	world_settle(w);
	expect_told(w, client, DELTA("1", "a") DELTA("1", "b"), 1);
	expect_end(w, 1);
}

/* The connection that is taken for the rest may be stale: what is sent can be sent again. */
static void test_stale_connection(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *engines[2], *client, *stale, *engine;
	for (unsigned i = 0; i < 2; i++) { /* both get one that is kept */
		client = ask(w, GET);
		engines[i] = net_newest(-1);
		say(w, engines[i], ANSWER_OK);
		peer_close(client);
		world_settle(w);
	}
	assert_int_not_equal(engines[0]->engine, engines[1]->engine);
	client = post(w, CHAT, REQUEST);
	engine = engines[parsed_has(bytes_slice(&engines[0]->got), CHAT) ? 0 : 1];
	stale = engines[engine == engines[0]];
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, DELTA("1", "a"));
	peer_deafen(stale);
	peer_close(engine);
	world_settle(w);
	peer_close(stale);
	world_settle(w);
	struct peer *fresh = net_newest(stale->engine);
	assert_ptr_not_equal(fresh, stale);
	expect_request(fresh, "POST " CHAT " HTTP/1.1", REST("a", "8"));
	say(w, fresh, SSE_HEAD);
	say_chunk(w, fresh, FINISH("2") DONE);
	say(w, fresh, "0\r\n\r\n");
	expect_answer(client, 200, DELTA("1", "a") FINISH("1") DONE);
	expect_end(w, 3);
}

static void test_worker_stops_meanwhile(void **state) {
	struct world *w = RESUMING("m", "m");
	struct peer *client;
	cut(w, &client);
	list_each_safe (it, &w->worker.active)
		exchange_kill(container_of(it, struct exchange, link), CAUSE_STOPPING);
	world_settle(w);
	expect_told(w, client, SO_FAR, 2);
	expect_logged(w, 200, "stopping");
	expect_end(w, 1);
}

/* --- any order of events ------------------------------------------------------------------------ */

#define SEEDS    1500u
#define N_TOKENS 9u

/* How many tokens have been said, by the request for the rest. */
static unsigned n_said_by(const struct peer *engine) {
	struct slice rest = bytes_slice(&engine->got);
	unsigned n = 0;
	for (const char *at; (at = memmem(rest.p, rest.n, " t", 2)) != NULL; n++)
		rest = slice_skip(rest, (size_t)(at + 2 - rest.p));
	return n;
}

/* All that an engine says whom `n` tokens are left; its id is `id`. */
static void write_answer(struct bytes *out, unsigned id, unsigned n_said) {
	struct bytes events = { .n_max = SIZE_MAX };
	bytes_printf(
	    &events, "data: {\"id\":\"%u\",\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n", id);
	for (unsigned i = n_said; i < N_TOKENS; i++)
		bytes_printf(&events,
		    "data: {\"id\":\"%u\",\"choices\":[{\"delta\":{\"content\":\" t%u\"}}]}\r\n\r\n", id, i);
	bytes_printf(&events, "%s: comment\n\n", FINISH("1"));
	bytes_printf(&events,
	    "data: "
	    "{\"choices\":[],\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":14}}"
	    "\n\n",
	    5 + n_said, N_TOKENS - n_said);
	bytes_printf(&events, DONE);
	bytes_printf(out, SSE_HEAD "%zx\r\n", events.n);
	bytes_add(out, bytes_slice(&events));
	bytes_printf(out, "\r\n0\r\n\r\n");
	bytes_deinit(&events);
}

/* One engine says so much of its answer, in parts, and is gone then unless that is all. */
static void act_engine(struct world *w, struct rng *rng, struct peer *engine, unsigned id) {
	struct bytes answer = { .n_max = SIZE_MAX };
	write_answer(&answer, id, n_said_by(engine));
	size_t end = rng_below(rng, 3) ? rng_below(rng, (uint32_t)answer.n) : answer.n, n;
	for (size_t at = 0; at < end; at += n) {
		n = size_min(end - at, 1 + rng_below(rng, 400));
		peer_say(engine, slice_head(slice_skip(bytes_slice(&answer), at), n));
		if (rng_below(rng, 2))
			world_settle(w);
	}
	if (end < answer.n)
		(rng_below(rng, 2) ? peer_break : peer_close)(engine);
	world_settle(w);
	bytes_deinit(&answer);
}

static unsigned n_of(struct slice body, const char *text) {
	unsigned n = 0;
	for (const char *at; (at = memmem(body.p, body.n, text, strlen(text))) != NULL; n++)
		body = slice_skip(body, (size_t)(at + strlen(text) - body.p));
	return n;
}

/* What it has is the beginning of the one text, and all of it if it looks whole. */
static void check_client(struct peer *client, bool has_left) {
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	struct slice body = bytes_slice(&m.body), rest = body;
	unsigned n_tokens = n_of(body, "\"content\":\" t");
	for (unsigned i = 0; i < n_tokens; i++) {
		char text[32];
		snprintf(text, sizeof(text), "\"content\":\" t%u\"", i);
		const char *at = memmem(rest.p, rest.n, text, strlen(text));
		if (!at)
			fail_msg("\"%.*s\"", (int)body.n, body.p);
		rest = slice_skip(rest, (size_t)(at - rest.p));
	}
	if (m.is_whole && m.status == 200) {
		assert_int_equal(n_tokens, N_TOKENS);
		assert_int_equal(n_of(body, "\"finish_reason\""), 1);
		assert_int_equal(n_of(body, DONE), 1);
		assert_int_equal(n_of(body, "\"role\""), 1);
		assert_int_equal(n_of(body, "\"id\":\"1\""), N_TOKENS + 2);
		assert_true(
		    parsed_has(body, "\"prompt_tokens\":5,\"completion_tokens\":9,\"total_tokens\":14"));
	} else if (n_tokens < N_TOKENS) {
		assert_false(parsed_has(body, DONE) || parsed_has(body, "finish_reason"));
		assert_true(has_left || m.status != 200 || client->was_shut || client->was_closed);
	}
	parsed_deinit(&m);
}

/* True: it went on, and ended well. */
static bool play(uint64_t seed) {
	struct world *w = RESUMING("m", "m", "m", "m");
	struct peer *client, *engine = NULL;
	bool has_left = false;
	struct rng rng;
	rng_init(&rng, seed);
	w->config.resume.attempts = 4;
	w->config.retry.attempts = 1 + rng_below(&rng, 3);
	if (!rng_below(&rng, 3))
		net.moods[rng_below(&rng, 4)][0] = MOOD_REFUSE;
	client = post(w, CHAT, REQUEST);
	for (unsigned id = 1; net_newest(-1) != engine && !has_left; id++) {
		engine = net_newest(-1);
		if (!engine->got.n) /* it refuses connections */
			continue;
		if (id > 1 && !rng_below(&rng, 10))
			say(w, engine, "HTTP/1.1 503 Full\r\ncontent-length: 2\r\n\r\n{}");
		else
			act_engine(w, &rng, engine, id);
		has_left = !rng_below(&rng, 15);
		if (has_left)
			peer_close(client);
		world_pass(w, 1000);
	}
	world_pass(w, 20000);
	bool is_good = n_good(w) == 1;
	if (peer_unseen(client).n)
		check_client(client, has_left);
	expect_end(w, 1);
	return is_good;
}

static void test_any_order_of_events(void **state) {
	unsigned n = 0;
	for (uint64_t seed = 0; seed < SEEDS; seed++)
		n += play(seed);
	print_message("%u of %u went on and ended well\n", n, SEEDS);
	assert_true(n > SEEDS / 10 && n < SEEDS / 2);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_cut_at_every_byte),
		cmocka_unit_test(test_events_wait_until_they_are_whole),
		cmocka_unit_test(test_completion),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_who_goes_on_is_waited_for),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_goes_on_twice_and_no_more),
		cmocka_unit_test(test_nothing_to_go_on_from),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_nobody_is_left),
		cmocka_unit_test(test_nobody_can_be_reached),
		cmocka_unit_test(test_budget_is_used_up),
		cmocka_unit_test(test_second_refuses),
		cmocka_unit_test(test_second_is_busy),
		cmocka_unit_test(test_who_cut_it_is_not_asked_again),
		cmocka_unit_test(test_second_dies_at_once),
		cmocka_unit_test(test_second_is_not_understood),
		cmocka_unit_test(test_second_ends_behind_what_is_not_understood),
		cmocka_unit_test(test_client_leaves_meanwhile),
		cmocka_unit_test(test_total_time_goes_on),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_large_event),
		cmocka_unit_test(test_an_event_without_end),
		cmocka_unit_test(test_no_memory_for_an_event),
		cmocka_unit_test(test_an_identity_that_swells_events),
		cmocka_unit_test(test_memory_is_given_back),
		cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_stale_connection),
		cmocka_unit_test(test_worker_stops_meanwhile),
		cmocka_unit_test(test_any_order_of_events),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
