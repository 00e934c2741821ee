#include "router/tenancy.h"

#include "router/proof.h"

static enum cause count_refusal(const struct exchange *x, enum cause cause) {
	if (cause == CAUSE_INVALID_KEY || cause == CAUSE_CREDENTIALS)
		metric_add(&x->worker->metrics->keys_refused, 1);
	return cause;
}

/* Keys of ours come first; about others somebody else is asked. */
static enum cause admit_by_verdict(struct exchange *x, const struct head *request) {
	uint8_t digest[DIGEST_BYTES];
	struct slice key;
	enum cause cause = tenant_key(request, &key);

	if (cause)
		return cause;
	digester_sha256(x->worker->digester, key, digest);
	x->tenant = (uint16_t)tenant_table_find(exchange_config(x)->tenants, digest);
	return x->tenant == TENANT_ANONYMOUS ? proof_take(x, key, digest) : CAUSE_NONE;
}

enum cause tenancy_admit(struct exchange *x, const struct head *request) {
	const struct worker *w = x->worker;

	if (w->router->verdicts)
		return count_refusal(x, admit_by_verdict(x, request));
	return count_refusal(x, tenant_admit(exchange_config(x)->tenants, w->digester, request, &x->tenant));
}

bool tenancy_hear(struct exchange *x, enum cause *cause_out) {
	if (!proof_hear(x, cause_out))
		return true;
	count_refusal(x, *cause_out);
	return false;
}

/* A request without a body has no prompt: it makes no model work. */
static bool is_harmless(const struct exchange *x, const struct head *request) {
	return x->is_repeatable || request->framing == FRAMING_NONE ||
	    (request->framing == FRAMING_LENGTH && !request->content_length);
}

enum cause tenancy_permit(struct exchange *x, struct slice model, const struct head *request) {
	const struct tenant *tenant = tenancy_of(x);

	if (tenant_may_use(tenant, model) || (!model.n && is_harmless(x, request)))
		return CAUSE_NONE;
	metric_add(&x->worker->tenants[tenant->label].n_denied, 1);
	return CAUSE_TENANT_DENIED;
}

enum cause tenancy_reserve(struct exchange *x, const struct model *model, const struct demand *demand) {
	struct worker *w = x->worker;

	if (rate_is_taken(&x->claim))
		return CAUSE_NONE;
	enum cause cause =
	    rate_take(x->settings->rates, x->tenant, model->label, demand, w->loop.now_ns, &x->claim);
	if (cause)
		metric_add(&w->tenants[tenancy_of(x)->label].n_limited, 1);
	return cause;
}

/*
 * What the engine says it came to. Where it says nothing: the prompt once the engine had it, and what was
 * seen of the answer; a whole answer that cannot be read is taken to be what was expected. Refusals cost
 * nothing.
 */
static uint64_t used_tokens(const struct exchange *x) {
	const struct tap *tap = &x->tap;
	uint64_t n_seen =
	    x->cause ? tap->n_events : 0; /* a stream that was cut says late, or never, how much */

	if (!x->n_sends || x->cause == CAUSE_UPSTREAM_REFUSED || (x->at.first_byte && x->status >= 400))
		return 0;
	if (!x->at.first_byte)
		return x->claim.prompt_tokens;
	if (tap->has_usage)
		return tap->tokens_in + u64_max(tap->tokens_out, n_seen);
	if (tap->kind == TAP_EVENTS || x->cause)
		return (uint64_t)x->claim.prompt_tokens + tap->n_events;
	return x->claim.tokens;
}

void tenancy_settle(struct exchange *x) {
	struct rate_use use = { .tokens = used_tokens(x), .is_request = x->n_sends };

	rate_settle(x->settings->rates, x->tenant, use, x->worker->loop.now_ns, &x->claim);
}

static uint64_t limit_of(const struct exchange *x, enum cause cause) {
	switch (cause) {
	case CAUSE_REQUEST_RATE:
		return tenancy_of(x)->requests_per_minute;
	case CAUSE_TOKEN_RATE:
		return tenancy_of(x)->tokens_per_minute;
	case CAUSE_ROUTER_RATE:
		return exchange_config(x)->requests_per_second;
	default:
		return 0;
	}
}

const char *tenancy_detail(const struct exchange *x, enum cause cause, char *room, size_t size) {
	uint64_t limit = limit_of(x, cause);

	if (!limit)
		return NULL;
	snprintf(room, size, "%llu, there is room for this request in %u s", (unsigned long long)limit,
	    x->claim.wait_s);
	return room;
}

struct slice tenancy_fields(
    const struct exchange *x, const struct head *request, char room[static TENANCY_FIELDS_BYTES]) {
	size_t n = 0;

	if (exchange_config(x)->cors_origins.n)
		n = cors_fields(&exchange_config(x)->cors_origins, request, room).n;
	if (!x->claim.tokens) /* it has come to no limit yet */
		return (struct slice){ room, n };
	n += rate_fields(x->settings->rates, x->tenant, x->claim.label, x->worker->loop.now_ns, room + n).n;
	return (struct slice){ room, n };
}

void tenancy_count(const struct exchange *x, uint64_t tokens_in, uint64_t tokens_out) {
	struct worker_tenant *t = &x->worker->tenants[tenancy_of(x)->label];

	metric_add(&t->n_requests, 1);
	metric_add(&t->tokens_in, tokens_in);
	metric_add(&t->tokens_out, tokens_out);
}
