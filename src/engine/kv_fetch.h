/*
 * kv_fetch: a decode comes for its blocks at its prefill's side channel (kv_channel.h).
 *
 * The owner embeds it, starts it once, and is told once, unless it cancels before. Zeroed
 * memory may be cancelled. One thread, the loop's.
 */
#pragma once

#include "engine/kv_leg.h"
#include "http/origin.h"

struct kv_fetch {
	struct fetch fetch;
	struct origin *origin; /* NULL: not under way */
	void (*on_done)(struct kv_fetch *f);
	bool is_done, is_good;
	char why[128]; /* not: what the prefill said, or what became of the connection */
};

/* A prefill that has to be waited for has `wait_ms`. */
void kv_fetch_start(struct kv_fetch *f, struct loop *loop, const struct kv_leg *leg, uint64_t wait_ms,
    void (*on_done)(struct kv_fetch *f));
void kv_fetch_cancel(struct kv_fetch *f);
