#include "unit/net/rig.h"

#include <signal.h>

#include "net/signals.h"

static int numbers[8];
static unsigned n_numbers;

static void on_signal(struct signals *s, int number) {
	numbers[n_numbers++] = number;
}

static void signals_are_events_of_the_loop(void **state) {
	static const int wanted[] = { SIGUSR1, SIGUSR2 };
	struct signals s;
	struct rig r;
	rig_open(&r);
	signals_init(&s, &r.loop, wanted, 2, on_signal);
	raise(SIGUSR2);
	assert_int_equal(n_numbers, 0);
	rig_until(&r, n_numbers == 1);
	raise(SIGUSR1);
	rig_until(&r, n_numbers == 2);
	assert_int_equal(numbers[0], SIGUSR2);
	assert_int_equal(numbers[1], SIGUSR1);
	signals_close(&s);
	rig_close(&r);
}

static void a_closed_pipe_kills_nobody(void **state) {
	struct signals s;
	struct rig r;
	int ends[2];
	signal(SIGPIPE, SIG_DFL);
	rig_open(&r);
	signals_init(&s, &r.loop, NULL, 0, on_signal);
	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	assert_int_equal(write(ends[1], "x", 1), -1);
	assert_int_equal(errno, EPIPE);
	close(ends[1]);
	signals_close(&s);
	rig_close(&r);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_are_events_of_the_loop),
		cmocka_unit_test(a_closed_pipe_kills_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
