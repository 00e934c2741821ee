/*
 * gate_view: who is in flight and who waits, for people: the admin port's /admission.
 *
 * On the control thread. Names no prompts and no keys; requests by their ids.
 */
#pragma once

#include <jansson.h>

#include "router/worker.h"

#define GATE_VIEW_WAITERS_MAX 1000 /* that are listed, the first ones */

/* A new reference, the caller's. */
must_use json_t *gate_view(const struct router *router);
