/*
 * split_params: where a prefill's answer, JSON that may be anything, has the parameters for the decode.
 *
 * Offsets are from the answer's first byte. Pure.
 */
#pragma once

#include "router/split_wire.h"

struct split_params {
	uint64_t at, n;         /* the object; n 0: there is none, or nothing in it for the decode */
	uint64_t cut_at, cut_n; /* within it: `transfer_mode` with its comma, which is not for the decode */
	bool is_push;
	struct {
		uint64_t at, n;
	} identity[4]; /* of a prefill that pushes: values, n 0: not there */
};

/* False: the answer is no JSON, as no whole answer of an engine is; there are no params then. */
bool split_params_read(struct split_params *p, const struct hold *answer);

/* What of it is for the decode, at most SPLIT_RANGES; without its first byte when another text takes its
 * place. Returns how many. There are params. */
unsigned split_params_ranges(
    const struct split_params *p, bool is_led, struct split_range ranges[static SPLIT_RANGES]);

/* How that prefill is reached from now on; texts go to `room`. False: it does not push, or does not say. */
must_use bool split_params_push(const struct split_params *p, const struct hold *answer,
    char room[static SPLIT_PUSH_BYTES], struct split_push *push_out);
