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

struct local_question {
	const struct worker *worker;
	const struct snapshot *snap;
	const struct head *request;
	const struct tenant *tenant; /* who asks */
};

/* True when this method and path are ours. HEAD counts as GET. */
bool local_is_ours(const struct head *request);

/* True of those that need no key: whether the router is well is for probes to ask. */
bool local_is_open(const struct head *request);

/* Answers it; reply->status says with what. `reply` carries the connection's flags. 0 or CALL_E_GONE. */
must_use int local_answer(const struct local_question *question, struct call *call, struct reply *reply);
