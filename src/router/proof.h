/*
 * proof: how an exchange whose client's key is none of ours comes to know whether it is valid: by what is
 * remembered, or by an inquiry (router/verdicts.h), for which it waits.
 *
 * On the worker's thread. While it waits nothing is read from its client; the client's leaving ends the wait
 * at once.
 */
#pragma once

#include "router/exchange.h"

/*
 * CAUSE_NONE: x->tenant is whose it is, or, with x->inquiry, the exchange waits and is to call
 * proof_hear() when it is woken. Else why it is refused. Only while router->verdicts is there.
 */
enum cause proof_take(struct exchange *x, struct slice key, const uint8_t digest[static DIGEST_BYTES]);

/* False: it waits on. Else the wait is over, and *cause_out as that of proof_take(). */
must_use bool proof_hear(struct exchange *x, enum cause *cause_out);

/* It goes no further: it waits no longer, if it did. */
void proof_leave(struct exchange *x);

/* How long the wait may be. */
uint64_t proof_patience_ms(const struct exchange *x);
