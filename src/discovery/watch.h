/*
 * watch: keeps what is known of each instance up to date: its addresses and its models. Whether it
 * is well is another matter (discovery/health.h).
 *
 * Names are resolved every `resolve_ms`, and soon (but not more than once a second)
 * after a failed connect, the workers' or our own; engines whose models were not
 * declared are asked for them (GET /v1/models, then /models) every `models_ms`, and
 * more often until they answered once. Where a registry, or the engine itself, has named the instance,
 * addresses that `allow` does not have (net/address_range.h) are left out, and nobody here, no worker, no
 * probe gets to see them: who writes there says where our requests go. Of an engine with data-parallel ranks
 * the first is resolved and asked, and what it says is so of all (fleet/fleet.h). A connection that is there
 * when `allow` gets narrower may live on. Who writes the configuration may say so. What is learned goes to
 * the fleet; `on_change`, called once for all that a turn of the loop has brought, asks the owner to build
 * and publish a snapshot. Control thread only.
 */
#pragma once

#include "base/option.h"
#include "fleet/fleet.h"
#include "net/address_range.h"
#include "net/loop.h"

struct watch_intervals {
	uint64_t models_ms, models_timeout_ms, resolve_ms;
	const char *api_key; /* for the engines; NULL or "": none */
	struct option_list
	    allow; /* address ranges, checked; the watcher keeps what they say, not the texts */
};

struct watch;

struct watcher {
	struct loop *loop;
	struct fleet *fleet;
	struct watch_intervals every;
	struct address_range *ranges; /* of every.allow */
	uint64_t n_denied;            /* addresses that were left out, each time that one was new */
	struct list watches;          /* one for each instance of the snapshot last seen */
	struct watch *by_slot[INSTANCE_SLOTS_MAX];
	struct timer tick;
	struct job change;
	void (*on_change)(struct watcher *w);
};

void watcher_init(struct watcher *w, struct loop *loop, struct fleet *fleet,
    const struct watch_intervals *every, void (*on_change)(struct watcher *));
/* Other times, keys and ranges, from now on: addresses that are known are judged anew. */
void watcher_retune(struct watcher *w, const struct watch_intervals *every);
void watcher_deinit(struct watcher *w);

/* Watches what the snapshot lists, lets go of the rest. */
void watcher_sync(struct watcher *w, const struct snapshot *snapshot);
