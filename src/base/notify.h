/*
 * notify: tells the service manager (systemd's Type=notify) how the program is doing.
 *
 * One datagram to the socket that $NOTIFY_SOCKET names, a path or an abstract name
 * ("@..."); nothing at all when the variable is not set. Never blocks. Any thread.
 */
#pragma once

#include "base/defs.h"

/* state: "READY=1", "STOPPING=1". 0: sent, or nobody wants to know; else a negative errno. */
int notify_manager(const char *state);

/*
 * Within which the manager wants to hear WATCHDOG=1, again and again ($WATCHDOG_USEC); 0: it does not.
 * $WATCHDOG_PID is not looked at: a successor that we start inherits ours.
 */
uint64_t notify_watchdog_ms(void);

/* RELOADING=1, with the time: READY=1 is to follow, whatever comes of it. */
void notify_reloading(void);

/* READY=1; what failed is in the log. */
void notify_ready(void);
