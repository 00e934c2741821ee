/*
 * patience: what the client of a stream gets while its request waits for a place, or for another try at an
 * engine that is not up, if it asked to wait (x-headrace-wait): after ten seconds the head of its stream,
 * and a comment then and every ten seconds more, so that nobody on the way takes it for dead.
 *
 * From then on the answer has begun: errors are events of it, and an instance's answer must be a
 * plain event stream with status 200, whose head is left out. HTTP/1.1 alone. Worker's thread.
 */
#pragma once

#include "router/exchange.h"

#define PATIENCE_MS 10000u

/* When there is something to be said to the one that waits; UINT64_MAX: never. After patience_speak() that is
 * in the future. */
uint64_t patience_due_ms(const struct exchange *x);

/* Says it if it is due and the client reads. 0 or CALL_E_GONE. */
must_use int patience_speak(struct exchange *x);

/* Whether this answer goes on where the comments ended. */
bool patience_fits(const struct head *answer);
