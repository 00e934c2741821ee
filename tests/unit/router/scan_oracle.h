/*
 * scan_oracle: judges the scanner's outcome for one text by jansson. Shared by the
 * unit test and the fuzzer.
 *
 * oracle_judge() returns NULL, or what is wrong:
 * - the outcome depends on how the text was cut, or on the kernel;
 * - jansson takes the text and the scanner does not, or the other way round, but for
 *   what both are known to judge differently (oracle_is_excused());
 * - a wanted value is not jansson's, or its place does not hold it;
 * - a repeated unique member passed, or was refused where there is none.
 */
#pragma once

#include <jansson.h>
#include <math.h>

#include "router/scan_simd.h"

enum { WANT_MODEL, WANT_STREAM, WANT_USAGE, WANT_TOKENS, WANT_CACHED, WANT_DEEP, WANT_MESSAGES, N_WANTED };
enum { ORACLE_TEXT_BYTES = 64, ORACLE_FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL };

static const struct scan_want oracle_wants[N_WANTED] = {
	[WANT_MODEL] = { .path = "model", .text_bytes_max = 16 },
	[WANT_STREAM] = { .path = "stream", .text_bytes_max = 4 },
	[WANT_USAGE] = { .path = "usage" },
	[WANT_TOKENS] = { .path = "usage.tokens", .text_bytes_max = 1 },
	[WANT_CACHED] = { .path = "usage.details.cached" },
	[WANT_DEEP] = { .path = "a.b.c.d", .text_bytes_max = 8 },
	[WANT_MESSAGES] = { .path = "messages" },
};

/* One scan, and all that may be known of it. */
struct oracle_scan {
	struct scan s;
	enum scan_verdict fed, finished;
	struct scan_value values[N_WANTED];
	char text[ORACLE_TEXT_BYTES];
};

static inline void oracle_table(struct scan_table *t, scan_skip_fn skip, bool unique) {
	struct scan_want wants[N_WANTED];
	memcpy(wants, oracle_wants, sizeof(wants));
	wants[WANT_MODEL].unique = unique;
	scan_table_init(t, wants, N_WANTED, NULL);
	t->skip = skip;
}

/* Feeds a piece from memory of just its size, which is gone afterwards. */
static inline void oracle_feed(struct oracle_scan *o, struct slice piece) {
	char *copy = malloc(piece.n);
	if (piece.n)
		memcpy(copy, piece.p, piece.n);
	o->fed = scan_feed(&o->s, copy, piece.n);
	free(copy);
}

/* The first piece has n_first bytes, the others n_next. */
static inline void oracle_run(
    struct oracle_scan *o, const struct scan_table *t, struct slice doc, size_t n_first, size_t n_next) {
	scan_init(&o->s, t, o->values, o->text, sizeof(o->text));
	struct slice head = slice_head(doc, n_first);
	oracle_feed(o, head);
	for (struct slice rest = slice_skip(doc, head.n); rest.n; rest = slice_skip(rest, head.n)) {
		head = slice_head(rest, n_next);
		oracle_feed(o, head);
	}
	o->finished = scan_finish(&o->s);
}

static inline bool oracle_is_same(const struct oracle_scan *a, const struct oracle_scan *b) {
	if (a->fed != b->fed || a->finished != b->finished || a->s.offset != b->s.offset ||
	    a->s.found != b->s.found || a->s.open != b->s.open)
		return false;
	for (unsigned id = 0; id < N_WANTED; id++) {
		const struct scan_value *v = &a->values[id], *w = &b->values[id];
		if (a->s.open >> id & 1 && (v->type != w->type || v->offset != w->offset))
			return false;
		if (!scan_found(&a->s, id))
			continue;
		if (v->type != w->type || v->flaw != w->flaw || v->offset != w->offset ||
		    v->length != w->length)
			return false;
		if (v->type == SCAN_STRING     ? !slice_eq(v->text, w->text)
			: v->type == SCAN_BOOL ? v->truth != w->truth
					       : v->number != w->number)
			return false;
	}
	return true;
}

/* Into small pieces of one size, and in two: at every place of a text shorter than n_cuts, else at some. */
static inline bool oracle_is_cut_the_same(
    const struct scan_table *t, struct slice doc, size_t n_cuts, const struct oracle_scan *whole) {
	static const size_t pieces[] = { 1, 2, 7, 16, 65 };
	struct oracle_scan o;
	for (size_t i = 0; i < n_elems(pieces); i++) {
		oracle_run(&o, t, doc, pieces[i], pieces[i]);
		if (!oracle_is_same(&o, whole))
			return false;
	}
	for (size_t at = 0; at < doc.n; at += 1 + doc.n / n_cuts) {
		oracle_run(&o, t, doc, at, doc.n);
		if (!oracle_is_same(&o, whole))
			return false;
	}
	return true;
}

/* What a slow reader of a valid text counts. */
struct oracle_count {
	size_t n_levels_max;
	size_t n_models; /* keys "model" at the top, however they are spelt */
};

static inline bool oracle_is_model_key(struct slice string, struct slice behind) {
	while (behind.n && strchr(" \t\n\r", behind.p[0]))
		behind = slice_skip(behind, 1);
	if (!behind.n || behind.p[0] != ':')
		return false;
	json_t *key = json_loadb(string.p, string.n, ORACLE_FLAGS, NULL);
	bool is_model = key &&
	    slice_eq(SLICE("model"), (struct slice){ json_string_value(key), json_string_length(key) });
	json_decref(key);
	return is_model;
}

static inline struct oracle_count oracle_count(struct slice doc) {
	struct oracle_count count = { 0 };
	size_t n_levels = 0;
	bool is_object = false;
	for (size_t i = 0; i < doc.n; i++) {
		char c = doc.p[i];
		if (c == '{' || c == '[') {
			is_object = n_levels == 0 ? c == '{' : is_object;
			n_levels++;
			count.n_levels_max = size_max(count.n_levels_max, n_levels);
		} else if (c == '}' || c == ']') {
			n_levels--;
		} else if (c == '"') {
			size_t begin = i++;
			for (; doc.p[i] != '"'; i++)
				i += doc.p[i] == '\\';
			struct slice string = { doc.p + begin, i + 1 - begin };
			if (n_levels == 1 && is_object && oracle_is_model_key(string, slice_skip(doc, i + 1)))
				count.n_models++;
		}
	}
	return count;
}

/* Grammar is not in question where jansson refuses for one of these reasons; it checks all strings. */
static inline bool oracle_is_excused(const json_error_t *error) {
	switch (json_error_code(error)) {
	case json_error_invalid_utf8:
	case json_error_null_byte_in_key:
	case json_error_numeric_overflow:
		return true;
	default:
		return strncmp(error->text, "invalid Unicode", 15) == 0; /* a lone surrogate */
	}
}

static inline const json_t *oracle_value(const json_t *top, const char *path) {
	char keys[64], *rest = keys;
	snprintf(keys, sizeof(keys), "%s", path);
	while (top && rest)
		top = json_object_get(top, strsep(&rest, "."));
	return top;
}

static inline enum scan_type oracle_type(const json_t *value) {
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return SCAN_OBJECT;
	case JSON_ARRAY:
		return SCAN_ARRAY;
	case JSON_STRING:
		return SCAN_STRING;
	case JSON_INTEGER:
	case JSON_REAL:
		return SCAN_NUMBER;
	case JSON_NULL:
		return SCAN_NULL;
	default:
		return SCAN_BOOL;
	}
}

static inline enum scan_flaw oracle_flaw_of_string(const json_t *value, size_t n_max) {
	const char *p = json_string_value(value);
	size_t n = json_string_length(value);
	if (n > n_max)
		return SCAN_TOO_LONG;
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)p[i] < 0x20 || p[i] == 0x7f)
			return SCAN_BAD_TEXT;
	return SCAN_SOUND;
}

static inline enum scan_flaw oracle_read_number(const json_t *value, uint64_t *number_out) {
	double real = json_number_value(value);
	*number_out = json_is_integer(value) ? (uint64_t)json_integer_value(value)
	    : real >= 0x1p64                 ? UINT64_MAX
	    : real == floor(real)            ? (uint64_t)real
					     : 0;
	if (json_is_integer(value) || (real < 0x1p64 && real == floor(real)))
		return SCAN_SOUND;
	return real >= 0x1p64 ? SCAN_TOO_LARGE : SCAN_NOT_COUNTED;
}

static inline const char *oracle_judge_value(
    struct slice doc, unsigned id, const struct scan_value *v, const json_t *value) {
	if (!v || !value)
		return v ? "found what is not there" : value ? "did not find what is there" : NULL;
	if (v->type != oracle_type(value))
		return "wrong type";
	json_t *again = json_loadb(doc.p + v->offset, v->length, ORACLE_FLAGS, NULL);
	bool is_there = again && json_equal(again, value);
	json_decref(again);
	if (!is_there)
		return "wrong place";
	if (v->type == SCAN_BOOL)
		return v->truth == json_is_true(value) ? NULL : "wrong truth";
	if (v->type == SCAN_NUMBER) {
		uint64_t number;
		enum scan_flaw flaw = oracle_read_number(value, &number);
		if (doc.p[v->offset] == '-' || (json_is_real(value) && v->length > 32))
			flaw = SCAN_NOT_COUNTED, number = 0;
		return v->flaw == flaw && v->number == number ? NULL : "wrong number";
	}
	size_t n_max = oracle_wants[id].text_bytes_max;
	if (v->type != SCAN_STRING || n_max == 0)
		return v->flaw == SCAN_SOUND ? NULL : "a flaw without a reason";
	struct slice text = { json_string_value(value), json_string_length(value) };
	enum scan_flaw flaw = oracle_flaw_of_string(value, n_max);
	if (v->flaw != flaw)
		return "wrong flaw of a string";
	return slice_eq(v->text, flaw ? (struct slice){ NULL, 0 } : text) ? NULL : "wrong text";
}

static inline const char *oracle_judge_unique(
    struct slice doc, size_t n_cuts, const struct oracle_scan *plain) {
	struct scan_table t;
	struct oracle_scan o;
	oracle_table(&t, scan_skip_sse2, true);
	oracle_run(&o, &t, doc, doc.n, doc.n);
	if (!oracle_is_cut_the_same(&t, doc, n_cuts, &o))
		return "a cut changes the outcome (unique)";
	if (plain->finished != SCAN_COMPLETE)
		return NULL;
	if (oracle_count(doc).n_models > 1)
		return o.finished == SCAN_E_DUPLICATE ? NULL : "a repeated unique member passed";
	return oracle_is_same(&o, plain) ? NULL : "a unique member changes the outcome";
}

static inline const char *oracle_judge(struct slice doc, size_t n_cuts) {
	struct scan_table t;
	struct oracle_scan whole, other;
	oracle_table(&t, scan_skip_sse2, false);
	oracle_run(&whole, &t, doc, doc.n, doc.n);
	if (!oracle_is_cut_the_same(&t, doc, n_cuts, &whole))
		return "a cut changes the outcome";
	if (scan_has_avx2()) {
		t.skip = scan_skip_avx2;
		oracle_run(&other, &t, doc, doc.n, doc.n);
		if (!oracle_is_same(&other, &whole) || !oracle_is_cut_the_same(&t, doc, 4, &whole))
			return "the kernels differ";
	}
	json_error_t error;
	json_t *top = json_loadb(doc.p, doc.n, ORACLE_FLAGS, &error);
	const char *why = oracle_judge_unique(doc, n_cuts, &whole);
	if (!top) {
		if (whole.finished == SCAN_COMPLETE && !oracle_is_excused(&error))
			why = "took what is not JSON";
	} else if (oracle_count(doc).n_levels_max > SCAN_DEPTH_MAX) {
		if (whole.finished != SCAN_E_DEPTH)
			why = "took too many levels";
	} else if (whole.finished != SCAN_COMPLETE) {
		/* jansson loses a zero byte behind a number or a literal. */
		if (whole.s.offset == doc.n || doc.p[whole.s.offset] != '\0')
			why = "refused what is JSON";
	} else {
		for (unsigned id = 0; id < N_WANTED && !why; id++)
			why = oracle_judge_value(
			    doc, id, scan_found(&whole.s, id), oracle_value(top, oracle_wants[id].path));
	}
	json_decref(top);
	return why;
}
