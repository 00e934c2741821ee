/*
 * scan_simd: the kernels are one walk over blocks, compiled for three masks.
 *
 * A mask has one bit for each special byte of its block. Text that is dense in
 * escapes (source code, or \uXXXX as Python writes it) has many in one block:
 * the walk goes from bit to bit of one mask and starts no new block for each.
 */
#include "router/scan_simd.h"

#include <immintrin.h>

#include "router/scan_grammar.h"

#define inlined inline __attribute__((always_inline))
#define avx2    __attribute__((target("avx2")))

/* Bytes of the escape at p, or 0 when it is wrong or goes beyond `end`. */
static inlined size_t escape_bytes(const char *p, const char *end) {
	if (end - p < 2)
		return 0;
	uint8_t meaning = scan_escape[(uint8_t)p[1]];
	if (likely(meaning != 'u'))
		return meaning ? 2 : 0;
	if (end - p < 6)
		return 0;
	uint8_t digits = scan_hex[(uint8_t)p[2]] & scan_hex[(uint8_t)p[3]] & scan_hex[(uint8_t)p[4]] &
	    scan_hex[(uint8_t)p[5]];
	return digits & 16 ? 6 : 0;
}

typedef uint64_t (*mask_fn)(const char *p);

/*
 * Walks from *at over whole blocks of block_bytes. True: *at is the byte that ends
 * the walk. False: the rest behind *at is shorter than a block.
 */
static inlined bool walk(const char **at, const char *end, ptrdiff_t block_bytes, mask_fn mask_of) {
	const char *block = *at;
	while (end - block >= block_bytes) {
		const char *next = block + block_bytes;
		for (uint64_t mask = mask_of(block); mask;) {
			const char *p = block + __builtin_ctzll(mask);
			size_t n = *p == '\\' ? escape_bytes(p, end) : 0;
			if (n == 0) {
				*at = p;
				return true;
			}
			if (p + n >= next) {
				next = p + n;
				break;
			}
			mask &= UINT64_MAX << (p + n - block);
		}
		block = next;
	}
	*at = block;
	return false;
}

static inlined uint64_t mask_1(const char *p) {
	return scan_is_special(*p);
}

static inlined uint64_t mask_16(const char *p) {
	return scan_mask16(p);
}

static inlined uint64_t mask_64_sse2(const char *p) {
	return mask_16(p) | mask_16(p + 16) << 16 | mask_16(p + 32) << 32 | mask_16(p + 48) << 48;
}

static avx2 inlined __m256i specials_32(__m256i v) {
	__m256i quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('"'));
	__m256i backslash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\\'));
	__m256i control = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v);
	return _mm256_or_si256(_mm256_or_si256(quote, backslash), control);
}

static avx2 inlined uint64_t mask_64_avx2(const char *p) {
	__m256i low = specials_32(_mm256_loadu_si256((const __m256i *)p));
	__m256i high = specials_32(_mm256_loadu_si256((const __m256i *)(p + 32)));
	return (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

const char *scan_skip_sse2(const char *p, const char *end) {
	if (!walk(&p, end, 64, mask_64_sse2) && !walk(&p, end, 16, mask_16))
		walk(&p, end, 1, mask_1);
	return p;
}

avx2 const char *scan_skip_avx2(const char *p, const char *end) {
	if (!walk(&p, end, 64, mask_64_avx2) && !walk(&p, end, 16, mask_16))
		walk(&p, end, 1, mask_1);
	return p;
}

bool scan_has_avx2(void) {
	return __builtin_cpu_supports("avx2");
}
