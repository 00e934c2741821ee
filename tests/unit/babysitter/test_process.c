#include "unit/unit.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "babysitter/process.c"

static pid_t sleeper(void) {
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

static void end(pid_t pid) {
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void stat_lines(void **state) {
	static const struct {
		const char *text;
		bool is_good;
	} cases[] = {
		{ "7 (a) S 3 7 5 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 99 1000\n", true },
		{ "7 (a) b) (c) S 3 7 5 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 99\n", true },
		{ "7 (a b) S 1) S 3 7 5 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 99 1000", true },
		{ "7 (a) S 3 7 5 0 -1 4", false },
		{ "7 a S 3", false },
		{ "7 (a)", false },
	};
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct process p = { .pid = 7 };
		size_t n = strcspn(cases[i].text, "\n");
		assert_int_equal(parse_stat((struct slice){ cases[i].text, n }, &p), cases[i].is_good);
		if (!cases[i].is_good)
			continue;
		assert_int_equal(p.state, 'S');
		assert_int_equal(p.parent, 3);
		assert_int_equal(p.group, 7);
		assert_int_equal(p.start, 99);
	}
}

static void a_child_and_a_zombie(void **state) {
	struct process p = { .pid = 0 };
	siginfo_t info;
	pid_t pid = sleeper();
	assert_true(process_read(pid, &p));
	assert_int_equal(p.pid, pid);
	assert_int_equal(p.parent, getpid());
	assert_int_equal(p.group, getpgrp());
	assert_true(process_is_live(&p));
	assert_true(process_signal(&p, SIGKILL));
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_true(process_read(pid, &p));
	assert_false(process_is_live(&p));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_false(process_read(pid, &p));
	assert_false(process_signal(&p, SIGKILL));
}

/* Its number alone is not enough. */
static void another_of_the_same_number_lives(void **state) {
	struct process p = { .pid = 0 };
	pid_t pid = sleeper();
	assert_true(process_read(pid, &p));
	p.start--;
	assert_false(process_signal(&p, SIGKILL));
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	end(pid);
}

/* One that sleeps, and a child of it that does. */
static pid_t sleepers(pid_t *inner_out) {
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	pid_t outer = fork();
	if (outer == 0) {
		pid_t inner = sleeper();
		_exit(write(fds[1], &inner, sizeof(inner)) == sizeof(inner) ? pause() : 1);
	}
	assert_int_equal(read(fds[0], inner_out, sizeof(*inner_out)), sizeof(*inner_out));
	close(fds[0]);
	close(fds[1]);
	return outer;
}

static void a_mark_spreads_to_descendants(void **state) {
	struct process_list l = { .items = NULL };
	pid_t inner, outer = sleepers(&inner), other = sleeper();
	process_list_read(&l);
	assert_null(process_list_find(&l, -1));
	process_list_find(&l, outer)->is_marked = true;
	process_list_spread(&l);
	assert_true(process_list_find(&l, inner)->is_marked);
	assert_false(process_list_find(&l, other)->is_marked);
	assert_false(process_list_find(&l, getpid())->is_marked);
	process_list_deinit(&l);
	end(outer);
	end(other);
	end(inner); /* ours now */
}

/* Whoever was listed has ended since, and another one has its number, and children. */
static void a_mark_ends_where_a_number_has_passed_on(void **state) {
	struct process_list l = { .items = NULL };
	pid_t inner, outer = sleepers(&inner);
	process_list_read(&l);
	process_list_find(&l, outer)->start--;
	process_list_find(&l, outer)->is_marked = true;
	process_list_spread(&l);
	bool is_marked = process_list_find(&l, inner)->is_marked;
	process_list_deinit(&l);
	end(outer);
	end(inner);
	assert_false(is_marked);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stat_lines),
		cmocka_unit_test(a_child_and_a_zombie),
		cmocka_unit_test(another_of_the_same_number_lives),
		cmocka_unit_test(a_mark_spreads_to_descendants),
		cmocka_unit_test(a_mark_ends_where_a_number_has_passed_on),
	};
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
