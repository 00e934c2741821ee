#include "unit/unit.h"

#include "engine/latency.h"

#define MS 1000000ull

static const struct latency_options quick = { 1000, 10 * MS, 2 }; /* a token in 1 ms */

/* The owner's part: nothing is cached, unless a test says so itself. */
static void begin(struct latency *l) {
	struct latency_sequence *s = latency_starting(l);
	if (s)
		latency_begin(l, s, 0);
}

static void submit(
    struct latency *l, struct latency_sequence *s, uint32_t n_prompt, uint32_t n_output, uint64_t now_ns) {
	latency_submit(l, s, n_prompt, n_output, now_ns);
	begin(l);
}

static void hold(struct latency *l, struct latency_sequence *s, uint64_t now_ns) {
	latency_hold(l, s, now_ns);
	begin(l);
}

static void end(struct latency *l, struct latency_sequence *s, uint64_t now_ns) {
	latency_abort(l, s, now_ns);
	begin(l);
}

static struct latency_sequence *pop(struct latency *l, uint64_t now_ns, uint64_t *at_ns) {
	struct latency_sequence *s = latency_pop(l, now_ns, at_ns);
	begin(l);
	return s;
}

/* Pops one token and checks whose it is and when. */
static void expect(struct latency *l, struct latency_sequence *s, uint64_t at_ms, enum latency_state state) {
	uint64_t at_ns;
	assert_int_equal(latency_due_ns(l), at_ms * MS);
	assert_null(pop(l, at_ms * MS - 1, &at_ns));
	assert_ptr_equal(pop(l, at_ms * MS, &at_ns), s);
	assert_int_equal(at_ns, at_ms * MS);
	assert_int_equal(s->state, state);
}

static void one_sequence_pays_prefill_then_a_step_a_token(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 };
	latency_init(&l, &quick);
	assert_int_equal(latency_due_ns(&l), LATENCY_NEVER);
	latency_submit(&l, &a, 100, 3, 5 * MS);
	assert_ptr_equal(latency_starting(&l), &a);
	latency_begin(&l, &a, 60);
	assert_null(latency_starting(&l));
	assert_int_equal(l.n_running, 1);
	expect(&l, &a, 45, LATENCY_DECODE); /* 40 tokens were not cached */
	expect(&l, &a, 55, LATENCY_DECODE);
	expect(&l, &a, 65, LATENCY_DONE);
	assert_int_equal(a.n_made_tokens, 3);
	assert_int_equal(latency_due_ns(&l), LATENCY_NEVER);
	assert_int_equal(l.n_running, 0);
}

static void prefill_is_one_queue(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 };
	latency_init(&l, &quick);
	submit(&l, &a, 10, 1, 1 * MS);
	submit(&l, &b, 10, 1, 2 * MS);
	expect(&l, &a, 11, LATENCY_DONE);
	expect(&l, &b, 21, LATENCY_DONE);
}

static void the_batch_limit_lets_the_rest_wait(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 }, c = { 0 };
	latency_init(&l, &quick);
	submit(&l, &a, 10, 3, 0);
	submit(&l, &b, 10, 9, 0);
	submit(&l, &c, 10, 1, 0);
	assert_int_equal(l.n_running, 2);
	assert_int_equal(l.n_waiting, 1);
	assert_int_equal(c.state, LATENCY_WAITING);
	expect(&l, &a, 10, LATENCY_DECODE);
	expect(&l, &a, 20, LATENCY_DECODE); /* both are due: decode goes first */
	expect(&l, &b, 20, LATENCY_DECODE);
	expect(&l, &a, 30, LATENCY_DONE); /* its place is taken at this time */
	assert_int_equal(c.state, LATENCY_PREFILL);
	expect(&l, &b, 30, LATENCY_DECODE);
	expect(&l, &b, 40, LATENCY_DECODE);
	expect(&l, &c, 40, LATENCY_DONE);
	assert_int_equal(l.n_waiting, 0);
}

static void a_late_caller_loses_no_token_and_no_time(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 };
	uint64_t at_ns, last_ns = 0;
	int n = 0;
	latency_init(&l, &quick);
	submit(&l, &a, 1, 50, 0);
	submit(&l, &b, 1, 50, 0);
	while (pop(&l, 10000 * MS, &at_ns)) {
		assert_true(at_ns >= last_ns);
		last_ns = at_ns;
		n++;
	}
	assert_int_equal(n, 100);
	assert_int_equal(last_ns, (2 + 49 * 10) * MS);
}

static void a_prefill_begins_when_the_one_before_ends(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 };
	uint64_t at_ns;
	latency_init(&l, &quick);
	submit(&l, &a, 10, 1, 1 * MS);
	latency_submit(&l, &b, 10, 1, 2 * MS);
	assert_null(latency_starting(&l));
	assert_ptr_equal(latency_pop(&l, 50 * MS, &at_ns), &a); /* however late it is seen */
	assert_ptr_equal(latency_starting(&l), &b);
	latency_begin(&l, &b, 9);
	expect(&l, &b, 12, LATENCY_DONE);
	assert_int_equal(b.admitted_ns, 2 * MS);
}

static void nothing_is_served_before_it_came(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 };
	uint64_t at_ns;
	latency_init(&l, &(struct latency_options){ 1000, 10 * MS, 1 });
	submit(&l, &a, 10, 1, 0);
	submit(&l, &b, 10, 1, 30 * MS); /* the end of the other is not seen yet */
	assert_ptr_equal(pop(&l, 30 * MS, &at_ns), &a);
	assert_int_equal(b.admitted_ns, 30 * MS);
	expect(&l, &b, 40, LATENCY_DONE);
}

static void an_abort_frees_place_and_prefill(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 }, c = { 0 };
	latency_init(&l, &quick);
	submit(&l, &a, 100, 1, 0);
	submit(&l, &b, 10, 1, 0);
	submit(&l, &c, 10, 1, 0);
	end(&l, &a, 30 * MS); /* in prefill: the next one begins now */
	assert_int_equal(a.state, LATENCY_DONE);
	assert_int_equal(c.state, LATENCY_PREFILL);
	expect(&l, &b, 40, LATENCY_DONE);
	end(&l, &c, 45 * MS);
	end(&l, &c, 45 * MS); /* again does nothing */
	assert_int_equal(latency_due_ns(&l), LATENCY_NEVER);
	assert_int_equal(l.n_running, 0);
	assert_int_equal(l.n_context_tokens, 0);
}

static void a_waiting_one_can_be_aborted(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 }, c = { 0 };
	latency_init(&l, &quick);
	submit(&l, &a, 10, 1, 0);
	submit(&l, &b, 10, 1, 0);
	submit(&l, &c, 10, 1, 0);
	end(&l, &c, 1 * MS);
	assert_int_equal(l.n_waiting, 0);
	assert_int_equal(l.n_running, 2);
	expect(&l, &a, 10, LATENCY_DONE);
	expect(&l, &b, 20, LATENCY_DONE);
	assert_int_equal(latency_due_ns(&l), LATENCY_NEVER);
}

static void a_held_one_runs_and_is_silent(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 };
	latency_init(&l, &(struct latency_options){ 1000, 10 * MS, 1 });
	submit(&l, &a, 10, 5, 0);
	submit(&l, &b, 10, 1, 0);
	expect(&l, &a, 10, LATENCY_DECODE);
	hold(&l, &a, 12 * MS);
	assert_int_equal(l.n_running, 1);
	assert_int_equal(l.n_context_tokens, 11);
	assert_int_equal(latency_due_ns(&l), LATENCY_NEVER); /* its place is taken for ever */
	hold(&l, &b, 13 * MS);                               /* beyond the limit */
	assert_int_equal(l.n_running, 2);
	assert_int_equal(l.n_waiting, 0);
	end(&l, &a, 20 * MS);
	end(&l, &b, 20 * MS);
	assert_int_equal(l.n_running, 0);
}

static void a_held_prefill_lets_the_next_one_pass(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 }, b = { 0 };
	latency_init(&l, &quick);
	submit(&l, &a, 100, 1, 0);
	submit(&l, &b, 10, 1, 0);
	hold(&l, &a, 5 * MS);
	expect(&l, &b, 15, LATENCY_DONE);
	end(&l, &a, 15 * MS);
}

static void no_output_ends_with_the_prefill(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 };
	latency_init(&l, &quick);
	submit(&l, &a, 10, 0, 0);
	expect(&l, &a, 10, LATENCY_DONE);
	assert_int_equal(a.n_made_tokens, 0);
}

static void a_rate_of_zero_is_instant(void **state) {
	struct latency l;
	struct latency_sequence a = { 0 };
	uint64_t at_ns;
	latency_init(&l, &(struct latency_options){ 0, 0, 1 });
	submit(&l, &a, 1000, 2, 7);
	assert_ptr_equal(pop(&l, 7, &at_ns), &a);
	assert_ptr_equal(pop(&l, 7, &at_ns), &a);
	assert_null(pop(&l, 7, &at_ns));
	assert_int_equal(a.state, LATENCY_DONE);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_sequence_pays_prefill_then_a_step_a_token),
		cmocka_unit_test(prefill_is_one_queue),
		cmocka_unit_test(the_batch_limit_lets_the_rest_wait),
		cmocka_unit_test(a_late_caller_loses_no_token_and_no_time),
		cmocka_unit_test(a_prefill_begins_when_the_one_before_ends),
		cmocka_unit_test(nothing_is_served_before_it_came),
		cmocka_unit_test(an_abort_frees_place_and_prefill),
		cmocka_unit_test(a_waiting_one_can_be_aborted),
		cmocka_unit_test(a_held_one_runs_and_is_silent),
		cmocka_unit_test(a_held_prefill_lets_the_next_one_pass),
		cmocka_unit_test(no_output_ends_with_the_prefill),
		cmocka_unit_test(a_rate_of_zero_is_instant),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
