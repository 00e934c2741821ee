/*
 * leavers: workers that were removed while requests were there. They are out of the fleet and get no more;
 * who removed them is shown that they are not through yet.
 *
 * A leaver has its instance, so that nobody else gets the slot at which its requests are counted, and is
 * shown as it was when it was removed. It is over when its requests have ended, or its time has; that is
 * looked at when somebody looks, or the next one leaves. Of more than LEAVERS_MAX the oldest is forgotten.
 *
 * Control thread.
 */
#pragma once

#include <jansson.h>

#include "fleet/load.h"

#define LEAVERS_MAX 256u

struct leavers;

must_use struct leavers *leavers_new(const struct load *load);
void leavers_free(struct leavers **leavers); /* accepts NULL, clears */

/* Takes the reference to what it is shown as. Nothing happens when nothing is in flight. */
void leavers_add(
    struct leavers *l, struct instance *inst, json_t *worker, uint64_t until_ms, uint64_t now_ms);

/* Those that are not over, in the order in which they left, with their requests in flight, 1 or more. */
void leavers_each(struct leavers *l, uint64_t now_ms,
    void (*see)(void *context, const json_t *worker, uint64_t n_requests), void *context);
