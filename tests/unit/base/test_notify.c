#include "unit/unit.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/notify.h"

/* A manager's socket; name is as $NOTIFY_SOCKET has it. */
static int listen_at(const char *name) {
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	size_t n = strlen(name);

	memcpy(at.sun_path, name, n);
	if (name[0] == '@')
		at.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	assert_int_equal(
	    bind(fd, (struct sockaddr *)&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void assert_told(const char *name, const char *state) {
	char heard[64] = "";
	int fd = listen_at(name);

	assert_int_equal(notify_manager(state), 0);
	assert_int_equal(recv(fd, heard, sizeof(heard) - 1, 0), strlen(state));
	assert_string_equal(heard, state);
	close(fd);
}

static void it_speaks_to_a_path(void **state) {
	char path[] = "/tmp/test_notify_XXXXXX";
	char name[64];

	assert_non_null(mkdtemp(path));
	snprintf(name, sizeof(name), "%s/socket", path);
	assert_told(name, "READY=1");
	unlink(name);
	rmdir(path);
}

static void it_speaks_to_an_abstract_name(void **state) {
	char name[64];

	snprintf(name, sizeof(name), "@headrace-test-notify-%d", (int)getpid());
	assert_told(name, "STOPPING=1");
}

static void nobody_wants_to_know(void **state) {
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(notify_manager("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(notify_manager("READY=1"), 0);
}

static void what_is_wrong_is_said(void **state) {
	char long_name[200];

	memset(long_name, 'x', sizeof(long_name));
	long_name[0] = '/';
	long_name[sizeof(long_name) - 1] = '\0';
	setenv("NOTIFY_SOCKET", long_name, 1);
	assert_int_equal(notify_manager("READY=1"), -ENAMETOOLONG);
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_int_equal(notify_manager("READY=1"), -EAFNOSUPPORT);
	setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
	assert_int_equal(notify_manager("READY=1"), -ENOENT);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_speaks_to_a_path),
		cmocka_unit_test(it_speaks_to_an_abstract_name),
		cmocka_unit_test(nobody_wants_to_know),
		cmocka_unit_test(what_is_wrong_is_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
