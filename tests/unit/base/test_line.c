#include "unit/unit.h"

#include <jansson.h>

#include "base/line.h"
#include "base/rng.h"

/* Ends the line; it must be one JSON object and nothing else. The caller frees it. */
static json_t *ended(struct line *l) {
	line_end(l);
	assert_true(l->n <= LINE_BYTES);
	assert_ptr_equal(memchr(l->text, '\n', l->n), l->text + l->n - 1);
	json_error_t error;
	json_t *json = json_loadb(
	    l->text, l->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
	if (!json)
		fail_msg("%s in %.*s", error.text, (int)l->n, l->text);
	return json;
}

static void assert_line(struct line *l, const char *text) {
	json_decref(ended(l));
	if (!slice_eq((struct slice){ l->text, l->n - 1 }, slice_of(text)))
		fail_msg("%.*s is not %s", (int)l->n - 1, l->text, text);
}

static void all_kinds_of_values(void **state) {
	struct line l;
	line_begin(&l);
	assert_line(&l, "{}");

	line_begin(&l);
	line_text(&l, SLICE("a"), SLICE("x"));
	line_uint(&l, SLICE("b"), 0);
	line_uint(&l, SLICE("c"), UINT64_MAX);
	line_bool(&l, SLICE("d"), true);
	line_bool(&l, SLICE("e"), false);
	line_text(&l, SLICE("f"), (struct slice){ NULL, 0 });
	assert_line(&l, "{\"a\":\"x\",\"b\":0,\"c\":18446744073709551615,\"d\":true,\"e\":false,\"f\":\"\"}");
}

static void durations_have_three_decimals(void **state) {
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {
		{ 0, "{\"t\":0.000}" },
		{ 999, "{\"t\":0.000}" },
		{ 1000, "{\"t\":0.001}" },
		{ 1050000, "{\"t\":1.050}" },
		{ 12345678901, "{\"t\":12345.678}" },
		{ UINT64_MAX, "{\"t\":18446744073709.551}" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct line l;
		line_begin(&l);
		line_ms(&l, SLICE("t"), rows[i].ns);
		assert_line(&l, rows[i].text);
	}
}

static void times_are_utc(void **state) {
	static const struct {
		uint64_t ms;
		const char *text;
	} rows[] = {
		{ 0, "{\"t\":\"1970-01-01T00:00:00.000Z\"}" },
		{ 999, "{\"t\":\"1970-01-01T00:00:00.999Z\"}" },
		{ 1000, "{\"t\":\"1970-01-01T00:00:01.000Z\"}" },
		{ 951782399007, "{\"t\":\"2000-02-28T23:59:59.007Z\"}" },
		{ 951782400000, "{\"t\":\"2000-02-29T00:00:00.000Z\"}" },
		{ 951782400000, "{\"t\":\"2000-02-29T00:00:00.000Z\"}" },
		{ 4102444799999, "{\"t\":\"2099-12-31T23:59:59.999Z\"}" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct line l;
		line_begin(&l);
		line_time(&l, SLICE("t"), rows[i].ms);
		assert_line(&l, rows[i].text);
	}
}

/* No byte can end the line, the string or the object. */
static void every_byte_is_itself_or_escaped(void **state) {
	for (unsigned c = 0; c < 256; c++) {
		char text[] = { 'a', (char)c, 'b' };
		struct line l;
		line_begin(&l);
		line_text(&l, SLICE("k"), (struct slice){ text, 3 });
		json_t *json = ended(&l);
		json_t *value = json_object_get(json, "k");
		if (c < 0x80) {
			assert_int_equal(json_string_length(value), 3);
			assert_memory_equal(json_string_value(value), text, 3);
		} else {
			assert_string_equal(json_string_value(value),
			    "a\xef\xbf\xbd"
			    "b");
		}
		json_decref(json);
		if (c < 0x20 || c == 0x7f)
			assert_null(memchr(l.text, (int)c, l.n - 1));
	}
}

static void only_true_utf8_goes_through(void **state) {
	static const char *const good[] = { "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
		"\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "\xe6\xb0\xb4" };
	static const char *const bad[] = { "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41",
		"\xe0\x9f\xbf", "\xe0\xa0", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xff", "\xf0\x90\x80\x41" };
	struct line l;
	for (size_t i = 0; i < n_elems(good); i++) {
		line_begin(&l);
		line_text(&l, SLICE("k"), slice_of(good[i]));
		json_t *json = ended(&l);
		assert_string_equal(json_string_value(json_object_get(json, "k")), good[i]);
		json_decref(json);
	}
	for (size_t i = 0; i < n_elems(bad); i++) {
		line_begin(&l);
		line_text(&l, SLICE("k"), slice_of(bad[i]));
		json_t *json = ended(&l);
		assert_memory_equal(json_string_value(json_object_get(json, "k")), "\xef\xbf\xbd", 3);
		json_decref(json);
	}
}

static void a_long_value_is_cut(void **state) {
	static char text[5000];
	struct line l;
	memset(text, 'x', sizeof(text));
	line_begin(&l);
	line_text(&l, SLICE("k"), (struct slice){ text, sizeof(text) });
	line_uint(&l, SLICE("after"), 1);
	json_t *json = ended(&l);
	assert_int_equal(json_string_length(json_object_get(json, "k")), LINE_VALUE_MAX);
	assert_true(json_number_value(json_object_get(json, "after")) == 1);
	json_decref(json);
}

/* One more value, of any kind; n makes its key another one each time. */
static void put_any(struct line *l, struct rng *rng, unsigned n) {
	static const char alphabet[] = "abc\"\\\n\x01\x7f\xc3\xa9\xff\xf0\x90\x80\x80";
	char key[64], text[600];
	size_t key_n = (size_t)snprintf(key, sizeof(key), "%u%.*s", n, (int)rng_below(rng, 50),
	    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk");
	size_t text_n = rng_below(rng, rng_below(rng, 4) ? 40 : sizeof(text));
	for (size_t i = 0; i < text_n; i++)
		text[i] = alphabet[rng_below(rng, sizeof(alphabet) - 1)];
	struct slice k = { key, key_n };
	switch (rng_below(rng, 5)) {
	case 0:
		line_uint(l, k, rng_next(rng));
		break;
	case 1:
		line_ms(l, k, rng_next(rng));
		break;
	case 2:
		line_bool(l, k, rng_below(rng, 2));
		break;
	case 3:
		line_time(l, k, rng_below(rng, 1ull << 42));
		break;
	default:
		line_text(l, k, (struct slice){ text, text_n });
	}
}

static void a_full_line_is_still_json(void **state) {
	struct rng rng;
	rng_init(&rng, 1);
	for (unsigned round = 0; round < 1000; round++) {
		struct line l;
		line_begin(&l);
		for (unsigned n = 0; n < 120; n++)
			put_any(&l, &rng, n);
		assert_true(l.n > LINE_BYTES - 120);
		json_decref(ended(&l));
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_kinds_of_values),
		cmocka_unit_test(durations_have_three_decimals),
		cmocka_unit_test(times_are_utc),
		cmocka_unit_test(every_byte_is_itself_or_escaped),
		cmocka_unit_test(only_true_utf8_goes_through),
		cmocka_unit_test(a_long_value_is_cut),
		cmocka_unit_test(a_full_line_is_still_json),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
