#include "unit/unit.h"

#include "engine/prefix_cache.h"
#include "engine/random.h"

static void leading_blocks_are_found(void **state) {
	struct prefix_cache *c = prefix_cache_new(8);
	const uint64_t chat[] = { 11, 12, 13, 14 };
	const uint64_t fork[] = { 11, 12, 23, 14 };

	assert_int_equal(prefix_cache_match(c, chat, 4), 0);
	prefix_cache_touch(c, chat, 4);
	assert_int_equal(prefix_cache_match(c, chat, 4), 4);
	assert_int_equal(prefix_cache_match(c, fork, 4), 2); /* 14 is there, but not leading */
	assert_int_equal(prefix_cache_match(c, chat, 0), 0);
	assert_int_equal(prefix_cache_n_blocks(c), 4);
	prefix_cache_clear(c);
	assert_int_equal(prefix_cache_match(c, chat, 4), 0);
	assert_int_equal(prefix_cache_n_blocks(c), 0);
	prefix_cache_touch(c, fork, 4);
	assert_int_equal(prefix_cache_match(c, fork, 4), 4);
	prefix_cache_free(&c);
	assert_null(c);
}

static void the_least_recent_block_falls_out(void **state) {
	struct prefix_cache *c = prefix_cache_new(3);
	const uint64_t keys[] = { 1, 2, 3, 4 };

	prefix_cache_touch(c, keys, 3);
	prefix_cache_touch(c, keys, 1); /* renewed: 2 is the oldest now */
	prefix_cache_touch(c, keys + 3, 1);
	assert_int_equal(prefix_cache_match(c, keys, 1), 1);
	assert_int_equal(prefix_cache_match(c, keys + 1, 1), 0);
	assert_int_equal(prefix_cache_match(c, keys + 2, 2), 2);
	prefix_cache_free(&c);
}

static void a_chain_beyond_capacity_keeps_its_end(void **state) {
	struct prefix_cache *c = prefix_cache_new(2);
	const uint64_t keys[] = { 1, 2, 3 };
	prefix_cache_touch(c, keys, 3);
	assert_int_equal(prefix_cache_match(c, keys, 3), 0);
	assert_int_equal(prefix_cache_match(c, keys + 1, 2), 2);
	prefix_cache_free(&c);
}

static void no_capacity_remembers_nothing(void **state) {
	struct prefix_cache *c = prefix_cache_new(0);
	const uint64_t key = 1;
	prefix_cache_touch(c, &key, 1);
	assert_int_equal(prefix_cache_match(c, &key, 1), 0);
	prefix_cache_free(&c);
}

/* The same by an array in order of use, oldest first. */
struct naive {
	uint64_t keys[64];
	size_t n, n_max;
};

static size_t naive_find(const struct naive *m, uint64_t key) {
	size_t i = 0;
	while (i < m->n && m->keys[i] != key)
		i++;
	return i;
}

static void naive_touch(struct naive *m, uint64_t key) {
	size_t i = naive_find(m, key);
	if (i == m->n && m->n == m->n_max)
		i = 0;
	if (i < m->n) {
		memmove(m->keys + i, m->keys + i + 1, (m->n - i - 1) * sizeof(m->keys[0]));
		m->n--;
	}
	m->keys[m->n++] = key;
}

static void it_agrees_with_a_naive_model(void **state) {
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct naive model = { .n_max = 1 + random_nth(seed, 0) % 64 };
		struct prefix_cache *c = prefix_cache_new((uint32_t)model.n_max);
		for (uint64_t i = 1; i < 3000; i++) {
			uint64_t key = random_nth(seed, i) % 100 * 4096; /* low bits alike: chains */
			assert_int_equal(prefix_cache_match(c, &key, 1), naive_find(&model, key) < model.n);
			if (random_nth(~seed, i) % 4) {
				naive_touch(&model, key);
				prefix_cache_touch(c, &key, 1);
			}
			assert_int_equal(prefix_cache_n_blocks(c), model.n);
		}
		prefix_cache_free(&c);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leading_blocks_are_found),
		cmocka_unit_test(the_least_recent_block_falls_out),
		cmocka_unit_test(a_chain_beyond_capacity_keeps_its_end),
		cmocka_unit_test(no_capacity_remembers_nothing),
		cmocka_unit_test(it_agrees_with_a_naive_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
