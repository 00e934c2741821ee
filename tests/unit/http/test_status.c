#include "unit/unit.h"

#include "base/cause.h"
#include "base/slice.h"
#include "http/status.h"

static void known_ones_have_their_phrase(void **state) {
	static const struct {
		unsigned status;
		const char *reason;
	} rows[] = {
		{ 100, "Continue" },
		{ 200, "OK" },
		{ 204, "No Content" },
		{ 304, "Not Modified" },
		{ 404, "Not Found" },
		{ 413, "Content Too Large" },
		{ 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" },
		{ 505, "HTTP Version Not Supported" },
	};
	for (size_t i = 0; i < n_elems(rows); i++)
		assert_true(slice_eq(status_reason(rows[i].status), slice_of(rows[i].reason)));
}

static void others_have_none(void **state) {
	static const unsigned rows[] = { 0, 99, 199, 299, 418, 499, 599, 999 };
	for (size_t i = 0; i < n_elems(rows); i++)
		assert_int_equal(status_reason(rows[i]).n, 0);
}

static void what_we_answer_has_one(void **state) {
	for (unsigned i = 1; i < N_CAUSES; i++) {
		unsigned status = cause_row((enum cause)i)->status;
		assert_int_equal(status_reason(status).n > 0, status != 499); /* which is never sent */
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_ones_have_their_phrase),
		cmocka_unit_test(others_have_none),
		cmocka_unit_test(what_we_answer_has_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
