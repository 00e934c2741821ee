/*
 * hedge: a second request to another instance when the answer of the first is late to begin.
 *
 * Off unless [hedge] enabled. A request is watched once an engine has it in full, if it may be made twice:
 * its body is kept, others serve its model, and it is of an API where an engine's work leaves nothing behind
 * (docs/api.md, Hedging). When its answer has not begun after the time that router/lateness.h tells, and the
 * budget has something left, its attempt is set aside as it is: connection, ticket, permit, view and all. The
 * exchange then picks, connects and sends again, with the instance of the first excluded, and is the second's
 * from there on; both connections wake it. Whoever begins a good answer (below 400) first has it; the
 * other one's connection ends at once, and its ticket is closed without a lesson, its permit without
 * an outcome. Who fails meanwhile is settled with its own cause and the other one is waited for; so is who
 * answers with 400 or more, unless the second is still to be connected to: it is let go then. There is one
 * second request for each request at the most.
 *
 * An event stream counts as begun with the first byte behind its head: many engines send the head before any
 * work is done. Until then it is held back, as long as there may be a second request or is one.
 *
 * Part of its exchange, on its thread.
 */
#pragma once

#include "router/aside.h"

enum next;

struct hedge {
	struct aside aside;
	uint64_t due_ms; /* when a second request is made; UINT64_MAX: none will be */
	uint8_t sent;    /* the number of the second one among the sends; 0: it was not sent, or is gone */
	bool was_begun;  /* a second one was picked for, or there was no leave to */
};

static inline bool hedge_is_out(const struct exchange *x) {
	return x->hedge && aside_is_there(&x->hedge->aside);
}

/* When it wants to be run again at the latest; UINT64_MAX: it does not. */
static inline uint64_t hedge_due_ms(const struct exchange *x) {
	return x->hedge ? x->hedge->due_ms : UINT64_MAX;
}

/* The engine has all of the request: from when on is its answer late? */
void hedge_watch(struct exchange *x);

/* As call_recv_head() of the attempt in hand, but that heads of event streams are held back. The head is good
 * until the next receive or attempt_drop(). */
must_use int hedge_recv_head(struct exchange *x, struct head_room *room, const struct head **head_out);

/* It is due: sets the attempt in hand aside and goes for a second one, if there is leave to. */
enum next hedge_begin(struct exchange *x);

/* A request goes out, the first, the second, or one that is sent again. */
void hedge_sent(struct exchange *x);

/* What has come of who is aside? True: it has the answer, the other one is gone, and *next_out follows. */
must_use bool hedge_hear(struct exchange *x, enum next *next_out);

/* Nobody is in hand, or to be picked: who is aside is waited for again. */
enum next hedge_take_back(struct exchange *x);

/* Who is in hand failed so, while another one is aside; `status` as in attempt_leave(). */
enum next hedge_fall_back(struct exchange *x, enum cause cause, unsigned status);

/* Whether an answer with this head is none to end the race by: the other one is waited for. */
bool hedge_does_lose(const struct exchange *x, const struct head *head);

/* The attempt in hand begins its answer by this head of hedge_recv_head(): the race is over. */
void hedge_answer(struct exchange *x, const struct head *head);

/* The first byte behind the head of a stream that was passed on alone has come (x->asked_ms). */
void hedge_learn(struct exchange *x);

/* Whoever is aside leaves with this cause, and nothing is watched any more. Without any does nothing. */
void hedge_end(struct exchange *x, enum cause cause);

/* Whether an engine has the request besides the one in hand, in which slot and for how long. */
bool hedge_is_waiting(const struct exchange *x, uint16_t *slot_out, uint64_t *silent_ms_out);
