#include "sim/trace.h"

#include <stdlib.h>
#include <string.h>

#define LAST_GROUP_NS 3000000000ull

void trace_init(struct trace *trace) {
	*trace = (struct trace){ .n = 0 };
}

void trace_deinit(struct trace *trace) {
	free(trace->requests);
	free(trace->blocks);
	trace_init(trace);
}

void trace_add(struct trace *trace, const struct trace_request *request, const uint64_t *blocks) {
	if (trace->n == trace->room) {
		trace->room = trace->room ? 2 * trace->room : 1024;
		trace->requests = realloc(trace->requests, trace->room * sizeof(*trace->requests));
	}
	while (trace->room_blocks - trace->n_blocks < request->n_blocks) {
		trace->room_blocks = trace->room_blocks ? 2 * trace->room_blocks : 16384;
		trace->blocks = realloc(trace->blocks, trace->room_blocks * sizeof(*trace->blocks));
	}
	struct trace_request *own = &trace->requests[trace->n];
	*own = *request;
	own->row = trace->n++;
	own->first_block = trace->n_blocks;
	if (request->n_blocks)
		memcpy(trace->blocks + trace->n_blocks, blocks, request->n_blocks * sizeof(*blocks));
	trace->n_blocks += request->n_blocks;
}

static int compare(const void *a, const void *b) {
	const struct trace_request *x = a, *y = b;

	if (x->at_ns != y->at_ns)
		return x->at_ns < y->at_ns ? -1 : 1;
	return (x->row > y->row) - (x->row < y->row);
}

static bool is_sorted(const struct trace *trace) {
	for (size_t i = 1; i < trace->n; i++)
		if (trace->requests[i].at_ns < trace->requests[i - 1].at_ns)
			return false;
	return true;
}

/* The requests from `begin` to `end` have one time. */
static void spread(struct trace_request *requests, size_t begin, size_t end, uint64_t gap_ns) {
	for (size_t i = begin; i < end; i++)
		requests[i].at_ns += (uint64_t)((unsigned __int128)gap_ns * (i - begin) / (end - begin));
}

void trace_finish(struct trace *trace, double speed) {
	struct trace_request *requests = trace->requests;

	assert(trace->n > 0 && speed > 0);
	if (!is_sorted(trace))
		qsort(requests, trace->n, sizeof(*requests), compare);
	uint64_t start_ns = requests[0].at_ns;
	for (size_t begin = 0, end; begin < trace->n; begin = end) {
		uint64_t at_ns = requests[begin].at_ns;

		for (end = begin; end < trace->n && requests[end].at_ns == at_ns; end++)
			requests[end].at_ns -= start_ns;
		spread(requests, begin, end, end < trace->n ? requests[end].at_ns - at_ns : LAST_GROUP_NS);
	}
	for (size_t i = 0; i < trace->n; i++)
		requests[i].at_ns = (uint64_t)((double)requests[i].at_ns / speed);
}
