/*
 * alias: other names that models have for clients, and what becomes of such a name on the way to an engine.
 *
 * A request that names an alias is one for its model in all that follows; in its body, as it goes out, the
 * model's id stands in place of the alias, and nothing else is another byte. An alias is nobody's but the
 * router's: engines are not asked whether they serve something of that name.
 *
 * Pure. A table is immutable and shared by all threads; its texts are the configuration's.
 */
#pragma once

#include "router/hold.h"
#include "router/splice.h"

struct alias {
	struct slice name, model;
	struct slice json; /* the model's id as a JSON text, with its quotes */
};

struct alias_table {
	const struct alias *items; /* by name, bytewise, each name once */
	size_t n;
};

/* NULL: the name is none. */
const struct alias *alias_find(const struct alias_table *table, struct slice name);

/* For tables that are being made. */
int alias_cmp(const void *a, const void *b);

/*
 * Adds the edit that puts the model where a body names it, as far as that is held; nothing where it does not.
 * The body is JSON or, with its content type, a form (multipart/form-data).
 */
void alias_edit_json(const struct alias *alias, const struct hold *body, struct splice *out);
void alias_edit_form(
    const struct alias *alias, const struct hold *body, struct slice type, struct splice *out);
