#include "router/split_breaker.h"

#include "base/mix.h"

/* A cell: 24 bits of the pair's name, 8 of its failures in a row, 32 of when it may be tried again. */
#define NAME_SHIFT 40
#define FAIL_SHIFT 32

static uint64_t name_of(uint64_t prefill, uint64_t decode) {
	return mix64(mix64(prefill) + decode);
}

static uint64_t cell_name(uint64_t name) {
	return name >> NAME_SHIFT | 1; /* never that of an empty cell */
}

static uint64_t read_cell(const struct split_breaker *b, uint64_t name) {
	uint64_t cell = atomic_load_explicit(&b->cells[name % SPLIT_BREAKER_CELLS], memory_order_relaxed);

	return cell >> NAME_SHIFT == cell_name(name) ? cell : 0;
}

bool split_breaker_is_open(const struct split_breaker *b, uint64_t prefill, uint64_t decode, uint64_t now_s) {
	uint64_t cell = read_cell(b, name_of(prefill, decode));

	return (uint8_t)(cell >> FAIL_SHIFT) >= SPLIT_BREAKER_FAILURES && now_s < (uint32_t)cell;
}

void split_breaker_fail(struct split_breaker *b, uint64_t prefill, uint64_t decode, uint64_t now_s) {
	uint64_t name = name_of(prefill, decode);
	uint64_t n = (uint8_t)(read_cell(b, name) >> FAIL_SHIFT);

	n = u64_min(n + 1, SPLIT_BREAKER_FAILURES);
	atomic_store_explicit(&b->cells[name % SPLIT_BREAKER_CELLS],
	    cell_name(name) << NAME_SHIFT | n << FAIL_SHIFT | (uint32_t)(now_s + SPLIT_BREAKER_REST_S),
	    memory_order_relaxed);
}

void split_breaker_succeed(struct split_breaker *b, uint64_t prefill, uint64_t decode) {
	uint64_t name = name_of(prefill, decode);

	if (read_cell(b, name))
		atomic_store_explicit(&b->cells[name % SPLIT_BREAKER_CELLS], 0, memory_order_relaxed);
}
