#include "policy/locality.h"

#include <stdlib.h>

/* Requests come from few places; those that share a cell share its rings, too. */
#define ORIGINS 8u

/* A ring is let out below this part of what let it in. */
#define RETURN_PART 0.75

/* What the members of the rings up to one have, and take. */
struct use {
	uint64_t n_requests, capacity;
};

static bool is_on(const struct policy_set *set) {
	return set->options->locality.mode != LOCALITY_OFF;
}

/* --- state ------------------------------------------------------------------------------------ */

static size_t cell_of(const struct snapshot *snap, const struct model *model, uint64_t origin) {
	size_t i = snapshot_choice_index(snap, model);

	assert(i < snapshot_n_choices(snap));
	return i * ORIGINS + origin % ORIGINS;
}

void locality_adopt(struct policy_set *set, const struct snapshot *snap) {
	const struct snapshot *old = set->snapshot;
	uint8_t *rings = calloc(snapshot_n_choices(snap), ORIGINS);

	for (uint32_t i = 0; old && i < snapshot_n_choices(snap); i++) {
		const struct model *was = snapshot_counterpart(old, snapshot_choice(snap, i));

		if (was)
			memcpy(rings + i * ORIGINS, set->rings + cell_of(old, was, 0), ORIGINS);
	}
	free(set->rings);
	set->rings = rings;
}

void locality_deinit(struct policy_set *set) {
	free(set->rings);
}

/* --- rings -------------------------------------------------------------------------------------- */

/* The region of a zone that is not ours is that of somebody there; without one it is ours. */
struct place locality_origin(const struct policy_options *options, const struct snapshot *snap,
    const struct model *model, const struct demand *demand) {
	const struct locality_options *own = &options->locality;
	struct place place = { own->zone, own->region };
	uint64_t zone = demand->origin_zone;

	if (zone == 0 || zone == own->zone)
		return place;
	place.zone = zone;
	for (uint32_t i = 0; i < model->n_candidates + model->n_reserve; i++) {
		const struct traits *t = snapshot_traits(snap, &model->candidates[i]);

		if (t->zone == zone && t->region) {
			place.region = t->region;
			break;
		}
	}
	return place;
}

enum pick_ring locality_ring_of(const struct place *place, const struct traits *t) {
	if (place->zone && t->zone == place->zone)
		return PICK_RING_ZONE;
	return place->region && t->region == place->region ? PICK_RING_REGION : PICK_RING_FAR;
}

static struct place origin_of(const struct policy_set *set, const struct pick_input *input) {
	return locality_origin(set->options, set->snapshot, input->model, input->demand);
}

static const struct candidate *eligible_at(
    const struct policy_set *set, const struct pick_input *input, uint32_t i) {
	return &input->model->candidates[set->eligible[i]];
}

/* uses[ring] is of all the eligible up to that ring. */
static void measure(const struct policy_set *set, const struct pick_input *input, const struct place *place,
    uint32_t n, struct use uses[static PICK_RING_NONE]) {
	for (uint32_t i = 0; i < n; i++) {
		const struct candidate *c = eligible_at(set, input, i);
		const struct traits *t = snapshot_traits(set->snapshot, c);
		uint64_t n_requests = load_requests(set->load, c->slot);

		for (unsigned ring = locality_ring_of(place, t); ring < PICK_RING_NONE; ring++) {
			uses[ring].n_requests += n_requests;
			uses[ring].capacity += t->capacity ? t->capacity : set->options->locality.capacity;
		}
	}
}

static bool is_below(uint64_t n_requests, uint64_t capacity, double part) {
	return (double)n_requests < part * (double)capacity;
}

/*
 * The last ring that is in, when it was `was`. What has spilled comes back with the ring: it must have
 * room within, too, or what it left behind would let the ring out, and its return let it in again.
 */
static unsigned last_ring(const struct policy_set *set, const struct use *uses, unsigned was) {
	double threshold = set->options->locality.threshold;
	unsigned nearest = 0, last;

	while (uses[nearest].capacity == 0)
		nearest++;
	last = was > nearest ? was : nearest;
	uint64_t n_all = uses[last].n_requests;
	while (last > nearest && is_below(n_all, uses[last - 1].capacity, RETURN_PART * threshold))
		last--;
	while (last < PICK_RING_FAR && !is_below(uses[last].n_requests, uses[last].capacity, threshold))
		last++;
	return last;
}

void locality_narrow(struct policy_set *set, const struct pick_input *input, struct filtered *f) {
	if (set->options->locality.mode != LOCALITY_PREFER || f->n == 0)
		return;
	struct place place = origin_of(set, input);
	struct use uses[PICK_RING_NONE] = { { 0, 0 } };
	uint32_t n = f->n;

	measure(set, input, &place, n, uses);
	f->last_ring =
	    (uint8_t)last_ring(set, uses, set->rings[cell_of(set->snapshot, input->model, place.zone)]);
	f->n = 0;
	f->weight = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct candidate *c = eligible_at(set, input, i);

		if (locality_ring_of(&place, snapshot_traits(set->snapshot, c)) > f->last_ring)
			continue;
		set->eligible[f->n++] = set->eligible[i];
		f->weight += c->weight;
	}
	assert(f->n > 0);
}

enum pick_ring locality_ring(
    const struct policy_set *set, const struct pick_input *input, const struct candidate *c) {
	if (!is_on(set))
		return PICK_RING_NONE;
	struct place place = origin_of(set, input);

	return locality_ring_of(&place, snapshot_traits(set->snapshot, c));
}

void locality_keep(struct policy_set *set, const struct pick_input *input, const struct pick_result *pick) {
	/* Who was tried is missing in the figures: they say nothing of the rings. */
	if (set->options->locality.mode != LOCALITY_PREFER || input->n_tried)
		return;
	struct place place = origin_of(set, input);

	set->rings[cell_of(set->snapshot, input->model, place.zone)] = pick->last_ring;
}
