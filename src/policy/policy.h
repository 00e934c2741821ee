/*
 * policy: which instance gets a request.
 *
 * policy_pick() filters first (policy/filter.h); the policy then only orders what the
 * filters left. No I/O, no allocation, no clock of its own: the same objects run in tests
 * and in the simulator. A pick changes nothing but the counters of the policy itself; that
 * the request goes there is said by ticket_open() (policy/ticket.h).
 *
 * A struct policy_set belongs to one worker: the policies' counters for each model of the
 * snapshot in hand, on which it holds a reference, and the scratch of the pick made last.
 */
#pragma once

#include "base/list.h"
#include "base/rng.h"
#include "fleet/load.h"
#include "fleet/snapshot.h"
#include "policy/demand.h"
#include "policy/policy_options.h"
#include "policy/prefix_index.h"

struct policy;

extern const struct policy *const policy_table[]; /* NULL at the end; the default first */

/* By name or alias; NULL when there is none of that name. */
const struct policy *policy_find(struct slice name);
const char *policy_name(const struct policy *policy);

/* The score of one eligible instance, and what it is made of (policy_part_text()). */
#define POLICY_PARTS 4
struct policy_score {
	float total; /* NAN: the pick did not look at this one */
	float parts[POLICY_PARTS];
};

/* May it decide among those of a class (size_class)? */
bool policy_can_follow(const struct policy *policy);

/* The parts' names, NULL behind the last; the totals of some policies are costs: lower is better. */
const char *policy_part_text(const struct policy *policy, unsigned part);
bool policy_is_cost(const struct policy *policy);

/* What usage teaches about a model's requests. */
struct policy_lesson {
	double tokens_per_byte; /* of prompts */
	double prompt_tokens, output_tokens;
};

struct policy_set {
	const struct policy_options *options;
	struct load *load;
	unsigned worker; /* whose cells of the load are charged */
	struct rng *rng;
	struct prefix_index *index;      /* shared by all workers; NULL: none is kept */
	struct session_table *sessions;  /* likewise */
	struct session_table *responses; /* likewise: who keeps which stored response */
	struct snapshot *snapshot;       /* NULL before the first adopt */

	/* private */
	const struct policy **policies; /* of each model of the snapshot, then of `any` */
	void **tables;                  /* parallel to policies: what they built; some are NULL */
	size_t cell_bytes;              /* the most that one of them needs */
	void *cells;                    /* the policies' state, parallel to snapshot->candidates */
	uint32_t *eligible;             /* positions among the model's candidates */
	struct policy_score *scores;    /* parallel to eligible */
	uint32_t n_eligible;
	struct prefix_scan *scan;      /* of the pick made last */
	struct list *queues;           /* by slot: this worker's tickets without a first token, in order */
	struct policy_lesson *lessons; /* by the label of the model */
	uint8_t *rings;                /* of each model, by origin (policy/locality.c) */
};

/* `set` has options, load, worker, rng, index, sessions and responses; all outlive it, but for the
 * options, see policy_set_retune(). */
void policy_set_init(struct policy_set *set);
void policy_set_deinit(struct policy_set *set);

/* The policy that picks for this model of set->snapshot. */
const struct policy *policy_of(const struct policy_set *set, const struct model *model);

/* Whose parts the scores of its picks have: the policy itself, or the one that it lets decide. */
const struct policy *policy_scorer(const struct policy_set *set, const struct model *model);

/* What is to be waited for before a pick for this model: the session, or the prompt. */
bool policy_wants_session(const struct policy_set *set, const struct model *model);
bool policy_wants_prompt(const struct policy_set *set, const struct model *model);

/* How many tokens a byte of a prompt for this model is likely to be. */
double policy_tokens_per_byte(const struct policy_set *set, const struct model *model);

/* How many tokens an answer of this model is likely to have. */
uint32_t policy_output_tokens(const struct policy_set *set, const struct model *model);

/*
 * From now on picks are made from `snap`; takes its own reference. A model goes on where
 * it was: candidates that it had before keep their turn, new ones, and those of a new
 * model, start at a random place. Linear in the candidates. Allocates: once per
 * snapshot, not per request.
 */
void policy_set_adopt(struct policy_set *set, struct snapshot *snap);

/*
 * From now on picks go by these options, which outlive the set or the next ones; the snapshot is the same. A
 * model whose policy is another one begins as a new model does. Before the first snapshot it is as if they
 * had been there from the start.
 */
void policy_set_retune(struct policy_set *set, const struct policy_options *options);

enum pick_reason {
	PICK_ONLY_CANDIDATE, /* filters and rings left one */
	PICK_ROUND_ROBIN,
	PICK_LEAST_LOAD, /* least work in flight; whatever the policy, where it had nothing else to go by */
	PICK_POWER_OF_TWO,
	PICK_RANDOM,
	PICK_RENDEZVOUS_HASH,
	PICK_WEIGHTED_RANDOM,
	PICK_CONSISTENT_HASH,
	PICK_LOWEST_TTFT,  /* its first token is expected soonest, as the policy counts it */
	PICK_STICKY_HIT,   /* the session lives there */
	PICK_STICKY_NEW,   /* a new session: fewest live there */
	PICK_STICKY_SPILL, /* the session's home is overloaded or not eligible: it moves */
	PICK_BUCKET,       /* prompts of such a length go there */
	PICK_SIZE_CLASS,   /* the only one of the class that the prompt's size wants */
	PICK_BEST_SCORE,
	PICK_PREFIX_HIT,     /* likewise, with part of the prompt in its cache */
	PICK_RESPONSE_OWNER, /* it made the stored response, which nobody else has */
	PICK_ALL_AVOIDED,    /* every untried one failed lately: one of them all the same */
	PICK_LAST_RESORT,    /* all but the reserve were tried: one of that, by weight */
	PICK_REASONS,
};

const char *pick_reason_text(enum pick_reason reason);

/* How far away: which reason a place has beside the policy's own. */
enum pick_ring {
	PICK_RING_ZONE,
	PICK_RING_REGION,
	PICK_RING_FAR,
	PICK_RING_NONE /* nobody said where we are */
};

#define PICK_RINGS 4

/* "local_zone" and so on; empty for PICK_RING_NONE. */
const char *pick_ring_text(enum pick_ring ring);

enum pick_outcome {
	PICK_E_NONE_LEFT = 1, /* all candidates were tried, or the only one who would do failed lately */
	PICK_E_NONE_EXIST,    /* nobody routable serves the model */

	/* All others were refused before, the last of them because: */
	PICK_E_CAPABILITY, /* nobody can do what it asks for */
	PICK_E_FEATURE,
	PICK_E_CONTEXT,     /* it is longer than anybody takes */
	PICK_E_PRIVACY,     /* nobody may get it: clearance, residency or region */
	PICK_E_FULL,        /* who could has as many requests as it takes */
	PICK_E_LATE,        /* nobody is expected to make its deadline */
	PICK_E_ACCELERATOR, /* nobody has the one that it asks for */
	PICK_E_PRIORITY,    /* nobody has as high a one as it asks for */
	PICK_E_COST,        /* it costs more than a request may, wherever it goes */
	PICK_E_OWNER,       /* who made the response that it is about takes none now */
	PICK_E_RANK,        /* nobody is the data-parallel rank that it asks for */
	PICK_E_OPEN,        /* whose breakers are open, or half-open and busy with a probe */
};

#define PICK_OUTCOMES 15 /* with 0 */

struct pick_input {
	const struct model *model; /* of set->snapshot: one of its models, or its `any` */
	const struct demand *demand;
	const uint16_t *tried; /* slots of the instances that failed this request */
	uint32_t n_tried;
	uint64_t now_ns; /* the clock of instance_avoid(), in nanoseconds */
	bool is_hedge;   /* another instance has it as well: its session does not move */

	/* Of a pool: how the cache goes from one to the other; CONNECTOR_ANY: not settled yet. */
	enum connector connector;
	enum kv_mode kv_mode;
};

struct pick_result {
	struct instance *instance;   /* good as long as a reference on the snapshot is held */
	const struct traits *traits; /* likewise */
	uint32_t row;                /* in set->snapshot */
	uint32_t at;                 /* among the eligible */
	enum pick_reason reason;
	enum pick_ring ring;
	uint8_t last_ring;     /* for ticket_open() */
	uint32_t n_candidates; /* before the filters, without the reserve */
	uint32_t n_eligible;   /* after them */
	uint32_t n_left_out;   /* of those after them: others came before, the owner or nearer ones */
};

/* 0 or an enum pick_outcome; *result_out is written on 0 alone. Charges no load. */
must_use int policy_pick(
    struct policy_set *set, const struct pick_input *input, struct pick_result *result_out);

/* Of the prompt, what is likely to be cached where the last pick was for; 0 where the policy does not ask. */
uint32_t policy_cached_tokens(
    const struct policy_set *set, const struct demand *demand, const struct pick_result *pick);
