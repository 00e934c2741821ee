/*
 * registry_routes: the registry's endpoints; those that change something are in
 * registry_change.h. One thread, the loop's.
 */
#pragma once

#include "registry/prober.h"
#include "registry/registry_config.h"
#include "registry/store.h"
#include "registry/watchers.h"

#define REGISTRY_ROUTES_N 10

struct registry_routes {
	/* set by the owner, whose they are */
	struct loop *loop;
	const struct registry_config *config;
	struct roster *roster;
	struct store *store;
	struct prober *prober;
	struct watchers *watchers;

	struct endpoint_server server;
	struct endpoint rows[REGISTRY_ROUTES_N];
	uint64_t started_ns;
	uint32_t n_writing; /* changes that the store has */
	uint64_t n_done, n_failed, n_refused;
	uint64_t write_ns; /* of the n_done, from the request to the acknowledgement */
};

/* Takes the listening socket. */
must_use int registry_routes_open(struct registry_routes *r, int fd);
void registry_routes_close(struct registry_routes *r);
void registry_routes_deinit(struct registry_routes *r);

/* Lets leases end that are over and tells the watchers. Every ROSTER_TICK_MS, and before the roster is read.
 */
void registry_routes_tick(struct registry_routes *r);

/* Takes out who is silent for too long, here and in the store. */
void registry_routes_sweep(struct registry_routes *r);

/* Has what is registered probed where it says it is. */
void registry_routes_probe(struct registry_routes *r, const struct record *record);

/* The prober's result. */
void registry_routes_set_health(struct registry_routes *r, struct slice name, bool is_healthy);

/* For its endpoints: the time as RFC 3339, UTC, whole seconds, "+00:00"; the answer of 404. */
json_t *registry_timestamp(void);
void registry_answer_not_found(struct endpoint_call *c, struct slice name);
