#include "unit/router/held.h"

#include "router/event.h"

static void assert_ends(const char *text, size_t expected) {
	for (size_t cut = 0; cut <= strlen(text); cut++) { /* in one piece, and in two */
		uint8_t line = 0;
		size_t first = event_end(&line, slice_head(slice_of(text), cut));
		if (first) {
			assert_int_equal(first, expected);
			continue;
		}
		size_t second = event_end(&line, slice_skip(slice_of(text), cut));
		assert_int_equal(second ? cut + second : 0, expected);
	}
}

static void ends_of_events(void **state) {
	assert_ends("data: a\n\ndata: b\n\n", 9);
	assert_ends("data: a\r\n\r\ndata: b\r\n\r\n", 11);
	assert_ends("data: a\r\n\nx", 10);
	assert_ends("a\nb\n\n", 5);
	assert_ends("data: a\n", 0);
	assert_ends("data: a\n\r", 0);
	assert_ends("\n", 1);
	assert_ends("\r\n", 2);
	assert_ends("", 0);
}

static void the_one_data_field(void **state) {
	static const struct {
		const char *event, *data; /* NULL: it has several */
	} cases[] = {
		{ "data: a b \n\n", "a b" },
		{ "data:a\r\n\r\n", "a" },
		{ "event: x\ndata: a\nid: 1\n\n", "a" },
		{ ": comment\n\n", "" },
		{ "data:\n\n", "" },
		{ "data: a\ndata: b\n\n", NULL },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct slice data;

		assert_int_equal(event_data(slice_of(cases[i].event), &data), cases[i].data != NULL);
		if (cases[i].data)
			assert_true(slice_eq(data, slice_of(cases[i].data)));
	}
}

/* What is cut of these pieces, each event with a bar behind it; what has not ended behind all. */
static const char *cut_all(struct event_cutter *c, struct slice pieces[2]) {
	static char out[200];
	struct slice event;
	size_t n = 0;

	for (int i = 0; i < 2; i++)
		while (event_cut(c, &pool, false, &pieces[i], &event) == 0)
			n += (size_t)snprintf(out + n, sizeof(out) - n, "%.*s|", (int)event.n, event.p);
	event = event_part(c);
	snprintf(out + n, sizeof(out) - n, "%.*s", (int)event.n, event.n ? event.p : "");
	return out;
}

static void events_are_whole_wherever_they_are_cut(void **state) {
	static const char stream[] = "data: a\n\n: b\r\n\r\ndata: c\ndata: d\n\nda";
	struct event_cutter c = { .part = NULL };

	for (size_t at = 0; at < sizeof(stream); at++) {
		struct slice pieces[2] = { { stream, at }, { stream + at, sizeof(stream) - 1 - at } };
		assert_string_equal(cut_all(&c, pieces), "data: a\n\n|: b\r\n\r\n|data: c\ndata: d\n\n|da");
		event_cutter_clear(&c, &pool);
	}
}

/* It stays with who asked, so that it can go on as it came. */
static void what_has_no_room_is_left(void **state) {
	struct event_cutter c = { .part = NULL };
	static char large[EVENT_BYTES_MAX];
	struct slice text = { "data: ", 6 }, event;

	memset(large, 'x', sizeof(large));
	assert_int_equal(event_cut(&c, &pool, false, &text, &event), EVENT_MORE);
	text = (struct slice){ large, sizeof(large) };
	assert_int_equal(event_cut(&c, &pool, true, &text, &event), EVENT_LARGE);
	assert_int_equal(text.n, sizeof(large));
	assert_true(slice_eq(event_part(&c), SLICE("data: ")));
	text = (struct slice){ large, sizeof(large) - 6 };
	assert_int_equal(event_cut(&c, &pool, false, &text, &event), EVENT_MORE);
	assert_int_equal(event_part(&c).n, EVENT_BYTES_MAX);
	event_cutter_clear(&c, &pool);
	buf_pool_report(&pool);
	budget.max_bytes = budget.used_bytes;
	text = SLICE("data: ");
	assert_int_equal(event_cut(&c, &pool, false, &text, &event), EVENT_LARGE);
	assert_int_equal(event_cut(&c, &pool, true, &text, &event), EVENT_MORE);
	event_cutter_clear(&c, &pool);
}

/* More than a buf has room for, in pieces, up to what is asked for. */
static void events_are_as_large_as_asked_for(void **state) {
	enum { N = 1 << 20 };
	struct event_cutter c = { .bytes_max = N };
	static char large[N + 1];
	struct slice event, text;

	memset(large, 'x', N - 2);
	memcpy(large + N - 2, "\n\n", 2);
	for (size_t at = 0; at < N; at += N / 8) {
		text = (struct slice){ large + at, N / 8 };
		assert_int_equal(event_cut(&c, &pool, false, &text, &event), at + N / 8 < N ? EVENT_MORE : 0);
	}
	assert_true(slice_eq(event, (struct slice){ large, N }));
	event_cutter_clear(&c, &pool);
	text = (struct slice){ large, N - 2 };
	assert_int_equal(event_cut(&c, &pool, false, &text, &event), EVENT_MORE);
	text = SLICE("xxx");
	assert_int_equal(event_cut(&c, &pool, false, &text, &event), EVENT_LARGE);
	event_cutter_clear(&c, &pool);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_of_events),
		cmocka_unit_test(the_one_data_field),
		cmocka_unit_test(events_are_whole_wherever_they_are_cut),
		cmocka_unit_test(events_are_as_large_as_asked_for),
		cmocka_unit_test(what_has_no_room_is_left),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
