#include "unit/unit.h"

#include "base/rng.h"
#include "router/prompt_chain.h"
#include "router/prompt_hash.h"
#include "router/scan_simd.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BLOCK PROMPT_BLOCK_BYTES

static struct buf_budget budget;
static struct buf_pool pool;
static char bytes[4 * BLOCK * PROMPT_BLOCKS_MAX / 3];
static uint64_t keys[PROMPT_BLOCKS_MAX + 1], others[PROMPT_BLOCKS_MAX + 1];

static int setup(void **state) {
	struct rng rng;
	rng_init(&rng, 1);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)rng_next(&rng);
	budget = (struct buf_budget){ .max_bytes = 1u << 20 };
	buf_pool_init(&pool, &budget);
	return 0;
}

static int teardown(void **state) {
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

/* One part, in pieces of `step` bytes that are gone afterwards; 0: of any size up to 3 blocks. */
static void put(struct prompt_chain *c, enum prompt_part_id part, struct slice text, size_t step) {
	static struct rng rng;
	if (!rng.s[0])
		rng_init(&rng, 7);
	prompt_chain_begin(c, part);
	while (text.n) {
		size_t n = size_min(step ? step : rng_below(&rng, 3 * BLOCK + 1), text.n);
		char *piece = malloc(n + !n);
		memcpy(piece, text.p, n);
		text = slice_skip(text, n);
		if (text.n)
			prompt_chain_feed(c, (struct slice){ piece, n });
		else
			prompt_chain_end(c, (struct slice){ piece, n });
		free(piece);
	}
	if (c->open)
		prompt_chain_end(c, text);
}

static uint32_t keys_of(struct slice tools, struct slice system, struct slice talk, uint64_t *out) {
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	if (tools.p)
		put(&c, PROMPT_TOOLS, tools, 0);
	if (system.p)
		put(&c, PROMPT_SYSTEM, system, 0);
	if (talk.p)
		put(&c, PROMPT_CONVERSATION, talk, 0);
	uint32_t n = prompt_chain_keys(&c, 1, out);
	prompt_chain_deinit(&c);
	return n;
}

static struct slice part_at(size_t at, size_t n) {
	assert_true(at + n <= sizeof(bytes));
	return (struct slice){ bytes + at, n };
}

static const struct slice none;

static void a_block_is_seeded_with_the_one_before(void **state) {
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	put(&c, PROMPT_CONVERSATION, part_at(0, 3 * BLOCK + 5), 0);
	uint64_t hash = 0;
	const uint64_t *hashes = (const uint64_t *)(c.buf->data + BLOCK);
	for (unsigned i = 0; i < 3; i++) {
		hash = XXH3_64bits_withSeed(bytes + i * BLOCK, BLOCK, hash);
		assert_true(hashes[i] == hash);
	}
	assert_true(c.parts[PROMPT_CONVERSATION].digest == XXH3_64bits_withSeed(bytes + 3 * BLOCK, 5, hash));
	assert_int_equal(prompt_chain_size(&c).bytes, 3 * BLOCK + 5);
	prompt_chain_deinit(&c);
}

static void all_processors_hash_alike(void **state) {
	uint64_t hash = 0;
	for (size_t at = 0; at < 1000; at++) {
		uint64_t any = prompt_hash_any(bytes + at, hash);
		if (scan_has_avx2())
			assert_true(prompt_hash_avx2(bytes + at, hash) == any);
		hash = any;
	}
}

static void cuts_do_not_matter(void **state) {
	static const size_t sizes[] = { 0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 7 * BLOCK + 99 };
	static const size_t steps[] = { 1, 2, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 64u << 10 };
	for (size_t i = 0; i < n_elems(sizes); i++) {
		uint32_t n = keys_of(part_at(0, sizes[i]), none, part_at(9, 3 * BLOCK), keys);
		assert_int_equal(n, sizes[i] / BLOCK + 3);
		for (size_t k = 0; k < n_elems(steps) + 20; k++) {
			struct prompt_chain c;
			size_t step = k < n_elems(steps) ? steps[k] : 0;
			prompt_chain_init(&c, &pool);
			put(&c, PROMPT_TOOLS, part_at(0, sizes[i]), step);
			put(&c, PROMPT_CONVERSATION, part_at(9, 3 * BLOCK), step);
			assert_int_equal(prompt_chain_keys(&c, 1, others), n);
			assert_memory_equal(keys, others, n * sizeof(*keys));
			prompt_chain_deinit(&c);
		}
	}
}

static void the_order_of_arrival_does_not_matter(void **state) {
	static const unsigned orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 },
		{ 2, 1, 0 } };
	const struct slice texts[] = { part_at(0, 2 * BLOCK + 1), part_at(5, 10), part_at(7, 5 * BLOCK) };
	uint32_t n = keys_of(texts[0], texts[1], texts[2], keys);
	assert_int_equal(n, 7);
	for (size_t i = 0; i < n_elems(orders); i++) {
		struct prompt_chain c;
		prompt_chain_init(&c, &pool);
		for (unsigned k = 0; k < 3; k++)
			put(&c, PROMPT_TOOLS + orders[i][k], texts[orders[i][k]], 0);
		assert_int_equal(prompt_chain_keys(&c, 1, others), n);
		assert_memory_equal(keys, others, n * sizeof(*keys));
		prompt_chain_deinit(&c);
	}
}

static uint32_t n_shared(uint32_t n_keys, uint32_t n_others) {
	uint32_t n = 0;
	while (n < n_keys && n < n_others && keys[n] == others[n])
		n++;
	for (uint32_t i = n; i < n_keys; i++)
		for (uint32_t k = n; k < n_others; k++)
			assert_true(keys[i] != others[k]);
	return n;
}

static void equal_beginnings_share_keys(void **state) {
	enum { TALK = 5 * BLOCK + 3 };
	struct slice tools = part_at(0, 3000), system = part_at(1, 100), talk = part_at(TALK, 10 * BLOCK);
	uint32_t n = keys_of(tools, system, talk, keys);
	assert_int_equal(n, 11);
	assert_int_equal(n_shared(n, keys_of(tools, system, part_at(TALK, 20 * BLOCK + 1), others)), 11);
	assert_int_equal(n_shared(n, keys_of(tools, system, part_at(TALK, 4 * BLOCK), others)), 5);
	for (size_t at = 0; at < talk.n; at += 1777) {
		bytes[TALK + at] ^= 1;
		assert_int_equal(n_shared(n, keys_of(tools, system, talk, others)), 1 + at / BLOCK);
		bytes[TALK + at] ^= 1;
	}
	/* The tail of an earlier part counts, too, and which part it is. */
	assert_int_equal(n_shared(n, keys_of(tools, part_at(1, 101), talk, others)), 1);
	assert_int_equal(n_shared(n, keys_of(tools, none, talk, others)), 1);
	assert_int_equal(n_shared(n, keys_of(part_at(0, 3001), system, talk, others)), 1);
	assert_int_equal(n_shared(n, keys_of(none, system, talk, others)), 0);
	n = keys_of(none, none, talk, keys);
	assert_int_equal(n_shared(n, keys_of(none, talk, none, others)), 0);
	assert_int_equal(n_shared(n, keys_of(none, part_at(0, 1), talk, others)), 0);
}

/* What says nothing is as if it were not there, and what was there stays. */
static void an_empty_part_is_none(void **state) {
	static const struct slice empty[] = { { "", 0 }, { "\"\"", 2 }, { "[]", 2 }, { "{}", 2 },
		{ "[ \n]", 4 }, { "{\t\r}", 4 } };
	static const struct slice full[] = { { "\" \"", 3 }, { "[0]", 3 }, { "[[]]", 4 }, { "{ 1 }", 5 },
		{ "0", 1 } };
	struct slice talk = part_at(0, 3 * BLOCK), tools = part_at(7, 2 * BLOCK + 9);
	uint32_t n = keys_of(none, none, talk, keys);
	for (size_t i = 0; i < n_elems(empty); i++)
		assert_int_equal(n_shared(n, keys_of(empty[i], empty[i], talk, others)), n);
	for (size_t i = 0; i < n_elems(full); i++)
		assert_int_equal(n_shared(n, keys_of(full[i], none, talk, others)), 0);
	n = keys_of(tools, none, talk, keys);
	for (size_t i = 0; i < n_elems(empty); i++)
		for (size_t step = 1; step < 4; step++) {
			struct prompt_chain c;
			prompt_chain_init(&c, &pool);
			put(&c, PROMPT_CONVERSATION, talk, 0);
			put(&c, PROMPT_TOOLS, tools, 0);
			put(&c, PROMPT_TOOLS, empty[i], step);
			assert_int_equal(prompt_chain_size(&c).bytes, talk.n + tools.n);
			assert_int_equal(prompt_chain_keys(&c, 1, others), n);
			assert_memory_equal(keys, others, n * sizeof(*keys));
			/* What was replaced is no part of what follows. */
			put(&c, PROMPT_SYSTEM, part_at(0, BLOCK), 0);
			assert_int_equal(prompt_chain_keys(&c, 1, others), n + 1);
			assert_memory_equal(keys, others, 2 * sizeof(*keys));
			prompt_chain_deinit(&c);
		}
}

static void salts_separate(void **state) {
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	put(&c, PROMPT_SYSTEM, part_at(0, 10 * BLOCK), 0);
	assert_int_equal(prompt_chain_keys(&c, 1, keys), 10);
	assert_int_equal(prompt_chain_keys(&c, 2, others), 10);
	assert_int_equal(n_shared(10, 10), 0);
	prompt_chain_deinit(&c);
}

/* What separates has no keys and is no prompt, but changes all keys, as long as it may be. */
static void spaces_separate(void **state) {
	static const size_t sizes[] = { 1, BLOCK, 5 * BLOCK + 1 };
	struct slice talk = part_at(0, 3 * BLOCK);
	uint32_t n = keys_of(none, none, talk, keys);
	for (unsigned part = 0; part < PROMPT_TOOLS; part++)
		for (size_t i = 0; i < n_elems(sizes); i++)
			for (unsigned is_late = 0; is_late < 2; is_late++) {
				struct prompt_chain c;
				prompt_chain_init(&c, &pool);
				if (!is_late)
					put(&c, part, part_at(0, sizes[i]), 0);
				put(&c, PROMPT_CONVERSATION, talk, 0);
				if (is_late)
					put(&c, part, part_at(0, sizes[i]), 0);
				assert_int_equal(prompt_chain_size(&c).bytes, talk.n);
				assert_int_equal(n_shared(n, prompt_chain_keys(&c, 1, others)), 0);
				assert_int_equal(prompt_chain_keys(&c, 1, others), n);
				prompt_chain_drop(&c, part);
				assert_int_equal(n_shared(n, prompt_chain_keys(&c, 1, others)), n);
				prompt_chain_deinit(&c);
			}
}

/* Too long to be told from others: nothing is shared then. */
static void a_cut_space_has_no_keys(void **state) {
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	put(&c, PROMPT_CONVERSATION, part_at(0, 3 * BLOCK), 0);
	put(&c, PROMPT_CACHE_SALT, part_at(0, (PROMPT_BLOCKS_MAX + 1) * BLOCK), 0);
	assert_int_equal(prompt_chain_keys(&c, 1, keys), 0);
	prompt_chain_deinit(&c);
}

static uint64_t whole_of(struct slice talk, struct slice tools, bool is_tools_first, uint64_t salt) {
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	if (is_tools_first)
		put(&c, PROMPT_TOOLS, tools, 0);
	put(&c, PROMPT_CONVERSATION, talk, 0);
	if (!is_tools_first && tools.n)
		put(&c, PROMPT_TOOLS, tools, 0);
	uint64_t whole = prompt_chain_whole(&c, salt);
	prompt_chain_deinit(&c);
	return whole;
}

static void a_small_prompt_has_a_key_as_a_whole(void **state) {
	uint64_t whole = whole_of(part_at(1, 40), part_at(2, 50), true, 1);
	assert_true(whole);
	assert_true(whole == whole_of(part_at(1, 40), part_at(2, 50), false, 1));
	assert_true(whole != whole_of(part_at(1, 41), part_at(2, 50), true, 1));
	assert_true(whole != whole_of(part_at(2, 50), part_at(1, 40), true, 1));
	assert_true(whole != whole_of(part_at(1, 40), none, false, 1));
	assert_true(whole != whole_of(part_at(1, 40), part_at(2, 50), true, 2));
	assert_true(whole_of(part_at(1, BLOCK - 1), none, false, 1));
	assert_false(whole_of(part_at(1, BLOCK), none, false, 1));
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	assert_false(prompt_chain_whole(&c, 1));
	prompt_chain_begin(&c, PROMPT_CONVERSATION);
	prompt_chain_feed(&c, part_at(1, 40));
	assert_false(prompt_chain_whole(&c, 1));
	prompt_chain_deinit(&c);
}

static void a_part_may_begin_again(void **state) {
	struct prompt_chain c;
	uint32_t n = keys_of(part_at(5, 3 * BLOCK), part_at(1, 2 * BLOCK), none, keys);
	prompt_chain_init(&c, &pool);
	put(&c, PROMPT_TOOLS, part_at(0, 9 * BLOCK), 0);
	put(&c, PROMPT_SYSTEM, part_at(0, 9 * BLOCK), 0);
	put(&c, PROMPT_SYSTEM, part_at(1, 2 * BLOCK), 0);
	put(&c, PROMPT_CONVERSATION, part_at(1, 2 * BLOCK), 0);
	put(&c, PROMPT_TOOLS, part_at(5, 3 * BLOCK), 0);
	prompt_chain_drop(&c, PROMPT_CONVERSATION);
	assert_int_equal(prompt_chain_size(&c).bytes, 5 * BLOCK);
	assert_int_equal(prompt_chain_keys(&c, 1, others), n);
	assert_memory_equal(keys, others, n * sizeof(*keys));
	/* One that is open is given up for the next. */
	prompt_chain_begin(&c, PROMPT_CONVERSATION);
	prompt_chain_feed(&c, part_at(0, 3000));
	put(&c, PROMPT_TOOLS, part_at(5, 3 * BLOCK), 0);
	assert_int_equal(prompt_chain_keys(&c, 1, others), n);
	assert_memory_equal(keys, others, n * sizeof(*keys));
	prompt_chain_deinit(&c);
}

/* Nothing grows without end, however often it begins. */
static void what_begins_again_and_again_is_bounded(void **state) {
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	for (unsigned i = 0; i < 3000; i++)
		put(&c, i % 2 ? PROMPT_TOOLS : PROMPT_SYSTEM, part_at(0, 9 * BLOCK), 64u << 10);
	assert_true(c.buf->size <= 64u << 10);
	assert_true(c.parts[PROMPT_TOOLS].is_cut);
	prompt_chain_deinit(&c);
}

static void an_open_part_has_the_last_keys(void **state) {
	struct prompt_chain c;
	uint32_t n = keys_of(part_at(0, 5 * BLOCK), none, none, keys);
	prompt_chain_init(&c, &pool);
	put(&c, PROMPT_CONVERSATION, part_at(0, 9 * BLOCK), 0);
	prompt_chain_begin(&c, PROMPT_TOOLS);
	prompt_chain_feed(&c, part_at(0, 5 * BLOCK + 100));
	assert_int_equal(prompt_chain_keys(&c, 1, others), n);
	assert_memory_equal(keys, others, n * sizeof(*keys));
	prompt_chain_deinit(&c);
}

static void there_are_so_many_keys_at_most(void **state) {
	struct prompt_chain c;
	uint32_t n = keys_of(none, none, part_at(0, sizeof(bytes)), keys);
	assert_int_equal(n, PROMPT_BLOCKS_MAX);
	prompt_chain_init(&c, &pool);
	put(&c, PROMPT_CONVERSATION, part_at(0, sizeof(bytes)), 0);
	put(&c, PROMPT_TOOLS, part_at(0, PROMPT_BLOCKS_MAX * BLOCK / 2 + 1), 0);
	assert_int_equal(prompt_chain_size(&c).bytes, sizeof(bytes) + PROMPT_BLOCKS_MAX * BLOCK / 2 + 1);
	others[PROMPT_BLOCKS_MAX] = 77;
	assert_int_equal(prompt_chain_keys(&c, 1, others), PROMPT_BLOCKS_MAX);
	assert_int_equal(others[PROMPT_BLOCKS_MAX], 77);
	prompt_chain_deinit(&c);
}

static void without_memory_the_keys_end(void **state) {
	uint32_t n = keys_of(part_at(0, 2000 * BLOCK), none, part_at(1, 9 * BLOCK), keys);
	assert_int_equal(n, 2009);
	for (size_t n_before = 0; n_before < 2000; n_before += 500) {
		struct prompt_chain c;
		prompt_chain_init(&c, &pool);
		put(&c, PROMPT_CONVERSATION, part_at(1, n_before ? 9 * BLOCK : 0), 0);
		prompt_chain_begin(&c, PROMPT_TOOLS);
		prompt_chain_feed(&c, part_at(0, n_before * BLOCK));
		budget.max_bytes = 0;
		prompt_chain_feed(&c, part_at(n_before * BLOCK, (2000 - n_before) * BLOCK + 9));
		assert_true(prompt_chain_end(&c, part_at(0, 1)));
		budget.max_bytes = 1u << 20;
		uint32_t n_got = prompt_chain_keys(&c, 1, others);
		assert_true(n_before ? n_got >= n_before && n_got < 2000 : n_got == 0);
		assert_memory_equal(keys, others, n_got * sizeof(*keys));
		assert_true(prompt_chain_size(&c).bytes >= 2000 * BLOCK + 10);
		prompt_chain_deinit(&c);
	}
}

/* What is whole in one piece needs no memory of ours. */
static void a_small_prompt_lends_nothing(void **state) {
	struct prompt_chain c;
	prompt_chain_init(&c, &pool);
	put(&c, PROMPT_TOOLS, part_at(0, BLOCK - 1), BLOCK);
	put(&c, PROMPT_CONVERSATION, part_at(0, 300), BLOCK);
	assert_null(c.buf);
	assert_int_equal(prompt_chain_keys(&c, 1, keys), 0);
	prompt_chain_deinit(&c);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_is_seeded_with_the_one_before),
		cmocka_unit_test(all_processors_hash_alike),
		cmocka_unit_test(cuts_do_not_matter),
		cmocka_unit_test(the_order_of_arrival_does_not_matter),
		cmocka_unit_test(equal_beginnings_share_keys),
		cmocka_unit_test(an_empty_part_is_none),
		cmocka_unit_test(salts_separate),
		cmocka_unit_test(spaces_separate),
		cmocka_unit_test(a_cut_space_has_no_keys),
		cmocka_unit_test(a_part_may_begin_again),
		cmocka_unit_test(what_begins_again_and_again_is_bounded),
		cmocka_unit_test(an_open_part_has_the_last_keys),
		cmocka_unit_test(there_are_so_many_keys_at_most),
		cmocka_unit_test(without_memory_the_keys_end),
		cmocka_unit_test(a_small_prompt_lends_nothing),
		cmocka_unit_test(a_small_prompt_has_a_key_as_a_whole),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
