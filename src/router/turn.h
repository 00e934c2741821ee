/*
 * turn: a request's place among those in flight, from before its pick to its settlement,
 * and its wait for one.
 *
 * Most requests find a place at once: a few atomics, none where there are no caps. The others, and those
 * whose pick finds all instances full, are lent a waiter and posted to the gatekeeper; its
 * verdict wakes them. A request that waited goes on to its pick; when that finds nobody after all
 * it waits again, in front. While it waits it holds no place, and nothing is read from its client
 * beyond what it held before; the client's leaving ends the wait at once. What is about a stored response by
 * its path costs no engine anything, and needs no place.
 *
 * On the worker's thread. A turn is part of its exchange; zeroed it is none.
 */
#pragma once

#include "base/cause.h"
#include "base/slab.h"
#include "router/gatekeeper.h"

struct router_config;

/* A worker's. */
struct turn_desk {
	struct slab waiters;
	struct gate_bell bell;
};

void turn_desk_init(struct turn_desk *desk);

/* All its waiters are back. */
void turn_desk_deinit(struct turn_desk *desk);

struct turn {
	struct waiter *waiter;   /* from the wait's begin until an instance is picked; NULL: there is none */
	uint64_t ends_ms;        /* it waits no longer than that, all waits together; 0: it never waited */
	uint64_t began_ms;       /* of a wait, which goes on over picks until it is sent; 0: there is none */
	uint32_t charged_tokens; /* that the gatekeeper counts for it already */
	struct place place;      /* its tenant is the exchange's to set, before the first turn_take() */
	uint16_t n_words;        /* that its client was told of this wait, or could have been */
	bool is_called;          /* `place` is the waiter's, which has not picked yet */
	uint8_t late_cause;      /* enum cause: what it means when the wait has ended in vain */
};

struct exchange;
struct worker;

enum turn_outcome { TURN_E_WAIT = 1, TURN_E_REFUSED };

/* Before a pick: 0 once it has a place. After TURN_E_WAIT to be called again when woken. */
must_use int turn_take(struct exchange *x, enum cause *cause_out);

/* An instance was picked and charged. */
void turn_picked(struct exchange *x);

/* An engine has accepted its connection: if it waited, that is over. */
void turn_sent(struct exchange *x);

/* None was, for this cause. True: it gave its place back and waits again, to be woken for turn_take(). */
must_use bool turn_again(struct exchange *x, enum cause cause);

/* What that is called by the dialect, behind turn_again(): vLLM's router has one word for all want of room.
 */
enum cause turn_cause(const struct exchange *x, enum cause cause);

/* The same of a request that is not there. */
enum cause turn_cause_as(const struct router_config *config, enum cause cause, bool has_waited);

/* It goes no further, for this cause. It waits no longer; a place that it has it keeps until turn_settle().
 */
void turn_leave(struct exchange *x, enum cause cause);

/* An instance that takes so many and no more has one less. */
void turn_vacate(struct worker *worker);

/* The end, with so many tokens of prompt and answer. */
void turn_settle(struct exchange *x, uint64_t n_tokens);

/* When it comes again it may find room: for those refused for want of it; 0: for others. */
uint16_t turn_retry_after_s(const struct exchange *x, enum cause cause);
