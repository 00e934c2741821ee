#include "fleet/breaker.h"

/*
 * The word, from its low end: state 2, probe under way 1, count 8, times it was opened in a row 5, generation
 * 12, milliseconds 36. The count is of failures in a row while closed, of good probes in a row while
 * half-open; the time that of the first failure while closed, that of the end while open.
 */
struct parts {
	enum breaker_state state;
	bool is_probed;
	uint32_t count, n_opens;
	uint16_t generation;
	uint64_t ms;
};

#define N_OPENS_MASK    31u
#define N_OPENS_MAX     30u
#define N_OPENS_BY_HAND 31u /* it was tripped: for open_max, until it was closed again */
#define GENERATION_MASK 0xfffu
#define MS_MASK         ((UINT64_C(1) << 36) - 1)

_Static_assert(BREAKER_TIME_MAX_MS + BREAKER_TIME_MAX_MS / 10 <= MS_MASK / 2, "an end is ahead, not behind");

/* Which time it was: clocks count on where 36 bits begin anew, after 795 days. */
static uint64_t time_near(uint64_t ms, uint64_t now_ms) {
	uint64_t ahead = (ms - now_ms) & MS_MASK;

	return ahead <= MS_MASK / 2 ? now_ms + ahead : now_ms + ahead - (MS_MASK + 1);
}

static struct parts unpack(uint64_t word, uint64_t now_ms) {
	return (struct parts){
		.state = (enum breaker_state)(word & 3),
		.is_probed = word >> 2 & 1,
		.count = word >> 3 & 0xff,
		.n_opens = word >> 11 & N_OPENS_MASK,
		.generation = word >> 16 & GENERATION_MASK,
		.ms = time_near(word >> 28, now_ms),
	};
}

static uint64_t pack(const struct parts *p) {
	return (uint64_t)p->state | (uint64_t)p->is_probed << 2 | (uint64_t)p->count << 3 |
	    (uint64_t)p->n_opens << 11 | (uint64_t)p->generation << 16 | (p->ms & MS_MASK) << 28;
}

static bool swap(struct breaker *b, uint64_t *word, const struct parts *p) {
	uint64_t found = *word;
	bool is_done = atomic_compare_exchange_weak_explicit(
	    &b->word, &found, pack(p), memory_order_relaxed, memory_order_relaxed);

	*word = found;
	return is_done;
}

/* A new state is a new generation. */
static void enter(struct parts *p, enum breaker_state state, uint64_t ms) {
	p->state = state;
	p->is_probed = false;
	p->count = 0;
	p->generation = (p->generation + 1) & GENERATION_MASK;
	p->ms = ms;
}

const char *breaker_state_text(enum breaker_state state) {
	static const char *const texts[BREAKER_STATES] = { "closed", "open", "half_open" };

	assert((unsigned)state < BREAKER_STATES);
	return texts[state];
}

const char *breaker_outcome_text(enum breaker_outcome outcome) {
	static const char *const texts[BREAKER_OUTCOMES] = { "good", "bad", "neutral" };

	assert((unsigned)outcome < BREAKER_OUTCOMES);
	return texts[outcome];
}

struct breaker_view breaker_peek(const struct breaker *b, uint64_t now_ms) {
	struct parts p = unpack(atomic_load_explicit(&b->word, memory_order_relaxed), now_ms);
	bool is_over = p.state == BREAKER_OPEN && p.ms <= now_ms;

	return (struct breaker_view){
		.state = is_over ? BREAKER_HALF_OPEN : p.state,
		.is_probed = p.is_probed,
		.n_failures = p.state == BREAKER_CLOSED ? p.count : 0,
		.n_successes = p.state == BREAKER_HALF_OPEN ? p.count : 0,
		.remaining_ms = p.state == BREAKER_OPEN && !is_over ? p.ms - now_ms : 0,
	};
}

bool breaker_acquire(struct breaker *b, uint64_t now_ms, struct breaker_permit *permit_out) {
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);

	for (;;) {
		struct parts p = unpack(word, now_ms);

		if (p.state == BREAKER_CLOSED) {
			*permit_out = (struct breaker_permit){ .generation = p.generation };
			return true;
		}
		if (p.state == BREAKER_OPEN && p.ms > now_ms)
			return false;
		if (p.is_probed)
			return false;
		bool is_first = p.state == BREAKER_OPEN;

		if (is_first)
			enter(&p, BREAKER_HALF_OPEN, 0);
		p.is_probed = true;
		*permit_out = (struct breaker_permit){ p.generation, true, is_first };
		if (swap(b, &word, &p))
			return true;
	}
}

/* The time doubles with each opening in a row. */
static void open_up(struct parts *p, const struct breaker_limits *limits, uint64_t seed, uint64_t now_ms) {
	uint64_t ms = limits->open_ms;

	for (uint32_t i = 0; i < p->n_opens && ms < limits->open_max_ms; i++)
		ms *= 2;
	ms = u64_min(ms, limits->open_max_ms);
	ms = ms - ms / 10 + seed % (ms / 5 + 1);
	enter(p, BREAKER_OPEN, now_ms + ms);
	if (p->n_opens < N_OPENS_MAX)
		p->n_opens++;
}

/* What becomes of a closed one. False: nothing. */
static bool settle_closed(struct parts *p, const struct breaker_limits *limits, enum breaker_outcome outcome,
    uint64_t seed, uint64_t now_ms) {
	if (outcome == BREAKER_GOOD) {
		bool was_clean = !p->count && !p->n_opens;

		p->count = p->n_opens = 0;
		p->ms = 0;
		return !was_clean;
	}
	if (!limits->failures)
		return false;
	if (!p->count || now_ms > p->ms + limits->window_ms) {
		p->count = 0;
		p->ms = now_ms;
	}
	if (++p->count >= limits->failures)
		open_up(p, limits, seed, now_ms);
	return true;
}

static void settle_probe(struct parts *p, const struct breaker_limits *limits, enum breaker_outcome outcome,
    uint64_t seed, uint64_t now_ms) {
	p->is_probed = false;
	if (outcome == BREAKER_BAD)
		open_up(p, limits, seed, now_ms);
	else if (outcome == BREAKER_GOOD && ++p->count >= limits->successes)
		enter(p, BREAKER_CLOSED, 0);
}

bool breaker_settle(struct breaker *b, const struct breaker_limits *limits, struct breaker_permit permit,
    enum breaker_outcome outcome, uint64_t seed, uint64_t now_ms) {
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);

	assert(limits->failures <= BREAKER_COUNT_MAX && limits->open_max_ms <= BREAKER_TIME_MAX_MS);
	assert(limits->successes > 0 && limits->successes <= BREAKER_COUNT_MAX);
	for (;;) {
		struct parts p = unpack(word, now_ms);
		enum breaker_state before = p.state;

		if (p.generation != permit.generation)
			return false;
		if (permit.is_probe)
			settle_probe(&p, limits, outcome, seed, now_ms);
		else if (outcome == BREAKER_NEUTRAL || !settle_closed(&p, limits, outcome, seed, now_ms))
			return false;
		if (swap(b, &word, &p))
			return p.state != before;
	}
}

enum breaker_state breaker_trip(struct breaker *b, const struct breaker_limits *limits, uint64_t now_ms) {
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);
	enum breaker_state before;
	struct parts p;

	do {
		p = unpack(word, now_ms);
		before = p.state;
		enter(&p, BREAKER_OPEN, now_ms + limits->open_max_ms);
		p.n_opens = N_OPENS_BY_HAND;
	} while (!swap(b, &word, &p));
	return before;
}

enum breaker_state breaker_reset(struct breaker *b) {
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);
	enum breaker_state before;
	struct parts p;

	do {
		p = unpack(word, 0);
		before = p.state;
		enter(&p, BREAKER_CLOSED, 0);
		p.n_opens = 0;
	} while (!swap(b, &word, &p));
	return before;
}

void breaker_relent(struct breaker *b, uint64_t now_ms) {
	uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);
	struct parts p;

	do {
		p = unpack(word, now_ms);
		if (p.state != BREAKER_OPEN || p.n_opens == N_OPENS_BY_HAND || p.ms <= now_ms)
			return;
		p.ms = now_ms;
	} while (!swap(b, &word, &p));
}
