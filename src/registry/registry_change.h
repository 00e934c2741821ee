/*
 * registry_change: how a change goes its way: judged, made durable by the store, taken
 * into the roster, answered, pushed to the watchers.
 *
 * A change is answered only after the store acknowledged it; when the store fails the
 * answer is 503 and the roster stays as it is, so that what clients read is what a restart
 * would bring. Heartbeats change no record and are answered at once, unless they bring
 * another status. The functions run within run() of an endpoint whose context is a struct
 * registry_routes. One thread, the loop's.
 */
#pragma once

#include "registry/registry_routes.h"

void registry_change_post(struct endpoint_call *c);
void registry_change_put(struct endpoint_call *c);
void registry_change_delete(struct endpoint_call *c);
void registry_change_heartbeat(struct endpoint_call *c);

/* Takes out who is silent for too long, here and in the store. How many those were. */
unsigned registry_change_sweep(struct registry_routes *r);
