/*
 * registry_change: how a change goes its way: judged, made durable by the store, taken
 * into the roster, answered, pushed to the watchers.
 *
 * A change is answered only after the store acknowledged it; when the store fails the
 * answer is 503 and the roster stays as it is, so that what clients read is what a restart
 * would bring. Heartbeats change no record and are answered at once, unless they bring
 * another status. Those with a call run within run() of its endpoint. One thread, the
 * loop's.
 */
#pragma once

#include "registry/registry_core.h"

void registry_change_post(struct registry_core *core, struct endpoint_call *c);
void registry_change_put(struct registry_core *core, struct endpoint_call *c);
void registry_change_delete(struct registry_core *core, struct endpoint_call *c);
void registry_change_heartbeat(struct registry_core *core, struct endpoint_call *c);

/* Takes out who is silent for too long, here and in the store. */
void registry_change_sweep(struct registry_core *core);
