#include "unit/unit.h"

#include "sim/generator.h"

static struct trace make(const char *text, uint64_t seed) {
	char message[GENERATOR_MESSAGE_BYTES];
	struct generator g;
	struct trace t;

	trace_init(&t);
	if (!generator_parse(&g, slice_of(text), message))
		fail_msg("%s", message);
	generator_run(&g, seed, 512, &t);
	trace_finish(&t, 1);
	return t;
}

/* Leading blocks that two requests have in common. */
static uint32_t common(const struct trace *t, const struct trace_request *a, const struct trace_request *b) {
	uint32_t n = 0;

	while (n < a->n_blocks && n < b->n_blocks && trace_blocks(t, a)[n] == trace_blocks(t, b)[n])
		n++;
	return n;
}

static void keys_replace_defaults(void **state) {
	char message[GENERATOR_MESSAGE_BYTES];
	struct generator g;

	assert_true(generator_parse(&g, SLICE("gen:agents"), message));
	assert_string_equal(g.name, "agents");
	assert_int_equal(g.n, 1000);
	assert_true(generator_parse(&g,
	    SLICE("gen:multi_turn,n=7,rate=0.5,groups=2,prefix_tokens=0,turns=3,"
		  "input_tokens=9,output_tokens=8,think=1500ms"),
	    message));
	assert_int_equal(g.n, 7);
	assert_true(g.rate == 0.5);
	assert_int_equal(g.groups, 2);
	assert_int_equal(g.prefix_tokens, 0);
	assert_int_equal(g.turns, 3);
	assert_int_equal(g.input_tokens, 9);
	assert_int_equal(g.output_tokens, 8);
	assert_int_equal(g.think_ms, 1500);
	assert_false(generator_is_named(SLICE("general.jsonl")));
}

static void mistakes_are_named(void **state) {
	const struct {
		const char *text, *what;
	} bad[] = {
		{ "gen:", "none of gen:shared_prefix" },
		{ "gen:chat", "gen:chat" },
		{ "gen:agents,m=1", "\"m\" is none of n," },
		{ "gen:agents,", "\"\" is none of n," },
		{ "gen:agents,n", "n: " },
		{ "gen:agents,n=", "n: " },
		{ "gen:agents,n=0", "n: " },
		{ "gen:agents,n=-1", "n: " },
		{ "gen:agents,turns=1001", "turns: " },
		{ "gen:agents,rate=0", "rate: " },
		{ "gen:agents,think=5", "think: " },
	};

	for (size_t i = 0; i < n_elems(bad); i++) {
		char message[GENERATOR_MESSAGE_BYTES];
		struct generator g;

		assert_false(generator_parse(&g, slice_of(bad[i].text), message));
		if (!strstr(message, bad[i].what))
			fail_msg("%s: %s", bad[i].text, message);
	}
}

static void groups_share_their_prefix_and_no_more(void **state) {
	struct trace t =
	    make("gen:shared_prefix,n=400,groups=4,prefix_tokens=2048,input_tokens=600,rate=10", 1);
	unsigned n_shared = 0, n_pairs = 0;

	assert_int_equal(t.n, 400);
	for (size_t i = 0; i < t.n; i++) {
		assert_in_range(t.requests[i].n_input_tokens, 2048 + 300, 2048 + 900);
		assert_int_equal(t.requests[i].n_blocks, (t.requests[i].n_input_tokens + 511) / 512);
		for (size_t j = 0; j < i; j++) {
			uint32_t n = common(&t, &t.requests[i], &t.requests[j]);

			assert_true(n == 0 || n == 4);
			n_shared += n == 4;
			n_pairs++;
		}
	}
	assert_in_range(100 * n_shared / n_pairs, 20, 30);           /* one in four */
	assert_in_range(t.requests[399].at_ns / 1000000000, 32, 48); /* at 10 a second */
	trace_deinit(&t);
}

/* What a conversation said is the beginning of what it says next. */
static void turns_grow(void **state) {
	struct trace t = make("gen:multi_turn,n=100,turns=5,groups=1,prefix_tokens=1024,input_tokens=700", 2);
	unsigned n_next = 0;

	for (size_t i = 0; i < t.n; i++) {
		const struct trace_request *r = &t.requests[i], *next = r + 1;

		while (next < t.requests + t.n && next->session != r->session)
			next++;
		if (next == t.requests + t.n)
			continue;
		assert_true(next->n_input_tokens > r->n_input_tokens + r->n_output_tokens);
		assert_int_equal(common(&t, r, next), r->n_input_tokens / 512);
		n_next++;
	}
	assert_int_equal(n_next, 80);
	trace_deinit(&t);
}

static bool are_equal(const struct trace *a, const struct trace *b) {
	return a->n == b->n && a->n_blocks == b->n_blocks &&
	    !memcmp(a->requests, b->requests, a->n * sizeof(*a->requests)) &&
	    !memcmp(a->blocks, b->blocks, a->n_blocks * sizeof(*a->blocks));
}

static void a_seed_is_a_trace(void **state) {
	struct trace a = make("gen:agents,n=300", 5), b = make("gen:agents,n=300", 5),
		     c = make("gen:agents,n=300", 6);

	assert_true(are_equal(&a, &b));
	assert_false(are_equal(&a, &c));
	trace_deinit(&a);
	trace_deinit(&b);
	trace_deinit(&c);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_replace_defaults),
		cmocka_unit_test(mistakes_are_named),
		cmocka_unit_test(groups_share_their_prefix_and_no_more),
		cmocka_unit_test(turns_grow),
		cmocka_unit_test(a_seed_is_a_trace),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
