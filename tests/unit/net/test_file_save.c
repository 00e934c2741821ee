#include "unit/net/rig.h"

#include <sys/stat.h>
#include <sys/syscall.h>

#include "net/file_save.h"

/* --- the disk: libc's functions, noting in which order they are called ---------------- */

static struct {
	char steps[16]; /* w: a file is flushed, r: renamed, f: a folder is flushed */
	char fails;     /* the step that does */
} disk;

static int disk_step(char step) {
	size_t n = strlen(disk.steps);

	assert_true(n + 1 < sizeof(disk.steps));
	disk.steps[n] = step;
	errno = EIO;
	return disk.fails == step ? -1 : 0;
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
	snprintf(beside, sizeof(beside), "%s.%d.new", s->path, (int)getpid());
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
	assert_string_equal(disk.steps, "wrf");
	scene_close(s);
}

static void what_the_disk_refuses_is_said(void **state) {
	static const struct {
		char fails;
		const char *steps, *text;
	} rows[] = {
		{ 'w', "w", "old" }, { 'r', "wr", "old" },
		{ 'f', "wrf", "new" }, /* it may be the one or the other after a power cut */
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
	snprintf(beside, sizeof(beside), "%s.%d.new", s->path, (int)getpid());
	assert_int_equal(symlink("/dev/full", beside), 0);
	assert_int_equal(file_save_now(s->path, SLICE("newer")), -ENOSPC);
	assert_string_equal(disk.steps, "");
	assert_file(s, "new");
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
		cmocka_unit_test(one_that_runs_is_finished_without_its_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
