/*
 * watchers: who wants to be told of every change: GET /services?watch=1.
 *
 * With Accept: text/event-stream a watcher gets events until it leaves, otherwise one
 * answer, within 30 s (long poll). An event is
 *
 *     {"epoch":E,"version":N,"changes":[{"op":"put","name":N,"record":{...}},{"op":"delete","name":N},
 *      {"op":"delete","name":N,"reason":"expired"}]}
 *     {"reset":true,"epoch":E,"version":N,"services":[...]}
 *
 * (expired: swept out for its silence; without a reason somebody asked for the deletion)
 * and the next question is since=E:N. Without since, with another epoch, or when the
 * roster has forgotten what came behind it, a watcher begins with a reset. A name that
 * changed several times since is told of once, as it is now. A long poll that saw no change
 * is answered with no changes.
 *
 * Changes are looked for in one job, in the turn in which watchers_wake() was called;
 * what many have to hear is printed once, and kept once while they read it. A watcher that does not read is
 * cut off (http/endpoint.h says when). One thread, the loop's.
 */
#pragma once

#include "http/endpoint.h"
#include "registry/roster.h"

#define WATCHERS_MAX      8192u
#define WATCHERS_POLL_MS  30000u
#define WATCHERS_ALIVE_MS 15000u /* a comment, so that nobody between us takes silence for death */

/* An event that was printed last, with its frame: "data: ...\n\n". */
struct watch_text {
	struct buf *buf;   /* NULL: none is kept */
	uint64_t from, to; /* versions; a reset is from UINT64_MAX */
};

struct watchers {
	struct loop *loop;
	const struct roster *roster;
	struct list all; /* struct watcher */
	struct job job;
	struct timer alive;
	uint64_t told; /* the version that all know */
	struct watch_text changes, reset;
	uint32_t n;
	bool is_closed;
	uint64_t n_events, n_resets, n_cut, n_printed;
};

void watchers_init(struct watchers *w, struct loop *loop, const struct roster *roster);
/* Tells the last news, answers whoever waits, ends the streams in order; later ones are refused. */
void watchers_close(struct watchers *w);
void watchers_deinit(struct watchers *w);

/* Within the call's run(): answers or keeps it. The roster is as of now. */
void watchers_add(struct watchers *w, struct endpoint_call *call);

/* The roster may have changed. */
void watchers_wake(struct watchers *w);
