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

const struct option *option_name_find_flag(const struct option_schema *schema, struct slice flag) {
	char line[OPTION_NAME_BYTES];

	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++)
		if (option_name_is_flag(r) &&
		    (slice_eq(flag, slice_of(option_name_flag(schema, r, line))) ||
			slice_eq(flag, slice_of(option_name_long_flag(r, line))) ||
			slice_eq(flag, slice_of(option_name_other_flag(r, line)))))
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
