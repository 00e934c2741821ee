#include "unit/unit.h"

#include "fleet/privacy.h"
#include "fleet/traits.h"
#include "router/own_field.h"

#define WORD_64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define WORD_256 WORD_64 WORD_64 WORD_64 WORD_64

/* The head of a request with these lines, as it is read: the first cause ends it. */
static enum cause read_lines(struct own_fields *own, const char *lines, struct slice *unknown_out) {
	static char text[1000];
	static struct head_room room;
	enum cause cause;
	int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", lines);
	assert_int_equal(head_parse_request(&room, (struct slice){ text, (size_t)n }, &cause), 0);
	const struct head *head = &room.head;
	cause = CAUSE_NONE;
	*own = OWN_FIELDS_NONE;
	*unknown_out = own_field_unknown(head);
	for (const struct field *f = head->fields; !cause && f < head->fields + head->n_fields; f++)
		if (own_field_is_ours(head_name(head, f)))
			cause = own_field_read(own, head_name(head, f), slice_trim(head_value(head, f)));
	return cause;
}

static struct own_fields said(const char *lines) {
	struct own_fields own;
	struct slice unknown;
	assert_int_equal(read_lines(&own, lines, &unknown), CAUSE_NONE);
	assert_null(unknown.p);
	return own;
}

static void nothing_is_said(void **state) {
	struct own_fields own = said("a: b\r\nx-headrac-privacy: secret\r\nx-headrace-: c\r\n");
	assert_true(own.class == 4 && !own.privacy && !own.given);
	assert_true(!own.origin_zone && !own.accelerator && !own.wait_ms && !own.deadline_ms);
}

static void what_they_say_is_read(void **state) {
	struct own_fields own =
	    said("X-Headrace-Privacy: Confidential\r\nx-headrace-origin-zone: a-1\r\n"
		 "x-headrace-cost-tolerance: 100\r\nx-headrace-deadline-ms: 4294967295\r\n"
		 "x-headrace-accelerator: h100\r\nx-headrace-priority: low\r\nx-headrace-wait: 2s\r\n"
		 "X-Worker-Priority: 4294967295\r\nx-max-cost: 0.5\r\n");
	assert_int_equal(own.priority_min, UINT32_MAX);
	assert_true(own.cost_max == 0.5);
	assert_int_equal(own.privacy, PRIVACY_CONFIDENTIAL);
	assert_true(own.origin_zone == traits_word(SLICE("a-1")));
	assert_true(own.accelerator == traits_word(SLICE("h100")));
	assert_int_equal(own.cost_tolerance, 100);
	assert_true(own.deadline_ms == UINT32_MAX);
	assert_int_equal(own.class, 6);
	assert_int_equal(own.wait_ms, 2000);
	assert_int_equal(own.given, (1u << OWN_FIELDS) - 1);
	own = said("x-headrace-cost-tolerance: 0\r\n");
	assert_int_equal(own.given, 1u << OWN_FIELD_COST_TOLERANCE);
	assert_int_equal(own.cost_tolerance, 0);
	assert_true(said("x-headrace-wait: true\r\n").wait_ms == UINT64_MAX);
	assert_true(
	    said("x-headrace-origin-zone: " WORD_256 "\r\n").origin_zone == traits_word(SLICE(WORD_256)));
}

static void a_class_has_a_name_or_a_number(void **state) {
	static const struct {
		const char *line;
		uint8_t class;
	} cases[] = {
		{ "x-headrace-priority: High\r\n", 2 },
		{ "x-headrace-priority: normal\r\n", 4 },
		{ "x-headrace-priority: low\r\n", 6 },
		{ "x-headrace-priority: 0\r\n", 0 },
		{ "x-headrace-priority: 7\r\n", 7 },
	};
	for (size_t i = 0; i < n_elems(cases); i++)
		assert_int_equal(said(cases[i].line).class, cases[i].class);
}

static void bad_ones_are_refused(void **state) {
	static const char *const fields[] = { "x-headrace-privacy: secret",
		"x-headrace-privacy:", "x-headrace-privacy: public\r\nx-headrace-privacy: public",
		"x-headrace-cost-tolerance: 101", "x-headrace-cost-tolerance: -1",
		"x-headrace-cost-tolerance: 1.5", "x-headrace-cost-tolerance:", "x-headrace-deadline-ms: 0",
		"x-worker-priority:", "x-worker-priority: 4294967296", "x-worker-priority: -1",
		"x-worker-priority: high", "x-max-cost:", "x-max-cost: -1", "x-max-cost: 1e3",
		"x-max-cost: 1000000001", "x-headrace-accelerator:", "x-headrace-accelerator: h100;prefer",
		"x-headrace-deadline-ms: 4294967296", "x-headrace-deadline-ms: 1s",
		"x-headrace-origin-zone:", "x-headrace-origin-zone: " WORD_256 "z", "x-headrace-priority: 8",
		"x-headrace-priority: -1", "x-headrace-priority: urgent",
		"x-headrace-priority: 1\r\nx-headrace-priority: 1", "x-headrace-wait: 5",
		"x-headrace-wait: 0s", "x-headrace-wait: false", "x-headrace-wait:" };
	char line[400];
	struct own_fields own;
	struct slice unknown;
	for (size_t i = 0; i < n_elems(fields); i++) {
		snprintf(line, sizeof(line), "%s\r\n", fields[i]);
		assert_int_equal(read_lines(&own, line, &unknown), CAUSE_BAD_HEADER);
		assert_true(own.privacy < PRIVACY_LEVELS);
		assert_null(unknown.p);
	}
}

/* A misspelt one would lower what the client asked for, without a word. */
static void unknown_ones_are_refused(void **state) {
	static const char *const unknown[] = { "x-headrace-privcy", "X-Headrace-Privacy2", "x-headrace-a" };
	char line[200];
	struct own_fields own;
	struct slice name;
	for (size_t i = 0; i < n_elems(unknown); i++) {
		snprintf(line, sizeof(line),
		    "a: b\r\nx-headrace-wait: 1s\r\n%s: public\r\nx-headrace-z: 1\r\n", unknown[i]);
		assert_int_equal(read_lines(&own, line, &name), CAUSE_UNKNOWN_HEADER);
		assert_true(slice_eq(name, slice_of(unknown[i])));
	}
}

/* What a router in front said in its answer, sent on by whoever copies. */
static void those_of_answers_are_passed_over(void **state) {
	static const struct slice names[] = { { "X-Headrace-Instance", 19 }, { "x-headrace-reason", 17 },
		{ "x-headrace-attempts", 19 }, { "x-headrace-cache-hit", 20 },
		{ "x-headrace-decision", 19 } };
	static const struct slice others[] = { { "x-headrace-", 11 }, { "x-headrace-wait", 15 },
		{ "x-headrace-reasons", 18 }, { "reason", 6 }, { "y-headrace-reason", 17 }, { "", 0 } };
	for (size_t i = 0; i < n_elems(names); i++)
		assert_true(own_field_is_of_answers(names[i]));
	for (size_t i = 0; i < n_elems(others); i++)
		assert_false(own_field_is_of_answers(others[i]));
	assert_int_equal(
	    said("X-Headrace-Instance: a\r\nx-headrace-reason: b\r\nx-headrace-attempts: 1\r\n"
		 "x-headrace-cache-hit: 0\r\nx-headrace-decision: 0-1\r\nx-headrace-reason: c\r\n")
		.given,
	    0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_said),
		cmocka_unit_test(what_they_say_is_read),
		cmocka_unit_test(a_class_has_a_name_or_a_number),
		cmocka_unit_test(bad_ones_are_refused),
		cmocka_unit_test(unknown_ones_are_refused),
		cmocka_unit_test(those_of_answers_are_passed_over),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
