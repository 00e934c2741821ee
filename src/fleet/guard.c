#include "fleet/guard.h"

#include "base/log.h"

static bool is_closed(const struct instance *inst) {
	return breaker_peek(&inst->breaker, 0).state == BREAKER_CLOSED;
}

/* Whoever is last to move the flag has seen what all before it did to the breaker, and looks again. */
static void show(struct instance *inst) {
	bool closed;

	do {
		closed = is_closed(inst);
		if (closed)
			atomic_fetch_and_explicit(
			    &inst->avoid_until_ms, ~INSTANCE_GUARDED, memory_order_acq_rel);
		else
			atomic_fetch_or_explicit(
			    &inst->avoid_until_ms, INSTANCE_GUARDED, memory_order_acq_rel);
	} while (is_closed(inst) != closed);
}

/* Seldom: an open breaker stays so for a while. */
static void on_move(struct instance *inst, enum breaker_state from, enum breaker_state to) {
	struct log_event e;

	show(inst);
	if (from == to)
		return;
	atomic_fetch_add_explicit(&inst->n_moves[from][to], 1, memory_order_relaxed);
	log_begin(&e, to == BREAKER_OPEN ? LOG_WARN : LOG_INFO, "breaker of an instance moved");
	line_text(&e.line, SLICE("instance"), inst->spec.name);
	line_text(&e.line, SLICE("from"), slice_of(breaker_state_text(from)));
	line_text(&e.line, SLICE("to"), slice_of(breaker_state_text(to)));
	log_end(&e);
}

bool guard_is_probing(const struct instance *inst, uint64_t now_ms) {
	return breaker_peek(&inst->breaker, now_ms).state == BREAKER_HALF_OPEN;
}

bool guard_admit(struct instance *inst, uint64_t now_ms, struct breaker_permit *permit_out) {
	if (!breaker_acquire(&inst->breaker, now_ms, permit_out)) {
		show(inst);
		return false;
	}
	if (permit_out->is_first)
		on_move(inst, BREAKER_OPEN, BREAKER_HALF_OPEN);
	return true;
}

void guard_settle(struct instance *inst, const struct breaker_limits *limits, struct breaker_permit permit,
    enum breaker_outcome outcome, uint64_t seed, uint64_t now_ms) {
	if (outcome == BREAKER_BAD)
		atomic_store_explicit(&inst->failed_ms, now_ms, memory_order_relaxed);
	if (breaker_settle(&inst->breaker, limits, permit, outcome, seed, now_ms))
		on_move(inst, permit.is_probe ? BREAKER_HALF_OPEN : BREAKER_CLOSED,
		    outcome == BREAKER_BAD ? BREAKER_OPEN : BREAKER_CLOSED);
}

void guard_trip(struct instance *inst, const struct breaker_limits *limits, uint64_t now_ms) {
	on_move(inst, breaker_trip(&inst->breaker, limits, now_ms), BREAKER_OPEN);
}

void guard_reset(struct instance *inst) {
	on_move(inst, breaker_reset(&inst->breaker), BREAKER_CLOSED);
}

void guard_relent(struct instance *inst, uint64_t now_ms) {
	breaker_relent(&inst->breaker, now_ms);
}
