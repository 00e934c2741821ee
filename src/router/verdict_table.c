#include "router/verdict_table.h"

#include <stdatomic.h>
#include <stdlib.h>

#define WAYS         8u
#define DIGEST_WORDS (DIGEST_BYTES / sizeof(uint64_t))

/*
 * A cache line. `n_writes` is odd while the rest changes: what a reader took between two looks at the same
 * even number belongs together. Each word of the rest is stored with release and read with acquire, so that
 * who reads a new one sees the odd number, too.
 */
struct entry {
	_Atomic uint64_t n_writes; /* 0: was never used */
	_Atomic uint64_t digest[DIGEST_WORDS];
	_Atomic uint64_t ends; /* when it holds no longer, doubled; 1 more if it is good */
	_Atomic uint64_t kept_ms;
	uint64_t pad;
};

_Static_assert(sizeof(struct entry) == 64, "an entry is a cache line");

struct verdict_table {
	struct verdict_times times;
	size_t n_sets; /* a power of two */
	struct entry *entries;
};

struct verdict_table *verdict_table_new(size_t n_entries, const struct verdict_times *times) {
	struct verdict_table *t = calloc(1, sizeof(*t));

	t->times = *times;
	t->n_sets = 1;
	while (t->n_sets * WAYS < n_entries)
		t->n_sets *= 2;
	t->entries = aligned_alloc(sizeof(struct entry), t->n_sets * WAYS * sizeof(struct entry));
	memset(t->entries, 0, t->n_sets * WAYS * sizeof(struct entry));
	return t;
}

void verdict_table_free(struct verdict_table **table) {
	struct verdict_table *t = *table;

	*table = NULL;
	if (!t)
		return;
	free(t->entries);
	free(t);
}

/* --- reading -------------------------------------------------------------------------- */

static struct entry *set_of(const struct verdict_table *t, const uint8_t *digest) {
	uint64_t start;

	memcpy(&start, digest, sizeof(start));
	return &t->entries[(size_t)(start & (t->n_sets - 1)) * WAYS];
}

static bool is_of(const struct entry *e, const uint8_t *digest) {
	uint64_t words[DIGEST_WORDS], difference = 0;

	memcpy(words, digest, sizeof(words));
	for (size_t i = 0; i < DIGEST_WORDS; i++)
		difference |= words[i] ^ atomic_load_explicit(&e->digest[i], memory_order_acquire);
	return !difference;
}

static bool is_good(uint64_t ends) {
	return ends & 1;
}

static bool holds(uint64_t ends, uint64_t now_ms) {
	return now_ms < ends >> 1;
}

enum verdict_found verdict_table_find(
    const struct verdict_table *t, const uint8_t digest[static DIGEST_BYTES], uint64_t now_ms) {
	const struct entry *set = set_of(t, digest);

	for (unsigned i = 0; i < WAYS; i++) {
		uint64_t before = atomic_load_explicit(&set[i].n_writes, memory_order_acquire);
		bool is_it = is_of(&set[i], digest);
		uint64_t ends = atomic_load_explicit(&set[i].ends, memory_order_acquire);
		uint64_t after = atomic_load_explicit(&set[i].n_writes, memory_order_relaxed);

		if (is_it && before == after && !(before & 1) && holds(ends, now_ms))
			return is_good(ends) ? VERDICT_GOOD : VERDICT_BAD;
	}
	return VERDICT_UNKNOWN;
}

/* --- writing -------------------------------------------------------------------------- */

static uint64_t ends_of(const struct entry *e) {
	return atomic_load_explicit(&e->ends, memory_order_relaxed);
}

static bool is_over(const struct entry *e, uint64_t now_ms) {
	return now_ms >= atomic_load_explicit(&e->kept_ms, memory_order_relaxed);
}

/* What goes first: what is over, then the bad, then what is good no longer, then the good; of these
 * whatever ends first. */
static uint64_t worth_of(const struct entry *e, uint64_t now_ms) {
	uint64_t ends = ends_of(e);
	uint64_t class = is_over(e, now_ms) ? 0 : !is_good(ends) ? 1 : holds(ends, now_ms) ? 3 : 2;

	return class << 62 | ends >> 1;
}

static struct entry *find(const struct verdict_table *t, const uint8_t *digest) {
	struct entry *set = set_of(t, digest);

	for (unsigned i = 0; i < WAYS; i++)
		if (set[i].n_writes && is_of(&set[i], digest))
			return &set[i];
	return NULL;
}

static struct entry *least_of(const struct verdict_table *t, const uint8_t *digest, uint64_t now_ms) {
	struct entry *set = set_of(t, digest), *least = set;

	for (unsigned i = 1; i < WAYS; i++)
		if (worth_of(&set[i], now_ms) < worth_of(least, now_ms))
			least = &set[i];
	return least;
}

static void write_entry(struct entry *e, const uint8_t *digest, uint64_t ends, uint64_t kept_ms) {
	uint64_t words[DIGEST_WORDS], n = atomic_load_explicit(&e->n_writes, memory_order_relaxed);

	memcpy(words, digest, sizeof(words));
	atomic_store_explicit(&e->n_writes, n + 1, memory_order_relaxed);
	for (size_t i = 0; i < DIGEST_WORDS; i++)
		atomic_store_explicit(&e->digest[i], words[i], memory_order_release);
	atomic_store_explicit(&e->ends, ends, memory_order_release);
	atomic_store_explicit(&e->kept_ms, kept_ms, memory_order_release);
	atomic_store_explicit(&e->n_writes, n + 2, memory_order_release);
}

void verdict_table_put(
    struct verdict_table *t, const uint8_t digest[static DIGEST_BYTES], bool good, uint64_t now_ms) {
	struct entry *e = find(t, digest);
	uint64_t ends_ms = now_ms + (good ? t->times.good_ms : t->times.bad_ms);

	if (!e)
		e = least_of(t, digest, now_ms);
	bool is_its = is_of(e, digest);
	if (!good && !is_its && !is_over(e, now_ms) && is_good(ends_of(e)))
		return;
	/* What was said of a key before is wrong, even where the news are not kept. */
	write_entry(e, digest, ends_ms << 1 | good, ends_ms + (good ? t->times.grace_ms : 0));
}

bool verdict_table_prolong(
    struct verdict_table *t, const uint8_t digest[static DIGEST_BYTES], uint64_t now_ms, uint64_t by_ms) {
	struct entry *e = find(t, digest);

	if (!e || !is_good(ends_of(e)) || is_over(e, now_ms))
		return false;
	uint64_t kept_ms = atomic_load_explicit(&e->kept_ms, memory_order_relaxed);
	uint64_t ends_ms = u64_max(ends_of(e) >> 1, u64_min(now_ms + by_ms, kept_ms));
	write_entry(e, digest, ends_ms << 1 | 1, kept_ms);
	return true;
}

size_t verdict_table_count(const struct verdict_table *t, uint64_t now_ms) {
	size_t n = 0;

	for (size_t i = 0; i < t->n_sets * WAYS; i++)
		n += holds(ends_of(&t->entries[i]), now_ms);
	return n;
}
