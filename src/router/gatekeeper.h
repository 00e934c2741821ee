/*
 * gatekeeper: the one owner of the queue of requests that wait for a place.
 *
 * Lives on the control thread. Workers post waiters to it and get each back with exactly one
 * verdict: called, with a place that was taken for it; or told that the queue is full, that it had to
 * yield to a higher class, that its time is over, or that it cannot be served by its deadline. Who is called
 * picks an instance; if that finds nobody after all, the waiter is asked in again and is the first
 * of its tenant and class.
 *
 * A waiter is its worker's, and lent to the gatekeeper from gatekeeper_ask() to its verdict. A worker that
 * wants it back earlier, since the client left, says so by gatekeeper_cancel(); mail from one
 * thread to another keeps its order, so the answer to that comes behind any verdict, and behind it
 * the waiter is the worker's again. There are no locks, and no waiter is freed by two.
 *
 * Who releases anything while somebody waits tells the gatekeeper (gatekeeper_tell()), at most once
 * until that has looked.
 */
#pragma once

#include "fleet/load.h"
#include "fleet/snapshot.h"
#include "net/loop.h"
#include "router/admission.h"
#include "router/fair_queue.h"

enum gate_verdict {
	GATE_NONE,
	GATE_CALLED,    /* `place` is held for it */
	GATE_FULL,      /* there is no room in the queue */
	GATE_DISPLACED, /* it was in it, until a higher class came */
	GATE_EXPIRED,   /* it was in it for as long as it may */
	GATE_LATE,      /* it would be for longer than its deadline */
};

/* What its pick found nobody for, and so what it waits for besides a place. */
enum gate_lack {
	GATE_LACKS_NOTHING,  /* it has not picked yet */
	GATE_LACKS_VACANCY,  /* all instances have as many requests as they take */
	GATE_LACKS_INSTANCE, /* none is there */
};

#define WAITER_ID_BYTES 40u

struct waiter {
	struct fair_waiter fair; /* tenant, class and ends_ms are the worker's to fill in */
	struct place place;
	struct gatekeeper *gate;
	struct loop *home; /* where it is answered: */
	mail_fn on_verdict, on_cancelled;
	struct mail mail, cancel;     /* for the callbacks to find the waiter by */
	uint64_t n_vacancies, n_news; /* of admission, before the pick that found nobody */
	uint32_t cost_tokens;         /* estimated */
	uint8_t lack;                 /* enum gate_lack */
	uint8_t verdict;              /* enum gate_verdict */
	bool has_deadline;            /* ends_ms is the client's */
	bool is_again;                /* it was called before */
	char id[WAITER_ID_BYTES];     /* of the request, for those who look; NUL-terminated, maybe cut */
	struct job *job;              /* the worker's: woken by the verdict; NULL: cancelled */
	bool is_back;                 /* likewise: it has its verdict */

	/* private */
	struct list link; /* among those asked in, then those that wait */
	uint64_t asked_ms;
	uint64_t skipped_at; /* the round in which a worker was faster */
};

/* In the worker; zeroed at first. */
struct gate_bell {
	struct mail mail;
	struct gatekeeper *gate;
	_Atomic bool is_rung;
};

struct gatekeeper_options {
	struct loop *loop; /* the control thread's */
	struct admission *admission;
	const struct load *load;
	const struct admission_tenant *tenants; /* by number, as admission has them */
	uint32_t n_tenants;
	uint32_t n_max; /* that may wait */
};

must_use struct gatekeeper *gatekeeper_new(const struct gatekeeper_options *options);

/* Control thread: other tenants, or so many may wait; admission_limit() was called before. Nobody who waits
 * is sent away. */
void gatekeeper_limit(
    struct gatekeeper *gate, const struct admission_tenant *tenants, uint32_t n_tenants, uint32_t n_max);

/* Nobody waits any more; the loop runs no more. */
void gatekeeper_free(struct gatekeeper **gate);

/* Control thread: the fleet is this one now, and workers have been told before. Takes its own reference. */
void gatekeeper_publish(struct gatekeeper *gate, struct snapshot *snapshot);

/* Control thread, whose loop has ended, and the worker's thread, too: what that posted last is answered. */
void gatekeeper_deliver(struct gatekeeper *gate);

/* --- for workers -------------------------------------------------------------------- */

/* admission_wait() was said for it, once, before. */
void gatekeeper_ask(struct waiter *waiter);

/* Not to be called twice, nor after a verdict that was taken. */
void gatekeeper_cancel(struct waiter *waiter);

/* Something was released. */
void gatekeeper_tell(struct gatekeeper *gate, struct gate_bell *bell);

/* So many tokens were spent on the tenant; those of a waiter that was called have cost_tokens counted
 * already, which may be taken back. */
void gatekeeper_spend(struct gatekeeper *gate, uint32_t tenant, int64_t n_tokens);

/* When it is worth to come again, by how fast the queue empties: 1 to 60. */
uint16_t gatekeeper_retry_after_s(const struct gatekeeper *gate);

uint32_t gatekeeper_n_max(const struct gatekeeper *gate);

/* --- for those who look, on the control thread ------------------------------------------ */

uint32_t gatekeeper_n_waiting(const struct gatekeeper *gate, unsigned class);

/* Requests that left the queue with a place, a second; NAN: nobody knows yet. */
double gatekeeper_drain_rate(const struct gatekeeper *gate);

/* In the order in which they came. */
struct gate_sight {
	const struct waiter *waiter;
	uint32_t position; /* how many are before it, at most */
	uint64_t waited_ms;
};
typedef void (*gate_see_fn)(void *context, const struct gate_sight *sight);
void gatekeeper_each(const struct gatekeeper *gate, gate_see_fn see, void *context);
