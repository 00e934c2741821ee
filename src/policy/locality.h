/*
 * locality: of those that may get a request, those near enough to where it comes from.
 *
 * Three rings: the zone, the region, elsewhere. The nearest ring that has anybody gets all
 * requests until the requests in flight there reach a part of what its instances take; then
 * the next ring is let in as well. It is let out again only when all requests in flight, with
 * what spilled, are well less than that part of what is within takes: the rings do not flap. Which rings are
 * in is remembered for each model and place of origin in the policy set; a pick only reads it, the opening of
 * a ticket moves it.
 *
 * Distances are those of the labels: how long a connect takes is not looked at. Private to
 * this folder.
 */
#pragma once

#include "policy/filter.h"

/* Before set->snapshot becomes `snap`: what is remembered of its models stays. */
void locality_adopt(struct policy_set *set, const struct snapshot *snap);
void locality_deinit(struct policy_set *set);

/* Leaves of the eligible those in the rings that are in. Does nothing unless a place is preferred. */
void locality_narrow(struct policy_set *set, const struct pick_input *input, struct filtered *f);

/* Where a request comes from, as traits_word() has names; 0: nobody said. */
struct place {
	uint64_t zone, region;
};

/* Linear in the candidates for a request from another zone than the router's. */
struct place locality_origin(const struct policy_options *options, const struct snapshot *snap,
    const struct model *model, const struct demand *demand);

/* PICK_RING_ZONE to PICK_RING_FAR. Who says nothing of its place is far. */
enum pick_ring locality_ring_of(const struct place *place, const struct traits *t);

/* In which ring this candidate of the model is. */
enum pick_ring locality_ring(
    const struct policy_set *set, const struct pick_input *input, const struct candidate *c);

/* The request goes there: what the pick made of the rings is so from now on. */
void locality_keep(struct policy_set *set, const struct pick_input *input, const struct pick_result *pick);
