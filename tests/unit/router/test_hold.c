#include "unit/unit.h"

#include "base/rng.h"
#include "router/hold.h"

enum { TEXT_BYTES = 1u << 20 };

static struct buf_budget budget;
static struct buf_pool pool;
static char text[TEXT_BYTES];

static int setup(void **state) {
	struct rng rng;
	rng_init(&rng, 1);
	for (size_t i = 0; i < TEXT_BYTES; i++)
		text[i] = (char)rng_next(&rng);
	budget = (struct buf_budget){ .max_bytes = 16u << 20 };
	buf_pool_init(&pool, &budget);
	return 0;
}

static int teardown(void **state) {
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

static uint64_t lent(void) {
	buf_pool_report(&pool);
	return budget.used_bytes;
}

/* The hold is the first n bytes of the text, taken at most n_max pieces at a time. */
static void assert_holds(const struct hold *h, size_t n, size_t n_max) {
	struct buf *at = h->first;
	size_t seen = 0;
	assert_int_equal(h->bytes, n);
	while (at) {
		struct piece pieces[8];
		size_t k = hold_pieces(&at, pieces, n_max);
		assert_in_range(k, 1, n_max);
		for (size_t i = 0; i < k; i++) {
			assert_true(seen + pieces[i].n <= n);
			assert_memory_equal(pieces[i].p, text + seen, pieces[i].n);
			assert_ptr_equal(pieces[i].p, pieces[i].owner->data);
			seen += pieces[i].n;
		}
	}
	assert_int_equal(seen, n);
}

static void bytes_come_back_in_order(void **state) {
	struct rng rng;
	rng_init(&rng, 2);
	for (unsigned round = 0; round < 30; round++) {
		struct hold h = { .bytes = 0 };
		size_t n = 0;
		while (n < TEXT_BYTES / 2) {
			struct piece pieces[3];
			for (size_t i = 0; i < 3; i++) {
				size_t part = rng_below(&rng, rng_below(&rng, 2) ? 300 : 60000);
				pieces[i] = (struct piece){ text + n, part, NULL };
				n += part;
			}
			assert_true(hold_append(&h, &pool, pieces, 3));
		}
		for (size_t n_max = 1; n_max <= 8; n_max++)
			assert_holds(&h, n, n_max);
		hold_free(&h, &pool);
		assert_null(h.first);
		assert_int_equal(h.bytes, 0);
		assert_int_equal(lent(), 0);
	}
}

static void nothing_is_nothing(void **state) {
	struct piece empty = { text, 0, NULL };
	struct hold h = { .bytes = 0 };
	assert_true(hold_append(&h, &pool, &empty, 1));
	assert_true(hold_append(&h, &pool, NULL, 0));
	assert_null(h.first);
	assert_int_equal(lent(), 0);
	hold_free(&h, &pool);
}

/* Small bodies cost little, large ones waste little: never more than twice what is held, and a small buf. */
static void it_takes_what_it_needs(void **state) {
	struct hold h = { .bytes = 0 };
	for (size_t n = 0; n < TEXT_BYTES; n += 997) {
		struct piece piece = { text + n, size_min(997, TEXT_BYTES - n), NULL };
		assert_true(hold_append(&h, &pool, &piece, 1));
		assert_true(lent() >= h.bytes && lent() <= 4 * h.bytes + 1024);
	}
	assert_holds(&h, TEXT_BYTES, 8);
	unsigned n_bufs = 0;
	for (const struct buf *b = h.first; b; b = b->next)
		n_bufs++;
	assert_in_range(n_bufs, 4, 16);
	hold_free(&h, &pool);
}

static void the_budget_is_its_limit(void **state) {
	struct hold h = { .bytes = 0 };
	struct piece piece = { text, TEXT_BYTES, NULL };
	budget.max_bytes = 300000;
	assert_false(hold_append(&h, &pool, &piece, 1));
	assert_true(h.bytes < TEXT_BYTES);
	assert_holds(&h, h.bytes, 8);
	assert_in_range(lent(), 300000, 300000 + BUF_BYTES_MAX);
	hold_free(&h, &pool);
	assert_int_equal(lent(), 0);
	budget.max_bytes = 16u << 20;
}

/* Who sends it may keep references longer than the hold lives. */
static void what_is_referenced_stays(void **state) {
	struct hold h = { .bytes = 0 };
	struct piece piece = { text, 5000, NULL }, out;
	assert_true(hold_append(&h, &pool, &piece, 1));
	struct buf *at = h.first;
	assert_int_equal(hold_pieces(&at, &out, 1), 1);
	assert_null(at);
	struct buf *kept = buf_ref(out.owner);
	hold_free(&h, &pool);
	assert_memory_equal(out.p, text, out.n);
	assert_true(lent() >= 5000);
	buf_unref(&pool, &kept);
	assert_int_equal(lent(), 0);
}

static void what_was_read_is_held_beyond_the_budget(void **state) {
	struct hold h = { .bytes = 0 };
	struct piece piece = { text, 300000, NULL };
	budget.max_bytes = 1000;
	hold_append_forced(&h, &pool, &piece, 1);
	assert_holds(&h, 300000, 8);
	budget.max_bytes = 16u << 20;
	hold_free(&h, &pool);
	assert_int_equal(lent(), 0);
}

/* Over the borders of its bufs. */
static void white_space_is_found_everywhere(void **state) {
	static char blank[100000];
	struct hold h = { .bytes = 0 };
	struct piece pieces[] = { { blank, 100, NULL }, { blank + 100, sizeof(blank) - 100, NULL } };

	for (size_t i = 0; i < sizeof(blank); i++)
		blank[i] = " \t\r\n"[i % 4];
	blank[70000] = '{';
	assert_true(hold_append(&h, &pool, &pieces[0], 1) && hold_append(&h, &pool, &pieces[1], 1));
	assert_ptr_not_equal(h.first, h.last);
	assert_true(hold_is_blank(&h, 0, 70000));
	assert_false(hold_is_blank(&h, 0, 70001));
	assert_false(hold_is_blank(&h, 70000, 70001));
	assert_true(hold_is_blank(&h, 70001, sizeof(blank)));
	assert_true(hold_is_blank(&h, 70000, 70000));
	assert_int_equal(hold_skip_blank(&h, 0), 70000);
	assert_int_equal(hold_skip_blank(&h, 70000), 70000);
	assert_int_equal(hold_skip_blank(&h, 70001), sizeof(blank));
	assert_int_equal(hold_trim_blank(&h, sizeof(blank)), 70001);
	assert_int_equal(hold_trim_blank(&h, 70001), 70001);
	assert_int_equal(hold_trim_blank(&h, 70000), 0);
	hold_free(&h, &pool);
	assert_int_equal(lent(), 0);
}

/* Likewise. */
static void a_part_is_copied_from_anywhere(void **state) {
	struct hold h = { .bytes = 0 };
	struct piece pieces[] = { { text, 100, NULL }, { text + 100, 69900, NULL } };
	char room[70000];

	assert_true(hold_append(&h, &pool, &pieces[0], 1) && hold_append(&h, &pool, &pieces[1], 1));
	assert_ptr_not_equal(h.first, h.last);
	uint64_t border = h.first->used;
	for (uint64_t at = border - 2; at <= border + 2; at++)
		for (size_t n = 0; n <= 4; n++) {
			hold_copy(&h, at, n, room);
			assert_memory_equal(room, text + at, n);
		}
	hold_copy(&h, 0, sizeof(room), room);
	assert_memory_equal(room, text, sizeof(room));
	hold_copy(&h, sizeof(room), 0, room);
	hold_free(&h, &pool);
	assert_int_equal(lent(), 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_come_back_in_order),
		cmocka_unit_test(nothing_is_nothing),
		cmocka_unit_test(it_takes_what_it_needs),
		cmocka_unit_test(the_budget_is_its_limit),
		cmocka_unit_test(what_is_referenced_stays),
		cmocka_unit_test(what_was_read_is_held_beyond_the_budget),
		cmocka_unit_test(white_space_is_found_everywhere),
		cmocka_unit_test(a_part_is_copied_from_anywhere),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
