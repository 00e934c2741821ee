/*
 * seek: who has a stored response, when nobody here knows who made it: after a restart, or when another
 * router took the request that it was made for.
 *
 * A request that is about a response by its path, and none that goes on from one by its body, is sent on when
 * an engine answers 404: at once, to one that was not asked yet and is well, as a GET, a DELETE or a cancel
 * costs it next to nothing. That is no retry: nothing has failed, no budget pays for it, and it does not
 * count among the sends of `[retry] attempts`. Of the tried those who said so come first (n_denied), and are
 * not asked again with those who were busy. When nobody is left the 404 is the client's; was it let go for
 * one that could then not be reached, who said it is asked once more. The connections of a search are kept
 * where each 404 came in one piece.
 *
 * Part of its exchange, on its thread.
 */
#pragma once

#include "router/exchange.h"

/* The engine in hand has answered with this head. True: it has no such response, was left, and another one
 * is to be picked. */
must_use bool seek_goes_on(struct exchange *x, const struct head *answer);

/* Nobody else can be picked. True: the one that said so last may be, and is to be asked again. */
must_use bool seek_returns(struct exchange *x);

/* The engine in hand answers the client with this status: if it has the response, that is remembered. */
void seek_learn(const struct exchange *x, unsigned status);
