/*
 * question: one HTTP request to an admin port, waited for.
 */
#pragma once

#include "base/slice.h"

struct question {
	const char *url; /* of the admin port */
	const char *path;
	struct slice method;
	struct slice body;   /* p NULL: none */
	struct slice fields; /* lines of the head, each with its CRLF */
	uint64_t timeout_ms;
};

struct answer {
	const char *failure; /* why there is none; NULL: there is one */
	unsigned status;
	char *body; /* NUL-terminated; the caller's to free */
	size_t n;
};

/* Runs a loop of its own on this thread until the answer is there. */
void question_ask(const struct question *q, struct answer *out);
