/*
 * flush: has all engines drop their prefix caches, and forgets what was known of these. Providers' are their
 * own.
 *
 * Each server is asked once, however many ranks it has: POST /flush_cache as SGLang has it and, where there
 * is no such thing, /reset_prefix_cache as vLLM does; FLUSH_AT_ONCE of them at a time, FLUSH_MS each. The
 * petition is answered when all have been asked: 200, or 500 when one of them did not do it.
 *
 * Control thread.
 */
#pragma once

#include "router/petition.h"
#include "router/report.h"

#define FLUSH_AT_ONCE 16u
#define FLUSH_MS      10000u

void flush_caches(struct report *report, struct petition *p);

/* The loop is about to end: nobody is asked any more. Petitions are left to petitions_close(). */
void flush_close(struct report *report);
