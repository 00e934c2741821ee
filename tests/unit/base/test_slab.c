#include "unit/unit.h"

#include "base/heap.h"
#include "base/poison.h"
#include "base/rng.h"
#include "base/slab.h"

static jmp_buf broken;

/* Takes the place of the library's: a broken assertion comes back here. */
_Noreturn void panic_assert(const char *cond, const char *file, int line, const char *func) {
	longjmp(broken, 1);
}

static void objects_do_not_overlap(void **state) {
	static const size_t sizes[] = { 1, 16, 17, 48, 1024, 4096, 16320, SLAB_BLOCK_BYTES / 4 };
	for (size_t i = 0; i < n_elems(sizes); i++) {
		unsigned char *objects[300];
		struct slab s;
		slab_init(&s, sizes[i]);
		size_t n = size_min(n_elems(objects), 3 * s.n_per_block);
		for (size_t k = 0; k < n; k++) {
			objects[k] = slab_get(&s);
			assert_int_equal((uintptr_t)objects[k] % 16, 0);
			memset(objects[k], (int)k, sizes[i]);
		}
		assert_int_equal(s.n_lent, n);
		for (size_t k = 0; k < n; k++) {
			assert_int_equal(objects[k][0], k % 256);
			assert_int_equal(objects[k][sizes[i] - 1], k % 256);
			slab_put(&s, objects[k]);
		}
		slab_deinit(&s);
	}
}

static void what_came_back_is_lent_first(void **state) {
	struct slab s;
	slab_init(&s, 64);
	void *a = slab_get(&s), *b = slab_get(&s);
	slab_put(&s, a);
	slab_put(&s, b);
	assert_ptr_equal(slab_get(&s), b);
	assert_ptr_equal(slab_get(&s), a);
	slab_put(&s, a);
	slab_put(&s, NULL);
	slab_put(&s, b);
	slab_deinit(&s);
}

static void zeroed_means_zeroed(void **state) {
	static const char zero[100];
	struct slab s;
	slab_init(&s, sizeof(zero));
	void *a = slab_get(&s);
	memset(a, 0xff, sizeof(zero));
	slab_put(&s, a);
	assert_ptr_equal(slab_get_zeroed(&s), a);
	assert_memory_equal(a, zero, sizeof(zero));
	slab_put(&s, a);
	slab_deinit(&s);
}

/* Blocks of 15 objects of 4 KiB. */
static void empty_blocks_go_but_one(void **state) {
	struct slab s;
	void *objects[4][15];
	slab_init(&s, 4096);
	assert_int_equal(s.n_per_block, 15);
	uint64_t before = heap_allocations();
	for (size_t b = 0; b < 4; b++)
		for (size_t i = 0; i < 15; i++)
			objects[b][i] = slab_get(&s);
	assert_int_equal(heap_allocations() - before, 4);
	assert_int_equal(s.n_blocks, 4);
	assert_int_equal(s.n_empty, 0);

	slab_put(&s, objects[0][7]);
	for (size_t b = 1; b < 4; b++)
		for (size_t i = 0; i < 15; i++)
			slab_put(&s, objects[b][i]);
	assert_int_equal(s.n_empty, 3);
	assert_ptr_equal(slab_get(&s), objects[0][7]); /* empty blocks are used last, so that they can go */
	assert_int_equal(s.n_empty, 3);
	slab_trim(&s);
	assert_int_equal(s.n_blocks, 2);
	assert_int_equal(s.n_empty, 1);
	slab_trim(&s);
	assert_int_equal(s.n_blocks, 2);

	for (size_t i = 0; i < 15; i++)
		slab_put(&s, objects[0][i]);
	assert_int_equal(s.n_empty, 2);
	slab_trim(&s);
	assert_int_equal(s.n_blocks, 1);
	slab_deinit(&s);
	assert_int_equal(s.n_blocks, 0);
}

/* Random gets, puts and trims; every object must keep what was written into it. */
static void the_books_are_right(void **state) {
	enum { N = 600, N_STEPS = 40000 };
	static uint64_t *lent[N];
	struct slab s;
	struct rng rng;
	size_t n_lent = 0;

	slab_init(&s, 1500);
	rng_init(&rng, 1);
	for (unsigned step = 0; step < N_STEPS; step++) {
		size_t i = rng_below(&rng, step / 4000 % 2 ? N / 8 : N);
		if (lent[i]) {
			assert_int_equal(lent[i][0], i);
			assert_int_equal(lent[i][186], ~i);
			slab_put(&s, lent[i]);
			lent[i] = NULL;
			n_lent--;
		} else {
			lent[i] = slab_get(&s);
			lent[i][0] = i;
			lent[i][186] = ~i;
			n_lent++;
		}
		assert_int_equal(s.n_lent, n_lent);
		assert_true(s.n_blocks * s.n_per_block >= n_lent && s.n_empty <= s.n_blocks);
		if (rng_below(&rng, 100) == 0) {
			slab_trim(&s);
			assert_true(s.n_empty <= 1);
		}
	}
	for (size_t i = 0; i < N; i++)
		slab_put(&s, lent[i]);
	assert_int_equal(s.n_empty, s.n_blocks);
	slab_deinit(&s);
}

#ifdef POISON_WITH_ASAN
static void freed_memory_is_poisoned(void **state) {
	struct slab s;
	slab_init(&s, 64);
	char *a = slab_get(&s);
	assert_false(__asan_address_is_poisoned(a));
	slab_put(&s, a);
	assert_true(__asan_address_is_poisoned(a));
	assert_true(__asan_address_is_poisoned(a + 63));
	assert_ptr_equal(slab_get(&s), a);
	assert_null(__asan_region_is_poisoned(a, 64));
	slab_put(&s, a);
	slab_deinit(&s);
}
#endif

static void misuse_is_noticed(void **state) {
	struct slab s, other;
	slab_init(&s, 64);
	slab_init(&other, 64);
	void *volatile object = slab_get(&s);
	if (!setjmp(broken)) {
		slab_deinit(&s); /* an object is lent */
		fail();
	}
	if (!setjmp(broken)) {
		slab_put(&other, object);
		fail();
	}
	slab_put(&s, object);
	if (!setjmp(broken)) {
		slab_put(&s, object); /* nothing is lent */
		fail();
	}
	if (!setjmp(broken)) {
		slab_init(&other, SLAB_BLOCK_BYTES / 4 + 1);
		fail();
	}
	slab_deinit(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_do_not_overlap),
		cmocka_unit_test(what_came_back_is_lent_first),
		cmocka_unit_test(zeroed_means_zeroed),
		cmocka_unit_test(empty_blocks_go_but_one),
		cmocka_unit_test(the_books_are_right),
#ifdef POISON_WITH_ASAN
		cmocka_unit_test(freed_memory_is_poisoned),
#endif
		cmocka_unit_test(misuse_is_noticed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
