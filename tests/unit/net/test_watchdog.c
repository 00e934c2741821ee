#include "unit/net/rig.h"

#include <sys/un.h>

#include "net/watchdog.h"

enum { LIMIT_MS = 400, TICK_MS = LIMIT_MS / 4 };

static uint64_t fake_ns = 1000000000u;

static uint64_t fake_source(void) {
	return fake_ns;
}

/* A manager that listens, the control thread's loop, and two that are watched. */
struct scene {
	int manager;
	struct rig control, one, other;
	struct watchdog dog;
};

static void manager_open(struct scene *s, const char *limit_us) {
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char name[64];
	int n = snprintf(name, sizeof(name), "@headrace-test-watchdog-%d", (int)getpid());
	memcpy(at.sun_path + 1, name + 1, (size_t)n - 1);
	s->manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(s->manager, (struct sockaddr *)&at,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)),
	    0);
	setenv("NOTIFY_SOCKET", name, 1);
	if (limit_us)
		setenv("WATCHDOG_USEC", limit_us, 1);
	else
		unsetenv("WATCHDOG_USEC");
}

static struct scene *scene_open(const char *limit_us) {
	struct scene *s = calloc(1, sizeof(*s));
	clock_set_source(fake_source);
	manager_open(s, limit_us);
	rig_open(&s->control);
	rig_open(&s->one);
	rig_open(&s->other);
	struct loop *others[] = { &s->one.loop, &s->other.loop };
	watchdog_start(&s->dog, &s->control.loop, others, n_elems(others));
	return s;
}

static void scene_close(struct scene *s) {
	watchdog_stop(&s->dog);
	loop_deliver(&s->one.loop);
	loop_deliver(&s->other.loop);
	watchdog_free(&s->dog);
	rig_close(&s->control);
	rig_close(&s->one);
	rig_close(&s->other);
	close(s->manager);
	clock_set_source(NULL);
	free(s);
}

/* What the manager has heard since the last look. */
static unsigned told(struct scene *s) {
	char word[64];
	unsigned n = 0;
	ssize_t got;
	while ((got = recv(s->manager, word, sizeof(word), 0)) > 0) {
		assert_true(slice_eq((struct slice){ word, (size_t)got }, SLICE("WATCHDOG=1")));
		n++;
	}
	return n;
}

static void tick(struct scene *s) {
	fake_ns += TICK_MS * 1000000u;
	loop_turn(&s->control.loop);
}

static void while_all_move_it_is_told_four_times(void **state) {
	struct scene *s = scene_open("400000");
	tick(s);
	for (unsigned i = 0; i < 4; i++) {
		loop_deliver(&s->one.loop);
		loop_deliver(&s->other.loop);
		tick(s);
	}
	assert_int_equal(told(s), 5);
	scene_close(s);
}

static void one_that_stands_still_ends_the_words(void **state) {
	struct scene *s = scene_open("400000");
	tick(s);
	assert_int_equal(told(s), 1);
	for (unsigned i = 0; i < 10; i++) {
		loop_deliver(&s->one.loop);
		tick(s);
	}
	assert_int_equal(told(s), 0);
	loop_deliver(&s->other.loop);
	tick(s);
	assert_int_equal(told(s), 1);
	scene_close(s);
}

static void a_program_of_one_loop_says_that_it_moves(void **state) {
	struct scene *s = scene_open("400000");
	watchdog_stop(&s->dog);
	watchdog_free(&s->dog);
	watchdog_start(&s->dog, &s->control.loop, NULL, 0);
	for (unsigned i = 0; i < 3; i++)
		tick(s);
	assert_int_equal(told(s), 3);
	scene_close(s);
}

static void nobody_asks_nothing_is_said(void **state) {
	const char *const limits[] = { NULL, "", "0", "x", "999" };
	for (size_t i = 0; i < n_elems(limits); i++) {
		struct scene *s = scene_open(limits[i]);
		tick(s);
		tick(s);
		assert_int_equal(told(s), 0);
		assert_null(s->dog.questions);
		scene_close(s);
	}
	unsetenv("NOTIFY_SOCKET");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(while_all_move_it_is_told_four_times),
		cmocka_unit_test(one_that_stands_still_ends_the_words),
		cmocka_unit_test(a_program_of_one_loop_says_that_it_moves),
		cmocka_unit_test(nobody_asks_nothing_is_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
