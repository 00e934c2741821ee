#include "unit/policy/picks.h"

#define SECOND UINT64_C(1000000000)
#define NOW_MS 100000

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1 };

/* It answered just now, and its first token took so long lately. */
static void show(struct picks *p, uint32_t row, double first_token_s) {
	struct learned *learned = &picks_instance(p, row)->learned;

	learned_write(&learned->first_token_s, first_token_s);
	atomic_store(&learned->first_ns, NOW_MS * UINT64_C(1000000));
}

static void the_queue_counts(void **state) {
	struct picks p;

	picks_open(&p, "least_latency", equal, 3, 1);
	show(&p, 0, 0.1);
	show(&p, 1, 0.25);
	show(&p, 2, 0.5);
	assert_int_equal(picks_next(&p, -1, NOW_MS), 0);
	picks_charge(&p, 0, 2);
	assert_int_equal(picks_next(&p, -1, NOW_MS), 1);
	picks_charge(&p, 1, 1);
	assert_int_equal(picks_next(&p, -1, NOW_MS), 0);
	picks_charge(&p, 0, 5);
	show(&p, 2, 0.45);
	assert_int_equal(picks_next(&p, -1, NOW_MS), 2);
	picks_close(&p);
}

static void the_weights_count(void **state) {
	const uint16_t weights[] = { 3, 1, 1 };
	struct picks p;

	picks_open(&p, "least_latency", weights, 3, 1);
	show(&p, 0, 0.29);
	show(&p, 1, 0.1);
	show(&p, 2, 0.2);
	assert_int_equal(picks_next(&p, -1, NOW_MS), 0);
	show(&p, 0, 0.31);
	assert_int_equal(picks_next(&p, -1, NOW_MS), 1);
	picks_close(&p);
}

/* The known ones take 0.1 s and are idle: as good as the new one at first, and better once that has a
 * request. */
static void a_new_one_is_tried_and_not_flooded(void **state) {
	unsigned n_new = 0;

	for (uint64_t seed = 0; seed < 50; seed++) {
		unsigned n_got[4] = { 0 };
		struct picks p;

		picks_open(&p, "least_latency", equal, 4, seed);
		for (uint32_t r = 0; r < 3; r++)
			show(&p, r, 0.1);
		for (unsigned i = 0; i < 28; i++) {
			uint32_t row = picks_next(&p, -1, NOW_MS);

			picks_charge(&p, row, 1);
			n_got[row]++;
		}
		n_new += n_got[3] > 0;
		assert_in_range(n_got[3], 1, 3); /* an equal share were 7 */
		picks_close(&p);
	}
	assert_int_equal(n_new, 50);
}

/* One request at a time, so that nobody ever is busy, however many have shown how good they are. */
static void whoever_is_new_is_tried(void **state) {
	static const uint64_t times_ms[] = { 5, 50, 20 };

	for (uint64_t seed = 0; seed < 50; seed++)
		for (uint32_t n_known = 0; n_known < 3; n_known++) {
			unsigned n_got[3] = { 0 };
			struct picks p;

			picks_open(&p, "least_latency", equal, 3, seed);
			for (uint32_t r = 0; r < n_known; r++)
				show(&p, r, (double)times_ms[r] / 1e3);
			for (uint64_t i = 0; i < 60; i++) {
				uint64_t now_ns = NOW_MS * UINT64_C(1000000) + i * SECOND / 10;
				struct ticket t;
				uint32_t row = picks_send(&p, now_ns, &t);

				ticket_first(&t, &p.set, now_ns + times_ms[row] * 1000000);
				ticket_close(&t, &p.set, NULL);
				n_got[row]++;
			}
			for (uint32_t r = n_known; r < 3; r++)
				assert_true(n_got[r] > 0);
			assert_true(n_got[0] >= 30); /* and the best is found */
			picks_close(&p);
		}
}

/* Nor is one with a request that shows nothing, such as a whole answer, left out or given all of them. */
static void who_shows_nothing_has_its_share(void **state) {
	unsigned n_got = 0;
	struct picks p;

	picks_open(&p, "least_latency", equal, 3, 1);
	show(&p, 0, 0.1);
	show(&p, 1, 0.2);
	for (unsigned i = 0; i < 600; i++)
		n_got += picks_next(&p, -1, NOW_MS) == 2;
	assert_in_range(n_got, 150, 450);
	picks_charge(&p, 2, 1);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(picks_next(&p, -1, NOW_MS), 0);
	picks_close(&p);
}

/* A peak is not for ever: without news its memory fades, and it gets a chance. */
static void a_peak_fades(void **state) {
	bool is_back = false;
	struct picks p;

	picks_open(&p, "least_latency", equal, 3, 1);
	show(&p, 0, 8);
	show(&p, 1, 0.1);
	show(&p, 2, 0.1);
	for (uint64_t s = 0; s < 60; s++) {
		/* The others stay busy and quick. */
		for (uint32_t r = 1; r < 3; r++)
			atomic_store(&picks_instance(&p, r)->learned.first_ns, (100 + s) * SECOND);
		uint32_t row = picks_next(&p, -1, NOW_MS + s * 1000);

		if (s < 10)
			assert_int_not_equal(row, 0);
		picks_charge(&p, row, 1);
		is_back |= row == 0;
	}
	assert_true(is_back);
	picks_close(&p);
}

/* What is constant is learned as it is, whatever its size, and shown so. */
static void a_constant_time_is_reported_as_it_is(void **state) {
	static const uint64_t times_ms[] = { 5, 50, 500 };
	struct picks p;

	picks_open(&p, "round_robin", equal, 3, 1); /* all are asked as often */
	for (unsigned i = 0; i < 300; i++) {
		uint64_t now_ns = (i + 1) * SECOND;
		struct ticket t;
		uint32_t row = picks_send(&p, now_ns, &t);

		ticket_first(&t, &p.set, now_ns + times_ms[row] * 1000000);
		ticket_close(&t, &p.set, NULL);
	}
	p.options.policy = policy_find(SLICE("least_latency"));
	policy_set_adopt(&p.set, p.snap);
	assert_int_equal(picks_next(&p, -1, 298000), 0); /* all answered after that: nothing fades */
	for (uint32_t r = 0; r < 3; r++) {
		double ms = (double)p.set.scores[r].parts[0] * 1000;

		assert_true(ms > (double)times_ms[r] * 0.999 && ms < (double)times_ms[r] * 1.001);
	}
	picks_close(&p);
}

/* However many are equal, and wherever the median stands. */
static void the_median_is_the_middle(void **state) {
	static const double times[] = { 0.3, 0.1, 0.5, 0.1, 0.4, 0.2, 0.1 };
	struct picks p;

	picks_open(&p, "least_latency", equal, 8, 1);
	for (uint32_t r = 0; r < 7; r++)
		show(&p, r, times[r]);
	(void)picks_next(&p, -1, NOW_MS);
	double shown = (double)p.set.scores[7].parts[0]; /* what a new one is taken for */
	assert_true(shown > 0.199 && shown < 0.201);
	for (uint32_t r = 0; r < 7; r++)
		show(&p, r, 0.25);
	(void)picks_next(&p, -1, NOW_MS);
	shown = (double)p.set.scores[7].parts[0];
	assert_true(shown > 0.249 && shown < 0.251);
	picks_close(&p);
	picks_open(&p, "least_latency", equal, 3, 1); /* of two it is the better one */
	show(&p, 0, 0.5);
	show(&p, 1, 0.25);
	(void)picks_next(&p, -1, NOW_MS);
	shown = (double)p.set.scores[2].parts[0];
	assert_true(shown > 0.249 && shown < 0.251);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_queue_counts),
		cmocka_unit_test(the_weights_count),
		cmocka_unit_test(a_new_one_is_tried_and_not_flooded),
		cmocka_unit_test(whoever_is_new_is_tried),
		cmocka_unit_test(who_shows_nothing_has_its_share),
		cmocka_unit_test(a_peak_fades),
		cmocka_unit_test(a_constant_time_is_reported_as_it_is),
		cmocka_unit_test(the_median_is_the_middle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
