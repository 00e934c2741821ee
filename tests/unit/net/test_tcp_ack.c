#include "unit/net/rig.h"

#include "net/tcp_ack.h"

/* A byte back carries the acknowledgement of all that was read before: no need to wait for a bare one. */
static void answer(int near, int far, size_t n) {
	char text[100];
	fcntl(far, F_SETFL, 0);
	fcntl(near, F_SETFL, 0);
	for (size_t k = 0; k < n;) {
		ssize_t part = recv(far, text, sizeof(text), 0);
		assert_true(part > 0);
		k += (size_t)part;
	}
	rig_say(far, SLICE("!"));
	assert_int_equal(recv(near, text, 1, 0), 1);
}

static void what_was_answered_was_acknowledged(void **state) {
	int near, far;
	rig_pair(&far, &near); /* ours is the end that connected, as towards an engine */
	assert_true(tcp_ack_is_none(near, 0));
	rig_say(near, SLICE("0123456789"));
	answer(near, far, 10);
	assert_false(tcp_ack_is_none(near, 0));
	assert_false(tcp_ack_is_none(near, 9));
	assert_true(tcp_ack_is_none(near, 10));

	rig_say(near, SLICE("abcde"));
	answer(near, far, 5);
	assert_false(tcp_ack_is_none(near, 10));
	assert_true(tcp_ack_is_none(near, 15));
	close(near);
	close(far);
}

/* The race of a kept connection: the engine had closed it when the next request was written. */
static void what_met_a_closed_socket_was_not(void **state) {
	char text[1];
	int near, far;
	rig_pair(&far, &near);
	rig_say(near, SLICE("0123456789"));
	answer(near, far, 10);
	close(far);
	assert_int_equal(recv(near, text, 1, 0), 0);
	rig_say(near, SLICE("abcde"));
	assert_true(tcp_ack_is_none(near, 10));
	close(near);
}

static void what_is_not_tcp_proves_nothing(void **state) {
	int ends[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_false(tcp_ack_is_none(ends[0], 0));
	assert_false(tcp_ack_is_none(-1, 0));
	close(ends[0]);
	close(ends[1]);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_answered_was_acknowledged),
		cmocka_unit_test(what_met_a_closed_socket_was_not),
		cmocka_unit_test(what_is_not_tcp_proves_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
