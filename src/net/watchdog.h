/*
 * watchdog: tells the service manager that the process works, for as long as all its loops move (systemd's
 * WatchdogSec).
 *
 * Four times in the manager's time a timer on the control thread's loop asks each of the others by mail; when
 * all have answered since it asked last, the manager is told WATCHDOG=1, and all are asked again. A loop that
 * stands still, the control thread's own included, is the end of these words, and the manager ends the
 * process. A process that as a whole gets no CPU for so long is ended, too.
 *
 * Nothing happens where no manager wants to hear. Control thread, but for the answers.
 */
#pragma once

#include "net/loop.h"

struct watchdog_question;

struct watchdog {
	struct loop *loop;
	struct timer timer;
	uint64_t every_ms;
	struct watchdog_question *questions; /* one for each other loop */
	unsigned n;
	bool is_silent; /* and the log says so */
};

/* The others must have been started, or be started next; they are not used after watchdog_stop(). */
void watchdog_start(struct watchdog *w, struct loop *loop, struct loop *const *others, unsigned n);
/* Also of one that was never started, all of which is 0. */
void watchdog_stop(struct watchdog *w);
/* After the last mail of the others was delivered. */
void watchdog_free(struct watchdog *w);
