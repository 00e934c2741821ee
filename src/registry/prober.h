/*
 * prober: asks what is registered for its health, again and again.
 *
 * Each target has its own moment, spread over the interval by chance and shifted a
 * little each time, so that many never come at once; at most PROBER_ACTIVE_MAX are
 * asked at a time, the others wait in line. Healthy is any 2xx in time. A url that we
 * cannot ask (no http) is nobody's fault: its health stays what it was. An address that may
 * not be asked, whatever name led to it, is as one where nobody is.
 *
 * One thread, the loop's. Results come from a job of the prober's own, never from
 * inside a call made to it.
 */
#pragma once

#define HASH_FUNCTION HASH_SAX /* the default one falls through its cases, which clang refuses */
#include <uthash.h>

#include "base/rng.h"
#include "http/origin.h"

#define PROBER_ACTIVE_MAX 64

struct prober;
typedef void (*prober_fn)(struct prober *p, struct slice name, bool is_healthy);
typedef bool (*prober_may_ask_fn)(struct prober *p, const struct sockaddr_storage *address);

struct prober {
	struct loop *loop;
	uint64_t interval_ms, timeout_ms;
	prober_fn on_result;
	prober_may_ask_fn may_ask;
	struct rng rng;
	struct probe *probes;       /* by name */
	struct list waiting, ended; /* struct probe */
	struct job job;
	unsigned n_active;
	uint64_t n_healthy, n_unhealthy; /* results so far */
};

/* interval_ms 0: only prober_ask() asks. */
void prober_init(struct prober *p, struct loop *loop, uint64_t interval_ms, uint64_t timeout_ms,
    prober_fn on_result, prober_may_ask_fn may_ask);
void prober_deinit(struct prober *p);

/* What a record says of where it is. */
struct prober_target {
	struct slice host, url;
	uint16_t port;
	bool is_openai; /* metadata.type: asked at the babysitter, port + 1, where there is such a port */
};

/* Registered or changed; copies what it needs. Does nothing when the target is the same. */
void prober_put(struct prober *p, struct slice name, const struct prober_target *target);
void prober_remove(struct prober *p, struct slice name);

/* Embed by value; list_remove(&wish->link) takes it back. */
struct prober_wish {
	struct list link;
	/* After on_result; also when the target is removed meanwhile. */
	void (*on_done)(struct prober_wish *wish, bool is_healthy);
};

/* Asks now, or waits for the answer that is under way. False: there is no such name. */
must_use bool prober_ask(struct prober *p, struct slice name, struct prober_wish *wish);

/* "http://host:port", or https where the record's url is; + what is in front of "/health"; in `url`. False:
 * it does not fit. For tests. */
#define PROBER_URL_MAX 512
must_use bool prober_target_url(const struct prober_target *target, char url[static PROBER_URL_MAX]);
