#include "unit/unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/log_writer.h"
#include "net/rotate.h"

static char folder[] = "/tmp/rotate_XXXXXX", path[64];

static int folder_make(void **state) {
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/log", folder);
	return 0;
}

static int folder_empty(void **state) {
	DIR *d = opendir(folder);
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR * (e->d_type == DT_DIR));
	return closedir(d);
}

static int folder_remove(void **state) {
	return rmdir(folder);
}

static void put(const char *text) {
	FILE *f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
}

/* The first line of path.i; "" when there is none. */
static const char *get(unsigned i) {
	static char line[100], name[80];
	line[0] = '\0';
	snprintf(name, sizeof(name), i ? "%s.%u" : "%s", path, i);
	FILE *f = fopen(name, "r");
	if (f && !fgets(line, sizeof(line), f))
		line[0] = '\0';
	if (f)
		fclose(f);
	return line;
}

static void the_oldest_goes(void **state) {
	for (unsigned i = 1; i <= 5; i++) {
		char text[2] = { (char)('0' + i), '\0' };
		put(text);
		assert_true(rotate_files(path, 3));
	}
	assert_string_equal(get(0), "");
	assert_string_equal(get(1), "5");
	assert_string_equal(get(2), "4");
	assert_string_equal(get(3), "3");
	assert_string_equal(get(4), "");
}

static void none_is_kept(void **state) {
	put("1");
	assert_true(rotate_files(path, 0));
	assert_string_equal(get(0), "");
	assert_string_equal(get(1), "");
	assert_true(rotate_files(path, 0)); /* nothing to do */
}

static void what_is_in_the_way_is_told(void **state) {
	char name[80];
	put("1");
	snprintf(name, sizeof(name), "%s.1", path);
	assert_int_equal(mkdir(name, 0700), 0);
	assert_false(rotate_files(path, 1));
	assert_int_equal(errno, EISDIR);
	assert_string_equal(get(0), "1");
}

/* Ten thousand numbered lines through a writer that rotates: none is lost or cut, files stay small. */
static void a_writer_rotates_between_lines(void **state) {
	enum { N = 40000, MAX = 20000, KEEP = 99 };
	struct log_writer *w = log_writer_new(path, 1);
	struct log_ring *r = log_writer_ring(w, 0);
	log_writer_rotate(w, MAX, KEEP);
	for (unsigned i = 0; i < N; i++) {
		char line[40];
		int n = snprintf(line, sizeof(line), "line %u ends here\n", i);
		while (!log_ring_put(r, (struct slice){ line, (size_t)n }))
			sched_yield();
		if (i % 1000 == 0) /* batches of all sizes */
			while (atomic_load(&r->taken) != atomic_load(&r->written))
				sched_yield();
	}
	log_writer_free(&w);

	unsigned n_files = 0, next = 0;
	while (n_files < KEEP && get(n_files + 1)[0])
		n_files++;
	assert_true(n_files >= 3);
	for (unsigned i = n_files + 1; i-- > 0;) {
		char name[80], line[100];
		struct stat st;
		snprintf(name, sizeof(name), i ? "%s.%u" : "%s", path, i);
		FILE *f = fopen(name, "r");
		assert_non_null(f);
		assert_int_equal(fstat(fileno(f), &st), 0);
		assert_true(st.st_size <= (off_t)(MAX + LOG_RING_BYTES));
		while (fgets(line, sizeof(line), f)) {
			char expected[40];
			snprintf(expected, sizeof(expected), "line %u ends here\n", next++);
			assert_string_equal(line, expected);
		}
		fclose(f);
	}
	assert_int_equal(next, N);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(the_oldest_goes, folder_empty),
		cmocka_unit_test_teardown(none_is_kept, folder_empty),
		cmocka_unit_test_teardown(what_is_in_the_way_is_told, folder_empty),
		cmocka_unit_test_teardown(a_writer_rotates_between_lines, folder_empty),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
