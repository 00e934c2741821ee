#include "base/buf.h"

#include "base/poison.h"

#define BUF_N_SMALL    3
#define BUF_WHOLE      BUF_N_CLASSES /* the class of those of any size */
#define BUF_SPARES_MAX 4
#define REPORT_BYTES   65536

static const uint32_t class_bytes[BUF_N_CLASSES] = { 1024, 4096, 16320, 65536, BUF_BYTES_MAX };

void buf_pool_init(struct buf_pool *p, struct buf_budget *budget) {
	*p = (struct buf_pool){ .budget = budget };
	for (unsigned i = 0; i < BUF_N_SMALL; i++)
		slab_init(&p->slabs[i], class_bytes[i]);
}

static void buf_spares_free(struct buf_pool *p, unsigned i) {
	while (p->spares[i]) {
		struct buf *b = p->spares[i];
		p->spares[i] = b->next;
		poison_clear(b, class_bytes[BUF_N_SMALL + i]);
		free(b);
	}
	p->n_spares[i] = 0;
}

void buf_pool_report(struct buf_pool *p) {
	atomic_fetch_add_explicit(
	    &p->budget->used_bytes, (uint64_t)p->unreported_bytes, memory_order_relaxed);
	p->unreported_bytes = 0;
}

static void buf_account(struct buf_pool *p, int64_t bytes) {
	p->unreported_bytes += bytes;
	if (p->unreported_bytes >= REPORT_BYTES || p->unreported_bytes <= -REPORT_BYTES)
		buf_pool_report(p);
}

void buf_pool_deinit(struct buf_pool *p) {
	buf_pool_report(p);
	for (unsigned i = 0; i < BUF_N_SMALL; i++)
		slab_deinit(&p->slabs[i]);
	for (unsigned i = 0; i < BUF_N_CLASSES - BUF_N_SMALL; i++)
		buf_spares_free(p, i);
}

void buf_pool_trim(struct buf_pool *p) {
	buf_pool_report(p);
	for (unsigned i = 0; i < BUF_N_SMALL; i++)
		slab_trim(&p->slabs[i]);
	for (unsigned i = 0; i < BUF_N_CLASSES - BUF_N_SMALL; i++)
		buf_spares_free(p, i);
}

static struct buf *buf_take(struct buf_pool *p, unsigned class) {
	if (class < BUF_N_SMALL)
		return slab_get(&p->slabs[class]);
	unsigned i = class - BUF_N_SMALL;
	struct buf *b = p->spares[i];
	if (!b)
		return malloc(class_bytes[class]);
	p->spares[i] = b->next;
	p->n_spares[i]--;
	poison_clear(b, class_bytes[class]);
	return b;
}

static size_t buf_bytes(const struct buf *b) {
	return sizeof(*b) + b->size;
}

static void buf_give_back(struct buf_pool *p, struct buf *b) {
	if (b->class == BUF_WHOLE) {
		free(b);
		return;
	}
	if (b->class < BUF_N_SMALL) {
		slab_put(&p->slabs[b->class], b);
		return;
	}
	unsigned i = b->class - BUF_N_SMALL;
	if (p->n_spares[i] == BUF_SPARES_MAX) {
		free(b);
		return;
	}
	b->next = p->spares[i];
	p->spares[i] = b;
	p->n_spares[i]++;
	poison_set(b->data, b->size);
}

struct buf *buf_new_forced(struct buf_pool *p, size_t want) {
	unsigned class = 0;
	while (class < BUF_N_CLASSES - 1 && class_bytes[class] - sizeof(struct buf) < want)
		class ++;
	buf_account(p, class_bytes[class]);
	struct buf *b = buf_take(p, class);
	*b = (struct buf){ .n_refs = 1, .class = class, .size = class_bytes[class] - (uint32_t)sizeof(*b) };
	return b;
}

struct buf *buf_new_whole(struct buf_pool *p, size_t n) {
	struct buf *b = malloc(sizeof(*b) + n);
	assert(n <= UINT32_MAX);
	*b = (struct buf){ .n_refs = 1, .class = BUF_WHOLE, .size = (uint32_t)n };
	buf_account(p, (int64_t)buf_bytes(b));
	return b;
}

struct buf *buf_new(struct buf_pool *p, size_t want) {
	return buf_is_over_budget(p) ? NULL : buf_new_forced(p, want);
}

struct buf *buf_ref(struct buf *b) {
	assert(b->n_refs > 0);
	b->n_refs++;
	return b;
}

void buf_unref(struct buf_pool *p, struct buf **bp) {
	struct buf *b = *bp;
	*bp = NULL;
	if (!b)
		return;
	assert(b->n_refs > 0);
	if (--b->n_refs > 0)
		return;
	buf_account(p, -(int64_t)buf_bytes(b));
	buf_give_back(p, b);
}

bool buf_is_over_budget(const struct buf_pool *p) {
	/* Other threads' unreported returns may make the sum negative for a moment. */
	int64_t used = (int64_t)atomic_load_explicit(&p->budget->used_bytes, memory_order_relaxed);
	return used + p->unreported_bytes >= (int64_t)p->budget->max_bytes;
}
