#include "router/meter.h"

#define MINUTE_NS METER_MAX
#define DEBT_NS   (60 * MINUTE_NS) /* more is forgiven: one wrong figure must not lock anybody out for days */

/* The time in which so many are earned. */
static uint64_t time_of(uint64_t per_minute, uint64_t n) {
	unsigned __int128 ns = (unsigned __int128)n * MINUTE_NS / per_minute;

	return ns < DEBT_NS ? (uint64_t)ns : DEBT_NS;
}

static struct meter_view view_of(uint64_t per_minute, uint64_t until_ns, uint64_t now_ns) {
	uint64_t owed_ns = until_ns > now_ns ? until_ns - now_ns : 0;
	uint64_t left_ns = owed_ns < MINUTE_NS ? MINUTE_NS - owed_ns : 0;

	return (struct meter_view){
		.remaining = (uint64_t)((unsigned __int128)left_ns * per_minute / MINUTE_NS),
		.full_in_ns = owed_ns,
	};
}

struct meter_view meter_look(const struct meter *m, uint64_t per_minute, uint64_t now_ns) {
	return view_of(per_minute, atomic_load_explicit(&m->empty_until_ns, memory_order_relaxed), now_ns);
}

bool meter_take(
    struct meter *m, uint64_t per_minute, uint64_t n, uint64_t now_ns, struct meter_view *view_out) {
	uint64_t before_ns = atomic_load_explicit(&m->empty_until_ns, memory_order_relaxed);
	uint64_t cost_ns = time_of(per_minute, n);
	uint64_t needed_ns = u64_min(cost_ns, MINUTE_NS);

	assert(per_minute > 0 && per_minute <= METER_MAX);
	for (;;) {
		uint64_t from_ns = u64_max(before_ns, now_ns);

		if (from_ns - now_ns + needed_ns > MINUTE_NS) {
			*view_out = view_of(per_minute, before_ns, now_ns);
			view_out->wait_ns = from_ns - now_ns + needed_ns - MINUTE_NS;
			return false;
		}
		if (!atomic_compare_exchange_weak_explicit(&m->empty_until_ns, &before_ns, from_ns + cost_ns,
			memory_order_relaxed, memory_order_relaxed))
			continue;
		*view_out = view_of(per_minute, from_ns + cost_ns, now_ns);
		return true;
	}
}

void meter_settle(struct meter *m, uint64_t per_minute, uint64_t reserved, uint64_t used, uint64_t now_ns) {
	uint64_t before_ns = atomic_load_explicit(&m->empty_until_ns, memory_order_relaxed);
	uint64_t more_ns = used > reserved ? time_of(per_minute, used - reserved) : 0;
	uint64_t less_ns = used < reserved ? time_of(per_minute, reserved - used) : 0;
	uint64_t after_ns;

	do {
		/* What is full has nothing to be given back, and cannot go on from the past. */
		after_ns = u64_min(u64_max(before_ns, now_ns) + more_ns, now_ns + DEBT_NS);
		after_ns = after_ns > now_ns + less_ns ? after_ns - less_ns : now_ns;
	} while (!atomic_compare_exchange_weak_explicit(
	    &m->empty_until_ns, &before_ns, after_ns, memory_order_relaxed, memory_order_relaxed));
}

void meter_follow(struct meter *m, const struct meter *other) {
	atomic_store_explicit(&m->empty_until_ns,
	    atomic_load_explicit(&other->empty_until_ns, memory_order_relaxed), memory_order_relaxed);
}
