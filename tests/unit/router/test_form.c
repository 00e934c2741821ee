#include "unit/unit.h"

#include "router/form.h"

#define TYPE "multipart/form-data; boundary="

static const char disposition[] = "Content-Disposition: form-data; name=";

/* Feeds it in memory of its own: `first` bytes, then `step` at a time. */
static enum form_verdict read_form(
    struct form *f, const char *type, struct slice body, size_t first, size_t step) {
	assert_true(form_init(f, slice_of(type)));
	enum form_verdict verdict = FORM_MORE;
	for (size_t at = 0, n = first; at < body.n || n == first; at += n, n = step) {
		n = size_min(n, body.n - at);
		char *exact = malloc(n + !n);
		memcpy(exact, body.p + at, n);
		enum form_verdict now = form_feed(f, exact, n);
		free(exact);
		if (verdict > FORM_COMPLETE)
			assert_int_equal(now, verdict);
		verdict = now;
		if (at + n == body.n)
			break;
	}
	return form_finish(f);
}

struct row {
	const char *body;
	enum form_verdict verdict;
	const char *model; /* of a complete one */
};

#define PART(name, value) "--x\r\nContent-Disposition: form-data; name=" name "\r\n\r\n" value "\r\n"
#define FILE_PART                                                                                            \
	"--x\r\ncontent-type: audio/wav\r\nCONTENT-DISPOSITION: form-data; name=\"file\"; "                  \
	"filename=\"name=\\\"model\\\".wav\"\r\n\r\nRIFF\r\r\n\r\n-\r\n--\r\n--y\r\n--X\r\n"

static const struct row rows[] = {
	{ PART("\"model\"", "m") "--x--", FORM_COMPLETE, "m" },
	{ PART("\"model\"", "m") "--x--\r\n", FORM_COMPLETE, "m" },
	{ PART("model", "m") "--x--", FORM_COMPLETE, "m" },
	{ PART("\"mo\\del\"", "m") "--x--", FORM_COMPLETE, "m" },
	{ PART("\"model\"", "") "--x--", FORM_COMPLETE, "" },
	{ PART("\"model\" ; x=y;", "m") "--x--", FORM_COMPLETE, "m" },
	{ PART("model;filename=\"a;b\"", "m") "--x--", FORM_COMPLETE, "m" },
	{ PART("\"model\"", "\r\n--\r\n--y\r\r\nm\r\n-") "--x--", FORM_COMPLETE,
	    "\r\n--\r\n--y\r\r\nm\r\n-" },
	{ FILE_PART PART("\"model\"", "m") "--x--", FORM_COMPLETE, "m" },
	{ PART("\"model\"", "m") FILE_PART "--x--", FORM_COMPLETE, "m" },
	{ "a preamble\r\n--y\r\n-" PART("\"model\"", "m") "--x--", FORM_COMPLETE, NULL },
	{ "a preamble\r\n--y\r\n\r\n" PART("\"model\"", "m") "--x-- \r\nan epilogue\r\n" PART(
	      "\"model\"", "n"),
	    FORM_COMPLETE, "m" },
	{ "--x \t\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x--", FORM_COMPLETE, "m" },
	/* another name, or none */
	{ PART("\"Model\"", "m") "--x--", FORM_COMPLETE, NULL },
	{ PART("\"models\"", "m") "--x--", FORM_COMPLETE, NULL },
	{ PART("\"mode\"", "m") "--x--", FORM_COMPLETE, NULL },
	{ PART("a; filename=\"model\"", "m") "--x--", FORM_COMPLETE, NULL },
	{ PART("\"a\"; x=\"; name=model\"", "m") "--x--", FORM_COMPLETE, NULL },
	{ "--x\r\nX-Name: ; name=\"model\"\r\n\r\nm\r\n--x--", FORM_COMPLETE, NULL },
	{ "--x\r\n\r\nm\r\n--x--", FORM_COMPLETE, NULL },
	{ "--x--", FORM_COMPLETE, NULL },
	/* twice */
	{ PART("\"model\"", "m") PART("\"model\"", "m") "--x--", FORM_E_DUPLICATE, NULL },
	{ PART("\"model\"", "m") FILE_PART PART("model", "n") "--x--", FORM_E_DUPLICATE, NULL },
	{ PART("\"model\"; name=\"a\"", "m") "--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a; name=a\r\nContent-Disposition: a; name=model\r\n\r\nm\r\n--x--",
	    FORM_E_SYNTAX, NULL },
	/* not a form */
	{ "", FORM_E_SYNTAX, NULL },
	{ "{\"model\":\"m\"}", FORM_E_SYNTAX, NULL },
	{ PART("\"model\"", "m"), FORM_E_SYNTAX, NULL },
	{ PART("\"model\"", "m") "--x", FORM_E_SYNTAX, NULL },
	{ PART("\"model\"", "m") "--x-", FORM_E_SYNTAX, NULL },
	{ PART("\"model\"", "m") "--xy--", FORM_E_SYNTAX, NULL },
	{ PART("\"model\"", "m") "--x-y", FORM_E_SYNTAX, NULL },
	{ "--x\nContent-Disposition: a; name=a\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a; name=a\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a; name=a\r\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a;\r\n name=a\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a; name=\"a\r\n\"\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a; name=\"a\\\r\n\"\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a; name=\"a\"b\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition: a; name\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent-Disposition : a; name=a\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\nContent Disposition\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
	{ "--x\r\n: a\r\n\r\n\r\n--x--", FORM_E_SYNTAX, NULL },
};

static void assert_row(const struct row *row, const char *type, size_t first, size_t step) {
	struct form f;
	enum form_verdict verdict = read_form(&f, type, slice_of(row->body), first, step);
	struct slice model = form_value(&f);
	if (verdict != row->verdict)
		fail_msg("%d, not %d (%zu, %zu): %s", verdict, row->verdict, first, step, row->body);
	if (verdict == FORM_COMPLETE && (!model.p != !row->model || !slice_eq(model, slice_of(row->model))))
		fail_msg("\"%.*s\" (%zu, %zu): %s", (int)model.n, model.p, first, step, row->body);
}

static void forms_are_read_in_any_parts(void **state) {
	for (size_t i = 0; i < n_elems(rows); i++) {
		size_t n = strlen(rows[i].body);
		for (size_t first = 0; first <= n; first++)
			assert_row(&rows[i], TYPE "x", first, n + 1);
		for (size_t step = 1; step < 6; step++)
			assert_row(&rows[i], TYPE "\"x\"; charset=utf-8", step, step);
	}
}

static void the_model_is_known_before_the_end(void **state) {
	struct form f;
	assert_true(form_init(&f, SLICE(TYPE "x")));
	assert_true(form_is_blank(&f));
	assert_int_equal(form_feed(&f, PART("model", "name"), sizeof(PART("model", "name")) - 1), FORM_MORE);
	assert_false(form_is_blank(&f));
	assert_null(form_value(&f).p);
	assert_int_equal(form_feed(&f, "--x", 3), FORM_MORE);
	assert_true(slice_eq(form_value(&f), SLICE("name")));
	assert_int_equal(form_feed(&f, "--", 2), FORM_COMPLETE);
}

static void boundaries(void **state) {
	static const char b70[] = "0123456789012345678901234567890123456789012345678901234567890123456789";
	static const struct {
		const char *type;
		bool is_good;
	} types[] = {
		{ TYPE "x", true },
		{ TYPE "\"x\"", true },
		{ "multipart/form-data;BOUNDARY=x", true },
		{ "multipart/form-data ; a=\"b;boundary=y\" ; boundary = x", false },
		{ "multipart/form-data ; a=\"b;boundary=y\" ; boundary=\"'()+_,-./:=? x\" ", true },
		{ TYPE "----WebKitFormBoundary7MA4YWxkTrZu0gW", true },
		{ "multipart/form-data", false },
		{ "multipart/form-data; charset=utf-8", false },
		{ TYPE, false },
		{ TYPE "\"\"", false },
		{ TYPE "\"x", false },
		{ TYPE "\"x\"y", false },
		{ TYPE "x;", true },
		{ TYPE "x; y", false },
		{ TYPE "\"x \"", false },
		{ TYPE "\"x\\y\"", false },
		{ TYPE "x@", false },
		{ TYPE "x; boundary=x", false },
		{ "multipart/form-data; boundary", false },
	};
	struct form f;
	char type[200];
	for (size_t i = 0; i < n_elems(types); i++)
		if (form_init(&f, slice_of(types[i].type)) != types[i].is_good)
			fail_msg("%s", types[i].type);
	snprintf(type, sizeof(type), TYPE "%s", b70);
	assert_true(form_init(&f, slice_of(type)));
	snprintf(type, sizeof(type), TYPE "%s0", b70);
	assert_false(form_init(&f, slice_of(type)));
	assert_false(form_init(&f, (struct slice){ "", 0 }));
}

/* A value of n bytes, behind `n_pad` bytes more of headers. */
static enum form_verdict read_large(struct form *f, size_t n_value, size_t n_pad) {
	char *body;
	size_t n;
	FILE *out = open_memstream(&body, &n);
	fprintf(out, "--x\r\n%s\"model\"\r\nA:", disposition);
	while (n_pad-- > 0)
		fputc('a', out);
	fputs("\r\n\r\n", out);
	while (n_value-- > 0)
		fputc('m', out);
	fputs("\r\n--x--", out);
	fclose(out);
	enum form_verdict verdict = read_form(f, TYPE "x", (struct slice){ body, n }, 7, 1000);
	free(body);
	return verdict;
}

static void limits(void **state) {
	const size_t n_pad = FORM_HEADERS_MAX - (sizeof(disposition) - 1) - strlen("\"model\"\r\nA:\r\n\r\n");
	struct form f;
	assert_int_equal(read_large(&f, FORM_VALUE_MAX, n_pad), FORM_COMPLETE);
	assert_int_equal(form_value(&f).n, FORM_VALUE_MAX);
	assert_int_equal(read_large(&f, FORM_VALUE_MAX, n_pad + 1), FORM_E_SYNTAX);
	for (size_t n = FORM_VALUE_MAX + 1; n < 3000; n += 999) {
		assert_int_equal(read_large(&f, n, 0), FORM_COMPLETE);
		assert_true(f.has_value);
		assert_null(form_value(&f).p);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms_are_read_in_any_parts),
		cmocka_unit_test(the_model_is_known_before_the_end),
		cmocka_unit_test(boundaries),
		cmocka_unit_test(limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
