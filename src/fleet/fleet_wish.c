/* What operators wish of names, whether or not somebody in the fleet has them. */
#include <stdlib.h>

#include "base/log.h"
#include "fleet/fleet_record.h"

static void wish_free(struct fleet *fleet, struct wish *wish) {
	HASH_DEL(fleet->wishes, wish); /* NOLINT(clang-analyzer-unix.Malloc) */
	free(wish);
}

static struct wish *wish_find(const struct fleet *fleet, struct slice name) {
	struct wish *wish;

	HASH_FIND(hh, fleet->wishes, name.p, name.n, wish);
	return wish;
}

void fleet_forget_wishes(struct fleet *fleet) {
	struct wish *wish, *next;

	HASH_ITER(hh, fleet->wishes, wish, next) {
		wish_free(fleet, wish);
	}
}

static void fleet_forget_wish(struct fleet *fleet) {
	struct wish *wish = fleet->wishes; /* the oldest, then in their order */
	struct log_event e;

	while (fleet_has_name(fleet, FLEET_SOURCES, slice_of(wish->name)))
		wish = wish->hh.next; /* there are more of them than records */
	log_begin(&e, LOG_WARN, "too many names are wished something of: one that is not here is forgotten");
	line_text(&e.line, SLICE("instance"), slice_of(wish->name));
	log_end(&e);
	wish_free(fleet, wish);
}

void fleet_set_wish(struct fleet *fleet, struct slice name, const struct fleet_wish *wish) {
	struct wish *w = wish_find(fleet, name);

	assert(wish->state == INSTANCE_UNKNOWN || wish->state >= INSTANCE_DRAINING);
	assert(wish->weight <= FLEET_WEIGHT_MAX);
	fleet->is_dirty = true;
	if (!wish->state && !wish->has_weight) {
		if (w)
			wish_free(fleet, w);
		return;
	}
	if (!w && HASH_COUNT(fleet->wishes) == FLEET_WISHES_MAX)
		fleet_forget_wish(fleet);
	if (!w) {
		w = calloc(1, sizeof(*w) + name.n + 1);
		memcpy(w->name, name.p, name.n);
		/* The analyser takes one that was forgotten for the table's head still. */
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		HASH_ADD(hh, fleet->wishes, name[0], (unsigned)name.n, w);
	}
	w->is = *wish;
}

struct fleet_wish fleet_wish(const struct fleet *fleet, struct slice name) {
	const struct wish *wish = wish_find(fleet, name);

	return wish ? wish->is : (struct fleet_wish){ .state = INSTANCE_UNKNOWN };
}

void fleet_each_wish(const struct fleet *fleet,
    void (*see)(void *context, struct slice name, const struct fleet_wish *wish), void *context) {
	for (const struct wish *w = fleet->wishes; w; w = w->hh.next)
		see(context, slice_of(w->name), &w->is);
}
