#include "unit/unit.h"

#include "base/rng.h"
#include "base/span.h"

typedef const char *(*span_fn)(const char *p, const char *end);
typedef bool (*is_good_fn)(char c);

/* Every byte at every place of runs up to three steps long; what stands behind the end is never good. */
static void assert_span(span_fn span, is_good_fn is_good) {
	char room[64];
	for (size_t n = 0; n <= 48; n++) {
		memset(room, '\0', sizeof(room));
		memset(room, 'x', n);
		assert_ptr_equal(span(room, room + n), room + n);
		for (size_t at = 0; at < n; at++) {
			for (int c = 0; c < 256; c++) {
				room[at] = (char)c;
				assert_ptr_equal(
				    span(room, room + n), is_good((char)c) ? room + n : room + at);
			}
			room[at] = 'x';
		}
	}
}

static void values_end_at_controls(void **state) {
	assert_span(span_value, span_is_value);
	assert_true(span_is_value('\t') && span_is_value(' ') && span_is_value((char)0xff));
	assert_false(span_is_value('\r') || span_is_value('\0') || span_is_value(0x7f));
}

static void plain_text_ends_at_what_json_escapes(void **state) {
	assert_span(span_plain, span_is_plain);
	assert_true(span_is_plain(' ') && span_is_plain('~'));
	assert_false(
	    span_is_plain('"') || span_is_plain('\\') || span_is_plain('\t') || span_is_plain((char)0x80));
}

/* Of several bad bytes the first one counts. */
static void the_first_one_counts(void **state) {
	char room[40];
	struct rng rng;
	rng_init(&rng, 7);
	for (unsigned round = 0; round < 2000; round++) {
		memset(room, 'x', sizeof(room));
		size_t first = sizeof(room);
		for (unsigned i = 0; i < 3; i++) {
			size_t at = rng_below(&rng, sizeof(room));
			room[at] = '\n';
			first = at < first ? at : first;
		}
		assert_ptr_equal(span_value(room, room + sizeof(room)), room + first);
		assert_ptr_equal(span_plain(room, room + sizeof(room)), room + first);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_end_at_controls),
		cmocka_unit_test(plain_text_ends_at_what_json_escapes),
		cmocka_unit_test(the_first_one_counts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
