/*
 * virtual_router: one router over a fleet of its own mind: the snapshot, load and policy
 * that headrace router has, or the rule of another router by the name "vllm". It knows
 * what a router can know: what arrived, what it sent where, and what came back to it. A block of the trace
 * stands for PROMPT_BLOCK_BYTES of the prompt; as in the router, the policies see no block that is not full.
 *
 * Time is given, nothing is measured. Owns all but passages, which are the caller's, one
 * for each request, from arrival to done. One thread.
 */
#pragma once

#include "policy/ticket.h"
#include "sim/trace.h"

struct virtual_router;

struct virtual_router_options {
	const char *policy; /* one that virtual_router_knows() */
	uint32_t n_engines; /* at most VIRTUAL_ENGINES_MAX */
	uint32_t n_block_tokens;
	size_t index_bytes; /* of the prefix index; 0: none is kept */
	uint64_t seed;
};

#define VIRTUAL_ENGINES_MAX 1024

/* A request on its way; zero at first. */
struct passage {
	uint32_t engine;
	struct ticket ticket;
};

bool virtual_router_knows(struct slice policy);

/* NULL: the system has not the memory for the index. */
must_use struct virtual_router *virtual_router_new(const struct virtual_router_options *options);
void virtual_router_free(struct virtual_router **router);

/* A request arrives: chooses passage->engine. */
void virtual_router_arrive(struct virtual_router *router, struct passage *passage, const struct trace *trace,
    const struct trace_request *request, uint64_t now_ns);

/* What an engine says of its requests. */
void virtual_router_hear(
    struct virtual_router *router, uint32_t engine, uint32_t n_running, uint32_t n_waiting, uint64_t now_ns);

/* Its answer begins. */
void virtual_router_first_token(struct virtual_router *router, struct passage *passage, uint64_t now_ns);

/* Its answer is over, and this was said at its end; so is the passage. */
void virtual_router_done(
    struct virtual_router *router, struct passage *passage, const struct ticket_usage *usage);
