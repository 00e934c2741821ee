/* What is seen of engines that fall silent, whatever the deadlines are. */
#include "virtual/expect.h"

enum { STALL_MS = 5000, GAUGES_MS = 500 };

#define NOT_STREAMING UINT64_MAX

#define CONTENT "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"

/* Of the one request there is. */
static uint64_t silence(struct world *w) {
	uint64_t silent_ms = NOT_STREAMING;
	list_each (it, &w->worker.active)
		if (!exchange_is_streaming(container_of(it, struct exchange, link), &silent_ms))
			return NOT_STREAMING;
	return silent_ms;
}

static void end(struct world *w, struct peer *client, struct peer *engine) {
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	say(w, engine, "0\r\n\r\n");
	assert_int_equal(silence(w), NOT_STREAMING);
	expect_end(w, 1);
}

static void test_silence_is_seen_with_all_deadlines(void **state) {
	static const struct {
		uint64_t total_ms, stream_idle_ms;
	} rows[] = { { 0, 7000 }, { 6000, 7000 }, { 6000, 0 }, { 0, 0 } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct world *w = WORLD("m");
		w->config.timeout.total_ms = rows[i].total_ms;
		w->config.timeout.stream_idle_ms = rows[i].stream_idle_ms;
		struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
		assert_int_equal(silence(w), NOT_STREAMING);
		say(w, engine, SSE_HEAD);
		assert_int_equal(silence(w), NOT_STREAMING); /* its queue may be long */
		say_chunk(w, engine, CONTENT);
		world_pass(w, 1000);
		assert_int_equal(silence(w), 1000);
		say_chunk(w, engine, "data: {}\n\n");
		assert_int_equal(silence(w), 0);
		world_pass(w, 4000);
		assert_int_equal(silence(w), 4000);
		end(w, client, engine);
	}
}

static void test_a_client_that_does_not_read_is_not_the_engine(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	peer_stall(client, 0);
	say_chunk(w, engine, CONTENT);
	world_pass(w, 2000);
	assert_int_equal(silence(w), NOT_STREAMING);
	peer_stall(client, SIZE_MAX);
	world_settle(w);
	assert_int_equal(silence(w), 0);
	world_pass(w, 2000);
	assert_int_equal(silence(w), 2000);
	end(w, client, engine);
}

static unsigned n_stalled(struct world *w) {
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		if (w->worker.tallies[slot].n_streams)
			return w->worker.tallies[slot].n_stalled;
	return 0;
}

static void test_a_standstill_of_ours_is_not_the_engines(void **state) {
	struct world *w = WORLD("m");
	w->config.timeout.stream_idle_ms = 0;
	w->config.health.stall_timeout_ms = STALL_MS;
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, CONTENT);
	world_pass(w, STALL_MS - 1);
	assert_int_equal(n_stalled(w), 0);
	world_pass(w, GAUGES_MS + 1);
	assert_int_equal(n_stalled(w), 1);
	say_chunk(w, engine, "data: {}\n\n");
	world_pass(w, GAUGES_MS);
	assert_int_equal(n_stalled(w), 0);
	world_pause(60000);
	world_pass(w, STALL_MS - GAUGES_MS);
	assert_int_equal(n_stalled(w), 0);
	world_pass(w, 2 * GAUGES_MS);
	assert_int_equal(n_stalled(w), 1);
	end(w, client, engine);
}

static unsigned n_waiting(struct world *w) {
	unsigned n = 0;
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		n += w->worker.tallies[slot].n_waiting;
	return n;
}

static bool has_answered(struct world *w) {
	bool has = false;
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		has = has || w->worker.tallies[slot].answered_ms;
	return has;
}

/* Its first byte is due from the engine, and for the stall timeout. A head of events is no work yet. */
static void test_requests_without_a_first_byte_are_counted(void **state) {
	struct world *w = WORLD("m");
	w->config.health.stall_timeout_ms = STALL_MS;
	w->config.timeout.first_byte_ms = 0;
	world_pass(w, 2 * GAUGES_MS);
	struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
	world_pass(w, STALL_MS - 1);
	assert_int_equal(n_waiting(w), 0);
	world_pass(w, GAUGES_MS + 1);
	assert_int_equal(n_waiting(w), 1);
	world_pause(60000); /* nobody waits for longer than we have been back */
	world_pass(w, STALL_MS - GAUGES_MS);
	assert_int_equal(n_waiting(w), 0);
	world_pass(w, 2 * GAUGES_MS);
	assert_int_equal(n_waiting(w), 1);
	say(w, engine, SSE_HEAD); /* may come from a full engine, before any work */
	world_pass(w, GAUGES_MS);
	assert_int_equal(n_waiting(w), 0);
	world_pass(w, STALL_MS);
	assert_int_equal(n_waiting(w), 1);
	assert_int_equal(n_stalled(w), 0);
	assert_false(has_answered(w));
	say_chunk(w, engine, CONTENT);
	assert_true(has_answered(w));
	end(w, client, engine);
}

/* What names no model, is not complete, or had an interim answer, is no question that hangs. */
static void test_other_requests_may_wait(void **state) {
	static const struct {
		const char *request, *interim;
	} rows[] = { { GET, NULL },
		{ "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: "
		  "30\r\n\r\n{\"model\":\"m\",",
		    NULL },
		{ NULL, "HTTP/1.1 103 Early Hints\r\n\r\n" } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct world *w = WORLD("m");
		w->config.health.stall_timeout_ms = STALL_MS;
		w->config.timeout.body_idle_ms = w->config.timeout.first_byte_ms = 0;
		struct peer *client = rows[i].request ? ask(w, rows[i].request) : post(w, CHAT, STREAMED);
		if (rows[i].interim)
			say(w, net_newest(0), rows[i].interim);
		world_pass(w, 2 * STALL_MS);
		assert_int_equal(n_waiting(w), 0);
		peer_close(client);
		world_settle(w);
		expect_end(w, 1);
	}
}

static void test_refused_requests_are_no_answers(void **state) {
	struct world *w = WORLD("m");
	(void)post(w, CHAT, STREAMED);
	say(w, net_newest(0), "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
	assert_false(has_answered(w));
	(void)ask(w, GET); /* without a model: any process answers that */
	say(w, net_newest(0), ANSWER_OK);
	assert_false(has_answered(w));
	(void)post(w, CHAT, STREAMED);
	say(w, net_newest(0), ANSWER_OK);
	assert_true(has_answered(w));
	expect_end(w, 3);
}

static uint64_t n_faults(struct world *w) {
	uint64_t n = 0;
	for (unsigned slot = 0; slot < WORLD_SLOTS_MAX; slot++)
		n += metric_read(&w->worker.tallies[slot].n_faults);
	return n;
}

/* Hung before its first byte: who gives up, client or total timeout, is a witness. */
static void test_an_engine_that_begins_no_answer(void **state) {
	static const struct {
		uint64_t total_ms, wait_ms;
		bool has_interim, answers_others;
		unsigned n_faults;
	} rows[] = { { 0, STALL_MS, false, false, 1 }, { 0, STALL_MS - 1, false, false, 0 },
		{ STALL_MS + 500, STALL_MS + 501, false, false, 1 },
		{ STALL_MS - 1, STALL_MS, false, false, 0 }, { 0, STALL_MS, true, false, 0 },
		{ 0, STALL_MS, false, true, 0 } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct world *w = WORLD("m");
		w->config.timeout.total_ms = rows[i].total_ms;
		w->config.health.stall_timeout_ms = STALL_MS;
		world_pass(w, 2 * GAUGES_MS);
		struct peer *client = post(w, CHAT, STREAMED), *engine = net_newest(0);
		if (rows[i].has_interim)
			say(w, engine, "HTTP/1.1 103 Early Hints\r\n\r\n");
		world_pass(w, rows[i].wait_ms / 2);
		if (rows[i].answers_others) {
			(void)post(w, CHAT, STREAMED);
			say(w, net_newest(0), ANSWER_OK);
		}
		world_pass(w, rows[i].wait_ms - rows[i].wait_ms / 2);
		peer_close(client);
		world_settle(w);
		assert_int_equal(n_faults(w), rows[i].n_faults);
		expect_end(w, 1 + rows[i].answers_others);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_silence_is_seen_with_all_deadlines),
		cmocka_unit_test(test_a_client_that_does_not_read_is_not_the_engine),
		cmocka_unit_test(test_a_standstill_of_ours_is_not_the_engines),
		cmocka_unit_test(test_requests_without_a_first_byte_are_counted),
		cmocka_unit_test(test_other_requests_may_wait),
		cmocka_unit_test(test_refused_requests_are_no_answers),
		cmocka_unit_test(test_an_engine_that_begins_no_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
