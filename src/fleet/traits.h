/*
 * traits: what an instance can do for one model, how much, for whom, where and at what price,
 * as far as somebody said so.
 *
 * The operator says it by labels: `capabilities`, `features`, `context`, `clearance`,
 * `residency`, `zone`, `region`, `accelerator`, `price_in`, `price_cached`, `price_out`,
 * `capacity`; which comes first and what it costs beside others: `priority`, `cost`; how the requests of its
 * models are distributed: `policy`; that it is somebody else's, with an API like OpenAI's: `provider`, which
 * has chat, responses, completion and embeddings unless it says otherwise; and what part an instance has
 * where prompts are computed by others than decode: `role`, `kv_connector`, `kv_mode`, `bootstrap_port`,
 * `zmq_address`, `tp_size`, `dp_size`. A label NAME@MODEL is of that model alone and counts more than the
 * bare one. Whom an instance is cleared for, and where data may reside, only the router's own configuration
 * can say: such labels of others are not believed. What no label says the engine's model list may: its
 * context.
 *
 * Plain values that point into the labels' text.
 */
#pragma once

#include "fleet/capability.h"
#include "fleet/connector.h"
#include "fleet/pair.h"
#include "fleet/privacy.h"

enum trait {
	TRAIT_CAPABILITIES,
	TRAIT_FEATURES,
	TRAIT_CONTEXT,
	TRAIT_CLEARANCE,
	TRAIT_RESIDENCY,
	TRAIT_ZONE,
	TRAIT_REGION,
	TRAIT_ACCELERATOR,
	TRAIT_PRICE_IN,
	TRAIT_PRICE_CACHED,
	TRAIT_PRICE_OUT,
	TRAIT_CAPACITY,
	TRAIT_ROLE,
	TRAIT_CONNECTOR,
	TRAIT_KV_MODE,
	TRAIT_BOOTSTRAP_PORT,
	TRAIT_ZMQ_ADDRESS,
	TRAIT_TP_SIZE,
	TRAIT_DP_SIZE,
	TRAIT_PRIORITY,
	TRAIT_COST,
	TRAIT_POLICY,
	TRAIT_PROVIDER,
};

#define TRAITS 23

/* Of who says none. */
#define TRAITS_PRIORITY 50u
#define TRAITS_COST     1.0

#define TRAITS_PRIORITY_MAX UINT32_MAX /* as vLLM's router has it */
#define TRAITS_COST_MAX     1e9

/* What part an instance has in disaggregated serving, and where its partners find it. */
struct kv_traits {
	uint8_t role;              /* enum role */
	uint8_t connector;         /* enum connector; CONNECTOR_ANY: not said */
	uint8_t mode;              /* enum kv_mode */
	uint16_t bootstrap_port;   /* 0: none, or the connector's own */
	uint32_t tp_size, dp_size; /* 0: not said, so 1 */
	struct slice zmq_address;  /* "host:port"; may be empty */
};

struct traits {
	uint32_t known;        /* bits of enum trait: somebody said it; the others are 0 */
	uint32_t capabilities; /* bits of enum capability; 0: not said, so all of them */
	uint32_t features;     /* bits of enum feature; 0: not said, so all of them */
	uint32_t context_tokens;
	uint32_t capacity; /* requests in flight; 0: no cap */
	enum privacy clearance;
	uint64_t zone, region, accelerator;         /* traits_word() of their names; 0: none */
	uint64_t price_in, price_cached, price_out; /* micro-units for a million tokens */
	uint32_t priority;                          /* traits_priority() */
	double cost;                                /* traits_cost() */
	struct slice residency;                     /* tags, separated by commas */
	struct slice policy;                        /* a name; nobody here knows whether there is one */
	struct kv_traits kv;
};

/* What each of several can do and may get at the least: who asks no more need not look at them. */
struct traits_least {
	uint32_t known;        /* bits of enum trait: somebody said it of one of them */
	uint32_t capabilities; /* of all */
	uint32_t features;     /* of all */
	uint32_t context_tokens;
	enum privacy clearance;
};

/* Of nobody: no limits at all. */
#define TRAITS_LEAST                                                                                         \
	((struct traits_least){ .capabilities = UINT32_MAX,                                                  \
	    .features = UINT32_MAX,                                                                          \
	    .context_tokens = UINT32_MAX,                                                                    \
	    .clearance = PRIVACY_RESTRICTED })

static inline bool traits_has(const struct traits *t, enum trait trait) {
	return t->known >> trait & 1;
}

/* Higher ones come first. */
static inline uint32_t traits_priority(const struct traits *t) {
	return traits_has(t, TRAIT_PRIORITY) ? t->priority : TRAITS_PRIORITY;
}

/* Of a request there, in whatever the operator counts. */
static inline double traits_cost(const struct traits *t) {
	return traits_has(t, TRAIT_COST) ? t->cost : TRAITS_COST;
}

/* What a name is compared by; never 0 but for an empty one. */
uint64_t traits_word(struct slice name);

/* One more of them. */
void traits_join(struct traits_least *least, const struct traits *t);

/*
 * What is wrong with a label, as one sentence; NULL: nothing, or it is none of those above.
 * `is_ours`: it stands in the router's own configuration.
 */
const char *traits_mistake(struct slice key, struct slice value, bool is_ours);

/* The model that a label NAME@MODEL is for: p is NULL when it is for all, or is none of those above. */
struct slice traits_model(struct slice key);

/* Adds what these labels say of `model`, unless it is known already. Mistakes count as not said. */
void traits_declare(struct traits *t, struct pairs labels, struct slice model, bool is_ours);

/* The same of the object that an engine's model list has for the model; may be empty. */
void traits_discover(struct traits *t, struct slice object);

/* Whether each of the tags, separated by commas, is among those that `has` lists. */
bool traits_has_tags(struct slice has, struct slice tags);
