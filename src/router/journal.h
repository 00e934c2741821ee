/*
 * journal: what remains of a request: one line in the access log, its counters, its
 * times. Never a prompt, never a key, never a query string.
 */
#pragma once

#include "router/exchange.h"

/* An instance was picked, which took so long, and its ticket opened. */
void journal_picked(
    struct exchange *x, const struct pick_input *input, const struct pick_result *pick, uint64_t pick_ns);

/* None was, at this try, which took so long. The input's model is NULL when nobody has it. */
void journal_declined(struct exchange *x, const struct pick_input *input, enum cause cause, uint64_t pick_ns);

/* The instance did not take the request, or said so by this status; another one may. */
void journal_left(struct exchange *x, enum cause cause, unsigned status);

/* The instance in hand has computed the prompt for another one. */
void journal_prefilled(const struct exchange *x);

/* It is the instance of an earlier pick that answers, where another one was asked, too. */
void journal_returned(struct exchange *x);

/* The answer has begun, with content: its instance works. */
void journal_answered(const struct exchange *x);

/* Content events passed to the client just now: first-token and inter-token times. */
void journal_tokens(struct exchange *x, unsigned n_events);

/*
 * Is it the fault of the instance that has this slot that the exchange, or an attempt, ended so? Refusing for
 * lack of room is none, nor is a client that leaves, unless it hangs, or a limit of ours.
 */
bool journal_blames(const struct exchange *x, unsigned slot, enum cause cause, unsigned status);

/* It is sent again, after the wait that is set. */
void journal_retried(const struct exchange *x);

/* The attempt in hand is over. Was it one of the two legs of a shared request? */
void journal_leg(const struct exchange *x, enum cause cause, bool is_error);

/* At settle, once. */
void journal_write(struct exchange *x);

/* A request that the session refused before there was an exchange. */
void journal_refused(struct server *server, const struct head *head, enum cause cause, struct reply *reply);
