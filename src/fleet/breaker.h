/*
 * breaker: whether an instance is asked at all, by how its requests ended.
 *
 * Closed, every request may go there. So many failures in a row, the first no longer ago than
 * the window, open it: nobody goes there for a while. Then it is half-open: one request at a
 * time is let through to see; so many good ones in a row close it, a failure opens it again,
 * for twice as long, up to a limit. (M. Nygard, "Release It!"; the one probe is ours.)
 *
 * To look is free of effects. Who goes there acquires a permit and settles it exactly once,
 * whatever becomes of the request. Each change of state is a new generation: what was
 * acquired in an older one has nothing to say any more, so that late failures do not
 * lengthen the open time.
 *
 * One atomic word, changed by compare-and-swap; any thread. A good end writes only after a
 * failure: an instance that works costs its users one load. Times are monotonic milliseconds.
 */
#pragma once

#include <stdatomic.h>

#include "base/defs.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

#define BREAKER_STATES 3

/* "closed", "open", "half_open". */
const char *breaker_state_text(enum breaker_state state);

struct breaker_limits {
	uint32_t failures;  /* in a row that open it; 0: nothing does but breaker_trip(). At most 255 */
	uint32_t successes; /* of probes in a row that close it: 1 to 255 */
	uint64_t window_ms; /* in which the failures count */
	uint64_t open_ms, open_max_ms; /* the first time that it stays open, and the longest */
};

#define BREAKER_COUNT_MAX   255u
#define BREAKER_TIME_MAX_MS (360 * 86400000ULL) /* of all three: what the word can hold */

/* A zeroed one is closed. */
struct breaker {
	_Atomic uint64_t word;
};

struct breaker_permit {
	uint16_t generation;
	bool is_probe;
	bool is_first; /* of the probes: it was open until now */
};

enum breaker_outcome {
	BREAKER_GOOD,
	BREAKER_BAD,
	BREAKER_NEUTRAL, /* it says nothing of the instance: the client left, it was busy */
};

#define BREAKER_OUTCOMES 3

/* "good", "bad", "neutral". */
const char *breaker_outcome_text(enum breaker_outcome outcome);

struct breaker_view {
	enum breaker_state state; /* an open one whose time is over shows as half-open */
	bool is_probed;           /* half-open, and a request is under way to see */
	uint32_t n_failures;      /* in a row, while it is closed */
	uint32_t n_successes;     /* of probes in a row, while it is half-open */
	uint64_t remaining_ms;    /* until it is half-open; 0 while it is not open */
};

struct breaker_view breaker_peek(const struct breaker *b, uint64_t now_ms);

/* Would a request be let through? */
static inline bool breaker_is_passable(const struct breaker *b, uint64_t now_ms) {
	if (!atomic_load_explicit(&b->word, memory_order_relaxed))
		return true; /* never failed */
	struct breaker_view view = breaker_peek(b, now_ms);

	return view.state == BREAKER_CLOSED || (view.state == BREAKER_HALF_OPEN && !view.is_probed);
}

/* False: nobody may go there now. */
must_use bool breaker_acquire(struct breaker *b, uint64_t now_ms, struct breaker_permit *permit_out);

/*
 * The request is over, or will not be made. True when that moved it: to open by a bad end, to closed by a
 * good one, from half-open if it was a probe, else from closed. `seed` moves the open time by up to a tenth
 * to either side, so that not all routers probe at once.
 */
bool breaker_settle(struct breaker *b, const struct breaker_limits *limits, struct breaker_permit permit,
    enum breaker_outcome outcome, uint64_t seed, uint64_t now_ms);

/* By hand: open for open_max_ms; closed, as if nothing had happened. What it was before. */
enum breaker_state breaker_trip(struct breaker *b, const struct breaker_limits *limits, uint64_t now_ms);
enum breaker_state breaker_reset(struct breaker *b);

/* There is word from elsewhere that it works: the open time is over, unless it was tripped by hand. */
void breaker_relent(struct breaker *b, uint64_t now_ms);
