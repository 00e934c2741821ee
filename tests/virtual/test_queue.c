/* Requests that wait for a place: in which order they go, and every way in which a wait ends. */
#include "virtual/expect.h"

#define ADMIT(...)                                                                                           \
	(struct router_admission) {                                                                          \
		.queue_timeout_ms = 5000, __VA_ARGS__                                                        \
	}

static struct world *one_at_a_time(uint32_t queue_size) {
	struct world *w = WORLD("m", "m");
	world_admit(w, ADMIT(.max_requests = 1, .queue_size = queue_size));
	return w;
}

/* A request with a name, and a line of its head. */
static struct peer *come(struct world *w, const char *name, const char *line) {
	char text[256];
	snprintf(text, sizeof(text), "GET /%s HTTP/1.1\r\nhost: h\r\n%s\r\n", name, line);
	return ask(w, text);
}

static struct peer *come_for(struct world *w, const char *model) {
	char body[64];
	snprintf(body, sizeof(body), "{\"model\":\"%s\"}", model);
	return post(w, CHAT, body);
}

#define HIGH   "x-headrace-priority: high\r\n"
#define NORMAL ""
#define LOW    "x-headrace-priority: low\r\n"

/* An engine that has a request that it has not answered; NULL: there is none. */
static struct peer *busy(void) {
	for (unsigned i = 1; i < net.n_peers; i++)
		if (net.peers[i].engine >= 0 && !net.peers[i].was_closed && peer_unseen(&net.peers[i]).n)
			return &net.peers[i];
	return NULL;
}

/* The one request that is at an engine is this one; it is answered. */
static void expect_turn(struct world *w, struct peer *client, const char *name) {
	char line[64];
	struct peer *engine = busy();
	assert_non_null(engine);
	snprintf(line, sizeof(line), "GET /%s HTTP/1.1", name);
	expect_nothing(client);
	expect_request(engine, line, "");
	assert_null(busy());
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
}

/* The worker's alone: no mail comes or goes. */
static void turn_alone(struct world *w) {
	net_poll();
	loop_turn(&w->worker.loop);
	w->worker.loop.is_in_turn = false;
	net_end_turn();
}

static uint32_t n_waiting(const struct world *w) {
	return atomic_load(&w->router.admission->all.n_waiting);
}

/* --- the order -------------------------------------------------------------------------------- */

static void test_first_come_first_served(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *a = come(w, "a", ""), *b = come(w, "b", ""), *c = come(w, "c", "");
	assert_int_equal(n_waiting(w), 2);
	expect_turn(w, a, "a");
	expect_turn(w, b, "b");
	assert_int_equal(n_waiting(w), 0);
	expect_turn(w, c, "c");
	assert_int_equal(metric_read(&w->worker.metrics->queue_wait.buckets[0]), 2);
	expect_end(w, 3);
}

static void test_high_before_normal_before_low(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *first = come(w, "first", ""), *low = come(w, "low", LOW);
	struct peer *normal = come(w, "normal", NORMAL), *high = come(w, "high", HIGH);
	struct peer *top = come(w, "top", "x-headrace-priority: 0\r\n");
	expect_turn(w, first, "first");
	expect_turn(w, top, "top");
	expect_turn(w, high, "high");
	expect_turn(w, normal, "normal");
	expect_turn(w, low, "low");
	expect_end(w, 5);
}

static void test_a_bad_priority_is_refused(void **state) {
	static const char *const lines[] = { "x-headrace-priority: 8\r\n", "x-headrace-priority: urgent\r\n",
		"x-headrace-priority:\r\n", "x-headrace-wait: 0s\r\n", "x-headrace-wait: yes\r\n", HIGH LOW };
	struct world *w = one_at_a_time(10);
	for (size_t i = 0; i < n_elems(lines); i++)
		expect_refusal(come(w, "x", lines[i]), 400, "bad_request");
	expect_end(w, n_elems(lines));
}

/* They cost no engine anything; and to cancel the one that has the place makes room for those who wait. */
static void test_requests_about_a_response_need_no_place(void **state) {
	static const char *const lines[] = { "GET /v1/responses/r1", "DELETE /v1/responses/r1",
		"POST /v1/responses/r1/cancel" };
	for (uint32_t size = 0; size < 2; size++) {
		struct world *w = one_at_a_time(size);
		struct peer *first = come(w, "first", ""), *held = busy();
		struct peer *second = size ? come(w, "second", "") : NULL;
		for (size_t i = 0; i < n_elems(lines); i++) {
			char text[96], line[64];
			snprintf(text, sizeof(text), "%s HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
			    lines[i]);
			snprintf(line, sizeof(line), "%s HTTP/1.1", lines[i]);
			struct peer *client = ask(w, text), *engine = net_newest(-1);
			assert_ptr_not_equal(engine, held);
			expect_request(engine, line, "");
			say(w, engine, ANSWER_OK);
			expect_answer(client, 200, "ok");
			peer_close(engine);
			world_settle(w);
			assert_int_equal(n_waiting(w), size); /* its end is nobody's turn */
		}
		expect_turn(w, first, "first");
		if (second)
			expect_turn(w, second, "second");
		expect_end(w, 4 + size);
	}
}

/* What goes on from one does. */
static void test_a_body_that_names_a_response_waits(void **state) {
	struct world *w = one_at_a_time(1);
	struct peer *first = come(w, "first", "");
	struct peer *second = post(w, "/v1/responses", "{\"model\":\"m\",\"previous_response_id\":\"r1\"}");
	assert_int_equal(n_waiting(w), 1);
	expect_turn(w, first, "first");
	say(w, busy(), ANSWER_OK);
	expect_answer(second, 200, "ok");
	expect_end(w, 2);
}

/* Models with a cap of their own do not hold up the others. */
static void test_models_wait_for_themselves(void **state) {
	static const struct option_pair models[] = { { "a", "1" } };
	struct world *w = WORLD("a,b");
	world_admit(w, ADMIT(.models = { models, 1 }, .queue_size = 10));
	struct peer *a = come_for(w, "a"), *at_a = busy();
	expect_request(at_a, "POST " CHAT " HTTP/1.1", "{\"model\":\"a\"}");
	struct peer *a2 = come_for(w, "a");
	assert_null(busy());
	struct peer *b = come_for(w, "b"), *b2 = come_for(w, "b");
	assert_int_equal(n_waiting(w), 1);
	for (struct peer *at_b; (at_b = busy());) {
		expect_request(at_b, "POST " CHAT " HTTP/1.1", "{\"model\":\"b\"}");
		say(w, at_b, ANSWER_OK);
	}
	expect_answer(b, 200, "ok");
	expect_answer(b2, 200, "ok");
	expect_nothing(a2);
	say(w, at_a, ANSWER_OK);
	expect_answer(a, 200, "ok");
	expect_request(busy(), "POST " CHAT " HTTP/1.1", "{\"model\":\"a\"}");
	expect_end(w, 4);
}

/* --- no room in the queue ----------------------------------------------------------------------- */

static void expect_turned_away(struct peer *client, unsigned status, const char *retry_after) {
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, status, NULL);
	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"overloaded\""));
	expect_field(&m, "retry-after", retry_after);
	expect_field(&m, "x-should-retry", "false");
	parsed_deinit(&m);
}

static void test_no_queue(void **state) {
	struct world *w = one_at_a_time(0);
	struct peer *a = come(w, "a", "");
	expect_turned_away(come(w, "b", ""), 503, "1");
	expect_logged(w, 503, "queue_full");
	expect_turn(w, a, "a");
	assert_int_equal(metric_read(&w->worker.metrics->queue_full), 1);
	expect_end(w, 2);
}

static void test_vllm_says_429_and_408(void **state) {
	struct world *w = one_at_a_time(0);
	w->config.admission.is_vllm = true;
	struct peer *a = come(w, "a", "");
	expect_turned_away(come(w, "b", ""), 429, "1");
	expect_logged(w, 429, "too_many");
	expect_turn(w, a, "a");
	world_admit(w, ADMIT(.max_requests = 1, .queue_size = 1, .is_vllm = true));
	a = come(w, "a", "");
	struct peer *b = come(w, "b", "");
	expect_turned_away(come(w, "c", ""), 429, "1");
	world_pass(w, 5010);
	expect_turned_away(b, 408, "9");
	expect_logged(w, 408, "wait_timeout");
	expect_turn(w, a, "a");
	expect_end(w, 5);
}

static void test_a_full_queue_yields_to_higher_classes(void **state) {
	struct world *w = one_at_a_time(2);
	struct peer *first = come(w, "first", ""), *normal = come(w, "normal", NORMAL);
	struct peer *low = come(w, "low", LOW);
	expect_turned_away(come(w, "low2", LOW), 503, "1");
	expect_nothing(low);
	struct peer *high = come(w, "high", HIGH);
	expect_turned_away(low, 503, "1");
	expect_logged(w, 503, "queue_displaced");
	expect_turned_away(come(w, "normal2", NORMAL), 503, "1");
	expect_turn(w, first, "first");
	expect_turn(w, high, "high");
	expect_turn(w, normal, "normal");
	assert_int_equal(metric_read(&w->worker.metrics->queue_displaced), 1);
	assert_int_equal(metric_read(&w->worker.metrics->queue_full), 2);
	expect_end(w, 6);
}

/* --- time ------------------------------------------------------------------------------------------ */

static void test_a_wait_expires(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *a = come(w, "a", ""), *b = come(w, "b", ""),
		    *c = come(w, "c", "x-headrace-wait: 2s\r\n");
	world_pass(w, 1990);
	expect_nothing(c);
	world_pass(w, 20);
	expect_turned_away(c, 503, "6"); /* nobody has gone for two seconds, and it is the third by now */
	expect_logged(w, 503, "queue_expired");
	world_pass(w, 2980);
	expect_nothing(b);
	world_pass(w, 20);
	expect_turned_away(b, 503, "9");
	assert_int_equal(metric_read(&w->worker.metrics->queue_expired), 2);
	expect_turn(w, a, "a");
	expect_end(w, 3);
}

static void test_a_deadline_ends_the_wait(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *a = come(w, "a", ""), *b = come(w, "b", "x-headrace-deadline-ms: 300\r\n");
	world_pass(w, 299);
	expect_nothing(b);
	world_pass(w, 3);
	expect_refusal(b, 503, "slo_unattainable");
	assert_int_equal(metric_read(&w->worker.metrics->queue_late), 1);
	expect_turn(w, a, "a");
	expect_end(w, 2);
}

/* Each of those before it took a second: the fifth cannot begin within two. */
static void test_who_cannot_make_its_deadline_is_told_at_once(void **state) {
	static const char *const names[] = { "0", "1", "2", "3", "4", "5", "6", "7" };
	struct world *w = one_at_a_time(10);
	struct peer *clients[8];
	for (unsigned i = 0; i < 8; i++)
		clients[i] = come(w, names[i], "");
	for (unsigned i = 0; i < 4; i++) {
		world_pass(w, 1000);
		expect_turn(w, clients[i], names[i]);
	}
	expect_refusal(come(w, "x", "x-headrace-deadline-ms: 2000\r\n"), 503, "slo_unattainable");
	struct peer *patient = come(w, "p", "x-headrace-deadline-ms: 9000\r\n");
	for (unsigned i = 4; i < 8; i++)
		expect_turn(w, clients[i], names[i]);
	expect_turn(w, patient, "p");
	expect_end(w, 10);
}

/* --- who leaves ------------------------------------------------------------------------------------- */

static void test_who_leaves_the_queue_reaches_no_engine(void **state) {
	static void (*const ways[])(struct peer *) = { peer_finish, peer_close, peer_break };
	for (size_t i = 0; i < n_elems(ways); i++) {
		struct world *w = one_at_a_time(10);
		struct peer *a = come(w, "a", ""), *b = come(w, "b", ""), *c = come(w, "c", "");
		ways[i](b);
		world_settle(w);
		expect_closed(b);
		expect_logged(w, 499, "client_gone");
		assert_int_equal(n_waiting(w), 1);
		expect_turn(w, a, "a");
		expect_turn(w, c, "c");
		assert_int_equal(metric_read(&w->worker.metrics->picks), 2);
		expect_end(w, 3);
	}
}

/* In the turn in which it came: its waiter is on its way to the gatekeeper. */
static void test_who_leaves_before_it_is_in_the_queue(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *a = come(w, "a", ""), *b = net_client();
	peer_says(b, "GET /b HTTP/1.1\r\nhost: h\r\n\r\n");
	turn_alone(w);
	assert_int_equal(n_waiting(w), 1);
	peer_break(b);
	turn_alone(w);
	expect_closed(b);
	assert_int_equal(n_waiting(w), 1); /* it is away */
	world_settle(w);
	assert_int_equal(n_waiting(w), 0);
	expect_turn(w, a, "a");
	expect_end(w, 2);
}

/* With the call on its way back: the place goes to the next. */
static void test_who_leaves_when_it_is_called(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *a = come(w, "a", ""), *b = come(w, "b", ""), *c = come(w, "c", "");
	struct peer *engine = busy();
	expect_request(engine, "GET /a HTTP/1.1", "");
	peer_says(engine, ANSWER_OK);
	turn_alone(w); /* the answer ends, and rings */
	loop_deliver(&w->control);
	loop_turn(&w->control); /* b is called */
	w->control.is_in_turn = false;
	assert_int_equal(atomic_load(&w->router.admission->all.n), 1);
	peer_break(b);
	turn_alone(w); /* it leaves before the worker has read its mail */
	expect_closed(b);
	world_settle(w);
	expect_answer(a, 200, "ok");
	expect_turn(w, c, "c");
	assert_int_equal(metric_read(&w->worker.metrics->picks), 2);
	expect_end(w, 3);
}

static void test_a_stop_tells_all(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *a = come(w, "a", ""), *b = come(w, "b", ""), *c = come(w, "c", LOW);
	list_each_safe (it, &w->worker.active)
		exchange_kill(container_of(it, struct exchange, link), CAUSE_STOPPING);
	expect_refusal(a, 503, "overloaded");
	expect_refusal(b, 503, "overloaded");
	expect_refusal(c, 503, "overloaded");
	world_settle(w);
	assert_int_equal(n_waiting(w), 0);
	expect_end(w, 3);
}

/* The worker ends with waiters away, as it does in the router. */
static void test_a_stop_with_waiters_away(void **state) {
	struct world *w = one_at_a_time(10);
	struct peer *a = come(w, "a", ""), *b = net_client(), *c = come(w, "c", "");
	peer_says(b, "GET /b HTTP/1.1\r\nhost: h\r\n\r\n");
	turn_alone(w);
	assert_int_equal(n_waiting(w), 2);
	list_each_safe (it, &w->worker.active)
		exchange_kill(container_of(it, struct exchange, link), CAUSE_STOPPING);
	expect_refusal(a, 503, "overloaded");
	expect_refusal(b, 503, "overloaded");
	expect_refusal(c, 503, "overloaded");
	peer_close(a);
	peer_close(b);
	peer_close(c);
	for (unsigned i = 0; i < 4; i++)
		turn_alone(w);
	assert_int_equal(n_waiting(w), 2);
	world_stop(w);
	assert_int_equal(n_waiting(w), 0);
	world_take_down(&w);
}

/* --- bodies ------------------------------------------------------------------------------------------ */

/* What it held is all that is read of it until it has its place. */
static void test_a_waiting_body_stays_in_its_socket(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, ADMIT(.max_requests = 1, .queue_size = 10));
	struct peer *a = come(w, "a", ""), *b = post_part(w, CHAT, 30, "{\"model\":\"m\",");
	assert_int_equal(n_waiting(w), 1);
	size_t n_heard = b->n_heard;
	say(w, b, "\"p\":");
	assert_int_equal(b->n_heard, n_heard);
	expect_turn(w, a, "a");
	say(w, b, "\"xxxxxxxxxx\"}");
	expect_request(busy(), "POST " CHAT " HTTP/1.1", "{\"model\":\"m\",\"p\":\"xxxxxxxxxx\"}");
	expect_end(w, 2);
}

/* --- instances ------------------------------------------------------------------------------------------ */

static struct world *capped(unsigned n_engines, const char *capacity) {
	struct world *w = WORLD("m");
	world_admit(w, ADMIT(.queue_size = 10));
	struct pair label = { SLICE("capacity"), slice_of(capacity) };
	for (unsigned i = 0; i < n_engines; i++)
		world_set_labelled(w, i, "m", 1, (struct pairs){ &label, 1 });
	return w;
}

static void test_full_instances_are_waited_for(void **state) {
	struct world *w = capped(2, "1");
	struct peer *a = come(w, "a", ""), *b = come(w, "b", ""), *c = come(w, "c", ""),
		    *d = come(w, "d", LOW);
	struct peer *e = come(w, "e", "");
	assert_int_equal(n_waiting(w), 3);
	assert_int_equal(net_n_connects(0), 1);
	assert_int_equal(net_n_connects(1), 1);
	say(w, net_newest(0), ANSWER_OK);
	assert_int_equal(n_waiting(w), 2);
	say(w, net_newest(1), ANSWER_OK);
	assert_int_equal(n_waiting(w), 1);
	expect_answer(a, 200, "ok");
	expect_answer(b, 200, "ok");
	say(w, net_newest(0), ANSWER_OK);
	say(w, net_newest(1), ANSWER_OK);
	expect_answer(c, 200, "ok");
	expect_answer(e, 200, "ok");
	expect_nothing(d);
	say(w, net_newest(0), ANSWER_OK);
	say(w, net_newest(1), ANSWER_OK);
	expect_answer(d, 200, "ok");
	expect_end(w, 5);
}

/* That system knows one word for want of room, and another one for a wait in vain. */
static void test_full_instances_as_vllm_has_them(void **state) {
	struct world *w = capped(1, "1");
	world_admit(w, ADMIT(.is_vllm = true, .queue_size = 0));
	struct peer *a = come(w, "a", "");
	expect_last_word(come(w, "b", ""), 429, "overloaded", true);
	expect_logged(w, 429, "too_many");
	assert_int_equal(metric_read(&w->worker.metrics->queue_full), 1);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(a, 200, "ok");
	expect_end(w, 2);
}

/* Somebody has room, but may not have it: it is asked once for each vacancy, not again and again. */
static void test_room_of_no_use(void **state) {
	struct world *w = capped(2, "1");
	struct pair labels[] = { { SLICE("capacity"), SLICE("9") }, { SLICE("features"), SLICE("stream") } };
	world_set_labelled(w, 1, "m", 1, (struct pairs){ labels, 2 });
	const char *body = "{\"model\":\"m\",\"tools\":[{}]}";
	struct peer *a = post(w, CHAT, body), *at_a = net_newest(0);
	struct peer *b = post(w, CHAT, body);
	assert_int_equal(n_waiting(w), 1);
	world_pass(w, 3000);
	expect_nothing(b);
	assert_false(w->is_spinning);
	struct peer *c = post(w, CHAT, STREAMED); /* that one may go there, and waits behind */
	world_settle(w);
	say(w, at_a, ANSWER_OK);
	expect_answer(a, 200, "ok");
	assert_int_equal(n_waiting(w), 0);
	say(w, net_newest(0), ANSWER_OK);
	expect_answer(b, 200, "ok");
	assert_non_null(c);
	expect_end(w, 3);
}

static void test_a_new_instance_ends_the_wait(void **state) {
	struct world *w = capped(1, "1");
	struct peer *a = come(w, "a", ""), *b = come(w, "b", "");
	expect_nothing(b);
	world_set_engine(w, 1, "m", 1);
	world_settle(w);
	say(w, net_newest(1), ANSWER_OK);
	expect_answer(b, 200, "ok");
	expect_nothing(a);
	expect_end(w, 2);
}

/* --- a fleet that is not there yet ------------------------------------------------------------------------
 */

#define PATIENT "x-headrace-wait: true\r\n"

static void test_a_fleet_is_waited_for_on_demand(void **state) {
	struct world *w = world_new((const char *const[]){ NULL });
	world_admit(w, ADMIT(.queue_size = 10));
	expect_refusal(come(w, "a", ""), 503, "no_healthy_instance");
	struct peer *b = come(w, "b", PATIENT), *c = come(w, "c", "x-headrace-wait: 100ms\r\n");
	assert_int_equal(n_waiting(w), 2);
	world_pass(w, 110);
	expect_refusal(c, 503, "no_healthy_instance");
	world_pass(w, 2000);
	expect_nothing(b);
	world_set_engine(w, 0, "m", 1);
	world_settle(w);
	expect_turn(w, b, "b");
	expect_end(w, 3);
}

/* It is known, but does not listen yet. It is tried again every second. */
static void test_an_engine_that_starts_is_waited_for(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, ADMIT(.queue_size = 10));
	net.moods[0][0] = MOOD_REFUSE;
	expect_refusal(come(w, "a", ""), 502, "upstream_failed");
	struct peer *b = come(w, "b", PATIENT);
	expect_nothing(b);
	world_pass(w, 2500);
	expect_nothing(b);
	assert_in_range(net_n_connects(0), 4, 6);
	net.moods[0][0] = MOOD_ACCEPT;
	world_pass(w, 1000);
	expect_turn(w, b, "b");
	expect_end(w, 2);
}

static void test_an_engine_that_never_starts(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, ADMIT(.queue_size = 10));
	net.moods[0][0] = MOOD_REFUSE;
	struct peer *b = come(w, "b", PATIENT);
	world_pass(w, 4990);
	expect_nothing(b);
	world_pass(w, 1100);
	expect_refusal(b, 502, "upstream_failed");
	expect_end(w, 1);
}

/* --- patience ---------------------------------------------------------------------------------------------
 */

#define MINUTE                                                                                               \
	(struct router_admission) {                                                                          \
		.max_requests = 1, .queue_size = 10, .queue_timeout_ms = 60000                               \
	}

/* A stream whose client waits, behind one that is at work. */
static struct peer *come_patiently(struct world *w, const char *line, bool is_streamed) {
	char text[320];
	const char *body = is_streamed ? STREAMED : "{\"model\":\"m\"}";
	snprintf(text, sizeof(text),
	    "POST " CHAT
	    " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n%s",
	    line, strlen(body), body);
	return ask(w, text);
}

static void test_a_stream_that_waits_is_told_so(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, MINUTE);
	struct peer *a = come(w, "a", ""), *b = come_patiently(w, PATIENT, true);
	world_pass(w, 9990);
	expect_nothing(b);
	world_pass(w, 20);
	assert_true(
	    parsed_has(peer_unseen(b), "text/event-stream") && parsed_has(peer_unseen(b), ": waiting\n\n"));
	world_pass(w, 10000);
	expect_turn(w, a, "a");
	struct peer *engine = busy();
	expect_request(engine, "POST " CHAT " HTTP/1.1", STREAMED);
	say(w, engine, "HTTP/1.1 103 Early Hints\r\n\r\n");
	say(w, engine, SSE_HEAD);
	say_chunk(w, engine, "data: {\"choices\":[{}]}\n\n");
	say_chunk(w, engine, "data: [DONE]\n\n");
	say(w, engine, "0\r\n\r\n");
	expect_answer(b, 200, ": waiting\n\n: waiting\n\ndata: {\"choices\":[{}]}\n\ndata: [DONE]\n\n");
	say(w, b, GET); /* on the same connection */
	say(w, busy(), ANSWER_OK);
	expect_answer(b, 200, "ok");
	expect_end(w, 3);
}

static void test_only_streams_whose_clients_asked_are_told(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, MINUTE);
	struct peer *a = come(w, "a", ""), *b = come_patiently(w, "", true),
		    *c = come_patiently(w, PATIENT, false);
	world_pass(w, 30000);
	expect_nothing(b);
	expect_nothing(c);
	expect_turn(w, a, "a");
	say(w, busy(), ANSWER_OK);
	expect_answer(b, 200, "ok");
	expect_end(w, 3);
}

/* What goes wrong then is an event. */
static void test_a_wait_that_was_told_of_ends_in_an_event(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, MINUTE);
	struct peer *a = come(w, "a", ""), *b = come_patiently(w, "x-headrace-wait: 15s\r\n", true);
	world_pass(w, 15010);
	struct parsed m = expect_message(b, PARSED_RESPONSE);
	assert_true(m.status == 200 && !m.is_whole);
	assert_true(parsed_has(bytes_slice(&m.body), ": waiting\n\ndata: {\"error\":"));
	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"overloaded\""));
	parsed_deinit(&m);
	expect_logged(w, 200, "queue_expired");
	expect_turn(w, a, "a");
	expect_end(w, 2);
}

static void test_an_answer_that_is_no_stream_is_an_event(void **state) {
	static const char *const answers[] = { ANSWER_OK,
		"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
		("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
		 "content-length: 2\r\n\r\nxx") };
	for (size_t i = 0; i < n_elems(answers); i++) {
		struct world *w = WORLD("m");
		world_admit(w, MINUTE);
		struct peer *a = come(w, "a", ""), *b = come_patiently(w, PATIENT, true);
		world_pass(w, 10010);
		expect_turn(w, a, "a");
		say(w, busy(), answers[i]);
		struct parsed m = expect_message(b, PARSED_RESPONSE);
		assert_true(m.status == 200 && !m.is_whole);
		assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"upstream_failed\""));
		parsed_deinit(&m);
		expect_logged(w, 200, "no_stream");
		expect_end(w, 2);
	}
}

/* The engine's fault is the engine's, whatever its client was told. */
static void test_a_fault_behind_a_told_wait_is_counted(void **state) {
	static const unsigned statuses[] = { 500, 400 };
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = WORLD("m");
		char answer[64];
		world_admit(w, MINUTE);
		struct peer *a = come(w, "a", ""), *b = come_patiently(w, PATIENT, true);
		world_pass(w, 10010);
		expect_turn(w, a, "a");
		const struct worker_tally *t = &w->worker.tallies[busy()->engine];
		snprintf(answer, sizeof(answer), "HTTP/1.1 %u No\r\ncontent-length: 0\r\n\r\n", statuses[i]);
		say(w, busy(), answer);
		assert_int_equal(metric_read(&t->n_requests), 2);
		assert_int_equal(metric_read(&t->n_faults), statuses[i] == 500);
		assert_int_equal(metric_read(&t->n_outcomes[BREAKER_BAD]), statuses[i] == 500);
		peer_close(b);
		expect_end(w, 2);
	}
}

static uint64_t n_waits(const struct world *w) {
	uint64_t n = 0;
	for (unsigned i = 0; i < n_elems(w->worker.metrics->queue_wait.buckets); i++)
		n += metric_read(&w->worker.metrics->queue_wait.buckets[i]);
	return n;
}

static double last_queue_ms(const struct world *w) {
	const char *found = NULL, *at = w->log.p;
	while ((at = memmem(at, (size_t)(w->log.p + w->log.n - at), "\"queue_ms\":", 11)))
		found = at += 11;
	assert_non_null(found);
	return strtod(found, NULL);
}

/* Each second its engine is tried: that is one wait, and what is said of it comes when it is due. */
static void test_who_waits_for_an_engine_is_told_so(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, MINUTE);
	net.moods[0][0] = MOOD_REFUSE;
	struct peer *b = come_patiently(w, PATIENT, true);
	world_pass(w, 9990);
	expect_nothing(b);
	world_pass(w, 20);
	assert_true(parsed_has(peer_unseen(b), ": waiting\n\n"));
	world_pass(w, 11000);
	net.moods[0][0] = MOOD_ACCEPT;
	world_pass(w, 1000);
	say(w, busy(), SSE_HEAD);
	say_chunk(w, net_newest(0), "data: [DONE]\n\n");
	say(w, net_newest(0), "0\r\n\r\n");
	expect_answer(b, 200, ": waiting\n\n: waiting\n\ndata: [DONE]\n\n");
	assert_in_range(last_queue_ms(w), 21000, 22100);
	assert_int_equal(n_waits(w), 1);
	expect_end(w, 1);
}

static void test_who_waits_for_an_engine_in_vain_has_an_event(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, MINUTE);
	net.moods[0][0] = MOOD_REFUSE;
	struct peer *b = come_patiently(w, "x-headrace-wait: 12s\r\n", true);
	world_pass(w, 12010);
	struct parsed m = expect_message(b, PARSED_RESPONSE);
	assert_true(m.status == 200 && !m.is_whole);
	assert_true(parsed_has(bytes_slice(&m.body), ": waiting\n\ndata: {\"error\":"));
	parsed_deinit(&m);
	assert_in_range(last_queue_ms(w), 11900, 12100);
	expect_end(w, 1);
}

/* An engine that does not even refuse: nobody is told less for that. */
static void test_a_wait_that_connects_is_told_of_in_time(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, MINUTE);
	w->config.timeout.connect_ms = 8000;
	net.moods[0][0] = MOOD_SILENT;
	struct peer *b = come_patiently(w, PATIENT, true);
	world_pass(w, 17990); /* the wait began with the first of the connects that timed out */
	expect_nothing(b);
	assert_int_equal(net_n_connects(0), 2);
	world_pass(w, 20);
	assert_true(parsed_has(peer_unseen(b), ": waiting\n\n"));
	peer_answer_connect(net_newest(0), true);
	world_settle(w);
	say(w, net_newest(0), SSE_HEAD);
	say_chunk(w, net_newest(0), "data: [DONE]\n\n");
	say(w, net_newest(0), "0\r\n\r\n");
	expect_answer(b, 200, ": waiting\n\ndata: [DONE]\n\n");
	expect_end(w, 1);
}

/* The one that does not read has no place and no bytes of ours but the first. */
static void test_who_does_not_read_its_comments(void **state) {
	struct world *w = WORLD("m");
	world_admit(w, MINUTE);
	w->config.timeout.write_idle_ms = 0;
	struct peer *a = come(w, "a", ""), *b = come_patiently(w, PATIENT, true);
	peer_stall(b, 5);
	world_pass(w, 45000);
	assert_false(w->is_spinning);
	expect_turn(w, a, "a");
	peer_break(b);
	world_settle(w);
	expect_closed(b);
	expect_end(w, 2);
}

/* --- anything ------------------------------------------------------------------------------------------ */

#define GUESTS 24

struct party {
	struct world *w;
	struct rng rng;
	struct peer *guests[GUESTS];
	unsigned n_max; /* at engines at a time */
	unsigned n_answered, n_refused, n_left;
};

static unsigned below(struct party *p, unsigned n) {
	return (unsigned)rng_below(&p->rng, n);
}

static unsigned n_at_engines(void) {
	unsigned n = 0;
	for (unsigned i = 1; i < net.n_peers; i++)
		n += net.peers[i].engine >= 0 && !net.peers[i].was_closed && peer_unseen(&net.peers[i]).n;
	return n;
}

static void arrive(struct party *p, unsigned i) {
	static const char *const lines[] = { HIGH, NORMAL, LOW, "x-headrace-wait: 40ms\r\n",
		"x-headrace-deadline-ms: 70\r\n" };
	char text[128];
	if (p->guests[i] || net.n_peers + 2 > NET_PEERS_MAX)
		return;
	snprintf(text, sizeof(text), "GET /%u HTTP/1.1\r\nhost: h\r\nconnection: close\r\n%s\r\n", i,
	    lines[below(p, n_elems(lines))]);
	p->guests[i] = net_client();
	peer_says(p->guests[i], text);
}

static void depart(struct party *p, unsigned i) {
	if (!p->guests[i] || peer_unseen(p->guests[i]).n || p->guests[i]->was_closed)
		return;
	peer_break(p->guests[i]);
	p->guests[i] = NULL;
	p->n_left++;
}

static void answer_one(struct party *p) {
	for (unsigned i = 1, first = below(p, net.n_peers); i < net.n_peers; i++) {
		struct peer *engine = &net.peers[1 + (first + i) % (net.n_peers - 1)];
		if (engine->engine < 0 || engine->was_closed || !peer_unseen(engine).n)
			continue;
		engine->n_seen = engine->got.n;
		peer_says(engine, ANSWER_OK);
		return;
	}
}

/* Who has an answer has one whole answer, and goes. */
static void collect(struct party *p) {
	for (unsigned i = 0; i < GUESTS; i++) {
		struct peer *guest = p->guests[i];
		if (!guest || !peer_unseen(guest).n)
			continue;
		struct parsed m = expect_message(guest, PARSED_RESPONSE);
		assert_true(m.is_whole && (m.status == 200 || m.status == 503));
		p->n_answered += m.status == 200;
		p->n_refused += m.status == 503;
		parsed_deinit(&m);
		expect_nothing(guest);
		p->guests[i] = NULL;
	}
}

/* Some turns see no mail, so that it is under way when other things happen. */
static void act(struct party *p) {
	unsigned what = below(p, 10);
	if (what < 4)
		arrive(p, below(p, GUESTS));
	else if (what < 6)
		depart(p, below(p, GUESTS));
	else if (what < 8)
		answer_one(p);
	else if (what == 8)
		world_pass(p->w, below(p, 60));
	switch (below(p, 3)) {
	case 0:
		turn_alone(p->w);
		break;
	case 1:
		world_turn(p->w);
		break;
	default:
		world_settle(p->w);
		break;
	}
	assert_in_range(n_at_engines(), 0, p->n_max);
	collect(p);
}

static void play(uint64_t seed) {
	struct party p = { .w = WORLD("m", "m") };
	unsigned n_lines;
	rng_init(&p.rng, seed);
	p.n_max = 1 + below(&p, 4);
	world_admit(p.w, ADMIT(.max_requests = seed % 2 ? p.n_max : 0, .queue_size = 1 + below(&p, 6)));
	if (seed % 2 == 0) { /* the engines' own */
		struct pair label = { SLICE("capacity"), SLICE("2") };
		p.n_max = 4;
		for (unsigned i = 0; i < 2; i++)
			world_set_labelled(p.w, i, "m", 1, (struct pairs){ &label, 1 });
	}
	for (unsigned i = 0; i < 200; i++)
		act(&p);
	for (unsigned i = 0; i < 100; i++) { /* all that are left are served */
		answer_one(&p);
		world_settle(p.w);
		collect(&p);
	}
	for (unsigned i = 0; i < GUESTS; i++)
		assert_null(p.guests[i]);
	n_lines = p.n_answered + p.n_refused + p.n_left;
	assert_in_range(p.w->n_lines, p.n_answered + p.n_refused, n_lines); /* some left unheard */
	expect_end(p.w, p.w->n_lines);
}

static void test_any_order_of_events(void **state) {
	for (uint64_t seed = 1; seed <= 400; seed++)
		play(seed);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_come_first_served),
		cmocka_unit_test(test_high_before_normal_before_low),
		cmocka_unit_test(test_a_bad_priority_is_refused),
		cmocka_unit_test(test_requests_about_a_response_need_no_place),
		cmocka_unit_test(test_a_body_that_names_a_response_waits),
		cmocka_unit_test(test_models_wait_for_themselves),
		cmocka_unit_test(test_no_queue),
		cmocka_unit_test(test_vllm_says_429_and_408),
		cmocka_unit_test(test_a_full_queue_yields_to_higher_classes),
		cmocka_unit_test(test_a_wait_expires),
		cmocka_unit_test(test_a_deadline_ends_the_wait),
		cmocka_unit_test(test_who_cannot_make_its_deadline_is_told_at_once),
		cmocka_unit_test(test_who_leaves_the_queue_reaches_no_engine),
		cmocka_unit_test(test_who_leaves_before_it_is_in_the_queue),
		cmocka_unit_test(test_who_leaves_when_it_is_called),
		cmocka_unit_test(test_a_stop_tells_all),
		cmocka_unit_test(test_a_stop_with_waiters_away),
		cmocka_unit_test(test_a_waiting_body_stays_in_its_socket),
		cmocka_unit_test(test_full_instances_are_waited_for),
		cmocka_unit_test(test_full_instances_as_vllm_has_them),
		cmocka_unit_test(test_room_of_no_use),
		cmocka_unit_test(test_a_new_instance_ends_the_wait),
		cmocka_unit_test(test_a_fleet_is_waited_for_on_demand),
		cmocka_unit_test(test_an_engine_that_starts_is_waited_for),
		cmocka_unit_test(test_an_engine_that_never_starts),
		cmocka_unit_test(test_a_stream_that_waits_is_told_so),
		cmocka_unit_test(test_only_streams_whose_clients_asked_are_told),
		cmocka_unit_test(test_a_wait_that_was_told_of_ends_in_an_event),
		cmocka_unit_test(test_an_answer_that_is_no_stream_is_an_event),
		cmocka_unit_test(test_a_fault_behind_a_told_wait_is_counted),
		cmocka_unit_test(test_who_waits_for_an_engine_is_told_so),
		cmocka_unit_test(test_who_waits_for_an_engine_in_vain_has_an_event),
		cmocka_unit_test(test_a_wait_that_connects_is_told_of_in_time),
		cmocka_unit_test(test_who_does_not_read_its_comments),
		cmocka_unit_test(test_any_order_of_events),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
