#include "router/alias.h"

#include <stdlib.h>

#include "fleet/pair.h"
#include "router/form.h"
#include "router/scan.h"

int alias_cmp(const void *a, const void *b) {
	const struct alias *one = a, *other = b;

	return pair_text_cmp(one->name, other->name);
}

const struct alias *alias_find(const struct alias_table *table, struct slice name) {
	const struct alias wanted = { .name = name };

	return table->n && name.n ? bsearch(&wanted, table->items, table->n, sizeof(wanted), alias_cmp)
				  : NULL;
}

/* --- where a body names its model ------------------------------------------------------------- */

static const struct scan_want wants[] = { { .path = "model" } };

static struct scan_table scan_table;

__attribute__((constructor)) static void alias_table_init(void) {
	scan_table_init(&scan_table, wants, n_elems(wants), NULL);
}

void alias_edit_json(const struct alias *alias, const struct hold *body, struct splice *out) {
	struct scan_value values[n_elems(wants)];
	const struct scan_value *model = NULL;
	struct scan s;
	char room[1];

	scan_init(&s, &scan_table, values, room, sizeof(room));
	for (const struct buf *b = body->first; b && !model; b = b->next) {
		if (scan_feed(&s, b->data, b->used) > SCAN_COMPLETE)
			return;
		model = scan_found(&s, 0);
	}
	if (model)
		splice_add(out,
		    (struct splice_edit){ .at = model->offset, .n_cut = model->length, .put = alias->json });
}

void alias_edit_form(
    const struct alias *alias, const struct hold *body, struct slice type, struct splice *out) {
	struct form form;

	if (!form_init(&form, type))
		return;
	for (const struct buf *b = body->first; b && !form_value(&form).p; b = b->next)
		if (form_feed(&form, b->data, b->used) > FORM_COMPLETE)
			return;
	if (form_value(&form).p)
		splice_add(out,
		    (struct splice_edit){ .at = form.value_at, .n_cut = form.value_n, .put = alias->model });
}
