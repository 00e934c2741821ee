/*
 * choice: what a policy sees of a pick. Private to this folder.
 *
 * A policy is a const struct that says which of the eligible candidates it is. It may
 * keep a cell of state per candidate. While a model's candidates stay the same so do
 * its cells; when they change, all cells are zeroed ones again, and carry fills them
 * from those before. A policy that compares fills in the scores that it compared.
 */
#pragma once

#include "policy/policy.h"

struct choice {
	const struct candidate *candidates; /* of the model */
	const uint32_t *eligible;           /* positions in candidates, ascending */
	uint32_t n;                         /* of eligible; 2 or more */
	uint64_t weight;                    /* of all eligible together */
	const struct demand *demand;
	const struct policy_options *options;
	const struct load *load;
	const struct prefix_scan *scan; /* who has how much of the prompt; empty unless wanted */
	struct rng *rng;
	uint64_t now_ns;
	void *cells;                 /* parallel to candidates */
	struct policy_score *scores; /* parallel to eligible; zero */
	enum pick_reason reason;     /* the policy's, unless it says another */
};

/* A model's candidates before they changed, and their cells. */
struct past {
	const struct model *model;
	const void *cells;
	const uint16_t *at; /* position in model->candidates by slot; anything for slots that are not there */
};

#define PAST_NONE UINT32_MAX

/* Where the candidate was, or PAST_NONE: it is new. */
static inline uint32_t past_find(const struct past *past, const struct candidate *c) {
	uint32_t i = past->at[c->slot];

	return i < past->model->n_candidates && past->model->candidates[i].instance == c->instance
	    ? i
	    : PAST_NONE;
}

typedef void (*policy_carry_fn)(
    void *cells, const struct model *model, const struct past *past, struct rng *rng);
typedef void (*policy_init_fn)(void *cells, const struct model *model, struct rng *rng);
typedef uint32_t (*policy_pick_fn)(struct choice *choice); /* 0 to choice->n - 1 */

struct policy {
	const char *name;
	const char *alias; /* NULL: none */
	enum pick_reason reason;
	bool wants_session, wants_prompt;
	bool is_cost;
	const char *parts[POLICY_PARTS]; /* names of the parts of its scores */
	size_t cell_bytes;
	policy_init_fn init; /* both NULL with cell_bytes 0 */
	policy_carry_fn carry;
	policy_pick_fn pick;
};

extern const struct policy cache_aware_policy, round_robin_policy, least_load_policy, power_of_two_policy,
    random_pick_policy, rendezvous_hash_policy;

/* Round robin, for policies that have nothing to go by now and then. */
#define ROUND_ROBIN_CELL_BYTES sizeof(int64_t)
void round_robin_init(void *cells, const struct model *model, struct rng *rng);
void round_robin_carry(void *cells, const struct model *model, const struct past *past, struct rng *rng);
uint32_t round_robin_pick(struct choice *choice);

static inline const struct candidate *choice_candidate(const struct choice *choice, uint32_t i) {
	return &choice->candidates[choice->eligible[i]];
}

/* One of the eligible but `except`, each as likely as its weight; UINT32_MAX excepts none. */
uint32_t choice_draw(const struct choice *choice, uint32_t except);

/* Rendezvous: the candidate's weighted score for a key; the highest wins it (rendezvous_hash.c). */
double choice_hash(const struct candidate *c, uint64_t key);

/* Prompt tokens that a hit will save, as far as the instance kept such promises (cache_aware.c). */
#define TRUST_TOKENS 2048.0 /* so many are trusted before any was seen */
uint32_t choice_cached_tokens(
    const struct demand *demand, const struct prefix_hit *hit, const struct instance *inst);

/* The slot is this instance's, as it is since it was started last: its cache begins empty. */
static inline void choice_own(struct prefix_index *index, const struct instance *inst) {
	uint64_t n_restarts = atomic_load_explicit(&inst->learned.n_restarts, memory_order_relaxed);

	prefix_index_own(index, inst->slot, n_restarts << 32 | inst->serial);
}

/* Requests in flight with this one, per weight: the lower the better. */
struct choice_measure {
	uint64_t n_requests, weight;
};

static inline struct choice_measure choice_measure(const struct choice *choice, uint32_t i) {
	const struct candidate *c = choice_candidate(choice, i);

	return (struct choice_measure){ load_requests(choice->load, c->slot) + 1, c->weight };
}

/* Negative, 0 or positive, by cross-multiplication: exact, and cheaper than to divide. */
static inline int choice_measure_cmp(struct choice_measure a, struct choice_measure b) {
	uint64_t x = a.n_requests * b.weight, y = b.n_requests * a.weight;

	return (x > y) - (x < y);
}
