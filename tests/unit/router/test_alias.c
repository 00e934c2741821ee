#include "unit/router/held.h"

#include "router/alias.h"

static const struct alias items[] = {
	{ { "best", 4 }, { "org/m \"x\"", 9 }, { "\"org/m \\\"x\\\"\"", 13 } },
	{ { "best-small", 10 }, { "m", 1 }, { "\"m\"", 3 } },
	{ { "small", 5 }, { "m", 1 }, { "\"m\"", 3 } },
};
static const struct alias_table table = { items, n_elems(items) };

static void names_are_found_whole(void **state) {
	static const struct alias_table empty = { .n = 0 };

	for (size_t i = 0; i < n_elems(items); i++)
		assert_ptr_equal(alias_find(&table, items[i].name), &items[i]);
	assert_null(alias_find(&table, SLICE("bes")));
	assert_null(alias_find(&table, SLICE("smaller")));
	assert_null(alias_find(&table, (struct slice){ NULL, 0 }));
	assert_null(alias_find(&empty, SLICE("best")));
}

static void keep(struct hold *h, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };

	assert_true(hold_append(h, &pool, &piece, 1));
}

/* A buf of its own behind what is there, so that names are cut in two. */
static void keep_apart(struct hold *h, struct slice text) {
	struct hold more = { .bytes = 0 };

	if (!text.n)
		return;
	keep(&more, text);
	if (h->last)
		h->last->next = more.first;
	else
		h->first = more.first;
	h->last = more.last;
	h->bytes += more.bytes;
}

static void assert_sent(const struct hold *body, const struct splice *edits, const char *expected) {
	struct splice_cursor c;
	struct piece piece;
	size_t at = 0, n = strlen(expected);

	splice_begin(&c, edits, body);
	for (; splice_pieces(&c, &piece, 1); at += piece.n) {
		assert_true(at + piece.n <= n);
		assert_memory_equal(piece.p, expected + at, piece.n);
	}
	assert_int_equal(at, n);
	assert_int_equal(splice_length(edits, body->bytes), n);
}

static void the_model_of_json_is_replaced_and_nothing_else(void **state) {
	static const struct {
		const char *body, *sent;
	} cases[] = {
		{ "{\"model\":\"best\"}", "{\"model\":\"org/m \\\"x\\\"\"}" },
		{ "{ \"x\" : {\"model\":\"best\"}, \"model\" :\t\"b\\u0065st\" ,\"y\":[1.0e0]}",
		    "{ \"x\" : {\"model\":\"best\"}, \"model\" :\t\"org/m \\\"x\\\"\" ,\"y\":[1.0e0]}" },
		{ "{\"m\\u006fdel\":\"best\",\"stream\":tr",
		    "{\"m\\u006fdel\":\"org/m \\\"x\\\"\",\"stream\":tr" },
		{ "{\"messages\":[]}", "{\"messages\":[]}" },
		{ "{\"model\":\"be", "{\"model\":\"be" },
		{ "", "" },
	};

	for (size_t i = 0; i < n_elems(cases); i++)
		for (size_t cut = 0; cut <= strlen(cases[i].body); cut++) {
			struct slice body = slice_of(cases[i].body);
			struct hold hold = { .bytes = 0 };
			struct splice edits = { .n = 0 };

			keep_apart(&hold, slice_head(body, cut));
			keep_apart(&hold, slice_skip(body, cut));
			alias_edit_json(&items[0], &hold, &edits);
			assert_sent(&hold, &edits, cases[i].sent);
			hold_free(&hold, &pool);
		}
}

#define TYPE SLICE("multipart/form-data; boundary=b")
#define FILE_PART                                                                                            \
	"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nmodel\r\nbest\r\n"
#define MODEL "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n"

static void the_model_of_a_form_is_replaced_and_nothing_else(void **state) {
	static const struct {
		const char *body, *sent;
	} cases[] = {
		{ MODEL "best\r\n--b--\r\n", MODEL "org/m \"x\"\r\n--b--\r\n" },
		{ FILE_PART MODEL "best\r\n" FILE_PART "--b--",
		    FILE_PART MODEL "org/m \"x\"\r\n" FILE_PART "--b--" },
		{ MODEL "\rbest\r\n--b", MODEL "org/m \"x\"\r\n--b" },
		{ FILE_PART "--b--", FILE_PART "--b--" },
		{ MODEL "best", MODEL "best" },
	};

	for (size_t i = 0; i < n_elems(cases); i++)
		for (size_t cut = 0; cut <= strlen(cases[i].body); cut++) {
			struct slice body = slice_of(cases[i].body);
			struct hold hold = { .bytes = 0 };
			struct splice edits = { .n = 0 };

			keep_apart(&hold, slice_head(body, cut));
			keep_apart(&hold, slice_skip(body, cut));
			alias_edit_form(&items[0], &hold, TYPE, &edits);
			assert_sent(&hold, &edits, cases[i].sent);
			hold_free(&hold, &pool);
		}
}

static void what_is_neither_is_left_alone(void **state) {
	struct hold hold = { .bytes = 0 };
	struct splice edits = { .n = 0 };

	keep(&hold, SLICE("no JSON, no form"));
	alias_edit_json(&items[0], &hold, &edits);
	alias_edit_form(&items[0], &hold, SLICE("multipart/form-data"), &edits);
	assert_int_equal(edits.n, 0);
	hold_free(&hold, &pool);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_found_whole),
		cmocka_unit_test(the_model_of_json_is_replaced_and_nothing_else),
		cmocka_unit_test(the_model_of_a_form_is_replaced_and_nothing_else),
		cmocka_unit_test(what_is_neither_is_left_alone),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
