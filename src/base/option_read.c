/*
 * The three sources of values: flags, environment, file. Each finds the row that a
 * name means, brings the value into the form it has in a file, and hands both to
 * take(), which checks and ranks. A wrong name is told with the nearest right one.
 */
#include <errno.h>

#include "base/option_name.h"
#include "base/option_set.h"
#include "base/option_value.h"
#include "base/toml.h"

enum { FILE_BYTES_MAX = 1 << 20 };

/* What is being read, for the complaints about it. */
struct reader {
	struct option_sink sink;
	struct option_set *set;
	enum option_source source;
	const char *name; /* the flag or the variable; in a file the path says it */
};

static void on_complaint(struct option_sink *sink, const char *path, const char *message) {
	struct reader *reader = container_of(sink, struct reader, sink);

	if (reader->source == OPTION_FILE)
		option_set_blame_file(reader->set, path, 0, message);
	else
		option_set_blame(reader->set, reader->source, reader->name, message);
}

static struct reader reader_of(struct option_set *set, enum option_source source, const char *name) {
	return (struct reader){ { on_complaint }, set, source, name };
}

/* Checks a value and keeps it unless a higher source has spoken. Takes the reference. */
static void take(struct reader *reader, const struct option *row, json_t *value) {
	struct option_found *found = option_set_found(reader->set, row);
	char path[OPTION_NAME_BYTES];

	option_name_path(row, path);
	if (!value) {
		on_complaint(&reader->sink, path, "is not UTF-8");
		return;
	}
	if (!option_value_check(row, value, path, &reader->sink) || found->source > reader->source) {
		json_decref(value);
		return;
	}
	if (row->type == OPTION_LIST && reader->source == OPTION_FLAG && found->source == OPTION_FLAG) {
		json_array_extend(found->value, value); /* a list's flag may be repeated */
		json_decref(value);
		return;
	}
	json_decref(found->value);
	*found = (struct option_found){ value, reader->source };
}

static void complain_of_flag(struct reader *reader, struct slice flag) {
	const struct option_schema *schema = reader->set->schema;
	struct option_nearest nearest = { .wanted = flag };
	char name[OPTION_NAME_BYTES], sentence[OPTION_LINE_BYTES];

	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++) {
		if (!option_name_is_flag(r))
			continue;
		option_name_flag(schema, r, name);
		option_nearest_offer(&nearest, slice_of(name), name);
		option_name_long_flag(r, name);
		option_nearest_offer(&nearest, slice_of(name), name);
		option_name_other_flag(r, name);
		option_nearest_offer(&nearest, slice_of(name), name);
	}
	on_complaint(&reader->sink, "", option_nearest_sentence(&nearest, "flag", sentence));
}

static bool is_flag(const char *arg) {
	return arg[0] == '-' && arg[1] == '-';
}

/* What stands behind a flag on the command line. */
struct words {
	const char *given; /* after '=', or NULL */
	char *const *next;
	int n_next;
};

/* Behind a list anything may stand: no item of it begins with a dash, as a value of its own may. */
static bool is_value(const struct option *row, const char *word) {
	return row && row->type == OPTION_LIST ? word[0] != '-' : !is_flag(word);
}

/* How many of the next words are values of this row; of a flag that nobody knows, all. */
static int count_values(const struct option *row, const struct words *words) {
	int n = 0, n_max = words->n_next;

	if (words->given)
		return 0;
	if (row && row->type == OPTION_BOOL)
		return n_max && (!strcmp(words->next[0], "true") || !strcmp(words->next[0], "false"));
	if (row && row->type != OPTION_LIST && n_max > 1)
		n_max = 1;
	while (n < n_max && is_value(row, words->next[n]))
		n++;
	return n;
}

/* Takes a flag's value, or values; returns how many of the next words those are. */
static int read_flag(struct reader *reader, struct slice flag, const struct words *words) {
	const struct option *row = option_name_find_flag(reader->set->schema, flag);
	int n = count_values(row, words);

	if (!row) {
		complain_of_flag(reader, flag);
		return n;
	}
	if (words->given)
		take(reader, row, option_value_of_text(row, slice_of(words->given)));
	else if (n == 0 && row->type == OPTION_BOOL)
		take(reader, row, json_true());
	else if (n == 0 && row->can_be_bare)
		take(reader, row, json_array());
	else if (n == 0)
		on_complaint(&reader->sink, "", "a value is missing");
	for (int i = 0; i < n; i++)
		take(reader, row, option_value_of_text(row, slice_of(words->next[i])));
	return n;
}

static bool find_command(const char *arg, enum option_command *command_out) {
	static const struct {
		const char *flag;
		enum option_command command;
	} commands[] = {
		{ "--help", OPTION_HELP },
		{ "-h", OPTION_HELP },
		{ "--man", OPTION_MAN },
		{ "--version", OPTION_VERSION },
		{ "-V", OPTION_VERSION },
		{ "--check", OPTION_CHECK },
	};

	for (size_t i = 0; i < n_elems(commands); i++)
		if (!strcmp(commands[i].flag, arg)) {
			*command_out = commands[i].command;
			return true;
		}
	return false;
}

static int read_config_flag(struct reader *reader, const struct words *words) {
	bool is_next = !words->given && words->n_next > 0 && !is_flag(words->next[0]);
	const char *file = is_next ? words->next[0] : words->given;

	if (!file || !file[0])
		on_complaint(&reader->sink, "", "a file is missing");
	else if (reader->set->file)
		on_complaint(&reader->sink, "", "only one file is read");
	else
		reader->set->file = strdup(file);
	return is_next;
}

enum option_command option_read_flags(struct option_set *set, int argc, char *const *argv) {
	enum option_command command = OPTION_RUN, c;

	if (argc > 0) {
		const char *slash = strrchr(argv[0], '/');
		free(set->called);
		set->called = strdup(slash ? slash + 1 : argv[0]);
	}
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *equals = is_flag(arg) ? strchr(arg, '=') : NULL;
		struct slice flag = { arg, equals ? (size_t)(equals - arg) : strlen(arg) };
		struct words words = { equals ? equals + 1 : NULL, argv + i + 1, argc - i - 1 };
		char name[OPTION_NAME_BYTES];
		snprintf(name, sizeof(name), "%.*s", (int)size_min(flag.n, sizeof(name) - 1), arg);
		struct reader reader = reader_of(set, OPTION_FLAG, name);

		if (find_command(arg, &c))
			command = command == OPTION_RUN || command == OPTION_CHECK ? c : command;
		else if (!is_flag(arg))
			on_complaint(&reader.sink, "", "a flag was expected");
		else if (slice_eq(flag, SLICE("--config")))
			i += read_config_flag(&reader, &words);
		else
			i += read_flag(&reader, flag, &words);
	}
	return command;
}

const char *option_file(const struct option_set *set) {
	return set->file;
}

static const struct option_table *find_table(const struct option_schema *schema, struct slice name) {
	for (const struct option_table *t = schema->tables; t < schema->tables + schema->n_tables; t++)
		if (slice_eq(name, slice_of(t->name)))
			return t;
	return NULL;
}

/* "ROUTER_PROT": the keys of the table that it begins with are the candidates. */
static bool is_of_table(const struct option_schema *schema, const struct option *row, const char *variable) {
	char name[OPTION_NAME_BYTES];

	option_name_variable(schema, row, name);
	size_t n = strlen(name) - strlen(row->key);
	return row->table[0] && !strncmp(variable, name, n);
}

/* Keys of the main table may be given without its name, as their flags are: HEADRACE_WORKER_URLS. */
static bool is_short_variable(
    const struct option_schema *schema, const struct option *r, const char *name, const char *given) {
	size_t prefix = strlen(schema->env_prefix) + 1, table = strlen(schema->main_table) + 1;

	return !strcmp(r->table, schema->main_table) && !strcmp(name + prefix + table, given + prefix);
}

/*
 * The environment is shared: only what begins with the name of a table of ours can be
 * a mistake, the rest (HEADRACE_BUILD) is somebody else's.
 */
static void read_variable(struct reader *reader, const char *value) {
	const struct option_schema *schema = reader->set->schema;
	struct option_nearest nearest = { .wanted = slice_of(reader->name) };
	char name[OPTION_NAME_BYTES], sentence[OPTION_LINE_BYTES];
	bool is_ours = false;

	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++) {
		if (!option_name_is_flag(r))
			continue;
		option_name_variable(schema, r, name);
		bool is_short = is_short_variable(schema, r, name, reader->name);
		if (!is_short && !is_of_table(schema, r, reader->name))
			continue;
		is_ours = true;
		if (is_short || !strcmp(name, reader->name)) {
			take(reader, r, option_value_of_text(r, slice_of(value)));
			return;
		}
		option_nearest_offer(&nearest, slice_of(name), name);
	}
	if (is_ours)
		on_complaint(&reader->sink, "", option_nearest_sentence(&nearest, "variable", sentence));
}

void option_read_environment(struct option_set *set, char *const *environment) {
	size_t n_prefix = strlen(set->schema->env_prefix);

	for (char *const *variable = environment; *variable; variable++) {
		const char *equals = strchr(*variable, '=');
		char name[OPTION_NAME_BYTES];

		if (!equals || !equals[1] || strncmp(*variable, set->schema->env_prefix, n_prefix) ||
		    (*variable)[n_prefix] != '_')
			continue;
		if (equals - *variable >= (ptrdiff_t)sizeof(name))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(equals - *variable), *variable);
		struct reader reader = reader_of(set, OPTION_ENVIRONMENT, name);
		read_variable(&reader, equals + 1);
	}
}

static void complain_of_key(struct reader *reader, const char *table, const char *key) {
	const struct option_schema *schema = reader->set->schema;
	struct option_nearest nearest = { .wanted = slice_of(key) };
	char at[OPTION_PATH_BYTES], name[OPTION_NAME_BYTES], sentence[OPTION_LINE_BYTES];

	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++)
		if (!strcmp(r->table, table) || !strcmp(r->key, key)) /* the right key in the wrong table */
			option_nearest_offer(&nearest, slice_of(r->key), option_name_path(r, name));
	for (size_t i = 0; i < schema->n_tables && !table[0]; i++)
		option_nearest_offer(&nearest, slice_of(schema->tables[i].name), schema->tables[i].name);
	snprintf(at, sizeof(at), "%s%s%.150s", table, table[0] ? "." : "", key);
	option_nearest_sentence(&nearest, "key", sentence);
	if (schema->ignores_unknown)
		option_set_warn_file(reader->set, at, sentence);
	else
		on_complaint(&reader->sink, at, sentence);
}

static void read_key(struct reader *reader, const char *table, const char *key, json_t *value) {
	char path[OPTION_NAME_BYTES];
	int n = snprintf(path, sizeof(path), "%s%s%s", table, table[0] ? "." : "", key);
	const struct option_schema *schema = reader->set->schema;
	const struct option *row = option_name_find_path(schema, slice_of(path));

	if (!row && !table[0] && schema->main_at_top) {
		table = schema->main_table;
		n = snprintf(path, sizeof(path), "%s.%s", table, key);
		row = n < (int)sizeof(path) ? option_name_find_path(schema, slice_of(path)) : NULL;
		table = row ? table : "";
	}
	if (row && n < (int)sizeof(path) && !strcmp(row->table, table))
		take(reader, row, json_incref(value));
	else
		complain_of_key(reader, table, key);
}

static void read_tree(struct reader *reader, json_t *root) {
	const char *table, *key;
	json_t *members, *value;

	json_object_foreach(root, table, members) {
		if (!find_table(reader->set->schema, slice_of(table))) {
			read_key(reader, "", table, members);
			continue;
		}
		if (!json_is_object(members))
			on_complaint(&reader->sink, table, "expected a table");
		json_object_foreach(members, key, value) {
			read_key(reader, table, key, value);
		}
	}
}

/* The document's root, or NULL with the mistake told. */
static json_t *parse(struct option_set *set, enum option_format format, struct slice text) {
	struct toml_error toml;
	json_error_t json;
	json_t *root;

	if (format == OPTION_TOML) {
		root = toml_read(text.p, text.n, set->lines, &toml);
		if (!root)
			option_set_blame_file(set, "", toml.line, toml.text);
	} else {
		root = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &json);
		if (!root)
			option_set_blame_file(set, "", json.line, json.text);
	}
	return root;
}

void option_read_text(
    struct option_set *set, const char *name, enum option_format format, struct slice text) {
	struct reader reader = reader_of(set, OPTION_FILE, NULL);
	char *file = strdup(name); /* may be the very string that it replaces */

	free(set->file);
	set->file = file;
	json_t *root = parse(set, format, text);
	if (json_is_object(root))
		read_tree(&reader, root);
	else if (root)
		option_set_blame_file(set, "", 0, "expected an object of tables");
	json_decref(root);
}

/* The file's bytes, NULL with errno if it cannot be read or is too large. */
static char *load(const char *path, size_t *n_out) {
	FILE *file = fopen(path, "re");
	char *text = file ? malloc(FILE_BYTES_MAX + 1) : NULL;
	int error = errno;

	if (!file)
		return NULL;
	*n_out = fread(text, 1, FILE_BYTES_MAX + 1, file);
	if (ferror(file) || *n_out > FILE_BYTES_MAX) {
		error = ferror(file) ? errno : EFBIG;
		free(text);
		text = NULL;
	}
	fclose(file);
	errno = error;
	return text;
}

static enum option_format format_of(const char *path, struct slice text) {
	const char *dot = strrchr(path, '.');

	if (dot && (!strcmp(dot, ".toml") || !strcmp(dot, ".json")))
		return dot[1] == 't' ? OPTION_TOML : OPTION_JSON;
	while (text.n && memchr(" \t\r\n", text.p[0], 4))
		text = slice_skip(text, 1);
	return text.n && text.p[0] == '{' ? OPTION_JSON : OPTION_TOML;
}

void option_read_file(struct option_set *set, const char *path) {
	size_t n = 0;
	char *bytes = load(path, &n);
	struct slice text = { bytes, n };

	if (bytes)
		option_read_text(set, path, format_of(path, text), text);
	else
		option_set_blame(set, OPTION_FILE, path, strerror(errno));
	free(bytes);
}
