/*
 * store_backend: what a kind of store does, for store.c alone. One thread at a time:
 * open and load on the caller's, then commit on the store's, then close by whoever ends it.
 */
#pragma once

#include "registry/store.h"

struct store_backend {
	const struct store_kind *kind;
	char epoch[17];
	uint64_t version;
	bool is_read_only; /* the disk: it can be loaded, and commits fail until that changes */
};

struct store_kind {
	bool is_instant; /* no thread: operations are done in the next turn */
	bool (*load)(
	    struct store_backend *b, store_each_fn each, void *context, struct store_fault *fault_out);
	/* All of the list (struct store_op.link), or nothing. 0, or -1 and a fault. */
	int (*commit)(struct store_backend *b, const struct list *ops, struct store_fault *fault_out);
	void (*close)(struct store_backend *b);
};

struct store_backend *store_memory_open(void);
struct store_backend *store_sqlite_open(const char *state_dir, struct store_fault *fault_out);

void store_epoch_random(char epoch[static 17]);
