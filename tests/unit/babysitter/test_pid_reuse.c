/*
 * Numbers of processes that pass on to others. This program runs as the first process of a
 * pid namespace, in which it chooses the next number: a small pid_max without the hours
 * that it would take to come round.
 *
 * A stranger here is a process, with a child, that is no business of the babysitter's: whatever number it
 * gets, both of them live until they are ended.
 */
#include <jansson.h>
#include <sys/prctl.h>

#include "unit/babysitter/sitter.h"

enum { FIRST = 300, N_NUMBERS = 200, N_FORKS = 16384, STRANGER_EVERY = 64, N_STRANGERS = 24, N_STARTS = 20 };

static bool is_inside(void) {
	return getpid() == 1;
}

/* Becomes this program in a namespace of its own, where one can be made. */
static void enter_namespace(void) {
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = '\0';
	if (system("unshare --pid --fork --mount-proc --map-root-user "
		   "sh -c 'echo 99 >/proc/sys/kernel/ns_last_pid' 2>/dev/null") == 0)
		execlp("unshare", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
		    "--map-root-user", self, (char *)NULL);
}

/* The next process gets this number, or the first one that is free behind it. */
static void choose_number(pid_t number) {
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	assert_true(dprintf(fd, "%d", (int)number - 1) > 0);
	close(fd);
}

static pid_t sleeper(void) {
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

/* It takes the number of a process that is reaped, at another time: start times count in ticks. */
static pid_t sleeper_in_place_of(const struct process *former) {
	for (unsigned i = 0; i < 10000; i++) {
		struct process p;
		choose_number(former->pid);
		pid_t pid = sleeper();
		assert_true(process_read(pid, &p));
		if (pid == former->pid && p.start != former->start)
			return pid;
		sitter_kill(pid);
	}
	fail_msg("the number %d does not become free", (int)former->pid);
	return 0;
}

static void assert_alone(void) {
	while (waitpid(-1, NULL, 0) > 0)
		; /* orphans */
	assert_int_equal(n_descendants(), 0);
}

static bool is_untouched(pid_t pid) {
	return waitpid(pid, NULL, WNOHANG) == 0;
}

static void who_has_the_number_now_is_not_signalled(void **state) {
	struct process p;
	if (!is_inside())
		skip(); /* no pid namespace can be made here */
	pid_t pid = sleeper();
	assert_true(process_read(pid, &p));
	sitter_kill(pid);
	pid = sleeper_in_place_of(&p);
	assert_false(process_signal(&p, SIGKILL));
	assert_true(is_untouched(pid));
	sitter_kill(pid);
	assert_alone();
}

/* --- what a predecessor has noted ---------------------------------------------------------- */

static pid_t recorded_leader(const char *folder) {
	char path[96];
	snprintf(path, sizeof(path), "%s/engine.lock", folder);
	json_t *record = json_load_file(path, 0, NULL);
	pid_t leader = (pid_t)json_integer_value(json_object_get(record, "leader"));
	json_decref(record);
	return leader;
}

static pid_t await_leader(const char *folder, pid_t before) {
	uint64_t since_ns = clock_now_ns();
	for (;;) {
		pid_t leader = recorded_leader(folder);
		if (leader && leader != before)
			return leader;
		assert_true(clock_now_ns() - since_ns < 6 * RIG_PATIENCE_NS);
		sched_yield();
	}
}

static void a_successor_spares_who_has_the_leaders_number(void **state) {
	char folder[] = "/tmp/reuse_XXXXXX";
	const char *const command[] = { "/bin/sh", "-c", "exec sleep 1000", NULL };
	struct process leader;
	if (!is_inside())
		skip(); /* no pid namespace can be made here */
	assert_non_null(mkdtemp(folder));
	pid_t first = sitter_launch(folder, command);
	assert_true(process_read(await_leader(folder, 0), &leader));
	sitter_kill(first);
	sitter_kill(leader.pid); /* an orphan now, and ours to reap */
	pid_t other = sleeper_in_place_of(&leader);
	assert_int_equal(recorded_leader(folder), other);

	pid_t second = sitter_launch(folder, command);
	await_leader(folder, other);
	assert_true(is_untouched(other));
	sitter_kill(other);
	sitter_stop(second);
	assert_alone();
	folder_remove(folder);
}

/* --- numbers that come round and round ------------------------------------------------------ */

struct storm {
	char folder[32];
	pid_t sitter, strangers[N_STRANGERS];
	unsigned n_strangers;
	uint64_t since_ns;
};

/* Parent and child end with each other. */
static _Noreturn void be_a_stranger(void) {
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			pause();
		_exit(1);
	}
	waitpid(child, NULL, 0);
	_exit(1);
}

/* Orphans of killed babysitters are ours to reap. A stranger among them was killed. */
static void storm_reap(const struct storm *s) {
	pid_t pid;
	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
		assert_int_not_equal(pid, s->sitter);
		for (unsigned i = 0; i < N_STRANGERS; i++)
			assert_int_not_equal(pid, s->strangers[i]);
	}
}

static void storm_end_stranger(struct storm *s, unsigned i) {
	if (!s->strangers[i])
		return;
	assert_true(is_untouched(s->strangers[i]));
	sitter_kill(s->strangers[i]);
	s->strangers[i] = 0;
}

/* The oldest one makes place. */
static void storm_add_stranger(struct storm *s) {
	unsigned i = s->n_strangers++ % N_STRANGERS;
	storm_end_stranger(s, i);
	s->strangers[i] = fork();
	if (s->strangers[i] == 0)
		be_a_stranger();
	storm_reap(s);
	assert_true(clock_now_ns() - s->since_ns < 10 * RIG_PATIENCE_NS);
}

static int end_at_once(void *nothing) {
	return 0;
}

/* A process that ends at once, in our memory: fork() would copy it. */
static void storm_use_up_a_number(void) {
	static _Alignas(16) char stack[16384];
	pid_t pid = clone(end_at_once, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	if (pid >= FIRST + N_NUMBERS)
		choose_number(FIRST);
}

static unsigned storm_n_starts(const struct storm *s) {
	char path[64];
	struct stat st = { .st_size = 0 };
	snprintf(path, sizeof(path), "%s/starts", s->folder);
	return stat(path, &st) < 0 ? 0 : (unsigned)st.st_size;
}

/* L51. Each start leaves a daemon to be swept, and each babysitter that is killed a group to be found. */
static void no_stranger_dies_where_numbers_come_round(void **state) {
	static const char script[] = "(setsid sleep 1000 &); (: &); printf x >>$0/starts; exit 1";
	struct storm s = { .folder = "/tmp/reuse_XXXXXX", .since_ns = clock_now_ns() };
	const char *const command[] = { "/bin/sh", "-c", script, s.folder, NULL };
	if (!is_inside())
		skip(); /* no pid namespace can be made here */
	assert_non_null(mkdtemp(s.folder));
	s.sitter = sitter_launch(s.folder, command);
	unsigned n_awaited = N_STARTS;
	for (unsigned i = 0; i < N_FORKS || storm_n_starts(&s) < n_awaited; i++) {
		storm_use_up_a_number();
		if (i % STRANGER_EVERY == 0)
			storm_add_stranger(&s);
		if (i % (N_FORKS / 4) == N_FORKS / 8) {
			sitter_kill(s.sitter);
			s.sitter = sitter_launch(s.folder, command);
			n_awaited = storm_n_starts(&s) + N_STARTS;
		}
	}
	sitter_stop(s.sitter);
	for (unsigned i = 0; i < N_STRANGERS; i++)
		storm_end_stranger(&s, i);
	assert_alone();
	folder_remove(s.folder);
}

int main(int argc, char **argv) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_has_the_number_now_is_not_signalled),
		cmocka_unit_test(a_successor_spares_who_has_the_leaders_number),
		cmocka_unit_test(no_stranger_dies_where_numbers_come_round),
	};
	sitter_enter(argc, argv);
	if (!is_inside())
		enter_namespace();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
