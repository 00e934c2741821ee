#include "router/hold.h"

/* How often a hold was walked through: each time it is linear, as hold.h says. */
static unsigned n_walks;

#define hold_byte(...)       (n_walks++, hold_byte(__VA_ARGS__))
#define hold_copy(...)       (n_walks++, hold_copy(__VA_ARGS__))
#define hold_skip_blank(...) (n_walks++, hold_skip_blank(__VA_ARGS__))
#define hold_trim_blank(...) (n_walks++, hold_trim_blank(__VA_ARGS__))
#define hold_is_blank(...)   (n_walks++, hold_is_blank(__VA_ARGS__))
#include "router/splice.c"
#undef hold_byte
#undef hold_copy
#undef hold_skip_blank
#undef hold_trim_blank
#undef hold_is_blank

#include "base/rng.h"
#include "unit/router/held.h"

static void keep(struct hold *h, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };

	assert_true(hold_append(h, &pool, &piece, 1));
}

/* The same of a text in one piece. */
static void assert_appended(const struct splice *s, const struct hold *body, struct slice expected) {
	char *text = text_of(body);
	struct hold out = { .bytes = 0 };

	splice_append(s, (struct slice){ text, (size_t)body->bytes }, &out, &pool);
	assert_int_equal(out.bytes, expected.n);
	free(text);
	text = text_of(&out);
	assert_memory_equal(text, expected.p, expected.n);
	free(text);
	hold_free(&out, &pool);
}

/* What comes out, taken n_max pieces at a time; its length is the one that was told. */
static void assert_spliced(
    const struct splice *s, const struct hold *body, struct slice expected, size_t n_max) {
	struct splice_cursor c;
	struct piece pieces[8];
	uint64_t at = 0;
	size_t n;

	assert_int_equal(splice_length(s, body->bytes), expected.n);
	splice_begin(&c, s, body);
	while ((n = splice_pieces(&c, pieces, n_max)))
		for (size_t i = 0; i < n; i++) {
			assert_true(pieces[i].n > 0 && at + pieces[i].n <= expected.n);
			assert_memory_equal(pieces[i].p, expected.p + at, pieces[i].n);
			at += pieces[i].n;
		}
	assert_int_equal(at, expected.n);
	assert_int_equal(splice_pieces(&c, pieces, n_max), 0);
	assert_appended(s, body, expected);
}

static void without_edits_it_is_the_body(void **state) {
	static const struct splice none = { .n = 0 };
	struct hold body = { .bytes = 0 };

	assert_spliced(&none, &body, SLICE(""), 1);
	keep(&body, SLICE("{\"a\":1}"));
	assert_spliced(&none, &body, SLICE("{\"a\":1}"), 1);
	hold_free(&body, &pool);
}

static void edits_may_come_in_any_order(void **state) {
	struct hold body = { .bytes = 0 }, other = { .bytes = 0 };
	struct splice s = { .n = 0 };

	keep(&body, SLICE("{\"max\":100,\"s\":true}"));
	keep(&other, SLICE("xx{\"k\":2}yy"));
	splice_add(&s, (struct splice_edit){ .at = 15, .n_cut = 4, .put = SLICE("false") });
	splice_add(&s,
	    (struct splice_edit){
		.at = 1, .put = SLICE("\"kv\":"), .from = &other, .from_at = 2, .from_n = 7 });
	splice_add(&s, (struct splice_edit){ .at = 1, .put = SLICE(",") });
	splice_add(&s, (struct splice_edit){ .at = 7, .n_cut = 3, .put = SLICE("1") });
	for (size_t n_max = 1; n_max <= 8; n_max++)
		assert_spliced(&s, &body, SLICE("{\"kv\":{\"k\":2},\"max\":1,\"s\":false}"), n_max);
	hold_free(&body, &pool);
	hold_free(&other, &pool);
}

static void the_ends_may_be_edited(void **state) {
	struct hold body = { .bytes = 0 };
	struct splice s = { .n = 0 };

	keep(&body, SLICE("abc"));
	splice_add(&s, (struct splice_edit){ .at = 0, .n_cut = 1 });
	splice_add(&s, (struct splice_edit){ .at = 1, .n_cut = 2, .put = SLICE("x") });
	splice_add(&s, (struct splice_edit){ .at = 3, .put = SLICE("y") });
	assert_spliced(&s, &body, SLICE("xy"), 2);
	hold_free(&body, &pool);
}

#define BODY_BYTES 200000u

/* Edits that were drawn, against the same done to a flat text. */
static void many_bufs_and_edits(void **state) {
	static char text[BODY_BYTES], flat[2 * BODY_BYTES];
	struct rng rng;

	rng_init(&rng, 7);
	for (unsigned round = 0; round < 50; round++) {
		struct hold body = { .bytes = 0 };
		struct splice s = { .n = 0 };
		uint64_t at = 0, from = 0, n_flat = 0;

		for (uint64_t i = 0; i < BODY_BYTES; i++)
			text[i] = (char)('a' + rng_below(&rng, 26));
		for (uint64_t i = 0; i < BODY_BYTES;) {
			uint64_t n = u64_min(BODY_BYTES - i, 1 + rng_below(&rng, 70000));

			keep(&body, (struct slice){ text + i, n });
			i += n;
		}
		for (unsigned i = 0; i < 12; i++) {
			struct splice_edit e = { .at = at + rng_below(&rng, 30000),
				.n_cut = rng_below(&rng, 3) ? 0 : rng_below(&rng, 20000),
				.put = { "0123456789", rng_below(&rng, 11) } };

			if (e.at + e.n_cut > BODY_BYTES)
				break;
			splice_add(&s, e);
			memcpy(flat + n_flat, text + from, e.at - from);
			n_flat += e.at - from;
			memcpy(flat + n_flat, e.put.p, e.put.n);
			n_flat += e.put.n;
			at = from = e.at + e.n_cut;
		}
		memcpy(flat + n_flat, text + from, BODY_BYTES - from);
		n_flat += BODY_BYTES - from;
		assert_spliced(&s, &body, (struct slice){ flat, n_flat }, 1 + rng_below(&rng, 8));
		hold_free(&body, &pool);
	}
}

/* What is left when the member is cut whose value is this text. */
static void assert_cut(const char *text, const char *value, const char *left) {
	static const size_t steps[] = { 1, 7, 1000 };
	const char *at = strstr(text, value);

	assert_non_null(at);
	for (unsigned i = 0; i < n_elems(steps); i++) {
		struct hold body = held(slice_of(text), steps[i]);
		struct splice s = { .n = 0 };
		struct splice_edit cut = { .n_cut = 0 };

		splice_find_member(&body, (uint64_t)(at - text), strlen(value), &cut.at, &cut.n_cut);
		splice_add(&s, cut);
		assert_spliced(&s, &body, slice_of(left), 3);
		hold_free(&body, &pool);
	}
}

/* Half the longest name that the scanner looks for, as long as it can be written. */
#define NAME                                                                                                 \
	"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061"                                           \
	"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061"

static void a_member_is_cut_with_one_comma(void **state) {
	static const struct {
		const char *text, *left;
	} rows[] = {
		{ "{\"x\":\"v\"}", "{}" },
		{ " { \"x\" \n:\t\"v\"\r} ", " { \r} " },
		{ "{\"x\":\"v\",\"b\":2}", "{\"b\":2}" },
		{ "{\"a\":1,\"x\":\"v\"}", "{\"a\":1}" },
		{ "{\"a\":1 , \"x\" : \"v\" }", "{\"a\":1  }" },
		{ "{\"a\":1 , \"x\" : \"v\" , \"b\":2}", "{\"a\":1 ,  \"b\":2}" },
		{ "{\"a\":{\"x\":\"v\"},\"b\":2}", "{\"a\":{},\"b\":2}" },
		{ "{\"b\":2,\"" NAME NAME "\":\"v\"}", "{\"b\":2}" },
	};

	for (unsigned i = 0; i < n_elems(rows); i++)
		assert_cut(rows[i].text, "\"v\"", rows[i].left);
}

/* Walks through the body to find a member in n bytes of white space, wherever there may be some. */
static unsigned walks_for(size_t n) {
	static const char *const tokens[] = { "{\"a\":1", ",", "\"x\"", ":", "\"v\"", ",", "\"b\":2}" };
	struct hold body = { .bytes = 0 };
	uint64_t value_at = 0, at, n_cut;
	char *blank = malloc(n);

	memset(blank, ' ', n);
	for (unsigned i = 0; i < n_elems(tokens); i++) {
		if (i == 4)
			value_at = body.bytes;
		keep(&body, slice_of(tokens[i]));
		keep(&body, (struct slice){ blank, n });
	}
	free(blank);
	n_walks = 0;
	splice_find_member(&body, value_at, 3, &at, &n_cut);
	assert_int_equal(n_cut, 3 * n + strlen("\"x\":\"v\","));
	hold_free(&body, &pool);
	return n_walks;
}

static void white_space_of_a_member_is_passed_once(void **state) {
	unsigned n = walks_for(1000);

	assert_int_equal(walks_for(2000), n);
	assert_int_equal(walks_for(400000), n);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_edits_it_is_the_body),
		cmocka_unit_test(edits_may_come_in_any_order),
		cmocka_unit_test(the_ends_may_be_edited),
		cmocka_unit_test(many_bufs_and_edits),
		cmocka_unit_test(a_member_is_cut_with_one_comma),
		cmocka_unit_test(white_space_of_a_member_is_passed_once),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
