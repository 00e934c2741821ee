/* Real children: what they are given, how they end, and that nothing of them is left. */
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "unit/babysitter/yard.h"

/* --- what a child is given ------------------------------------------------------------ */

static void arguments_keep_their_spaces(void **state) {
	struct yard y;
	yard_init(&y);
	y.argv[4] = "two words";
	y.argv[5] = "";
	y.argv[6] = "a  'b' \"c\" $HOME *";
	yard_run(&y, "for a; do echo \"<$a>\"; done; exec sleep 100");
	yard_until(&y, y.n_lines == 3);
	assert_string_equal(y.lines[0], "<two words>");
	assert_string_equal(y.lines[1], "<>");
	assert_string_equal(y.lines[2], "<a  'b' \"c\" $HOME *>");
	yard_close(&y);
}

static void environment_folder_limits_and_cpus(void **state) {
	const char *const env[] = { "GREETING=good day", "PATH=/usr/bin:/bin", NULL };
	const struct spawn_limit limits[] = { { RLIMIT_NOFILE, 77, 99 }, { RLIMIT_CORE, 0, 0 } };
	cpu_set_t mine, cpus;
	struct yard y;
	char line[64];
	int cpu = 0;
	sched_getaffinity(0, sizeof(mine), &mine);
	while (!CPU_ISSET(cpu, &mine))
		cpu++;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);

	yard_init(&y);
	y.config.plan.env = env;
	y.config.plan.work_dir = "/usr";
	y.config.plan.limits = limits;
	y.config.plan.n_limits = n_elems(limits);
	y.config.plan.cpus = &cpus;
	yard_run(&y,
	    "echo \"$GREETING ${HOME-no home}\"; pwd; ulimit -Sn; ulimit -Hn; ulimit -c;"
	    "grep Cpus_allowed_list /proc/self/status; echo \"$HEADRACE_SITTER\"; exec sleep 100");
	yard_until(&y, y.n_lines == 7);
	assert_string_equal(y.lines[0], "good day no home");
	assert_string_equal(y.lines[1], "/usr");
	assert_string_equal(y.lines[2], "77");
	assert_string_equal(y.lines[3], "99");
	assert_string_equal(y.lines[4], "0");
	snprintf(line, sizeof(line), "Cpus_allowed_list:\t%d", cpu);
	assert_string_equal(y.lines[5], line);
	assert_true(slice_has_prefix(slice_of(y.keeper.env[0]), SLICE("HEADRACE_SITTER=")));
	snprintf(line, sizeof(line), "%.32s/engine.lock", y.folder);
	assert_string_equal(y.lines[6], line);
	yard_close(&y);
}

/* As posix_spawn() leaves it behind: the C library keeps it to itself, so its sigaction() cannot. */
static void ignore_first_real_time_signal(void) {
	const struct {
		void (*handler)(int);
		unsigned long flags, restorer, mask;
	} ignored = { .handler = SIG_IGN };
	assert_int_equal(syscall(SYS_rt_sigaction, 32, &ignored, NULL, sizeof(ignored.mask)), 0);
}

/* Nothing blocked or ignored, no descriptor of ours but the lock, a session of its own. */
static void a_clean_start(void **state) {
	struct yard y;
	sigset_t blocked, old;
	int leak = open("/dev/null", O_RDONLY); /* somebody forgot O_CLOEXEC */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, &old);
	signal(SIGPIPE, SIG_IGN);
	ignore_first_real_time_signal();
	yard_init(&y);
	yard_run(&y,
	    "grep -E '^Sig(Blk|Ign)' /proc/self/status; readlink /proc/self/fd/0;"
	    "for f in /proc/$$/fd/*; do readlink $f; done | grep -vc -e ^pipe: -e ^/dev/null;"
	    "read pid name state parent group session rest </proc/$$/stat;"
	    "echo $((pid - group)) $((pid - session)); exec sleep 100");
	yard_until(&y, y.n_lines == 5);
	assert_string_equal(y.lines[0], "SigBlk:\t0000000000000000");
	assert_string_equal(y.lines[1], "SigIgn:\t0000000000000000");
	assert_string_equal(y.lines[2], "/dev/null");
	assert_string_equal(y.lines[3], "1"); /* the lock */
	assert_string_equal(y.lines[4], "0 0");
	yard_close(&y);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(leak);
}

/* --- a child that cannot start -------------------------------------------------------- */

static void a_missing_program_says_so(void **state) {
	struct yard y;
	yard_init(&y);
	y.argv[0] = "/no/such/engine";
	yard_open(&y, NULL);
	keeper_tell(&y.keeper, CHILD_E_START);
	yard_until(&y, y.keeper.child.state == CHILD_BACKOFF);
	assert_string_equal(y.keeper.last_failure.step, "exec");
	assert_int_equal(y.keeper.last_failure.error, ENOENT);
	assert_int_equal(y.keeper.child.cause, CHILD_C_EXITED);
	yard_close(&y);
}

static void a_missing_folder_says_so(void **state) {
	struct yard y;
	yard_init(&y);
	y.config.plan.work_dir = "/no/such/folder";
	y.config.rules.max_restarts = 1;
	yard_run(&y, "echo never");
	yard_until(&y, y.keeper.child.state == CHILD_FAILED);
	assert_string_equal(y.keeper.last_failure.step, "working dir");
	assert_int_equal(y.keeper.last_failure.error, ENOENT);
	assert_int_equal(y.keeper.child.n_spawned, 2);
	assert_int_equal(y.n_lines, 0);
	yard_close(&y);
}

/* --- ends ----------------------------------------------------------------------------- */

static void exit_code_and_restart(void **state) {
	struct yard y;
	yard_init(&y);
	yard_run(&y, "echo run; exit 7");
	yard_until(&y, y.keeper.child.n_spawned == 2);
	assert_int_equal(y.keeper.last_exit, 7);
	yard_until(&y, y.keeper.child.n_spawned == 3 && y.n_lines == 3);
	assert_true(y.n_changes >= 4);
	yard_close(&y);
}

static void who_obeys_ends_by_itself(void **state) {
	struct yard y;
	yard_init(&y);
	yard_run(&y, "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done");
	yard_until(&y, y.n_lines == 1);
	yard_stop(&y);
	assert_int_equal(y.keeper.last_exit, 3);
	yard_until(&y, yard_has_line(&y, "bye"));
	yard_close(&y);
}

static void who_ignores_term_is_killed(void **state) {
	struct yard y;
	yard_init(&y);
	y.config.rules.stop_ms = 100;
	yard_run(&y, "trap '' TERM; echo up; while :; do sleep 100; done");
	yard_until(&y, y.n_lines == 1);
	yard_stop(&y);
	assert_int_equal(y.keeper.last_signal, SIGKILL);
	yard_close(&y);
}

/* A daemon: own session, parent gone, every descriptor closed, deaf to SIGTERM. */
#define DAEMON                                                                                               \
	"setsid sh -c 'trap \"\" TERM HUP; (echo daemon $$; echo) ; exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- "     \
	"9>&-;"                                                                                              \
	"exec <&- >&- 2>&-; while :; do sleep 100; done' & "

static void daemons_die_with_it(void **state) {
	struct yard y;
	yard_init(&y);
	y.config.rules.stop_ms = 100;
	yard_run(&y, "(" DAEMON ") ; echo leader $$; exec sleep 100");
	yard_until(&y, yard_number(&y, "daemon") && yard_number(&y, "leader"));
	pid_t daemon = yard_number(&y, "daemon");
	assert_int_equal(kill(daemon, 0), 0);
	yard_stop(&y);
	assert_int_equal(kill(daemon, 0), -1);
	yard_close(&y);
}

/* A shell's jobs are process groups of its session: the signal to the leader's does not reach them. */
static void jobs_of_the_session_are_asked_as_well(void **state) {
	struct yard y;
	yard_init(&y);
	yard_run(&y,
	    "exec bash -c 'set -m; (trap \"echo heard; exit\" TERM; echo job $BASHPID;"
	    "while :; do sleep 0.02; done) & while :; do sleep 0.02; done'");
	yard_until(&y, yard_number(&y, "job"));
	assert_int_equal(getsid(yard_number(&y, "job")), y.keeper.pid);
	assert_int_not_equal(getpgid(yard_number(&y, "job")), y.keeper.pid);
	yard_stop(&y);
	yard_until(&y, yard_has_line(&y, "heard"));
	yard_close(&y);
}

static void daemons_of_a_crashed_leader_die_before_the_next_one(void **state) {
	struct yard y;
	yard_init(&y);
	yard_run(&y,
	    "test -e $0/first && { echo second; exec sleep 100; }; touch $0/first;" DAEMON
	    "while read -r x; do :; done; while :; do sleep 0.01; done");
	yard_until(&y, yard_number(&y, "daemon"));
	pid_t daemon = yard_number(&y, "daemon");
	kill(y.keeper.pid, SIGKILL);
	yard_until(&y, yard_has_line(&y, "second"));
	assert_int_equal(kill(daemon, 0), -1);
	assert_int_equal(y.keeper.last_signal, SIGKILL);
	yard_close(&y);
}

/* Twenty chains of processes that live for a moment each: who is looked at is gone already. */
static void a_crowd_that_keeps_forking_dies(void **state) {
	struct yard y;
	yard_init(&y);
	y.config.rules.stop_ms = 100;
	yard_run(&y,
	    "f() { sleep 0.02; (f &); }; trap '' TERM;"
	    "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (f &); done;"
	    "echo up; while :; do sleep 100; done");
	yard_until(&y, y.n_lines == 1 && n_descendants() > 10);
	yard_stop(&y);
	yard_close(&y);
}

/* Orphans that end while the leader lives are reaped. */
static void no_zombies_gather(void **state) {
	struct yard y;
	yard_init(&y);
	yard_run(&y, "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 &) ; done; echo up; exec sleep 100");
	yard_until(&y, y.n_lines == 1);
	yard_until(&y, n_descendants() == 1);
	assert_int_equal(y.keeper.child.state, CHILD_STARTING);
	yard_close(&y);
}

static void with_a_cgroup_where_there_is_one(void **state) {
	struct yard y;
	char line[CGROUP_PATH_MAX];
	yard_init(&y);
	char name[32];
	snprintf(name, sizeof(name), "test-%d", (int)getpid());
	y.config.name = name;
	y.config.use_cgroup = true;
	y.config.rules.stop_ms = 100;
	yard_run(&y, DAEMON "grep ^0:: /proc/self/cgroup; echo up; exec sleep 100");
	yard_until(&y, yard_has_line(&y, "up") && yard_number(&y, "daemon"));
	if (!y.keeper.cgroup.path[0]) {
		yard_close(&y);
		skip(); /* no cgroup can be made here */
	}
	const char *own = strrchr(y.keeper.cgroup.path, '/');
	bool is_inside = false;
	for (unsigned i = 0; i < y.n_lines; i++) {
		size_t n = strlen(y.lines[i]), n_own = strlen(own);
		is_inside |= n > n_own && strcmp(y.lines[i] + n - n_own, own) == 0;
	}
	assert_true(is_inside);
	snprintf(line, sizeof(line), "%s", y.keeper.cgroup.path);
	assert_true(cgroup_is_populated(line));
	yard_close(&y);
	assert_int_equal(access(line, F_OK), -1);
}

static void two_folders_have_two_cgroups(void **state) {
	struct yard y, z;
	yard_init(&y);
	yard_init(&z);
	y.config.use_cgroup = z.config.use_cgroup = true;
	struct cgroup a = { .procs_fd = -1 }, b = { .procs_fd = -1 };
	yard_open(&y, NULL);
	assert_string_equal(y.keeper.cgroup.path, ""); /* the place is not ours yet */
	int other = open(z.folder, O_RDONLY | O_CLOEXEC);
	bool has_one = cgroup_open(&a, "engine", y.keeper.claim.place_fd);
	if (has_one) {
		assert_true(cgroup_open(&b, "engine", other));
		assert_string_not_equal(a.path, b.path);
	}
	cgroup_close(&a);
	cgroup_close(&b);
	close(other);
	yard_close(&y);
	rmdir(z.folder);
}

static void a_name_with_a_slash(void **state) {
	struct yard y;
	char path[96];
	yard_init(&y);
	y.config.name = "org/model";
	yard_run(&y, "echo up; exec sleep 100");
	yard_until(&y, y.n_lines == 1);
	snprintf(path, sizeof(path), "%s/org_model.lock", y.folder);
	assert_int_equal(access(path, F_OK), 0);
	yard_close(&y);
}

static void nothing_is_left_open(void **state) {
	unsigned before = 0;
	for (unsigned round = 0; round < 2; round++) {
		struct yard y;
		yard_init(&y);
		yard_run(&y, "echo once; exit 1");
		yard_until(&y, y.keeper.child.n_spawned == 3);
		yard_close(&y);
		if (round == 0) /* libuv keeps some of its own */
			before = n_open_descriptors();
	}
	assert_int_equal(n_open_descriptors(), before);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arguments_keep_their_spaces),
		cmocka_unit_test(environment_folder_limits_and_cpus),
		cmocka_unit_test(a_clean_start),
		cmocka_unit_test(a_missing_program_says_so),
		cmocka_unit_test(a_missing_folder_says_so),
		cmocka_unit_test(exit_code_and_restart),
		cmocka_unit_test(who_obeys_ends_by_itself),
		cmocka_unit_test(who_ignores_term_is_killed),
		cmocka_unit_test(daemons_die_with_it),
		cmocka_unit_test(jobs_of_the_session_are_asked_as_well),
		cmocka_unit_test(daemons_of_a_crashed_leader_die_before_the_next_one),
		cmocka_unit_test(a_crowd_that_keeps_forking_dies),
		cmocka_unit_test(no_zombies_gather),
		cmocka_unit_test(two_folders_have_two_cgroups),
		cmocka_unit_test(with_a_cgroup_where_there_is_one),
		cmocka_unit_test(a_name_with_a_slash),
		cmocka_unit_test(nothing_is_left_open),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
