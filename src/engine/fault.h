/*
 * fault: failures on demand, in one grammar for --fault, POST /mock/faults and the
 * request header x-mock-fault.
 *
 *     hang_head        the request is taken, an answer never begins
 *     hang_stream:N    silence after N content events
 *     reset:N          TCP reset after N content events; 0: before the head
 *     garbage          bytes that are no HTTP in place of the answer, then the end
 *     status:503       this status in place of the answer
 *     crash            the process ends as if shot
 *     latency:250ms    so much later than otherwise
 *     health:fail      /health answers 503 (health:ok takes it back)
 *     fail_first:N     the failures above (not latency, health) meet the first N requests only
 *     fail_rate:0.1    they meet this share of the requests, chosen by the seed
 *
 * Several are joined by commas; "" and "none" are no fault. A gate without a failure
 * answers 500. Of several failures the earliest in the answer's life happens. A plain
 * answer has one content event: its head and the first half of its body.
 *
 * A plan is a value without pointers. A fault is an armed plan and its counters.
 * Reading is pure. One thread.
 */
#pragma once

#include "base/slice.h"

enum fault_kind {
	FAULT_HANG_HEAD,
	FAULT_HANG_STREAM,
	FAULT_RESET,
	FAULT_GARBAGE,
	FAULT_STATUS,
	FAULT_CRASH,
	FAULT_LATENCY,
	FAULT_HEALTH,
	FAULT_FAIL_FIRST,
	FAULT_FAIL_RATE,
	FAULT_N_KINDS,
	FAULT_NONE = FAULT_N_KINDS, /* in a verdict */
};

struct fault_plan {
	uint32_t present; /* bit 1 << kind */
	uint32_t
	    values[FAULT_N_KINDS]; /* events, status, milliseconds, requests, millionths; health: 1 is ok */
};

/* What happens to one request. */
struct fault_verdict {
	enum fault_kind kind; /* FAULT_NONE or one of the first six */
	uint32_t n_events;    /* FAULT_HANG_STREAM, FAULT_RESET */
	uint32_t status;      /* FAULT_STATUS */
	uint32_t latency_ms;
};

struct fault {
	struct fault_plan plan;
	uint64_t n_judged;
	uint64_t seed;
};

#define FAULT_TEXT_BYTES 256 /* room for any plan's text, or any message */

/* False with the end of a sentence in `message` ("unknown fault \"hang\""); *plan_out is then untouched. */
must_use bool fault_plan_parse(
    struct slice text, struct fault_plan *plan_out, char message[static FAULT_TEXT_BYTES]);

/* The plan in the grammar, "none" when it is empty. Returns `text`. */
const char *fault_plan_print(const struct fault_plan *plan, char text[static FAULT_TEXT_BYTES]);

bool fault_plan_has(const struct fault_plan *plan, enum fault_kind kind);
bool fault_plan_is_healthy(const struct fault_plan *plan);

bool fault_plan_is_equal(const struct fault_plan *a, const struct fault_plan *b);

/* Takes the plan and starts counting anew. */
void fault_arm(struct fault *f, const struct fault_plan *plan);

/* Counts one request and decides its fate. */
struct fault_verdict fault_judge(struct fault *f);

/* "reset", as in the grammar; for ledgers. */
const char *fault_name(enum fault_kind kind);
