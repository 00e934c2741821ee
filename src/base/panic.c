#include "base/panic.h"

#include <stdio.h>
#include <stdlib.h>

static _Thread_local panic_describe_fn subject_describe;
static _Thread_local const void *subject;

void panic_subject(panic_describe_fn describe, const void *object) {
	subject_describe = describe;
	subject = object;
}

_Noreturn void panic_assert(const char *cond, const char *file, int line, const char *func) {
	char text[512] = "";
	panic_describe_fn describe = subject_describe;

	subject_describe = NULL; /* a second failure while describing must not loop */
	if (describe && subject)
		describe(subject, text, sizeof(text));
	fprintf(stderr, "headrace: assertion failed: %s (%s:%d, %s)%s%s\n", cond, file, line, func,
	    text[0] ? ", at work on " : "", text);
	abort();
}
