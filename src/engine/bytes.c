#include "engine/bytes.h"

#include <stdarg.h>

void bytes_init(struct bytes *b, size_t n_max) {
	*b = (struct bytes){ .n_max = n_max };
}

void bytes_deinit(struct bytes *b) {
	free(b->p);
	*b = (struct bytes){ .n_max = b->n_max };
}

/* Room for n more bytes. */
static bool reserve(struct bytes *b, size_t n) {
	assert(b->n <= b->n_room && b->n_room <= b->n_max);
	if (n > b->n_max - b->n)
		return false;
	if (n > b->n_room - b->n) {
		size_t doubled = size_max(2 * b->n_room, 128);
		b->n_room = size_min(size_max(doubled, b->n + n), b->n_max);
		b->p = realloc(b->p, b->n_room);
	}
	return true;
}

bool bytes_add(struct bytes *b, struct slice s) {
	if (s.n == 0)
		return true;
	if (!reserve(b, s.n))
		return false;
	memcpy(b->p + b->n, s.p, s.n);
	b->n += s.n;
	return true;
}

bool bytes_printf(struct bytes *b, const char *format, ...) {
	va_list args;
	va_start(args, format);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	assert(n >= 0);
	if (!reserve(b, (size_t)n + 1)) /* with the terminator that vsnprintf() insists on */
		return false;
	va_start(args, format);
	vsnprintf(b->p + b->n, (size_t)n + 1, format, args);
	va_end(args);
	b->n += (size_t)n;
	return true;
}

static int on_json_part(const char *part, size_t n, void *data) {
	return bytes_add(data, (struct slice){ part, n }) ? 0 : -1;
}

bool bytes_add_json(struct bytes *b, const json_t *value) {
	size_t n_before = b->n;
	size_t flags =
	    JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15); /* 0.1, not 0.10000000000000001 */
	if (json_dump_callback(value, on_json_part, b, flags) == 0)
		return true;
	b->n = n_before;
	return false;
}

static bool needs_escape(struct slice text) {
	for (size_t i = 0; i < text.n; i++)
		if ((unsigned char)text.p[i] < 0x20 || text.p[i] == '"' || text.p[i] == '\\')
			return true;
	return false;
}

bool bytes_add_escaped(struct bytes *b, struct slice text) {
	if (!needs_escape(text))
		return bytes_add(b, text);

	struct bytes quoted = { .n_max = 6 * text.n + 2 };
	json_t *string = json_stringn(text.p, text.n);
	bool done = string && bytes_add_json(&quoted, string) &&
	    bytes_add(b, (struct slice){ quoted.p + 1, quoted.n - 2 });
	json_decref(string);
	bytes_deinit(&quoted);
	return done;
}
