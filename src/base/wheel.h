/*
 * wheel: timers of one thread, in milliseconds. Three levels of 256 slots.
 *
 * Start and stop cost a few instructions whatever the number of timers. A deadline
 * that moves later is only written down: the timer is put into its new slot when the
 * old one comes up (timer_start on a running timer). Timers of more than 4.6 hours go
 * round again. The embedder calls wheel_advance() and asks wheel_next_ms() how long
 * it may sleep. An expired timer is stopped before its callback, which may start it
 * again, start others, or free the object that embeds it.
 */
#pragma once

#include "base/list.h"

#define WHEEL_LEVELS 3
#define WHEEL_SLOTS  256

struct timer;
typedef void (*timer_fn)(struct timer *t);

/* Embed by value; zeroed memory must pass timer_init(). */
struct timer {
	struct list link;
	uint64_t deadline_ms;
	timer_fn on_expiry;
};

struct wheel {
	uint64_t now_ms;
	struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
	uint64_t used[WHEEL_LEVELS][WHEEL_SLOTS / 64]; /* may be set for a slot emptied by timer_stop() */
};

void wheel_init(struct wheel *w, uint64_t now_ms);

/* Runs what has expired by now_ms, in slot order. */
void wheel_advance(struct wheel *w, uint64_t now_ms);

/* Milliseconds until wheel_advance() has something to do; UINT64_MAX: nothing is started. */
uint64_t wheel_next_ms(struct wheel *w);

void timer_init(struct timer *t, timer_fn on_expiry);
void timer_start(struct wheel *w, struct timer *t, uint64_t delay_ms);
void timer_stop(struct timer *t);

static inline bool timer_is_running(const struct timer *t) {
	return list_is_linked(&t->link);
}
