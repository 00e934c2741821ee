#include "unit/unit.h"

#include "sim/virtual_router.h"

#define N 4

static struct virtual_router *router_of(const char *policy, uint64_t seed) {
	return virtual_router_new(&(struct virtual_router_options){
	    .policy = policy, .n_engines = N, .n_block_tokens = 10, .index_bytes = 1 << 20, .seed = seed });
}

/* 100 tokens in the full blocks `first` to first + 9. */
static uint32_t arrive_with(struct virtual_router *r, struct passage *p, uint64_t first) {
	uint64_t blocks[10];
	struct trace trace = { .blocks = blocks };
	struct trace_request request = { .n_input_tokens = 100, .n_output_tokens = 10, .n_blocks = 10 };

	for (uint64_t i = 0; i < 10; i++)
		blocks[i] = first + i;
	*p = (struct passage){ .engine = 0 };
	virtual_router_arrive(r, p, &trace, &request, 0);
	return p->engine;
}

static uint32_t arrive(struct virtual_router *r, struct passage *p, uint64_t session) {
	static const struct trace trace;
	struct trace_request request = { .n_input_tokens = 100, .n_output_tokens = 10, .session = session };

	*p = (struct passage){ .engine = 0 };
	virtual_router_arrive(r, p, &trace, &request, 0);
	assert_true(p->engine < N);
	return p->engine;
}

static void end(struct virtual_router *r, struct passage *p) {
	virtual_router_first_token(r, p, 1000);
	virtual_router_done(
	    r, p, &(struct ticket_usage){ .prompt_tokens = 100, .cached_tokens = 0, .has_cached = true });
}

static void policies_have_their_names(void **state) {
	assert_true(virtual_router_knows(SLICE("vllm")));
	assert_true(virtual_router_knows(SLICE("round_robin")));
	assert_true(virtual_router_knows(SLICE("least_load")));
	assert_false(virtual_router_knows(SLICE("none_such")));
	assert_false(virtual_router_knows(SLICE("")));
}

static void each_takes_its_turn(void **state) {
	struct virtual_router *r = router_of("round_robin", 1);
	struct passage passages[10 * N];
	unsigned counts[N] = { 0 };

	for (unsigned i = 0; i < n_elems(passages); i++)
		counts[arrive(r, &passages[i], 0)]++;
	for (unsigned e = 0; e < N; e++)
		assert_int_equal(counts[e], 10);
	for (unsigned i = 0; i < n_elems(passages); i++)
		end(r, &passages[i]);
	virtual_router_free(&r);
	assert_null(r);
}

/* Both count what they sent and what came back: the one that got something back is next. */
static void what_came_back_is_no_load(void **state) {
	const char *const policies[] = { "least_load", "vllm" };

	for (unsigned p = 0; p < n_elems(policies); p++) {
		struct virtual_router *r = router_of(policies[p], 1);
		struct passage passages[2 * N], next;
		bool has_one[N] = { false };

		for (unsigned i = 0; i < N; i++)
			has_one[arrive(r, &passages[i], 0)] = true;
		for (unsigned e = 0; e < N; e++)
			assert_true(has_one[e]);
		for (unsigned i = N; i < 2 * N; i++)
			arrive(r, &passages[i], 0);
		for (unsigned i = 0; i < 2 * N; i++) {
			uint32_t engine = passages[i].engine;

			end(r, &passages[i]);
			assert_int_equal(arrive(r, &next, 0), engine);
			passages[i] = next;
		}
		for (unsigned i = 0; i < 2 * N; i++)
			end(r, &passages[i]);
		virtual_router_free(&r);
	}
}

static void a_session_stays(void **state) {
	struct virtual_router *r = router_of("rendezvous_hash", 1);
	struct passage passage;
	uint32_t home[16];
	unsigned seen = 0;

	for (uint64_t s = 0; s < 16; s++) {
		home[s] = arrive(r, &passage, s + 1);
		seen |= 1u << home[s];
		end(r, &passage);
	}
	assert_int_equal(seen, (1u << N) - 1);
	for (uint64_t s = 0; s < 16; s++) {
		assert_int_equal(arrive(r, &passage, s + 1), home[s]);
		end(r, &passage);
	}
	virtual_router_free(&r);
}

/* Sixteen prompts, and each goes where it was; small numbers as block ids do as well as hashes. */
static void the_policies_see_the_blocks(void **state) {
	struct virtual_router *r = router_of("cache_aware", 1);
	struct passage passage;
	uint32_t home[16];
	unsigned seen = 0;

	for (uint64_t i = 0; i < 16; i++) {
		home[i] = arrive_with(r, &passage, 10 * i);
		assert_int_equal(passage.ticket.prompt_tokens, 100);
		assert_int_equal(passage.ticket.cached_tokens, 0);
		seen |= 1u << home[i];
		end(r, &passage);
	}
	assert_int_equal(seen, (1u << N) - 1);
	for (uint64_t i = 0; i < 16; i++) {
		assert_int_equal(arrive_with(r, &passage, 10 * i), home[i]);
		assert_int_equal(passage.ticket.cached_tokens, 100);
		virtual_router_first_token(r, &passage, 1000);
		virtual_router_done(r, &passage,
		    &(struct ticket_usage){ .prompt_tokens = 100, .cached_tokens = 100, .has_cached = true });
	}
	virtual_router_free(&r);
}

/*
 * Prompts of 13.9 blocks, of which the engine caches 13: nothing is missing, so that what the
 * index believes of old blocks stays as it is.
 */
static void a_block_that_is_not_full_is_not_missed(void **state) {
	struct virtual_router *r = router_of("cache_aware", 1);
	struct passage passage;
	uint64_t blocks[14];
	struct trace trace = { .blocks = blocks };
	struct trace_request request = { .n_input_tokens = 139, .n_blocks = 14 };

	for (uint64_t i = 0; i < 120; i++) {
		uint32_t n_cached = i < 40 ? 0 : 130;

		for (uint64_t b = 0; b < 14; b++)
			blocks[b] = i % 40 * 14 + b;
		passage = (struct passage){ .engine = 0 };
		virtual_router_arrive(r, &passage, &trace, &request, i);
		if (i >= 40)
			assert_in_range(passage.ticket.cached_tokens, 129, 130);
		virtual_router_first_token(r, &passage, i);
		virtual_router_done(r, &passage,
		    &(struct ticket_usage){
			.prompt_tokens = 139, .cached_tokens = n_cached, .has_cached = true });
	}
	virtual_router_free(&r);
}

static void a_seed_is_a_choice(void **state) {
	struct virtual_router *a = router_of("random", 1), *b = router_of("random", 1),
			      *c = router_of("random", 2);
	struct passage pa, pb, pc;
	unsigned n_others = 0;

	for (unsigned i = 0; i < 100; i++) {
		arrive(a, &pa, 0);
		arrive(b, &pb, 0);
		arrive(c, &pc, 0);
		assert_int_equal(pa.engine, pb.engine);
		n_others += pa.engine != pc.engine;
		end(a, &pa);
		end(b, &pb);
		end(c, &pc);
	}
	assert_true(n_others > 0);
	virtual_router_free(&a);
	virtual_router_free(&b);
	virtual_router_free(&c);
}

/* Others' requests wait at all engines but one. */
static void what_engines_say_is_heard(void **state) {
	struct virtual_router *r = router_of("least_load", 1);
	struct passage passages[5];

	for (uint32_t e = 0; e < N; e++)
		virtual_router_hear(r, e, 1, e == 2 ? 0 : 5, 0);
	for (unsigned i = 0; i < n_elems(passages); i++)
		assert_int_equal(arrive(r, &passages[i], 0), 2);
	for (unsigned i = 0; i < n_elems(passages); i++)
		end(r, &passages[i]);
	virtual_router_free(&r);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(policies_have_their_names),
		cmocka_unit_test(what_engines_say_is_heard),
		cmocka_unit_test(each_takes_its_turn),
		cmocka_unit_test(what_came_back_is_no_load),
		cmocka_unit_test(a_session_stays),
		cmocka_unit_test(the_policies_see_the_blocks),
		cmocka_unit_test(a_block_that_is_not_full_is_not_missed),
		cmocka_unit_test(a_seed_is_a_choice),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
