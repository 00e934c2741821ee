/*
 * vllm_report: our numbers under the names of vLLM's router, vllm_router_*, so that its dashboards fill.
 *
 * docs/api.md says what each means here. Control thread; reads what workers count, and what instances are.
 */
#pragma once

#include "router/worker.h"

/* What became of the fleet: of the control thread. */
struct vllm_turnover {
	uint64_t n_updates;          /* snapshots in which instances came or went */
	uint32_t n_added, n_removed; /* by the last of them */
};

/* `next` takes the place of `old`. */
void vllm_turnover_note(struct vllm_turnover *t, const struct snapshot *old, const struct snapshot *next);

/* All families, each with its HELP and TYPE; those with labels have rows for what has happened. The workers
 * have counts. */
void vllm_report_write(const struct router *router, const struct snapshot *snap,
    const struct vllm_turnover *turnover, FILE *out);
