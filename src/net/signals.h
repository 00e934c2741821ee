/*
 * signals: the process's signals as jobs of one loop, the control thread's.
 *
 * signals_init() also ignores SIGPIPE for the whole process. The callback runs on the
 * loop's thread, outside any signal handler.
 */
#pragma once

#include "net/loop.h"

#define SIGNALS_MAX 4

struct signals;
typedef void (*signals_fn)(struct signals *s, int number);

struct signals {
	uv_signal_t handles[SIGNALS_MAX];
	unsigned n;
	signals_fn on_signal;
};

void signals_init(struct signals *s, struct loop *loop, const int *numbers, unsigned n, signals_fn on_signal);
void signals_close(struct signals *s);
