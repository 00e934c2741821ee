#include "router/split_pushers.h"

#include "base/mix.h"

#define CELLS 128u

struct cell {
	uint64_t life; /* 0: empty */
	uint16_t ends[4];
	char text[SPLIT_PUSH_BYTES];
};

struct split_pushers {
	struct cell cells[CELLS];
};

static size_t place_of(uint64_t life) {
	return mix64(life) % CELLS;
}

void split_pushers_keep(
    struct split_pushers **pushers, const struct instance *inst, const struct split_push *push) {
	const struct slice texts[] = { push->engine, push->host, push->port, push->tp_size };
	size_t used = 0;

	if (!*pushers)
		*pushers = calloc(1, sizeof(**pushers));
	struct cell *cell = &(*pushers)->cells[place_of(instance_life(inst))];
	cell->life = instance_life(inst);
	for (unsigned i = 0; i < n_elems(texts); i++) {
		assert(texts[i].n <= sizeof(cell->text) - used);
		memmove(cell->text + used, texts[i].p, texts[i].n);
		used += texts[i].n;
		cell->ends[i] = (uint16_t)used;
	}
}

bool split_pushers_find(
    const struct split_pushers *pushers, const struct instance *inst, struct split_push *push_out) {
	struct slice *texts[] = { &push_out->engine, &push_out->host, &push_out->port, &push_out->tp_size };
	const struct cell *cell = pushers ? &pushers->cells[place_of(instance_life(inst))] : NULL;
	size_t from = 0;

	if (!cell || cell->life != instance_life(inst))
		return false;
	for (unsigned i = 0; i < n_elems(texts); i++) {
		*texts[i] = (struct slice){ cell->text + from, cell->ends[i] - from };
		from = cell->ends[i];
	}
	return true;
}

void split_pushers_forget(struct split_pushers *pushers, const struct instance *inst) {
	struct cell *cell = pushers ? &pushers->cells[place_of(instance_life(inst))] : NULL;

	if (cell && cell->life == instance_life(inst))
		cell->life = 0;
}

void split_pushers_free(struct split_pushers **pushers) {
	free(*pushers);
	*pushers = NULL;
}
