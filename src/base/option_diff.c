#include "base/option_diff.h"

#include "base/option_name.h"
#include "base/option_set.h"
#include "base/option_value.h"

/* Of a type that is stored as a plain number, and how it is stored. */
static bool is_plain(const struct option *row) {
	switch (row->type) {
	case OPTION_BOOL:
	case OPTION_UINT:
	case OPTION_NUMBER:
	case OPTION_DURATION:
	case OPTION_SIZE:
	case OPTION_ENUM:
		return row->bytes;
	default:
		return false;
	}
}

static bool is_same(const struct option *row, const json_t *a, const json_t *b) {
	struct option alone = *row;
	uint64_t stored[2] = { 0, 0 };

	if (json_equal(a, b))
		return true;
	if (!is_plain(row))
		return false;
	assert(row->bytes <= sizeof(stored[0]));
	alone.offset = 0;
	option_value_store(NULL, &alone, a, &stored[0]);
	option_value_store(NULL, &alone, b, &stored[1]);
	return stored[0] == stored[1];
}

json_t *option_diff(const struct option_set *before, const struct option_set *after, bool only_fixed) {
	const struct option_schema *schema = before->schema;
	json_t *list = json_array();
	char path[OPTION_NAME_BYTES];

	assert(schema == after->schema);
	for (const struct option *row = schema->rows; row < schema->rows + schema->n_rows; row++) {
		const json_t *from = option_set_found(before, row)->value,
			     *to = option_set_found(after, row)->value;

		if (row->type == OPTION_ARRAY || row->reserved || (only_fixed && !row->fixed) ||
		    is_same(row, from, to))
			continue;
		json_array_append_new(list,
		    json_pack("{s:s, s:o, s:o}", "option", option_name_path(row, path), "from",
			option_set_dump(row, from), "to", option_set_dump(row, to)));
	}
	return list;
}
