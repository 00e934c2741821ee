/*
 * process: the processes of this machine as /proc shows them, and signals that cannot
 * reach a stranger.
 *
 * A process is named by its number and its start time: the number alone may have passed
 * on to another. process_signal() therefore opens a pidfd first, looks whether the start time
 * is still that of the process that was meant, and signals through the descriptor. The time
 * counts in ticks of 10 ms: a number must not go round within one.
 * Everything here reads /proc, which takes about a millisecond for a hundred processes.
 */
#pragma once

#include <sys/types.h>

#include "base/defs.h"

struct process {
	pid_t pid, parent, group;
	uint64_t start; /* clock ticks since boot */
	char state;     /* 'Z': a zombie */
	bool is_marked;
};

struct process_list {
	struct process *items; /* by rising pid */
	size_t n, room;
};

/* False: there is no such process. */
must_use bool process_read(pid_t pid, struct process *out);

/* All there are; what comes and goes meanwhile may be missing. */
void process_list_read(struct process_list *l);
void process_list_deinit(struct process_list *l);

/* NULL when it is not listed. */
struct process *process_list_find(struct process_list *l, pid_t pid);

/* Marks whatever descends from a marked process, unless the number of that one has passed on since. */
void process_list_spread(struct process_list *l);

/* Live means neither zombie nor gone. */
static inline bool process_is_live(const struct process *p) {
	return p->state != 'Z' && p->state != 'X';
}

/* False: that process is gone, or may not be signalled. */
bool process_signal(const struct process *p, int signal);
