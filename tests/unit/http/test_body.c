#include "unit/unit.h"

#include "unit/http/chunk_oracle.h"

static void assert_judged(struct slice text) {
	const char *wrong = chunk_judge(text);
	if (wrong)
		fail_msg("%s: %.*s", wrong, (int)text.n, text.p);
}

/* --- plain bodies --------------------------------------------------------------------- */

static void no_body_is_complete_at_once(void **state) {
	static const struct {
		enum framing framing;
		uint64_t length;
	} rows[] = { { FRAMING_NONE, 0 }, { FRAMING_NONE, 5 }, { FRAMING_LENGTH, 0 } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct slice in = SLICE("next"), out;
		struct body b;
		body_init(&b, rows[i].framing, rows[i].length);
		assert_true(body_is_complete(&b));
		assert_int_equal(body_next(&b, &in, &out), BODY_END);
		assert_int_equal(in.n, 4);
	}
}

static void a_length_is_counted(void **state) {
	struct slice in = SLICE("abcdef"), out;
	struct body b;
	body_init(&b, FRAMING_LENGTH, 8);
	assert_int_equal(body_next(&b, &in, &out), BODY_DATA);
	assert_true(slice_eq(out, SLICE("abcdef")));
	assert_int_equal(body_next(&b, &in, &out), BODY_MORE);
	assert_false(body_is_complete(&b));
	in = SLICE("ghNEXT");
	assert_int_equal(body_next(&b, &in, &out), BODY_DATA);
	assert_true(slice_eq(out, SLICE("gh")));
	assert_int_equal(body_next(&b, &in, &out), BODY_END);
	assert_true(slice_eq(in, SLICE("NEXT")));
	assert_true(body_is_complete(&b));
	assert_int_equal(b.data_bytes, 8);
}

static void without_a_length_all_is_data(void **state) {
	struct slice out;
	struct body b;
	body_init(&b, FRAMING_CLOSE, 0);
	for (unsigned i = 0; i < 3; i++) {
		struct slice in = SLICE("0\r\n\r\n");
		assert_int_equal(body_next(&b, &in, &out), BODY_DATA);
		assert_int_equal(out.n, 5);
		assert_int_equal(body_next(&b, &in, &out), BODY_MORE);
		assert_false(body_is_complete(&b));
	}
}

/* --- chunks --------------------------------------------------------------------------- */

static void chunks(void **state) {
	static const struct {
		const char *text;
		enum chunk_verdict verdict;
		const char *data;
	} rows[] = {
		{ "", CHUNK_MORE, "" },
		{ "0\r\n\r\n", CHUNK_END, "" },
		{ "0\r\n\r\nGET /", CHUNK_END, "" },
		{ "3\r\nabc\r\n0\r\n\r\n", CHUNK_END, "abc" },
		{ "03\r\nabc\r\n000\r\n\r\n", CHUNK_END, "abc" },
		{ "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", CHUNK_END, "01234567890123456789" },
		{ "1;x\r\na\r\n1 ;y=\"z\"\r\nb\r\n1\t;\r\nc\r\n0;last\r\n\r\n", CHUNK_END, "abc" },
		{ "1\r\na\r\n0\r\nx: y\r\nz: 1\r\n\r\n", CHUNK_END, "a" },
		{ "2\r\n\r\n\r\n0\r\n\r\n", CHUNK_END, "\r\n" },
		{ "3\r\nab", CHUNK_MORE, "ab" },
		{ "0\r\n", CHUNK_MORE, "" },
		{ "0\r\nx: y\r\n", CHUNK_MORE, "" },
		{ "\r\n", CHUNK_BAD, NULL },
		{ "x\r\n", CHUNK_BAD, NULL },
		{ "-1\r\n", CHUNK_BAD, NULL },
		{ "+1\r\na\r\n", CHUNK_BAD, NULL },
		{ "0x1\r\na\r\n", CHUNK_BAD, NULL },
		{ "1_0\r\n", CHUNK_BAD, NULL },
		{ " 1\r\na\r\n", CHUNK_BAD, NULL },
		{ "1 \r\na\r\n", CHUNK_BAD, NULL },
		{ "1 2\r\na\r\n", CHUNK_BAD, NULL },
		{ "1\na\r\n", CHUNK_BAD, NULL },
		{ "1\r\na\n", CHUNK_BAD, NULL },
		{ "1\r\nab\r\n", CHUNK_BAD, NULL },
		{ "1\r\na0\r\n\r\n", CHUNK_BAD, NULL },
		{ "1;a\x01\r\n", CHUNK_BAD, NULL },
		{ "1;a\n", CHUNK_BAD, NULL },
		{ "1;a\rb\r\n", CHUNK_BAD, NULL },
		{ "0\r\n\n", CHUNK_BAD, NULL },
		{ "0\r\nx: y\n\r\n", CHUNK_BAD, NULL },
		{ "0\r\nx: \ry\r\n\r\n", CHUNK_BAD, NULL },
		{ "0\r\n\rx", CHUNK_BAD, NULL },
		{ "00000000000000001\r\na", CHUNK_BAD, NULL },
		{ "0000000000000001\r\na\r\n0\r\n\r\n", CHUNK_END, "a" },
		{ "fffffffffffffff\r\na", CHUNK_MORE, "a" },
		{ "1000000000000000\r\na", CHUNK_BAD, NULL },
		{ "ffffffffffffffff\r\na", CHUNK_BAD, NULL },
		{ "10000000000000003\r\nabc\r\n0\r\n\r\n", CHUNK_BAD, NULL },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct slice text = slice_of(rows[i].text);
		struct chunk_text out;
		assert_judged(text);
		chunk_decode(text, text.n + 1, &out);
		if (out.verdict != rows[i].verdict)
			fail_msg("%d, not %d: %s", (int)out.verdict, (int)rows[i].verdict, rows[i].text);
		if (rows[i].data)
			assert_true(slice_eq((struct slice){ out.data, out.data_n }, slice_of(rows[i].data)));
	}
}

static void a_trailer_comes_out_as_it_is(void **state) {
	static const struct {
		const char *text, *trailer;
	} rows[] = {
		{ "1\r\na\r\n0\r\n\r\n", "\r\n" },
		{ "1\r\na\r\n0\r\nx: y\r\nz:\r\n\r\n", "x: y\r\nz:\r\n\r\n" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		for (size_t step = 1; step < 30; step++) {
			struct chunk_text out;
			chunk_decode(slice_of(rows[i].text), step, &out);
			assert_int_equal(out.verdict, CHUNK_END);
			assert_true(slice_eq(
			    (struct slice){ out.trailer, out.trailer_n }, slice_of(rows[i].trailer)));
		}
	}
}

/* What was bad stays bad, and what is complete takes nothing more. */
static void a_verdict_is_final(void **state) {
	struct slice in = SLICE("x"), out;
	struct body b;
	body_init(&b, FRAMING_CHUNKED, 0);
	assert_int_equal(body_next(&b, &in, &out), BODY_BAD);
	in = SLICE("0\r\n\r\n");
	assert_int_equal(body_next(&b, &in, &out), BODY_BAD);
	assert_false(body_is_complete(&b));
	body_init(&b, FRAMING_CHUNKED, 0);
	assert_int_equal(body_next(&b, &in, &out), BODY_TRAILER);
	in = SLICE("0\r\n\r\n");
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(body_next(&b, &in, &out), BODY_END);
	assert_int_equal(in.n, 5);
}

static void a_chunk_line_may_have_256_bytes(void **state) {
	for (size_t n = BODY_CHUNK_LINE_MAX - 1; n <= BODY_CHUNK_LINE_MAX + 1; n++) {
		struct chunk_text out;
		char text[BODY_CHUNK_LINE_MAX + 20];
		memset(text, 'x', sizeof(text));
		memcpy(text, "1;", 2);
		memcpy(text + n - 2, "\r\na\r\n0\r\n\r\n", 10);
		struct slice s = { text, n + 8 };
		assert_judged(s);
		chunk_decode(s, s.n, &out);
		assert_int_equal(out.verdict, n <= BODY_CHUNK_LINE_MAX ? CHUNK_END : CHUNK_BAD);
	}
}

/* Feeds `text` until the decoder has enough, `n_max` times at most; how often it took it. */
static size_t feed_often(struct body *b, struct slice text, size_t n_max) {
	for (size_t n = 0; n < n_max; n++) {
		struct slice in = text, out;
		enum body_outcome outcome;
		do
			outcome = body_next(b, &in, &out);
		while (outcome == BODY_DATA || outcome == BODY_TRAILER);
		if (outcome == BODY_BAD)
			return n;
	}
	return n_max;
}

/* Framing is bounded in proportion to the data: no endless extensions, but as many small chunks as one likes.
 */
static void framing_must_not_outweigh_data(void **state) {
	char text[220];
	struct body b;
	body_init(&b, FRAMING_CHUNKED, 0);
	assert_int_equal(feed_often(&b, SLICE("1\r\nx\r\n"), 200000), 200000);

	memset(text, 'x', sizeof(text));
	memcpy(text, "1;", 2);
	memcpy(text + sizeof(text) - 5, "\r\na\r\n", 5);
	body_init(&b, FRAMING_CHUNKED, 0);
	size_t n = feed_often(&b, (struct slice){ text, sizeof(text) }, 100000);
	assert_in_range(n * (sizeof(text) - 1), 16384 - 300, 16384 + 8 * n + 300);
}

static void a_trailer_section_is_bounded(void **state) {
	for (size_t n = BODY_TRAILER_MAX - 1; n <= BODY_TRAILER_MAX + 1; n++) {
		for (size_t step = 1; step <= 20000; step += 19999) {
			char *text = malloc(n + 3);
			memset(text, 'x', n + 3);
			memcpy(text, "0\r\n", 3);
			memcpy(text + n - 1, "\r\n\r\n", 4);
			struct slice rest = { text, n + 3 };
			enum body_outcome outcome = BODY_MORE;
			struct body b;
			body_init(&b, FRAMING_CHUNKED, 0);
			while (rest.n && outcome != BODY_BAD) {
				struct slice in = slice_head(rest, step), out;
				rest = slice_skip(rest, in.n);
				while ((outcome = body_next(&b, &in, &out)) == BODY_TRAILER)
					;
			}
			assert_int_equal(outcome, n <= BODY_TRAILER_MAX ? BODY_END : BODY_BAD);
			free(text);
		}
	}
	struct body b;
	body_init(&b, FRAMING_CHUNKED, 0);
	assert_int_equal(feed_often(&b, SLICE("0\r\n"), 1), 1);
	assert_int_equal(feed_often(&b, SLICE("a: b\r\n"), 1000000), BODY_TRAILER_MAX / 6);
}

/* --- at random ------------------------------------------------------------------------ */

static size_t random_chunks(struct rng *rng, char *text) {
	static const char *const extensions[] = { "", "", "", ";a=b", " ;x", "\t ; \"q\" " };
	size_t n = 0;
	for (uint64_t k = rng_below(rng, 6); k > 0; k--) {
		size_t size = 1 + rng_below(rng, rng_below(rng, 3) ? 20 : 300);
		const char *extension = extensions[rng_below(rng, n_elems(extensions))];
		n += (size_t)(rng_below(rng, 2) ? snprintf(text + n, 60, "%zx%s\r\n", size, extension)
						: snprintf(text + n, 60, "%04zX%s\r\n", size, extension));
		for (size_t i = 0; i < size; i++)
			text[n++] = "ab\r\n0;"[rng_below(rng, 6)];
		memcpy(text + n, "\r\n", 2);
		n += 2;
	}
	return n +
	    (size_t)snprintf(text + n, 60, "%s\r\n%s\r\n", rng_below(rng, 2) ? "0" : "000;z",
		rng_below(rng, 3) ? "" : "t: u\r\n");
}

static void random_texts_have_one_verdict(void **state) {
	static const char bytes[] = "\r\n\r\n\r\n01af;; \t\x01x-\x80\x7f";
	struct rng rng;
	unsigned n_verdicts[3] = { 0 };
	rng_init(&rng, 1);
	for (unsigned round = 0; round < 6000; round++) {
		struct chunk_text out;
		char text[CHUNK_TEXT_MAX];
		size_t n = random_chunks(&rng, text);
		for (uint64_t k = rng_below(&rng, 3); k > 0; k--) {
			size_t at = rng_below(&rng, n);
			switch (rng_below(&rng, 4)) {
			case 0:
				text[at] = bytes[rng_below(&rng, sizeof(bytes) - 1)];
				break;
			case 1:
				memmove(text + at, text + at + 1, --n - at);
				break;
			case 2:
				memmove(text + at + 1, text + at, n++ - at);
				break;
			default:
				n = at;
			}
			if (n == 0)
				break;
		}
		assert_judged((struct slice){ text, n });
		chunk_decode((struct slice){ text, n }, n + 1, &out);
		n_verdicts[out.verdict]++;
	}
	for (size_t i = 0; i < n_elems(n_verdicts); i++)
		assert_true(n_verdicts[i] > 500); /* or the texts are not worth much */
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_body_is_complete_at_once),
		cmocka_unit_test(a_length_is_counted),
		cmocka_unit_test(without_a_length_all_is_data),
		cmocka_unit_test(chunks),
		cmocka_unit_test(a_trailer_comes_out_as_it_is),
		cmocka_unit_test(a_verdict_is_final),
		cmocka_unit_test(a_chunk_line_may_have_256_bytes),
		cmocka_unit_test(framing_must_not_outweigh_data),
		cmocka_unit_test(a_trailer_section_is_bounded),
		cmocka_unit_test(random_texts_have_one_verdict),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
