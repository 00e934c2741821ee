#include "engine/stored.h"

#include <stdlib.h>

void stored_put(struct stored *s, const struct stored_response *response) {
	struct stored_response *item = &s->items[s->n_put++ % STORED_MAX];

	free(item->id);
	*item = *response;
	item->id = strdup(response->id);
}

/* Newest first: an id that a client chose may come again. */
static size_t find(const struct stored *s, struct slice id) {
	for (uint64_t n = 1; n <= STORED_MAX && n <= s->n_put; n++) {
		size_t at = (size_t)((s->n_put - n) % STORED_MAX);

		if (s->items[at].id && slice_eq(slice_of(s->items[at].id), id))
			return at;
	}
	return STORED_MAX;
}

const struct stored_response *stored_find(const struct stored *s, struct slice id) {
	size_t at = find(s, id);

	return at < STORED_MAX ? &s->items[at] : NULL;
}

void stored_remove(struct stored *s, struct slice id) {
	size_t at = find(s, id);

	if (at == STORED_MAX)
		return;
	free(s->items[at].id);
	s->items[at] = (struct stored_response){ .id = NULL };
}

void stored_clear(struct stored *s) {
	for (size_t i = 0; i < STORED_MAX; i++)
		free(s->items[i].id);
	*s = (struct stored){ .n_put = 0 };
}
