#include "base/samples.h"

#include <math.h>
#include <stdlib.h>

#define NUMBER_MAX 63u

bool samples_next(struct slice *text, struct sample *sample_out) {
	while (text->n) {
		const char *end = memchr(text->p, '\n', text->n);
		struct slice line = slice_head(*text, end ? (size_t)(end - text->p) : text->n);
		size_t n = 0;

		*text = slice_skip(*text, size_min(line.n + 1, text->n));
		while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t' && line.p[n] != '{')
			n++;
		if (n == 0 || line.p[0] == '#')
			continue;
		*sample_out = (struct sample){ slice_head(line, n), slice_skip(line, n) };
		return true;
	}
	return false;
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
static bool read_number(struct slice s, double *value_out) {
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

bool sample_value(const struct sample *sample, double *value_out) {
	return read_number(skip_labels(sample->rest), value_out);
}

/* Takes one label off the front of what stands between the braces. */
static bool label_next(struct slice *labels, struct slice *name_out, struct slice *text_out) {
	while (labels->n && strchr("{, \t", labels->p[0]))
		*labels = slice_skip(*labels, 1);
	const char *equals = labels->n && labels->p[0] != '}' ? memchr(labels->p, '=', labels->n) : NULL;
	if (!equals)
		return false;
	struct slice rest = slice_trim(slice_skip(*labels, (size_t)(equals - labels->p) + 1));

	*name_out = slice_trim(slice_head(*labels, (size_t)(equals - labels->p)));
	if (!rest.n || rest.p[0] != '"')
		return false;
	for (size_t i = 1; i < rest.n; i++) {
		if (rest.p[i] == '\\') {
			i++;
		} else if (rest.p[i] == '"') {
			*text_out = slice_skip(slice_head(rest, i), 1);
			*labels = slice_skip(rest, i + 1);
			return true;
		}
	}
	return false;
}

bool sample_label(const struct sample *sample, struct slice name, struct slice *text_out) {
	struct slice labels = sample->rest, found, text;

	if (!labels.n || labels.p[0] != '{')
		return false;
	while (label_next(&labels, &found, &text)) {
		if (slice_eq(found, name)) {
			*text_out = text;
			return true;
		}
	}
	return false;
}

static bool is_one_of(struct slice name, const char *const *names, size_t n_names) {
	for (size_t i = 0; i < n_names; i++)
		if (slice_eq(name, slice_of(names[i])))
			return true;
	return false;
}

static bool is_of_engine(const struct sample *sample, struct slice engine) {
	struct slice text;

	return !engine.p || !sample_label(sample, SLICE("engine"), &text) || slice_eq(text, engine);
}

bool samples_sum_of(
    struct slice text, const char *const *names, size_t n_names, struct slice engine, double *sum_out) {
	struct sample sample;
	double sum = 0, value;
	bool has_any = false;

	while (samples_next(&text, &sample)) {
		if (is_one_of(sample.name, names, n_names) && is_of_engine(&sample, engine) &&
		    sample_value(&sample, &value)) {
			sum += value;
			has_any = true;
		}
	}
	if (has_any)
		*sum_out = sum;
	return has_any;
}
