#include "router/prompt_chain.h"

#include "router/prompt_hash.h"
#include "router/scan_simd.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Of parts that are begun again the old hashes stay in the buf; a well-formed body does not do that. */
#define HASHES_MAX (3 * PROMPT_BLOCKS_MAX)

_Static_assert(PROMPT_BLOCK_BYTES + HASHES_MAX * sizeof(uint64_t) + sizeof(struct buf) <= BUF_BYTES_MAX,
    "all hashes have room in one buf");

void prompt_chain_init(struct prompt_chain *c, struct buf_pool *pool) {
	*c = (struct prompt_chain){ .pool = pool };
}

void prompt_chain_deinit(struct prompt_chain *c) {
	buf_unref(c->pool, &c->buf);
	*c = (struct prompt_chain){ .pool = c->pool };
}

static uint64_t *hashes_of(const struct prompt_chain *c) {
	return (uint64_t *)(c->buf->data + PROMPT_BLOCK_BYTES);
}

/* Room for n hashes behind the one for a block; at least twice what there was. */
static bool grow(struct prompt_chain *c, uint32_t n) {
	if (c->buf && PROMPT_BLOCK_BYTES + n * sizeof(uint64_t) <= c->buf->size)
		return true;
	size_t want = c->buf ? 2 * (size_t)c->buf->size : PROMPT_BLOCK_BYTES + sizeof(uint64_t);
	struct buf *larger = buf_new(c->pool, want);
	if (!larger)
		return false;
	if (c->buf)
		memcpy(larger->data, c->buf->data, PROMPT_BLOCK_BYTES + c->n_hashes * sizeof(uint64_t));
	buf_unref(c->pool, &c->buf);
	c->buf = larger;
	return true;
}

static void cut(struct prompt_chain *c) {
	c->open->is_cut = true;
	c->n_tail = 0;
}

void prompt_chain_drop(struct prompt_chain *c, enum prompt_part_id part) {
	struct prompt_part *it = &c->parts[part];
	if (it == c->open) {
		c->open = NULL;
		c->n_tail = 0;
	}
	if (it->first + it->n_hashes == c->n_hashes)
		c->n_hashes = it->first;
	*it = (struct prompt_part){ .first = c->n_hashes };
}

void prompt_chain_begin(struct prompt_chain *c, enum prompt_part_id part) {
	if (c->open)
		prompt_chain_drop(c, (enum prompt_part_id)(c->open - c->parts));
	c->before = c->parts[part];
	prompt_chain_drop(c, part);
	c->open = &c->parts[part];
}

/* All of a value: quotes or brackets, and at the most blanks in these. */
static bool is_empty(struct slice value) {
	if (value.n == 0 || (value.n == 2 && *value.p == '"'))
		return true;
	if (value.n < 2 || (*value.p != '[' && *value.p != '{'))
		return false;
	size_t n = 1;
	while (n < value.n - 1 && ascii_is_blank(value.p[n]))
		n++;
	return n == value.n - 1;
}

/* The open part is nothing. Since it has no hashes, those of the one that it replaced are still there. */
static void restore(struct prompt_chain *c) {
	const struct prompt_part *before = &c->before;
	assert(c->open->n_hashes == 0);
	*c->open = *before;
	c->n_hashes = (uint32_t)size_max(c->n_hashes, before->first + before->n_hashes);
}

/* A full block at p, which may be the room in the buf: hashed before that grows. False: the part is cut. */
static bool add_block(struct prompt_chain *c, const char *p) {
	struct prompt_part *part = c->open;
	uint64_t hash = scan_has_avx2() ? prompt_hash_avx2(p, part->hash) : prompt_hash_any(p, part->hash);
	bool has_room = part->n_hashes < PROMPT_BLOCKS_MAX && c->n_hashes < HASHES_MAX;
	if (!has_room || !grow(c, c->n_hashes + 1)) {
		cut(c);
		return false;
	}
	part->hash = hashes_of(c)[c->n_hashes++] = hash;
	part->n_hashes++;
	return true;
}

static enum prompt_shape shape_of_list(char c, bool is_nested) {
	if (c == '[' && !is_nested)
		return PROMPT_IN_LISTS;
	if (c == '"')
		return is_nested ? PROMPT_TEXTS : PROMPT_IN_TEXT;
	return c < '0' || c > '9' ? PROMPT_TEXT : is_nested ? PROMPT_IN_IDS : PROMPT_IDS;
}

/* The next byte of a part whose shape is not known yet. Several are those behind a comma, not those in a
 * list. */
static enum prompt_shape shape_after(enum prompt_shape shape, char c) {
	if (ascii_is_blank(c))
		return shape;
	switch (shape) {
	case PROMPT_AT_VALUE:
		return c == '[' ? PROMPT_IN_LIST : PROMPT_TEXT;
	case PROMPT_IN_LIST:
	case PROMPT_IN_LISTS:
		return shape_of_list(c, shape == PROMPT_IN_LISTS);
	case PROMPT_IN_TEXT:
		return c == '\\' ? PROMPT_IN_ESCAPE : c == '"' ? PROMPT_BEHIND_TEXT : PROMPT_IN_TEXT;
	case PROMPT_IN_ESCAPE:
		return PROMPT_IN_TEXT;
	case PROMPT_BEHIND_TEXT:
		return c == ',' ? PROMPT_TEXTS : PROMPT_TEXT;
	case PROMPT_IN_IDS:
		return c == ']' ? PROMPT_BEHIND_IDS : PROMPT_IN_IDS;
	case PROMPT_BEHIND_IDS:
		return c == ',' ? PROMPT_ID_LISTS : PROMPT_IDS;
	default:
		assert(false);
		return shape;
	}
}

/* The same of the bytes that tell it; returns those that are left. */
static struct slice find_shape(struct prompt_part *part, struct slice bytes) {
	while (part->shape < PROMPT_TEXT && bytes.n) {
		const char *end = bytes.p + bytes.n;
		const char *p = part->shape == PROMPT_IN_TEXT ? scan_span(bytes.p, end) : bytes.p;
		if (p < end) {
			part->shape = (uint8_t)shape_after((enum prompt_shape)part->shape, *p++);
			part->n_ids += part->n_ids
			    ? p[-1] == ','
			    : part->shape == PROMPT_IDS || part->shape == PROMPT_IN_IDS;
		}
		bytes = slice_skip(bytes, (size_t)(p - bytes.p));
	}
	return bytes;
}

/* So few at a time that a byte can count them: the compiler makes it 16 at once. */
static uint64_t count_commas(struct slice bytes) {
	uint64_t n = 0;
	while (bytes.n) {
		struct slice some = slice_head(bytes, UINT8_MAX - 15);
		uint8_t n_some = 0;
		for (size_t i = 0; i < some.n; i++)
			n_some += some.p[i] == ',';
		n += n_some;
		bytes = slice_skip(bytes, some.n);
	}
	return n;
}

/* Once for nearly all parts. */
static __attribute__((noinline)) void count_ids(struct prompt_part *part, struct slice bytes) {
	bytes = find_shape(part, bytes);
	if (part->n_ids)
		part->n_ids += count_commas(bytes);
}

/* Fills up the block that has begun. False: there is nothing to hash any more. */
static bool fill_tail(struct prompt_chain *c, struct slice *bytes) {
	if (!c->n_tail)
		return true;
	size_t n = size_min(PROMPT_BLOCK_BYTES - c->n_tail, bytes->n);
	memcpy(c->buf->data + c->n_tail, bytes->p, n);
	c->n_tail += (uint32_t)n;
	*bytes = slice_skip(*bytes, n);
	if (c->n_tail < PROMPT_BLOCK_BYTES)
		return true;
	c->n_tail = 0;
	return add_block(c, c->buf->data);
}

/* Hashes what is whole. What is left in *bytes is less than a block; none while one is in the buf. */
static bool add_blocks(struct prompt_chain *c, struct slice *bytes) {
	assert(c->open && !c->open->has_ended);
	c->open->bytes += bytes->n;
	if (unlikely(c->open->shape != PROMPT_TEXT))
		count_ids(c->open, *bytes);
	if (c->open->is_cut || !fill_tail(c, bytes))
		return false;
	for (; bytes->n >= PROMPT_BLOCK_BYTES; *bytes = slice_skip(*bytes, PROMPT_BLOCK_BYTES))
		if (!add_block(c, bytes->p))
			return false;
	assert(!c->n_tail || !bytes->n);
	return true;
}

void prompt_chain_feed(struct prompt_chain *c, struct slice bytes) {
	if (!add_blocks(c, &bytes) || !bytes.n)
		return;
	if (!grow(c, c->n_hashes)) {
		cut(c);
		return;
	}
	memcpy(c->buf->data, bytes.p, bytes.n);
	c->n_tail = (uint32_t)bytes.n;
}

bool prompt_chain_end(struct prompt_chain *c, struct slice bytes) {
	struct prompt_part *part = c->open;
	bool is_none = false;
	if (add_blocks(c, &bytes)) {
		struct slice tail = c->n_tail ? (struct slice){ c->buf->data, c->n_tail } : bytes;
		part->digest = XXH3_64bits_withSeed(tail.p, tail.n, part->hash);
		is_none = !part->n_hashes && is_empty(tail);
	}
	part->has_ended = true;
	if (is_none)
		restore(c);
	c->n_tail = 0;
	c->open = NULL;
	return !is_none;
}

struct prompt_size prompt_chain_size(const struct prompt_chain *c) {
	struct prompt_size size = { .bytes = 0 };
	for (unsigned i = PROMPT_TOOLS; i < PROMPT_PARTS; i++) {
		const struct prompt_part *part = &c->parts[i];
		size.bytes += part->bytes;
		size.n_ids += part->n_ids;
		size.id_bytes += part->n_ids ? part->bytes : 0;
		size.is_batch |= part->shape == PROMPT_TEXTS || part->shape == PROMPT_ID_LISTS;
	}
	return size;
}

uint32_t prompt_chain_keys(const struct prompt_chain *c, uint64_t salt, uint64_t *keys) {
	uint32_t n_keys = 0;
	for (unsigned i = 0; i < PROMPT_PARTS; i++) {
		const struct prompt_part *part = &c->parts[i];
		if (!part->has_ended && part != c->open)
			continue;
		salt = prompt_mix(salt + i + 1); /* equal bytes in another part are another prompt */
		uint32_t n_own = i < PROMPT_TOOLS ? 0 : part->n_hashes;
		uint32_t n = (uint32_t)size_min(n_own, PROMPT_BLOCKS_MAX - n_keys);
		for (uint32_t k = 0; k < n; k++)
			keys[n_keys + k] = prompt_mix(hashes_of(c)[part->first + k] ^ salt);
		n_keys += n;
		if (part->is_cut || part == c->open)
			break;
		salt = prompt_mix(salt ^ part->digest);
	}
	return n_keys;
}

uint64_t prompt_chain_whole(const struct prompt_chain *c, uint64_t salt) {
	uint64_t n_bytes = 0;
	if (c->open)
		return 0;
	for (unsigned i = 0; i < PROMPT_PARTS; i++) {
		const struct prompt_part *part = &c->parts[i];
		if (!part->has_ended)
			continue;
		if (part->is_cut || (i >= PROMPT_TOOLS && part->n_hashes))
			return 0;
		n_bytes += i < PROMPT_TOOLS ? 0 : part->bytes;
		salt = prompt_mix(prompt_mix(salt + i + 1) ^ part->digest);
	}
	return n_bytes ? salt : 0;
}
