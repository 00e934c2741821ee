/* What two engines are told of each other, to the letter. */
#include "unit/unit.h"

#include "router/split_wire.h"

#define HEX  "0123456789abcdeffedcba9876543210"
#define UUID "01234567-89ab-cdef-fedc-ba9876543210"
#define ID   "___prefill_addr_p:8000___decode_addr_d:8000_" HEX

static struct split_wire wire;
static struct split_end prefill, decode;
static struct split_secret secret;

static int setup(void **state) {
	prefill = (struct split_end){ .authority = SLICE("p:8000"), .host = SLICE("p") };
	decode = (struct split_end){ .authority = SLICE("d:8000"), .host = SLICE("d") };
	secret = (struct split_secret){ { 0x0123456789abcdef, 0xfedcba9876543210 } };
	return 0;
}

static bool make(enum connector connector, const struct split_push *push) {
	return split_wire_make(&wire, connector, &prefill, &decode, &secret, push, 0, NULL);
}

static void assert_text(struct slice text, const char *expected) {
	if (!slice_eq(text, slice_of(expected)))
		fail_msg("\"%.*s\"\nis not\n\"%s\"", (int)text.n, text.p, expected);
}

/* --- NIXL ----------------------------------------------------------------------------------------- */

static void nixl_takes_the_prefills_answer(void **state) {
	assert_true(make(CONNECTOR_NIXL, NULL));
	assert_text(wire.id, ID);
	assert_text(wire.prefill_params,
	    "{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_engine_id\":null,"
	    "\"remote_block_ids\":null,\"remote_host\":null,\"remote_port\":null}");
	assert_text(wire.decode_params, "");
	assert_text(wire.decode_lead, "");
	assert_true(wire.takes_answer);
	assert_false(wire.is_concurrent);
}

static void nixl_that_pushes_is_known_before(void **state) {
	struct split_push push = { SLICE("\"e-1\""), SLICE("\"10.0.0.1\""), SLICE("5600"), SLICE("8") };

	assert_true(make(CONNECTOR_NIXL, &push));
	assert_text(wire.decode_params,
	    "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_engine_id\":\"e-1\","
	    "\"remote_host\":\"10.0.0.1\",\"remote_port\":5600,\"tp_size\":8,"
	    "\"remote_request_id\":\"" ID "\"}");
	assert_false(wire.takes_answer);
	assert_true(wire.is_concurrent);
}

/* --- Mooncake ------------------------------------------------------------------------------------- */

static void mooncake_names_engine_and_bootstrap_server(void **state) {
	prefill.engine = SLICE("engine-7");
	assert_true(make(CONNECTOR_MOONCAKE, NULL));
	assert_text(wire.id, ID);
	assert_text(wire.prefill_params,
	    "{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"transfer_id\":\"xfer-" UUID "\"}");
	assert_text(wire.decode_params,
	    "{\"do_remote_decode\":false,\"do_remote_prefill\":true,\"transfer_id\":\"xfer-" UUID "\","
	    "\"remote_bootstrap_addr\":\"http://p:8998\",\"remote_engine_id\":\"engine-7\"}");
	assert_false(wire.takes_answer || wire.is_concurrent);
}

static void mooncake_at_another_address(void **state) {
	prefill.engine = SLICE("e");
	prefill.host = SLICE("fd00::1");
	prefill.kv.bootstrap_port = 9001;
	assert_true(make(CONNECTOR_MOONCAKE, NULL));
	assert_text(wire.decode_params,
	    "{\"do_remote_decode\":false,\"do_remote_prefill\":true,\"transfer_id\":\"xfer-" UUID "\","
	    "\"remote_bootstrap_addr\":\"http://[fd00::1]:9001\",\"remote_engine_id\":\"e\"}");
}

static void mooncake_without_an_engine_cannot_be_told(void **state) {
	assert_false(make(CONNECTOR_MOONCAKE, NULL));
}

/* --- MoRIIO --------------------------------------------------------------------------------------- */

#define NULLS "\"remote_engine_id\":null,\"remote_block_ids\":null,\"transfer_id\":\"tx-" HEX "\","

static void moriio_reads_what_the_prefill_answers(void **state) {
	prefill.kv.tp_size = decode.kv.tp_size = 4;
	assert_true(make(CONNECTOR_MORIIO, NULL));
	assert_text(wire.prefill_params,
	    "{\"do_remote_decode\":true,\"do_remote_prefill\":false," NULLS "\"remote_dp_size\":1}");
	assert_text(wire.decode_params, "");
	assert_text(wire.decode_lead, "{\"remote_dp_size\":1,");
	assert_true(wire.takes_answer);
	assert_false(wire.is_concurrent);
}

static void moriio_writes_and_says_how_large_the_other_one_is(void **state) {
	prefill.kv = (struct kv_traits){ .mode = KV_MODE_WRITE, .tp_size = 2 };
	decode.kv = (struct kv_traits){ .mode = KV_MODE_WRITE, .tp_size = 8, .dp_size = 4 };
	decode.rank = 3;
	assert_true(make(CONNECTOR_MORIIO, NULL));
	assert_text(wire.prefill_params,
	    "{\"do_remote_decode\":true,\"do_remote_prefill\":false," NULLS
	    "\"remote_dp_size\":4,\"remote_tp_size\":8,\"remote_dp_rank\":3}");
	assert_text(wire.decode_params,
	    "{\"do_remote_prefill\":true,\"do_remote_decode\":false," NULLS
	    "\"remote_dp_size\":1,\"remote_tp_size\":2}");
	assert_true(wire.is_concurrent);
	assert_false(wire.takes_answer);
}

/* --- P2P NCCL ------------------------------------------------------------------------------------- */

static void p2p_has_all_in_the_id(void **state) {
	prefill.kv.zmq_address = SLICE("10.0.0.1:14579");
	decode.kv.zmq_address = SLICE("10.0.0.2:14580");
	assert_true(make(CONNECTOR_P2P_NCCL, NULL));
	assert_text(wire.id, "___prefill_addr_10.0.0.1:14579___decode_addr_10.0.0.2:14580_" HEX);
	assert_text(wire.prefill_params, "");
	assert_text(wire.decode_params, "");
	assert_false(wire.takes_answer || wire.is_concurrent);
}

static void what_does_not_fit_cannot_be_told(void **state) {
	static char name[SPLIT_WIRE_BYTES];
	size_t rest = SPLIT_WIRE_BYTES - 1 - strlen(ID) + strlen("p:8000");

	memset(name, 'a', sizeof(name));
	prefill.authority = (struct slice){ name, rest };
	assert_true(make(CONNECTOR_P2P_NCCL, NULL));
	assert_int_equal(wire.id.n, SPLIT_WIRE_BYTES - 1);
	prefill.authority.n++;
	assert_false(make(CONNECTOR_P2P_NCCL, NULL));
	assert_false(
	    make(CONNECTOR_NIXL, &(struct split_push){ SLICE("1"), SLICE("2"), SLICE("3"), SLICE("4") }));
}

/* --- SGLang --------------------------------------------------------------------------------------- */

static void sglang_meets_in_a_room(void **state) {
	prefill.kv.bootstrap_port = 8998;
	assert_true(make(CONNECTOR_SGLANG, NULL));
	assert_text(wire.id, "");
	assert_text(wire.bootstrap.host, "\"p\"");
	assert_text(wire.bootstrap.port, "8998");
	assert_text(wire.bootstrap.room, "81985529216486895");
	assert_true(wire.is_concurrent);
	assert_false(wire.takes_answer);
}

static void sglang_without_a_port_and_in_the_last_room(void **state) {
	secret.words[0] = UINT64_MAX;
	assert_true(make(CONNECTOR_SGLANG, NULL));
	assert_text(wire.bootstrap.port, "null");
	assert_text(wire.bootstrap.room, "9223372036854775807");
}

static void sglang_has_a_room_for_each_prompt(void **state) {
	char room[256];

	assert_true(split_wire_batch_bytes(&prefill, 3) <= sizeof(room));
	prefill.kv.bootstrap_port = 1;
	secret.words[0] = INT64_MAX - 1; /* what would be beyond the last room is the first */
	assert_true(split_wire_make(&wire, CONNECTOR_SGLANG, &prefill, &decode, &secret, NULL, 3, room));
	assert_text(wire.bootstrap.host, "[\"p\",\"p\",\"p\"]");
	assert_text(wire.bootstrap.port, "[1,1,1]");
	assert_text(wire.bootstrap.room, "[9223372036854775806,9223372036854775807,0]");
}

/* What was promised suffices for the longest texts. */
static void lists_are_as_long_as_they_may_be(void **state) {
	size_t n = split_wire_batch_bytes(&prefill, SPLIT_BATCH_MAX);
	char *room = malloc(n);

	prefill.kv.bootstrap_port = 65535;
	secret.words[0] = UINT64_C(9000000000000000000);
	assert_true(split_wire_make(
	    &wire, CONNECTOR_SGLANG, &prefill, &decode, &secret, NULL, SPLIT_BATCH_MAX, room));
	assert_true(wire.bootstrap.host.n + wire.bootstrap.port.n + wire.bootstrap.room.n <= n);
	assert_false(split_wire_make(
	    &wire, CONNECTOR_SGLANG, &prefill, &decode, &secret, NULL, SPLIT_BATCH_MAX + 1, room));
	free(room);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nixl_takes_the_prefills_answer, setup),
		cmocka_unit_test_setup(nixl_that_pushes_is_known_before, setup),
		cmocka_unit_test_setup(mooncake_names_engine_and_bootstrap_server, setup),
		cmocka_unit_test_setup(mooncake_at_another_address, setup),
		cmocka_unit_test_setup(mooncake_without_an_engine_cannot_be_told, setup),
		cmocka_unit_test_setup(moriio_reads_what_the_prefill_answers, setup),
		cmocka_unit_test_setup(moriio_writes_and_says_how_large_the_other_one_is, setup),
		cmocka_unit_test_setup(p2p_has_all_in_the_id, setup),
		cmocka_unit_test_setup(what_does_not_fit_cannot_be_told, setup),
		cmocka_unit_test_setup(sglang_meets_in_a_room, setup),
		cmocka_unit_test_setup(sglang_without_a_port_and_in_the_last_room, setup),
		cmocka_unit_test_setup(sglang_has_a_room_for_each_prompt, setup),
		cmocka_unit_test_setup(lists_are_as_long_as_they_may_be, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
