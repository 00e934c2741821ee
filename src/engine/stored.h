/*
 * stored: the newest responses that were made, so that they can be asked for by their ids.
 *
 * Bounded in number: the oldest goes first. What is kept of one is its id, model and time, not
 * its text. Owns the ids; models are the caller's and outlive it. One thread.
 */
#pragma once

#include "base/slice.h"

#define STORED_MAX 1000u

struct stored_response {
	char *id; /* NULL: it was removed, or none yet */
	const char *model;
	int64_t created_s;
	bool is_complete; /* it has all that the model had to say */
};

/* Zeroed memory is an empty one. */
struct stored {
	struct stored_response items[STORED_MAX]; /* a ring */
	uint64_t n_put;                           /* ever; the next goes to n_put % STORED_MAX */
};

/* Copies the id. */
void stored_put(struct stored *s, const struct stored_response *response);

/* NULL: there is none of this id. Valid until the next change. */
const struct stored_response *stored_find(const struct stored *s, struct slice id);

/* Nothing happens when there is none of this id. */
void stored_remove(struct stored *s, struct slice id);
void stored_clear(struct stored *s);
