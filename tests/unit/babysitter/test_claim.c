/*
 * Babysitters that die at any moment, and what their successors find: the program below
 * is babysitter and engine as well, see main().
 */
#include <poll.h>
#include <sys/prctl.h>

#include "unit/babysitter/sitter.h"

#include "base/rng.h"

enum { N_KILLS = 100, START_US = 30000, NONE_MS = 60000, NOTES_MAX = 4 * N_KILLS };

/* --- predecessors' processes, made by hand --------------------------------------------- */

struct scene {
	struct rig rig;
	struct claim claim;
	char folder[64], path[96];
	int answer; /* -1: none yet */
};

static void scene_on_answer(struct claim *c, bool is_ours) {
	struct scene *s = container_of(c, struct scene, claim);
	assert_int_equal(s->answer, -1); /* one a question */
	s->answer = is_ours;
}

static void scene_open(struct scene *s) {
	*s = (struct scene){ .folder = "/tmp/claim_XXXXXX", .answer = -1 };
	assert_non_null(mkdtemp(s->folder));
	snprintf(s->path, sizeof(s->path), "%s/engine.lock", s->folder);
	rig_open(&s->rig);
	assert_int_equal(claim_open(&s->claim, &s->rig.loop, s->folder, "engine", scene_on_answer), 0);
}

static bool scene_ask(struct scene *s) {
	s->answer = -1;
	claim_ask(&s->claim);
	claim_ask(&s->claim);
	assert_int_equal(s->answer, -1); /* never at once */
	rig_until(&s->rig, s->answer >= 0);
	return s->answer;
}

static void scene_close(struct scene *s) {
	claim_close(&s->claim);
	rig_close(&s->rig);
	folder_remove(s->folder);
}

/* A process that sleeps; `fd` stays open in it, `variable` stands in its environment. Told when it runs. */
static pid_t sleeper(int fd, const char *variable) {
	int ready[2];
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		const char *const env[] = { variable, NULL };
		if (fd >= 0)
			fcntl(fd, F_SETFD, 0);
		execle("/bin/sleep", "sleep", "1000", (char *)NULL, env);
		_exit(127);
	}
	char c;
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 0); /* closed by exec */
	close(ready[0]);
	return pid;
}

static bool is_killed(pid_t pid) {
	int status;
	return waitpid(pid, &status, WNOHANG) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void end(pid_t pid) {
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0); /* it lives */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void an_empty_place_is_ours(void **state) {
	struct scene s;
	scene_open(&s);
	assert_true(scene_ask(&s));
	assert_true(scene_ask(&s)); /* and stays so */
	assert_int_equal(s.claim.n_killed, 0);
	scene_close(&s);
}

static int lock_of(const char *path, int byte) {
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	return fd;
}

static void who_holds_the_lock_is_killed(void **state) {
	struct scene s;
	scene_open(&s);
	int fd = lock_of(s.path, 1);
	pid_t holder = sleeper(fd, NULL);
	close(fd);
	assert_true(scene_ask(&s));
	assert_true(is_killed(holder));
	assert_int_equal(s.claim.n_killed, 1);
	scene_close(&s);
}

/* By somebody who cannot be killed, or not be seen: here ourselves. */
static void the_lock_is_waited_for(void **state) {
	struct scene s;
	scene_open(&s);
	int held = lock_of(s.path, 1);
	claim_ask(&s.claim);
	rig_until(&s.rig, s.claim.has_place);
	rig_spin(&s.rig, 10);
	assert_int_equal(s.answer, -1);
	close(held);
	rig_until(&s.rig, s.answer == 1);
	int fd = open(s.path, O_RDWR | O_CLOEXEC);
	for (int byte = 0; byte < 2; byte++) { /* both are ours now */
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
		assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), -1);
	}
	close(fd);
	scene_close(&s);
}

static void who_merely_reads_the_file_lives(void **state) {
	struct scene s;
	scene_open(&s);
	int fd = open(s.path, O_RDONLY);
	pid_t reader = sleeper(fd, "HEADRACE_SITTER=/elsewhere/engine.lock");
	close(fd);
	assert_true(scene_ask(&s));
	end(reader);
	scene_close(&s);
}

static void who_bears_the_variable_is_killed(void **state) {
	struct scene s;
	char variable[160], other[170];
	scene_open(&s);
	snprintf(variable, sizeof(variable), "HEADRACE_SITTER=%s", s.path);
	snprintf(other, sizeof(other), "%s2", variable);
	pid_t bearer = sleeper(-1, variable), stranger = sleeper(-1, other);
	assert_true(scene_ask(&s));
	assert_true(is_killed(bearer));
	end(stranger);
	scene_close(&s);
}

static void write_record(
    const struct scene *s, pid_t leader, uint64_t start, const char *boot, const char *cgroup) {
	FILE *f = fopen(s->path, "w");
	fprintf(f,
	    "{\"babysitter\": 1, \"leader\": %d, \"start\": %llu, \"boot\": \"%s\", \"cgroup\": \"%s\"}\n",
	    (int)leader, (unsigned long long)start, boot, cgroup);
	fclose(f);
}

static void the_recorded_leader_is_killed_if_it_is_the_same(void **state) {
	struct scene s;
	struct process p;
	char boot[64] = "";
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
	assert_non_null(fgets(boot, sizeof(boot), f));
	fclose(f);
	boot[strcspn(boot, "\n")] = '\0';

	pid_t leader = sleeper(-1, NULL);
	assert_true(process_read(leader, &p));
	scene_open(&s);
	write_record(&s, leader, p.start + 1, boot, ""); /* the number has passed on */
	assert_true(scene_ask(&s));
	scene_close(&s);
	scene_open(&s);
	write_record(&s, leader, p.start, "another-boot", "");
	assert_true(scene_ask(&s));
	scene_close(&s);
	assert_int_equal(waitpid(leader, NULL, WNOHANG), 0);

	scene_open(&s);
	write_record(&s, leader, p.start, boot, "");
	assert_true(scene_ask(&s));
	assert_true(is_killed(leader));
	scene_close(&s);
}

/* Whoever is in it, though nothing else tells that it was a predecessor's. */
static void the_recorded_cgroup_is_killed(void **state) {
	struct scene s;
	struct cgroup g;
	char path[CGROUP_PATH_MAX + 32], number[16];
	scene_open(&s);
	bool can_kill = cgroup_open(&g, "claim-test", s.claim.place_fd);
	snprintf(path, sizeof(path), "%s/cgroup.kill", g.path);
	if (!can_kill || access(path, W_OK) < 0) {
		print_message("no cgroup can be made here, or not be killed\n");
		cgroup_close(&g);
		scene_close(&s);
		skip();
	}
	pid_t member = sleeper(-1, NULL), stranger = sleeper(-1, NULL);
	int n = snprintf(number, sizeof(number), "%d", (int)member);
	assert_int_equal(write(g.procs_fd, number, (size_t)n), n);
	snprintf(path, sizeof(path), "%s", g.path);

	write_record(&s, 0, 0, "another-boot", path);
	assert_true(scene_ask(&s));
	rig_until(&s.rig, is_killed(member));
	end(stranger);
	cgroup_close(&g);
	assert_int_equal(access(path, F_OK), -1);
	scene_close(&s);
}

static void a_torn_record_is_no_record(void **state) {
	static const char *const texts[] = { "{\"leader\": 1", "", "\xff\xfe", "[1, 2]",
		"{\"leader\": \"1\"}" };
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct scene s;
		scene_open(&s);
		FILE *f = fopen(s.path, "w");
		fputs(texts[i], f);
		fclose(f);
		assert_true(scene_ask(&s));
		scene_close(&s);
	}
}

static void a_living_babysitter_is_left_alone(void **state) {
	struct scene s;
	scene_open(&s);
	int place = lock_of(s.path, 0), child = lock_of(s.path, 1);
	pid_t holder = sleeper(child, NULL);
	s.claim.patience_ms = 50;
	assert_false(scene_ask(&s));
	assert_non_null(strstr(s.claim.why, s.path));
	assert_int_equal(waitpid(holder, NULL, WNOHANG), 0);
	close(place); /* it ends, and its child is an orphan */
	close(child);
	assert_true(scene_ask(&s));
	assert_true(is_killed(holder));
	scene_close(&s);
}

/* --- babysitters that are killed -------------------------------------------------------- */

/* One line of the journal: what a process is, and which one. */
static void note(int journal, char what) {
	struct process p;
	if (process_read(getpid(), &p))
		dprintf(journal, "%c %d %llu\n", what, (int)p.pid, (unsigned long long)p.start);
}

/* An engine that owns a port, is deaf to SIGTERM, and has a daemon that closed everything. */
static int engine_main(const char *port, const char *path) {
	struct sockaddr_storage at = rig_loopback((uint16_t)strtoul(port, NULL, 10));
	int journal = open(path, O_WRONLY), fd = socket(AF_INET, SOCK_STREAM, 0);
	signal(SIGTERM, SIG_IGN);
	if (bind(fd, (struct sockaddr *)&at, sizeof(struct sockaddr_in)) < 0 || listen(fd, 1) < 0) {
		note(journal, '2');
		return 1;
	}
	pid_t helper = fork();
	if (helper == 0) {
		if (fork())
			_exit(0);
		setsid();
		note(journal, 'd');
		close_range(0, ~0u, 0); /* the port's socket as well */
		for (;;)
			pause();
	}
	waitpid(helper, NULL, 0);
	note(journal, 'u');
	for (;;)
		pause();
}

struct chaos {
	char folder[64], journal_path[96], port[8];
	int journal; /* a fifo: who waits for a line is woken by it */
	pid_t babysitter;
	struct rng rng;
	unsigned n_notes;
	struct {
		char what;
		pid_t pid;
		uint64_t start;
	} notes[NOTES_MAX];
};

static void chaos_open(struct chaos *c) {
	uint16_t port;
	*c = (struct chaos){ .folder = "/tmp/chaos_XXXXXX" };
	assert_non_null(mkdtemp(c->folder));
	snprintf(c->journal_path, sizeof(c->journal_path), "%s/journal", c->folder);
	assert_int_equal(mkfifo(c->journal_path, 0600), 0);
	c->journal = open(c->journal_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	close(rig_listen(&port));
	snprintf(c->port, sizeof(c->port), "%u", port);
	rng_init(&c->rng, 1);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static void chaos_launch(struct chaos *c) {
	const char *const engine[] = { "/proc/self/exe", "engine", c->port, c->journal_path, NULL };
	c->babysitter = sitter_launch(c->folder, engine);
}

/* Lines come whole: they are shorter than a pipe's unit. */
static void chaos_read(struct chaos *c) {
	char text[4096];
	ssize_t n = read(c->journal, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	for (char *at = text; *at; at++) {
		assert_true(c->n_notes < NOTES_MAX);
		c->notes[c->n_notes].what = at[0];
		c->notes[c->n_notes].pid = (pid_t)strtol(at + 2, &at, 10);
		c->notes[c->n_notes++].start = strtoull(at, &at, 10);
	}
}

static bool chaos_is_live(const struct chaos *c, unsigned i, struct process *out) {
	return process_read(c->notes[i].pid, out) && process_is_live(out) && out->start == c->notes[i].start;
}

/* How many of them there were so far, and how many live. */
static unsigned chaos_count(struct chaos *c, char what, unsigned *n_live_out) {
	struct process p;
	unsigned n = 0;
	*n_live_out = 0;
	chaos_read(c);
	for (unsigned i = 0; i < c->n_notes; i++) {
		n += c->notes[i].what == what;
		*n_live_out += c->notes[i].what == what && chaos_is_live(c, i, &p);
	}
	return n;
}

/* Of this babysitter: one of a former one may come up so late that it is just being killed. */
static bool chaos_has_engine(struct chaos *c) {
	struct process p;
	chaos_read(c);
	for (unsigned i = 0; i < c->n_notes; i++)
		if (c->notes[i].what == 'u' && chaos_is_live(c, i, &p) && p.parent == c->babysitter)
			return true;
	return false;
}

/* Waits for the engine, which is alone. */
static void chaos_await_engine(struct chaos *c) {
	unsigned n_live;
	while (!chaos_has_engine(c)) {
		struct pollfd line = { .fd = c->journal, .events = POLLIN };
		assert_int_equal(poll(&line, 1, NONE_MS), 1); /* never none */
	}
	chaos_count(c, 'u', &n_live);
	assert_int_equal(n_live, 1);
	chaos_count(c, 'd', &n_live);
	assert_true(n_live <= 1);
}

static void chaos_kill(struct chaos *c) {
	sitter_kill(c->babysitter);
	while (waitpid(-1, NULL, WNOHANG) > 0) /* orphans that are dead already */
		;
}

/* L49: never two, never none. The port is the witness, and so are the processes themselves. */
static void a_hundred_babysitters_are_killed(void **state) {
	struct chaos c;
	unsigned n_live;
	chaos_open(&c);
	for (unsigned i = 0; i < N_KILLS; i++) {
		chaos_launch(&c);
		if (i % 2)
			chaos_await_engine(&c);
		else
			usleep((useconds_t)rng_below(&c.rng, START_US)); /* any moment of its start */
		chaos_kill(&c);
	}
	chaos_launch(&c);
	chaos_await_engine(&c);
	assert_true(chaos_count(&c, 'u', &n_live) > N_KILLS / 2);
	assert_int_equal(chaos_count(&c, '2', &n_live), 0);

	sitter_stop(c.babysitter);
	chaos_count(&c, 'u', &n_live);
	assert_int_equal(n_live, 0);
	assert_true(chaos_count(&c, 'd', &n_live) >= N_KILLS / 2);
	assert_int_equal(n_live, 0); /* no stray */
	while (waitpid(-1, NULL, 0) > 0)
		;
	close(c.journal);
	folder_remove(c.folder);
}

int main(int argc, char **argv) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_place_is_ours),
		cmocka_unit_test(who_holds_the_lock_is_killed),
		cmocka_unit_test(the_lock_is_waited_for),
		cmocka_unit_test(who_merely_reads_the_file_lives),
		cmocka_unit_test(who_bears_the_variable_is_killed),
		cmocka_unit_test(the_recorded_leader_is_killed_if_it_is_the_same),
		cmocka_unit_test(the_recorded_cgroup_is_killed),
		cmocka_unit_test(a_torn_record_is_no_record),
		cmocka_unit_test(a_living_babysitter_is_left_alone),
		cmocka_unit_test(a_hundred_babysitters_are_killed),
	};
	sitter_enter(argc, argv);
	if (argc == 4 && strcmp(argv[1], "engine") == 0)
		return engine_main(argv[2], argv[3]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
