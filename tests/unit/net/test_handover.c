#include "unit/net/rig.h"

#include <sys/stat.h>
#include <sys/un.h>

#include "net/handover.h"

enum { N_MANY = 200 };

static bool is_same(int a, int b) {
	struct stat x, y;
	assert_int_equal(fstat(a, &x), 0);
	assert_int_equal(fstat(b, &y), 0);
	return x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

static int lowest_free(void) {
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(fd);
	return fd;
}

static void sockets_arrive_with_their_words(void **state) {
	int lowest = lowest_free(), fds[2];
	uint16_t ports[2];
	int a = rig_listen(&ports[0]), b = rig_listen(&ports[1]);
	const struct handed items[] = { { "data", a }, { "admin", b }, { "data", b } };
	struct handed_list list;
	assert_int_equal(handover_pair(fds), 0);
	assert_int_equal(handover_give(fds[0], items, n_elems(items)), 0);
	assert_int_equal(handover_receive(fds[1], &list), 0);
	assert_int_equal(list.n, 3);
	int first = handed_take(&list, "data"), second = handed_take(&list, "data");
	assert_true(is_same(first, a) && is_same(second, b) && first != a && second != b);
	assert_true(fcntl(first, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(handed_take(&list, "data"), -1);
	assert_int_equal(handed_take(&list, "dat"), -1);
	close(first);
	close(second);
	close(a);

	int client = rig_connect(ports[1]); /* one end is enough for it to listen */
	close(b);
	int admin = handed_take(&list, "admin"), accepted = rig_accept(admin);
	assert_true(accepted >= 0);
	close(accepted);
	close(admin);
	close(client);
	handed_list_free(&list);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(lowest_free(), lowest);
}

static void there_may_be_many(void **state) {
	struct handed items[N_MANY];
	struct handed_list list;
	int fds[2];
	for (unsigned i = 0; i < N_MANY; i++) {
		items[i] = (struct handed){ .fd = STDERR_FILENO };
		snprintf(items[i].what, sizeof(items[i].what), "%015u", i);
	}
	assert_int_equal(handover_pair(fds), 0);
	assert_int_equal(handover_give(fds[0], items, N_MANY), 0);
	assert_int_equal(handover_receive(fds[1], &list), 0);
	assert_int_equal(list.n, N_MANY);
	for (unsigned i = 0; i < N_MANY; i++)
		assert_string_equal(list.items[i].what, items[i].what);
	handed_list_free(&list);
	handed_list_free(&list);
	close(fds[0]);
	close(fds[1]);
}

static void nothing_is_something_too(void **state) {
	struct handed_list list;
	int fds[2];
	assert_int_equal(handover_pair(fds), 0);
	assert_int_equal(handover_give(fds[0], NULL, 0), 0);
	assert_int_equal(handover_receive(fds[1], &list), 0);
	assert_int_equal(list.n, 0);
	handed_list_free(&list);
	close(fds[0]);
	assert_int_equal(handover_receive(fds[1], &list), -EPIPE);
	close(fds[1]);
}

/* Bytes as they come, with one descriptor or none. */
static void send_raw(int channel, struct slice text, int fd) {
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec piece = { (char *)(uintptr_t)text.p, text.n };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	if (fd >= 0) {
		message.msg_control = control.room;
		message.msg_controllen = sizeof(control.room);
		*CMSG_FIRSTHDR(&message) = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS
		};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &fd, sizeof(int));
	}
	assert_true(sendmsg(channel, &message, 0) >= 0);
}

static void what_is_no_handover_is_refused(void **state) {
	static const struct {
		struct slice text;
		int fd;
	} rows[] = {
		{ { "data", 4 }, -1 },
		{ { "data\n", 5 }, -1 },
		{ { "data", 4 }, STDERR_FILENO },
		{ { "\n", 1 }, STDERR_FILENO },
		{ { "data\nadmin\n", 11 }, STDERR_FILENO },
		{ { "0123456789abcdef\n", 17 }, STDERR_FILENO },
	};
	int lowest = lowest_free();
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct handed_list list;
		int fds[2];
		assert_int_equal(handover_pair(fds), 0);
		send_raw(fds[0], rows[i].text, rows[i].fd);
		assert_int_equal(handover_receive(fds[1], &list), -EPROTO);
		assert_null(list.items);
		close(fds[0]);
		close(fds[1]);
		assert_int_equal(lowest_free(), lowest);
	}
}

static void words_go_both_ways(void **state) {
	char word[HANDOVER_WORD_BYTES];
	int fds[2];
	assert_int_equal(handover_pair(fds), 0);
	assert_int_equal(handover_hear(fds[0], word), -EAGAIN);
	assert_int_equal(handover_say(fds[1], "ready"), 0);
	assert_int_equal(handover_say(fds[1], "again"), 0);
	assert_int_equal(handover_say(fds[0], "go"), 0);
	assert_int_equal(handover_hear(fds[0], word), 0);
	assert_string_equal(word, "ready");
	assert_int_equal(handover_hear(fds[0], word), 0);
	assert_string_equal(word, "again");
	close(fds[0]);
	assert_int_equal(handover_hear(fds[1], word), 0); /* what was said before the end is heard */
	assert_string_equal(word, "go");
	assert_int_equal(handover_hear(fds[1], word), -EPIPE);
	assert_int_equal(handover_say(fds[1], "late"), -EPIPE);
	close(fds[1]);
}

static void inherit(const char *value) {
	assert_int_equal(setenv(HANDOVER_VARIABLE, value, 1), 0);
}

static void an_end_is_inherited_by_its_number(void **state) {
	char number[16];
	int fds[2];
	unsetenv(HANDOVER_VARIABLE);
	assert_int_equal(handover_inherited(), -1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	snprintf(number, sizeof(number), "%d", fds[1]);
	inherit(number);
	assert_int_equal(handover_inherited(), fds[1]);
	assert_null(getenv(HANDOVER_VARIABLE));
	assert_true(fcntl(fds[1], F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
	close(fds[0]);
	close(fds[1]);

	const char *const wrong[] = { "", "x", "-1", "2", "100000", "99999999999" };
	for (size_t i = 0; i < n_elems(wrong); i++) {
		inherit(wrong[i]);
		assert_int_equal(handover_inherited(), -EPROTO);
		assert_null(getenv(HANDOVER_VARIABLE));
	}
	uint16_t port;
	int tcp = rig_listen(&port);
	snprintf(number, sizeof(number), "%d", tcp);
	inherit(number);
	assert_int_equal(handover_inherited(), -EPROTO);
	close(tcp);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockets_arrive_with_their_words),
		cmocka_unit_test(there_may_be_many),
		cmocka_unit_test(nothing_is_something_too),
		cmocka_unit_test(what_is_no_handover_is_refused),
		cmocka_unit_test(words_go_both_ways),
		cmocka_unit_test(an_end_is_inherited_by_its_number),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
