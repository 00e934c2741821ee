#include "unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/rng.h"
#include "router/verdict_table.h"

#define GOOD_MS  1000
#define BAD_MS   100
#define GRACE_MS 400

static const struct verdict_times times = { GOOD_MS, BAD_MS, GRACE_MS };

struct key {
	uint8_t digest[DIGEST_BYTES];
};

/* All in one set of any table: their first bytes are the same. */
static struct key near_key(unsigned n) {
	struct key key = { { 0 } };

	memcpy(key.digest + DIGEST_BYTES - sizeof(n), &n, sizeof(n));
	key.digest[9] = 1;
	return key;
}

static struct key random_key(struct rng *rng) {
	struct key key;

	for (size_t i = 0; i < DIGEST_BYTES; i += 8) {
		uint64_t word = rng_next(rng);

		memcpy(key.digest + i, &word, 8);
	}
	return key;
}

static enum verdict_found found(const struct verdict_table *t, struct key key, uint64_t now_ms) {
	return verdict_table_find(t, key.digest, now_ms);
}

static void put(struct verdict_table *t, struct key key, bool is_good, uint64_t now_ms) {
	verdict_table_put(t, key.digest, is_good, now_ms);
}

static void a_verdict_holds_for_its_time(void **state) {
	struct verdict_table *t = verdict_table_new(64, &times);
	struct key good = near_key(1), bad = near_key(2);

	assert_int_equal(found(t, good, 0), VERDICT_UNKNOWN);
	put(t, good, true, 5000);
	put(t, bad, false, 5000);
	assert_int_equal(found(t, good, 5000 + GOOD_MS - 1), VERDICT_GOOD);
	assert_int_equal(found(t, good, 5000 + GOOD_MS), VERDICT_UNKNOWN);
	assert_int_equal(found(t, bad, 5000 + BAD_MS - 1), VERDICT_BAD);
	assert_int_equal(found(t, bad, 5000 + BAD_MS), VERDICT_UNKNOWN);
	assert_int_equal(verdict_table_count(t, 5000), 2);
	assert_int_equal(verdict_table_count(t, 5000 + BAD_MS), 1);
	put(t, good, false, 5500); /* the last word counts */
	assert_int_equal(found(t, good, 5501), VERDICT_BAD);
	assert_int_equal(verdict_table_count(t, 5501), 1);
	verdict_table_free(&t);
	assert_null(t);
	verdict_table_free(&t);
}

static void every_bit_of_a_digest_counts(void **state) {
	struct verdict_table *t = verdict_table_new(64, &times);
	struct key key = near_key(7);

	put(t, key, true, 0);
	for (unsigned bit = 0; bit < 8 * DIGEST_BYTES; bit++) {
		struct key other = key;

		other.digest[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(found(t, other, 1), VERDICT_UNKNOWN);
	}
	assert_int_equal(found(t, key, 1), VERDICT_GOOD);
	verdict_table_free(&t);
}

static void what_is_not_to_be_kept_is_not(void **state) {
	static const struct verdict_times none = { .good_ms = 0 };
	struct verdict_table *t = verdict_table_new(64, &none);
	struct key key = near_key(1);

	put(t, key, true, 10);
	assert_int_equal(found(t, key, 10), VERDICT_UNKNOWN);
	assert_false(verdict_table_prolong(t, key.digest, 10, 5));
	put(t, key, false, 10);
	assert_int_equal(found(t, key, 10), VERDICT_UNKNOWN);
	verdict_table_free(&t);
}

static void a_good_one_is_prolonged_within_its_grace(void **state) {
	struct verdict_table *t = verdict_table_new(64, &times);
	struct key good = near_key(1), bad = near_key(2), unknown = near_key(3);

	put(t, good, true, 0);
	put(t, bad, false, 0);
	assert_false(verdict_table_prolong(t, unknown.digest, 50, 100));
	assert_false(verdict_table_prolong(t, bad.digest, 50, 100));
	assert_true(verdict_table_prolong(t, good.digest, GOOD_MS + 10, 100));
	assert_int_equal(found(t, good, GOOD_MS + 109), VERDICT_GOOD);
	assert_int_equal(found(t, good, GOOD_MS + 110), VERDICT_UNKNOWN);
	/* The grace is from when somebody said so, however often it is used. */
	assert_true(verdict_table_prolong(t, good.digest, GOOD_MS + GRACE_MS - 1, 100));
	assert_int_equal(found(t, good, GOOD_MS + GRACE_MS - 1), VERDICT_GOOD);
	assert_int_equal(found(t, good, GOOD_MS + GRACE_MS), VERDICT_UNKNOWN);
	assert_false(verdict_table_prolong(t, good.digest, GOOD_MS + GRACE_MS, 100));
	verdict_table_free(&t);
}

static void bad_ones_drive_no_good_one_out(void **state) {
	struct verdict_table *t = verdict_table_new(8, &times);

	for (unsigned i = 0; i < 4; i++)
		put(t, near_key(i), true, i);
	for (unsigned i = 100; i < 160; i++)
		put(t, near_key(i), false, i - 90);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(found(t, near_key(i), 110), VERDICT_GOOD);
	for (unsigned i = 156; i < 160; i++) /* the newest of the bad */
		assert_int_equal(found(t, near_key(i), 110), VERDICT_BAD);
	assert_int_equal(verdict_table_count(t, 110), 8);

	for (unsigned i = 4; i < 8; i++) /* good ones take the place of bad ones */
		put(t, near_key(i), true, 110 + i);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(found(t, near_key(i), 120), VERDICT_GOOD);
	put(t, near_key(100), false, 120);
	assert_int_equal(found(t, near_key(100), 120), VERDICT_UNKNOWN);
	put(t, near_key(8), true, 120); /* then the oldest goes */
	assert_int_equal(found(t, near_key(0), 120), VERDICT_UNKNOWN);
	for (unsigned i = 1; i < 9; i++)
		assert_int_equal(found(t, near_key(i), 120), VERDICT_GOOD);

	put(t, near_key(100), false, 4 + GOOD_MS); /* those in their grace stay, too, until that is over */
	assert_int_equal(found(t, near_key(100), 4 + GOOD_MS), VERDICT_UNKNOWN);
	put(t, near_key(100), false, 1 + GOOD_MS + GRACE_MS);
	assert_int_equal(found(t, near_key(100), 1 + GOOD_MS + GRACE_MS), VERDICT_BAD);
	verdict_table_free(&t);
}

static void it_never_grows(void **state) {
	struct verdict_table *t = verdict_table_new(1024, &times);
	struct rng rng;

	rng_init(&rng, 5);
	for (unsigned i = 0; i < 20000; i++)
		put(t, random_key(&rng), i & 1, 0);
	assert_in_range(verdict_table_count(t, 1), 900, 1024);
	verdict_table_free(&t);
}

/* --- one writes, others read ------------------------------------------------------------ */

#define ROUNDS 200000u

struct shared {
	struct verdict_table *table;
	_Atomic bool is_over;
};

/* What is read is of one entry: even keys are good, odd ones bad. */
static void *read_on(void *context) {
	struct shared *s = context;

	for (unsigned i = 0; !atomic_load(&s->is_over); i++) {
		unsigned n = i % 32;
		enum verdict_found verdict = found(s->table, near_key(n), 1);

		assert(verdict == VERDICT_UNKNOWN || verdict == (n & 1 ? VERDICT_BAD : VERDICT_GOOD));
	}
	return NULL;
}

static void readers_see_whole_entries(void **state) {
	static const struct verdict_times alike = { 10, 10, 0 };
	struct shared s = { .table = verdict_table_new(8, &alike) };
	pthread_t readers[2];
	struct rng rng;

	rng_init(&rng, 9);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_on, &s), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n = (unsigned)rng_below(&rng, 32);

		put(s.table, near_key(n), !(n & 1), i % 100 ? 0 : 1);
	}
	atomic_store(&s.is_over, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	verdict_table_free(&s.table);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_verdict_holds_for_its_time),
		cmocka_unit_test(every_bit_of_a_digest_counts),
		cmocka_unit_test(what_is_not_to_be_kept_is_not),
		cmocka_unit_test(a_good_one_is_prolonged_within_its_grace),
		cmocka_unit_test(bad_ones_drive_no_good_one_out),
		cmocka_unit_test(it_never_grows),
		cmocka_unit_test(readers_see_whole_entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
