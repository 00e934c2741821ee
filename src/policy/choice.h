/*
 * choice: what a policy sees of a pick. Private to this folder.
 *
 * A policy is a const struct that says which of the eligible candidates it is. It may
 * keep a cell of state per candidate. While a model's candidates stay the same so do
 * its cells; when they change, all cells are zeroed ones again, and carry fills them
 * from those before. A policy that compares fills in the scores that it compared.
 *
 * A pick changes the cells, the scores and the state of the generator, and nothing else: who
 * picks with copies of them leaves no trace (explanations do). What a policy shares with
 * other threads it changes in its bind, which is called when the request goes there.
 */
#pragma once

#include "policy/policy.h"

struct choice {
	const struct snapshot *snapshot;
	const struct model *model;
	const struct candidate *candidates; /* of the model */
	const uint32_t *eligible;           /* positions in candidates, ascending */
	uint32_t n_candidates;              /* of the model, without its reserve */
	uint32_t n;                         /* of eligible; 2 or more */
	uint64_t weight;                    /* of all eligible together */
	const struct demand *demand;
	const struct policy_options *options;
	const struct load *load;
	const struct prefix_scan *scan;       /* who has how much of the prompt; empty unless wanted */
	const struct session_table *sessions; /* NULL: none is kept */
	struct rng *rng;
	uint64_t now_ns;
	double prompt_tokens;        /* of a usual request for this model */
	const void *table;           /* what the policy built of the model, or NULL */
	void *cells;                 /* parallel to candidates */
	struct policy_score *scores; /* parallel to eligible; totals are NAN, parts 0 */
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

/* What picks for the model look things up in, one block of malloc(). Never changed; kept while candidates and
 * weights stay the same, unless the policy wants it fresh. */
typedef void *(*policy_build_fn)(
    const struct snapshot *snap, const struct model *model, const struct policy_options *options);
/* The request of `input` goes to the one that was picked: now it may be remembered. */
typedef void (*policy_bind_fn)(
    struct policy_set *set, const struct pick_input *input, const struct pick_result *pick);

struct policy {
	const char *name;
	const char *alias; /* NULL: none */
	enum pick_reason reason;
	bool wants_session, wants_prompt;
	bool wants_index;         /* who has how much of the prompt cached */
	bool is_index_for_prices; /* and that only where cached tokens have a price of their own */
	bool is_cost;
	const char *parts[POLICY_PARTS]; /* names of the parts of its scores */
	size_t cell_bytes;
	policy_init_fn init; /* both NULL with cell_bytes 0 */
	policy_carry_fn carry;
	policy_build_fn build; /* NULL: nothing is looked up */
	bool builds_always;    /* for each snapshot: it reads more than candidates and weights */
	policy_pick_fn pick;
	policy_bind_fn bind; /* NULL: nothing is remembered */
	const struct policy *(*scorer)(
	    const struct policy_options *options); /* whose scores; NULL: its own */
};

extern const struct policy bucket_policy, cache_aware_policy, composite_policy, consistent_hash_policy,
    least_latency_policy, least_load_policy, power_of_two_policy, random_pick_policy, rendezvous_hash_policy,
    round_robin_policy, session_policy, size_class_policy, weighted_random_policy;

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

/* What the operator wants of it. For what is to stay where it is: candidate.weight also has how it is. */
static inline uint32_t choice_own_weight(const struct choice *choice, uint32_t i) {
	return snapshot_row_weight(&choice->snapshot->rows[choice_candidate(choice, i)->row]);
}

/* Rendezvous: the candidate's score for a key, by its own weight; the highest wins it (rendezvous_hash.c). */
double choice_hash(const struct choice *choice, uint32_t i, uint64_t key);

/* Prompt tokens that a hit will save, as far as the instance kept such promises (cache_aware.c). */
#define TRUST_TOKENS 2048.0 /* so many are trusted before any was seen */
uint32_t choice_cached_tokens(
    const struct demand *demand, const struct prefix_hit *hit, const struct instance *inst);

static inline bool choice_wants_index(const struct policy *policy, const struct model *model) {
	return policy->wants_index &&
	    (!policy->is_index_for_prices || model->least.known >> TRAIT_PRICE_CACHED & 1);
}

/* The slot is this instance's, as it is since it was started last: its cache begins empty. */
static inline void choice_own(struct prefix_index *index, const struct instance *inst) {
	prefix_index_own(index, inst->slot, instance_life(inst));
}

/* Did the engine say something of itself lately? Else what it said is not to be looked at. */
bool choice_is_fresh(const struct choice *choice, const struct learned *learned);

/* Requests that others keep waiting there, by what the engine said lately. */
uint64_t choice_waiting(const struct choice *choice, const struct learned *learned);

/*
 * The work at an instance with this request, per weight: the lower the better. In tokens to
 * prefill: a request in itself counts as MEASURE_REQUEST of them, a token in decode as a part of
 * one. With equal tokens it is the order of the requests in flight, exactly.
 */
#define MEASURE_REQUEST 1024u
#define MEASURE_DECODES 16u /* tokens in decode are one to prefill */

struct choice_measure {
	uint64_t work, weight;
};

struct choice_measure choice_measure(const struct choice *choice, uint32_t i);

/* Negative, 0 or positive, by cross-multiplication: exact, and cheaper than to divide. */
static inline int choice_measure_cmp(struct choice_measure a, struct choice_measure b) {
	uint64_t x = a.work * b.weight, y = b.work * a.weight;

	return (x > y) - (x < y);
}

/* The same, and fills in its score by it (least_load.c). */
#define MEASURE_PARTS                                                                                        \
	{ "work_tokens", "weight" }
struct choice_measure choice_show(struct choice *choice, uint32_t i);

/* The one with the least measure; of equals, any. The latter fills in all scores (least_load.c). */
uint32_t choice_find_least(const struct choice *choice);
uint32_t choice_least_loaded(struct choice *choice);

/* First-token times in seconds (least_latency.c): the median of those that are known, with the totals of the
 * scores for scratch; what is expected of one; and that for each in its queue, by weight. */
double choice_median_first_token(struct choice *choice);
double choice_first_token(const struct choice *choice, uint32_t i, double median);
double choice_latency(const struct choice *choice, uint32_t i, double median);

/*
 * Uncached prompt tokens a second, on average over those of the candidates that have shown it: what the
 * others are taken for; 0: nobody has. `at` are positions among them; NULL: the first n.
 */
double choice_mean_rate(const struct candidate *candidates, const uint32_t *at, uint32_t n);

/* Requests in flight at all that are eligible. */
uint64_t choice_in_flight(const struct choice *choice);

/* More than `times` what the others have in flight on average, by weight, and more than a few: a home to
 * leave.
 */
bool choice_is_overloaded(const struct choice *choice, uint32_t i, double times);

/* Bounded loads: so many may be in flight at it when one more comes, of `n_in_flight` at all: 1.25 times its
 * share. */
uint64_t choice_bound(const struct choice *choice, const struct candidate *c, uint64_t n_in_flight);
