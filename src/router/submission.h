/*
 * submission: how an exchange has its request answered by the control thread: who may, the body, the
 * petition, the wait, the answer (router/petition.h).
 *
 * On the worker's thread. The client's leaving ends the wait at once; what comes of it on the control thread
 * is the petition's.
 */
#pragma once

#include "router/exchange.h"
#include "router/petition.h"

/* Whether it is for the control thread, as the configuration has it, and of whom. */
must_use bool submission_is_asked(
    const struct router_config *config, const struct head *request, enum petition_kind *kind_out);

/* Whether this client may use the worker API: CAUSE_NONE, or why not. */
enum cause submission_permit(struct exchange *x);

/* It goes no further: it waits no longer, if it did. */
void submission_leave(struct exchange *x);
