/*
 * clock: the two clocks of the process.
 *
 * Monotonic time, in nanoseconds from an arbitrary start, drives every timer and
 * every duration. Wall time, in milliseconds since 1970, is for log lines and
 * headers alone. Tests and the simulator put a source of their own in place of
 * either clock, before any thread is started.
 */
#pragma once

#include "base/defs.h"

typedef uint64_t (*clock_source_fn)(void);

uint64_t clock_now_ns(void);
uint64_t clock_wall_ms(void);

/* NULL puts the real clock back. Not thread safe: call before threads exist. */
void clock_set_source(clock_source_fn source);
void clock_set_wall_source(clock_source_fn source);
