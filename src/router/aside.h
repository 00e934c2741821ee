/*
 * aside: one attempt that its exchange does not have in hand: connection, ticket, permit, view and all.
 *
 * An exchange works on one attempt at a time; where two are under way (a hedge, or prefill and decode) the
 * other one is aside. Its connection goes on sending what is queued, and wakes the exchange. Part of its
 * exchange, on its thread.
 */
#pragma once

#include "router/exchange.h"

struct aside {
	struct call up;
	struct upstream *upstream; /* NULL: it has no connection yet, or any more */
	struct buf *held_head;     /* as the exchange has it */
	struct view *view;         /* NULL: nobody is aside */
	const struct model *model;
	struct ticket ticket;
	uint64_t moved_ms, connected_ns, deadline_ms;
	uint32_t row;
	struct breaker_permit permit;
	uint8_t reason, first_address, n_addresses, n_interim;
	bool is_tls_refused;
};

static inline bool aside_is_there(const struct aside *a) {
	return a->view;
}

/* From hand to `a`, which is empty. Nothing is in hand then, not even a view. */
void aside_put(struct exchange *x, struct aside *a);

/* The contrary: nothing was in hand, and `a` is empty afterwards. */
void aside_take(struct exchange *x, struct aside *a);

/* What is in hand and what is aside change places; either may be nothing. */
void aside_swap(struct exchange *x, struct aside *a);
