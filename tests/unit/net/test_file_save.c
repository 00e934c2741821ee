#include "unit/net/rig.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "net/file_save.h"

/* --- the disk: libc's functions, noting in which order they are called ---------------- */

static struct {
	char steps[16];      /* l: a file is locked, w: flushed, r: renamed, f: a folder is flushed */
	char fails;          /* the step that does */
	char kills;          /* the step in which the process ends */
	char halts;          /* the step in which it says so, and waits for a word */
	int hears[2], go[2]; /* pipes: where it says so; where the word comes, from who has to wait for it */
} disk;

static void disk_halt(void) {
	char word;

	close(disk.go[1]);
	if (write(disk.hears[1], "h", 1) != 1 || read(disk.go[0], &word, 1) != 1)
		_exit(1);
}

static int disk_step(char step) {
	size_t n = strlen(disk.steps);

	assert_true(n + 1 < sizeof(disk.steps));
	disk.steps[n] = step;
	if (disk.kills == step)
		raise(SIGKILL);
	if (disk.halts == step)
		disk_halt();
	errno = EIO;
	return disk.fails == step ? -1 : 0;
}

/* Who has to wait sends the word. */
int flock(int fd, int operation) {
	if (disk_step('l') < 0)
		return -1;
	if (syscall(SYS_flock, fd, operation | LOCK_NB) == 0)
		return 0;
	assert_int_equal(errno, EWOULDBLOCK);
	assert_int_equal(write(disk.go[1], "g", 1), 1);
	return (int)syscall(SYS_flock, fd, operation);
}

int fsync(int fd) {
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return disk_step(S_ISDIR(st.st_mode) ? 'f' : 'w');
}

int rename(const char *from, const char *to) {
	return disk_step('r') < 0 ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* ------------------------------------------------------------------------------------- */

struct scene {
	struct rig rig;
	char folder[64], path[96];
	struct file_save *save;
	unsigned n_done;
	int error;
};

static void on_done(void *context, int error) {
	struct scene *s = context;

	s->n_done++;
	s->error = error;
}

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));

	memset(&disk, 0, sizeof(disk));
	rig_open(&s->rig);
	snprintf(s->folder, sizeof(s->folder), "/tmp/file-save-XXXXXX");
	assert_non_null(mkdtemp(s->folder));
	snprintf(s->path, sizeof(s->path), "%s/table", s->folder);
	s->save = file_save_new(s->path, on_done, s);
	return s;
}

static void scene_close(struct scene *s) {
	file_save_free(&s->save);
	rig_close(&s->rig);
	unlink(s->path);
	assert_int_equal(rmdir(s->folder), 0); /* nothing else was left there */
	free(s);
}

static void start(struct scene *s, const char *text) {
	file_save_start(s->save, &s->rig.loop, strdup(text), strlen(text));
}

static void assert_file(const struct scene *s, const char *text) {
	char found[64] = "";
	FILE *f = fopen(s->path, "r");

	assert_non_null(f);
	assert_int_equal(fread(found, 1, sizeof(found) - 1, f), strlen(text));
	fclose(f);
	assert_string_equal(found, text);
}

static void a_text_takes_the_place_of_the_one_before(void **state) {
	struct scene *s = scene_open();
	struct stat st;

	start(s, "a long first text");
	assert_true(file_save_is_busy(s->save));
	rig_until(&s->rig, s->n_done == 1);
	assert_int_equal(s->error, 0);
	assert_false(file_save_is_busy(s->save));
	assert_file(s, "a long first text");
	assert_int_equal(stat(s->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	start(s, "second");
	rig_until(&s->rig, s->n_done == 2);
	assert_file(s, "second");
	scene_close(s);
}

static void what_cannot_be_written_is_said_and_leaves_the_old_one(void **state) {
	struct scene *s = scene_open();
	char beside[128];

	assert_int_equal(file_save_now(s->path, SLICE("old")), 0);
	snprintf(beside, sizeof(beside), "%s.new", s->path);
	assert_int_equal(mkdir(beside, 0700), 0);
	start(s, "new");
	rig_until(&s->rig, s->n_done == 1);
	assert_int_equal(s->error, -EISDIR);
	assert_file(s, "old");
	assert_int_equal(rmdir(beside), 0);
	assert_int_equal(file_save_now("/no/such/folder/table", SLICE("x")), -ENOENT);
	scene_close(s);
}

/* A power cut leaves the old text or the new one: the new one is safe before its name is. */
static void each_step_waits_for_the_one_before(void **state) {
	struct scene *s = scene_open();

	assert_int_equal(file_save_now(s->path, SLICE("new")), 0);
	assert_string_equal(disk.steps, "lwrf");
	scene_close(s);
}

static void what_the_disk_refuses_is_said(void **state) {
	static const struct {
		char fails;
		const char *steps, *text;
	} rows[] = {
		{ 'l', "l", "old" }, { 'w', "lw", "old" }, { 'r', "lwr", "old" },
		{ 'f', "lwrf", "new" }, /* it may be the one or the other after a power cut */
	};
	struct scene *s = scene_open();
	char beside[128];

	for (size_t i = 0; i < n_elems(rows); i++) {
		memset(&disk, 0, sizeof(disk));
		assert_int_equal(file_save_now(s->path, SLICE("old")), 0);
		memset(&disk, 0, sizeof(disk));
		disk.fails = rows[i].fails;
		assert_int_equal(file_save_now(s->path, SLICE("new")), -EIO);
		assert_string_equal(disk.steps, rows[i].steps);
		assert_file(s, rows[i].text);
	}
	memset(&disk, 0, sizeof(disk));
	snprintf(beside, sizeof(beside), "%s.new", s->path);
	assert_int_equal(symlink("/dev/full", beside), 0);
	assert_int_equal(file_save_now(s->path, SLICE("newer")), -ENOSPC);
	assert_string_equal(disk.steps, "l");
	assert_file(s, "new");
	scene_close(s);
}

/* --- other processes ------------------------------------------------------------------ */

/* One that saves this text, and ends well if it can. */
static pid_t process_that_saves(const struct scene *s, const char *text) {
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(file_save_now(s->path, slice_of(text)) ? 1 : 0);
	return pid;
}

static void what_a_killed_process_left_is_gone_with_the_next_save(void **state) {
	for (const char *step = "wrf"; *step; step++) {
		struct scene *s = scene_open();
		int status;

		disk.kills = *step;
		pid_t pid = process_that_saves(s, "a long text of one that is killed");
		disk.kills = 0;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_int_equal(file_save_now(s->path, SLICE("next")), 0);
		assert_file(s, "next");
		scene_close(s);
	}
}

/* Also when both have begun: the file is the later one's, whole, and both have saved. */
static void of_two_that_save_one_waits(void **state) {
	struct scene *s = scene_open();
	int status;
	char word;

	assert_int_equal(pipe2(disk.hears, O_CLOEXEC), 0);
	assert_int_equal(pipe2(disk.go, O_CLOEXEC), 0);
	disk.halts = 'w';
	pid_t pid = process_that_saves(s, "a long first text");
	disk.halts = 0;
	assert_int_equal(read(disk.hears[0], &word, 1), 1);
	assert_int_equal(file_save_now(s->path, SLICE("second")), 0);
	close(disk.go[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_file(s, "second");
	close(disk.go[0]);
	close(disk.hears[0]);
	close(disk.hears[1]);
	scene_close(s);
}

static void one_that_runs_is_finished_without_its_owner(void **state) {
	struct scene *s = scene_open();

	start(s, "last");
	file_save_free(&s->save);
	assert_null(s->save);
	rig_close(&s->rig); /* waits for it */
	assert_int_equal(s->n_done, 0);
	assert_file(s, "last");
	rig_open(&s->rig);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_takes_the_place_of_the_one_before),
		cmocka_unit_test(what_cannot_be_written_is_said_and_leaves_the_old_one),
		cmocka_unit_test(each_step_waits_for_the_one_before),
		cmocka_unit_test(what_the_disk_refuses_is_said),
		cmocka_unit_test(what_a_killed_process_left_is_gone_with_the_next_save),
		cmocka_unit_test(of_two_that_save_one_waits),
		cmocka_unit_test(one_that_runs_is_finished_without_its_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
