#include "base/percent.h"

static int digit_of(char c) {
	c = ascii_lower(c);
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Of what stands behind a percent sign; -1: no byte of a text. */
static int byte_of(struct slice digits) {
	if (digits.n < 2)
		return -1;
	int high = digit_of(digits.p[0]), low = digit_of(digits.p[1]);
	return high < 0 || low < 0 || high + low == 0 ? -1 : high << 4 | low;
}

bool percent_decode(struct slice raw, bool is_query, char *to, size_t *n_out) {
	size_t n = 0;

	for (size_t i = 0; i < raw.n; i++) {
		int value = (unsigned char)raw.p[i];

		if (value == '%') {
			value = byte_of(slice_skip(raw, i + 1));
			if (value < 0)
				return false;
			i += 2;
		} else if (value == '+' && is_query) {
			value = ' ';
		}
		to[n++] = (char)value;
	}
	*n_out = n;
	return true;
}

struct slice percent_query(struct slice query, struct slice key, char *room) {
	while (query.n) {
		const char *end = memchr(query.p, '&', query.n);
		struct slice pair = { query.p, end ? (size_t)(end - query.p) : query.n };
		query = slice_skip(query, end ? pair.n + 1 : pair.n);
		const char *sign = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
		struct slice name = { pair.p, sign ? (size_t)(sign - pair.p) : pair.n };
		struct slice value = sign ? slice_skip(pair, name.n + 1) : (struct slice){ room, 0 };
		size_t n;

		if (!percent_decode(name, true, room, &n) || !slice_eq((struct slice){ room, n }, key))
			continue;
		if (percent_decode(value, true, room, &n))
			return (struct slice){ room, n };
		return value;
	}
	return (struct slice){ NULL, 0 };
}
