/*
 * fetch: one GET to an engine on the control thread, whole answer in memory.
 *
 * Bounded in time and size. The callback runs once, on the loop's thread, after which
 * the fetch may be started again or freed; fetch_cancel() ends it without a callback.
 */
#pragma once

#include "http/call.h"

/* Why there is no answer. */
enum fetch_outcome {
	FETCH_E_CONNECT = 1, /* refused, unreachable, or not open in time */
	FETCH_E_TIMEOUT,
	FETCH_E_BROKEN, /* ended before the answer was complete */
	FETCH_E_MALFORMED,
	FETCH_E_TOO_LARGE,
};

/* For log lines. */
const char *fetch_outcome_text(enum fetch_outcome outcome);

struct fetch;
/* outcome 0: an answer, whose body is valid during the call. Otherwise status is 0 and the body empty. */
typedef void (*fetch_fn)(struct fetch *f, int outcome, unsigned status, struct slice body);

struct fetch {
	struct fetch_link *link; /* the connection; NULL while idle */
	fetch_fn on_done;
	uint64_t timeout_ms;
	size_t body_bytes_max;
};

void fetch_init(struct fetch *f, uint64_t timeout_ms, size_t body_bytes_max, fetch_fn on_done);
/* The texts are used before it returns. */
void fetch_start(struct fetch *f, struct loop *loop, const struct sockaddr_storage *address,
    struct slice authority, struct slice path);
void fetch_cancel(struct fetch *f);

static inline bool fetch_is_busy(const struct fetch *f) {
	return f->link != NULL;
}
