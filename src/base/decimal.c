#include "base/decimal.h"

#include "base/text.h"

#define WHOLE_MAX       1000000000000u
#define FRACTION_DIGITS 9

bool decimal_parse(struct slice s, double max, double *value_out) {
	const char *point = s.n ? memchr(s.p, '.', s.n) : NULL;
	struct slice whole = { s.p, point ? (size_t)(point - s.p) : s.n };
	uint64_t n = 0, fraction = 0;
	double value, scale = 1;

	if (!text_uint(whole, WHOLE_MAX, &n))
		return false;
	if (point) {
		struct slice digits = slice_skip(s, whole.n + 1);

		if (digits.n > FRACTION_DIGITS || !text_uint(digits, UINT64_MAX, &fraction))
			return false;
		for (size_t i = 0; i < digits.n; i++)
			scale *= 10;
	}
	value = (double)n + (double)fraction / scale;
	if (value > max)
		return false;
	*value_out = value;
	return true;
}
