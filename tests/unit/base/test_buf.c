#include "unit/unit.h"

#include <jansson.h>

#include "base/buf.h"
#include "base/heap.h"

enum { HEADER = sizeof(struct buf) };

#define NO_LIMIT INT64_MAX

/* What the budget knows once the pool has reported. */
static uint64_t used_bytes(struct buf_pool *p) {
	buf_pool_report(p);
	return atomic_load(&p->budget->used_bytes);
}

static void a_buf_is_as_large_as_needed(void **state) {
	static const struct {
		size_t want, bytes;
	} rows[] = {
		{ 0, 1024 },
		{ 1024 - HEADER, 1024 },
		{ 1024 - HEADER + 1, 4096 },
		{ 4096 - HEADER, 4096 },
		{ 4096 - HEADER + 1, 16320 },
		{ 16320 - HEADER, 16320 },
		{ 16320 - HEADER + 1, 65536 },
		{ 65536 - HEADER, 65536 },
		{ 65536 - HEADER + 1, BUF_BYTES_MAX },
		{ BUF_BYTES_MAX - HEADER, BUF_BYTES_MAX },
		{ BUF_BYTES_MAX, BUF_BYTES_MAX },
		{ SIZE_MAX, BUF_BYTES_MAX },
	};
	struct buf_budget budget = { .max_bytes = 1u << 20 };
	struct buf_pool p;
	buf_pool_init(&p, &budget);
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct buf *b = buf_new(&p, rows[i].want);
		assert_int_equal(b->size, rows[i].bytes - HEADER);
		assert_int_equal(b->used, 0);
		assert_int_equal(buf_room(b), b->size);
		assert_int_equal(b->n_refs, 1);
		assert_null(b->next);
		assert_int_equal(used_bytes(&p), rows[i].bytes);
		memset(b->data, 1, b->size);
		buf_unref(&p, &b);
		assert_null(b);
		assert_int_equal(used_bytes(&p), 0);
	}
	buf_pool_deinit(&p);
}

static void the_last_reference_gives_back(void **state) {
	struct buf_budget budget = { .max_bytes = 1u << 20 };
	struct buf_pool p;
	buf_pool_init(&p, &budget);
	struct buf *a = buf_new(&p, 10), *b = buf_ref(a);
	assert_ptr_equal(a, b);
	assert_int_equal(used_bytes(&p), 1024);
	buf_unref(&p, &a);
	assert_int_equal(used_bytes(&p), 1024);
	b->data[b->used++] = 'x';
	buf_unref(&p, &b);
	assert_int_equal(used_bytes(&p), 0);
	buf_unref(&p, &b);
	buf_pool_deinit(&p);
}

static void one_budget_for_all_threads(void **state) {
	struct buf_budget budget = { .max_bytes = 131072 };
	struct buf_pool p, q;
	buf_pool_init(&p, &budget);
	buf_pool_init(&q, &budget);
	struct buf *a = buf_new(&p, 60000), *b = buf_new(&q, 60000);
	assert_true(buf_is_over_budget(&p));
	assert_null(buf_new(&p, 10));
	assert_null(buf_new(&q, 10));
	assert_int_equal(used_bytes(&p), 131072);

	struct buf *c = buf_new_forced(&p, 10);
	assert_int_equal(used_bytes(&p), 131072 + 1024);
	buf_unref(&q, &b);
	assert_false(buf_is_over_budget(&p));
	b = buf_new(&q, SIZE_MAX); /* the one that reaches the ceiling may pass it */
	assert_non_null(b);
	assert_true(buf_is_over_budget(&p));
	buf_unref(&p, &a);
	buf_unref(&q, &b);
	buf_unref(&p, &c);
	buf_pool_deinit(&p);
	buf_pool_deinit(&q);
	assert_int_equal(budget.used_bytes, 0);
}

/* Small ones that come and go leave the shared counter alone; a thread sees its own at once. */
static void a_thread_reports_in_steps(void **state) {
	struct buf_budget budget = { .max_bytes = 4096 };
	struct buf_pool p, q;
	struct buf *bufs[70];
	buf_pool_init(&p, &budget);
	buf_pool_init(&q, &budget);
	for (size_t i = 0; i < n_elems(bufs); i++) {
		bufs[i] = buf_new_forced(&p, 10);
		assert_int_equal(budget.used_bytes, i < 63 ? 0 : 65536);
		assert_int_equal(buf_is_over_budget(&p), i >= 3);
		assert_int_equal(buf_is_over_budget(&q), i >= 63);
	}
	assert_int_equal(p.unreported_bytes, 6 * 1024);
	for (size_t i = 0; i < n_elems(bufs); i++)
		buf_unref(&p, &bufs[i]);
	assert_int_equal(budget.used_bytes, 0);
	assert_int_equal(p.unreported_bytes, 0);

	bufs[0] = buf_new(&p, 10);
	buf_pool_trim(&p);
	assert_int_equal(budget.used_bytes, 1024);
	buf_unref(&p, &bufs[0]);
	buf_pool_deinit(&p);
	buf_pool_deinit(&q);
	assert_int_equal(budget.used_bytes, 0);
}

/* Of each large size four are kept until the trim; the heap is not asked again for them. */
static void large_ones_are_kept_for_a_while(void **state) {
	static const size_t sizes[] = { 60000, 250000 };
	for (size_t s = 0; s < n_elems(sizes); s++) {
		struct buf_budget budget = { .max_bytes = NO_LIMIT };
		struct buf_pool p;
		struct buf *bufs[6];
		buf_pool_init(&p, &budget);

		for (unsigned round = 0; round < 3; round++) {
			uint64_t before = heap_allocations();
			for (size_t i = 0; i < n_elems(bufs); i++) {
				bufs[i] = buf_new(&p, sizes[s]);
				memset(bufs[i]->data, (int)i, bufs[i]->size);
			}
			assert_int_equal(heap_allocations() - before, round == 1 ? 2 : 6);
			for (size_t i = 0; i < n_elems(bufs); i++)
				buf_unref(&p, &bufs[i]);
			if (round == 1)
				buf_pool_trim(&p);
		}
		buf_pool_deinit(&p);
	}
}

static void a_whole_one_is_as_large_as_wanted(void **state) {
	static const size_t sizes[] = { 0, 1, 1000, BUF_BYTES_MAX, 3 * BUF_BYTES_MAX + 1 };
	struct buf_budget budget = { .max_bytes = 1 };
	struct buf_pool p;
	buf_pool_init(&p, &budget);
	for (size_t i = 0; i < n_elems(sizes); i++) {
		struct buf *b = buf_new_whole(&p, sizes[i]), *other = buf_ref(b);
		assert_int_equal(buf_room(b), sizes[i]);
		assert_int_equal(used_bytes(&p), HEADER + sizes[i]);
		memset(b->data, 'x', sizes[i]);
		buf_unref(&p, &b);
		assert_int_equal(used_bytes(&p), HEADER + sizes[i]);
		buf_unref(&p, &other);
		assert_int_equal(used_bytes(&p), 0);
	}
	buf_pool_deinit(&p);
}

static void small_ones_cost_the_heap_nothing(void **state) {
	struct buf_budget budget = { .max_bytes = NO_LIMIT };
	struct buf_pool p;
	buf_pool_init(&p, &budget);
	struct buf *b = buf_new(&p, 4000);
	buf_unref(&p, &b);
	uint64_t before = heap_allocations();
	for (unsigned i = 0; i < 100; i++) {
		b = buf_new(&p, 4000);
		buf_unref(&p, &b);
		buf_pool_trim(&p);
	}
	assert_int_equal(heap_allocations(), before);
	buf_pool_deinit(&p);
}

static void the_heap_counts_what_is_taken(void **state) {
	heap_init();
	uint64_t before = heap_allocations();
	char *volatile p = malloc(10);
	p = realloc(p, 2000);
	char *volatile q = calloc(3, 5);
	assert_int_equal(q[14], 0);
	assert_int_equal(heap_allocations() - before, 3);
	free(p);
	free(q);
	json_t *json = json_string("counted"); /* at least its object and its text */
	assert_true(heap_allocations() - before >= 5);
	json_decref(json);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buf_is_as_large_as_needed),
		cmocka_unit_test(the_last_reference_gives_back),
		cmocka_unit_test(one_budget_for_all_threads),
		cmocka_unit_test(a_thread_reports_in_steps),
		cmocka_unit_test(large_ones_are_kept_for_a_while),
		cmocka_unit_test(a_whole_one_is_as_large_as_wanted),
		cmocka_unit_test(small_ones_cost_the_heap_nothing),
		cmocka_unit_test(the_heap_counts_what_is_taken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
