/*
 * fair_queue: who goes next, of those that wait for room.
 *
 * Classes first: while anybody of a lower number waits that may go, nobody of a higher one does. Inside a
 * class tenants share by tokens: each has a counter of the tokens that were spent on it, by its weight, and
 * the one with the least goes next. Who comes back after a while begins at the least of those that
 * are there: nobody saves up a claim (Virtual Token Counter; Y. Sheng et al., "Fairness in Serving Large
 * Language Models", OSDI 2024). Of one tenant and model the one that came first goes first.
 *
 * Bounded: when it is full who comes displaces the youngest of the highest class above its own, or in its own
 * the youngest of the tenant with the most in line by its weight, if its own has less; or is not taken.
 * Waiters are their owners', linked while they wait.
 *
 * Weights and bounds may change at any time: who waits goes on waiting, and tenants keep what they have had.
 *
 * One thread, but for fair_queue_spend(), which any may call.
 */
#pragma once

#include <stdatomic.h>

#include "base/list.h"

#define FAIR_CLASSES     8u
#define FAIR_TENANTS_MAX 4096u

struct fair_waiter {
	struct list link;   /* in its flow */
	struct list by_age; /* in its class, the youngest last */
	uint16_t tenant;    /* one that the queue knows */
	uint8_t class;      /* below FAIR_CLASSES; 0 goes first */
	uint32_t target;    /* what it waits for room at: requests for one target keep their order */
	uint64_t ends_ms;   /* it waits no longer than that */
};

struct fair_queue;

/* Weights by tenant; 0: there is none of that number. Up to n_max wait at a time. */
must_use struct fair_queue *fair_queue_new(const uint32_t *weights, uint32_t n_tenants, uint32_t n_max);

/* From now on. Those who are no tenants any more may have waiters still, which go by the weight of before;
 * who has a number that was nobody's begins afresh. */
void fair_queue_limit(struct fair_queue *queue, const uint32_t *weights, uint32_t n_tenants, uint32_t n_max);

/* Nobody waits any more. */
void fair_queue_free(struct fair_queue **queue);

/* So many tokens were spent on the tenant, waited for or not. */
void fair_queue_spend(struct fair_queue *queue, uint32_t tenant, uint64_t n_tokens);

/*
 * NULL: it waits. Else there is no room for this one: the waiter itself, or one that waited and had
 * to yield to it; that one is out.
 */
must_use struct fair_waiter *fair_queue_put(struct fair_queue *queue, struct fair_waiter *waiter);

/* It was taken out, but could not go: it waits again, before all others of its tenant and class, however
 * many there are. */
void fair_queue_return(struct fair_queue *queue, struct fair_waiter *waiter);

/* It waits and shall no longer. */
void fair_queue_remove(struct fair_queue *queue, struct fair_waiter *waiter);

/* Who is next of those whose target has room, taken out; NULL: nobody. */
typedef bool (*fair_room_fn)(void *context, const struct fair_waiter *waiter);
struct fair_waiter *fair_queue_take(struct fair_queue *queue, fair_room_fn has_room, void *context);

/* One whose time is over, taken out; NULL: none is. */
struct fair_waiter *fair_queue_expire(struct fair_queue *queue, uint64_t now_ms);

uint32_t fair_queue_n(const struct fair_queue *queue);
uint32_t fair_queue_n_class(const struct fair_queue *queue, unsigned class);

/* How many go before it as things are, at most: those of its class and of lower numbers. */
uint32_t fair_queue_position(const struct fair_queue *queue, const struct fair_waiter *waiter);
