/*
 * prefix_index: a set-associative table of 8-byte entries, 8 to a bucket, which is a cache
 * line. 0 is empty; otherwise
 *
 *     tag 20 bits | slot 12 | generation 8 | stamp 24
 *
 * A block's window is the aligned group of 1, 2, 4 or 8 buckets, the ways, around its home
 * bucket, and the lowest bits of a slot say which of them is the slot's. So an entry has one
 * place: a put looks at one line for each block, and a match, once it has seen who has the
 * first block, at the ways of those alone. A wider window contains the narrower ones, so an
 * entry's new place can be told from its old one, and widening moves it there.
 *
 * Of a prompt, who has a block has those before it, and they are younger. So a match finds the
 * end of each run, and before it the end of what is believed of it, by bisection. Runs go together
 * until a block parts them; what all of them read next is fetched at once. A run's lines are then
 * 8 for a prompt of 200 blocks, and the waits for memory are 8, however many runs there are; at most as
 * many again for a run that is believed in part: where belief ends, the search for its end begins.
 *
 * A slot has an owner record: the generation that its entries must have, and a clock from
 * which stamps are taken and ages counted. An entry is written by one relaxed store and read
 * by one relaxed load, so it is whole, and it is held against the record whatever else
 * happened in between. Writers that meet lose an entry or have it twice; both heal.
 *
 * A stamp is 24 bits of a clock that goes round, so an entry must be gone before it looks
 * young again. Puts see to it: for each block by which a slot's clock advances they look at
 * the next bucket or buckets of the table, and so are through with all of them while an entry
 * passes through the ages between PREFIX_AGE_MAX and STAMP_AHEAD.
 */
#include "policy/prefix_index.h"

#include <emmintrin.h>
#include <stdalign.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/heap.h"

#define ENTRIES      8u /* in a bucket */
#define WAYS_MAX     8u
#define BUCKET_BYTES (ENTRIES * sizeof(uint64_t))

#define SLOT_BITS       12
#define GENERATION_BITS 8
#define STAMP_BITS      24
#define STAMP_MASK      ((UINT32_C(1) << STAMP_BITS) - 1)
#define OWNER_BITS      (SLOT_BITS + GENERATION_BITS)
#define TAG_SHIFT       (OWNER_BITS + STAMP_BITS)

/* From here on a difference is not an age: the stamp is of a put that the clock does not show yet. */
#define STAMP_AHEAD (UINT32_C(15) << 20)

/* Renewed blocks advance a clock by little: it counts 1/256 ticks, and goes round when its stamps do. */
#define CLOCK_BITS_TICK  8
#define CLOCK_BITS_BLOCK 12
#define CLOCK_BLOCK      (UINT32_C(1) << CLOCK_BITS_BLOCK)

/* log2 of the blocks within which a clock's sweep passes every bucket. */
#define SWEEP_BITS 19

/* What is taken for a horizon where there is none, to say what a renewed block's age means. */
#define HORIZON_GUESS (65536 * PREFIX_BLOCK_TICKS)

/* How much an entry is worth its place: its age, unless it is worth less. */
#define RANK_BEYOND (UINT32_C(1) << STAMP_BITS) /* plus the age: its owner's horizon is nearer */
#define RANK_FREE   UINT32_MAX                  /* empty, or of a generation that was forgotten */

#define BLOCKS_AHEAD 16u /* fetched before their turn */

_Static_assert(INSTANCE_SLOTS_MAX == 1u << SLOT_BITS, "a slot fits its field");
_Static_assert(PREFIX_HITS_MAX == WAYS_MAX * ENTRIES, "hits begin in one window");
_Static_assert(PREFIX_BLOCK_TICKS == 1u << (CLOCK_BITS_BLOCK - CLOCK_BITS_TICK), "a tick is a tick");
_Static_assert(STAMP_AHEAD - PREFIX_AGE_MAX == PREFIX_BLOCK_TICKS << SWEEP_BITS, "a sweep finds what is old");

#define SERIAL_CHANGING UINT64_MAX /* somebody takes the slot over */

struct owner {
	_Atomic uint64_t serial;
	_Atomic uint32_t generation; /* never 0, so that no empty entry is of it */
	_Atomic uint32_t clock;
	_Atomic uint32_t horizon;
};

/* The counters stand apart from what all read, as they are written by all. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct prefix_index {
	_Atomic uint64_t *entries;
	size_t n_buckets;     /* a power of two */
	unsigned home_shift;  /* key >> home_shift is a bucket */
	unsigned sweep_shift; /* log2 of the buckets that each block's advance looks at */
	_Atomic uint32_t ways;
	alignas(64) _Atomic uint64_t n_puts;
	_Atomic uint64_t n_evictions;
	alignas(64) struct owner owners[INSTANCE_SLOTS_MAX];
};

/* ---- relaxed: nothing here orders anything but a slot's serial ---- */

static inline uint64_t entry_load(const _Atomic uint64_t *entry) {
	return atomic_load_explicit(entry, memory_order_relaxed);
}

static inline void entry_store(_Atomic uint64_t *entry, uint64_t value) {
	atomic_store_explicit(entry, value, memory_order_relaxed);
}

static inline uint32_t field_load(const _Atomic uint32_t *field) {
	return atomic_load_explicit(field, memory_order_relaxed);
}

static inline void field_store(_Atomic uint32_t *field, uint32_t value) {
	atomic_store_explicit(field, value, memory_order_relaxed);
}

static void count(_Atomic uint64_t *counter, uint64_t n) {
	if (n)
		entry_store(counter, entry_load(counter) + n);
}

/* ---- entries ---- */

static inline uint32_t tag_of(uint64_t key) {
	return key & ((UINT32_C(1) << (64 - TAG_SHIFT)) - 1);
}

static inline uint32_t entry_tag(uint64_t entry) {
	return (uint32_t)(entry >> TAG_SHIFT);
}

static inline unsigned entry_slot(uint64_t entry) {
	return (entry >> (GENERATION_BITS + STAMP_BITS)) & (INSTANCE_SLOTS_MAX - 1);
}

/* Slot and generation. */
static inline uint32_t entry_owner(uint64_t entry) {
	return (uint32_t)(entry >> STAMP_BITS) & ((UINT32_C(1) << OWNER_BITS) - 1);
}

/* All of an entry but its stamp. */
static inline uint64_t identity_of(uint64_t key, unsigned slot, uint32_t generation) {
	return ((uint64_t)tag_of(key) << SLOT_BITS | slot) << GENERATION_BITS | generation;
}

/* `now` and the entry's lower half are generation and stamp. */
static inline bool entry_is_of(uint64_t entry, uint32_t now) {
	return (((uint32_t)entry ^ now) >> STAMP_BITS) == 0;
}

/* Of a stamp from now, forwards. */
static inline uint32_t stamp_distance(uint64_t entry, uint32_t now) {
	return (now - (uint32_t)entry) & STAMP_MASK;
}

static inline uint32_t age_of_distance(uint32_t distance) {
	return distance < STAMP_AHEAD ? distance : 0;
}

static inline uint32_t entry_age(uint64_t entry, uint32_t now) {
	return age_of_distance(stamp_distance(entry, now));
}

static inline uint32_t now_of(uint32_t generation, uint32_t clock) {
	return generation << STAMP_BITS | clock >> CLOCK_BITS_TICK;
}

static inline uint32_t owner_now(const struct owner *owner) {
	return now_of(field_load(&owner->generation), field_load(&owner->clock));
}

static inline uint32_t entry_rank(const struct prefix_index *ix, uint64_t entry) {
	const struct owner *owner = &ix->owners[entry_slot(entry)];
	uint32_t now = owner_now(owner), age = entry_age(entry, now);

	if (!entry_is_of(entry, now))
		return RANK_FREE;
	return age <= field_load(&owner->horizon) ? age : RANK_BEYOND + age;
}

/* ---- places ---- */

static inline unsigned way_of(unsigned slot, uint32_t ways) {
	return slot & (ways - 1);
}

static inline _Atomic uint64_t *way_in(_Atomic uint64_t *window, unsigned way) {
	return window + (size_t)way * ENTRIES;
}

static inline _Atomic uint64_t *window_of(const struct prefix_index *ix, uint32_t ways, uint64_t key) {
	size_t home = key >> ix->home_shift;

	return ix->entries + (home & ~(size_t)(ways - 1)) * ENTRIES;
}

/* The entry of a bucket whose loss costs least, and its rank. */
static _Atomic uint64_t *bucket_victim(
    const struct prefix_index *ix, _Atomic uint64_t *bucket, uint32_t *rank_out) {
	_Atomic uint64_t *victim = bucket;
	uint32_t highest = 0;

	for (unsigned i = 0; i < ENTRIES && highest != RANK_FREE; i++) {
		uint32_t rank = entry_rank(ix, entry_load(&bucket[i]));
		if (rank >= highest) {
			highest = rank;
			victim = &bucket[i];
		}
	}
	*rank_out = highest;
	return victim;
}

/* ---- the index ---- */

/*
 * Small pages: the first long prompt touches most of the huge ones, all over the table. With those it took
 * 70 to 180 ms and 64 MiB; with these it takes 0.5 ms and 0.8 MiB, and each long prompt behind it 0.3 ms,
 * until all 16,384 pages are there, while a lookup takes 1.9 us instead of 1.1 where one has the prompt,
 * and 3.2 instead of 2.6 where 64 have it.
 */
struct prefix_index *prefix_index_new(size_t bytes) {
	assert(bytes >= PREFIX_INDEX_BYTES_MIN);
	unsigned bits = 63 - (unsigned)__builtin_clzll(bytes / BUCKET_BYTES);
	size_t n_buckets = (size_t)1 << bits;
	size_t table_bytes = n_buckets * BUCKET_BYTES;

	void *table = mmap(NULL, table_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (table == MAP_FAILED)
		return NULL;
	heap_count_allocation();
	(void)madvise(table, table_bytes, MADV_NOHUGEPAGE); /* advice: some kernels have none */

	struct prefix_index *ix = aligned_alloc(alignof(struct prefix_index), sizeof(*ix));
	assert(ix);
	heap_count_allocation();
	memset(ix, 0, sizeof(*ix));
	ix->entries = table;
	ix->n_buckets = n_buckets;
	ix->home_shift = 64 - bits;
	ix->sweep_shift = bits > SWEEP_BITS ? bits - SWEEP_BITS : 0;
	ix->ways = 1;
	for (unsigned slot = 0; slot < INSTANCE_SLOTS_MAX; slot++) {
		ix->owners[slot].generation = 1;
		ix->owners[slot].horizon = PREFIX_HORIZON_NONE;
	}
	return ix;
}

void prefix_index_free(struct prefix_index **ix_ptr) {
	struct prefix_index *ix = *ix_ptr;

	if (!ix)
		return;
	*ix_ptr = NULL;
	int err = munmap(ix->entries, ix->n_buckets * BUCKET_BYTES);
	assert(err == 0);
	free(ix);
}

/* Where there is no room, what is worth most stays. Pages that nobody wrote are not written. */
static void window_widen(const struct prefix_index *ix, _Atomic uint64_t *window, uint32_t ways) {
	_Atomic uint64_t wide[WAYS_MAX * ENTRIES] = { 0 };

	for (unsigned i = 0; i < ways * ENTRIES; i++) {
		uint64_t entry = entry_load(&window[i]);
		uint32_t rank;
		if (!entry)
			continue;
		_Atomic uint64_t *victim =
		    bucket_victim(ix, way_in(wide, way_of(entry_slot(entry), ways)), &rank);
		if (entry_rank(ix, entry) < rank)
			entry_store(victim, entry);
	}
	for (unsigned i = 0; i < ways * ENTRIES; i++)
		if (entry_load(&window[i]) != entry_load(&wide[i]))
			entry_store(&window[i], entry_load(&wide[i]));
}

void prefix_index_widen(struct prefix_index *ix, uint32_t n_instances) {
	uint32_t ways = 1, old = field_load(&ix->ways);

	while (ways < WAYS_MAX && n_instances > 4 * ways)
		ways *= 2;
	do {
		if (old >= ways)
			return;
	} while (!atomic_compare_exchange_weak(&ix->ways, &old, ways));
	if (entry_load(&ix->n_puts) == 0) /* nothing is there: reading would map every page */
		return;
	for (size_t bucket = 0; bucket < ix->n_buckets; bucket += ways)
		window_widen(ix, ix->entries + bucket * ENTRIES, ways);
}

/* ---- owners ---- */

static inline struct owner *owner_of(struct prefix_index *ix, unsigned slot) {
	assert(slot < INSTANCE_SLOTS_MAX);
	return &ix->owners[slot];
}

/* After 255 it begins again; what is left of the first one was swept out or replaced long since. */
void prefix_index_forget(struct prefix_index *ix, unsigned slot) {
	struct owner *owner = owner_of(ix, slot);
	uint32_t next = (field_load(&owner->generation) + 1) % (1u << GENERATION_BITS);

	field_store(&owner->generation, next ? next : 1);
}

/*
 * One thread takes the slot over; others that come meanwhile go on. What they put is of either generation:
 * lost, or as old as it is, since the clock goes on where it was and a stamp is right under both. The serial
 * is published last: who sees it sees the record that belongs to it.
 */
void prefix_index_own(struct prefix_index *ix, unsigned slot, uint64_t serial) {
	struct owner *owner = owner_of(ix, slot);
	uint64_t before = atomic_load_explicit(&owner->serial, memory_order_acquire);

	assert(serial != SERIAL_CHANGING);
	if (before == serial || before == SERIAL_CHANGING)
		return;
	if (!atomic_compare_exchange_strong(&owner->serial, &before, SERIAL_CHANGING))
		return;
	field_store(&owner->horizon, PREFIX_HORIZON_NONE);
	prefix_index_forget(ix, slot);
	atomic_store_explicit(&owner->serial, serial, memory_order_release);
}

void prefix_index_learn(struct prefix_index *ix, unsigned slot, uint32_t age, bool was_there) {
	struct owner *owner = owner_of(ix, slot);
	uint32_t horizon = field_load(&owner->horizon);

	age = age < PREFIX_AGE_MAX ? age : PREFIX_AGE_MAX;
	if (was_there == (age <= horizon))
		return;
	if (was_there || horizon == PREFIX_HORIZON_NONE)
		horizon = age;
	else
		horizon -= (horizon - age) / 8;
	field_store(&owner->horizon, horizon > PREFIX_HORIZON_MIN ? horizon : PREFIX_HORIZON_MIN);
}

uint32_t prefix_index_horizon(const struct prefix_index *ix, unsigned slot) {
	assert(slot < INSTANCE_SLOTS_MAX);
	return field_load(&ix->owners[slot].horizon);
}

/* ---- match ---- */

/* Runs of which the same is known: they have the blocks before `low`, and not those from `high` on. */
struct span {
	uint64_t runs; /* bits are positions in the scan */
	uint32_t low, high;
};

struct match {
	const struct prefix_index *ix;
	const uint64_t *keys;
	struct prefix_scan *scan;
	uint32_t n_keys, ways;
	uint64_t way_runs[WAYS_MAX]; /* by the way that they are in */
	uint32_t n_spans, n_next;
	struct span spans[PREFIX_HITS_MAX], next[PREFIX_HITS_MAX]; /* each run is in one of them at most */
};

/* Of two entries for one instance the younger counts. */
static void run_begin(struct match *m, uint64_t entry) {
	struct prefix_scan *scan = m->scan;
	unsigned slot = entry_slot(entry);
	const struct owner *owner = &m->ix->owners[slot];
	uint32_t now = owner_now(owner), age = entry_age(entry, now), horizon = field_load(&owner->horizon);

	if (!entry_is_of(entry, now) || age > PREFIX_AGE_MAX)
		return;
	const struct prefix_hit *twin = prefix_scan_find(scan, slot);
	if (twin && age >= scan->runs[twin - scan->hits].age)
		return;
	uint32_t at = twin ? (uint32_t)(twin - scan->hits) : scan->n_hits++;
	bool is_believed = age <= horizon;

	m->way_runs[way_of(slot, m->ways)] |= UINT64_C(1) << at;
	scan->at[slot] = (uint8_t)at;
	scan->hits[at] = (struct prefix_hit){ .slot = (uint16_t)slot, .age_beyond = is_believed ? 0 : age };
	scan->runs[at] = (struct prefix_run){
		.owner = entry_owner(entry),
		.now = now,
		.horizon = is_believed ? horizon : PREFIX_AGE_MAX,
		.age = age,
	};
}

/* The upper halves of four entries. */
static inline __m128i heads_load(const _Atomic uint64_t *entries) {
	__m128i a = _mm_set_epi64x((long long)entry_load(&entries[1]), (long long)entry_load(&entries[0]));
	__m128i b = _mm_set_epi64x((long long)entry_load(&entries[3]), (long long)entry_load(&entries[2]));

	return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b), 0xdd));
}

/* The entries with this tag, one bit each; no branch for each, as nobody can foretell which it is. */
static inline uint32_t bucket_find_tag(const _Atomic uint64_t *bucket, uint32_t tag) {
	__m128i want = _mm_set1_epi32((int)(tag << SLOT_BITS));
	__m128i mask = _mm_set1_epi32((int)(UINT32_MAX << SLOT_BITS));
	__m128i low = _mm_cmpeq_epi32(_mm_and_si128(heads_load(bucket), mask), want);
	__m128i high = _mm_cmpeq_epi32(_mm_and_si128(heads_load(bucket + 4), mask), want);
	__m128i bytes = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());

	return (uint32_t)_mm_movemask_epi8(bytes);
}

/* The first block: whoever has it begins a run. */
static void scan_begin(struct match *m) {
	uint32_t tag = tag_of(m->keys[0]);
	_Atomic uint64_t *window = window_of(m->ix, m->ways, m->keys[0]);

	for (unsigned way = 0; way < m->ways; way++)
		__builtin_prefetch((void *)way_in(window, way));
	for (unsigned way = 0; way < m->ways; way++) {
		const _Atomic uint64_t *bucket = way_in(window, way);

		for (uint32_t found = bucket_find_tag(bucket, tag); found; found &= found - 1) {
			uint64_t entry = entry_load(&bucket[__builtin_ctz(found)]);

			if (entry_tag(entry) == tag && way_of(entry_slot(entry), m->ways) == way)
				run_begin(m, entry);
		}
	}
}

/* Entries of one bucket that are not believed. */
struct doubts {
	uint32_t n;
	uint32_t at[ENTRIES], age[ENTRIES];
};

/* Whoever has the block by another entry of the bucket is not doubted. */
static void doubts_tell(const struct doubts *doubts, struct prefix_scan *scan, uint64_t had) {
	for (uint32_t i = 0; i < doubts->n; i++)
		if (!(had >> doubts->at[i] & 1))
			scan->runs[doubts->at[i]].age_beyond = doubts->age[i];
}

/* Which of `runs` have a block with this tag in the bucket, and are believed to have it still. */
static inline uint64_t bucket_extend(
    struct prefix_scan *scan, const _Atomic uint64_t *bucket, uint32_t tag, uint64_t runs) {
	uint64_t had = 0;
	struct doubts doubts;

	doubts.n = 0;

	for (uint32_t found = bucket_find_tag(bucket, tag); found; found &= found - 1) {
		uint64_t entry = entry_load(&bucket[__builtin_ctz(found)]);
		uint32_t at = scan->at[entry_slot(entry)];
		struct prefix_run *run = &scan->runs[at];

		/* The tag as well: the entry may be another by now. */
		if (entry >> STAMP_BITS != ((uint64_t)tag << OWNER_BITS | run->owner) || !(runs >> at & 1))
			continue;
		uint32_t age = stamp_distance(entry, run->now);
		if (unlikely(age > run->horizon)) {
			age = age_of_distance(age);
			if (age > PREFIX_AGE_MAX)
				continue;
			if (age > run->horizon) {
				doubts.at[doubts.n] = at;
				doubts.age[doubts.n++] = age;
				continue;
			}
		}
		run->age = age;
		had |= UINT64_C(1) << at;
	}
	if (unlikely(doubts.n))
		doubts_tell(&doubts, scan, had);
	return had;
}

static inline unsigned first_way(const struct match *m, uint64_t runs) {
	return way_of(m->scan->hits[__builtin_ctzll(runs)].slot, m->ways);
}

static inline void span_push(struct match *m, uint64_t runs, uint32_t low, uint32_t high) {
	if (!runs)
		return;
	assert(m->n_next < PREFIX_HITS_MAX);
	m->next[m->n_next++] = (struct span){ runs, low, high };
}

/* A run that is believed no longer goes on: how far was it known? */
static void span_end(struct match *m, const struct span *span) {
	for (uint64_t runs = span->runs; runs; runs &= runs - 1) {
		uint32_t at = (uint32_t)__builtin_ctzll(runs);
		struct prefix_run *run = &m->scan->runs[at];
		struct prefix_hit *hit = &m->scan->hits[at];

		hit->n_known = span->low;
		if (hit->age_beyond)
			continue;
		hit->n_blocks = span->low;
		hit->age = run->age;
		if (!run->age_beyond || span->low == m->n_keys)
			continue;
		hit->age_beyond = run->age_beyond;
		run->horizon = PREFIX_AGE_MAX;
		span_push(m, runs & -runs, span->low + 1, m->n_keys);
	}
}

static inline uint32_t span_middle(const struct span *span) {
	return span->low + (span->high - span->low) / 2;
}

static void span_prefetch(const struct match *m, const struct span *span) {
	unsigned way;

	if (span->low == span->high)
		return;
	_Atomic uint64_t *window = window_of(m->ix, m->ways, m->keys[span_middle(span)]);
	for (uint64_t rest = span->runs; rest; rest &= ~m->way_runs[way]) {
		way = first_way(m, rest);
		__builtin_prefetch((void *)way_in(window, way));
	}
}

/* Those that have the block in the middle have what is before it. */
static void span_halve(struct match *m, const struct span *span) {
	uint32_t middle = span_middle(span);
	uint64_t key = m->keys[middle], had = 0;
	_Atomic uint64_t *window = window_of(m->ix, m->ways, key);
	unsigned way;

	for (uint64_t rest = span->runs; rest; rest &= ~m->way_runs[way]) {
		way = first_way(m, rest);
		had |= bucket_extend(m->scan, way_in(window, way), tag_of(key), rest & m->way_runs[way]);
	}
	span_push(m, had, middle + 1, span->high);
	span_push(m, span->runs ^ had, span->low, middle);
}

/* All spans a step further. What they will read is fetched at once: they wait for memory together. */
static void match_step(struct match *m) {
	for (uint32_t i = 0; i < m->n_spans; i++)
		span_prefetch(m, &m->spans[i]);
	m->n_next = 0;
	for (uint32_t i = 0; i < m->n_spans; i++) {
		if (m->spans[i].low == m->spans[i].high)
			span_end(m, &m->spans[i]);
		else
			span_halve(m, &m->spans[i]);
	}
	memcpy(m->spans, m->next, m->n_next * sizeof(*m->spans));
	m->n_spans = m->n_next;
}

hot void prefix_index_match(
    const struct prefix_index *ix, const uint64_t *keys, size_t n_keys, struct prefix_scan *scan) {
	struct match m;

	scan->n_hits = 0;
	if (n_keys == 0)
		return;
	assert(n_keys < UINT32_MAX);
	m.ix = ix;
	m.keys = keys;
	m.scan = scan;
	m.n_keys = (uint32_t)n_keys;
	m.ways = field_load(&ix->ways);
	memset(m.way_runs, 0, sizeof(m.way_runs));
	scan_begin(&m);
	if (scan->n_hits == 0)
		return;
	m.spans[0] = (struct span){ UINT64_MAX >> (PREFIX_HITS_MAX - scan->n_hits), 1, m.n_keys };
	for (m.n_spans = 1; m.n_spans > 0;)
		match_step(&m);
}

/* ---- put ---- */

struct put {
	struct prefix_index *ix;
	unsigned slot;
	uint32_t ways;
	uint32_t generation;
	uint32_t clock;
	uint64_t pace; /* a renewed block's step for each tick of its age, in 1/65536 */
	uint64_t n_evictions;
};

static struct put put_begin(struct prefix_index *ix, unsigned slot) {
	const struct owner *owner = owner_of(ix, slot);
	uint32_t horizon = field_load(&owner->horizon);

	return (struct put){
		.ix = ix,
		.slot = slot,
		.ways = field_load(&ix->ways),
		.generation = field_load(&owner->generation),
		.clock = field_load(&owner->clock),
		.pace = ((uint64_t)CLOCK_BLOCK << 16) /
		    (horizon == PREFIX_HORIZON_NONE ? HORIZON_GUESS : horizon),
	};
}

static inline _Atomic uint64_t *bucket_find(_Atomic uint64_t *bucket, uint64_t identity) {
	for (unsigned i = 0; i < ENTRIES; i++)
		if (entry_load(&bucket[i]) >> STAMP_BITS == identity)
			return &bucket[i];
	return NULL;
}

static inline _Atomic uint64_t *bucket_of(const struct put *put, uint64_t key) {
	return way_in(window_of(put->ix, put->ways, key), way_of(put->slot, put->ways));
}

/*
 * A new block pushes all others of its instance down by one. A renewed one pushes down
 * those that were above it: as it is not known which, all move by their share.
 */
static inline void put_block(struct put *put, uint64_t key) {
	_Atomic uint64_t *bucket = bucket_of(put, key);
	uint64_t identity = identity_of(key, put->slot, put->generation);
	_Atomic uint64_t *entry = bucket_find(bucket, identity);

	if (entry) {
		uint32_t age = entry_age(entry_load(entry), now_of(put->generation, put->clock));
		put->clock += (uint32_t)u64_min(age * put->pace >> 16, CLOCK_BLOCK);
	} else {
		uint32_t rank;
		entry = bucket_victim(put->ix, bucket, &rank);
		put->n_evictions += rank < RANK_BEYOND;
		put->clock += CLOCK_BLOCK;
	}
	entry_store(entry, identity << STAMP_BITS | put->clock >> CLOCK_BITS_TICK);
}

/* Forgotten, or so old that it would look young before long. */
static inline bool entry_is_stale(const struct prefix_index *ix, uint64_t entry) {
	uint32_t now = owner_now(&ix->owners[entry_slot(entry)]);

	return !entry_is_of(entry, now) || entry_age(entry, now) > PREFIX_AGE_MAX;
}

/* Empties what is forgotten or too old in the buckets that belong to one block of a clock. */
static void sweep_block(struct prefix_index *ix, uint32_t block) {
	size_t first = ((size_t)block << ix->sweep_shift) & (ix->n_buckets - 1);
	_Atomic uint64_t *entry = ix->entries + first * ENTRIES, *end = entry + (ENTRIES << ix->sweep_shift);

	for (; entry < end; entry++) {
		uint64_t value = entry_load(entry);
		if (value && entry_is_stale(ix, value))
			entry_store(entry, 0);
	}
}

/* Another put of the slot may have moved its clock meanwhile: both ways count. */
static void put_end(struct put *put, uint32_t advance) {
	struct owner *owner = &put->ix->owners[put->slot];
	uint32_t before = field_load(&owner->clock), after = before + advance;

	field_store(&owner->clock, after);
	for (; (before ^ after) >> CLOCK_BITS_BLOCK; before += CLOCK_BLOCK)
		sweep_block(put->ix, before >> CLOCK_BITS_BLOCK);
	count(&put->ix->n_evictions, put->n_evictions);
}

/* From the end, so that the first block is the youngest. */
hot void prefix_index_put(struct prefix_index *ix, unsigned slot, const uint64_t *keys, size_t n_keys) {
	struct put put = put_begin(ix, slot);
	uint32_t clock = put.clock;

	for (size_t i = n_keys - size_min(BLOCKS_AHEAD, n_keys); i < n_keys; i++)
		__builtin_prefetch((void *)bucket_of(&put, keys[i]), 1);
	for (size_t i = n_keys; i-- > 0;) {
		if (i >= BLOCKS_AHEAD)
			__builtin_prefetch((void *)bucket_of(&put, keys[i - BLOCKS_AHEAD]), 1);
		put_block(&put, keys[i]);
	}
	put_end(&put, put.clock - clock);
	count(&ix->n_puts, n_keys);
}

struct prefix_index_stats prefix_index_stats(const struct prefix_index *ix) {
	return (struct prefix_index_stats){
		.bytes = ix->n_buckets * BUCKET_BYTES,
		.n_buckets = ix->n_buckets,
		.n_puts = entry_load(&ix->n_puts),
		.n_evictions = entry_load(&ix->n_evictions),
	};
}
