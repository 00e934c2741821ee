#include "base/slab.h"

#include <sys/mman.h>

#include "base/heap.h"
#include "base/poison.h"

struct slab_block {
	struct list link;
	struct slab *owner;
	void *free; /* singly linked through the objects' first word */
	uint32_t n_free;
	uint32_t n_fresh; /* objects behind these were never lent: their pages are untouched */
};

#define SLAB_HEADER_BYTES ((sizeof(struct slab_block) + 63) & ~(size_t)63)

static struct slab_block *slab_block_of(void *object) {
	return (struct slab_block *)((uintptr_t)object & ~(uintptr_t)(SLAB_BLOCK_BYTES - 1));
}

/* Maps a block aligned to its own size, so that an object finds its block by masking. */
static struct slab_block *slab_block_map(void) {
	char *p =
	    mmap(NULL, 2 * SLAB_BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(p != MAP_FAILED);
	char *at = (char *)(((uintptr_t)p + SLAB_BLOCK_BYTES - 1) & ~(uintptr_t)(SLAB_BLOCK_BYTES - 1));
	if (at > p)
		munmap(p, (size_t)(at - p));
	char *end = p + 2 * SLAB_BLOCK_BYTES;
	if (end > at + SLAB_BLOCK_BYTES)
		munmap(at + SLAB_BLOCK_BYTES, (size_t)(end - at) - SLAB_BLOCK_BYTES);
	heap_count_allocation();
	return (struct slab_block *)at;
}

static void slab_grow(struct slab *s) {
	struct slab_block *b = slab_block_map();
	list_init(&b->link);
	b->owner = s;
	b->n_free = s->n_per_block;
	list_push(&s->partial, &b->link);
	s->n_blocks++;
	s->n_empty++;
}

static void slab_block_unmap(struct slab *s, struct slab_block *b) {
	list_remove(&b->link);
	s->n_blocks--;
	s->n_empty--;
	poison_clear(b, SLAB_BLOCK_BYTES);
	munmap(b, SLAB_BLOCK_BYTES);
}

void slab_init(struct slab *s, size_t object_bytes) {
	object_bytes = (object_bytes + 15) & ~(size_t)15;
	assert(object_bytes <= SLAB_BLOCK_BYTES / 4);
	*s = (struct slab){ .object_bytes = (uint32_t)object_bytes };
	s->n_per_block = (uint32_t)((SLAB_BLOCK_BYTES - SLAB_HEADER_BYTES) / object_bytes);
	list_init(&s->partial);
	list_init(&s->full);
}

void slab_deinit(struct slab *s) {
	assert(s->n_lent == 0);
	list_each_safe (it, &s->partial)
		slab_block_unmap(s, container_of(it, struct slab_block, link));
	assert(s->n_blocks == 0);
}

void *slab_get(struct slab *s) {
	if (list_is_empty(&s->partial))
		slab_grow(s);
	struct slab_block *b = container_of(s->partial.next, struct slab_block, link);

	void *object = b->free;
	if (object) {
		poison_clear(object, s->object_bytes);
		memcpy(&b->free, object, sizeof(void *));
	} else {
		object = (char *)b + SLAB_HEADER_BYTES + (size_t)b->n_fresh++ * s->object_bytes;
	}
	if (b->n_free == s->n_per_block)
		s->n_empty--;
	if (--b->n_free == 0) {
		list_remove(&b->link);
		list_push(&s->full, &b->link);
	}
	s->n_lent++;
	return object;
}

void *slab_get_zeroed(struct slab *s) {
	return memset(slab_get(s), 0, s->object_bytes);
}

void slab_put(struct slab *s, void *object) {
	if (!object)
		return;
	struct slab_block *b = slab_block_of(object);
	assert(b->owner == s && b->n_free < s->n_per_block && s->n_lent > 0);

	memcpy(object, &b->free, sizeof(void *));
	poison_set(object, s->object_bytes);
	b->free = object;
	s->n_lent--;
	if (++b->n_free == 1) {
		list_remove(&b->link);
		list_push_front(&s->partial, &b->link);
	}
	if (b->n_free == s->n_per_block) {
		s->n_empty++;
		list_remove(&b->link); /* used last, so that it stays empty until the trim */
		list_push(&s->partial, &b->link);
	}
}

void slab_trim(struct slab *s) {
	list_each_safe (it, &s->partial) {
		struct slab_block *b = container_of(it, struct slab_block, link);
		if (s->n_empty > 1 && b->n_free == s->n_per_block)
			slab_block_unmap(s, b);
	}
}
