/*
 * registry_core: the registry's parts, and what is done to several of them at once.
 *
 * Endpoints and changes work on it; it calls neither. One thread, the loop's.
 */
#pragma once

#include "registry/prober.h"
#include "registry/registry_config.h"
#include "registry/store.h"
#include "registry/watchers.h"

struct registry_core {
	/* set by the owner, whose they are */
	struct loop *loop;
	const struct registry_config *config;
	struct roster *roster;
	struct store *store;
	struct prober *prober;
	struct watchers *watchers;

	uint32_t n_writing; /* changes that the store has */
	uint32_t n_sweeping,
	    n_swept; /* records that are being taken out, and that were since there are any */
	uint64_t n_done, n_failed, n_refused;
	uint64_t write_ns; /* of the n_done, from the request to the acknowledgement */
};

/* The roster's time. */
uint64_t registry_core_now_ms(void);

/* Lets leases end that are over and tells the watchers. Every ROSTER_TICK_MS, and before the roster is read.
 */
void registry_core_tick(struct registry_core *core);

/* Has what is registered probed where it says it is. */
void registry_core_probe(struct registry_core *core, const struct record *record);

/* The prober's result. */
void registry_core_set_health(struct registry_core *core, struct slice name, bool is_healthy);

/* For answers: the time as RFC 3339, UTC, whole seconds, "+00:00"; that of 404. */
json_t *registry_core_timestamp(void);
void registry_core_answer_not_found(struct endpoint_call *c, struct slice name);
