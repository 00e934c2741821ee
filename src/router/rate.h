/*
 * rate: how much tenants may ask for: requests and tokens a minute, of each model, and what all may ask
 * for together in a second.
 *
 * What a request will cost is reserved when it is known what it asks for, by its prompt and the output that
 * is expected; when it has ended it is settled by what it came to. Each limit is a meter (router/meter.h):
 * who was idle has a minute's worth, or a second's, at once.
 *
 * The table is made on the control thread and shared by all workers; calls come from any thread and
 * take no locks. Without any limit there is no table (NULL), which all functions take. Models beyond the
 * first thousand share the meters of `other`. Times are monotonic nanoseconds.
 */
#pragma once

#include "policy/demand.h"
#include "router/meter.h"
#include "router/tenant.h"

#define RATE_PER_SECOND_MAX 1000000000u
#define RATE_PER_MINUTE_MAX METER_MAX
#define RATE_FIELDS_BYTES   512u

struct rate_table;

/* `per_second`: requests of all; 0: no limit. NULL when nothing is limited. The tenants must outlive it. */
must_use struct rate_table *rate_table_new(const struct tenant_table *tenants, uint64_t per_second);
void rate_table_free(struct rate_table **table); /* accepts NULL, clears; on any thread */

/* Limits of tenants that are the same in the table before this one go on as full as they are there. Before
 * the table is shared; both may be NULL. */
void rate_table_follow(struct rate_table *table, const struct rate_table *before);

/* What one request holds. Zeroed: it has asked for nothing. */
struct rate_claim {
	uint32_t tokens;        /* reserved, or refused; 0: neither, or settled */
	uint32_t prompt_tokens; /* of them */
	uint16_t label;         /* of the model that it is for */
	uint16_t wait_s;        /* refused: when to ask again; else 0 */
};

static inline bool rate_is_taken(const struct rate_claim *claim) {
	return claim->tokens && !claim->wait_s;
}

/*
 * Reserves what the request is taken to need, all of it or nothing. CAUSE_NONE, also where nothing is
 * limited, or the cause that names the limit; the claim then has wait_s. Not on a claim that is taken.
 */
enum cause rate_take(struct rate_table *table, uint32_t tenant, uint32_t label, const struct demand *demand,
    uint64_t now_ns, struct rate_claim *claim);

/* What a request came to: it counts as one if an engine was asked. */
struct rate_use {
	uint64_t tokens;
	bool is_request;
};

/* It has ended. On a claim that is not taken does nothing. */
void rate_settle(struct rate_table *table, uint32_t tenant, struct rate_use use, uint64_t now_ns,
    struct rate_claim *claim);

/* Whether its answers say how much is left. */
bool rate_is_limited(const struct rate_table *table, uint32_t tenant);

/* Lines of x-ratelimit fields, as OpenAI has them, each with its CRLF; empty when it is not limited. */
struct slice rate_fields(const struct rate_table *table, uint32_t tenant, uint32_t label, uint64_t now_ns,
    char room[static RATE_FIELDS_BYTES]);
