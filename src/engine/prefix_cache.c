/*
 * One array of entries, linked twice by index: from hash buckets into chains, and
 * into one ring in the order of use. Entry 0 is the head of that ring, so that its
 * `newer` is the oldest block and 0 ends a chain.
 */
#include "engine/prefix_cache.h"

struct entry {
	uint64_t key;
	uint32_t older, newer;
	uint32_t chain;
};

struct prefix_cache {
	uint32_t n_blocks, n_blocks_max;
	uint32_t bucket_mask;
	uint32_t *buckets;
	struct entry entries[];
};

struct prefix_cache *prefix_cache_new(uint32_t n_blocks_max) {
	assert(n_blocks_max < UINT32_MAX / 2);
	uint32_t n_buckets = 1;
	while (n_buckets < n_blocks_max)
		n_buckets *= 2;
	struct prefix_cache *c = calloc(1, sizeof(*c) + (n_blocks_max + 1ul) * sizeof(c->entries[0]));
	c->buckets = calloc(n_buckets, sizeof(c->buckets[0]));
	c->bucket_mask = n_buckets - 1;
	c->n_blocks_max = n_blocks_max;
	return c;
}

void prefix_cache_free(struct prefix_cache **cache) {
	if (*cache)
		free((*cache)->buckets);
	free(*cache);
	*cache = NULL;
}

/* Keys of a trace are small numbers: spread them before they choose a bucket. */
static uint32_t *bucket_of(const struct prefix_cache *c, uint64_t key) {
	return &c->buckets[(key * 0x9e3779b97f4a7c15ull >> 32) & c->bucket_mask];
}

static uint32_t find(const struct prefix_cache *c, uint64_t key) {
	uint32_t i = *bucket_of(c, key);
	while (i && c->entries[i].key != key)
		i = c->entries[i].chain;
	return i;
}

static void unlink_ring(struct prefix_cache *c, uint32_t i) {
	struct entry *e = &c->entries[i];
	c->entries[e->older].newer = e->newer;
	c->entries[e->newer].older = e->older;
}

static void link_newest(struct prefix_cache *c, uint32_t i) {
	struct entry *e = &c->entries[i], *head = &c->entries[0];
	e->older = head->older;
	e->newer = 0;
	c->entries[e->older].newer = i;
	head->older = i;
}

static uint32_t evict_oldest(struct prefix_cache *c) {
	uint32_t i = c->entries[0].newer;
	assert(i != 0);
	uint32_t *at = bucket_of(c, c->entries[i].key);
	while (*at != i)
		at = &c->entries[*at].chain;
	*at = c->entries[i].chain;
	unlink_ring(c, i);
	return i;
}

static void insert(struct prefix_cache *c, uint64_t key) {
	uint32_t i = c->n_blocks < c->n_blocks_max ? ++c->n_blocks : evict_oldest(c);
	uint32_t *bucket = bucket_of(c, key);
	c->entries[i].key = key;
	c->entries[i].chain = *bucket;
	*bucket = i;
	link_newest(c, i);
}

size_t prefix_cache_match(const struct prefix_cache *cache, const uint64_t *keys, size_t n_keys) {
	size_t n = 0;
	while (n < n_keys && find(cache, keys[n]))
		n++;
	return n;
}

void prefix_cache_touch(struct prefix_cache *cache, const uint64_t *keys, size_t n_keys) {
	if (cache->n_blocks_max == 0)
		return;
	for (size_t k = 0; k < n_keys; k++) {
		uint32_t i = find(cache, keys[k]);
		if (i) {
			unlink_ring(cache, i);
			link_newest(cache, i);
		} else {
			insert(cache, keys[k]);
		}
	}
}

void prefix_cache_clear(struct prefix_cache *cache) {
	memset(cache->buckets, 0, (cache->bucket_mask + 1ul) * sizeof(cache->buckets[0]));
	cache->entries[0] = (struct entry){ 0 };
	cache->n_blocks = 0;
}

uint32_t prefix_cache_n_blocks(const struct prefix_cache *cache) {
	return cache->n_blocks;
}
