#include "base/option_name.h"

#include "base/text.h"

bool option_name_is_flag(const struct option *row) {
	return row->type != OPTION_MAP && row->type != OPTION_ARRAY && row->type != OPTION_TREE;
}

const char *option_name_path(const struct option *row, char line[static OPTION_NAME_BYTES]) {
	snprintf(line, OPTION_NAME_BYTES, "%s%s%s", row->table, row->table[0] ? "." : "", row->key);
	return line;
}

static void to_dashes(char *line) {
	for (; *line; line++)
		if (*line == '_')
			*line = '-';
}

const char *option_name_long_flag(const struct option *row, char line[static OPTION_NAME_BYTES]) {
	snprintf(line, OPTION_NAME_BYTES, "--%s%s%s", row->table, row->table[0] ? "-" : "", row->key);
	to_dashes(line);
	return line;
}

static bool is_only_key(const struct option_schema *schema, const struct option *row) {
	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++)
		if (r != row && option_name_is_flag(r) && !strcmp(r->key, row->key))
			return false;
	return true;
}

const char *option_name_flag(
    const struct option_schema *schema, const struct option *row, char line[static OPTION_NAME_BYTES]) {
	if (row->flag)
		snprintf(line, OPTION_NAME_BYTES, "--%s", row->flag);
	else if (!strcmp(row->table, schema->main_table) || is_only_key(schema, row))
		snprintf(line, OPTION_NAME_BYTES, "--%s", row->key);
	else
		return option_name_long_flag(row, line);
	to_dashes(line);
	return line;
}

const char *option_name_other_flag(const struct option *row, char line[static OPTION_NAME_BYTES]) {
	snprintf(line, OPTION_NAME_BYTES, "%s%s", row->also ? "--" : "", row->also ? row->also : "");
	return line;
}

const char *option_name_variable(
    const struct option_schema *schema, const struct option *row, char line[static OPTION_NAME_BYTES]) {
	snprintf(line, OPTION_NAME_BYTES, "%s_%s_%s", schema->env_prefix, row->table, row->key);
	for (char *c = line; *c; c++)
		if (*c >= 'a' && *c <= 'z')
			*c = (char)(*c - 'a' + 'A');
	return line;
}

/* What a plain number of the row counts, as some systems have it in the names of their flags; "": nothing. */
static struct slice unit_of(const struct option *row) {
	if (row->type != OPTION_DURATION)
		return SLICE("");
	return row->unit_ms == 1000 ? SLICE("-secs") : row->unit_ms == 1 ? SLICE("-ms") : SLICE("");
}

static struct slice without(struct slice name, struct slice unit) {
	size_t n = name.n > unit.n ? name.n - unit.n : 0;

	return slice_eq(slice_skip(name, n), unit) ? slice_head(name, n) : name;
}

static bool is_called(
    const struct option_schema *schema, const struct option *row, struct slice flag, struct slice unit) {
	char line[OPTION_NAME_BYTES];

	flag = without(flag, unit);
	return slice_eq(flag, without(slice_of(option_name_flag(schema, row, line)), unit)) ||
	    slice_eq(flag, without(slice_of(option_name_long_flag(row, line)), unit)) ||
	    slice_eq(flag, without(slice_of(option_name_other_flag(row, line)), unit));
}

const struct option *option_name_find_flag(const struct option_schema *schema, struct slice flag) {
	const struct option *end = schema->rows + schema->n_rows;

	for (const struct option *r = schema->rows; r < end; r++)
		if (option_name_is_flag(r) && is_called(schema, r, flag, SLICE("")))
			return r;
	for (const struct option *r = schema->rows; r < end; r++)
		if (unit_of(r).n && is_called(schema, r, flag, unit_of(r)))
			return r;
	return NULL;
}

const struct option *option_name_find_path(const struct option_schema *schema, struct slice path) {
	char line[OPTION_NAME_BYTES];

	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++)
		if (slice_eq(path, slice_of(option_name_path(r, line))))
			return r;
	return NULL;
}

/* A third of the letters may be wrong, and one more. */
void option_nearest_offer(struct option_nearest *nearest, struct slice as, const char *name) {
	unsigned distance = text_distance(nearest->wanted, as);
	unsigned limit = nearest->name[0] ? nearest->distance : (unsigned)(nearest->wanted.n / 3 + 2);

	if (distance >= limit)
		return;
	nearest->distance = distance;
	snprintf(nearest->name, sizeof(nearest->name), "%s", name);
}

const char *option_nearest_sentence(
    const struct option_nearest *nearest, const char *noun, char line[static OPTION_LINE_BYTES]) {
	if (nearest->name[0])
		snprintf(line, OPTION_LINE_BYTES, "unknown %s; did you mean %s?", noun, nearest->name);
	else
		snprintf(line, OPTION_LINE_BYTES, "unknown %s", noun);
	return line;
}
