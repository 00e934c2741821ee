#include "base/heap.h"

#include <jansson.h>

static _Thread_local uint64_t n_allocations;

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *old, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *old, size_t n);

void heap_count_allocation(void) {
	n_allocations++;
}

uint64_t heap_allocations(void) {
	return n_allocations;
}

static void *heap_checked(void *p, size_t n) {
	n_allocations++;
	assert(p || n == 0);
	return p;
}

void *__wrap_malloc(size_t n) {
	return heap_checked(__real_malloc(n), n);
}

void *__wrap_calloc(size_t count, size_t n) {
	return heap_checked(__real_calloc(count, n), count * n);
}

void *__wrap_realloc(void *old, size_t n) {
	return heap_checked(__real_realloc(old, n), n);
}

void heap_init(void) {
	json_set_alloc_funcs(malloc, free);
}
