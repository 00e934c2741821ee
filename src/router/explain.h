/*
 * explain: the admin port's answers to "why did it go there" and "where would it go".
 *
 * What is asked lives on the workers' threads: a question goes to them by mail, copies come
 * back by mail, and the HTTP answer waits meanwhile without holding anybody up. So nothing
 * is locked, and a question changes nothing that routing goes by.
 *
 * Control thread. At most EXPLAIN_ASKS_MAX questions are under way; beyond that they are
 * refused. The rows below stand in the admin table, whose context is a struct report.
 */
#pragma once

#include "http/endpoint.h"
#include "router/decision_json.h"
#include "router/worker.h"

#define EXPLAIN_ASKS_MAX       64u
#define EXPLAIN_BODY_BYTES_MAX (8u << 20)

struct explain {
	struct loop *loop; /* the control thread's */
	struct router *router;
	uint32_t n_asks;
	struct decision_moment moment;
};

void explain_init(struct explain *e, struct loop *loop, struct router *router);

/* GET /decisions and GET /decisions/{id}: what is remembered, newest first. */
void explain_decisions(struct endpoint_call *call);
void explain_decision(struct endpoint_call *call);

/* POST /explain: an inference request, and what would be done with it now. */
void explain_request(struct endpoint_call *call);
