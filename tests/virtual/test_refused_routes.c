/* An engine that does not serve what it was asked for is not asked for it again, for a while. */
#include "virtual/expect.h"

#define RERANK    "/v1/rerank"
#define BODY(m)   "{\"model\":\"" m "\"}"
#define NOT_FOUND "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"

/* One request; the engine that has it answers so. Returns which it was. */
static int give(struct world *w, const char *path, const char *body, const char *answer, unsigned status) {
	struct peer *client = post(w, path, body), *at = net_newest(-1);
	int engine = at->engine;

	assert_true(engine >= 0);
	world_pass(w, 1);
	say(w, at, answer);
	expect_answer(client, status, NULL);
	peer_close(client);
	peer_close(at);
	world_settle(w);
	return engine;
}

/* Which engines six requests go to, as bits. */
static unsigned given(struct world *w, const char *path, const char *body) {
	unsigned engines = 0;

	for (unsigned i = 0; i < 6; i++)
		engines |= 1u << give(w, path, body, ANSWER_OK, 200);
	return engines;
}

static uint64_t n_cleared(const struct world *w) {
	return metric_read(&w->worker.metrics->capability_cleared);
}

static void expect_learned(const char *answer, unsigned status) {
	struct world *w = WORLD("m,n", "m,n", "m,n");
	unsigned all = 7, others = all & ~(1u << give(w, RERANK, BODY("m"), answer, status));

	assert_int_equal(n_cleared(w), 1);
	assert_int_equal(given(w, RERANK, BODY("m")), others);
	assert_int_equal(given(w, CHAT, BODY("m")), all);
	assert_int_equal(given(w, RERANK, BODY("n")), all);
	world_pass(w, 59000);
	assert_int_equal(given(w, RERANK, BODY("m")), others);
	world_pass(w, 1000);
	assert_int_equal(given(w, RERANK, BODY("m")), all);
	assert_int_equal(n_cleared(w), 1);
	expect_end(w, 31);
}

static void test_a_refused_route_is_learned_and_expires(void **state) {
	expect_learned(NOT_FOUND, 404);
	expect_learned("HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n", 405);
	expect_learned("HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n", 501);
}

/* What cost the engine no work says nothing of how fast it is. */
static void test_a_redirect_is_no_first_token(void **state) {
	struct world *w = WORLD("m");
	const struct learned *learned = &w->worker.view->snapshot->rows[0].instance->learned;

	give(w, "/v1/embeddings", BODY("m"), "HTTP/1.1 307 Temporary Redirect\r\ncontent-length: 0\r\n\r\n",
	    307);
	assert_true(learned_read(&learned->first_token_s) == 0);
	give(w, "/v1/embeddings", BODY("m"), ANSWER_OK, 200);
	assert_true(learned_read(&learned->first_token_s) > 0);
	expect_end(w, 2);
}

/* Who completes may not fill: of one path only what was asked for is learned. */
static void test_a_refused_infill_is_no_refused_completion(void **state) {
	struct world *w = WORLD("m", "m", "m");
	const char *path = "/v1/completions", *infill = "{\"model\":\"m\",\"suffix\":\"s\"}";
	unsigned all = 7, others = all & ~(1u << give(w, path, infill, NOT_FOUND, 404));

	assert_int_equal(n_cleared(w), 1);
	assert_int_equal(given(w, path, infill), others);
	assert_int_equal(given(w, path, BODY("m")), all);
	expect_end(w, 13);
}

/* A suffix behind what was read before the choice: it was picked as a completion, and that is what it did not
 * do. */
static void test_a_late_suffix_is_a_refused_completion(void **state) {
	static const char head[] = "{\"model\":\"m\",\"prompt\":\"", tail[] = "\",\"suffix\":\"s\"}";
	enum { PROMPT_BYTES = 100000 };
	struct world *w = WORLD("m", "m", "m");
	const char *path = "/v1/completions";
	char *prompt = calloc(1, PROMPT_BYTES + 1);

	memset(prompt, 'x', PROMPT_BYTES);
	struct peer *client = post_part(w, path, sizeof(head) + PROMPT_BYTES + sizeof(tail) - 2, head), *at;
	say(w, client, prompt);
	at = net_newest(-1);
	unsigned others = 7u & ~(1u << at->engine);
	say(w, client, tail);
	say(w, at, NOT_FOUND);
	expect_answer(client, 404, NULL);
	peer_close(client);
	peer_close(at);
	world_settle(w);
	assert_int_equal(n_cleared(w), 1);
	assert_int_equal(given(w, path, BODY("m")), others);
	free(prompt);
	expect_end(w, 7);
}

/* A 404 is of the route unless it says that something else is not there, with the head or behind it. */
static void test_a_missing_model_is_no_missing_route(void **state) {
	static const struct {
		const char *body;
		bool is_learned;
	} cases[] = {
		{ "{\"detail\":\"Not Found\"}", true },
		{ "{\"error\":{\"code\":404,\"message\":\"File Not Found\",\"type\":\"not_found_error\"}}",
		    true },
		{ "{\"error\":{\"message\":\"The model `m` does not exist.\",\"type\":\"NotFoundError\","
		  "\"param\":\"model\",\"code\":404}}",
		    false },
		{ "{\"error\":\"model 'm' not found, try pulling it first\"}", false },
		{ "{\"error\":{\"message\":\"This is not a chat model and thus not supported here.\","
		  "\"param\":\"model\"}}",
		    true },
	};
	char head[120];

	for (size_t i = 0; i < n_elems(cases); i++)
		for (unsigned is_cut = 0; is_cut < 2; is_cut++) {
			struct world *w = WORLD("m", "m", "m");
			struct peer *client = post(w, RERANK, BODY("m")), *at = net_newest(-1);

			snprintf(head, sizeof(head),
			    "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n"
			    "content-length: %zu\r\n\r\n",
			    strlen(cases[i].body));
			peer_says(at, head);
			if (is_cut) {
				world_settle(w);
				assert_int_equal(n_cleared(w), 0);
			}
			say(w, at, cases[i].body);
			assert_int_equal(n_cleared(w), cases[i].is_learned);
			expect_answer(client, 404, cases[i].body);
			expect_end(w, 1);
		}
}

/* What breaks off says nothing. */
static void test_half_a_refusal_is_none(void **state) {
	struct world *w = WORLD("m", "m", "m");
	struct peer *client = post(w, RERANK, BODY("m")), *at = net_newest(-1);

	say(w, at, "HTTP/1.1 404 Not Found\r\ncontent-length: 20\r\n\r\nno");
	peer_close(at);
	world_settle(w);
	assert_int_equal(n_cleared(w), 0);
	peer_close(client);
	expect_end(w, 1);
}

static void test_other_mistakes_teach_nothing(void **state) {
	struct world *w = WORLD("m", "m", "m");

	give(w, RERANK, BODY("m"), "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", 400);
	give(w, RERANK, BODY("m"), "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 500);
	give(w, "/no/such/path", BODY("m"), NOT_FOUND, 404);
	assert_int_equal(n_cleared(w), 0);
	assert_int_equal(given(w, RERANK, BODY("m")), 7);
	expect_end(w, 9);
}

/* When nobody does, the client sees what an engine says of it. */
static void test_who_is_left_is_asked_all_the_same(void **state) {
	struct world *w = WORLD("m", "m", "m");
	unsigned engines = 0;

	for (unsigned i = 0; i < 3; i++)
		engines |= 1u << give(w, RERANK, BODY("m"), NOT_FOUND, 404);
	assert_int_equal(engines, 7);
	assert_int_equal(n_cleared(w), 3);
	for (unsigned i = 0; i < 6; i++)
		give(w, RERANK, BODY("m"), NOT_FOUND, 404);
	assert_int_equal(n_cleared(w), 3); /* said once */
	expect_end(w, 9);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_refused_route_is_learned_and_expires),
		cmocka_unit_test(test_a_redirect_is_no_first_token),
		cmocka_unit_test(test_a_refused_infill_is_no_refused_completion),
		cmocka_unit_test(test_a_late_suffix_is_a_refused_completion),
		cmocka_unit_test(test_a_missing_model_is_no_missing_route),
		cmocka_unit_test(test_half_a_refusal_is_none),
		cmocka_unit_test(test_other_mistakes_teach_nothing),
		cmocka_unit_test(test_who_is_left_is_asked_all_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
