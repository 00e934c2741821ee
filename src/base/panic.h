/*
 * panic: the end of the process when one of our own invariants is broken.
 *
 * panic_assert() prints the failed condition and whatever the calling thread
 * said it is working on (panic_subject), then aborts. A peer can never reach it.
 * The subject is per thread: a function that writes one line about an object.
 */
#pragma once

#include <stddef.h>

typedef void (*panic_describe_fn)(const void *object, char *line, size_t size);

/* What this thread works on from now on; NULL ends it. The object must outlive that. */
void panic_subject(panic_describe_fn describe, const void *object);

_Noreturn void panic_assert(const char *cond, const char *file, int line, const char *func);
