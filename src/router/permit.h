/*
 * permit: a request's leave to go to its instance, by that one's breaker.
 *
 * Taken after the pick, before anything is charged or connected; held as long as the
 * exchange's ticket is open; settled once, right before that is closed, by how the
 * attempt ended. Of a half-open breaker there is one permit at a time, of all workers: who does not get it
 * picks again.
 *
 * What counts as a failure is what health takes for one (router/journal.h), and a connect that failed. A
 * refusal for lack of room, any 4xx, and a client that leaves say nothing of the engine.
 */
#pragma once

#include "router/exchange.h"

/* False: somebody was faster; the next pick leaves this instance out. */
must_use bool permit_take(struct exchange *x, struct instance *inst);

/* It was taken, and the request does not go there after all. */
void permit_return(struct exchange *x, struct instance *inst);

/* The attempt ended so; `status` of what the instance said, 0: nothing. Without an open ticket does nothing.
 */
void permit_settle(struct exchange *x, enum cause cause, unsigned status);

/* All who could take it are left alone: what the client is told to wait, so that not all come back at once.
 */
uint16_t permit_retry_after_s(struct exchange *x, const struct pick_input *input);
