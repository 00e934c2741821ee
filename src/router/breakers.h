/*
 * breakers: what the admin and metrics ports show of the instances' breakers, and what is done to them by
 * hand.
 *
 * Control thread. The endpoints take a struct report as context. Who trips or resets must be on this
 * machine or have the admin key.
 */
#pragma once

#include "http/endpoint.h"
#include "router/worker.h"

/* GET /breakers */
void breakers_list(struct endpoint_call *c);

/* POST /breakers/{name}/trip and /reset: of all instances of that name. */
void breakers_trip(struct endpoint_call *c);
void breakers_reset(struct endpoint_call *c);

/* Attempts at the instance that ended so, since it came. */
uint64_t breakers_count(
    const struct router *router, const struct instance *inst, enum breaker_outcome outcome);

void breakers_write_metrics(const struct router *router, const struct snapshot *snap, FILE *out);
