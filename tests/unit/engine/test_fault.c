#include "unit/unit.h"

#include "engine/fault.h"

static struct fault_plan parsed(const char *text) {
	struct fault_plan plan;
	char message[FAULT_TEXT_BYTES];
	if (!fault_plan_parse(slice_of(text), &plan, message))
		fail_msg("%s: %s", text, message);
	return plan;
}

static struct fault armed(const char *text) {
	struct fault_plan plan = parsed(text);
	struct fault f = { .seed = 7 };
	fault_arm(&f, &plan);
	return f;
}

static void every_fault_can_be_read_and_printed(void **state) {
	static const struct {
		const char *text, *printed;
	} rows[] = {
		{ "", "none" },
		{ "none", "none" },
		{ "hang_head", "hang_head" },
		{ "hang_stream:7", "hang_stream:7" },
		{ "reset:0", "reset:0" },
		{ "garbage", "garbage" },
		{ "status:503", "status:503" },
		{ "latency:250ms", "latency:250ms" },
		{ "latency:2s", "latency:2000ms" },
		{ "fail_first:3", "fail_first:3" },
		{ "fail_rate:0.1", "fail_rate:0.100000" },
		{ "fail_rate:1", "fail_rate:1.000000" },
		{ "crash", "crash" },
		{ "health:ok", "health:ok" },
		{ "health:fail", "health:fail" },
		{ " status:503 ,\tfail_first:2", "status:503,fail_first:2" },
		{ "fail_rate:0.000001,latency:1h,hang_head",
		    "hang_head,latency:3600000ms,fail_rate:0.000001" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct fault_plan plan = parsed(rows[i].text), again;
		char text[FAULT_TEXT_BYTES];
		assert_string_equal(fault_plan_print(&plan, text), rows[i].printed);
		again = parsed(text);
		assert_true(fault_plan_is_equal(&plan, &again));
	}
}

static void what_is_wrong_is_said_and_changes_nothing(void **state) {
	static const char *const wrong[][2] = {
		{ "hang", "\"hang\" is no fault" },
		{ "hang_head,", "\"\" is no fault" },
		{ "Crash", "\"Crash\" is no fault" },
		{ "crash:1", "\"crash:1\" takes no value" },
		{ "crash,crash", "\"crash\" stands there twice" },
		{ "status", "\"status\": status needs 400 to 599" },
		{ "status:", "\"status:\": status needs 400 to 599" },
		{ "status:399", "\"status:399\": status needs 400 to 599" },
		{ "status:600", "\"status:600\": status needs 400 to 599" },
		{ "reset:-1", "\"reset:-1\": reset needs a number of events" },
		{ "reset:1x", "\"reset:1x\": reset needs a number of events" },
		{ "reset:1000001", "\"reset:1000001\": reset needs a number of events" },
		{ "fail_rate:1.1", "\"fail_rate:1.1\": fail_rate needs 0 to 1 with at most six places" },
		{ "fail_rate:.5", "\"fail_rate:.5\": fail_rate needs 0 to 1 with at most six places" },
		{ "fail_rate:0.", "\"fail_rate:0.\": fail_rate needs 0 to 1 with at most six places" },
		{ "fail_rate:0.1234567",
		    "\"fail_rate:0.1234567\": fail_rate needs 0 to 1 with at most six places" },
		{ "latency:250", "\"latency:250\": latency needs a duration up to 1h, such as 250ms" },
		{ "latency:2h", "\"latency:2h\": latency needs a duration up to 1h, such as 250ms" },
		{ "health:sick", "\"health:sick\": health needs ok or fail" },
		{ "\xff\n", "\"??\" is no fault" },
	};
	for (size_t i = 0; i < n_elems(wrong); i++) {
		struct fault_plan plan = parsed("reset:9"), before = plan;
		char message[FAULT_TEXT_BYTES];
		assert_false(fault_plan_parse(slice_of(wrong[i][0]), &plan, message));
		assert_string_equal(message, wrong[i][1]);
		assert_true(fault_plan_is_equal(&plan, &before));
	}
}

static void one_failure_is_chosen(void **state) {
	static const struct {
		const char *text;
		enum fault_kind kind;
		uint32_t n_events, status;
	} rows[] = {
		{ "", FAULT_NONE, 0, 0 },
		{ "health:fail", FAULT_NONE, 0, 0 },
		{ "status:503", FAULT_STATUS, 0, 503 },
		{ "status:503,crash", FAULT_CRASH, 0, 503 },
		{ "hang_stream:3", FAULT_HANG_STREAM, 3, 0 },
		{ "hang_stream:3,reset:2", FAULT_RESET, 2, 0 },
		{ "hang_stream:2,reset:3", FAULT_HANG_STREAM, 2, 0 },
		{ "hang_stream:2,reset:3,hang_head", FAULT_HANG_HEAD, 0, 0 },
		{ "garbage,status:500", FAULT_GARBAGE, 0, 500 },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct fault f = armed(rows[i].text);
		struct fault_verdict v = fault_judge(&f);
		assert_int_equal(v.kind, rows[i].kind);
		assert_int_equal(v.n_events, rows[i].n_events);
		assert_int_equal(v.status, rows[i].status);
	}
}

static void gates_choose_the_requests(void **state) {
	struct fault f = armed("fail_first:2,reset:4,latency:5ms");
	for (int i = 0; i < 5; i++) {
		struct fault_verdict v = fault_judge(&f);
		assert_int_equal(v.kind, i < 2 ? FAULT_RESET : FAULT_NONE);
		assert_int_equal(v.latency_ms, 5); /* not gated */
	}
	struct fault_plan plan = f.plan;
	fault_arm(&f, &plan); /* anew */
	assert_int_equal(fault_judge(&f).kind, FAULT_RESET);

	f = armed("fail_first:1");
	struct fault_verdict v = fault_judge(&f);
	assert_int_equal(v.kind, FAULT_STATUS);
	assert_int_equal(v.status, 500);
	assert_int_equal(fault_judge(&f).kind, FAULT_NONE);
}

static void a_rate_is_met_and_repeats_with_its_seed(void **state) {
	struct fault f = armed("fail_rate:0.25,status:503"), again = f;
	int n = 0;
	for (int i = 0; i < 10000; i++) {
		bool failed = fault_judge(&f).kind == FAULT_STATUS;
		assert_int_equal(fault_judge(&again).kind == FAULT_STATUS, failed);
		n += failed;
	}
	assert_in_range(n, 2300, 2700);

	f = armed("fail_rate:0");
	again = armed("fail_rate:1");
	for (int i = 0; i < 100; i++) {
		assert_int_equal(fault_judge(&f).kind, FAULT_NONE);
		assert_int_equal(fault_judge(&again).kind, FAULT_STATUS);
	}
}

static void health_is_good_unless_said(void **state) {
	struct fault_plan none = parsed("reset:1"), ok = parsed("health:ok"), sick = parsed("health:fail");
	assert_true(fault_plan_is_healthy(&none));
	assert_true(fault_plan_is_healthy(&ok));
	assert_false(fault_plan_is_healthy(&sick));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_fault_can_be_read_and_printed),
		cmocka_unit_test(what_is_wrong_is_said_and_changes_nothing),
		cmocka_unit_test(one_failure_is_chosen),
		cmocka_unit_test(gates_choose_the_requests),
		cmocka_unit_test(a_rate_is_met_and_repeats_with_its_seed),
		cmocka_unit_test(health_is_good_unless_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
