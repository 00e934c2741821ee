#include "policy/session_table.h"

#include <stdlib.h>

/*
 * A word: what is kept of the key (24 bits), slot (12), serial (12), time of the last use (16).
 * 0 is a free place; no key is kept as 0. A set is 8 words, one cache line.
 */
#define WAYS       8u
#define TAG_SHIFT  40u
#define SLOT_SHIFT 28u
#define HOME_SHIFT 16u /* of slot and serial together */
#define HOME_MASK  UINT64_C(0xffffff)
#define TICK_MASK  UINT64_C(0xffff)

_Static_assert(INSTANCE_SLOTS_MAX <= 1 << 12, "a slot fits");
_Static_assert(TICK_MASK + 1 == SESSION_TICKS, "a time fits");

/* Sets that one bind sweeps at most; a round of the table takes a quarter of the idle time. */
#define SWEEP_MAX 64u

/* Of one slot: the serial of those that are counted << 32 | how many. */
struct count {
	_Atomic uint64_t word;
};

struct session_table {
	size_t n_sets; /* a power of two */
	uint64_t idle_ticks;
	uint64_t idle_s;
	_Atomic uint64_t n_swept; /* sets, in rounds of the table since time 0 */
	struct count counts[INSTANCE_SLOTS_MAX];
	_Atomic uint64_t words[];
};

struct session_table *session_table_new(size_t capacity, uint64_t idle_s) {
	size_t n_sets = 1;

	assert(idle_s > 0 && idle_s <= SESSION_IDLE_MAX_S);
	while (n_sets * WAYS < capacity)
		n_sets *= 2;
	struct session_table *t = calloc(1, sizeof(*t) + n_sets * WAYS * sizeof(t->words[0]));

	if (!t)
		return NULL;
	t->n_sets = n_sets;
	t->idle_s = idle_s;
	t->idle_ticks = (idle_s + SESSION_TICK_S - 1) / SESSION_TICK_S;
	return t;
}

void session_table_free(struct session_table **t) {
	free(*t);
	*t = NULL;
}

size_t session_table_capacity(const struct session_table *t) {
	return t->n_sets * WAYS;
}

/* --- words ---------------------------------------------------------------------------------- */

static uint64_t tag_of(uint64_t key) {
	uint64_t tag = key >> TAG_SHIFT;

	return tag ? tag : 1;
}

static uint64_t home_bits(struct session_home home) {
	return (uint64_t)home.slot << 12 | home.serial;
}

static struct session_home home_of(uint64_t word) {
	return (struct session_home){ (uint16_t)(word >> SLOT_SHIFT & 0xfff),
		(uint16_t)(word >> HOME_SHIFT & SESSION_SERIAL_MASK) };
}

static uint64_t make_word(uint64_t key, struct session_home home, uint64_t tick) {
	return tag_of(key) << TAG_SHIFT | home_bits(home) << HOME_SHIFT | (tick & TICK_MASK);
}

static uint64_t tick_of(uint64_t now_s) {
	return now_s / SESSION_TICK_S;
}

/* Ticks since its last use. A thread that is a little ahead has used it just now. */
static uint64_t age_of(uint64_t word, uint64_t tick) {
	uint64_t age = (tick - word) & TICK_MASK;

	return age > SESSION_TICKS - 16 ? 0 : age;
}

static bool is_live(const struct session_table *t, uint64_t word, uint64_t tick) {
	return word && age_of(word, tick) <= t->idle_ticks;
}

static uint64_t read_word(const _Atomic uint64_t *word) {
	return atomic_load_explicit(word, memory_order_relaxed);
}

/* The lower bits of the key: those that are kept are the upper ones. */
static size_t set_of(const struct session_table *t, uint64_t key) {
	return (size_t)(key & (t->n_sets - 1)) * WAYS;
}

/* --- counts --------------------------------------------------------------------------------- */

/*
 * Who puts a word counts it before, who takes one away discounts it after that: a count is never
 * less than the words. The counts of an instance that had the slot before are nobody's.
 */
static void count(struct session_table *t, struct session_home home, int by) {
	_Atomic uint64_t *word = &t->counts[home.slot].word;
	uint64_t was = read_word(word), now;

	do {
		if (was >> 32 == home.serial && (by > 0 || (uint32_t)was > 0))
			now = was + (uint64_t)(int64_t)by;
		else if (by > 0)
			now = (uint64_t)home.serial << 32 | 1;
		else
			return;
	} while (!atomic_compare_exchange_weak_explicit(
	    word, &was, now, memory_order_relaxed, memory_order_relaxed));
}

uint32_t session_table_count(const struct session_table *t, struct session_home home) {
	uint64_t word = read_word(&t->counts[home.slot].word);

	return word >> 32 == home.serial ? (uint32_t)word : 0;
}

/* False: another thread changed the word first. */
static bool swap_word(struct session_table *t, _Atomic uint64_t *word, uint64_t was, uint64_t now) {
	if (now)
		count(t, home_of(now), 1);
	bool is_swapped = atomic_compare_exchange_strong_explicit(
	    word, &was, now, memory_order_relaxed, memory_order_relaxed);
	uint64_t gone = is_swapped ? was : now;

	if (gone)
		count(t, home_of(gone), -1);
	return is_swapped;
}

/* --- sweeping ------------------------------------------------------------------------------- */

static void sweep_set(struct session_table *t, size_t at, uint64_t tick) {
	for (size_t i = at; i < at + WAYS; i++) {
		uint64_t word = read_word(&t->words[i]);

		if (word && !is_live(t, word, tick))
			(void)swap_word(t, &t->words[i], word, 0);
	}
}

/* As far as is due by now; after a silence one round is enough. */
static void sweep(struct session_table *t, uint64_t now_s) {
	uint64_t due = 4 * now_s * t->n_sets / t->idle_s;
	uint64_t was = read_word(&t->n_swept), from, to;

	if (was >= due)
		return;
	from = due - was > t->n_sets ? due - t->n_sets : was;
	to = u64_min(from + SWEEP_MAX, due);
	if (!atomic_compare_exchange_strong_explicit(
		&t->n_swept, &was, to, memory_order_relaxed, memory_order_relaxed))
		return;
	for (uint64_t set = from; set < to; set++)
		sweep_set(t, (size_t)(set & (t->n_sets - 1)) * WAYS, tick_of(now_s));
}

/* --- sessions ------------------------------------------------------------------------------- */

/* Its word in the set, or NULL. */
static _Atomic uint64_t *find_word(struct session_table *t, uint64_t key) {
	_Atomic uint64_t *set = &t->words[set_of(t, key)];

	for (unsigned i = 0; i < WAYS; i++)
		if (read_word(&set[i]) >> TAG_SHIFT == tag_of(key))
			return &set[i];
	return NULL;
}

bool session_table_find(
    const struct session_table *t, uint64_t key, uint64_t now_s, struct session_home *home_out) {
	const _Atomic uint64_t *set = &t->words[set_of(t, key)];

	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t word = read_word(&set[i]);

		if (word >> TAG_SHIFT == tag_of(key) && is_live(t, word, tick_of(now_s))) {
			*home_out = home_of(word);
			return true;
		}
	}
	return false;
}

/* A place for one more: a free one, or that of the session idle longest. */
static _Atomic uint64_t *find_room(struct session_table *t, uint64_t key, uint64_t tick) {
	_Atomic uint64_t *set = &t->words[set_of(t, key)], *oldest = set;

	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t word = read_word(&set[i]), before = read_word(oldest);

		if (!word)
			return &set[i];
		if (before && age_of(word, tick) > age_of(before, tick))
			oldest = &set[i];
	}
	return oldest;
}

/* Tries again when other threads change the set at that moment, but not for ever: it may be forgotten. */
#define TRIES 4

void session_table_bind(struct session_table *t, uint64_t key, struct session_home home, uint64_t now_s) {
	uint64_t word = make_word(key, home, tick_of(now_s));

	assert(key);
	for (unsigned n = 0; n < TRIES; n++) {
		_Atomic uint64_t *at = find_word(t, key);

		if (!at)
			at = find_room(t, key, tick_of(now_s));
		uint64_t was = read_word(at);

		if (was == word || swap_word(t, at, was, word))
			break;
	}
	sweep(t, now_s);
}

bool session_table_end(struct session_table *t, uint64_t key) {
	bool is_ended = false;

	for (unsigned n = 0; n < TRIES; n++) {
		_Atomic uint64_t *at = find_word(t, key);
		uint64_t word = at ? read_word(at) : 0;

		if (!at)
			break;
		if (word >> TAG_SHIFT == tag_of(key))
			is_ended |= swap_word(t, at, word, 0);
	}
	return is_ended;
}
