/*
 * rank_field: X-data-parallel-rank, by which vLLM's and SGLang's servers are told which of their ranks a
 * request is for. The router says it to instances that are ranks; a client's own word counts with [router]
 * trust_rank_header alone. Pure.
 */
#pragma once

#include "base/cause.h"
#include "http/head.h"
#include "policy/demand.h"

/* Inline, for all fields of all requests ask. */
static inline bool rank_field_is(struct slice name) {
	return slice_is(name, SLICE("x-data-parallel-rank"));
}

/* What the head asks for. CAUSE_BAD_RANK: it is no rank, or is there twice. */
must_use enum cause rank_field_read(const struct head *head, struct rank_wish *wish_out);
