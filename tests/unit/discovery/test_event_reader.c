#include "unit/unit.h"

#include "discovery/event_reader.h"

enum { BYTES_MAX = 64 };

static char heard[4096];

static bool on_event(void *context, struct slice data) {
	size_t n = strlen(heard);

	snprintf(heard + n, sizeof(heard) - n, "<%.*s>", (int)data.n, data.p ? data.p : "");
	return context == NULL;
}

/* In parts of n bytes. */
static bool feed(struct slice text, size_t n, void *context) {
	struct event_reader r;
	bool good = true;

	heard[0] = '\0';
	event_reader_init(&r, BYTES_MAX);
	while (text.n && good) {
		struct slice part = slice_head(text, n);

		good = event_reader_feed(&r, part, on_event, context);
		text = slice_skip(text, part.n);
	}
	event_reader_deinit(&r);
	return good;
}

static void events_are_found_however_they_are_cut(void **state) {
	static const struct {
		struct slice text;
		const char *events;
	} rows[] = {
		{ SLICE("data: a\n\ndata: b\n\n"), "<a><b>" },
		{ SLICE("data:a\r\n\r\ndata:  b\r\r"), "<a>< b>" },
		{ SLICE(": hello\n\nevent: x\nid: 7\ndata: a\nretry: 3\n\n\n\n"), "<a>" },
		{ SLICE("data: {\ndata: }\n\n"), "<{\n}>" },
		{ SLICE("data\n\ndata:\n\ndatax: 1\n\n"), "<><>" },
		{ SLICE("data: not yet\n"), "" },
	};

	for (size_t i = 0; i < n_elems(rows); i++)
		for (size_t n = 1; n <= rows[i].text.n; n++) {
			assert_true(feed(rows[i].text, n, NULL));
			assert_string_equal(heard, rows[i].events);
		}
}

static void what_is_too_large_ends_it(void **state) {
	char text[2 * BYTES_MAX];

	memset(text, 'x', sizeof(text));
	assert_true(feed((struct slice){ text, BYTES_MAX }, 7, NULL));
	assert_false(feed((struct slice){ text, BYTES_MAX + 1 }, 7, NULL));
	/* Nor may many lines do what one may not. */
	for (size_t i = 0; i + 8 <= sizeof(text); i += 8)
		memcpy(text + i, "data: x\n", 8);
	assert_true(feed((struct slice){ text, sizeof(text) }, 7, NULL));
	for (size_t i = 0; i + 16 <= sizeof(text); i += 16)
		memcpy(text + i, "data: 012345678\n", 16);
	assert_false(feed((struct slice){ text, sizeof(text) }, 7, NULL));
}

static void who_has_heard_enough_says_so(void **state) {
	assert_false(feed(SLICE("data: a\n\ndata: b\n\n"), 99, heard));
	assert_string_equal(heard, "<a>");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_are_found_however_they_are_cut),
		cmocka_unit_test(what_is_too_large_ends_it),
		cmocka_unit_test(who_has_heard_enough_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
