/* Each step that can fail says so by name. What a child gets is in babysitter/test_keeper.c, too. */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/spawn.h"

static const char *const exits_3[] = { "/bin/sh", "-c", "exit 3", NULL };

static struct spawn_plan plan_of(const char *const *argv) {
	return (struct spawn_plan){ .argv = argv, .cgroup_fd = -1, .kept_fd = -1 };
}

static void close_all(const struct spawned *s) {
	close(s->pidfd);
	close(s->report_fd);
	close(s->out_fd);
	close(s->err_fd);
}

static void await_readable(int fd) {
	struct pollfd p = { .fd = fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 60000), 1);
}

/* Runs it to its end; -> its exit code. */
static int run(const struct spawn_plan *plan, int *failed_out, struct spawn_failure *failure_out) {
	struct spawned s;
	int status;
	assert_int_equal(spawn_start(plan, &s), 0);
	await_readable(s.pidfd);
	*failed_out = spawn_failed(s.report_fd, failure_out);
	assert_int_equal(waitpid(s.pid, &status, 0), s.pid);
	assert_true(WIFEXITED(status));
	close_all(&s);
	return WEXITSTATUS(status);
}

static void expect_failure(const struct spawn_plan *plan, const char *step, int error) {
	struct spawn_failure failure;
	int failed;
	assert_int_equal(run(plan, &failed, &failure), 127);
	assert_int_equal(failed, 1);
	assert_string_equal(failure.step, step);
	assert_int_equal(failure.error, error);
}

static void a_good_start(void **state) {
	struct spawn_failure failure;
	struct spawn_plan plan = plan_of(exits_3);
	int failed;
	assert_int_equal(run(&plan, &failed, &failure), 3);
	assert_int_equal(failed, 0);
	assert_string_equal(failure.step, "");
}

static void exec_fails(void **state) {
	const char *const missing[] = { "no-such-program-anywhere", NULL },
			  *const folder[] = { "/tmp", NULL };
	struct spawn_plan plan = plan_of(missing);
	expect_failure(&plan, "exec", ENOENT);
	plan.argv = folder;
	expect_failure(&plan, "exec", EACCES);
}

/* Looked up in the child's PATH, not in ours. */
static void the_path_is_the_childs(void **state) {
	const char *const argv[] = { "sh", "-c", "exit 4", NULL };
	const char *const nowhere[] = { "PATH=/no/such/folder", NULL },
			  *const usual[] = { "PATH=/bin", NULL };
	struct spawn_plan plan = plan_of(argv);
	struct spawn_failure failure;
	int failed;
	plan.env = nowhere;
	expect_failure(&plan, "exec", ENOENT);
	plan.env = usual;
	assert_int_equal(run(&plan, &failed, &failure), 4);
}

static void other_steps_fail(void **state) {
	const struct spawn_limit wrong = { RLIMIT_NOFILE, 10, 5 };
	struct spawn_plan plan = plan_of(exits_3);
	cpu_set_t none;
	plan.work_dir = "/no/such/folder";
	expect_failure(&plan, "working dir", ENOENT);
	plan = plan_of(exits_3);
	plan.limits = &wrong;
	plan.n_limits = 1;
	expect_failure(&plan, "limits", EINVAL);
	plan = plan_of(exits_3);
	CPU_ZERO(&none);
	plan.cpus = &none;
	expect_failure(&plan, "affinity", EINVAL);
	plan = plan_of(exits_3);
	plan.kept_fd = 1000000;
	expect_failure(&plan, "descriptors", EBADF);
}

static void a_cgroup_that_takes_nobody_is_done_without(void **state) {
	struct spawn_plan plan = plan_of(exits_3);
	struct spawn_failure failure;
	int failed;
	plan.cgroup_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(run(&plan, &failed, &failure), 3);
	assert_int_equal(failed, 0);
	close(plan.cgroup_fd);
}

/* argv[0] is only a name then. */
static void a_path_may_differ_from_the_name(void **state) {
	const char *const argv[] = { "no-such-program-anywhere", "-c", "exit 5", NULL };
	struct spawn_plan plan = plan_of(argv);
	struct spawn_failure failure;
	int failed;
	plan.path = "/bin/sh";
	assert_int_equal(run(&plan, &failed, &failure), 5);
	assert_int_equal(failed, 0);
}

/* The shell finds out: its session is the sixth field, and 3 is one of ours. */
static void session_and_output_may_be_ours(void **state) {
	const char *const argv[] = { "/bin/sh", "-c",
		"read a b c d e session rest </proc/$$/stat; echo $session; echo heard >&2", NULL };
	struct spawn_plan plan = plan_of(argv);
	char said[32] = { 0 }, ours[32];
	struct spawned s;
	int fds[2], saved = dup(STDOUT_FILENO);
	plan.keeps_session = plan.keeps_stdout = true;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	fflush(stdout);
	dup2(fds[1], STDOUT_FILENO);
	int r = spawn_start(&plan, &s);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	close(fds[1]);
	assert_int_equal(r, 0);
	assert_int_equal(s.out_fd, -1);
	await_readable(fds[0]);
	assert_true(read(fds[0], said, sizeof(said) - 1) > 0);
	snprintf(ours, sizeof(ours), "%d\n", (int)getsid(0));
	assert_string_equal(said, ours);
	await_readable(s.err_fd);
	assert_int_equal(read(s.err_fd, said, 6), 6);
	assert_memory_equal(said, "heard\n", 6);
	assert_int_equal(waitpid(s.pid, NULL, 0), s.pid);
	close(fds[0]);
	close(s.pidfd);
	close(s.report_fd);
	close(s.err_fd);
}

static void not_known_before_exec(void **state) {
	struct spawn_failure failure;
	int fds[2];
	assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
	assert_int_equal(spawn_failed(fds[0], &failure), -EAGAIN);
	close(fds[0]);
	close(fds[1]);
}

static void no_descriptor_is_left(void **state) {
	const struct spawn_plan plan = plan_of(exits_3);
	struct rlimit old, few;
	int lowest = open("/dev/null", O_RDONLY), again;
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (unsigned n = 0; n < 9; n++) { /* any of its descriptors may be the one too many */
		struct spawned s;
		few = old;
		few.rlim_cur = (rlim_t)lowest + n;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		int r = spawn_start(&plan, &s);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		if (r == 0) {
			assert_int_equal(waitpid(s.pid, NULL, 0), s.pid);
			close_all(&s);
		} else
			assert_int_equal(r, -EMFILE);
		assert_true(r < 0 || n >= 7);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nor a process */
		again = open("/dev/null", O_RDONLY);
		assert_int_equal(again, lowest);
		close(again);
	}
}

/* With our own standard descriptors closed, its pipes may get their numbers. */
static void without_standard_descriptors(void **state) {
	const char *const argv[] = { "/bin/sh", "-c", "echo out; echo err >&2", NULL };
	const struct spawn_plan plan = plan_of(argv);
	int kept[3];
	for (int i = 0; i < 3; i++) {
		kept[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
		close(i);
	}
	struct spawned s;
	char out[8] = "", err[8] = "";
	int r = spawn_start(&plan, &s);
	if (r == 0) {
		waitpid(s.pid, NULL, 0);
		r = read(s.out_fd, out, 7) != 4 || read(s.err_fd, err, 7) != 4;
		close_all(&s);
	}
	for (int i = 0; i < 3; i++) {
		if (kept[i] < 0)
			continue;
		dup2(kept[i], i);
		close(kept[i]);
	}
	assert_int_equal(r, 0);
	assert_string_equal(out, "out\n");
	assert_string_equal(err, "err\n");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_start),
		cmocka_unit_test(exec_fails),
		cmocka_unit_test(the_path_is_the_childs),
		cmocka_unit_test(other_steps_fail),
		cmocka_unit_test(a_cgroup_that_takes_nobody_is_done_without),
		cmocka_unit_test(a_path_may_differ_from_the_name),
		cmocka_unit_test(session_and_output_may_be_ours),
		cmocka_unit_test(not_known_before_exec),
		cmocka_unit_test(no_descriptor_is_left),
		cmocka_unit_test(without_standard_descriptors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
