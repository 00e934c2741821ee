#include "unit/router/held.h"

#include "base/rng.h"
#include "router/splice.h"

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

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_edits_it_is_the_body),
		cmocka_unit_test(edits_may_come_in_any_order),
		cmocka_unit_test(the_ends_may_be_edited),
		cmocka_unit_test(many_bufs_and_edits),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
