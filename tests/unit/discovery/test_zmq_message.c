#include "unit/discovery/announcement.h"

#include "discovery/zmq_message.h"

static const char *read_one(struct announcement *a, struct zmq_message *m) {
	return zmq_message_read(announcement_end(a), m);
}

static void an_engine_of_p2p_nccl(void **state) {
	struct announcement a;
	struct zmq_message m;

	announcement_begin(&a, "P", 8000);
	assert_null(read_one(&a, &m));
	assert_true(m.is_prefill);
	assert_int_equal(m.mode, ZMQ_MODE_NONE);
	assert_true(slice_eq(m.http_host, SLICE("127.0.0.1")));
	assert_int_equal(m.http_port, 8000);
	assert_true(slice_eq(m.zmq_address, SLICE("127.0.0.1:18000")));
	assert_int_equal(m.tp_size, 0);
	assert_int_equal(m.dp_size, 0);
}

static void an_engine_of_moriio(void **state) {
	static const struct {
		const char *text;
		enum zmq_mode mode;
	} rows[] = { { "READ", ZMQ_MODE_READ }, { "write", ZMQ_MODE_WRITE } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct announcement a;
		struct zmq_message m;

		announcement_begin(&a, "D", 8000);
		announcement_add(&a, "transfer_mode", rows[i].text);
		announcement_number(&a, "tp_size", 8);
		announcement_number(&a, "dp_size", 2);
		assert_null(read_one(&a, &m));
		assert_false(m.is_prefill);
		assert_int_equal(m.mode, rows[i].mode);
		assert_int_equal(m.tp_size, 8);
		assert_int_equal(m.dp_size, 2);
	}
}

/* Members that we do not know may be anything; the last of a name counts; nil says nothing. */
static void what_is_not_known_is_left_alone(void **state) {
	struct announcement a = { .n = 0 };
	struct zmq_message m;

	announcement_key(&a, "roles");
	announcement_raw(&a, SLICE("\x92\x81\x01\x02\xc3"));
	announcement_add(&a, "http_address", "nonsense.example:1");
	announcement_add(&a, "type", "D");
	announcement_add(&a, "http_address", "[::1]:9000");
	announcement_add(&a, "zmq_address", "gpu-1.example:9001");
	announcement_key(&a, "transfer_mode");
	announcement_raw(&a, SLICE("\xc0"));
	assert_null(read_one(&a, &m));
	assert_true(slice_eq(m.http_host, SLICE("::1")));
	assert_int_equal(m.http_port, 9000);
	assert_int_equal(m.mode, ZMQ_MODE_NONE);
}

static void each_mistake_is_said(void **state) {
	static const struct {
		const char *key, *value, *mistake;
	} rows[] = {
		{ "type", "X", "its type" },
		{ "http_address", "127.0.0.1", "its http_address" },
		{ "http_address", "127.0.0.1:0", "its http_address" },
		{ "http_address", "127.0.0.1:65536", "its http_address" },
		{ "http_address", "0.0.0.0:8000", "its http_address" },
		{ "http_address", "[::]:8000", "its http_address" },
		{ "http_address", "http://h:1", "its http_address" },
		{ "http_address", "a b:1", "its http_address" },
		{ "http_address", "", "its http_address" },
		{ "zmq_address", "h", "its zmq_address" },
		{ "zmq_address", "h:1\r\nx-evil: 1", "its zmq_address" },
		{ "transfer_mode", "push", "its transfer_mode" },
		{ "tp_size", "1", "its tp_size" }, /* a text */
		{ "dp_size", "1", "its dp_size" },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct announcement a;
		struct zmq_message m;

		announcement_begin(&a, "P", 8000);
		announcement_add(&a, rows[i].key, rows[i].value);
		const char *mistake = read_one(&a, &m);
		assert_non_null(mistake);
		assert_ptr_equal(strstr(mistake, rows[i].mistake), mistake);
	}
}

static void sizes_have_bounds(void **state) {
	static const struct {
		struct slice value;
		bool is_good;
	} rows[] = { { SLICE("\x00"), false }, { SLICE("\x01"), true }, { SLICE("\xcd\xff\xff"), true },
		{ SLICE("\xce\x00\x01\x00\x00"), false }, { SLICE("\xff"), false } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct announcement a;
		struct zmq_message m;

		announcement_begin(&a, "P", 8000);
		announcement_key(&a, "tp_size");
		announcement_raw(&a, rows[i].value);
		assert_int_equal(read_one(&a, &m) == NULL, rows[i].is_good);
	}
}

static void a_required_member_is_missed(void **state) {
	static const char *const keys[] = { "type", "http_address", "zmq_address" };

	for (size_t without = 0; without < n_elems(keys); without++) {
		struct announcement a = { .n = 0 };
		struct zmq_message m;

		for (size_t i = 0; i < n_elems(keys); i++)
			if (i != without)
				announcement_add(&a, keys[i], i ? "h:1" : "P");
		assert_non_null(strstr(read_one(&a, &m), keys[without]));
	}
}

static void what_is_no_map_of_its_length_is_nothing(void **state) {
	static const struct slice rows[] = { { NULL, 0 }, SLICE("{\"type\":\"P\"}"),
		SLICE("\x93\x01\x02\x03"), SLICE("\xdf\xff\xff\xff\xff"), SLICE("\xc1"), SLICE("\x80") };
	struct announcement a;
	struct zmq_message m;

	for (size_t i = 0; i < n_elems(rows); i++)
		assert_non_null(zmq_message_read(rows[i], &m));
	announcement_begin(&a, "P", 8000);
	struct slice whole = announcement_end(&a);
	for (size_t n = 0; n < whole.n; n++)
		assert_non_null(zmq_message_read(slice_head(whole, n), &m));
	announcement_raw(&a, SLICE("\xc0"));
	assert_non_null(zmq_message_read((struct slice){ a.bytes, a.n }, &m));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_engine_of_p2p_nccl),
		cmocka_unit_test(an_engine_of_moriio),
		cmocka_unit_test(what_is_not_known_is_left_alone),
		cmocka_unit_test(each_mistake_is_said),
		cmocka_unit_test(sizes_have_bounds),
		cmocka_unit_test(a_required_member_is_missed),
		cmocka_unit_test(what_is_no_map_of_its_length_is_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
