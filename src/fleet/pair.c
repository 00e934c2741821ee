#include "fleet/pair.h"

#include <stdlib.h>

#include "fleet/packed.h"

bool pairs_keys_eq(struct pairs a, struct pairs b) {
	if (a.n != b.n)
		return false;
	for (uint32_t i = 0; i < a.n; i++)
		if (!slice_eq(a.items[i].key, b.items[i].key))
			return false;
	return true;
}

bool pairs_eq(struct pairs a, struct pairs b) {
	if (!pairs_keys_eq(a, b))
		return false;
	for (uint32_t i = 0; i < a.n; i++)
		if (!slice_eq(a.items[i].value, b.items[i].value))
			return false;
	return true;
}

struct slice pairs_value(struct pairs pairs, struct slice key) {
	for (uint32_t i = 0; i < pairs.n; i++)
		if (slice_eq(pairs.items[i].key, key))
			return pairs.items[i].value;
	return (struct slice){ NULL, 0 };
}

int pair_text_cmp(struct slice a, struct slice b) {
	int head = memcmp(a.p, b.p, size_min(a.n, b.n));

	return head ? head : (a.n > b.n) - (a.n < b.n);
}

size_t pairs_text_bytes(struct pairs pairs) {
	size_t bytes = 0;

	for (uint32_t i = 0; i < pairs.n; i++)
		bytes += pairs.items[i].key.n + 1 + pairs.items[i].value.n + 1;
	return bytes;
}

struct pairs pairs_write(struct pairs src, struct pair **items, char **text) {
	struct pairs copy = { *items, src.n };

	for (uint32_t i = 0; i < src.n; i++) {
		struct pair *pair = (*items)++;

		pair->key = packed_text(text, src.items[i].key);
		pair->value = packed_text(text, src.items[i].value);
	}
	return copy;
}

struct pairs pairs_copy(struct pairs src) {
	if (src.n == 0)
		return (struct pairs){ NULL, 0 };
	struct pair *items = malloc(src.n * sizeof(*items) + pairs_text_bytes(src)), *at = items;
	char *text = (char *)(items + src.n);

	pairs_write(src, &at, &text);
	return (struct pairs){ items, src.n };
}

void pairs_free(struct pairs *pairs) {
	free((void *)pairs->items);
	*pairs = (struct pairs){ NULL, 0 };
}
