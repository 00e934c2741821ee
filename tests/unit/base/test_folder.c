#include "unit/unit.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/folder.h"

static char base[] = "/tmp/test_folder.XXXXXX";

static int setup(void **state) {
	return !mkdtemp(base);
}

static int teardown(void **state) {
	static const char *const below[] = { "/a/b c", "/a", "/file", "" };
	char path[128];
	int r = 0;

	for (size_t i = 0; i < n_elems(below); i++) {
		snprintf(path, sizeof(path), "%s%s", base, below[i]);
		r |= remove(path);
	}
	return r;
}

static int make(const char *below) {
	char path[128];

	snprintf(path, sizeof(path), "%s%s", base, below);
	return folder_make(path);
}

static void all_that_is_above_it_is_made(void **state) {
	char path[128];
	struct stat s;

	assert_int_equal(make("/a/b c"), 0);
	snprintf(path, sizeof(path), "%s/a", base);
	assert_int_equal(stat(path, &s), 0);
	assert_int_equal(s.st_mode & 0777, 0700);
	assert_int_equal(make("/a//b c/"), 0);
	assert_int_equal(chmod(path, 0755), 0);
	assert_int_equal(make("/a"), 0);
	assert_int_equal(stat(path, &s), 0);
	assert_int_equal(s.st_mode & 0777, 0755);
}

static void what_is_none_is_refused(void **state) {
	char path[128];

	snprintf(path, sizeof(path), "%s/file", base);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(make("/file"), -ENOTDIR);
	assert_int_equal(make("/file/below"), -ENOTDIR);
	assert_int_equal(folder_make("/proc/nope"), -ENOENT);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_is_above_it_is_made),
		cmocka_unit_test(what_is_none_is_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
