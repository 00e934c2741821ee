#include "base/wheel.h"

#define SLOT_BITS 8
#define SLOT_MASK (WHEEL_SLOTS - 1u)
#define SPAN_MAX  ((1ull << (SLOT_BITS * WHEEL_LEVELS)) - 1)

void wheel_init(struct wheel *w, uint64_t now_ms) {
	*w = (struct wheel){ .now_ms = now_ms };
	for (unsigned level = 0; level < WHEEL_LEVELS; level++)
		for (unsigned i = 0; i < WHEEL_SLOTS; i++)
			list_init(&w->slots[level][i]);
}

void timer_init(struct timer *t, timer_fn on_expiry) {
	*t = (struct timer){ .on_expiry = on_expiry };
	list_init(&t->link);
}

/* The slot that comes up at or before the deadline, never the one being worked on. */
static void wheel_link(struct wheel *w, struct timer *t) {
	uint64_t at = u64_max(t->deadline_ms, w->now_ms + 1);
	at = u64_min(at, w->now_ms + SPAN_MAX);
	unsigned level = 0;
	while (level < WHEEL_LEVELS - 1 && (at ^ w->now_ms) >> (SLOT_BITS * (level + 1)))
		level++;
	/* The top level wraps: a slot there is up to one turn ahead, and never the current one. */
	unsigned slot = (unsigned)(at >> (SLOT_BITS * level)) & SLOT_MASK;
	list_push(&w->slots[level][slot], &t->link);
	w->used[level][slot / 64] |= 1ull << (slot % 64);
}

void timer_start(struct wheel *w, struct timer *t, uint64_t delay_ms) {
	uint64_t deadline_ms = w->now_ms + delay_ms;
	bool later = timer_is_running(t) && deadline_ms >= t->deadline_ms;
	t->deadline_ms = deadline_ms;
	if (later)
		return;
	list_remove(&t->link);
	wheel_link(w, t);
}

void timer_stop(struct timer *t) {
	list_remove(&t->link);
}

/* Empties a slot: what is due runs, the rest moves to where it belongs by now. */
static void wheel_run_slot(struct wheel *w, unsigned level, unsigned slot) {
	if (!(w->used[level][slot / 64] & 1ull << (slot % 64)))
		return;
	w->used[level][slot / 64] &= ~(1ull << (slot % 64));

	struct list due = LIST_INIT(due);
	list_splice(&due, &w->slots[level][slot]);
	while (!list_is_empty(&due)) {
		struct timer *t = container_of(due.next, struct timer, link);
		list_remove(&t->link);
		if (t->deadline_ms > w->now_ms)
			wheel_link(w, t);
		else
			t->on_expiry(t);
	}
}

void wheel_advance(struct wheel *w, uint64_t now_ms) {
	while (w->now_ms < now_ms) {
		uint64_t step = wheel_next_ms(w);
		if (step > now_ms - w->now_ms) {
			w->now_ms = now_ms;
			return;
		}
		w->now_ms += step;
		for (unsigned level = WHEEL_LEVELS; level-- > 0;) {
			uint64_t below = (1ull << (SLOT_BITS * level)) - 1;
			if ((w->now_ms & below) == 0)
				wheel_run_slot(
				    w, level, (unsigned)(w->now_ms >> (SLOT_BITS * level)) & SLOT_MASK);
		}
	}
}

/* Slots from `from` + 1 on, wrapping, until a used one; 0 when there is none. */
static unsigned wheel_distance(const uint64_t used[WHEEL_SLOTS / 64], unsigned from) {
	for (unsigned d = 1; d <= WHEEL_SLOTS;) {
		unsigned slot = (from + d) & SLOT_MASK;
		uint64_t word = used[slot / 64] >> (slot % 64);
		if (word) {
			d += (unsigned)__builtin_ctzll(word);
			return d <= WHEEL_SLOTS ? d : 0;
		}
		d += 64 - slot % 64;
	}
	return 0;
}

uint64_t wheel_next_ms(struct wheel *w) {
	uint64_t next = UINT64_MAX;
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		unsigned shift = SLOT_BITS * level;
		uint64_t here = w->now_ms >> shift;
		unsigned d = wheel_distance(w->used[level], (unsigned)here & SLOT_MASK);
		if (d)
			next = u64_min(next, ((here + d) << shift) - w->now_ms);
	}
	return next;
}
