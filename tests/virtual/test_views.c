/* The fleet changes while requests are at work. */
#include "virtual/expect.h"

static void test_request_that_waits_sees_the_fleet_as_it_is_when_it_is_routed(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = post_part(w, CHAT, 40, "{\"p\":1,");
	world_set_engine(w, 2, "c", 1);
	world_remove_engine(w, 0);
	assert_int_equal(w->worker.view->n_users, 1);
	say(w, client, "\"model\":\"c\"");
	assert_int_equal(net_newest(-1)->engine, 2);
	say(w, net_newest(2), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* Its engine may be back in a moment: it is missing, not unknown. */
static void test_model_that_leaves_while_its_name_arrives(void **state) {
	struct world *w = WORLD("a", "b");
	struct peer *client = post_part(w, CHAT, 13, "{\"model\":\"");
	world_remove_engine(w, 0);
	say(w, client, "a\"}");
	expect_refusal(client, 503, "no_healthy_instance");
	assert_int_equal(net_n_connects(-1), 0);
	expect_end(w, 1);
}

#define CALLED_X "{\"model\":\"x\"}"
#define CALLED_A "{\"model\":\"a\"}"

/* Two engines. Models that nobody has are anybody's; "x" is a name for the model of the first. */
static struct world *relaying_world(void) {
	static const struct alias x = { SLICE("x"), SLICE("a"), SLICE("\"a\"") };
	struct world *w = WORLD("a", "b");
	w->config.unknown_models = ROUTER_UNKNOWN_RELAY;
	w->config.aliases = (struct alias_table){ &x, 1 };
	return w;
}

/* The first one leaves, and its model is one that is missing, or unknown. */
static void lose_first(struct world *w, bool is_forgotten) {
	world_remove_engine(w, 0);
	if (is_forgotten)
		fleet_forget(w->fleet, 0, 1);
	world_publish(w);
}

static void expect_relayed(struct world *w, struct peer *client) {
	struct peer *engine = net_newest(1);
	assert_non_null(engine);
	expect_request(engine, "POST " CHAT " HTTP/1.1", CALLED_A);
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
}

static void expect_missing(struct peer *client, bool is_forgotten) {
	expect_refusal(
	    client, is_forgotten ? 404 : 503, is_forgotten ? "model_not_found" : "no_healthy_instance");
}

static void test_model_that_left_is_anybodys(void **state) {
	for (int is_forgotten = 0; is_forgotten < 2; is_forgotten++) {
		struct world *w = relaying_world();
		lose_first(w, is_forgotten);
		expect_relayed(w, post(w, CHAT, CALLED_A));
		expect_missing(post(w, CHAT, CALLED_X), is_forgotten);
		assert_int_equal(net_n_connects(0), 0);
		world_remove_engine(w, 1);
		expect_refusal(post(w, CHAT, CALLED_A), 503, "no_healthy_instance");
		expect_end(w, 3);
	}
}

static void test_model_that_leaves_while_it_is_connected_to_is_anybodys(void **state) {
	for (int is_forgotten = 0; is_forgotten < 2; is_forgotten++) {
		struct world *w = relaying_world();
		net.moods[0][0] = MOOD_SILENT;
		struct peer *one = post(w, CHAT, CALLED_A), *other = post(w, CHAT, CALLED_X);
		lose_first(w, is_forgotten);
		world_pass(w, 501);
		assert_int_equal(net_n_connects(0), 2);
		expect_relayed(w, one);
		expect_missing(other, is_forgotten);
		expect_end(w, 2);
	}
}

/* While there was one model nobody waited for its name; now there are two. */
static void test_second_model_comes_while_a_body_arrives(void **state) {
	struct world *w = WORLD("a");
	struct peer *client = post_part(w, CHAT, 13, "{\"model\":"), *engine = net_newest(0);
	assert_non_null(engine);
	world_set_engine(w, 1, "b", 1);
	say(w, client, "\"a\"}");
	expect_request(engine, "POST " CHAT " HTTP/1.1", "{\"model\":\"a\"}");
	say(w, engine, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

static void test_fleet_that_is_empty(void **state) {
	struct world *w = WORLD("a");
	world_remove_engine(w, 0);
	struct peer *client = ask(w, GET);
	expect_refusal(client, 503, "no_healthy_instance");
	say(w, client, "GET /readiness HTTP/1.1\r\nhost: h\r\n\r\n");
	expect_answer(client, 503, NULL);
	say(w, client, "GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n");
	expect_answer(client, 200, "{\"object\":\"list\",\"data\":[]}");
	expect_end(w, 3);
}

static uint64_t load_of(const struct world *w, const struct instance *inst) {
	return load_requests(w->router.load, inst->slot);
}

/* Removed in each step in which it is at work: the request goes on with it, and it lives as long. */
static void test_instance_leaves_while_it_serves(void **state) {
	static const char *const steps[] = { "", "HTTP/1.1 200 OK\r\ncontent-length", ": 4\r\n\r\n", "ab" };
	for (size_t leaves_at = 0; leaves_at < n_elems(steps); leaves_at++) {
		struct world *w = WORLD("m", "m");
		struct peer *client = ask(w, GET), *engine = net_newest(-1);
		struct instance *inst = instance_ref(w->worker.view->snapshot->rows[engine->engine].instance);
		for (size_t i = 0; i < n_elems(steps); i++) {
			say(w, engine, steps[i]);
			if (i == leaves_at)
				world_remove_engine(w, (unsigned)engine->engine);
			assert_int_equal(load_of(w, inst), 1);
		}
		say(w, engine, "cd");
		expect_answer(client, 200, "abcd");
		assert_int_equal(load_of(w, inst), 0);
		world_pass(w, 20001); /* its connection was the last that knew it */
		assert_int_equal(inst->refs, 1);
		instance_unref(&inst);
		expect_end(w, 1);
	}
}

static void test_instance_leaves_while_it_is_connected_to(void **state) {
	struct world *w = WORLD("m", "m");
	net.moods[0][0] = net.moods[1][0] = MOOD_SILENT;
	struct peer *client = ask(w, GET), *first = net_newest(-1);
	world_remove_engine(w, (unsigned)first->engine);
	world_pass(w, 501);
	struct peer *second = net_newest(-1);
	assert_int_not_equal(first->engine, second->engine);
	peer_answer_connect(second, true);
	say(w, second, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* Who comes while a request is looking for somebody is asked. */
static void test_new_instance_takes_what_others_refused(void **state) {
	struct world *w = WORLD("m");
	net.moods[0][0] = MOOD_SILENT;
	struct peer *client = ask(w, GET);
	world_set_engine(w, 1, "m", 1);
	world_pass(w, 501);
	say(w, net_newest(1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 1);
}

/* A stale connection is repeated on a fresh one of the same instance, though that has left meanwhile. */
static void test_stale_connection_of_an_instance_that_left(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *stale = net_newest(0);
	say(w, stale, ANSWER_OK);
	peer_deafen(stale);
	say(w, client, GET);
	world_set_engine(w, 1, "m", 1);
	world_remove_engine(w, 0);
	peer_finish(stale);
	world_settle(w);
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

/* Its old address is not asked again, and the load it bears stays with it. */
static void test_instance_that_moves_is_another_one(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w, GET), *old = net_newest(0);
	world_remove_engine(w, 0);
	world_set_engine(w, 1, "m", 1);
	struct peer *next = ask(w, GET);
	assert_int_equal(net_newest(-1)->engine, 1);
	say(w, net_newest(1), ANSWER_OK);
	expect_answer(next, 200, "ok");
	say(w, old, ANSWER_OK);
	expect_answer(client, 200, "ok");
	expect_end(w, 2);
}

/* Thousands of views, each held by somebody, leave with their last user. */
static void test_many_views(void **state) {
	struct world *w = WORLD("m");
	struct peer *clients[50], *engines[50];
	for (unsigned i = 0; i < n_elems(clients); i++) {
		clients[i] = ask(w, GET);
		engines[i] = net_newest(0);
		world_set_engine(w, 1, i & 1 ? "m" : "m,n", 1);
		net.moods[1][0] = MOOD_REFUSE;
	}
	for (unsigned i = 0; i < n_elems(clients); i++) {
		say(w, engines[i], ANSWER_OK);
		expect_answer(clients[i], 200, "ok");
	}
	expect_end(w, n_elems(clients));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_that_waits_sees_the_fleet_as_it_is_when_it_is_routed),
		cmocka_unit_test(test_model_that_leaves_while_its_name_arrives),
		cmocka_unit_test(test_model_that_left_is_anybodys),
		cmocka_unit_test(test_model_that_leaves_while_it_is_connected_to_is_anybodys),
		cmocka_unit_test(test_second_model_comes_while_a_body_arrives),
		cmocka_unit_test(test_fleet_that_is_empty),
		cmocka_unit_test(test_instance_leaves_while_it_serves),
		cmocka_unit_test(test_instance_leaves_while_it_is_connected_to),
		cmocka_unit_test(test_new_instance_takes_what_others_refused),
		cmocka_unit_test(test_stale_connection_of_an_instance_that_left),
		cmocka_unit_test(test_instance_that_moves_is_another_one),
		cmocka_unit_test(test_many_views),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
