/*
 * fd_event: any descriptor that can be polled wakes a job: a pipe, a pidfd, a signalfd.
 *
 * Level-triggered: the job must read the descriptor until it would block, or stop the
 * event; otherwise it is woken in every turn. Regular files cannot be polled (-EPERM).
 * The descriptor is the caller's and must stay open until fd_event_close(); after that
 * call both may go at once: the handle below is freed by itself.
 */
#pragma once

#include "net/loop.h"

struct fd_handle;

struct fd_event {
	struct fd_handle *handle; /* NULL: not open */
	struct loop *loop;
	struct job *job;
};

/* Starts at once. 0 or -errno. */
must_use int fd_event_open(struct fd_event *e, struct loop *loop, int fd, struct job *job);

/* For who does not want to be woken for a while. */
void fd_event_stop(struct fd_event *e);
void fd_event_start(struct fd_event *e);

/* May be called twice, and for a zeroed one that was never opened. */
void fd_event_close(struct fd_event *e);
