/*
 * trace: the requests that a fleet got, or might have got, in the order of their arrival.
 *
 * What made it (a file, a generator) adds rows in any order and then calls
 * trace_finish(), after which the trace is immutable and every run reads the same one.
 * It owns its memory. One thread.
 */
#pragma once

#include "base/defs.h"

#define TRACE_TOKENS_MAX 100000000u /* of one request, in or out */

struct trace_request {
	uint64_t at_ns; /* after the first request; until trace_finish() from whatever start */
	uint32_t n_input_tokens, n_output_tokens;
	uint32_t n_blocks;
	size_t first_block; /* in the trace's blocks */
	size_t row;         /* in which it was added, from 0 */
	uint64_t session;   /* requests that belong together have the same; 0: not known */
};

/*
 * A block id stands for a block of prompt tokens and all before it: prompts that begin
 * with the same ids begin with the same tokens. A last block that is not full has an id, too.
 */
struct trace {
	struct trace_request *requests;
	uint64_t *blocks;
	size_t n, n_blocks;
	size_t room, room_blocks;
};

void trace_init(struct trace *trace);
void trace_deinit(struct trace *trace);

/* Copies the request and its `request->n_blocks` block ids; its first_block and row do not matter. */
void trace_add(struct trace *trace, const struct trace_request *request, const uint64_t *blocks);

/*
 * Sorts by time (equal ones stay in order), lets time begin at 0, spreads requests of
 * equal time evenly to the next time (the last ones over 3 s) and plays all of it `speed`
 * times as fast. The trace has requests.
 */
void trace_finish(struct trace *trace, double speed);

static inline const uint64_t *trace_blocks(const struct trace *trace, const struct trace_request *request) {
	return trace->blocks + request->first_block;
}
