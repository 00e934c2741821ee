/* fuzz_form: a form is read the same however it is cut. The first byte says how, the second how long the
 * boundary is, which the next bytes are. */
#include "router/form.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static enum form_verdict read_form(struct form *f, struct slice type, struct slice body, size_t step) {
	if (!form_init(f, type))
		return FORM_E_SYNTAX;
	for (size_t at = 0; at < body.n; at += step) {
		struct slice part = slice_head(slice_skip(body, at), step);
		enum form_verdict verdict = form_feed(f, part.p, part.n);
		assert(verdict != FORM_E_DUPLICATE || f->has_value);
	}
	return form_finish(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	static const char start[] = "multipart/form-data; boundary=";
	char type[sizeof(start) + 255];
	if (n < 2 || n - 2 < data[1])
		return 0;
	size_t n_boundary = data[1], n_type = sizeof(start) - 1 + n_boundary;
	memcpy(type, start, sizeof(start) - 1);
	memcpy(type + sizeof(start) - 1, data + 2, n_boundary);
	struct slice body = { (const char *)data + 2 + n_boundary, n - 2 - n_boundary };
	struct form whole, cut;
	enum form_verdict verdict = read_form(&whole, (struct slice){ type, n_type }, body, body.n + 1);
	assert(verdict != FORM_MORE);
	enum form_verdict verdict_cut = read_form(&cut, (struct slice){ type, n_type }, body, data[0] + 1u);
	assert(verdict == verdict_cut);
	struct slice a = form_value(&whole), b = form_value(&cut);
	assert(verdict != FORM_COMPLETE || (!a.p == !b.p && slice_eq(a, b)));
	assert(a.n <= FORM_VALUE_MAX);
	return 0;
}
