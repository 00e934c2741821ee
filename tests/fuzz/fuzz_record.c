/* A registration and a change of it, one line each: what is taken must come back from its own text. */
#include <stdint.h>

#include "registry/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const struct record *r) {
	size_t n;
	char *stored = record_stored(r, &n);
	struct record *again = record_new_stored((struct slice){ stored, n }, 0);
	assert(again && slice_eq(again->head, r->head) && slice_eq(again->tail, r->tail));
	json_decref(record_json(r, true));
	record_free(&again);
	free(stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct record_refusal refusal;
	struct slice all = { (const char *)data, size };
	const char *line = size ? memchr(data, '\n', size) : NULL;
	size_t n = line ? (size_t)(line - all.p) : size;
	struct record *r = record_parse(slice_head(all, n), NULL, UINT64_C(1700000000000), &refusal);
	if (!r)
		return 0;
	look(r);
	struct record *next = line ? record_parse(slice_skip(all, n + 1), r, 0, &refusal) : NULL;
	if (next)
		look(next);
	record_free(&next);
	record_free(&r);
	return 0;
}
