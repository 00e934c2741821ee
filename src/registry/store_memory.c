#include <inttypes.h>
#include <stdlib.h>

#include "base/rng.h"
#include "registry/store_backend.h"

void store_epoch_random(char epoch[static 17]) {
	struct rng rng;
	rng_init_random(&rng);
	snprintf(epoch, 17, "%016" PRIx64, rng_next(&rng));
}

static bool memory_load(
    struct store_backend *b, store_each_fn each, void *context, struct store_fault *fault_out) {
	return true;
}

static int memory_commit(struct store_backend *b, const struct list *ops, struct store_fault *fault_out) {
	return 0;
}

static void memory_close(struct store_backend *b) {
	free(b);
}

struct store_backend *store_memory_open(void) {
	static const struct store_kind kind = {
		.is_instant = true,
		.load = memory_load,
		.commit = memory_commit,
		.close = memory_close,
	};
	struct store_backend *b = calloc(1, sizeof(*b));
	b->kind = &kind;
	store_epoch_random(b->epoch);
	return b;
}
