/*
 * loop: one thread's event loop and everything that is lent within it.
 *
 * libuv polls below; above it stands a ready list of jobs. Events only record what
 * happened and wake a job; jobs run after all events of the turn were recorded, so no
 * owner is ever called from inside a call it made. Woken jobs run once each, in the
 * order of waking; a job that is woken by a job, or by itself, runs in the next round:
 * there are two a turn, and between turns the loop polls without sleeping.
 *
 * Everything here belongs to the loop's thread but loop_post(), which any thread may
 * call: mail runs on the loop's thread, in the order of posting by one thread.
 */
#pragma once

#include <uv.h>

#include "base/buf.h"
#include "base/wheel.h"

/* What a 400 KB prompt costs is decided by this size. */
#define LOOP_READ_BYTES    (BUF_BYTES_MAX - sizeof(struct buf))
#define LOOP_SCRATCH_BYTES (192u * 1024u)

struct job;
typedef void (*job_fn)(struct job *j);

/* Embed by value. */
struct job {
	struct list link;
	job_fn run;
};

struct mail;
typedef void (*mail_fn)(struct mail *m);

/* Embed by value; belongs to the receiver from loop_post() until its callback. */
struct mail {
	struct mail *next;
	mail_fn deliver;
};

struct conn;
struct tls_client;

struct loop {
	uv_loop_t uv;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_timer_t alarm;
	uv_async_t doorbell;
	_Atomic(struct mail *) inbox;

	uint64_t now_ns; /* start of this turn, clock_now_ns() */
	bool is_in_turn; /* now_ns is fresh */
	struct wheel wheel;
	struct list ready;
	struct timer trim;
	struct buf_pool bufs;
	struct slab outs;     /* struct conn_out of all conns */
	uint64_t alarm_at_ms; /* when the alarm is set for, 0: not set */

	char *read_buf;          /* LOOP_READ_BYTES, lent to one conn at a time */
	struct conn *read_owner; /* the conn whose unread bytes stand in read_buf, or NULL */
	struct tls_client *tls;  /* the owner's, for connections that are made here; NULL: none with TLS */
	char *scratch;           /* LOOP_SCRATCH_BYTES, for heads and chunk lines of one send */

	uint64_t n_slow_turns;  /* turns of more than 5 ms */
	uint64_t worst_turn_ns; /* since the last look; see loop_take_lag */
};

/* libuv's own memory is counted with ours (base/heap.h). Once, before any loop. */
void loop_setup_process(void);

/* Budget is shared by all loops of the process and outlives them. */
must_use int loop_init(struct loop *l, struct buf_budget *budget);

/* Closes what libuv still holds; all conns must be closed and all timers stopped. */
void loop_deinit(struct loop *l);

/* Runs until loop_stop(). */
void loop_run(struct loop *l);

/* What one turn does after its events: timers that are due, then jobs. For tests, which have no events. */
void loop_turn(struct loop *l);

/* Ends loop_run() after this turn. */
void loop_stop(struct loop *l);

/* After loop_run(), on a thread that has joined the loop's: delivers the mail that is left, and what that
 * posts to the same loop. */
void loop_deliver(struct loop *l);

void job_init(struct job *j, job_fn run);
void loop_wake(struct loop *l, struct job *j);
void job_cancel(struct job *j);

/* From any thread. The loop must live until the mail is delivered. */
void loop_post(struct loop *l, struct mail *m, mail_fn deliver);

static inline uint64_t loop_now_ms(const struct loop *l) {
	return l->now_ns / 1000000u;
}

/* Starts a timer at a delay from now, also from a callback of libuv's, which runs before the turn has read
 * the clock. */
void loop_timer(struct loop *l, struct timer *t, uint64_t delay_ms);

/* The longest turn since the last call, in nanoseconds. */
uint64_t loop_take_lag(struct loop *l);
