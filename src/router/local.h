/*
 * local: the endpoints on the data port that the router answers itself.
 *
 * /v1/models and /models (what the routable instances serve, together), /health and
 * /status, /liveness, /readiness, /services, /stats, and by POST /finish_session. Answers are made from the
 * worker's own snapshot and from counters that all may read: nobody is asked, nothing waits.
 */
#pragma once

#include "http/reply.h"
#include "router/worker.h"

/* True when this method and path are ours. HEAD counts as GET. */
bool local_is_ours(const struct head *request);

/* Answers it; reply->status says with what. `reply` carries the connection's flags. 0 or CALL_E_GONE. */
must_use int local_answer(const struct worker *w, const struct snapshot *snap, const struct head *request,
    struct call *call, struct reply *reply);
