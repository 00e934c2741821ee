/*
 * meter: so much a minute, of requests or of tokens.
 *
 * The generic cell rate algorithm (ITU-T I.371): one word, the time at which all that was taken
 * will have been earned again. A meter that was left alone is full and holds a minute's worth. What is
 * not known beforehand is reserved by an estimate and settled by what it came to: a debt
 * delays who comes next, for an hour at most, and what was too much is given back.
 *
 * One atomic word, any thread, no locks. Times are monotonic nanoseconds.
 */
#pragma once

#include <stdatomic.h>

#include "base/defs.h"

#define METER_MAX UINT64_C(60000000000) /* a minute: at most one each nanosecond */

/* A zeroed one is full. */
struct meter {
	_Atomic uint64_t empty_until_ns;
};

struct meter_view {
	uint64_t remaining;  /* so many can be taken now */
	uint64_t full_in_ns; /* until all is earned again */
	uint64_t wait_ns;    /* until what was asked for could be taken; 0: now */
};

/*
 * Takes n of per_minute, 1 to METER_MAX. False: there are not as many, and nothing is taken. Of more
 * than a minute's worth a minute's worth is enough; the rest is a debt. The view is as after that.
 */
must_use bool meter_take(
    struct meter *m, uint64_t per_minute, uint64_t n, uint64_t now_ns, struct meter_view *view_out);

/* As it is now; nothing is taken. wait_ns is 0. */
struct meter_view meter_look(const struct meter *m, uint64_t per_minute, uint64_t now_ns);

/* It is as full as the other; before anybody uses it. */
void meter_follow(struct meter *m, const struct meter *other);

/* What was taken as `reserved` came to `used`. */
void meter_settle(struct meter *m, uint64_t per_minute, uint64_t reserved, uint64_t used, uint64_t now_ns);
