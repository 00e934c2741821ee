/*
 * verdict_table: what was said lately of clients' keys that are none of ours, for all threads.
 *
 * A table of a size that is set once: set-associative, by SHA-256 digest, which alone is kept of a key. One
 * thread writes, any number read without locks; a reader that meets the writer at an entry finds nothing.
 * Digests are compared whole, in a time that tells nothing of them.
 *
 * A verdict holds for its time. A good one is kept for the grace behind that, for the writer to fall back on.
 * What is over makes room first, then the oldest bad one; a bad verdict never takes the place of a good one
 * that is kept, so that whoever sends keys at random drives nobody out.
 *
 * Times are milliseconds of one clock that never goes back.
 */
#pragma once

#include "base/digest.h"

#define VERDICT_ENTRIES 16384u

enum verdict_found { VERDICT_UNKNOWN, VERDICT_GOOD, VERDICT_BAD };

struct verdict_times {
	uint64_t good_ms, bad_ms; /* 0: such ones are not kept */
	uint64_t grace_ms;        /* of good ones, behind that */
};

struct verdict_table;

/* About so many entries: rounded up to whole sets, a power of two. */
must_use struct verdict_table *verdict_table_new(size_t n_entries, const struct verdict_times *times);
void verdict_table_free(struct verdict_table **table); /* accepts NULL, clears */

/* Any thread. What holds now. */
enum verdict_found verdict_table_find(
    const struct verdict_table *table, const uint8_t digest[static DIGEST_BYTES], uint64_t now_ms);

/* --- for the one that writes ------------------------------------------------------------ */

/* So it is from now on. */
void verdict_table_put(
    struct verdict_table *table, const uint8_t digest[static DIGEST_BYTES], bool is_good, uint64_t now_ms);

/*
 * Nobody could say: a good verdict that is within its grace holds for so long more, but no longer than
 * the grace. False: there is none.
 */
must_use bool verdict_table_prolong(
    struct verdict_table *table, const uint8_t digest[static DIGEST_BYTES], uint64_t now_ms, uint64_t by_ms);

/* Verdicts that hold, counted one by one. */
size_t verdict_table_count(const struct verdict_table *table, uint64_t now_ms);
