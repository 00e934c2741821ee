/*
 * health: runs the state machine of every instance (fleet/health_state.h).
 *
 * It probes engines, once for all data-parallel ranks of one, and the babysitters of those that a registry
 * named, each at its own moment; it reads what the workers have counted and what they avoid, and asks those
 * that keep requests waiting whether they work; it sets state and share in the fleet. `on_change`, once for
 * all that a turn of the loop has brought, asks the owner to build and publish a snapshot. Control thread
 * only: nobody else decides a state, and no sync of a source undoes what is known here.
 */
#pragma once

#include "base/rng.h"
#include "fleet/fleet.h"
#include "fleet/health_state.h"
#include "net/loop.h"

struct health_options {
	bool has_probes, is_passive, has_canary;
	uint64_t interval_ms, timeout_ms, slow_start_ms, stall_ms;
	unsigned errors_max;
	unsigned n_good_min;  /* probes in a row, of one that is unhealthy; 0 is 1 */
	const char *endpoint; /* what engines are asked for; NULL: /health */
	const char *api_key;  /* for the engines; "": none */
};

/* What all workers have counted for an instance's slot since they started, and what they see now. */
struct health_evidence {
	uint64_t n_requests, n_errors;         /* as they are shown */
	uint64_t n_good, n_faults;             /* answers; those that say something of the instance */
	uint64_t n_outcomes[BREAKER_OUTCOMES]; /* of attempts; shown, too */
	uint64_t answered_ms;                  /* when an answer's content began last */
	uint32_t n_streams, n_stalled, n_waiting;
};
typedef void (*health_evidence_fn)(void *context, unsigned slot, struct health_evidence *evidence_out);

struct health {
	struct loop *loop;
	struct fleet *fleet;
	struct health_options options;
	struct health_limits limits;
	health_evidence_fn evidence;
	void *context;
	struct snapshot *snapshot;                    /* the one last synced */
	struct monitor *monitors[INSTANCE_SLOTS_MAX]; /* by slot */
	struct timer tick;
	struct job change;
	struct rng rng;
	uint64_t ticked_ms;
	unsigned n_probing, n_inquiring;         /* under way, as of this tick */
	uint32_t first_row;                      /* of the next tick */
	uint64_t n_transitions[INSTANCE_STATES]; /* into each */
	uint64_t n_probes, n_failed_probes;
	void (*on_change)(struct health *h);
};

/* The texts of the options must outlive it. */
void health_init(struct health *h, struct loop *loop, struct fleet *fleet,
    const struct health_options *options, health_evidence_fn evidence, void *context,
    void (*on_change)(struct health *h));
/* Other options, from now on: the texts of the old ones are not looked at any more. What is under way ends as
 * it began, but for the key that it asks again with. */
void health_retune(struct health *h, const struct health_options *options);
void health_deinit(struct health *h);

/*
 * The instances of this snapshot are watched over, others are let go. To be called before
 * workers get it: the counters of an instance's slot begin here.
 */
void health_sync(struct health *h, struct snapshot *snapshot);

/* What is wanted of instances has changed (fleet_set_wish()). */
void health_heed(struct health *h);
