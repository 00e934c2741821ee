#include "router/dotenv.h"

#include <errno.h>

enum { FILE_BYTES_MAX = 64 * 1024 };

static bool is_name(struct slice text) {
	for (size_t i = 0; i < text.n; i++)
		if (!(text.p[i] == '_' || (ascii_lower(text.p[i]) >= 'a' && ascii_lower(text.p[i]) <= 'z') ||
			(i && text.p[i] >= '0' && text.p[i] <= '9')))
			return false;
	return text.n;
}

static struct slice unquote(struct slice value) {
	char quote = value.n >= 2 ? value.p[0] : '\0';

	if ((quote == '"' || quote == '\'') && value.p[value.n - 1] == quote)
		return (struct slice){ value.p + 1, value.n - 2 };
	return value;
}

static char *copy(struct option_set *set, struct slice text) {
	char *line = option_alloc(set, text.n + 1);

	memcpy(line, text.p, text.n);
	return line;
}

static bool read_line(struct option_set *set, struct slice line, struct option_pair *pair_out) {
	static const struct slice export = { "export ", 7 };

	line = slice_trim(line);
	if (slice_has_prefix(line, export))
		line = slice_trim(slice_skip(line, export.n));
	const char *equals = line.n ? memchr(line.p, '=', line.n) : NULL;
	struct slice name = slice_trim(slice_head(line, equals ? (size_t)(equals - line.p) : 0));
	if (!is_name(name))
		return false;
	struct slice value = slice_trim(slice_skip(line, (size_t)(equals - line.p) + 1));
	*pair_out = (struct option_pair){ copy(set, name), copy(set, unquote(value)) };
	return true;
}

/* The first of a name counts. */
static void read_lines(struct option_set *set, struct slice text, struct option_map *variables_out) {
	size_t n_max = 1;

	for (size_t i = 0; i < text.n; i++)
		n_max += text.p[i] == '\n';
	struct option_pair *pairs = option_alloc(set, n_max * sizeof(*pairs));
	variables_out->items = pairs;
	while (text.n) {
		const char *end = memchr(text.p, '\n', text.n);
		size_t n = end ? (size_t)(end - text.p) : text.n;
		size_t n_line = n && text.p[n - 1] == '\r' ? n - 1 : n;

		variables_out->n += read_line(set, slice_head(text, n_line), &pairs[variables_out->n]);
		text = slice_skip(text, size_min(n + 1, text.n));
	}
}

int dotenv_read(struct option_set *set, const char *path, struct option_map *variables_out) {
	FILE *file = fopen(path, "re");
	char *text = file ? malloc(FILE_BYTES_MAX + 1) : NULL;
	int error = 0;

	*variables_out = (struct option_map){ NULL, 0 };
	if (!file)
		return errno == ENOENT ? 0 : -errno;
	size_t n = fread(text, 1, FILE_BYTES_MAX + 1, file);
	if (ferror(file))
		error = errno == EISDIR ? 0 : -errno;
	else if (n > FILE_BYTES_MAX)
		error = -EFBIG;
	else
		read_lines(set, (struct slice){ text, n }, variables_out);
	fclose(file);
	free(text);
	return error;
}

const char *dotenv_variable(const struct option_map *variables, const char *name) {
	const char *value = getenv(name);

	for (size_t i = 0; i < variables->n && !value; i++)
		if (!strcmp(variables->items[i].name, name))
			value = variables->items[i].value;
	return value && value[0] ? value : NULL;
}
