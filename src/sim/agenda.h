/*
 * agenda: what will happen when, in virtual time: a binary heap.
 *
 * Entries of equal time leave in the order in which they came, so that a run is the
 * same each time. Owns its memory. One thread.
 */
#pragma once

#include "base/defs.h"

#define AGENDA_NEVER UINT64_MAX

struct agenda_entry {
	uint64_t at_ns;
	uint64_t order;
	uint64_t what; /* the owner's */
};

struct agenda {
	struct agenda_entry *entries;
	size_t n, room;
	uint64_t n_added;
};

void agenda_init(struct agenda *agenda);
void agenda_deinit(struct agenda *agenda);
void agenda_add(struct agenda *agenda, uint64_t at_ns, uint64_t what);

/* Of the first entry; AGENDA_NEVER: there is none. */
uint64_t agenda_at_ns(const struct agenda *agenda);

/* Takes the first entry out and returns what it is; there is one. */
uint64_t agenda_take(struct agenda *agenda);
