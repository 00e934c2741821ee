#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/rng.h"
#include "unit/router/scan_oracle.h"

static void judge(struct slice doc) {
	const char *wrong = oracle_judge(doc, 256);

	if (wrong)
		fail_msg("%s: %.*s", wrong, (int)doc.n, doc.p);
}

/* The outcome of a whole text; jansson and every cut agree with it. */
static struct oracle_scan scan_of(struct slice doc) {
	struct scan_table *t = malloc(sizeof(*t));
	struct oracle_scan o;

	judge(doc);
	oracle_table(t, scan_skip_sse2, true);
	oracle_run(&o, t, doc, doc.n, doc.n);
	o.s.table = NULL;
	free(t);
	return o;
}

static const struct scan_value *found(const struct oracle_scan *o, unsigned id) {
	return o->s.found >> id & 1 ? &o->values[id] : NULL;
}

/* The text of `model`, which stands where the text was before *o moved. */
static void assert_model(const char *doc, const char *model) {
	struct oracle_scan o = scan_of(slice_of(doc));

	assert_int_equal(o.finished, SCAN_COMPLETE);
	assert_non_null(found(&o, WANT_MODEL));
	assert_int_equal(found(&o, WANT_MODEL)->flaw, SCAN_SOUND);
	assert_int_equal(found(&o, WANT_MODEL)->text.n, strlen(model));
	assert_memory_equal(o.text, model, strlen(model));
}

static void assert_flaw(struct slice doc, enum scan_flaw flaw) {
	struct oracle_scan o = scan_of(doc);

	assert_int_equal(o.finished, SCAN_COMPLETE);
	assert_non_null(found(&o, WANT_MODEL));
	assert_int_equal(found(&o, WANT_MODEL)->flaw, flaw);
	assert_int_equal(found(&o, WANT_MODEL)->text.n, 0);
}

static void json_is_taken(void **state) {
	static const char *const docs[] = { "{}", "[]", "\"\"", "0", "-0", "10", "0.5", "-1.25e+10", "1E5",
		"1e-2", "1e0", "1E+0", "0e-05", "1.00", "true", "false", "null", " [ ] ", "\t{\r\n}\n",
		"[[],{}]", "[1,-2,3.0e0,\"x\",null,true,false]", "{\"\":0}", "{\"a\":{\"b\":[{\"c\":{}}]}}",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD834\\uDD1E\"", "\"\x7f\"",
		"[\"a long string that does not end within one block of sixty-four bytes, nor soon\"]",
		"123456789012345678901234567890123456789012345678901234567890.0", "[1e999]", "[-1]",
		"{\"model\":\"m\" , \"stream\" : true }" };

	for (size_t i = 0; i < n_elems(docs); i++)
		assert_int_equal(scan_of(slice_of(docs[i])).finished, SCAN_COMPLETE);
}

static void all_else_is_refused(void **state) {
	static const char *const docs[] = { "", " ", "{", "}", "[", "]", "\"", "{]", "[}", "[1}", "{\"a\":1]",
		"[,]", "[1,]", "{,}", "{\"a\":1,}", "{\"a\"}", "{\"a\":}", "{\"a\" 1}", "{a:1}", "{1:1}",
		"{'a':1}", "[1 2]", "[1,,2]", "01", "-", "-a", "+1", ".5", "1.", "1.e5", "1e", "1e+", "0x1",
		"1a", "00", "-01", "Infinity", "NaN", "nul", "nulll", "tru", "truE", "True", "falsy", "t",
		"f", "n", "{} x", "{}{}", "1 2", "[1]]", "\"a", "\"\\", "\"\\\"", "\"\\a\"", "\"\\u\"",
		"\"\\u12\"", "\"\\u123g\"", "\"\\U0041\"", "\"a\nb\"", "\"a\tb\"", "\"\x1f\"",
		"\xef\xbb\xbf{}", "\xff", "/**/1", "[1]//", "{\"a\":\"b\":\"c\"}", "\"\\\n\"", "\v1", "\f1",
		"{\"a\\x\":1}", "{\"a\nb\":1}", "[\"\\u12", "[-]", "[1.]", "[1e]", "[tru]", "\"x\"\"y\"" };

	for (size_t i = 0; i < n_elems(docs); i++) {
		struct oracle_scan o = scan_of(slice_of(docs[i]));

		if (o.finished != SCAN_E_SYNTAX)
			fail_msg("not refused: %s", docs[i]);
	}
	assert_int_equal(scan_of((struct slice){ "\"\0\"", 3 }).finished, SCAN_E_SYNTAX);
	assert_int_equal(scan_of((struct slice){ "[1\0]", 4 }).finished, SCAN_E_SYNTAX);
}

static void a_refusal_is_final_and_names_its_byte(void **state) {
	static const struct {
		const char *doc;
		uint64_t offset;
	} cases[] = { { "{\"a\":tru }", 8 }, { "[1,2,]", 5 }, { "{\"model\":1,\"model\":2}", 17 },
		{ "\"ab\\x\"", 4 }, { "\"0123456789012345678901234567890123456789\x01\"", 41 },
		{ "[1.x]", 3 }, { "[1", 2 } };

	for (size_t i = 0; i < n_elems(cases); i++)
		assert_int_equal(scan_of(slice_of(cases[i].doc)).s.offset, cases[i].offset);

	struct scan_table t;
	struct oracle_scan o;
	oracle_table(&t, scan_skip_sse2, true);
	oracle_run(&o, &t, SLICE("[1,]"), 4, 4);
	oracle_feed(&o, SLICE("2]"));
	assert_int_equal(o.fed, SCAN_E_SYNTAX);
	assert_int_equal(scan_finish(&o.s), SCAN_E_SYNTAX);
	assert_int_equal(o.s.offset, 3);
}

static void a_blank_text_is_told_from_a_broken_one(void **state) {
	static const struct {
		const char *doc;
		bool is_blank;
	} cases[] = { { "", true }, { " \r\n", true }, { "{", false }, { "[]", false }, { "tru", false },
		{ " 1", false }, { "x", false } };

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct oracle_scan o = scan_of(slice_of(cases[i].doc));

		assert_int_equal(scan_is_blank(&o.s), cases[i].is_blank);
	}
}

static void values_are_found_with_type_and_place(void **state) {
	static const char doc[] =
	    "{\"messages\":[{\"model\":\"inner\"}], \"usage\" : {\"x\":{\"tokens\":3},"
	    "\"details\":{\"cached\":18446744073709551615},\"tokens\":12}, \"a\":{\"b\":{\"c\":{\"d\":"
	    "\"deep\"}}},\"model\":\"m\",\"stream\":true}";
	struct oracle_scan o = scan_of(SLICE(doc));

	assert_int_equal(o.finished, SCAN_COMPLETE);
	assert_int_equal(o.s.found, (1u << N_WANTED) - 1);
	assert_int_equal(o.s.open, 0);
	assert_memory_equal(o.text, "m", 1);
	assert_int_equal(found(&o, WANT_STREAM)->type, SCAN_BOOL);
	assert_true(found(&o, WANT_STREAM)->truth);
	assert_int_equal(found(&o, WANT_TOKENS)->number, 12);
	assert_true(found(&o, WANT_CACHED)->number == UINT64_MAX);
	assert_int_equal(found(&o, WANT_MESSAGES)->type, SCAN_ARRAY);
	assert_int_equal(found(&o, WANT_MESSAGES)->offset, 12);
	assert_int_equal(found(&o, WANT_MESSAGES)->length, strlen("[{\"model\":\"inner\"}]"));
	assert_int_equal(found(&o, WANT_USAGE)->type, SCAN_OBJECT);
	assert_int_equal(found(&o, WANT_DEEP)->text.n, 4);
}

static void what_stands_beside_a_path_does_not_hide_it(void **state) {
	struct oracle_scan o =
	    scan_of(SLICE("{\"a\":{\"b\":{\"x\":{},\"c\":{\"x\":[{}],\"d\":{\"x\":{}}}}}}"));

	assert_int_equal(o.finished, SCAN_COMPLETE);
	assert_non_null(found(&o, WANT_DEEP));
	assert_int_equal(found(&o, WANT_DEEP)->type, SCAN_OBJECT);
	assert_int_equal(found(&o, WANT_DEEP)->length, strlen("{\"x\":{}}"));
}

static void a_value_of_another_type_is_recorded_as_such(void **state) {
	static const struct {
		const char *doc;
		enum scan_type type;
	} cases[] = { { "{\"model\":null}", SCAN_NULL }, { "{\"model\":7}", SCAN_NUMBER },
		{ "{\"model\":false}", SCAN_BOOL }, { "{\"model\":{\"model\":\"m\"}}", SCAN_OBJECT },
		{ "{\"model\":[\"m\"]}", SCAN_ARRAY }, { "{\"model\":\"m\"}", SCAN_STRING } };

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct oracle_scan o = scan_of(slice_of(cases[i].doc));

		assert_non_null(found(&o, WANT_MODEL));
		assert_int_equal(found(&o, WANT_MODEL)->type, cases[i].type);
	}
}

static void only_the_path_counts(void **state) {
	static const char *const docs[] = { "[{\"model\":\"m\"}]", "{\"x\":{\"model\":\"m\"}}", "\"model\"",
		"{\"models\":1}", "{\"mode\":1,\"Model\":2,\"model \":3,\"model\\u0000\":4}",
		"{\"x\":\"\\\"model\\\":\\\"m\\\"\"}", "{\"usage\":[{\"tokens\":1}]}",
		"{\"usage\":1,\"tokens\":2}", "{\"details\":{\"cached\":1}}",
		"{\"a.b.c.d\":1,\"a\":{\"b\":{\"c\":[{\"d\":1}]}}}",
		"{\"x\":[[[[{\"a\":{\"b\":{\"c\":{\"d\":1}}}}]]]]}",
		"{\"modelmodelmodelmodelmodelmodelmodelmodelmodel\":1}" };

	for (size_t i = 0; i < n_elems(docs); i++) {
		struct oracle_scan o = scan_of(slice_of(docs[i]));

		assert_int_equal(o.finished, SCAN_COMPLETE);
		assert_int_equal(o.s.found & ~(1u << WANT_USAGE), 0);
	}
}

static void a_unique_member_comes_once(void **state) {
	static const char *const docs[] = { "{\"model\":\"a\",\"model\":\"b\"}",
		"{\"model\":\"a\",\"\\u006dodel\":\"a\"}",
		"{\"\\u006Dod\\u0065l\":1,\"x\":{},\"mode\\u006c\":2}",
		"{\"model\":{\"model\":1},\"model\":1}",
		"{\"model\":null,\"x\":[1,{\"model\":2}],\"model\"" };

	for (size_t i = 0; i < n_elems(docs); i++)
		assert_int_equal(scan_of(slice_of(docs[i])).finished, SCAN_E_DUPLICATE);
	assert_int_equal(
	    scan_of(SLICE("{\"model\":{\"model\":1},\"x\":{\"model\":2}}")).finished, SCAN_COMPLETE);
}

static void of_other_members_the_last_counts(void **state) {
	struct oracle_scan o = scan_of(SLICE("{\"stream\":true,\"stream\":\"yes\",\"str\\u0065am\":false}"));

	assert_false(found(&o, WANT_STREAM)->truth);
	o = scan_of(SLICE("{\"usage\":{\"tokens\":1,\"details\":{\"cached\":2}},\"usage\":{\"tokens\":3}}"));
	assert_int_equal(found(&o, WANT_TOKENS)->number, 3);
	assert_null(found(&o, WANT_CACHED));
	o = scan_of(SLICE("{\"usage\":{\"tokens\":1},\"usage\":{}}"));
	assert_null(found(&o, WANT_TOKENS));
	o = scan_of(SLICE("{\"usage\":{\"tokens\":1},\"usage\":5}"));
	assert_null(found(&o, WANT_TOKENS));
	assert_int_equal(found(&o, WANT_USAGE)->type, SCAN_NUMBER);
	o = scan_of(SLICE("{\"a\":{\"b\":{\"c\":{\"d\":1}}},\"a\":{\"b\":{\"c\":\"d\"}}}"));
	assert_null(found(&o, WANT_DEEP));
}

static void text_is_decoded(void **state) {
	assert_model("{\"model\":\"\"}", "");
	assert_model("{\"\\u006dodel\":\"llama\"}", "llama");
	assert_model("{\"model\":\"a\\\"\\\\\\/z\"}", "a\"\\/z");
	assert_model("{\"model\":\"\\u0041\\u00e9\\u20AC\"}", "A\xc3\xa9\xe2\x82\xac");
	assert_model("{\"model\":\"x\\ud83d\\uDE00y\"}", "x\xf0\x9f\x98\x80y");
	assert_model(
	    "{\"model\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"}", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	assert_model("{\"model\":\"\\uFFFF\\uE000\\uD7FF\"}", "\xef\xbf\xbf\xee\x80\x80\xed\x9f\xbf");
	assert_model("{\"model\":\"\\uDBFF\\uDFFF\\ud800\\udc00\"}", "\xf4\x8f\xbf\xbf\xf0\x90\x80\x80");
}

static void bad_text_is_flagged(void **state) {
	static const char *const strings[] = { "\\u0000", "a\\nb", "\\u001f", "\x7f", "\\u007f", "\\b",
		"\\ud800", "\\udc00", "\\udc00\\ud800", "\\ud800x\\udc00", "\\ud800\\ud800\\udc00",
		"\\ud83d\\u0041", "\\ud800\\n\\udc00", "\xed\xa0\x80\\udc00", "\x80", "\xc3", "\xc0\x80",
		"\xc1\xbf", "\xe0\x80\x80", "\xe2\x82", "\xed\xa0\x80", "\xf0\x80\x80\x80",
		"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3(", "01234567\xff", "0123456\x7f",
		"01234567\x7f", "0123456\\n", "0123456\\u001f" };

	for (size_t i = 0; i < n_elems(strings); i++) {
		char doc[64];
		int n = snprintf(doc, sizeof(doc), "{\"model\":\"%s\"}", strings[i]);

		assert_flaw((struct slice){ doc, (size_t)n }, SCAN_BAD_TEXT);
	}
}

static void text_has_a_ceiling(void **state) {
	assert_model("{\"model\":\"0123456789abcdef\"}", "0123456789abcdef");
	assert_flaw(SLICE("{\"model\":\"0123456789abcdefg\"}"), SCAN_TOO_LONG);
	assert_model("{\"model\":\"0123456789ab\\ud83d\\ude00\"}", "0123456789ab\xf0\x9f\x98\x80");
	assert_flaw(SLICE("{\"model\":\"0123456789abc\\ud83d\\ude00\"}"), SCAN_TOO_LONG);
	assert_flaw(SLICE("{\"model\":\"0123456789abcdef\\n\"}"), SCAN_TOO_LONG);
	assert_flaw(SLICE("{\"model\":\"0123456789abcdef\\ud83d\\ude00\"}"), SCAN_TOO_LONG);
}

static void a_model_name_has_256_bytes(void **state) {
	static const struct scan_want want = { .path = "model", .text_bytes_max = 256 };
	static const char head[] = "{\"model\":\"";
	struct scan_table t;

	scan_table_init(&t, &want, 1, NULL);
	assert_int_equal(t.text_bytes, 256);
	for (size_t n = 255; n <= 257; n++) {
		char doc[300], text[256];
		struct scan_value value;
		struct scan s;

		memcpy(doc, head, sizeof(head) - 1);
		memset(doc + sizeof(head) - 1, 'm', n);
		memcpy(doc + sizeof(head) - 1 + n, "\"}", 2);
		scan_init(&s, &t, &value, text, sizeof(text));
		assert_int_equal(scan_feed(&s, doc, sizeof(head) + 1 + n), SCAN_COMPLETE);
		assert_int_equal(scan_found(&s, 0)->flaw, n <= 256 ? SCAN_SOUND : SCAN_TOO_LONG);
		assert_int_equal(scan_found(&s, 0)->text.n, n <= 256 ? n : 0);
		assert_int_equal(scan_found(&s, 0)->length, n + 2);
	}
}

static void whole_numbers_are_counted(void **state) {
	static const struct {
		const char *number;
		enum scan_flaw flaw;
		uint64_t value;
	} cases[] = { { "0", SCAN_SOUND, 0 }, { "7", SCAN_SOUND, 7 },
		{ "4294967296", SCAN_SOUND, UINT64_C(1) << 32 },
		{ "18446744073709551615", SCAN_SOUND, UINT64_MAX },
		{ "18446744073709551616", SCAN_TOO_LARGE, UINT64_MAX },
		{ "99999999999999999999999999999999", SCAN_TOO_LARGE, UINT64_MAX },
		{ "100000000000000000000000000000000", SCAN_TOO_LARGE, UINT64_MAX },
		{ "-100000000000000000000000000000000", SCAN_NOT_COUNTED, 0 }, { "-0", SCAN_NOT_COUNTED, 0 },
		{ "-1", SCAN_NOT_COUNTED, 0 }, { "-1e3", SCAN_NOT_COUNTED, 0 }, { "1.0", SCAN_SOUND, 1 },
		{ "0.0", SCAN_SOUND, 0 }, { "1e3", SCAN_SOUND, 1000 }, { "2500e-2", SCAN_SOUND, 25 },
		{ "1.5", SCAN_NOT_COUNTED, 0 }, { "1e-3", SCAN_NOT_COUNTED, 0 },
		{ "1e20", SCAN_TOO_LARGE, UINT64_MAX }, { "1e999", SCAN_TOO_LARGE, UINT64_MAX },
		{ "1.000000000000000000000000000000", SCAN_SOUND, 1 },
		{ "1.0000000000000000000000000000000", SCAN_NOT_COUNTED, 0 } };

	for (size_t i = 0; i < n_elems(cases); i++) {
		char doc[80];
		int n = snprintf(doc, sizeof(doc), "{\"usage\":{\"tokens\":%s}}", cases[i].number);
		struct oracle_scan o = scan_of((struct slice){ doc, (size_t)n });

		assert_int_equal(o.finished, SCAN_COMPLETE);
		assert_int_equal(found(&o, WANT_TOKENS)->type, SCAN_NUMBER);
		assert_int_equal(found(&o, WANT_TOKENS)->flaw, cases[i].flaw);
		assert_true(found(&o, WANT_TOKENS)->number == cases[i].value);
		assert_int_equal(found(&o, WANT_TOKENS)->length, strlen(cases[i].number));
	}
}

/* n levels, arrays and objects in turn or all alike, and what closes them. */
static struct slice nest(char *p, size_t n, unsigned kinds) {
	size_t at = 0;
	char closers[SCAN_DEPTH_MAX + 2];

	for (size_t i = 0; i < n; i++) {
		bool is_object = kinds == 2 ? i * 7919 % 5 < 2 : kinds;
		const char *opener = is_object ? "{\"k\":" : "[";

		memcpy(p + at, opener, strlen(opener));
		at += strlen(opener);
		closers[n - 1 - i] = is_object ? '}' : ']';
	}
	p[at++] = '1';
	memcpy(p + at, closers, n);
	return (struct slice){ p, at + n };
}

static void there_are_512_levels(void **state) {
	static char doc[8 * (SCAN_DEPTH_MAX + 2)];

	for (unsigned kinds = 0; kinds < 3; kinds++) {
		assert_int_equal(scan_of(nest(doc, SCAN_DEPTH_MAX, kinds)).finished, SCAN_COMPLETE);
		assert_int_equal(scan_of(nest(doc, SCAN_DEPTH_MAX + 1, kinds)).finished, SCAN_E_DEPTH);
	}
}

static void every_level_remembers_its_kind(void **state) {
	static char doc[8 * (SCAN_DEPTH_MAX + 2)];

	for (size_t i = 0; i < SCAN_DEPTH_MAX; i++) {
		struct slice text = nest(doc, SCAN_DEPTH_MAX, 2);
		char *closer = doc + text.n - SCAN_DEPTH_MAX + i;
		struct scan_table t;
		struct oracle_scan o;

		*closer = *closer == ']' ? '}' : ']';
		oracle_table(&t, scan_skip_sse2, true);
		oracle_run(&o, &t, text, text.n, text.n);
		assert_int_equal(o.finished, SCAN_E_SYNTAX);
		assert_int_equal(o.s.offset, closer - doc);
	}
}

static void a_value_is_known_with_its_last_byte(void **state) {
	static const char doc[] = "{\"messages\":[1],\"model\":\"m\"}";
	struct scan_table t;
	struct oracle_scan o;

	oracle_table(&t, scan_skip_sse2, true);
	scan_init(&o.s, &t, o.values, o.text, sizeof(o.text));
	for (size_t i = 0; i < sizeof(doc) - 1; i++) {
		oracle_feed(&o, (struct slice){ doc + i, 1 });
		assert_int_equal(o.fed, i < sizeof(doc) - 2 ? SCAN_MORE : SCAN_COMPLETE);
		assert_int_equal(o.s.open >> WANT_MESSAGES & 1, i >= 12 && i < 14);
		assert_int_equal(scan_found(&o.s, WANT_MESSAGES) != NULL, i >= 14);
		assert_int_equal(o.s.open >> WANT_MODEL & 1, i >= 24 && i < 26);
		assert_int_equal(scan_found(&o.s, WANT_MODEL) != NULL, i >= 26);
	}
}

/* ---- paths through arrays -------------------------------------------------------- */

enum { ITEM, ITEM_TEXT, ITEM_DEEP, ITEM_OF_ITEM, N_ITEM_WANTS };

static const struct scan_want item_wants[N_ITEM_WANTS] = {
	[ITEM] = { .path = "a.[]", .text_bytes_max = 4 },
	[ITEM_TEXT] = { .path = "a.[].b", .text_bytes_max = 8 },
	[ITEM_DEEP] = { .path = "a.[].c.d" },
	[ITEM_OF_ITEM] = { .path = "m.[].[].b" },
};

/* What must stand where the wanted values were found; NULL where there is none. */
struct item_row {
	const char *doc;
	const char *found[N_ITEM_WANTS];
};

static void assert_items(const struct scan_table *t, const struct item_row *row, size_t first, size_t step) {
	struct slice doc = slice_of(row->doc);
	struct scan_value values[N_ITEM_WANTS];
	struct scan s;
	char text[16];
	scan_init(&s, t, values, text, sizeof(text));
	for (size_t at = 0, n = first; at < doc.n; at += n, n = step) {
		n = size_min(n, doc.n - at);
		assert_true(scan_feed(&s, doc.p + at, n) <= SCAN_COMPLETE);
	}
	assert_int_equal(scan_finish(&s), SCAN_COMPLETE);
	for (unsigned id = 0; id < N_ITEM_WANTS; id++) {
		const struct scan_value *v = scan_found(&s, id);
		struct slice found =
		    v ? slice_head(slice_skip(doc, v->offset), v->length) : (struct slice){ 0 };
		if (!v != !row->found[id] || (v && !slice_eq(found, slice_of(row->found[id]))))
			fail_msg("%s: %.*s in %s", item_wants[id].path, (int)found.n, found.p, row->doc);
		if (v && v->type == SCAN_STRING && item_wants[id].text_bytes_max)
			assert_true(slice_eq(v->text, slice_head(slice_skip(found, 1), found.n - 2)));
	}
}

static void paths_lead_through_arrays(void **state) {
	static const struct item_row rows[] = {
		{ "{\"a\":[]}", { NULL } },
		{ "{\"a\":[1]}", { "1" } },
		{ "{\"a\":[\"x\"],\"b\":1}", { "\"x\"" } },
		{ "{\"a\":[{\"b\":\"x\",\"c\":{\"d\":[2]}}]}",
		    { "{\"b\":\"x\",\"c\":{\"d\":[2]}}", "\"x\"", "[2]" } },
		/* of several items the last counts, whatever it is */
		{ "{\"a\":[{\"b\":\"x\"},{\"b\":\"y\"}]}", { "{\"b\":\"y\"}", "\"y\"" } },
		{ "{\"a\":[ {\"b\":\"x\"} , {\"c\":{}} ]}", { "{\"c\":{}}" } },
		{ "{\"a\":[{\"b\":\"x\"},true,[{\"b\":\"z\"}]]}", { "[{\"b\":\"z\"}]" } },
		{ "{\"a\":[null,[],{},\"u\",-1.5,{\"b\":\"y\"}]}", { "{\"b\":\"y\"}", "\"y\"" } },
		/* and the last of several arrays, or of what stands in their place */
		{ "{\"a\":[{\"b\":\"x\"}],\"a\":[]}", { NULL } },
		{ "{\"a\":[{\"b\":\"x\"}],\"a\":7}", { NULL } },
		{ "{\"a\":0,\"a\":[{\"b\":\"x\"}]}", { "{\"b\":\"x\"}", "\"x\"" } },
		/* an object has no items, an array has no members */
		{ "{\"a\":{\"b\":\"x\",\"c\":{\"d\":1}}}", { NULL } },
		{ "{\"a\":{\"[]\":{\"b\":\"x\"},\"\":{\"b\":\"x\"}}}", { NULL } },
		{ "{\"a\":[{\"c\":[{\"d\":1}]}]}", { "{\"c\":[{\"d\":1}]}" } },
		{ "{\"x\":{\"a\":[{\"b\":1}]},\"y\":[{\"a\":[{\"b\":1}]}]}", { NULL } },
		{ "[{\"a\":[{\"b\":1}]},{\"b\":1}]", { NULL } },
		/* arrays of arrays */
		{ "{\"m\":[[{\"b\":1}],[{\"b\":2},{\"b\":3}]]}", { NULL, NULL, NULL, "3" } },
		{ "{\"m\":[[{\"b\":1}],{\"b\":2}]}", { NULL } },
	};
	struct scan_table t;
	scan_table_init(&t, item_wants, N_ITEM_WANTS, NULL);
	for (size_t i = 0; i < n_elems(rows); i++) {
		size_t n = strlen(rows[i].doc);
		for (size_t first = 1; first <= n; first++)
			assert_items(&t, &rows[i], first, n);
		assert_items(&t, &rows[i], 1, 1);
	}
}

/* Several paths of one want are names of one member, but that what leads to one of them clears no other. */
static void several_paths_are_one_member(void **state) {
	static const struct scan_want want = { .path = "a|b.c|d.[]", .text_bytes_max = 4 };
	static const struct {
		const char *doc, *found;
	} rows[] = {
		{ "{\"a\":1}", "1" },
		{ "{\"b\":{\"c\":2}}", "2" },
		{ "{\"d\":[3,\"4\"]}", "\"4\"" },
		{ "{\"a\":1,\"b\":{\"c\":2}}", "2" },
		{ "{\"b\":{\"c\":2},\"a\":1}", "1" },
		{ "{\"a\":1,\"b\":{\"x\":2},\"d\":[]}", "1" },
		{ "{\"b\":{\"c\":2},\"b\":{}}", "2" },
		{ "{\"b\":{\"a\":1},\"c\":2,\"d\":3}", NULL },
	};
	struct scan_table t;
	scan_table_init(&t, &want, 1, NULL);
	assert_int_equal(t.text_bytes, 4);
	for (size_t i = 0; i < n_elems(rows); i++)
		for (size_t step = 1; step <= strlen(rows[i].doc); step++) {
			struct slice doc = slice_of(rows[i].doc);
			struct scan_value value;
			struct scan s;
			char text[4];
			scan_init(&s, &t, &value, text, sizeof(text));
			for (size_t at = 0; at < doc.n; at += step)
				assert_true(
				    scan_feed(&s, doc.p + at, size_min(step, doc.n - at)) <= SCAN_COMPLETE);
			const struct scan_value *v = scan_found(&s, 0);
			assert_true(!v == !rows[i].found && !s.open);
			if (v &&
			    !slice_eq(
				slice_head(slice_skip(doc, v->offset), v->length), slice_of(rows[i].found)))
				fail_msg("at %u in %s", (unsigned)v->offset, rows[i].doc);
		}
}

/* ---- members that tell ------------------------------------------------------------ */

enum { TELL_PLACE, TELL_TEXT, TELL_OTHER, N_TELL_WANTS };

static const struct scan_want tell_wants[N_TELL_WANTS] = {
	[TELL_PLACE] = { .path = "v", .tells = true },
	[TELL_TEXT] = { .path = "v.[].parts.[].type", .text_bytes_max = 6, .tells = true },
	[TELL_OTHER] = { .path = "other", .text_bytes_max = 8, .tells = true },
};

struct listener {
	struct scan s;
	const char *begin; /* of the value, or of the piece; NULL: it is not open */
	char told[400];    /* "<" bytes ">" and "(" text ")" */
	size_t n;
};

static void hear(struct listener *l, const char *mark, struct slice bytes) {
	assert_true(l->n + bytes.n + 1 < sizeof(l->told));
	memcpy(l->told + l->n, mark, 1);
	memcpy(l->told + l->n + 1, bytes.p, bytes.n);
	l->n += 1 + bytes.n;
}

static void on_tell(struct scan *s, unsigned id, const char *p) {
	struct listener *l = container_of(s, struct listener, s);
	if (id != TELL_PLACE) {
		assert_non_null(scan_found(s, id));
		hear(l, "(", s->values[id].flaw ? SLICE("?") : s->values[id].text);
	} else if (s->open >> id & 1) {
		l->begin = p;
		hear(l, "<", (struct slice){ "", 0 });
	} else {
		assert_true(scan_found(s, id) && l->begin);
		hear(l, "=", (struct slice){ l->begin, (size_t)(p - l->begin) });
		hear(l, ">", (struct slice){ "", 0 });
		l->begin = NULL;
	}
}

static struct slice listen_to(const struct scan_table *t, struct listener *l, struct slice doc, size_t step) {
	struct scan_value values[N_TELL_WANTS];
	char text[8];
	l->n = 0;
	l->begin = NULL;
	scan_init(&l->s, t, values, text, sizeof(text));
	for (size_t at = 0; at < doc.n; at += step) {
		char *piece = malloc(step);
		size_t n = size_min(step, doc.n - at);
		memcpy(piece, doc.p + at, n);
		if (l->begin)
			l->begin = piece;
		if (scan_feed(&l->s, piece, n) <= SCAN_COMPLETE && l->begin)
			hear(l, "=", (struct slice){ l->begin, (size_t)(piece + n - l->begin) });
		free(piece);
	}
	/* Where the pieces met does not matter. */
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		if (l->told[i] != '=')
			l->told[n++] = l->told[i];
	return (struct slice){ l->told, n };
}

static void members_are_told_while_they_pass(void **state) {
	static const struct {
		const char *doc, *told;
	} rows[] = {
		{ "{\"x\":{\"v\":1},\"v\": [1, \"a]\"] }", "<[1, \"a]\"]>" },
		{ "{\"v\":\"s\\\"\\u0041\",\"w\":2}", "<\"s\\\"\\u0041\">" },
		{ "{\"v\":12}", "<12>" },
		{ "{\"v\":false,\"v\":null}", "<false><null>" },
		{ "{\"v\":{\"v\":{}},\"other\":\"a\\u0062\"}", "<{\"v\":{}}>(ab" },
		{ "{\"other\":\"12345678\",\"other\":\"123456789\",\"other\":[\"x\"]}", "(12345678(?" },
		{ "{\"other\":\"\\n\",\"other\":\"\"}", "(?(" },
	};
	static const char parts[] = "{\"v\":[{\"parts\":[{\"type\":\"i\"},{\"type\":7},{\"type\":\"au\"}]}]}";
	struct scan_table t;
	struct listener l;
	scan_table_init(&t, tell_wants, N_TELL_WANTS, on_tell);
	assert_int_equal(t.text_bytes, 8);
	for (size_t i = 0; i < n_elems(rows); i++)
		for (size_t step = 1; step <= strlen(rows[i].doc); step++)
			if (!slice_eq(listen_to(&t, &l, slice_of(rows[i].doc), step), slice_of(rows[i].told)))
				fail_msg("%.*s of %s, %zu at a time", (int)l.n, l.told, rows[i].doc, step);
	struct slice told = listen_to(&t, &l, SLICE(parts), sizeof(parts));
	assert_true(slice_has_prefix(told, SLICE("<(i(au[{")));
}

/* ---- random texts ---------------------------------------------------------------- */

struct writer {
	struct rng rng;
	size_t n;
	char p[1024];
};

static void put(struct writer *w, const char *text) {
	size_t n = strlen(text);

	if (w->n + n <= sizeof(w->p)) {
		memcpy(w->p + w->n, text, n);
		w->n += n;
	}
}

static const char *one_of(struct writer *w, const char *const *list, size_t n) {
	return list[rng_below(&w->rng, n)];
}

static void put_space(struct writer *w) {
	static const char *const spaces[] = { "", "", "", "", " ", "\n\t", "  \r" };

	put(w, one_of(w, spaces, n_elems(spaces)));
}

static void put_string(struct writer *w) {
	static const char *const parts[] = { "model", "a", "xyz", "\\n", "\\\"", "\\\\", "\\/", "\\u0041",
		"\\u20aC", "\\ud83d\\ude00", "\xc3\xa9", "\xf0\x9f\x98\x80", "\\u0000", "\x7f", " {[:,]} ",
		"a run of text that is longer than any block the kernels know, so that they must go round" };

	put(w, "\"");
	for (uint64_t n = rng_below(&w->rng, 5); n > 0; n--)
		put(w, one_of(w, parts, n_elems(parts)));
	put(w, "\"");
}

static void put_value(struct writer *w, unsigned level);

static void put_members(struct writer *w, unsigned level) {
	static const char *const keys[] = { "model", "mod\\u0065l", "stream", "usage", "tokens", "details",
		"cached", "a", "b", "c", "d", "\\u0061", "messages", "x", "",
		"a key that is longer than all wanted ones are" };
	uint64_t n = rng_below(&w->rng, 5);

	for (uint64_t i = 0; i < n; i++) {
		put(w, i ? ",\"" : "\"");
		put(w, one_of(w, keys, n_elems(keys)));
		put(w, "\"");
		put_space(w);
		put(w, ":");
		put_value(w, level + 1);
	}
}

static void put_value(struct writer *w, unsigned level) {
	static const char *const scalars[] = { "null", "true", "false", "0", "-0", "12", "3.25", "-1e-7",
		"9223372036854775807", "1E+2" };
	uint64_t kind = rng_below(&w->rng, level == 0 ? 8 : 10);

	put_space(w);
	if (level < 7 && kind < (level < 4 ? 6 : 3)) {
		put(w, "{");
		put_members(w, level);
		put_space(w);
		put(w, "}");
	} else if (level < 7 && kind < 7) {
		put(w, "[");
		for (uint64_t i = 0, n = rng_below(&w->rng, 3); i < n; i++) {
			put(w, i ? "," : "");
			put_value(w, level + 1);
		}
		put(w, "]");
	} else if (kind < 8) {
		put_string(w);
	} else {
		put(w, one_of(w, scalars, n_elems(scalars)));
	}
	put_space(w);
}

static void mutate(struct writer *w) {
	static const char bytes[] = "{}[]\",:\\u0e-+.tfn19 \n\x01\x80\xed\xa0";
	size_t at = rng_below(&w->rng, w->n), n = rng_below(&w->rng, 9);

	switch (rng_below(&w->rng, 4)) {
	case 0:
		w->p[at] = bytes[rng_below(&w->rng, sizeof(bytes))];
		break;
	case 1: /* takes some bytes out */
		n = size_min(n, w->n - at);
		memmove(w->p + at, w->p + at + n, w->n - at - n);
		w->n -= n;
		break;
	case 2: /* writes some again */
		n = size_min(n, w->n - at);
		n = size_min(n, sizeof(w->p) - w->n);
		memmove(w->p + at + n, w->p + at, w->n - at);
		w->n += n;
		break;
	default:
		w->n = at;
	}
	w->n = size_max(w->n, 1);
}

static void random_texts_are_read_as_jansson_reads_them(void **state) {
	struct writer w;
	unsigned n_taken = 0, n_refused = 0, n_found = 0;

	for (uint64_t seed = 0; seed < 2000; seed++) {
		rng_init(&w.rng, seed);
		w.n = 0;
		put_value(&w, 0);
		for (unsigned round = 0; round < 4; round++) {
			struct oracle_scan o = scan_of((struct slice){ w.p, w.n });

			*(o.finished == SCAN_COMPLETE ? &n_taken : &n_refused) += 1;
			n_found += o.s.found != 0;
			mutate(&w);
		}
	}
	/* The generator is good for something: of 8,000 texts a fair part is of each kind. */
	assert_in_range(n_taken, 2000, 6000);
	assert_in_range(n_refused, 2000, 6000);
	assert_in_range(n_found, 1000, 8000);
}

/* ---- kernels --------------------------------------------------------------------- */

/* The contract of a kernel, byte by byte. */
static const char *skip_by_the_book(const char *p, const char *end) {
	while (p < end && *p != '"' && (uint8_t)*p >= 0x20) {
		size_t n = *p != '\\' ? 1 : end - p > 1 && p[1] == 'u' ? 6 : 2;

		if ((size_t)(end - p) < n)
			return p;
		if (n > 1 && (p[1] == 0 || !strchr("\"\\/bfnrtu", p[1])))
			return p;
		for (size_t i = 2; i < n; i++)
			if (!isxdigit((uint8_t)p[i]))
				return p;
		p += n;
	}
	return p;
}

static void both_kernels_go_by_the_book(void **state) {
	static const char *const parts[] = { "\\n", "\\\"", "\\\\", "\\u00e9", "\\u12g4", "\\x", "\"", "\x1f",
		"\\", "\\u" };
	size_t page = 4096;
	char *room = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *end = room + page;
	struct rng rng;

	assert_ptr_not_equal(room, MAP_FAILED);
	assert_int_equal(mprotect(room + page, page, PROT_NONE), 0);
	rng_init(&rng, 4);
	for (unsigned round = 0; round < 20000; round++) {
		size_t n = rng_below(&rng, 200);
		char *p = room + page - n;

		for (size_t i = 0; i < n; i++)
			p[i] = (char)(rng_below(&rng, 8) ? 'a' : 0x80 + rng_below(&rng, 0x80));
		for (size_t i = rng_below(&rng, 60); i + 8 < n; i += 1 + rng_below(&rng, 60)) {
			const char *part = parts[rng_below(&rng, rng_below(&rng, 4) ? 4 : n_elems(parts))];

			memcpy(p + i, part, strlen(part));
		}
		for (size_t cut = 0; cut < size_min(n, 9); cut++) {
			const char *stop = skip_by_the_book(p, end - cut);

			assert_ptr_equal(scan_skip_sse2(p, end - cut), stop);
			if (scan_has_avx2())
				assert_ptr_equal(scan_skip_avx2(p, end - cut), stop);
		}
	}
	munmap(room, 2 * page);
}

/* Every byte at every place of a block, in front of the end and far from it. */
static void each_special_byte_is_seen_at_each_place(void **state) {
	char text[192];

	for (unsigned c = 0; c < 256; c++) {
		for (size_t at = 0; at < 130; at++) {
			memset(text, 'x', sizeof(text));
			text[at] = (char)c;

			bool is_special = c < 0x20 || c == '"' || c == '\\';
			for (size_t n = at + 1; n <= sizeof(text); n += 31) {
				const char *stop = text + (is_special ? at : n);

				assert_ptr_equal(scan_skip_sse2(text, text + n), stop);
				if (scan_has_avx2())
					assert_ptr_equal(scan_skip_avx2(text, text + n), stop);
				assert_ptr_equal(scan_span(text, text + n), stop);
			}
		}
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_is_taken),
		cmocka_unit_test(all_else_is_refused),
		cmocka_unit_test(a_refusal_is_final_and_names_its_byte),
		cmocka_unit_test(a_blank_text_is_told_from_a_broken_one),
		cmocka_unit_test(values_are_found_with_type_and_place),
		cmocka_unit_test(what_stands_beside_a_path_does_not_hide_it),
		cmocka_unit_test(a_value_of_another_type_is_recorded_as_such),
		cmocka_unit_test(only_the_path_counts),
		cmocka_unit_test(a_unique_member_comes_once),
		cmocka_unit_test(of_other_members_the_last_counts),
		cmocka_unit_test(text_is_decoded),
		cmocka_unit_test(bad_text_is_flagged),
		cmocka_unit_test(text_has_a_ceiling),
		cmocka_unit_test(a_model_name_has_256_bytes),
		cmocka_unit_test(whole_numbers_are_counted),
		cmocka_unit_test(there_are_512_levels),
		cmocka_unit_test(every_level_remembers_its_kind),
		cmocka_unit_test(a_value_is_known_with_its_last_byte),
		cmocka_unit_test(paths_lead_through_arrays),
		cmocka_unit_test(several_paths_are_one_member),
		cmocka_unit_test(members_are_told_while_they_pass),
		cmocka_unit_test(random_texts_are_read_as_jansson_reads_them),
		cmocka_unit_test(both_kernels_go_by_the_book),
		cmocka_unit_test(each_special_byte_is_seen_at_each_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
