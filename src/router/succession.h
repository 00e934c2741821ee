/*
 * succession: our part when another process started us to take its place (net/handover.h).
 *
 * We take the sockets that it gave us, start without accepting anything, say that we are
 * ready, accept when it says that we may, and say that we serve. When it is gone before that, we accept at
 * once. Until it ends we know that it is there: who stops us stops it, too, and it may still have clients.
 * Control thread.
 */
#pragma once

#include "net/fd_event.h"
#include "net/handover.h"

struct succession {
	int channel; /* -1: there is no predecessor, or none any more */
	struct handed_list handed;
	struct loop *loop;
	struct fd_event said;
	struct job job;
	bool is_offered, is_over; /* we are ready; we have been told to go, or there is nobody who could */
	void (*on_go)(struct succession *s);
};

/* Takes what we were given, if there is anything. False: that did not work, and standard error says why. */
must_use bool succession_begin(struct succession *s);

static inline bool succession_has_predecessor(const struct succession *s) {
	return s->channel >= 0;
}

/* Ready, and not told to go: it may have been said and not heard yet. */
static inline bool succession_is_offered(const struct succession *s) {
	return s->is_offered && !s->is_over;
}

/* Listens to it; on_go is called once, from the loop: it said so, or it is gone. */
void succession_watch(struct succession *s, struct loop *loop, void (*on_go)(struct succession *s));

/* Says that we are ready. */
void succession_offer(struct succession *s);

/* Once nothing can fail any more: it leaves, and what we write to standard error goes where its own does. */
void succession_say_serving(struct succession *s);

/* Who stops us in a hurry stops it likewise. */
void succession_hurry(struct succession *s);

/* Before the loop ends; may be called twice. */
void succession_end(struct succession *s);
