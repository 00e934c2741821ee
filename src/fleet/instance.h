/*
 * instance: the runtime of one routable target, from its first record to its last user.
 *
 * An instance is counted: the fleet holds one reference and every snapshot that lists
 * it holds another, so what was learned about it outlives any snapshot. The last
 * unref, on whatever thread, frees it and gives its slot back. `spec` and `slot` never
 * change. Evidence is relaxed atomics that any thread may post; two threads that post
 * at once may lose one update, which costs a second of avoidance and nothing else.
 * Its state is not here: the control thread alone decides it (fleet/health_state.h), and
 * a snapshot's row carries it.
 */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>

#include "base/slice.h"
#include "fleet/breaker.h"
#include "fleet/learned.h"

/* Living instances in the process, and so the length of every array indexed by slot. */
#define INSTANCE_SLOTS_MAX 4096

/* Resolved addresses of one instance. */
#define INSTANCE_ADDRESSES_MAX 16

/* Weights are in thousandths: this is the weight 1, which is also the one of who names none. */
#define INSTANCE_WEIGHT_ONE 1000u

/* A share of this is the whole of an instance's weight. */
#define INSTANCE_SHARE_FULL 16u

#define INSTANCE_AVOID_MIN_MS 1000
#define INSTANCE_AVOID_MAX_MS 30000

/* The order matters: the first three take traffic, the last two are somebody's will. */
enum instance_state {
	INSTANCE_UNKNOWN, /* new, or no news for long */
	INSTANCE_READY,
	INSTANCE_DEGRADED,
	INSTANCE_UNHEALTHY,
	INSTANCE_DRAINING,
	INSTANCE_DISABLED,
};

#define INSTANCE_STATES 6

/* The word of enum instance_state that logs, metrics and endpoints use. */
const char *instance_state_text(enum instance_state state);

/* Health moves freely; what somebody drained or disabled comes back through unknown alone. */
bool instance_state_may_follow(enum instance_state from, enum instance_state to);

struct instance_spec {
	struct slice name;      /* label; unique within its source */
	struct slice url;       /* as configured; that of a rank ends in "@K" (fleet/rank.h) */
	struct slice authority; /* value of the Host header */
	struct slice host;      /* name or address to resolve, IPv6 without brackets */
	struct slice base;      /* path that stands in place of a leading /v1; empty: none does */
	struct slice key;       /* what it is shown as a bearer token; empty: nothing of its own */
	uint16_t port;
	uint16_t rank; /* data-parallel rank; 0 where there are none */
	bool has_rank;
	bool is_tls;
	bool is_provider; /* somebody else's: it is told no more than it must know */
};

/* The bearer token for it: its own, else, unless it is somebody else's, `other`; empty: none. */
static inline struct slice instance_key(const struct instance_spec *spec, const char *other) {
	return spec->key.n || spec->is_provider ? spec->key : slice_of(other);
}

/* What follows spec->base of a target that clients, or we, have as /v1/... */
static inline struct slice instance_target(const struct instance_spec *spec, struct slice target) {
	static const struct slice v1 = { "/v1", 3 };

	if (!spec->base.n || !slice_has_prefix(target, v1))
		return target;
	return target.n == v1.n || memchr("/?", target.p[v1.n], 2) ? slice_skip(target, v1.n) : target;
}

bool instance_spec_eq(const struct instance_spec *a, const struct instance_spec *b);

struct instance {
	/* Together, for choices among many: a line is fetched for each of them. */
	alignas(64) _Atomic uint64_t avoid_until_ms;
	struct learned learned;

	struct instance_spec spec;   /* its slices point behind the struct; a NUL follows each */
	struct breaker breaker;      /* to be moved through fleet/guard.h alone */
	_Atomic uint32_t n_failures; /* in a row, as far as they set avoid_until_ms */
	_Atomic uint32_t refs;
	uint64_t seed; /* a hash of its authority and rank: the same in every router */
	uint16_t slot; /* unique among the living, below INSTANCE_SLOTS_MAX */
	_Atomic uint16_t good_address;
	uint32_t label;  /* of its name, in metrics (fleet/label.h) */
	uint32_t serial; /* unique in the process, from 1: a slot is given again, this is not */

	/* For those who show it; written by the control thread. */
	_Atomic uint64_t response_us; /* what the last good probe took; 0: there was none */
	/* What the workers' counters for the slot were when it was given: the rest is this instance's. */
	_Atomic uint64_t n_requests_before, n_errors_before, n_outcomes_before[BREAKER_OUTCOMES];
	_Atomic uint64_t failed_ms; /* when an attempt failed last, as its breaker has it; 0: never */
	_Atomic uint32_t n_moves[BREAKER_STATES][BREAKER_STATES]; /* of its breaker: [from][to] */
};

_Static_assert(offsetof(struct instance, learned.first_token_s) == 64, "what choices read is a line");

/* What it is since it was started last, as scrapes see it: unique among all lives of all instances. */
static inline uint64_t instance_life(const struct instance *inst) {
	uint64_t n_restarts = atomic_load_explicit(&inst->learned.n_restarts, memory_order_relaxed);

	return n_restarts << 32 | inst->serial;
}

/* Whom its certificate must name, NUL-terminated; NULL: it speaks no TLS. */
static inline const char *instance_tls_host(const struct instance *inst) {
	return inst->spec.is_tls ? inst->spec.host.p : NULL;
}

/* Copies the texts. One reference, the caller's. NULL when all slots are taken. */
must_use struct instance *instance_new(const struct instance_spec *spec);

/* Slots that are not taken; others may come free meanwhile. */
uint32_t instance_n_free(void);

struct instance *instance_ref(struct instance *inst);
void instance_unref(struct instance **inst); /* accepts NULL, clears */

/*
 * A connect was refused or failed: no new traffic for 1 s, doubling to 30 s with each
 * failure after the wait before it was over. Failures within a wait belong to the
 * outage that is known already. `now_ms` is monotonic and the same clock everywhere.
 */
void instance_avoid(struct instance *inst, uint64_t now_ms);

/* It asked to be left alone for a while: no new traffic until then, at most INSTANCE_AVOID_MAX_MS. */
void instance_rest(struct instance *inst, uint64_t now_ms, uint64_t ms);

/* It answered: nothing is held against it any more. */
void instance_succeeded(struct instance *inst);

/*
 * The position in the row's addresses of the one that a connect last succeeded with,
 * where the next attempt begins: an address that leads nowhere costs the connect
 * timeout once, not each time. A hint, 0 for a new list. It may move at any time, and be
 * of another list: who goes through all `n_addresses` reads it once.
 */
static inline uint32_t instance_good_address(const struct instance *inst, uint32_t n_addresses) {
	assert(n_addresses > 0);
	return atomic_load_explicit(&inst->good_address, memory_order_relaxed) % n_addresses;
}

/* `address` is below INSTANCE_ADDRESSES_MAX. */
void instance_set_good_address(struct instance *inst, uint32_t address);

/* In avoid_until_ms: at its own wish, which is no failure; its breaker is not closed (fleet/guard.h). */
#define INSTANCE_RESTS   (UINT64_C(1) << 63)
#define INSTANCE_GUARDED (UINT64_C(1) << 62)

/* Nothing is held against it, by one load. */
static inline bool instance_is_clear(const struct instance *inst, uint64_t now_ms) {
	return atomic_load_explicit(&inst->avoid_until_ms, memory_order_relaxed) <= now_ms;
}

static inline uint64_t instance_avoided_until_ms(const struct instance *inst) {
	const uint64_t flags = INSTANCE_RESTS | INSTANCE_GUARDED;

	return atomic_load_explicit(&inst->avoid_until_ms, memory_order_relaxed) & ~flags;
}

/* The same as far as connects failed; 0: it rests. */
static inline uint64_t instance_refused_until_ms(const struct instance *inst) {
	uint64_t word = atomic_load_explicit(&inst->avoid_until_ms, memory_order_relaxed);

	return word & INSTANCE_RESTS ? 0 : word & ~INSTANCE_GUARDED;
}

static inline bool instance_is_avoided(const struct instance *inst, uint64_t now_ms) {
	return instance_avoided_until_ms(inst) > now_ms;
}
