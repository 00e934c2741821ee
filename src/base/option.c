#include "base/option.h"

#include <stdarg.h>
#include <unistd.h>

#include "base/option_doc.h"
#include "base/option_name.h"
#include "base/option_set.h"
#include "base/option_value.h"
#include "base/version.h"

struct option_block {
	struct option_block *next;
	max_align_t data[];
};

struct option_set *option_set_new(const struct option_schema *schema) {
	struct option_set *set = calloc(1, sizeof(*set));

	set->schema = schema;
	set->found = calloc(schema->n_rows, sizeof(*set->found));
	set->lines = json_object();
	return set;
}

void option_set_free(struct option_set **set_inout) {
	struct option_set *set = *set_inout;

	*set_inout = NULL;
	if (!set)
		return;
	for (size_t i = 0; i < set->schema->n_rows; i++)
		json_decref(set->found[i].value);
	for (size_t i = 0; i < set->n_output; i++)
		free(set->output[i].text);
	for (struct option_block *block = set->blocks, *next; block; block = next) {
		next = block->next;
		free(block);
	}
	json_decref(set->lines);
	free(set->output);
	free(set->found);
	free(set->called);
	free(set->file);
	free(set);
}

void *option_alloc(struct option_set *set, size_t bytes) {
	struct option_block *block = calloc(1, sizeof(*block) + bytes);

	block->next = set->blocks;
	set->blocks = block;
	return block->data;
}

struct option_found *option_set_found(const struct option_set *set, const struct option *row) {
	assert(row >= set->schema->rows && row < set->schema->rows + set->schema->n_rows);
	return &set->found[row - set->schema->rows];
}

bool option_is_given(const struct option_set *set, const char *path) {
	const struct option *row = option_name_find_path(set->schema, slice_of(path));

	assert(row);
	return option_set_found(set, row)->source != OPTION_DEFAULT;
}

bool option_is_on(const struct option_set *set, const char *path) {
	const struct option *row = option_name_find_path(set->schema, slice_of(path));
	const json_t *value = option_set_found(set, row)->value;
	bool is_empty = json_is_string(value) ? !json_string_length(value)
					      : json_is_array(value) && !json_array_size(value);

	return option_is_given(set, path) && !json_is_false(value) && !is_empty;
}

bool option_is_called(const struct option_set *set, const char *name) {
	return set->called && !strcmp(set->called, name);
}

/* ---- mistakes ---- */

static bool is_after(const struct option_line *a, const struct option_line *b) {
	return a->source > b->source || (a->source == b->source && a->line > b->line);
}

/* Keeps the lines in the order in which a reader meets their causes. */
static void add_line(
    struct option_set *set, enum option_source source, int line, const char *place, const char *text) {
	struct option_line new = { .source = source, .line = line };
	size_t at = set->n_output++;

	if (asprintf(&new.text, "%s: %s", place, text) < 0)
		abort();
	for (char *c = new.text; *c; c++) /* one line each, whatever the keys hold */
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	set->output = realloc(set->output, set->n_output * sizeof(*set->output));
	for (; at > 0 && is_after(&set->output[at - 1], &new); at--)
		set->output[at] = set->output[at - 1];
	set->output[at] = new;
}

/* "router.port", "router", "": the path of what this stands in. */
static struct slice path_up(struct slice path) {
	do
		path.n--;
	while (path.n && path.p[path.n] != '.' && path.p[path.n] != '[');
	return path;
}

/* The line of a path, or of what it stands in when it is not in the file itself. */
static int line_of(const struct option_set *set, const char *path) {
	size_t n_main = strlen(set->schema->main_table);

	if (set->schema->main_at_top && !strncmp(path, set->schema->main_table, n_main) &&
	    path[n_main] == '.') {
		const json_t *line = json_object_get(set->lines, path + n_main + 1);
		if (line && !json_object_get(set->lines, path))
			return (int)json_integer_value(line);
	}
	for (struct slice at = slice_of(path); at.n; at = path_up(at)) {
		const json_t *line = json_object_getn(set->lines, at.p, at.n);
		if (line)
			return (int)json_integer_value(line);
	}
	return 0;
}

static const struct option *row_of(const struct option_set *set, const char *path) {
	const struct option *row = NULL;

	for (struct slice at = slice_of(path); at.n && !row; at = path_up(at))
		row = option_name_find_path(set->schema, at);
	return row;
}

static void add_file_line(struct option_set *set, const char *path, int line, const char *text) {
	char place[2 * OPTION_PATH_BYTES], number[16] = "";

	if (line == 0)
		line = line_of(set, path);
	if (line > 0)
		snprintf(number, sizeof(number), ":%d", line);
	snprintf(place, sizeof(place), "%.240s%s%s%.240s", set->file, number, path[0] ? ": " : "", path);
	add_line(set, OPTION_FILE, line, place, text);
}

static void add_about(struct option_set *set, const char *path, const char *text) {
	const struct option *row = row_of(set, path);
	enum option_source source = row ? option_set_found(set, row)->source : OPTION_DEFAULT;
	char name[OPTION_NAME_BYTES];

	if (source == OPTION_FILE)
		add_file_line(set, path, 0, text);
	else if (source == OPTION_ENVIRONMENT)
		add_line(set, source, 0, option_name_variable(set->schema, row, name), text);
	else if (source == OPTION_FLAG)
		add_line(set, source, 0, option_name_flag(set->schema, row, name), text);
	else
		add_line(set, source, 0, path, text);
}

void option_set_blame(struct option_set *set, enum option_source source, const char *name, const char *text) {
	set->n_mistakes++;
	add_line(set, source, 0, name, text);
}

void option_set_blame_file(struct option_set *set, const char *path, int line, const char *text) {
	set->n_mistakes++;
	add_file_line(set, path, line, text);
}

void option_set_warn_file(struct option_set *set, const char *path, const char *text) {
	char line[OPTION_LINE_BYTES];

	snprintf(line, sizeof(line), "warning: %s", text);
	add_file_line(set, path, 0, line);
}

void option_mistake(struct option_set *set, const char *path, const char *format, ...) {
	char text[OPTION_LINE_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	set->n_mistakes++;
	add_about(set, path, text);
}

void option_warning(struct option_set *set, const char *path, const char *format, ...) {
	char text[OPTION_LINE_BYTES] = "warning: ";
	size_t n = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + n, sizeof(text) - n, format, args);
	va_end(args);
	add_about(set, path, text);
}

size_t option_mistakes(const struct option_set *set) {
	return set->n_mistakes;
}

void option_print_mistakes(const struct option_set *set, FILE *out) {
	for (size_t i = 0; i < set->n_output; i++)
		fprintf(out, "%s\n", set->output[i].text);
}

bool option_has_said(const struct option_set *set, const char *line) {
	for (size_t i = 0; i < set->n_output; i++)
		if (!strcmp(set->output[i].text, line))
			return true;
	return false;
}

/* ---- what is in effect ---- */

void option_store(struct option_set *set, void *config) {
	const struct option *rows = set->schema->rows;
	char path[OPTION_NAME_BYTES];

	for (size_t i = 0; i < set->schema->n_rows; i++) {
		if (rows[i].reserved && set->found[i].value)
			option_warning(set, option_name_path(&rows[i], path), "has no effect yet");
		if (!set->found[i].value)
			set->found[i].value = option_value_default(&rows[i]);
		option_value_store(set, &rows[i], set->found[i].value, config);
	}
}

static void refuse_default(struct option_sink *sink, const char *path, const char *message) {
	assert(!"a default that its row takes");
}

void option_replace(struct option_set *set, void *config, const char *path, const char *text) {
	const struct option *row = option_name_find_path(set->schema, slice_of(path));
	struct option_sink sink = { refuse_default };

	assert(row);
	struct option_found *found = option_set_found(set, row);
	json_decref(found->value);
	found->value = option_value_of_text(row, slice_of(text));
	if (option_value_check(row, found->value, path, &sink))
		option_value_store(set, row, found->value, config);
}

void option_default(struct option_set *set, void *config, const char *path, const char *text) {
	if (!option_is_given(set, path))
		option_replace(set, config, path, text);
}

void option_speak(struct option_set *set, void *config, const struct option_dialect *dialect) {
	for (size_t i = 0; i < dialect->n_defaults; i++)
		option_default(set, config, dialect->defaults[i].path, dialect->defaults[i].text);
}

static bool is_empty(const json_t *value) {
	return json_is_string(value) ? json_string_length(value) == 0 : json_array_size(value) == 0;
}

static json_t *dump_items(const struct option *row, const json_t *value) {
	json_t *list = json_array();

	for (size_t i = 0; i < json_array_size(value); i++) {
		json_t *object = json_object();
		for (const struct option *f = row->fields; f < row->fields + row->n_fields; f++)
			json_object_set_new(object, f->key,
			    option_set_dump(f, json_object_get(json_array_get(value, i), f->key)));
		json_array_append_new(list, object);
	}
	return list;
}

json_t *option_set_dump(const struct option *row, const json_t *value) {
	if (row->secret && !is_empty(value))
		return json_string("(secret)");
	return row->type == OPTION_ARRAY ? dump_items(row, value) : json_deep_copy(value);
}

json_t *option_dump(const struct option_set *set) {
	json_t *root = json_object();

	for (size_t i = 0; i < set->schema->n_rows; i++) {
		const struct option *row = &set->schema->rows[i];
		json_t *table = row->table[0] ? json_object_get(root, row->table) : root;

		if (row->reserved)
			continue;
		if (!table) {
			table = json_object();
			json_object_set_new(root, row->table, table);
		}
		json_object_set_new(table, row->key, option_set_dump(row, set->found[i].value));
	}
	return root;
}

/* ---- the start of a program ---- */

/* As flags and name choose it; NULL: the program's own. */
static const struct option_dialect *dialect_of(const struct option_set *set) {
	const struct option_schema *s = set->schema;
	const struct option *row =
	    s->dialect_path ? option_name_find_path(s, slice_of(s->dialect_path)) : NULL;
	const char *given = row ? json_string_value(option_set_found(set, row)->value) : NULL;

	for (size_t i = 0; i < s->n_dialects; i++)
		if (given ? !strcmp(given, s->dialects[i]->name)
			  : option_is_called(set, s->dialects[i]->called))
			return s->dialects[i];
	return NULL;
}

static int check(const struct option_set *set) {
	option_print_mistakes(set, stderr);
	if (set->n_mistakes)
		return 2;
	puts("configuration is good");
	return 0;
}

static void read_sources(struct option_set *set, void *config, option_verify_fn verify) {
	if (set->file)
		option_read_file(set, set->file);
	option_read_environment(set, environ);
	option_store(set, config);
	if (verify)
		verify(set, config);
}

size_t option_read_again(
    struct option_set *set, int argc, char *const *argv, void *config, option_verify_fn verify) {
	(void)option_read_flags(set, argc, argv);
	read_sources(set, config, verify);
	return set->n_mistakes;
}

int option_start(struct option_set *set, int argc, char *const *argv, void *config, option_verify_fn verify) {
	enum option_command command = option_read_flags(set, argc, argv);

	switch (command) {
	case OPTION_HELP:
		option_doc_help(set->schema, dialect_of(set), stdout);
		return 0;
	case OPTION_MAN:
		option_doc_man(set->schema, stdout);
		return 0;
	case OPTION_VERSION:
		puts("headrace " HEADRACE_VERSION);
		return 0;
	case OPTION_CHECK:
	case OPTION_RUN:
		break;
	}
	read_sources(set, config, verify);
	if (command == OPTION_CHECK)
		return check(set);
	option_print_mistakes(set, stderr);
	return set->n_mistakes ? 2 : -1;
}
