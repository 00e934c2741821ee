/*
 * heap: counts what the process takes from the heap, per thread.
 *
 * The linker sends our own malloc, calloc and realloc calls through counting
 * wrappers (--wrap, see the Makefile), heap_init() does the same for libuv and
 * jansson, and mapped blocks count themselves. The figure is the proof that a
 * request allocates nothing after warm-up. Out of memory aborts: what a peer sizes
 * comes from budgets instead (base/buf.h).
 */
#pragma once

#include "base/defs.h"

void heap_init(void);

void heap_count_allocation(void);

/* Allocations that this thread made so far. */
uint64_t heap_allocations(void);
