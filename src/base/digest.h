/*
 * digest: SHA-256 of short texts, and comparisons that tell nobody watching the time what they saw.
 *
 * By OpenSSL. A digester keeps what a digest needs, so that one costs no allocation and no lock;
 * it belongs to one thread at a time.
 */
#pragma once

#include "base/slice.h"

#define DIGEST_BYTES 32u

struct digester;

must_use struct digester *digester_new(void);
void digester_free(struct digester **digester); /* accepts NULL, clears */

void digester_sha256(struct digester *digester, struct slice text, uint8_t digest_out[static DIGEST_BYTES]);

/* In a time that depends on n alone. */
bool digest_is_equal(const void *a, const void *b, size_t n);

/* The same of texts: the time tells their lengths, and nothing of what stands in them. */
bool digest_is_same_text(struct slice a, struct slice b);

/* Overwrites what must not stay in memory. */
void digest_wipe(void *secret, size_t n);
