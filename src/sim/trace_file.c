#include "sim/trace_file.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/text.h"

#define NS_PER_MS  1000000ull
#define NS_PER_S   1000000000ull
#define AT_MS_MAX  1e12 /* 30 years: in nanoseconds it fits */
#define AZURE_HEAD SLICE("TIMESTAMP,ContextTokens,GeneratedTokens")

struct reader {
	struct trace *trace;
	const char *path;
	char *message;
	uint64_t line;    /* from 1 */
	uint64_t *blocks; /* of the row at hand */
	size_t room;
};

/* A row is added, or the reader's message is set and false returned. */
typedef bool (*row_fn)(struct reader *reader, struct slice line);

static bool printf_like(2, 3) fail(struct reader *reader, const char *format, ...) {
	int n = snprintf(reader->message, TRACE_FILE_MESSAGE_BYTES, "%s:%llu: ", reader->path,
	    (unsigned long long)reader->line);
	va_list args;

	va_start(args, format);
	if (n < TRACE_FILE_MESSAGE_BYTES)
		vsnprintf(reader->message + n, TRACE_FILE_MESSAGE_BYTES - (size_t)n, format, args);
	va_end(args);
	return false;
}

/* ---- JSON lines ---- */

static bool read_tokens(struct reader *reader, const json_t *row, const char *key, uint32_t *tokens_out) {
	const json_t *value = json_object_get(row, key);
	json_int_t n = json_integer_value(value);

	if (!json_is_integer(value) || n < 0 || n > TRACE_TOKENS_MAX)
		return fail(reader, "%s: expected an integer from 0 to %u", key, TRACE_TOKENS_MAX);
	*tokens_out = (uint32_t)n;
	return true;
}

static bool read_id(const json_t *value, uint64_t *id_out) {
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return false;
	*id_out = (uint64_t)json_integer_value(value);
	return true;
}

static int hex_digit(char c) {
	if (c >= '0' && c <= '9')
		return c - '0';
	c = ascii_lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_key(const json_t *value, uint64_t *key_out) {
	struct slice digits = { json_string_value(value), json_string_length(value) };
	uint64_t key = 0;

	if (digits.n < 1 || digits.n > 16)
		return false;
	for (size_t i = 0; i < digits.n; i++) {
		if (hex_digit(digits.p[i]) < 0)
			return false;
		key = key << 4 | (uint64_t)hex_digit(digits.p[i]);
	}
	*key_out = key;
	return true;
}

/* Into reader->blocks. */
static bool read_blocks(
    struct reader *reader, const json_t *list, bool (*read)(const json_t *value, uint64_t *out)) {
	size_t n = json_array_size(list);

	if (n > reader->room) {
		reader->room = 2 * n;
		reader->blocks = realloc(reader->blocks, reader->room * sizeof(*reader->blocks));
	}
	for (size_t i = 0; i < n; i++)
		if (!read(json_array_get(list, i), &reader->blocks[i]))
			return false;
	return true;
}

static bool add_mooncake(struct reader *reader, const json_t *row) {
	const json_t *at = json_object_get(row, "timestamp"), *blocks = json_object_get(row, "hash_ids");
	double at_ms = json_number_value(at);
	struct trace_request request = { .n_blocks = (uint32_t)json_array_size(blocks) };

	if (!json_is_number(at) || at_ms < 0 || at_ms > AT_MS_MAX)
		return fail(reader, "timestamp: expected milliseconds, not negative");
	if (!read_tokens(reader, row, "input_length", &request.n_input_tokens) ||
	    !read_tokens(reader, row, "output_length", &request.n_output_tokens))
		return false;
	if (!json_is_array(blocks) || !read_blocks(reader, blocks, read_id))
		return fail(reader, "hash_ids: expected a list of integers, none negative");
	request.at_ns = json_is_integer(at) ? (uint64_t)json_integer_value(at) * NS_PER_MS
					    : (uint64_t)(at_ms * NS_PER_MS);
	trace_add(reader->trace, &request, reader->blocks);
	return true;
}

static bool add_decision(struct reader *reader, const json_t *row) {
	const json_t *at = json_object_get(row, "ts_ns"), *blocks = json_object_get(row, "blocks");
	const json_t *session = json_object_get(row, "session");
	struct trace_request request = { .n_blocks = (uint32_t)json_array_size(blocks) };

	if (!read_id(at, &request.at_ns))
		return fail(reader, "ts_ns: expected an integer, not negative");
	if (!read_tokens(reader, row, "prompt_tokens", &request.n_input_tokens) ||
	    !read_tokens(reader, row, "output_tokens", &request.n_output_tokens))
		return false;
	if (blocks && (!json_is_array(blocks) || !read_blocks(reader, blocks, read_key)))
		return fail(reader, "blocks: expected a list of strings of 1 to 16 hexadecimal digits");
	if (session && !read_key(session, &request.session))
		return fail(reader, "session: expected a string of 1 to 16 hexadecimal digits");
	trace_add(reader->trace, &request, reader->blocks);
	return true;
}

static bool read_json(
    struct reader *reader, struct slice line, bool (*add)(struct reader *reader, const json_t *row)) {
	json_error_t error;
	json_t *row = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, &error);
	bool is_good = json_is_object(row) ? add(reader, row)
	    : row                          ? fail(reader, "expected a JSON object")
					   : fail(reader, "broken JSON: %s", error.text);

	json_decref(row);
	return is_good;
}

static bool read_mooncake(struct reader *reader, struct slice line) {
	return read_json(reader, line, add_mooncake);
}

static bool read_decision(struct reader *reader, struct slice line) {
	return read_json(reader, line, add_decision);
}

/* ---- CSV ---- */

/* Takes a number of `n_digits` digits and then `end` off the front; end 0: nothing follows. */
static bool take_number(struct slice *s, size_t n_digits, char end, uint64_t max, int *value_out) {
	uint64_t value;

	if (s->n < n_digits + (end != 0) || !text_uint(slice_head(*s, n_digits), max, &value) ||
	    (end && s->p[n_digits] != end))
		return false;
	*s = slice_skip(*s, n_digits + (end != 0));
	*value_out = (int)value;
	return true;
}

/* ".979" and so on, up to nanoseconds; what follows them (a zone, which is UTC throughout) is left. */
static bool take_fraction(struct slice *s, uint64_t *ns_out) {
	uint64_t unit = NS_PER_S / 10, ns = 0;
	size_t n = 0;

	if (s->n && s->p[0] == '.') {
		for (n = 1; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++, unit /= 10)
			ns += (uint64_t)(s->p[n] - '0') * unit;
		if (n == 1)
			return false;
	}
	*s = slice_skip(*s, n);
	*ns_out = ns;
	return true;
}

static bool parse_time(struct slice s, uint64_t *ns_out) {
	struct tm tm = { 0 };
	uint64_t fraction_ns;

	if (!take_number(&s, 4, '-', 2200, &tm.tm_year) || !take_number(&s, 2, '-', 12, &tm.tm_mon) ||
	    !take_number(&s, 2, ' ', 31, &tm.tm_mday) || !take_number(&s, 2, ':', 23, &tm.tm_hour) ||
	    !take_number(&s, 2, ':', 59, &tm.tm_min) || !take_number(&s, 2, 0, 60, &tm.tm_sec) ||
	    !take_fraction(&s, &fraction_ns))
		return false;
	if (tm.tm_year < 1970 || tm.tm_mon == 0 || tm.tm_mday == 0 || (s.n && !slice_eq(s, SLICE("+00:00"))))
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	*ns_out = (uint64_t)timegm(&tm) * NS_PER_S + fraction_ns;
	return true;
}

static bool read_azure(struct reader *reader, struct slice line) {
	struct slice rest = line, fields[3];
	struct trace_request request = { .n_blocks = 0 };
	uint64_t n_input, n_output;
	size_t n = 0;

	while (n < n_elems(fields) && slice_next_member(&rest, &fields[n]))
		n++;
	if (n < n_elems(fields) || rest.p)
		return fail(reader, "expected three fields");
	if (!parse_time(fields[0], &request.at_ns))
		return fail(reader, "expected a time such as 2023-11-16 18:17:03.9799600");
	if (!text_uint(fields[1], TRACE_TOKENS_MAX, &n_input) ||
	    !text_uint(fields[2], TRACE_TOKENS_MAX, &n_output))
		return fail(reader, "expected token counts from 0 to %u", TRACE_TOKENS_MAX);
	request.n_input_tokens = (uint32_t)n_input;
	request.n_output_tokens = (uint32_t)n_output;
	trace_add(reader->trace, &request, NULL);
	return true;
}

/* ---- files ---- */

/* By its first line; NULL: neither. A head is no row: *is_row_out is false then. */
static row_fn format_of(struct slice line, bool *is_row_out) {
	json_t *row = json_loadb(line.p, line.n, 0, NULL);
	row_fn format = NULL;

	*is_row_out = true;
	if (json_object_get(row, "ts_ns")) {
		format = read_decision;
	} else if (line.n && line.p[0] == '{') {
		format = read_mooncake; /* also when it is broken: its own words say so best */
	} else if (slice_eq(line, AZURE_HEAD)) {
		format = read_azure;
		*is_row_out = false;
	}
	json_decref(row);
	return format;
}

static bool read_lines(struct reader *reader, FILE *file, char **text, size_t *room) {
	row_fn format = NULL;
	ssize_t n;

	for (reader->line = 1; (n = getline(text, room, file)) >= 0; reader->line++) {
		struct slice line = { *text, (size_t)n };
		bool is_row = true;

		while (line.n && strchr("\r\n", line.p[line.n - 1]))
			line.n--;
		line = slice_trim(line);
		if (line.n == 0)
			continue;
		if (!format && !(format = format_of(line, &is_row)))
			return fail(
			    reader, "expected JSON lines (of Mooncake or a decision log) or Azure's CSV");
		if (is_row && !format(reader, line))
			return false;
	}
	if (ferror(file))
		return fail(reader, "%s", strerror(errno));
	if (reader->trace->n == 0)
		return fail(reader, "no requests");
	return true;
}

bool trace_file_read(struct trace *trace, const char *path, char message[static TRACE_FILE_MESSAGE_BYTES]) {
	struct reader reader = { .trace = trace, .path = path, .message = message };
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t room = 0;

	if (!file) {
		snprintf(message, TRACE_FILE_MESSAGE_BYTES, "%s: %s", path, strerror(errno));
		return false;
	}
	bool is_good = read_lines(&reader, file, &text, &room);
	fclose(file);
	free(text);
	free(reader.blocks);
	return is_good;
}
