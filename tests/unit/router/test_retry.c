#include "unit/unit.h"

#include "router/retry.h"

static const struct retry_options options = { .attempts = 3,
	.refusals = 1u << RETRY_429 | 1u << RETRY_503,
	.backoff_ms = 50,
	.backoff_max_ms = 1000,
	.multiplier = 2,
	.jitter = 0.2,
	.budget = 0.2 };

static void what_is_no_refusal_is_none(void **state) {
	struct retry_options all = options;

	for (unsigned status = 0; status < 1000; status++)
		assert_int_equal(retry_is_refusal(&options, status), status == 429 || status == 503);
	all.refusals = UINT8_MAX >> (8 - RETRY_STATUSES);
	for (unsigned status = 0; status < 1000; status++) {
		bool is = status == 408 || status == 429 || (status >= 500 && status <= 504 && status != 501);

		assert_int_equal(retry_is_refusal(&all, status), is);
	}
}

static void waits_grow_within_their_jitter(void **state) {
	static const uint64_t middles[] = { 50, 100, 200, 400, 800, 1000, 1000 };
	struct rng rng;

	rng_init(&rng, 1);
	for (uint32_t i = 0; i < n_elems(middles); i++) {
		uint64_t least = UINT64_MAX, most = 0;

		for (unsigned k = 0; k < 2000; k++) {
			uint64_t ms = retry_wait_ms(&options, i + 1, &rng);

			least = u64_min(least, ms);
			most = u64_max(most, ms);
		}
		assert_in_range(least, middles[i] * 8 / 10, middles[i] * 82 / 100);
		assert_in_range(most, middles[i] * 118 / 100 - 1, middles[i] * 12 / 10);
	}
}

static void no_number_of_attempts_overflows(void **state) {
	struct retry_options steep = options;
	struct rng rng;

	rng_init(&rng, 1);
	steep.multiplier = 1e300;
	assert_in_range(retry_wait_ms(&steep, UINT32_MAX, &rng), 800, 1200);
	steep.backoff_ms = steep.backoff_max_ms = RETRY_BACKOFF_MAX_MS;
	steep.jitter = 1;
	for (unsigned i = 0; i < 1000; i++)
		assert_in_range(retry_wait_ms(&steep, 1, &rng), 0, UINT32_MAX);
}

static void retry_after_is_seconds_or_a_date(void **state) {
	const int64_t now_s = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT */

	assert_int_equal(retry_after_ms(SLICE("3"), now_s), 3000);
	assert_int_equal(retry_after_ms(SLICE("0"), now_s), 0);
	assert_int_equal(retry_after_ms((struct slice){ NULL, 0 }, now_s), 0); /* there was none */
	assert_int_equal(retry_after_ms(SLICE("99999999999999999999999"), now_s), RETRY_AFTER_MAX_MS);
	assert_int_equal(retry_after_ms(SLICE("Sun, 06 Nov 1994 08:49:57 GMT"), now_s), 20000);
	assert_int_equal(retry_after_ms(SLICE("Sun, 06 Nov 1994 08:49:17 GMT"), now_s), 0);
	assert_int_equal(retry_after_ms(SLICE("Sun, 06 Nov 2094 08:49:17 GMT"), now_s), RETRY_AFTER_MAX_MS);
}

static void a_retry_after_that_cannot_be_read_is_none(void **state) {
	static const char *const texts[] = { "", "-1", "1.5", "3 s", " 3", "soon", "Sun, 06 Nov 2094",
		"Sun, 06 Nov 2094 08:49:17 GMTx", "Sun, 06 Nov 2094 08:49:17 GMT and much more of it" };

	for (unsigned i = 0; i < n_elems(texts); i++)
		assert_int_equal(retry_after_ms(slice_of(texts[i]), 784111777), 0);
}

/* All that come fail, and each is tried as often as it may be. */
static double amplification(double budget, unsigned n_requests, uint64_t every_ms) {
	struct retry_options o = options;
	struct retry_budget b = { 0 };
	unsigned n_sent = 0;

	o.budget = budget;
	for (unsigned i = 0; i < n_requests; i++) {
		uint64_t now_ms = 1000 + i * every_ms;

		retry_budget_pay(&b, &o, now_ms);
		n_sent++;
		for (uint32_t k = 1; k < o.attempts && retry_budget_take(&b, &o, now_ms); k++)
			n_sent++;
	}
	return (double)n_sent / n_requests;
}

static void retries_are_a_part_of_the_requests(void **state) {
	double a = amplification(0.2, 6000, 10);

	assert_true(a > 1.15 && a <= 1.21);
	assert_true(amplification(1, 6000, 10) > 1.9);
	assert_true(amplification(0, 6000, 10) == 1);
}

static void a_lonely_request_has_some_for_free(void **state) {
	assert_true(amplification(0.2, 1, 1) == 3);
	assert_true(amplification(0.2, 10, 60000) == 3);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_refusal_is_none),
		cmocka_unit_test(waits_grow_within_their_jitter),
		cmocka_unit_test(no_number_of_attempts_overflows),
		cmocka_unit_test(retry_after_is_seconds_or_a_date),
		cmocka_unit_test(a_retry_after_that_cannot_be_read_is_none),
		cmocka_unit_test(retries_are_a_part_of_the_requests),
		cmocka_unit_test(a_lonely_request_has_some_for_free),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
