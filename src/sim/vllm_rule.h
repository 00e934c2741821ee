/*
 * vllm_rule: how the router of vLLM (policy cache_aware) would choose, for comparison.
 *
 * While the requests in flight are imbalanced (most - least > 64 and most > 1.5 x least)
 * the engine with the fewest gets the request, the first of equals. Otherwise the prompt
 * is looked up among all prompts so far: if more than 0.3 of it was seen before, the
 * engine whose prompt first went as far gets it, else the one with the fewest.
 *
 * That router keeps a radix tree of characters; here a node is a block of the trace and
 * belongs to the engine that made it, as there (the tenant last attached is the node's
 * creator, and stays it when a node is split). Left out: its limit of characters, of which
 * nothing is evicted here; engines come and go neither.
 */
#pragma once

#include "base/defs.h"

struct vllm_rule;

struct vllm_rule *vllm_rule_new(uint32_t n_engines);
void vllm_rule_free(struct vllm_rule **rule);

/* The engine for a prompt of these blocks; it is remembered to have gone there. `in_flight` is by engine. */
uint32_t vllm_rule_pick(
    struct vllm_rule *rule, const uint64_t *blocks, uint32_t n_blocks, const uint32_t *in_flight);
