#include "fleet/instance.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "fleet/label.h"
#include "fleet/packed.h"

/* Process-wide, so that an instance can give its slot back after its fleet is gone. */
static _Atomic uint64_t slots_taken[INSTANCE_SLOTS_MAX / 64];
static _Atomic uint32_t n_made; /* instances, ever */

const char *instance_state_text(enum instance_state state) {
	static const char *const text[INSTANCE_STATES] = {
		[INSTANCE_UNKNOWN] = "unknown",
		[INSTANCE_READY] = "ready",
		[INSTANCE_DEGRADED] = "degraded",
		[INSTANCE_UNHEALTHY] = "unhealthy",
		[INSTANCE_DRAINING] = "draining",
		[INSTANCE_DISABLED] = "disabled",
	};
	assert(state < INSTANCE_STATES);
	return text[state];
}

bool instance_state_may_follow(enum instance_state from, enum instance_state to) {
	assert(from < INSTANCE_STATES && to < INSTANCE_STATES);
	return from < INSTANCE_DRAINING || to >= INSTANCE_DRAINING || to == INSTANCE_UNKNOWN;
}

bool instance_spec_eq(const struct instance_spec *a, const struct instance_spec *b) {
	return slice_eq(a->name, b->name) && slice_eq(a->url, b->url) &&
	    slice_eq(a->authority, b->authority) && slice_eq(a->host, b->host) && a->port == b->port &&
	    slice_eq(a->key, b->key) && a->rank == b->rank && a->has_rank == b->has_rank &&
	    a->is_tls == b->is_tls && slice_eq(a->base, b->base) && a->is_provider == b->is_provider;
}

static bool slot_take(uint16_t *slot_out) {
	for (size_t i = 0; i < n_elems(slots_taken); i++) {
		uint64_t taken = atomic_load_explicit(&slots_taken[i], memory_order_relaxed);

		while (taken != UINT64_MAX) {
			unsigned bit = (unsigned)__builtin_ctzll(~taken);

			/* Acquire: what the slot's last owner did to its counters is done. */
			if (!atomic_compare_exchange_weak_explicit(&slots_taken[i], &taken,
				taken | UINT64_C(1) << bit, memory_order_acquire, memory_order_relaxed))
				continue;
			*slot_out = (uint16_t)(i * 64 + bit);
			return true;
		}
	}
	return false;
}

static void slot_give(uint16_t slot) {
	uint64_t bit = UINT64_C(1) << slot % 64;
	uint64_t before = atomic_fetch_and_explicit(&slots_taken[slot / 64], ~bit, memory_order_release);

	assert(before & bit);
}

uint32_t instance_n_free(void) {
	uint32_t n = 0;

	for (size_t i = 0; i < n_elems(slots_taken); i++)
		n += (uint32_t)__builtin_popcountll(
		    ~atomic_load_explicit(&slots_taken[i], memory_order_relaxed));
	return n;
}

struct instance *instance_new(const struct instance_spec *spec) {
	uint16_t slot;

	if (!slot_take(&slot))
		return NULL;
	size_t n_text =
	    spec->name.n + spec->url.n + spec->authority.n + spec->host.n + spec->base.n + spec->key.n + 6;
	size_t bytes = (sizeof(struct instance) + n_text + 63) / 64 * 64;
	struct instance *inst = aligned_alloc(alignof(struct instance), bytes);

	assert(inst);
	char *at = (char *)(inst + 1);
	memset(inst, 0, bytes);
	inst->spec = *spec;
	inst->spec.name = packed_text(&at, spec->name);
	inst->spec.url = packed_text(&at, spec->url);
	inst->spec.authority = packed_text(&at, spec->authority);
	inst->spec.host = packed_text(&at, spec->host);
	inst->spec.base = packed_text(&at, spec->base);
	inst->spec.key = packed_text(&at, spec->key);
	inst->seed = XXH3_64bits_withSeed(spec->authority.p, spec->authority.n, spec->rank);
	inst->slot = slot;
	inst->serial = atomic_fetch_add_explicit(&n_made, 1, memory_order_relaxed) + 1;
	inst->label = label_intern(LABEL_INSTANCE, spec->name);
	atomic_init(&inst->refs, 1);
	return inst;
}

struct instance *instance_ref(struct instance *inst) {
	uint32_t before = atomic_fetch_add_explicit(&inst->refs, 1, memory_order_relaxed);

	assert(before > 0);
	return inst;
}

void instance_unref(struct instance **inst_ptr) {
	struct instance *inst = *inst_ptr;

	if (!inst)
		return;
	*inst_ptr = NULL;
	uint32_t before = atomic_fetch_sub_explicit(&inst->refs, 1, memory_order_acq_rel);
	assert(before > 0);
	if (before > 1)
		return;
	slot_give(inst->slot);
	free(inst);
}

/* The flag of the breaker is nobody's here. */
static void set_avoided(struct instance *inst, uint64_t until_ms) {
	uint64_t word = atomic_load_explicit(&inst->avoid_until_ms, memory_order_relaxed);

	while (!atomic_compare_exchange_weak_explicit(&inst->avoid_until_ms, &word,
	    (word & INSTANCE_GUARDED) | until_ms, memory_order_relaxed, memory_order_relaxed))
		;
}

void instance_avoid(struct instance *inst, uint64_t now_ms) {
	uint32_t n = atomic_load_explicit(&inst->n_failures, memory_order_relaxed);
	uint64_t wait_ms = u64_min((uint64_t)INSTANCE_AVOID_MIN_MS << n, INSTANCE_AVOID_MAX_MS);

	/* A hundred connects that fail together are one failure. */
	if (instance_is_avoided(inst, now_ms))
		return;
	if (wait_ms < INSTANCE_AVOID_MAX_MS)
		atomic_store_explicit(&inst->n_failures, n + 1, memory_order_relaxed);
	set_avoided(inst, now_ms + wait_ms);
}

void instance_rest(struct instance *inst, uint64_t now_ms, uint64_t ms) {
	uint64_t until_ms = now_ms + u64_min(ms, INSTANCE_AVOID_MAX_MS);

	if (!instance_is_avoided(inst, until_ms - 1))
		set_avoided(inst, until_ms | INSTANCE_RESTS);
}

void instance_succeeded(struct instance *inst) {
	/* Reads first: in health, which is nearly always, the line stays shared. */
	if (atomic_load_explicit(&inst->n_failures, memory_order_relaxed) == 0)
		return;
	atomic_store_explicit(&inst->n_failures, 0, memory_order_relaxed);
	set_avoided(inst, 0);
}

void instance_set_good_address(struct instance *inst, uint32_t address) {
	assert(address < INSTANCE_ADDRESSES_MAX);
	if (atomic_load_explicit(&inst->good_address, memory_order_relaxed) != address)
		atomic_store_explicit(&inst->good_address, (uint16_t)address, memory_order_relaxed);
}
