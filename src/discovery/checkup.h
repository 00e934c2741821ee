/*
 * checkup: asks one server once whether it is well.
 *
 * An engine is asked for /health, or another path, and, where there is no such thing, for /v1/models; any
 * answer below 500 is a sign of life, since keys and paths are not ours to judge; 503 with
 * retry-after says that it drains. A provider is asked for its models alone, and lives when it lists them, or
 * refuses our key or the rate. A babysitter is asked for its /health, on the same addresses, and drains
 * when its state is "draining"; what is not a babysitter has nothing to say. All addresses are tried before a
 * connect has failed.
 *
 * on_done runs once, on the loop's thread; the checkup may then be started again.
 */
#pragma once

#include "fleet/health_state.h"
#include "http/fetch.h"

enum checkup_kind { CHECKUP_ENGINE, CHECKUP_SITTER };

enum checkup_outcome {
	CHECKUP_GOOD,
	CHECKUP_BAD,     /* it says so, or does not answer as it should */
	CHECKUP_DRAINS,  /* it is well and takes no new work, as it says */
	CHECKUP_REFUSED, /* no address took the connection */
	CHECKUP_NOTHING, /* it is not what was looked for */
	CHECKUP_UNASKED, /* we could not: no verdict */
};

struct checkup;
typedef void (*checkup_fn)(struct checkup *c, enum checkup_outcome outcome, uint64_t took_us);

struct checkup {
	struct fetch fetch;
	struct loop *loop;
	checkup_fn on_done;
	enum checkup_kind kind;
	struct sockaddr_storage addresses[INSTANCE_ADDRESSES_MAX];
	uint32_t n_addresses, first, n_tried;
	struct slice path;   /* of an engine: what it is asked for first; the owner may set it */
	struct slice bearer; /* good until it is done; the spec is an instance's, likewise */
	const struct instance_spec *spec;
	const char *tls_host; /* likewise */
	uint64_t began_ns;
	bool is_second_path;
};

void checkup_init(
    struct checkup *c, struct loop *loop, enum checkup_kind kind, uint64_t timeout_ms, checkup_fn on_done);
void checkup_deinit(struct checkup *c);

static inline bool checkup_is_busy(const struct checkup *c) {
	return fetch_is_busy(&c->fetch);
}

/*
 * Not while it is busy. The addresses are the engine's, also for a babysitter, whose port
 * is the next one; n is not 0. May call on_done before it returns.
 */
void checkup_start(struct checkup *c, const struct instance *inst, const struct sockaddr_storage *addresses,
    uint32_t n, struct slice bearer);
