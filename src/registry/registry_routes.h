/*
 * registry_routes: the registry's endpoints; what changes something goes to
 * registry_change.h. One thread, the loop's.
 */
#pragma once

#include "registry/registry_core.h"

#define REGISTRY_ROUTES_N 10

struct registry_routes {
	struct registry_core *core; /* set by the owner, whose it is */
	struct endpoint_server server;
	struct endpoint rows[REGISTRY_ROUTES_N];
	uint64_t started_ns;
};

/* Takes the listening socket. */
must_use int registry_routes_open(struct registry_routes *r, int fd);
void registry_routes_close(struct registry_routes *r);
void registry_routes_deinit(struct registry_routes *r);
