/*
 * A value goes three ways: from text into the form it has in a file, through the check
 * of its row, into the member of the program's struct. The form of a file is the one
 * that all sources share, so nothing below knows where a value came from; complaints
 * go to a sink that does.
 */
#include "base/option_value.h"

#include "base/decimal.h"
#include "base/option_name.h"
#include "base/text.h"

#define REAL_MAX 1e12 /* as text; more than any row takes */

json_t *option_value_default(const struct option *row) {
	switch (row->type) {
	case OPTION_MAP:
	case OPTION_TREE:
		return json_object();
	case OPTION_ARRAY:
		return json_array();
	case OPTION_ENUM:
		return json_string(row->def ? row->def : row->choices[0]);
	case OPTION_BOOL:
		return option_value_of_text(row, slice_of(row->def ? row->def : "false"));
	case OPTION_UINT:
	case OPTION_NUMBER:
	case OPTION_SIZE:
	case OPTION_DURATION:
		return option_value_of_text(row, slice_of(row->def ? row->def : "0"));
	case OPTION_STRING:
	case OPTION_LIST:
		break;
	}
	return option_value_of_text(row, slice_of(row->def ? row->def : ""));
}

static json_t *split_list(const struct option *row, struct slice text) {
	const char *const separators = row->is_whole ? "" : row->at_spaces ? " \t" : " \t,";
	json_t *list = json_array();
	bool is_text = true;

	while (text.n) {
		size_t n = 0;
		while (n < text.n && !memchr(separators, text.p[n], strlen(separators)))
			n++;
		if (n) /* fails when the item is NULL, not being UTF-8 */
			is_text &= json_array_append_new(list, json_stringn(text.p, n)) == 0;
		text = slice_skip(text, size_min(n + 1, text.n));
	}
	if (is_text)
		return list;
	json_decref(list);
	return NULL;
}

json_t *option_value_of_text(const struct option *row, struct slice text) {
	bool is_number = row->type == OPTION_UINT || row->type == OPTION_NUMBER;
	uint64_t number;
	double real;

	if (row->type == OPTION_LIST)
		return split_list(row, text);
	if ((is_number || row->unit_ms) && text_uint(text, INT64_MAX, &number))
		return json_integer((json_int_t)number);
	if (row->type == OPTION_NUMBER && decimal_parse(text, REAL_MAX, &real))
		return json_real(real);
	if (row->type == OPTION_BOOL && slice_eq(text, SLICE("true")))
		return json_true();
	if (row->type == OPTION_BOOL && slice_eq(text, SLICE("false")))
		return json_false();
	return json_stringn(text.p, text.n);
}

/* The largest number that the row's member can hold. */
static uint64_t member_max(const struct option *row) {
	return row->bytes && row->bytes < 8 ? (1ULL << (8 * row->bytes)) - 1 : INT64_MAX;
}

static uint64_t row_max(const struct option *row) {
	return row->max ? row->max : member_max(row);
}

bool option_value_range(const struct option *row, char *line, size_t size) {
	char min[TEXT_PRINT_BYTES], max[TEXT_PRINT_BYTES];

	if (row->min == 0 && row->max == 0)
		return false;
	if (row->type == OPTION_DURATION) {
		text_print_duration(row->min, min);
		text_print_duration(row_max(row), max);
	} else if (row->type == OPTION_SIZE) {
		text_print_size(row->min, min);
		text_print_size(row_max(row), max);
	} else if (row->type == OPTION_NUMBER) {
		snprintf(min, sizeof(min), "%.10g", (double)row->min / OPTION_ONE);
		snprintf(max, sizeof(max), "%.10g", (double)row->max / OPTION_ONE);
	} else {
		snprintf(min, sizeof(min), "%llu", (unsigned long long)row->min);
		snprintf(max, sizeof(max), "%llu", (unsigned long long)row_max(row));
	}
	snprintf(line, size, "%s to %s%s", min, max,
	    row->can_be_off        ? ", or off"
		: row->can_be_auto ? ", or auto"
				   : "");
	return true;
}

void option_value_choices(const struct option *row, char *line, size_t size) {
	size_t n = 0;

	line[0] = '\0';
	for (const char *const *choice = row->choices; *choice && n < size; choice++)
		n += (size_t)snprintf(line + n, size - n, "%s%s", n ? ", " : "", *choice);
}

/* ---- checks ---- */

/* "path.key" or "path[i]"; what does not fit is cut, and shows it. */
static void path_below(char at[static OPTION_PATH_BYTES], const char *path, const char *key, size_t i) {
	int n = key ? snprintf(at, OPTION_PATH_BYTES, "%s.%s", path, key)
		    : snprintf(at, OPTION_PATH_BYTES, "%s[%zu]", path, i);
	if (n >= OPTION_PATH_BYTES)
		memcpy(at + OPTION_PATH_BYTES - sizeof("..."), "...", sizeof("..."));
}

static void describe(const struct option *row, const json_t *value, char line[static 96]) {
	static const char *const kinds[] = {
		[JSON_OBJECT] = "a table",
		[JSON_ARRAY] = "an array",
		[JSON_TRUE] = "true",
		[JSON_FALSE] = "false",
		[JSON_NULL] = "null",
	};

	if (row->secret)
		snprintf(line, 96, "something else");
	else if (json_is_string(value))
		snprintf(line, 96, "\"%.60s\"", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(line, 96, "%lld", (long long)json_integer_value(value));
	else if (json_is_real(value))
		snprintf(line, 96, "%g", json_real_value(value));
	else
		snprintf(line, 96, "%s", kinds[json_typeof(value)]);
}

static bool complain_of_type(
    const struct option *row, const json_t *value, const char *path, struct option_sink *sink) {
	static const char *const expected[] = {
		[OPTION_STRING] = "a text",
		[OPTION_BOOL] = "true or false",
		[OPTION_UINT] = "a whole number",
		[OPTION_NUMBER] = "a number",
		[OPTION_DURATION] = "a duration such as \"500ms\", \"3s\" or \"2m\"",
		[OPTION_SIZE] = "a size such as \"64MiB\" or \"256k\", or a number of bytes",
		[OPTION_LIST] = "a list of texts",
		[OPTION_MAP] = "a table of texts",
		[OPTION_ARRAY] = "an array of tables",
		[OPTION_TREE] = "a table",
	};
	char line[OPTION_LINE_BYTES], choices[256], got[96];

	describe(row, value, got);
	if (row->choices) {
		option_value_choices(row, choices, sizeof(choices));
		snprintf(line, sizeof(line), "expected one of %s, got %s", choices, got);
	} else {
		snprintf(line, sizeof(line), "expected %s%s, got %s", expected[row->type],
		    row->can_be_off        ? ", or \"off\""
			: row->can_be_auto ? ", or \"auto\""
					   : "",
		    got);
	}
	sink->complain(sink, path, line);
	return false;
}

/* The number that a UINT, DURATION or SIZE stands for; false when the value is of no such kind. */
static bool read_number(const struct option *row, const json_t *value, uint64_t *number_out) {
	if (json_is_string(value)) {
		struct slice text = { json_string_value(value), json_string_length(value) };
		if (row->type == OPTION_SIZE)
			return text_size_bytes(text, number_out);
		if (row->can_be_auto && slice_eq(text, SLICE("auto"))) {
			*number_out = member_max(row);
			return true;
		}
		if (row->type != OPTION_DURATION)
			return false;
		if (row->can_be_off && slice_eq(text, SLICE("off"))) {
			*number_out = 0;
			return true;
		}
		if (!row->unit_ms || !text_uint(text, UINT64_MAX / row->unit_ms, number_out))
			return text_duration_ms(text, number_out);
		*number_out *= row->unit_ms;
		return true;
	}
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return false;
	*number_out = (uint64_t)json_integer_value(value);
	if (row->unit_ms && *number_out <= INT64_MAX / row->unit_ms) {
		*number_out *= row->unit_ms;
		return true;
	}
	return row->type != OPTION_DURATION || *number_out == 0; /* 10 of what? */
}

static bool complain_of_range(
    const struct option *row, const json_t *value, const char *path, struct option_sink *sink) {
	char line[OPTION_LINE_BYTES], got[96], range[96];

	describe(row, value, got);
	if (option_value_range(row, range, sizeof(range)))
		snprintf(line, sizeof(line), "%s is out of range: %s", got, range);
	else
		snprintf(line, sizeof(line), "%s is too large", got);
	sink->complain(sink, path, line);
	return false;
}

static bool check_number(
    const struct option *row, const json_t *value, const char *path, struct option_sink *sink) {
	uint64_t number;

	if (!read_number(row, value, &number))
		return complain_of_type(row, value, path, sink);
	return (number >= row->min && number <= row_max(row)) || (number == 0 && row->can_be_off) ||
	    (number == member_max(row) && json_is_string(value)) || complain_of_range(row, value, path, sink);
}

/* A number that may have a fraction. */
static bool check_real(
    const struct option *row, const json_t *value, const char *path, struct option_sink *sink) {
	double number = json_number_value(value);

	assert(row->max > 0);
	if (!json_is_number(value))
		return complain_of_type(row, value, path, sink);
	return (number >= (double)row->min / OPTION_ONE && number <= (double)row->max / OPTION_ONE) ||
	    complain_of_range(row, value, path, sink);
}

static int find_choice(const struct option *row, const char *text) {
	for (int i = 0; row->choices[i]; i++)
		if (!strcmp(row->choices[i], text))
			return i;
	return -1;
}

/* In any case; kept as the row has it. */
static bool check_choice(
    const struct option *row, json_t *value, const char *path, struct option_sink *sink) {
	for (int i = 0; json_is_string(value) && row->choices[i]; i++)
		if (slice_is(slice_of(json_string_value(value)), slice_of(row->choices[i])))
			return json_string_set(value, row->choices[i]) == 0;
	return complain_of_type(row, value, path, sink);
}

static bool check_text(
    const struct option *row, const json_t *value, const char *path, struct option_sink *sink) {
	if (!json_is_string(value))
		return complain_of_type(row, value, path, sink);
	const char *text = json_string_value(value), *wrong = NULL;
	if (row->choices && find_choice(row, text) < 0)
		return complain_of_type(row, value, path, sink);
	/* A NUL hides the rest, a line break forges log lines and heads. */
	for (size_t i = 0; i < json_string_length(value); i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			wrong = "must not hold control characters";
	if (!wrong && row->check)
		wrong = row->check(text);
	if (wrong)
		sink->complain(sink, path, wrong);
	return !wrong;
}

static bool check_list(
    const struct option *row, const json_t *value, const char *path, struct option_sink *sink) {
	char at[OPTION_PATH_BYTES];
	size_t i;
	json_t *item;
	bool good = true;

	if (!json_is_array(value))
		return complain_of_type(row, value, path, sink);
	json_array_foreach(value, i, item) {
		path_below(at, path, NULL, i);
		if (!json_is_string(item) || (json_string_length(item) == 0 && !row->at_spaces)) {
			sink->complain(sink, at, "expected a text that is not empty");
			good = false;
		} else {
			good &= check_text(row, item, at, sink);
		}
	}
	return good;
}

static bool check_map(const struct option *row, json_t *value, const char *path, struct option_sink *sink) {
	const struct option text = { .type = OPTION_STRING, .check = row->check };
	char at[OPTION_PATH_BYTES];
	const char *key;
	json_t *member;
	bool good = true;

	if (!json_is_object(value))
		return complain_of_type(row, value, path, sink);
	json_object_foreach(value, key, member) {
		path_below(at, path, key, 0);
		good &= check_text(&text, member, at, sink);
	}
	return good;
}

static const struct option *find_field(const struct option *row, const char *key) {
	for (size_t i = 0; i < row->n_fields; i++)
		if (!strcmp(row->fields[i].key, key))
			return &row->fields[i];
	return NULL;
}

static bool complain_of_field(
    const struct option *row, const char *key, const char *path, struct option_sink *sink) {
	struct option_nearest nearest = { .wanted = slice_of(key) };
	char line[OPTION_LINE_BYTES];

	for (size_t i = 0; i < row->n_fields; i++)
		option_nearest_offer(&nearest, slice_of(row->fields[i].key), row->fields[i].key);
	sink->complain(sink, path, option_nearest_sentence(&nearest, "key", line));
	return false;
}

static bool check_item(const struct option *row, json_t *item, const char *path, struct option_sink *sink) {
	char at[OPTION_PATH_BYTES], message[OPTION_LINE_BYTES];
	const char *key;
	json_t *member;
	bool good = true;

	json_object_foreach(item, key, member) {
		const struct option *field = find_field(row, key);
		path_below(at, path, key, 0);
		good &= field ? option_value_check(field, member, at, sink)
			      : complain_of_field(row, key, at, sink);
	}
	for (const struct option *f = row->fields; f < row->fields + row->n_fields; f++) {
		if (json_object_get(item, f->key))
			continue;
		json_object_set_new(item, f->key, option_value_default(f));
		if (f->required) {
			snprintf(message, sizeof(message), "%s is missing", f->key);
			sink->complain(sink, path, message);
			good = false;
		}
	}
	return good;
}

static bool check_array(const struct option *row, json_t *value, const char *path, struct option_sink *sink) {
	char at[OPTION_PATH_BYTES];
	size_t i;
	json_t *item;
	bool good = true;

	if (!json_is_array(value))
		return complain_of_type(row, value, path, sink);
	json_array_foreach(value, i, item) {
		path_below(at, path, NULL, i);
		if (json_is_object(item)) {
			good &= check_item(row, item, at, sink);
		} else {
			sink->complain(sink, at, "expected a table");
			good = false;
		}
	}
	return good;
}

bool option_value_check(const struct option *row, json_t *value, const char *path, struct option_sink *sink) {
	if (row->reserved)
		return true;
	switch (row->type) {
	case OPTION_ENUM:
		return check_choice(row, value, path, sink);
	case OPTION_STRING:
		return check_text(row, value, path, sink);
	case OPTION_BOOL:
		return json_is_boolean(value) || complain_of_type(row, value, path, sink);
	case OPTION_UINT:
	case OPTION_DURATION:
	case OPTION_SIZE:
		return check_number(row, value, path, sink);
	case OPTION_NUMBER:
		return check_real(row, value, path, sink);
	case OPTION_LIST:
		return check_list(row, value, path, sink);
	case OPTION_MAP:
		return check_map(row, value, path, sink);
	case OPTION_ARRAY:
		return check_array(row, value, path, sink);
	case OPTION_TREE:
		return json_is_object(value) || complain_of_type(row, value, path, sink);
	}
	return false;
}

/* ---- stores ---- */

static void store_number(const struct option *row, uint64_t number, void *member) {
	assert(row->bytes == sizeof(uint64_t) || number >> (8 * row->bytes) == 0);
	switch (row->bytes) {
	case sizeof(uint8_t):
		*(uint8_t *)member = (uint8_t)number;
		break;
	case sizeof(uint16_t):
		*(uint16_t *)member = (uint16_t)number;
		break;
	case sizeof(uint32_t):
		*(uint32_t *)member = (uint32_t)number;
		break;
	default:
		assert(row->bytes == sizeof(uint64_t));
		*(uint64_t *)member = number;
	}
}

static struct option_list make_list(struct option_set *set, const json_t *value) {
	size_t n = json_array_size(value);
	const char **items = option_alloc(set, n * sizeof(*items));

	for (size_t i = 0; i < n; i++)
		items[i] = json_string_value(json_array_get(value, i));
	return (struct option_list){ items, n };
}

static struct option_map make_map(struct option_set *set, const json_t *value) {
	struct option_pair *items = option_alloc(set, json_object_size(value) * sizeof(*items));
	const char *key;
	json_t *member;
	size_t n = 0;

	json_object_foreach((json_t *)value, key, member) items[n++] =
	    (struct option_pair){ key, json_string_value(member) };
	return (struct option_map){ items, n };
}

static struct option_array make_array(struct option_set *set, const struct option *row, const json_t *value) {
	size_t n = json_array_size(value);
	char *items = option_alloc(set, n * row->item_bytes);

	for (size_t i = 0; i < n; i++)
		for (const struct option *f = row->fields; f < row->fields + row->n_fields; f++)
			option_value_store(set, f, json_object_get(json_array_get(value, i), f->key),
			    items + i * row->item_bytes);
	return (struct option_array){ items, n };
}

void option_value_store(struct option_set *set, const struct option *row, const json_t *value, void *base) {
	static const size_t member_bytes[] = {
		[OPTION_STRING] = sizeof(const char *),
		[OPTION_BOOL] = sizeof(bool),
		[OPTION_NUMBER] = sizeof(double),
		[OPTION_ENUM] = sizeof(unsigned),
		[OPTION_LIST] = sizeof(struct option_list),
		[OPTION_MAP] = sizeof(struct option_map),
		[OPTION_ARRAY] = sizeof(struct option_array),
		[OPTION_TREE] = sizeof(json_t *),
	};
	void *member = (char *)base + row->offset;
	uint64_t number = 0;

	if (row->bytes == 0)
		return;
	assert(!member_bytes[row->type] || row->bytes == member_bytes[row->type]);
	switch (row->type) {
	case OPTION_STRING:
		*(const char **)member = json_string_value(value);
		break;
	case OPTION_BOOL:
		*(bool *)member = json_is_true(value);
		break;
	case OPTION_UINT:
	case OPTION_DURATION:
	case OPTION_SIZE:
		if (!read_number(row, value, &number))
			assert(!"a number that was checked");
		store_number(row, number, member);
		break;
	case OPTION_NUMBER:
		*(double *)member = json_number_value(value);
		break;
	case OPTION_ENUM:
		store_number(row, (uint64_t)find_choice(row, json_string_value(value)), member);
		break;
	case OPTION_LIST:
		*(struct option_list *)member = make_list(set, value);
		break;
	case OPTION_MAP:
		*(struct option_map *)member = make_map(set, value);
		break;
	case OPTION_ARRAY: { /* the program's own struct of a typed pointer and a count */
		struct option_array array = make_array(set, row, value);
		memcpy(member, &array, sizeof(array));
		break;
	}
	case OPTION_TREE:
		*(const json_t **)member = value;
		break;
	}
}
