/* What it says is read by what reads it in the router. */
#include "unit/net/zmq_ear.h"

#include "discovery/zmq_message.h"
#include "engine/announcer.h"

#define HTTP "10.0.0.1:8000"

struct scene {
	struct zmq_ear ear;
	struct announcer announcer;
	struct zmq_message message; /* the last one, which points into the ear */
};

static void scene_open(struct scene *s, const struct announcement *said, int outcome) {
	*s = (struct scene){ .announcer.loop = NULL };
	zmq_ear_listen(&s->ear, zmq_ear_open(&s->ear));
	assert_int_equal(announcer_open(&s->announcer, &s->ear.rig.loop, s->ear.address, said), outcome);
}

static void scene_close(struct scene *s) {
	announcer_close(&s->announcer);
	announcer_close(&s->announcer);
	zmq_ear_close(&s->ear);
}

/* The nth message, which says that. */
static void scene_hear(struct scene *s, unsigned n, const struct announcement *said) {
	rig_until(&s->ear.rig, s->ear.n == n);
	assert_null(zmq_message_read(zmq_ear_heard(&s->ear), &s->message));
	assert_true(slice_eq(s->message.http_host, SLICE("10.0.0.1")));
	assert_int_equal(s->message.http_port, 8000);
	assert_int_equal(s->message.is_prefill, said->is_prefill);
	assert_true(slice_eq(s->message.zmq_address, slice_of(said->zmq_address)));
}

static void an_engine_of_p2p_nccl(void **state) {
	const struct announcement said = { true, HTTP, "10.0.0.1:9000", NULL, 2, 2 };
	struct scene s;

	scene_open(&s, &said, 0);
	scene_hear(&s, 1, &said);
	assert_int_equal(s.message.mode, ZMQ_MODE_NONE);
	assert_int_equal(s.message.dp_size, 0);
	scene_hear(&s, 2, &said);
	scene_close(&s);
}

static void an_engine_of_moriio(void **state) {
	const struct announcement said = { false, HTTP, "[::1]:9000", "WRITE", 8, 65535 };
	struct scene s;

	scene_open(&s, &said, 0);
	scene_hear(&s, 1, &said);
	assert_int_equal(s.message.mode, ZMQ_MODE_WRITE);
	assert_int_equal(s.message.tp_size, 8);
	assert_int_equal(s.message.dp_size, 65535);
	scene_close(&s);
}

static void what_is_too_long_is_not_said(void **state) {
	char address[ANNOUNCER_BYTES_MAX];
	const struct announcement said = { true, HTTP, address, NULL, 1, 1 };
	struct scene s;

	memset(address, 'x', sizeof(address) - 1);
	address[sizeof(address) - 1] = '\0';
	scene_open(&s, &said, -EMSGSIZE);
	scene_close(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_engine_of_p2p_nccl),
		cmocka_unit_test(an_engine_of_moriio),
		cmocka_unit_test(what_is_too_long_is_not_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
