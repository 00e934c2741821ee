#include "sim/agenda.h"

#include <stdlib.h>

void agenda_init(struct agenda *agenda) {
	*agenda = (struct agenda){ .n = 0 };
}

void agenda_deinit(struct agenda *agenda) {
	free(agenda->entries);
	agenda_init(agenda);
}

static bool is_before(const struct agenda_entry *a, const struct agenda_entry *b) {
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void agenda_add(struct agenda *agenda, uint64_t at_ns, uint64_t what) {
	struct agenda_entry entry = { at_ns, agenda->n_added++, what };
	size_t i = agenda->n++;

	if (i == agenda->room) {
		agenda->room = agenda->room ? 2 * agenda->room : 64;
		agenda->entries = realloc(agenda->entries, agenda->room * sizeof(*agenda->entries));
	}
	for (; i > 0 && is_before(&entry, &agenda->entries[(i - 1) / 2]); i = (i - 1) / 2)
		agenda->entries[i] = agenda->entries[(i - 1) / 2];
	agenda->entries[i] = entry;
}

uint64_t agenda_at_ns(const struct agenda *agenda) {
	return agenda->n ? agenda->entries[0].at_ns : AGENDA_NEVER;
}

/* Puts `entry` where it belongs at or below the top. */
static void sift_down(struct agenda *agenda, struct agenda_entry entry) {
	struct agenda_entry *entries = agenda->entries;
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < agenda->n; i = child) {
		if (child + 1 < agenda->n && is_before(&entries[child + 1], &entries[child]))
			child++;
		if (!is_before(&entries[child], &entry))
			break;
		entries[i] = entries[child];
	}
	entries[i] = entry;
}

uint64_t agenda_take(struct agenda *agenda) {
	assert(agenda->n > 0);
	uint64_t what = agenda->entries[0].what;

	if (--agenda->n > 0)
		sift_down(agenda, agenda->entries[agenda->n]);
	return what;
}
