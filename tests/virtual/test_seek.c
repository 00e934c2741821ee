/* A request about a stored response that nobody is known to have made: who is asked, and what the client
 * gets. */
#include "policy/session_table.h"
#include "virtual/expect.h"
#include "virtual/pairs.h"

#define R1       "/v1/responses/resp_1"
#define GET_R1   "GET " R1 " HTTP/1.1\r\nhost: h\r\n\r\n"
#define NOT_HERE "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\n"
#define BUSY     "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"
#define CANCEL_LEN                                                                                           \
	"POST " R1 "/cancel HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: "

static uint64_t n_retries(const struct world *w) {
	const struct metric_shard *m = w->worker.metrics;

	return metric_read(&m->retries) + metric_read(&m->retries_denied) + metric_read(&m->unsent_retries);
}

static const struct decision *newest(const struct world *w) {
	return decision_at(&w->worker.decisions, 0);
}

/* It says that it has no such response, and its number. */
static void deny(struct world *w, struct peer *engine) {
	char text[80];

	snprintf(text, sizeof(text), NOT_HERE "%03d", engine->engine);
	say(w, engine, text);
}

static void expect_denied_by(struct peer *client, const struct peer *engine) {
	char body[4];

	snprintf(body, sizeof(body), "%03d", engine->engine);
	expect_answer(client, 404, body);
}

/* Who was asked after that one, at once. */
static struct peer *next_after(const struct peer *last) {
	struct peer *next = net_newest(-1);

	assert_ptr_not_equal(next, last);
	assert_int_not_equal(next->engine, last->engine);
	return next;
}

/* All but the engine number i refuse connections. */
static void leave_alone(struct world *w, int i) {
	for (int k = 0; k < 3; k++)
		net.moods[k][0] = k == i ? MOOD_ACCEPT : MOOD_REFUSE;
}

/* --- from one to the next -------------------------------------------------------------------- */

static void test_the_next_one_is_asked_at_once(void **state) {
	static const struct {
		const char *text, *line, *body;
	} asks[] = {
		{ GET_R1, "GET " R1 " HTTP/1.1", "" },
		{ "DELETE " R1 " HTTP/1.1\r\nhost: h\r\n\r\n", "DELETE " R1 " HTTP/1.1", "" },
		{ CANCEL_LEN "0\r\n\r\n", "POST " R1 "/cancel HTTP/1.1", "" },
		{ CANCEL_LEN "12\r\n\r\n{\"x\": [1,2]}", "POST " R1 "/cancel HTTP/1.1", "{\"x\": [1,2]}" },
		{ "GET " R1 "/input_items HTTP/1.1\r\nhost: h\r\n\r\n", "GET " R1 "/input_items HTTP/1.1",
		    "" },
	};
	for (size_t i = 0; i < n_elems(asks); i++) {
		struct world *w = WORLD("m", "m", "n");
		struct peer *client = ask(w, asks[i].text), *first = net_newest(-1);
		expect_request(first, asks[i].line, asks[i].body);
		deny(w, first);
		struct peer *second = next_after(first);
		expect_nothing(client);
		assert_false(first->was_closed);
		expect_request(second, asks[i].line, asks[i].body);
		say(w, second, ANSWER_OK);
		expect_answer(client, 200, "ok");
		assert_int_equal(net_n_connects(-1), 2); /* the third was not asked */
		assert_int_equal(n_retries(w), 0);
		const struct decision *d = newest(w);
		assert_int_equal(d->n_attempts, 2);
		assert_true(
		    d->attempts[0].cause == CAUSE_RESPONSE_ABSENT && !d->attempts[1].cause && !d->retry_bar);
		expect_end(w, 1);
	}
}

static void test_the_last_404_is_the_clients(void **state) {
	struct world *w = WORLD("m", "m", "m");
	struct peer *client = ask(w, GET_R1), *engine = net_newest(-1);
	for (unsigned i = 0; i < 2; i++) {
		deny(w, engine);
		expect_nothing(client);
		engine = next_after(engine);
	}
	deny(w, engine);
	expect_denied_by(client, engine);
	expect_logged(w, 404, "none");
	assert_true(parsed_has(bytes_slice(&w->log), "\"attempts\":3,"));
	assert_false(parsed_has(bytes_slice(&w->log), "no_retry"));
	assert_int_equal(net_n_connects(-1), 3);
	expect_end(w, 1);
}

static void test_other_requests_are_not_sent_around(void **state) {
	static const char *const heads[] = { GET, "GET /v1/responses HTTP/1.1\r\nhost: h\r\n\r\n",
		"GET /v1/responses/ HTTP/1.1\r\nhost: h\r\n\r\n" };
	for (size_t i = 0; i < n_elems(heads); i++) {
		struct world *w = WORLD("m", "m");
		struct peer *client = ask(w, heads[i]), *engine = net_newest(-1);
		deny(w, engine);
		expect_denied_by(client, engine);
		expect_end(w, 1);
	}
}

/* To go on from a response is work: who has not got it says so to the client. */
static void test_a_body_that_names_one_is_not(void **state) {
	static const char *const paths[] = { "/v1/responses", "/v1/responses/compact",
		"/v1/responses/input_tokens" };
	for (size_t i = 0; i < n_elems(paths); i++) {
		struct world *w = WORLD("m", "m");
		struct peer *client =
		    post(w, paths[i], "{\"model\":\"m\",\"previous_response_id\":\"resp_1\"}");
		struct peer *engine = net_newest(-1);
		deny(w, engine);
		expect_denied_by(client, engine);
		expect_end(w, 1);
	}
}

static void test_other_statuses_are_answers(void **state) {
	static const unsigned statuses[] = { 400, 405, 410, 500, 501 };
	for (size_t i = 0; i < n_elems(statuses); i++) {
		struct world *w = WORLD("m", "m");
		struct peer *client = ask(w, GET_R1);
		char text[80];
		snprintf(text, sizeof(text), "HTTP/1.1 %u Hm\r\ncontent-length: 2\r\n\r\nhm", statuses[i]);
		say(w, net_newest(-1), text);
		expect_answer(client, statuses[i], "hm");
		expect_end(w, 1);
	}
}

/* A cancel of which the first bytes have come. */
static struct peer *cancel_part(struct world *w, size_t n, const char *text) {
	char head[160];

	snprintf(head, sizeof(head),
	    "POST " R1
	    "/cancel HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: %zu\r\n\r\n",
	    n);
	struct peer *client = ask(w, head);
	say(w, client, text);
	return client;
}

static void test_what_came_late_is_sent_along(void **state) {
	struct world *w = WORLD("m", "m");
	struct peer *client = cancel_part(w, 6, "abc"), *first = net_newest(-1);
	say(w, client, "def");
	expect_request(first, "POST " R1 "/cancel HTTP/1.1", "abcdef");
	deny(w, first);
	struct peer *second = next_after(first);
	expect_request(second, "POST " R1 "/cancel HTTP/1.1", "abcdef");
	say(w, second, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_what_is_not_kept_is_not_sent_around(void **state) {
	enum { N_BYTES = (1 << 20) + 1 };
	struct world *w = WORLD("m", "m");
	char *body = calloc(1, N_BYTES + 1);
	memset(body, 'x', N_BYTES);
	w->config.body_limit_bytes = 2 * N_BYTES;
	struct peer *client = cancel_part(w, N_BYTES, body), *engine = net_newest(-1);
	deny(w, engine);
	expect_denied_by(client, engine);
	free(body);
	expect_end(w, 1);
}

static void test_tries_have_an_end(void **state) {
	struct world *w = WORLD("m");
	for (unsigned i = 1; i < 70; i++)
		world_set_engine(w, i, "m", 1);
	struct peer *client = ask(w, GET_R1), *engine = net_newest(-1);
	for (unsigned i = 1; i < EXCHANGE_TRIES_MAX; i++) {
		deny(w, engine);
		engine = next_after(engine);
	}
	deny(w, engine);
	expect_denied_by(client, engine);
	assert_int_equal(net_n_connects(-1), EXCHANGE_TRIES_MAX);
	expect_end(w, 1);
}

/* --- those who cannot be asked ---------------------------------------------------------------- */

static void test_the_avoided_are_not_asked(void **state) {
	struct world *w = WORLD("m", "m");
	leave_alone(w, 0);
	struct peer *client = NULL;
	for (unsigned i = 0; i < 2; i++) { /* it is the turn of each */
		client = ask(w, GET);
		say(w, net_newest(0), ANSWER_OK);
		expect_answer(client, 200, "ok");
	}
	say(w, client, GET_R1);
	deny(w, net_newest(0));
	expect_denied_by(client, net_newest(0));
	assert_int_equal(net_n_connects(1), 1); /* of the first two */
	expect_end(w, 3);
}

static void test_the_unhealthy_are_not_asked(void **state) {
	struct world *w = WORLD("m", "m");
	const struct snapshot *snap = w->worker.view->snapshot;
	for (uint32_t row = 0; row < snap->n_rows; row++)
		if (slice_eq(snap->rows[row].instance->spec.name, SLICE("e1")))
			fleet_set_state(w->fleet, snap->rows[row].instance, INSTANCE_UNHEALTHY);
	world_publish(w);
	struct peer *client = ask(w, GET_R1);
	deny(w, net_newest(0));
	expect_denied_by(client, net_newest(0));
	assert_int_equal(net_n_connects(1), 0);
	expect_end(w, 1);
}

/* The 404 was let go for one that is not there: who said it says it again. */
static void test_who_cannot_be_reached_leaves_the_404(void **state) {
	for (int i = 0; i < 2; i++) {
		struct world *w = WORLD("m", "m", "m");
		struct peer *client = ask(w, GET_R1), *first = net_newest(-1);
		leave_alone(w, first->engine);
		deny(w, first);
		expect_request(first, "GET " R1 " HTTP/1.1", "");
		if (i == 0) {
			deny(w, first);
			expect_denied_by(client, first);
		} else {
			say(w, first, ANSWER_OK); /* it has come meanwhile */
			expect_answer(client, 200, "ok");
		}
		assert_int_equal(net_n_connects(-1), 3);
		expect_end(w, 1);
	}
}

/* Also once it is no longer avoided. */
static void test_who_was_tried_before_is_not_asked_again(void **state) {
	struct pair label = { SLICE("priority"), SLICE("60") };
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = WORLD("m", "m");
		world_set_labelled(w, i, "m", 1, (struct pairs){ &label, 1 }); /* it comes first */
		net.moods[i][0] = MOOD_REFUSE;
		struct peer *client = ask(w, GET_R1), *engine = net_newest(1 - (int)i);
		world_pass(w, 1100);
		deny(w, engine);
		expect_denied_by(client, engine);
		assert_int_equal(net_n_connects((int)i), 1);
		expect_end(w, 1);
	}
}

/* It leaves the fleet while others are asked: what is known is that the last one could not be reached. */
static void test_who_said_it_may_be_gone(void **state) {
	struct world *w = WORLD("m", "m");
	struct peer *client = ask(w, GET_R1), *first = net_newest(-1);
	net.moods[1 - first->engine][0] = MOOD_SILENT;
	deny(w, first);
	world_remove_engine(w, (unsigned)first->engine);
	peer_answer_connect(net_newest(1 - first->engine), false);
	world_settle(w);
	expect_refusal(client, 502, "upstream_failed");
	expect_end(w, 1);
}

/* --- retries on the way ------------------------------------------------------------------------ */

/* Who was busy may have it: once the others have said that they have not, it is asked again. */
static void test_who_was_busy_is_asked_again(void **state) {
	struct world *w = WORLD("m", "m", "m");
	w->config.retry.attempts = 2;
	struct peer *client = ask(w, GET_R1), *first = net_newest(-1);
	deny(w, first);
	struct peer *busy = next_after(first);
	say(w, busy, BUSY); /* the first send that counts */
	world_pass(w, 60);
	struct peer *third = next_after(busy);
	assert_int_not_equal(third->engine, first->engine);
	deny(w, third);
	struct peer *again = next_after(third);
	assert_int_equal(again->engine, busy->engine);
	expect_nothing(client);
	say(w, again, ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(metric_read(&w->worker.metrics->retries), 1);
	expect_end(w, 1);
}

/* Of pairs those have responses that decode, also where they cannot compute a prompt. */
static void test_of_pairs_those_who_decode_are_asked(void **state) {
	struct world *w = pairs_world(&pairs_sglang, 1, 2);
	struct peer *client = ask(w, GET_R1), *first = net_newest(-1);

	deny(w, first);
	struct peer *next = next_after(first);
	say(w, next, ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(net_n_connects(0), 0);
	expect_end(w, 1);
}

/* Before a unified one that refused a moment ago. */
static void test_who_decodes_is_asked_before_the_avoided(void **state) {
	struct world *w = pairs_world(&pairs_sglang, 1, 1);
	world_set_engine(w, 2, "m", 1);
	world_set_engine(w, 3, "m", 1);
	const struct snapshot *snap = w->worker.view->snapshot;
	for (uint32_t row = 0; row < snap->n_rows; row++)
		if (slice_eq(snap->rows[row].instance->spec.name, SLICE("e3")))
			instance_avoid(snap->rows[row].instance, loop_now_ms(&w->worker.loop));
	struct peer *client = ask(w, GET_R1);
	deny(w, net_newest(2));
	say(w, net_newest(1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(net_n_connects(-1), 2);
	expect_end(w, 1);
}

/* --- what is learned ---------------------------------------------------------------------------- */

static struct world *world_that_learns(void) {
	struct world *w = WORLD("m", "m", "m");

	w->worker.policies.responses = session_table_new(64, 3600);
	assert_non_null(w->worker.policies.responses);
	return w;
}

static void expect_end_of_lessons(struct world *w, unsigned n_requests) {
	session_table_free(&w->worker.policies.responses);
	expect_end(w, n_requests);
}

static void test_who_has_it_is_learned(void **state) {
	struct world *w = world_that_learns();
	struct peer *client = ask(w, GET_R1), *first = net_newest(-1);
	deny(w, first);
	int owner = next_after(first)->engine;
	for (unsigned i = 0; i < 4; i++) { /* no other one has its turn */
		say(w, net_newest(owner), ANSWER_OK);
		expect_answer(client, 200, "ok");
		assert_int_equal(net_n_connects(-1), 2);
		say(w, client, GET_R1);
		assert_int_equal(newest(w)->reason, PICK_RESPONSE_OWNER);
	}
	deny(w, net_newest(owner)); /* nobody else can have it */
	expect_denied_by(client, net_newest(owner));
	assert_int_equal(net_n_connects(-1), 2);
	expect_end_of_lessons(w, 5);
}

/* Anybody answers what a browser asks of a path. */
static void test_options_teach_nothing(void **state) {
	struct world *w = world_that_learns();
	struct peer *client = ask(w, "OPTIONS " R1 " HTTP/1.1\r\nhost: h\r\n\r\n");
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	say(w, client, GET_R1);
	assert_int_not_equal(newest(w)->reason, PICK_RESPONSE_OWNER);
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end_of_lessons(w, 2);
}

/* The model is forgotten meanwhile: one engine has had it, and none that may come is waited for. */
static void test_a_search_that_nobody_is_left_for_ends(void **state) {
	static const char text[] =
	    "POST " R1 "/cancel HTTP/1.1\r\nhost: h\r\nx-headrace-wait: true\r\n"
	    "content-type: application/json\r\ncontent-length: 13\r\n\r\n{\"model\":\"m\"}";
	struct world *w = WORLD("m", "m");
	world_admit(w, (struct router_admission){ .queue_timeout_ms = 60000, .queue_size = 10 });
	struct peer *client = ask(w, text), *first = net_newest(-1);
	net.moods[1 - first->engine][0] = MOOD_SILENT;
	deny(w, first);
	struct peer *second = net_newest(1 - first->engine);
	world_remove_engine(w, 0);
	world_remove_engine(w, 1);
	fleet_forget(w->fleet, 0, 1);
	world_publish(w);
	peer_answer_connect(second, false);
	world_settle(w);
	expect_refusal(client, 503, "no_healthy_instance");
	expect_end(w, 1);
}

/* Whether it has it an error does not say. */
static void test_errors_teach_nothing(void **state) {
	struct world *w = world_that_learns();
	struct peer *client = ask(w, GET_R1), *first = net_newest(-1);
	say(w, first, "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno");
	expect_answer(client, 400, "no");
	say(w, client, GET_R1);
	assert_int_not_equal(newest(w)->reason, PICK_RESPONSE_OWNER);
	say(w, next_after(first), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end_of_lessons(w, 2);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_next_one_is_asked_at_once),
		cmocka_unit_test(test_the_last_404_is_the_clients),
		cmocka_unit_test(test_other_requests_are_not_sent_around),
		cmocka_unit_test(test_a_body_that_names_one_is_not),
		cmocka_unit_test(test_other_statuses_are_answers),
		cmocka_unit_test(test_what_came_late_is_sent_along),
		cmocka_unit_test(test_what_is_not_kept_is_not_sent_around),
		cmocka_unit_test(test_tries_have_an_end),
		cmocka_unit_test(test_the_avoided_are_not_asked),
		cmocka_unit_test(test_the_unhealthy_are_not_asked),
		cmocka_unit_test(test_who_cannot_be_reached_leaves_the_404),
		cmocka_unit_test(test_who_was_tried_before_is_not_asked_again),
		cmocka_unit_test(test_who_said_it_may_be_gone),
		cmocka_unit_test(test_who_was_busy_is_asked_again),
		cmocka_unit_test(test_of_pairs_those_who_decode_are_asked),
		cmocka_unit_test(test_who_decodes_is_asked_before_the_avoided),
		cmocka_unit_test(test_who_has_it_is_learned),
		cmocka_unit_test(test_errors_teach_nothing),
		cmocka_unit_test(test_options_teach_nothing),
		cmocka_unit_test(test_a_search_that_nobody_is_left_for_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
