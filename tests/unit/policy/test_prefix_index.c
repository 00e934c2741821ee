#include "unit/unit.h"

#include <math.h>
#include <pthread.h>

#include "base/rng.h"
#include "policy/prefix_index.c" /* to set clocks and look at entries */

#define BLOCK PREFIX_BLOCK_TICKS

static struct prefix_scan scan;

/* No two ids have a tag in common, so that nothing is found by chance. */
static uint64_t key_of(uint32_t id) {
	struct rng rng;

	assert_true(id < 1u << 20);
	rng_init(&rng, id);
	return rng_next(&rng) << 20 | id;
}

static void keys_of(uint64_t *keys, uint32_t first, size_t n) {
	for (size_t i = 0; i < n; i++)
		keys[i] = key_of(first + (uint32_t)i);
}

static struct prefix_index *index_new(size_t bytes, uint32_t n_instances) {
	struct prefix_index *ix = prefix_index_new(bytes);

	assert_non_null(ix);
	prefix_index_widen(ix, n_instances);
	for (unsigned slot = 0; slot < n_instances; slot++)
		prefix_index_own(ix, slot, slot + 1);
	return ix;
}

static bool hit_is_well_formed(const struct prefix_hit *hit, size_t n_keys) {
	return hit->n_known > 0 && hit->n_known <= n_keys && hit->n_blocks <= hit->n_known &&
	    (hit->age_beyond == 0) == (hit->n_blocks == hit->n_known) && (hit->n_blocks || hit->age == 0) &&
	    hit->age <= PREFIX_AGE_MAX && hit->age_beyond <= PREFIX_AGE_MAX;
}

/* Not an assertion: threads ask as well. */
static bool scan_is_well_formed(const struct prefix_scan *s, size_t n_keys) {
	if (s->n_hits > PREFIX_HITS_MAX)
		return false;
	for (uint32_t i = 0; i < s->n_hits; i++)
		if (!hit_is_well_formed(&s->hits[i], n_keys) ||
		    prefix_scan_find(s, s->hits[i].slot) != &s->hits[i])
			return false;
	return true;
}

/* What the index says of one slot; all zero when nothing. */
static struct prefix_hit match(struct prefix_index *ix, unsigned slot, const uint64_t *keys, size_t n_keys) {
	prefix_index_match(ix, keys, n_keys, &scan);
	assert_true(scan_is_well_formed(&scan, n_keys));
	const struct prefix_hit *hit = prefix_scan_find(&scan, slot);
	return hit ? *hit : (struct prefix_hit){ 0 };
}

static void put_one(struct prefix_index *ix, unsigned slot, uint64_t key) {
	prefix_index_put(ix, slot, &key, 1);
}

static bool has(struct prefix_index *ix, unsigned slot, uint64_t key) {
	return match(ix, slot, &key, 1).n_known == 1;
}

static size_t n_entries(const struct prefix_index *ix) {
	size_t n = 0;

	for (size_t i = 0; i < ix->n_buckets * ENTRIES; i++)
		n += entry_load(&ix->entries[i]) != 0;
	return n;
}

/* ---- against a naive model ---- */

enum { MODEL_SLOTS = 16, MODEL_BLOCKS = 4000, MODEL_DEPTH = 40 };

/* Prompts are paths from the root of a random tree, so that many begin alike. */
struct model {
	struct rng rng;
	uint32_t parent[MODEL_BLOCKS];          /* 0 is the root, and no block */
	double used[MODEL_SLOTS][MODEL_BLOCKS]; /* its slot's clock then, in blocks; negative: never */
	double clock[MODEL_SLOTS];
	uint64_t serial[MODEL_SLOTS];
	uint32_t path[MODEL_DEPTH];
	uint64_t keys[MODEL_DEPTH];
	size_t n;
};

static void model_clear(struct model *m, unsigned slot) {
	for (uint32_t id = 0; id < MODEL_BLOCKS; id++)
		m->used[slot][id] = -1;
}

static struct model *model_new(uint64_t seed) {
	struct model *m = calloc(1, sizeof(*m));

	rng_init(&m->rng, seed);
	for (uint32_t id = 1; id < MODEL_BLOCKS; id++)
		m->parent[id] = (uint32_t)rng_below(&m->rng, id < 20 ? 1 : id);
	for (unsigned slot = 0; slot < MODEL_SLOTS; slot++) {
		m->serial[slot] = slot + 1;
		model_clear(m, slot);
	}
	return m;
}

static void model_draw(struct model *m) {
	uint32_t id = 1 + (uint32_t)rng_below(&m->rng, MODEL_BLOCKS - 1), at = id;

	for (m->n = 0; at; at = m->parent[at])
		m->n++;
	assert_true(m->n <= MODEL_DEPTH);
	for (size_t i = m->n; i-- > 0; id = m->parent[id]) {
		m->path[i] = id;
		m->keys[i] = key_of(id);
	}
}

/* Words of the contract in floating point; no slot has a horizon here. */
static void model_put(struct model *m, unsigned slot) {
	for (size_t i = m->n; i-- > 0;) {
		double *used = &m->used[slot][m->path[i]];
		m->clock[slot] += *used < 0 ? 1 : fmin(1, (m->clock[slot] - *used) / 65536);
		*used = m->clock[slot];
	}
}

static size_t model_run(const struct model *m, unsigned slot) {
	size_t n = 0;

	while (n < m->n && m->used[slot][m->path[n]] >= 0)
		n++;
	return n;
}

static void model_change(struct model *m, struct prefix_index *ix, unsigned slot) {
	switch (rng_below(&m->rng, 40)) {
	case 0:
		prefix_index_forget(ix, slot);
		break;
	case 1:
		prefix_index_own(ix, slot, m->serial[slot] += MODEL_SLOTS);
		m->clock[slot] = 0;
		break;
	default:
		prefix_index_own(ix, slot, m->serial[slot]);
		prefix_index_put(ix, slot, m->keys, m->n);
		model_put(m, slot);
		return;
	}
	model_clear(m, slot);
}

static void a_table_with_room_knows_all(void **state) {
	struct prefix_index *ix = index_new(32 << 20, MODEL_SLOTS);
	struct model *m = model_new(1);

	for (unsigned step = 0; step < 20000; step++) {
		model_draw(m);
		model_change(m, ix, (unsigned)rng_below(&m->rng, MODEL_SLOTS));
		model_draw(m);
		match(ix, 0, m->keys, m->n);
		for (unsigned slot = 0; slot < MODEL_SLOTS; slot++) {
			const struct prefix_hit *hit = prefix_scan_find(&scan, slot);
			size_t n = model_run(m, slot);

			assert_int_equal(hit ? hit->n_known : 0, n);
			if (!hit)
				continue;
			double age = (m->clock[slot] - m->used[slot][m->path[n - 1]]) * BLOCK;
			assert_int_equal(hit->n_blocks, n);
			assert_true(fabs(hit->age - age) <= 4 + age / 50);
		}
	}
	assert_int_equal(prefix_index_stats(ix).n_evictions, 0);
	free(m);
	prefix_index_free(&ix);
}

/* 512 entries for what would be up to 64000: what it says is true all the same, and says no more than that.
 */
static void a_table_without_room_says_nothing_wrong(void **state) {
	struct prefix_index *ix = index_new(PREFIX_INDEX_BYTES_MIN, MODEL_SLOTS);
	struct model *m = model_new(2);
	size_t n_right = 0;

	for (unsigned step = 0; step < 50000; step++) {
		model_draw(m);
		model_change(m, ix, (unsigned)rng_below(&m->rng, MODEL_SLOTS));
		if (step % 2)
			model_draw(m);
		match(ix, 0, m->keys, m->n);
		for (uint32_t i = 0; i < scan.n_hits; i++) {
			assert_true(scan.hits[i].n_known <= model_run(m, scan.hits[i].slot));
			n_right++;
		}
	}
	assert_true(n_right > 50000);
	assert_true(prefix_index_stats(ix).n_evictions > 10000);
	free(m);
	prefix_index_free(&ix);
}

static void memory_is_what_was_given(void **state) {
	struct prefix_index *ix = index_new(100000, 8);
	uint64_t keys[50];

	assert_int_equal(prefix_index_stats(ix).bytes, 65536);
	assert_int_equal(prefix_index_stats(ix).n_buckets, 1024);
	uint64_t before = heap_allocations();
	for (uint32_t i = 0; i < 2000; i++) {
		keys_of(keys, i * 50, 50);
		prefix_index_put(ix, i % 8, keys, 50);
		prefix_index_match(ix, keys, 50, &scan);
	}
	assert_int_equal(heap_allocations(), before);
	assert_int_equal(prefix_index_stats(ix).n_puts, 100000);
	assert_true(n_entries(ix) > 7000);
	prefix_index_free(&ix);
	assert_null(ix);
	prefix_index_free(&ix);
}

/* ---- single rules ---- */

static void a_run_ends_with_its_last_block(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 4);
	uint64_t keys[9];

	keys_of(keys, 100, 9);
	for (size_t n = 0; n <= 9; n++) {
		prefix_index_forget(ix, 1);
		prefix_index_put(ix, 0, keys, 9);
		prefix_index_put(ix, 1, keys, n);
		prefix_index_put(ix, 2, keys + 1, 8);
		assert_int_equal(match(ix, 0, keys, 9).n_blocks, 9);
		assert_int_equal(match(ix, 1, keys, 9).n_blocks, n);
		assert_int_equal(match(ix, 2, keys, 9).n_known, 0);
		assert_int_equal(scan.n_hits, n ? 2 : 1);
	}
	assert_int_equal(match(ix, 0, keys, 3).n_blocks, 3);
	assert_int_equal(match(ix, 0, keys, 0).n_blocks, 0);
	assert_int_equal(scan.n_hits, 0);
	prefix_index_free(&ix);
}

/* The table lost it; the engine drops no block before those behind it. */
static void a_lost_block_shortens_a_run_at_most_to_it(void **state) {
	uint64_t keys[20];

	keys_of(keys, 100, 20);
	for (size_t lost = 1; lost < 20; lost++) {
		struct prefix_index *ix = index_new(1 << 20, 4);

		prefix_index_put(ix, 1, keys, 20);
		entry_store(
		    bucket_find(way_in(window_of(ix, 1, keys[lost]), 0), identity_of(keys[lost], 1, 2)), 0);
		size_t n = match(ix, 1, keys, 20).n_blocks;
		assert_true(n == lost || n == 20);
		prefix_index_free(&ix);
	}
}

/* Some know more than they are believed to have, at any depth, and each its own. */
static void each_run_has_its_own_ends(void **state) {
	struct prefix_index *ix = index_new(8 << 20, 64);
	uint64_t keys[200];

	for (uint64_t i = 0; i < 200; i++) /* each in a window of its own: nothing is lost */
		keys[i] = i << 56 | i;
	for (unsigned slot = 0; slot < 64; slot++) {
		prefix_index_put(ix, slot, keys, 1 + slot * 3);
		prefix_index_learn(ix, slot, PREFIX_HORIZON_MIN + slot * BLOCK, false);
	}
	match(ix, 0, keys, 200);
	assert_int_equal(scan.n_hits, 64);
	for (unsigned slot = 0; slot < 64; slot++) {
		const struct prefix_hit *hit = prefix_scan_find(&scan, slot);
		uint32_t n_known = 1 + slot * 3, n_believed = PREFIX_HORIZON_MIN / BLOCK + slot + 1;
		bool is_doubted = n_known > n_believed;

		assert_int_equal(hit->n_known, n_known);
		assert_int_equal(hit->n_blocks, is_doubted ? n_believed : n_known);
		assert_int_equal(hit->age, (hit->n_blocks - 1) * BLOCK);
		assert_int_equal(hit->age_beyond, is_doubted ? n_believed * BLOCK : 0);
	}
	prefix_index_free(&ix);
}

/* Ends parted so far that each run stands in a span of its own. */
static void as_many_spans_as_runs(void **state) {
	struct prefix_index *ix = index_new(8 << 20, 64);
	uint64_t keys[200];

	for (uint64_t i = 0; i < 200; i++)
		keys[i] = i << 56 | i;
	for (unsigned slot = 0; slot < 64; slot++)
		prefix_index_put(ix, slot, keys, size_min(3 + slot * 3, 200));
	match(ix, 0, keys, 200);
	assert_int_equal(scan.n_hits, 64);
	for (unsigned slot = 0; slot < 64; slot++)
		assert_int_equal(prefix_scan_find(&scan, slot)->n_blocks, size_min(3 + slot * 3, 200));
	prefix_index_free(&ix);
}

enum { LONG_BLOCKS = 2048, LONG_ROUNDS = 100 };

/* Each slot has a random part of one long prompt, and half of them a horizon within it. */
static void put_random_runs(struct prefix_index *ix, struct rng *rng, const uint64_t *keys, size_t n[64]) {
	for (unsigned slot = 0; slot < 64; slot++) {
		n[slot] = 1 + rng_below(rng, LONG_BLOCKS);
		prefix_index_forget(ix, slot);
		ix->owners[slot].horizon =
		    slot % 2 ? PREFIX_HORIZON_NONE : (uint32_t)rng_below(rng, LONG_BLOCKS * BLOCK);
		prefix_index_put(ix, slot, keys, n[slot]);
	}
}

static void random_ends_of_a_long_prompt(void **state) {
	struct prefix_index *ix = index_new(8 << 20, 64);
	static uint64_t keys[LONG_BLOCKS];
	struct rng rng;
	size_t n[64];

	for (uint64_t i = 0; i < LONG_BLOCKS; i++) /* each in a window of its own */
		keys[i] = i << 53 | i;
	rng_init(&rng, 5);
	for (unsigned round = 0; round < LONG_ROUNDS; round++) {
		put_random_runs(ix, &rng, keys, n);
		match(ix, 0, keys, LONG_BLOCKS);
		assert_int_equal(scan.n_hits, 64);
		for (unsigned slot = 0; slot < 64; slot++) {
			const struct prefix_hit *hit = prefix_scan_find(&scan, slot);
			size_t n_believed = size_min(n[slot], ix->owners[slot].horizon / BLOCK + 1);

			assert_int_equal(hit->n_known, n[slot]);
			assert_int_equal(hit->n_blocks, n_believed);
			assert_int_equal(hit->age, (n_believed - 1) * BLOCK);
			assert_int_equal(hit->age_beyond, n_believed < n[slot] ? n_believed * BLOCK : 0);
		}
	}
	prefix_index_free(&ix);
}

static void the_end_of_a_prompt_ages_first(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 1);
	uint64_t keys[10], others[7];

	keys_of(keys, 0, 10);
	keys_of(others, 10, 7);
	prefix_index_put(ix, 0, keys, 10);
	prefix_index_put(ix, 0, others, 7);
	for (size_t n = 1; n <= 10; n++)
		assert_int_equal(match(ix, 0, keys, n).age, (7 + n - 1) * BLOCK);
	prefix_index_free(&ix);
}

static void another_owner_knows_nothing(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 3);
	uint64_t key = key_of(5);

	put_one(ix, 1, key);
	put_one(ix, 2, key);
	prefix_index_learn(ix, 1, 500, false);
	prefix_index_own(ix, 1, 2); /* it is */
	assert_true(has(ix, 1, key));
	assert_int_equal(prefix_index_horizon(ix, 1), 500);
	prefix_index_own(ix, 1, 99);
	assert_false(has(ix, 1, key));
	assert_true(has(ix, 2, key));
	assert_int_equal(prefix_index_horizon(ix, 1), PREFIX_HORIZON_NONE);
	prefix_index_free(&ix);
}

/* Whatever a thread that puts has read of the record while another one takes the slot over. */
static void what_is_put_during_a_take_over_is_lost_or_ages(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 3);
	struct owner *owner = &ix->owners[1];
	uint64_t early = key_of(1), between = key_of(2), key = key_of(3);

	for (uint32_t id = 0; id < 100; id++)
		put_one(ix, 1, key_of(100 + id));
	/* Of the one before: begun before it, and ended behind it. */
	struct put put = put_begin(ix, 1);
	uint32_t begun = put.clock;
	prefix_index_own(ix, 1, 99);
	put_block(&put, early);
	put_end(&put, put.clock - begun);
	assert_false(has(ix, 1, early));
	/* In its midst, step by step; others leave it alone. */
	uint32_t clock = owner->clock;
	owner->serial = SERIAL_CHANGING;
	prefix_index_own(ix, 1, 100);
	assert_true(owner->serial == SERIAL_CHANGING);
	owner->horizon = PREFIX_HORIZON_NONE;
	put_one(ix, 1, early);
	prefix_index_forget(ix, 1);
	put_one(ix, 1, between);
	owner->serial = 100;
	assert_int_equal(owner->clock, clock + 2 * CLOCK_BLOCK);
	put_one(ix, 1, key);
	assert_false(has(ix, 1, early));
	assert_int_equal(match(ix, 1, &between, 1).age, BLOCK);
	/* There is no more to it: the clock stays, so that stamps mean the same before and behind it. */
	clock = owner->clock;
	prefix_index_own(ix, 1, 101);
	assert_int_equal(owner->clock, clock);
	assert_false(has(ix, 1, between));
	prefix_index_free(&ix);
}

static void what_is_forgotten_stays_so(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 3);
	uint64_t key = key_of(5), later = key_of(6);

	put_one(ix, 1, key);
	prefix_index_learn(ix, 1, 500, false);
	for (unsigned i = 0; i < 254; i++) {
		prefix_index_forget(ix, 1);
		assert_false(has(ix, 1, key));
		put_one(ix, 1, later);
		assert_true(has(ix, 1, later));
	}
	assert_int_equal(prefix_index_horizon(ix, 1), 500);
	for (unsigned i = 0; i < 300; i++) {
		prefix_index_forget(ix, 0);
		match(ix, 0, &(uint64_t){ 0 }, 1); /* the key that an empty entry would have */
		assert_int_equal(scan.n_hits, 0);
	}
	prefix_index_free(&ix);
}

static void belief_ends_at_the_horizon(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 2);
	uint64_t keys[40];

	keys_of(keys, 0, 40);
	prefix_index_put(ix, 1, keys, 40);
	prefix_index_learn(ix, 1, 20 * BLOCK + 3, false);
	struct prefix_hit hit = match(ix, 1, keys, 40);
	assert_int_equal(hit.n_blocks, 21);
	assert_int_equal(hit.age, 20 * BLOCK);
	assert_int_equal(hit.n_known, 40);
	assert_int_equal(hit.age_beyond, 21 * BLOCK);

	hit = match(ix, 1, keys + 25, 15);
	assert_int_equal(hit.n_blocks, 0);
	assert_int_equal(hit.age, 0);
	assert_int_equal(hit.n_known, 15);
	assert_int_equal(hit.age_beyond, 25 * BLOCK);
	prefix_index_free(&ix);
}

/* As two puts leave it that met: the older of the two entries is no doubt of the younger. */
static void who_has_a_block_twice_is_not_doubted(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 2);
	struct owner *owner = &ix->owners[1];
	uint64_t keys[20];

	keys_of(keys, 0, 20);
	owner->clock = 5000 * CLOCK_BLOCK;
	owner->horizon = 100 * BLOCK;
	prefix_index_put(ix, 1, keys, 16);
	for (size_t i = 0; i < 16; i++) {
		_Atomic uint64_t *bucket = way_in(window_of(ix, 1, keys[i]), 0);
		_Atomic uint64_t *entry = bucket_find(bucket, identity_of(keys[i], 1, owner->generation));
		uint64_t own = entry_load(entry), twin = own - 1000 * BLOCK;

		for (unsigned is_first = 0; is_first < 2; is_first++) {
			entry_store(&bucket[is_first ? 1 : 6], own);
			entry_store(&bucket[is_first ? 6 : 1], twin);
			struct prefix_hit hit = match(ix, 1, keys, 20);
			assert_int_equal(hit.n_blocks, 16);
			assert_int_equal(hit.n_known, 16);
			assert_int_equal(hit.age, 15 * BLOCK);
			assert_int_equal(hit.age_beyond, 0);
		}
		for (unsigned k = 0; k < ENTRIES; k++)
			entry_store(&bucket[k], 0);
		entry_store(entry, own);
	}
	prefix_index_free(&ix);
}

static uint32_t learnt(struct prefix_index *ix, uint32_t age, bool was_there) {
	prefix_index_learn(ix, 0, age, was_there);
	return prefix_index_horizon(ix, 0);
}

static void the_horizon_follows_what_engines_say(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 1);

	assert_int_equal(learnt(ix, 5000, true), PREFIX_HORIZON_NONE);
	assert_int_equal(learnt(ix, 10000, false), 10000);
	assert_int_equal(learnt(ix, 10001, false), 10000); /* nobody believed it */
	assert_int_equal(learnt(ix, 9000, true), 10000);
	assert_int_equal(learnt(ix, 5000, false), 9375);
	assert_int_equal(learnt(ix, 9500, true), 9500);
	for (unsigned i = 0; i < 100; i++)
		learnt(ix, 0, false);
	assert_int_equal(prefix_index_horizon(ix, 0), PREFIX_HORIZON_MIN);
	assert_int_equal(learnt(ix, UINT32_MAX, true), PREFIX_AGE_MAX);
	prefix_index_free(&ix);
}

static void widening_loses_nothing(void **state) {
	struct prefix_index *ix = index_new(4 << 20, 1);
	uint64_t keys[64][10];

	for (unsigned slot = 0; slot < 64; slot++) {
		keys_of(keys[slot], slot * 10, 10);
		prefix_index_put(ix, slot, keys[slot], 10);
	}
	size_t n = n_entries(ix);
	for (uint32_t n_instances = 1; n_instances <= 64; n_instances++) {
		prefix_index_widen(ix, n_instances);
		for (unsigned slot = 0; slot < 64; slot++)
			assert_int_equal(match(ix, slot, keys[slot], 10).n_known, 10);
	}
	for (unsigned slot = 0; slot < 64; slot++)
		prefix_index_put(ix, slot, keys[slot], 10);
	assert_int_equal(n_entries(ix), n); /* each has been renewed, none is there twice */
	prefix_index_widen(ix, 2);
	assert_int_equal(ix->ways, 8);
	prefix_index_free(&ix);
}

/* As a put leaves it that had begun before the index was widened. */
static void what_is_not_in_its_place_is_not_seen(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 64);
	uint64_t key = key_of(5);
	_Atomic uint64_t *window = window_of(ix, 8, key);

	put_one(ix, 3, key);
	_Atomic uint64_t *entry = bucket_find(way_in(window, 3), identity_of(key, 3, 2));
	entry_store(way_in(window, 2), entry_load(entry));
	entry_store(entry, 0);
	assert_false(has(ix, 3, key));
	prefix_index_free(&ix);
}

static void popular_blocks_have_room_as_the_fleet_grows(void **state) {
	static const struct {
		uint32_t n_instances, ways;
	} sizes[] = { { 0, 1 }, { 4, 1 }, { 5, 2 }, { 8, 2 }, { 9, 4 }, { 16, 4 }, { 17, 8 }, { 64, 8 },
		{ 4096, 8 } };

	for (size_t i = 0; i < n_elems(sizes); i++) {
		struct prefix_index *ix = index_new(1 << 20, sizes[i].n_instances);
		uint64_t key = key_of(7);

		for (unsigned slot = 0; slot < sizes[i].n_instances; slot++)
			put_one(ix, slot, key);
		match(ix, 0, &key, 1);
		assert_int_equal(ix->ways, sizes[i].ways);
		assert_int_equal(scan.n_hits, size_min(sizes[i].n_instances, PREFIX_HITS_MAX));
		prefix_index_free(&ix);
	}
}

/* Keys of one bucket of the smallest table with one way. */
static uint64_t neighbour(uint32_t id) {
	return UINT64_C(3) << 58 | id;
}

static uint64_t elsewhere(uint32_t id) {
	return key_of(id) | UINT64_C(1) << 63;
}

static void what_is_worth_least_goes_first(void **state) {
	struct prefix_index *ix = index_new(PREFIX_INDEX_BYTES_MIN, 4);

	for (uint32_t id = 0; id < 8; id++) /* slots 0 1 2 0 1 2 0 1 */
		put_one(ix, id % 3, neighbour(id));
	prefix_index_forget(ix, 1); /* 1, 4 and 7 */
	for (uint32_t id = 0; id < 30; id++) {
		put_one(ix, 2, elsewhere(id)); /* 2 and 5 grow old */
		if (id < 10)
			put_one(ix, 0, elsewhere(id));
	}
	ix->owners[0].horizon = 10 * BLOCK; /* 0 and 3 are beyond it, 6 is not */

	static const uint32_t order[] = { 1, 4, 7, 0, 3, 2, 5, 6 };
	for (uint32_t i = 0; i < 8; i++) {
		assert_true(i < 3 || has(ix, order[i] % 3, neighbour(order[i])));
		put_one(ix, 3, neighbour(100 + i));
		for (uint32_t k = 0; k < 8; k++)
			assert_int_equal(
			    k > i && order[k] % 3 != 1, has(ix, order[k] % 3, neighbour(order[k])));
	}
	assert_int_equal(prefix_index_stats(ix).n_evictions, 3);
	prefix_index_free(&ix);
}

/* ---- clocks ---- */

static void ages_are_right_when_the_clock_goes_round(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 1);
	uint64_t keys[30];

	keys_of(keys, 0, 30);
	ix->owners[0].clock = UINT32_MAX - 15 * CLOCK_BLOCK;
	for (size_t i = 0; i < 30; i++)
		put_one(ix, 0, keys[i]);
	assert_true(ix->owners[0].clock < 16 * CLOCK_BLOCK);
	for (size_t i = 0; i < 30; i++)
		assert_int_equal(match(ix, 0, keys + i, 1).age, (29 - i) * BLOCK);
	prefix_index_free(&ix);
}

/* Another thread's put stamps ahead of the clock that this one knows. */
static void a_stamp_ahead_of_the_clock_is_young(void **state) {
	struct prefix_index *ix = index_new(1 << 20, 1);
	uint64_t keys[3];

	keys_of(keys, 0, 3);
	prefix_index_put(ix, 0, keys, 3);
	ix->owners[0].clock -= 2 * CLOCK_BLOCK;
	struct prefix_hit hit = match(ix, 0, keys, 3);
	assert_int_equal(hit.n_blocks, 3);
	assert_int_equal(hit.age, 0);
	prefix_index_free(&ix);
}

/* Another whole turn of the clock, in a table where nothing needs to be evicted for it. */
static void what_is_old_does_not_get_young_again(void **state) {
	struct prefix_index *ix = index_new(64 << 20, 1);
	uint64_t old[64], key = 0;
	unsigned n_known = 0;
	struct rng rng;

	rng_init(&rng, 3);
	for (size_t i = 0; i < n_elems(old); i++)
		put_one(ix, 0, old[i] = rng_next(&rng));
	for (uint32_t block = 0; block < (1u << 20) + 8; block++) {
		key = rng_next(&rng);
		put_one(ix, 0, key);
		if (block == PREFIX_AGE_MAX / BLOCK - 64)
			for (size_t i = 0; i < n_elems(old); i++)
				n_known += has(ix, 0, old[i]);
	}
	assert_true(n_known >= 62);
	for (size_t i = 0; i < n_elems(old); i++)
		assert_false(has(ix, 0, old[i]));
	assert_true(has(ix, 0, key));
	prefix_index_free(&ix);
}

enum { LRU_BLOCKS = 2000, LRU_ROOM = 300 };

/* Position from the young end, or LRU_BLOCKS; moves it there. */
static uint32_t lru_use(uint32_t *lru, uint32_t *n, uint32_t id) {
	uint32_t at = 0, depth;

	while (at < *n && lru[at] != id)
		at++;
	depth = at < *n ? at : LRU_BLOCKS;
	if (at == *n)
		++*n;
	memmove(lru + 1, lru, at * sizeof(*lru));
	lru[0] = id;
	return depth;
}

/* With the engine's size for a horizon it says of nine blocks in ten whether an LRU cache has them. */
static void ages_are_depths_of_an_lru_cache(void **state) {
	struct prefix_index *ix = index_new(4 << 20, 1);
	static uint32_t lru[LRU_BLOCKS + 1];
	uint32_t n = 0, n_agree = 0, n_hits = 0, n_asked = 0;
	struct rng rng;

	rng_init(&rng, 4);
	prefix_index_learn(ix, 0, LRU_ROOM * BLOCK, false);
	for (unsigned step = 0; step < 60000; step++) {
		uint64_t u = rng_below(&rng, 1000000);
		uint32_t id = (uint32_t)(u * u / 1000000 * LRU_BLOCKS / 1000000); /* low ones are popular */
		uint64_t key = key_of(id);
		bool said = match(ix, 0, &key, 1).n_blocks == 1, is = lru_use(lru, &n, id) < LRU_ROOM;

		put_one(ix, 0, key);
		if (step < 10000)
			continue;
		n_asked++;
		n_agree += said == is;
		n_hits += is;
	}
	assert_in_range(n_hits, n_asked / 5, n_asked * 4 / 5); /* so neither answer alone would do */
	assert_true(n_agree >= n_asked * 9 / 10);
	prefix_index_free(&ix);
}

/* ---- threads ---- */

enum { N_THREADS = 4, N_SHARED_KEYS = 400 };

struct worker {
	struct prefix_index *ix;
	const uint64_t *keys;
	uint64_t seed;
	struct prefix_scan scan;
	uint64_t n_hits;
	bool is_wrong;
};

static void *worker_main(void *arg) {
	struct worker *w = arg;
	struct rng rng;

	rng_init(&rng, w->seed);
	for (unsigned step = 0; step < 20000; step++) {
		unsigned slot = (unsigned)rng_below(&rng, MODEL_SLOTS),
			 what = (unsigned)rng_below(&rng, 1000);
		size_t first = 20 * rng_below(&rng, N_SHARED_KEYS / 20), n = 1 + rng_below(&rng, 20);

		if (what == 0)
			prefix_index_forget(w->ix, slot);
		else if (what == 1)
			prefix_index_own(w->ix, slot, step / 1000 + 1);
		else if (what < 50)
			prefix_index_learn(w->ix, slot, (uint32_t)rng_below(&rng, 10000), what % 2);
		else if (what < 500)
			prefix_index_put(w->ix, slot, w->keys + first, n);
		if (step == 10000)
			prefix_index_widen(w->ix, MODEL_SLOTS);
		prefix_index_match(w->ix, w->keys + first, n, &w->scan);
		w->n_hits += w->scan.n_hits;
		w->is_wrong |= !scan_is_well_formed(&w->scan, n);
	}
	return NULL;
}

static void threads_do_not_disturb_each_other(void **state) {
	struct prefix_index *ix = index_new(4 * PREFIX_INDEX_BYTES_MIN, 4);
	static struct worker workers[N_THREADS];
	pthread_t threads[N_THREADS];
	uint64_t keys[N_SHARED_KEYS];

	keys_of(keys, 0, N_SHARED_KEYS);
	for (unsigned i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){ .ix = ix, .keys = keys, .seed = i };
		assert_int_equal(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(workers[i].is_wrong);
		assert_true(workers[i].n_hits > 20000);
	}
	for (size_t first = 0; first < N_SHARED_KEYS; first += 20) {
		prefix_index_put(ix, 1, keys + first, 1);
		assert_true(match(ix, 1, keys + first, 20).n_known >= 1);
	}
	prefix_index_free(&ix);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_with_room_knows_all),
		cmocka_unit_test(a_table_without_room_says_nothing_wrong),
		cmocka_unit_test(memory_is_what_was_given),
		cmocka_unit_test(a_run_ends_with_its_last_block),
		cmocka_unit_test(a_lost_block_shortens_a_run_at_most_to_it),
		cmocka_unit_test(each_run_has_its_own_ends),
		cmocka_unit_test(as_many_spans_as_runs),
		cmocka_unit_test(random_ends_of_a_long_prompt),
		cmocka_unit_test(the_end_of_a_prompt_ages_first),
		cmocka_unit_test(another_owner_knows_nothing),
		cmocka_unit_test(what_is_put_during_a_take_over_is_lost_or_ages),
		cmocka_unit_test(what_is_forgotten_stays_so),
		cmocka_unit_test(belief_ends_at_the_horizon),
		cmocka_unit_test(who_has_a_block_twice_is_not_doubted),
		cmocka_unit_test(the_horizon_follows_what_engines_say),
		cmocka_unit_test(widening_loses_nothing),
		cmocka_unit_test(what_is_not_in_its_place_is_not_seen),
		cmocka_unit_test(popular_blocks_have_room_as_the_fleet_grows),
		cmocka_unit_test(what_is_worth_least_goes_first),
		cmocka_unit_test(ages_are_right_when_the_clock_goes_round),
		cmocka_unit_test(a_stamp_ahead_of_the_clock_is_young),
		cmocka_unit_test(what_is_old_does_not_get_young_again),
		cmocka_unit_test(ages_are_depths_of_an_lru_cache),
		cmocka_unit_test(threads_do_not_disturb_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
