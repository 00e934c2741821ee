/*
 * tenancy: what an exchange owes to whose it is: who asks, what it may ask for, what it reserves and what
 * that came to. The tables behind it are the router's (router/tenant.h, router/rate.h).
 */
#pragma once

#include "router/exchange.h"

#define TENANCY_FIELDS_BYTES (CORS_FIELDS_BYTES + RATE_FIELDS_BYTES)

static inline const struct tenant *tenancy_of(const struct exchange *x) {
	return settings_tenant(x->settings, x->tenant);
}

/* Who asks. CAUSE_NONE, or why it is refused. With x->inquiry somebody else is asked that: the exchange waits
 * for tenancy_hear(). */
enum cause tenancy_admit(struct exchange *x, const struct head *request);

/* Woken: whether it has to wait on; else *cause_out is as tenancy_admit() has it. */
must_use bool tenancy_hear(struct exchange *x, enum cause *cause_out);

/*
 * Whether it may ask for the model of this name (empty: it names none, and what is in `request` may reach
 * any model). CAUSE_NONE or CAUSE_TENANT_DENIED.
 */
enum cause tenancy_permit(struct exchange *x, struct slice model, const struct head *request);

/* Before the first pick, by what it asks for; later calls do nothing. CAUSE_NONE, or the limit. */
enum cause tenancy_reserve(struct exchange *x, const struct model *model, const struct demand *demand);

/* At settle, once: what was reserved comes to what was used. */
void tenancy_settle(struct exchange *x);

/* What the refusal for a limit says of it; NULL: the cause is none of those. */
const char *tenancy_detail(const struct exchange *x, enum cause cause, char *room, size_t size);

/* What its answer's head says of origins and limits: lines with their CRLF, maybe none. */
struct slice tenancy_fields(
    const struct exchange *x, const struct head *request, char room[static TENANCY_FIELDS_BYTES]);

/* Adds what the request counts for its tenant: at settle, with its tokens as the journal has them. */
void tenancy_count(const struct exchange *x, uint64_t tokens_in, uint64_t tokens_out);
