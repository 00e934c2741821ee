#include "unit/unit.h"

#include "base/rng.h"
#include "base/wheel.h"

/* Where levels begin and end: at these times and at distances of these lengths things have gone wrong. */
static const uint64_t edges[] = { 0, 1, 2, 254, 255, 256, 257, 511, 512, 65279, 65280, 65535, 65536, 65537,
	131071, 131072, (1u << 24) - 65536, (1u << 24) - 257, (1u << 24) - 2, (1u << 24) - 1, 1u << 24,
	(1u << 24) + 1, (1u << 24) + 65535, (1u << 24) + 65536, 3u << 24, (1ull << 32) - 1, 1ull << 32,
	(1ull << 40) + 12345 };

/* --- one timer ------------------------------------------------------------------ */

static struct wheel wheel;
static uint64_t fired_at_ms;
static unsigned n_fired;

static void note(struct timer *t) {
	fired_at_ms = wheel.now_ms;
	n_fired++;
	assert_false(timer_is_running(t));
}

static void it_fires_in_its_millisecond(void **state) {
	for (size_t start = 0; start < n_elems(edges); start++) {
		for (size_t delay = 0; delay < n_elems(edges) - 3; delay++) {
			uint64_t due = edges[start] + (edges[delay] ? edges[delay] : 1);
			struct timer t;
			wheel_init(&wheel, edges[start]);
			timer_init(&t, note);
			assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX);
			timer_start(&wheel, &t, edges[delay]);
			assert_true(timer_is_running(&t));
			n_fired = 0;
			wheel_advance(&wheel, due - 1);
			assert_int_equal(n_fired, 0);
			assert_int_equal(wheel_next_ms(&wheel), 1);
			wheel_advance(&wheel, due);
			assert_int_equal(n_fired, 1);
			assert_int_equal(fired_at_ms, due);
			assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX);
		}
	}
}

static void one_jump_over_all_fires_it_in_time(void **state) {
	for (size_t delay = 0; delay < n_elems(edges) - 3; delay++) {
		struct timer t;
		wheel_init(&wheel, 77777);
		timer_init(&t, note);
		timer_start(&wheel, &t, edges[delay]);
		n_fired = 0;
		wheel_advance(&wheel, 1ull << 41);
		assert_int_equal(n_fired, 1);
		assert_int_equal(fired_at_ms, 77777 + u64_max(edges[delay], 1));
		assert_int_equal(wheel.now_ms, 1ull << 41);
	}
}

/* A sleeper that follows wheel_next_ms() is woken once a level and round, not once a slot. */
static void it_wakes_seldom(void **state) {
	for (size_t delay = 0; delay < n_elems(edges); delay++) {
		struct timer t;
		unsigned n_wakes = 0;
		wheel_init(&wheel, 123456789);
		timer_init(&t, note);
		timer_start(&wheel, &t, edges[delay]);
		while (timer_is_running(&t)) {
			wheel_advance(&wheel, wheel.now_ms + wheel_next_ms(&wheel));
			n_wakes++;
		}
		assert_in_range(n_wakes, 1, WHEEL_LEVELS + 1 + edges[delay] / (255u << 16));
	}
}

static void a_later_deadline_is_only_written_down(void **state) {
	struct timer t;
	wheel_init(&wheel, 1024);
	timer_init(&t, note);
	n_fired = 0;
	timer_start(&wheel, &t, 100);
	struct list *slot = t.link.next;
	timer_start(&wheel, &t, 200);
	assert_ptr_equal(t.link.next, slot);
	assert_int_equal(wheel_next_ms(&wheel), 100);
	wheel_advance(&wheel, 1223);
	assert_int_equal(n_fired, 0);
	wheel_advance(&wheel, 1224);
	assert_int_equal(n_fired, 1);
}

static void an_earlier_deadline_counts_at_once(void **state) {
	struct timer t;
	wheel_init(&wheel, 1000);
	timer_init(&t, note);
	n_fired = 0;
	timer_start(&wheel, &t, 70000);
	timer_start(&wheel, &t, 100000);
	timer_start(&wheel, &t, 80000); /* earlier than the last word, later than the slot */
	timer_start(&wheel, &t, 50);
	wheel_advance(&wheel, 1049);
	assert_int_equal(n_fired, 0);
	wheel_advance(&wheel, 1050);
	assert_int_equal(n_fired, 1);
	wheel_advance(&wheel, 200000);
	assert_int_equal(n_fired, 1);
}

static void a_stopped_timer_is_silent(void **state) {
	struct timer t;
	wheel_init(&wheel, 0);
	timer_init(&t, note);
	n_fired = 0;
	timer_stop(&t);
	timer_start(&wheel, &t, 300);
	timer_stop(&t);
	timer_stop(&t);
	assert_false(timer_is_running(&t));
	wheel_advance(&wheel, 1000);
	assert_int_equal(n_fired, 0);
	assert_int_equal(wheel_next_ms(&wheel), UINT64_MAX); /* its slot has been passed */
	wheel_advance(&wheel, 500);                          /* not back */
	assert_int_equal(wheel.now_ms, 1000);
}

/* --- callbacks ------------------------------------------------------------------ */

static struct timer pair[2];

static void stop_the_other(struct timer *t) {
	n_fired++;
	timer_stop(&pair[t == &pair[0]]);
}

static void of_two_that_stop_each_other_one_fires(void **state) {
	wheel_init(&wheel, 0);
	n_fired = 0;
	for (unsigned i = 0; i < 2; i++) {
		timer_init(&pair[i], stop_the_other);
		timer_start(&wheel, &pair[i], 10);
	}
	wheel_advance(&wheel, 10);
	assert_int_equal(n_fired, 1);
	assert_false(timer_is_running(&pair[0]) || timer_is_running(&pair[1]));
}

static void every_100_ms(struct timer *t) {
	n_fired++;
	assert_int_equal(wheel.now_ms, n_fired * 100);
	timer_start(&wheel, t, 100);
}

static void it_may_start_itself_again(void **state) {
	struct timer t;
	wheel_init(&wheel, 0);
	timer_init(&t, every_100_ms);
	n_fired = 0;
	timer_start(&wheel, &t, 100);
	wheel_advance(&wheel, 100050);
	assert_int_equal(n_fired, 1000);
	timer_stop(&t);
}

static void at_once(struct timer *t) {
	if (++n_fired < 5)
		timer_start(&wheel, t, 0);
}

static void no_delay_is_the_next_millisecond(void **state) {
	struct timer t;
	wheel_init(&wheel, 255);
	timer_init(&t, at_once);
	n_fired = 0;
	timer_start(&wheel, &t, 0);
	wheel_advance(&wheel, 256);
	assert_int_equal(n_fired, 1);
	wheel_advance(&wheel, 300);
	assert_int_equal(n_fired, 5);
}

static void release(struct timer *t) {
	n_fired++;
	free(t);
}

static void it_may_free_itself(void **state) {
	wheel_init(&wheel, 0);
	n_fired = 0;
	for (unsigned i = 0; i < 10; i++) {
		struct timer *t = malloc(sizeof(*t));
		timer_init(t, release);
		timer_start(&wheel, t, 5);
	}
	wheel_advance(&wheel, 5);
	assert_int_equal(n_fired, 10);
}

/* --- thousands, against a list that is searched ------------------------------------ */

enum { N_TIMERS = 2000, N_STEPS = 3000 };

static struct naive {
	struct timer timer;
	uint64_t due_ms; /* 0: not running */
} naive[N_TIMERS];
static struct rng rng;
static unsigned n_missed;

static void naive_on_expiry(struct timer *t);

static uint64_t random_delay(void) {
	uint64_t edge = edges[rng_below(&rng, n_elems(edges) - 3)];
	switch (rng_below(&rng, 4)) {
	case 0:
		return edge + rng_below(&rng, 3);
	case 1:
		return rng_below(&rng, edge + 1);
	case 2:
		return rng_below(&rng, 100000);
	default:
		return rng_below(&rng, 600);
	}
}

static void naive_touch(struct naive *n) {
	if (rng_below(&rng, 5) == 0) {
		timer_stop(&n->timer);
		n->due_ms = 0;
		return;
	}
	uint64_t delay = random_delay();
	timer_start(&wheel, &n->timer, delay);
	n->due_ms = wheel.now_ms + u64_max(delay, 1);
}

static void naive_on_expiry(struct timer *t) {
	struct naive *n = container_of(t, struct naive, timer);
	n_missed += n->due_ms != wheel.now_ms;
	n->due_ms = 0;
	if (rng_below(&rng, 8) == 0) /* itself or any other, from inside */
		naive_touch(rng_below(&rng, 2) ? n : &naive[rng_below(&rng, N_TIMERS)]);
}

/* What runs is what should, nothing is overdue, and the next wake-up is not too late. */
static void naive_check(void) {
	uint64_t first = UINT64_MAX;
	for (size_t i = 0; i < N_TIMERS; i++) {
		assert_int_equal(timer_is_running(&naive[i].timer), naive[i].due_ms != 0);
		if (naive[i].due_ms)
			first = u64_min(first, naive[i].due_ms);
	}
	assert_true(first > wheel.now_ms);
	if (first != UINT64_MAX)
		assert_in_range(wheel_next_ms(&wheel), 1, first - wheel.now_ms);
}

static void thousands_fire_in_their_milliseconds(void **state) {
	for (uint64_t seed = 1; seed <= 6; seed++) {
		rng_init(&rng, seed);
		wheel_init(&wheel, edges[rng_below(&rng, n_elems(edges))]);
		for (size_t i = 0; i < N_TIMERS; i++) {
			timer_init(&naive[i].timer, naive_on_expiry);
			naive[i].due_ms = 0;
		}
		for (unsigned step = 0; step < N_STEPS; step++) {
			for (uint64_t n = rng_below(&rng, 40); n > 0; n--)
				naive_touch(&naive[rng_below(&rng, N_TIMERS)]);
			wheel_advance(&wheel, wheel.now_ms + random_delay() / (step % 8 ? 256 : 1));
			if (step % 16 == 0)
				naive_check();
		}
		naive_check();
		assert_int_equal(n_missed, 0);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_fires_in_its_millisecond),
		cmocka_unit_test(one_jump_over_all_fires_it_in_time),
		cmocka_unit_test(it_wakes_seldom),
		cmocka_unit_test(a_later_deadline_is_only_written_down),
		cmocka_unit_test(an_earlier_deadline_counts_at_once),
		cmocka_unit_test(a_stopped_timer_is_silent),
		cmocka_unit_test(of_two_that_stop_each_other_one_fires),
		cmocka_unit_test(it_may_start_itself_again),
		cmocka_unit_test(no_delay_is_the_next_millisecond),
		cmocka_unit_test(it_may_free_itself),
		cmocka_unit_test(thousands_fire_in_their_milliseconds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
