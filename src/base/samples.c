#include "base/samples.h"

#include <math.h>
#include <stdlib.h>

#define NUMBER_MAX 63u

/* What follows the name, when it is one of them; without p otherwise. */
static struct slice sample_rest(struct slice line, const char *const *names, size_t n_names) {
	for (size_t i = 0; i < n_names; i++) {
		struct slice name = slice_of(names[i]);

		if (slice_has_prefix(line, name) && line.n > name.n && strchr(" \t{", line.p[name.n]))
			return slice_skip(line, name.n);
	}
	return (struct slice){ NULL, 0 };
}

/* A label's text may hold anything, quotes after a backslash. */
static struct slice skip_labels(struct slice s) {
	bool is_quoted = false;

	if (!s.n || s.p[0] != '{')
		return s;
	for (size_t i = 1; i < s.n; i++) {
		if (is_quoted && s.p[i] == '\\')
			i++;
		else if (s.p[i] == '"')
			is_quoted = !is_quoted;
		else if (s.p[i] == '}' && !is_quoted)
			return slice_skip(s, i + 1);
	}
	return slice_head(s, 0);
}

/* Of the number at the beginning; a time may follow. */
static bool sample_value(struct slice s, double *value_out) {
	char text[NUMBER_MAX + 1], *end;
	size_t n = 0;

	s = slice_trim(s);
	while (n < s.n && s.p[n] != ' ' && s.p[n] != '\t' && s.p[n] != '\r')
		n++;
	if (n == 0 || n > NUMBER_MAX)
		return false;
	memcpy(text, s.p, n);
	text[n] = '\0';
	*value_out = strtod(text, &end); /* lint: allow, Prometheus writes floats */
	return end == text + n && isfinite(*value_out) && *value_out >= 0;
}

bool samples_sum(struct slice text, const char *const *names, size_t n_names, double *sum_out) {
	double sum = 0, value;
	bool has_any = false;

	while (text.n) {
		const char *end = memchr(text.p, '\n', text.n);
		struct slice line = slice_head(text, end ? (size_t)(end - text.p) : text.n);
		struct slice rest = sample_rest(line, names, n_names);

		if (rest.p && sample_value(skip_labels(rest), &value)) {
			sum += value;
			has_any = true;
		}
		text = slice_skip(text, size_min(line.n + 1, text.n));
	}
	if (has_any)
		*sum_out = sum;
	return has_any;
}
