/*
 * guard: the breaker of an instance, and the flag that spares picks to ask it.
 *
 * INSTANCE_GUARDED stands in the word that each pick reads of each instance anyway: while
 * it is not there the breaker is closed, and nobody looks at it. The flag may come a moment late; who is
 * refused a permit then sees to it that it is there. Whatever moves a breaker goes through
 * here, is counted in the instance and has a line in the log.
 *
 * Any thread, without locks. Times are monotonic milliseconds.
 */
#pragma once

#include "fleet/instance.h"

/* Would a request be let through? No effects. */
static inline bool guard_is_passable(const struct instance *inst, uint64_t now_ms) {
	uint64_t word = atomic_load_explicit(&inst->avoid_until_ms, memory_order_relaxed);

	return !(word & INSTANCE_GUARDED) || breaker_is_passable(&inst->breaker, now_ms);
}

/* Whether that request would be a probe. */
bool guard_is_probing(const struct instance *inst, uint64_t now_ms);

/* As breaker_acquire() and breaker_settle(); a permit is settled exactly once. */
must_use bool guard_admit(struct instance *inst, uint64_t now_ms, struct breaker_permit *permit_out);
void guard_settle(struct instance *inst, const struct breaker_limits *limits, struct breaker_permit permit,
    enum breaker_outcome outcome, uint64_t seed, uint64_t now_ms);

/* By hand. */
void guard_trip(struct instance *inst, const struct breaker_limits *limits, uint64_t now_ms);
void guard_reset(struct instance *inst);

/* Its health is good again: an open breaker lets a probe through now, unless it was tripped by hand. */
void guard_relent(struct instance *inst, uint64_t now_ms);
