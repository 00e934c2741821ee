/*
 * explain_ask: a question that is under way to workers, and the HTTP call that waits for
 * it. Private to router/explain*.c, but for its refusals, which are those of the admin port.
 *
 * Embedded at the start of what is asked. Belongs to the control thread; a worker has it, as
 * mail, between the posting and the answer, and then reads all but `call`.
 */
#pragma once

#include "http/reply.h"
#include "router/explain.h"
#include "router/report.h"

#define EXPLAIN_BAD_QUERY "the query is not percent-encoded as it should be"

struct explain_ask {
	struct explain *explain;
	struct endpoint_call *call; /* NULL: the client has left */
};

/* False: there are too many, and the call was refused. Keeps the call. */
must_use bool explain_ask_begin(struct explain_ask *ask, struct endpoint_call *call);
/* All workers have answered. */
void explain_ask_end(struct explain_ask *ask);

/* Of what is about the question itself. */
enum reply_dialect explain_dialect(struct endpoint_call *call);

/* As the data port refuses. */
void explain_refuse(
    struct endpoint_call *call, enum reply_dialect dialect, enum cause cause, const char *detail);
void explain_error(struct endpoint_call *call, unsigned status, const char *code, const char *message);
