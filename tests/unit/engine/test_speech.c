#include "unit/unit.h"

#include "engine/bytes.h"
#include "engine/speech.h"

#define WATER "\xe6\xb0\xb4" /* one character */

static void say(const struct speech *s, uint32_t n_tokens, struct bytes *text) {
	struct speech_cursor cursor = { 0 };
	struct slice token;
	bytes_init(text, 1 << 20);
	while (cursor.n_tokens < n_tokens && speech_next(s, &cursor, &token)) {
		assert_true(token.n > 0);
		bytes_add(text, token);
	}
	assert_int_equal(cursor.n_bytes, text->n);
}

static void words_follow_the_seed(void **state) {
	struct speech a = { .seed = 1 }, b = { .seed = 2 };
	struct bytes one, two, other;
	size_t n_spaces = 0;
	say(&a, 50, &one);
	say(&a, 50, &two);
	say(&b, 50, &other);
	assert_true(slice_eq(bytes_slice(&one), bytes_slice(&two)));
	assert_false(slice_eq(bytes_slice(&one), bytes_slice(&other)));
	assert_true(one.p[0] != ' ');
	for (size_t i = 0; i < one.n; i++)
		n_spaces += one.p[i] == ' ';
	assert_int_equal(n_spaces, 49);
	bytes_deinit(&one);
	bytes_deinit(&two);
	bytes_deinit(&other);
}

static void an_echo_is_whole_and_cut_between_characters(void **state) {
	static const char *const texts[] = {
		"hello",
		"two words",
		"  spaces  all  over ",
		"a-word-that-is-much-longer-than-a-token-may-be-and-goes-on",
		(WATER WATER WATER WATER WATER WATER WATER WATER WATER WATER WATER WATER),
	};
	for (size_t i = 0; i < n_elems(texts); i++) {
		struct speech s = { .echo = slice_of(texts[i]) };
		struct speech_cursor cursor = { 0 };
		struct slice token;
		struct bytes text = { .n_max = 1000 };
		while (speech_next(&s, &cursor, &token)) {
			json_t *valid = json_stringn(token.p, token.n);
			assert_non_null(valid);
			json_decref(valid);
			assert_in_range(token.n, 1, 35);
			bytes_add(&text, token);
		}
		assert_true(slice_eq(bytes_slice(&text), s.echo));
		bytes_deinit(&text);
	}
}

static void nothing_to_echo_is_no_token(void **state) {
	struct speech s = { .echo = SLICE("") };
	uint32_t n_tokens;
	size_t n_bytes;
	assert_int_equal(speech_measure(&s, 10, NULL, 0, &n_tokens, &n_bytes), -1);
	assert_int_equal(n_tokens, 0);
	assert_int_equal(n_bytes, 0);
}

static void stop_strings_end_it(void **state) {
	static const struct {
		const char *echo;
		const char *stops[2];
		uint32_t n_tokens_max;
		int stop;
		uint32_t n_tokens;
		size_t n_bytes;
	} rows[] = {
		{ "one two three four", { "x", "y" }, 10, -1, 4, 18 },
		{ "one two three four", { "two", "y" }, 10, 0, 2, 4 },
		{ "one two three four", { "three", "two" }, 10, 1, 2, 4 },
		{ "one two three four", { "o thr", "y" }, 10, 0, 3, 6 }, /* across tokens */
		{ "one two three four", { "one", "on" }, 10, 0, 1, 0 },
		{ "one two three four", { "four", "y" }, 3, -1, 3, 18 }, /* too late */
		{ "one two three four", { "r", "four" }, 10, 0, 3, 10 },
		{ "a b c d e f g h i j", { "b c d e f g h i j", "zz" }, 20, 0, 10, 2 },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct speech s = { .echo = slice_of(rows[i].echo) };
		struct slice stops[] = { slice_of(rows[i].stops[0]), slice_of(rows[i].stops[1]) };
		uint32_t n_tokens;
		size_t n_bytes;
		assert_int_equal(
		    speech_measure(&s, rows[i].n_tokens_max, stops, 2, &n_tokens, &n_bytes), rows[i].stop);
		assert_int_equal(n_tokens, rows[i].n_tokens);
		assert_int_equal(n_bytes, rows[i].n_bytes);
	}
}

static void words_stop_where_their_text_says(void **state) {
	struct speech s = { .seed = 3 };
	struct bytes text;
	uint32_t n_tokens;
	size_t n_bytes;
	say(&s, 30, &text);
	assert_int_equal(speech_measure(&s, 30, NULL, 0, &n_tokens, &n_bytes), -1);
	assert_int_equal(n_tokens, 30);
	assert_int_equal(n_bytes, SIZE_MAX);

	struct slice stop = { text.p + text.n / 2, 9 };
	size_t first = (size_t)((char *)memmem(text.p, text.n, stop.p, stop.n) - text.p);
	assert_int_equal(speech_measure(&s, 30, &stop, 1, &n_tokens, &n_bytes), 0);
	assert_int_equal(n_bytes, first);
	assert_true(n_tokens < 30);
	bytes_deinit(&text);
}

static void a_place_is_found_by_what_was_said(void **state) {
	struct speech s = { .seed = 3 }, echo = { .echo = SLICE("one two") };
	struct speech_cursor cursor = { 0 };
	struct bytes text;
	struct slice next;
	say(&s, 5, &text);
	assert_true(speech_seek(&s, SLICE(""), &cursor));
	assert_int_equal(cursor.n_tokens, 0);
	assert_true(speech_seek(&s, bytes_slice(&text), &cursor));
	assert_int_equal(cursor.n_tokens, 5);
	assert_int_equal(cursor.n_bytes, text.n);
	assert_false(speech_seek(&s, slice_head(bytes_slice(&text), text.n - 1), &cursor)); /* half a word */
	assert_false(speech_seek(&s, SLICE("Something"), &cursor));
	assert_true(speech_seek(&echo, SLICE("one"), &cursor));
	assert_true(speech_next(&echo, &cursor, &next) && slice_eq(next, SLICE(" two")));
	assert_false(speech_seek(&echo, SLICE("one two three"), &cursor));
	assert_true(speech_has_word(SLICE("river")));
	assert_false(speech_has_word(SLICE("rive")));
	assert_false(speech_has_word(SLICE("")));
	bytes_deinit(&text);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_follow_the_seed),
		cmocka_unit_test(an_echo_is_whole_and_cut_between_characters),
		cmocka_unit_test(nothing_to_echo_is_no_token),
		cmocka_unit_test(stop_strings_end_it),
		cmocka_unit_test(words_stop_where_their_text_says),
		cmocka_unit_test(a_place_is_found_by_what_was_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
