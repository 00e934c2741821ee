/*
 * instances: what the admin port shows of instances, and what an operator wishes of them: to be drained,
 * disabled, or to have another weight.
 *
 * A wish is about a name (fleet_set_wish()): it outlives syncs, removal and return of the instance, and ends
 * when it is taken back, or with the process. Names that are one target have their wishes together: one
 * engine cannot be drained by halves. An answer says that it is done: all workers have the snapshot without
 * the instance then, so that no request that comes later goes there.
 *
 * Control thread. The endpoints take a struct report as context. Who wishes must be on this machine or have
 * the admin key.
 */
#pragma once

#include "fleet/fleet.h"
#include "http/endpoint.h"

#define INSTANCES_BODY_BYTES_MAX 1024u

/* GET /instances: all of them, and names that are wished something of and not there. */
void instances_list(struct endpoint_call *c);

/* POST /instances/{name}/...: no new work, and what it has ends by itself; the same, and it is meant to stay
 * out; it may serve again. Repeated they change nothing. */
void instances_drain(struct endpoint_call *c);
void instances_disable(struct endpoint_call *c);
void instances_enable(struct endpoint_call *c);

/* {"weight":N} in place of what its source says; null: as that says. */
void instances_weight(struct endpoint_call *c);

/* One line for each word of the operator's that a successor does not have. */
void instances_log_lost(const struct fleet *fleet);
