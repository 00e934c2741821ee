/*
 * kv_engine: asks what Mooncake's connector calls each prefill engine, which decode engines must be told.
 *
 * GET /query at its bootstrap port answers {"RANK": {"engine_id": TEXT, ...}, ...}: of an instance its own
 * rank's counts, else any. Asked as soon as the instance has an address, after a failure again in 1 s,
 * doubling to 10 s; once known, every minute, at once when the instance is not unhealthy any more, and at
 * once when it was restarted, or when a decode engine failed with what it had prefilled (though once a second
 * at most). Who becomes unhealthy or was restarted has no name until it says one again: it may be another
 * engine by now. Who merely does not answer, or is in doubt, keeps its name.
 *
 * Who is asked is said by labels: role "prefill", kv_connector "mooncake" (or that is the default),
 * bootstrap_port. What is learned goes to the fleet (fleet_set_kv_engine()); `on_change`, once for all that a
 * turn has brought, asks the owner for a snapshot. Control thread.
 */
#pragma once

#include "fleet/fleet.h"
#include "net/loop.h"

#define KV_ENGINE_PORT 8998 /* where no label names another */

struct kv_engine;

struct kv_engines {
	struct loop *loop;
	struct fleet *fleet;
	bool is_default;                               /* who names no connector has Mooncake's */
	struct snapshot *snapshot;                     /* the one last synced */
	struct kv_engine *by_slot[INSTANCE_SLOTS_MAX]; /* of those that are asked */
	struct timer tick;
	struct job change;
	void (*on_change)(struct kv_engines *k);
};

/* `connector`: the default; not kept. */
void kv_engines_init(struct kv_engines *k, struct loop *loop, struct fleet *fleet, const char *connector,
    void (*on_change)(struct kv_engines *k));
void kv_engines_deinit(struct kv_engines *k);

/* The instances of this snapshot are asked, others are let go. */
void kv_engines_sync(struct kv_engines *k, struct snapshot *snapshot);
