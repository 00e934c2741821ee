/* fuzz_json: for targets whose input has several parts, and that make JSON. */
#pragma once

#include "router/hold.h"
#include "router/scan.h"

/* Takes what is before the next zero byte off *rest. */
static inline struct slice next_part(struct slice *rest) {
	const char *end = rest->n ? memchr(rest->p, '\0', rest->n) : NULL;
	struct slice part = slice_head(*rest, end ? (size_t)(end - rest->p) : rest->n);

	*rest = slice_skip(*rest, size_min(part.n + 1, rest->n));
	return part;
}

static inline bool is_json(struct slice text) {
	static struct scan_table table;
	static const struct scan_want none = { .path = "x" };
	struct scan_value values[1];
	struct scan scan;

	if (!table.n_wants && !table.n_nodes)
		scan_table_init(&table, &none, 1, NULL);
	scan_init(&scan, &table, values, NULL, 0);
	return scan_feed(&scan, text.p, text.n) <= SCAN_COMPLETE && scan_finish(&scan) == SCAN_COMPLETE;
}

/* To be freed. */
static inline char *text_of(const struct hold *h) {
	char *text = malloc((size_t)h->bytes + 1), *to = text;

	for (const struct buf *b = h->first; b; to += b->used, b = b->next)
		memcpy(to, b->data, b->used);
	return text;
}

static inline bool is_json_held(const struct hold *h) {
	char *text = text_of(h);
	bool good = is_json((struct slice){ text, (size_t)h->bytes });

	free(text);
	return good;
}

/* The data of an event that has one such line. */
static inline struct slice data_of(struct slice event) {
	const char *at = event.n ? memmem(event.p, event.n, "data:", 5) : NULL;
	struct slice rest = at ? slice_skip(event, (size_t)(at + 5 - event.p)) : (struct slice){ NULL, 0 };
	const char *end = rest.n ? memchr(rest.p, '\n', rest.n) : NULL;

	return end ? slice_head(rest, (size_t)(end - rest.p)) : rest;
}
