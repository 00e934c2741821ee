/*
 * idleness: waits until an engine that gets no new work has finished what it has.
 *
 * Engines that count their requests are asked (vllm:num_requests_running and _waiting,
 * and what sglang and llama.cpp call them, at GET /metrics). Of all others the open
 * connections to their port are counted, which also holds for clients that merely keep
 * theirs open: hence a deadline. One thread, the loop's; on_done runs from the loop, once.
 */
#pragma once

#include <stdio.h>

#include "http/origin.h"

struct idleness {
	struct loop *loop;
	struct origin *origin; /* the engine, lent; NULL: it does not say, connections are counted */
	struct fetch fetch;
	struct timer timer;
	uint64_t until_ms;
	uint16_t port;
	unsigned n_idle; /* looks in a row that found nothing */
	bool is_asking;
	void (*on_done)(struct idleness *i, bool is_idle);
};

/* origin NULL: only connections are counted. */
void idleness_start(struct idleness *i, struct loop *loop, struct origin *origin, uint16_t port,
    uint64_t timeout_ms, void (*on_done)(struct idleness *i, bool is_idle));
void idleness_stop(struct idleness *i);

/* Requests at work or waiting, by an engine's metrics; -1: they do not say. */
int64_t idleness_count_requests(struct slice metrics);

/* Established connections whose local port it is, in a file like /proc/net/tcp. */
unsigned idleness_count_connections(FILE *table, uint16_t port);
