#include "unit/net/zmq_ear.h"

#include "net/zmq_outbox.h"

static void one_message_waits_for_the_peer(void **state) {
	struct zmq_outbox b = { NULL, NULL };
	struct zmq_ear ear;
	int fd = zmq_ear_open(&ear);

	assert_int_equal(zmq_outbox_open(&b, ear.address, "engine"), 0);
	assert_true(zmq_outbox_send(&b, SLICE("first")));
	assert_false(zmq_outbox_send(&b, SLICE("second")));
	zmq_ear_listen(&ear, fd);
	rig_until(&ear.rig, ear.n == 1);
	assert_true(slice_eq(zmq_ear_heard(&ear), SLICE("first")));
	while (ear.n < 3) {
		(void)zmq_outbox_send(&b, SLICE("more"));
		rig_turn(&ear.rig, "messages of a connection");
	}
	assert_true(slice_eq(zmq_ear_heard(&ear), SLICE("more")));
	zmq_outbox_close(&b);
	zmq_ear_close(&ear);
}

static void nobody_need_be_there(void **state) {
	struct zmq_outbox b = { NULL, NULL };
	struct zmq_ear ear;

	close(zmq_ear_open(&ear));
	assert_int_equal(zmq_outbox_open(&b, ear.address, "engine"), 0);
	assert_true(zmq_outbox_send(&b, SLICE("first")));
	zmq_outbox_close(&b);
	zmq_outbox_close(&b);
	zmq_ear_close(&ear);
}

static void what_is_no_address_is_refused(void **state) {
	struct zmq_outbox b = { NULL, NULL };
	char address[1024];

	memset(address, 'x', sizeof(address) - 1);
	address[sizeof(address) - 1] = '\0';
	assert_int_equal(zmq_outbox_open(&b, address, "engine"), -ENAMETOOLONG);
	assert_int_equal(zmq_outbox_open(&b, "127.0.0.1:port", "engine"), -EINVAL);
	assert_int_equal(zmq_outbox_open(&b, "127.0.0.1:1", ""), -EINVAL);
	zmq_outbox_close(&b);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_message_waits_for_the_peer),
		cmocka_unit_test(nobody_need_be_there),
		cmocka_unit_test(what_is_no_address_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
