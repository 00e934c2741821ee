#include "fleet/load.h"

#include <stdlib.h>

#include "base/heap.h"

struct load *load_new(unsigned n_workers) {
	size_t bytes = n_workers * sizeof(struct load_shard);

	assert(n_workers > 0 && n_workers <= LOAD_WORKERS_MAX);
	struct load *load = malloc(sizeof(*load));
	load->n_workers = n_workers;
	load->shards = aligned_alloc(alignof(struct load_shard), bytes);
	assert(load->shards);
	heap_count_allocation();
	memset(load->shards, 0, bytes);
	return load;
}

void load_free(struct load **load_ptr) {
	struct load *load = *load_ptr;

	if (!load)
		return;
	*load_ptr = NULL;
	free(load->shards);
	free(load);
}
